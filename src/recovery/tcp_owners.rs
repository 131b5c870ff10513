//! Finds the owners of the control groups in which the sockets at a port were created: from the cgroup2
//! hierarchy and, for `.socket` units, from systemd. `guards` judges the result.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use super::cgroup::{ControlGroup, Hierarchy};
use super::observation::Owner;
use super::systemctl::Systemctl;
use super::tcp_table::{TcpSocket, TcpState};
use super::unit::{SocketUnit, UnitState};
use crate::clock::Monotonic;

/// The time limit for finding the control group with a given id.
const SEARCH: Duration = Duration::from_millis(500);

/// The owner of each group id in `table`, for the service that `unit` describes. `manager` is the path of the
/// service manager's own group, if known.
///
/// # Errors
///
/// A message, if the unit's group cannot be read.
pub(super) fn owners(
    unit: &UnitState,
    manager: Option<&str>,
    systemctl: &Systemctl,
    table: &[TcpSocket],
) -> Result<HashMap<u64, Owner>, String> {
    let hierarchy = Hierarchy::find()?;
    let group = unit.group.as_ref().map_err(|why| why.0.clone())?;
    let own = hierarchy.ids(group)?;
    let ids: HashSet<u64> = table
        .iter()
        .filter(|socket| socket.state == TcpState::Listen || socket.is_connection())
        .filter_map(|socket| socket.group)
        .collect();
    let mut owners = HashMap::new();
    let mut others = Vec::new();
    for id in ids {
        match own.contains(&id) {
            true => drop(owners.insert(id, Owner::Unit)),
            false => others.push(id),
        }
    }
    if others.is_empty() {
        return Ok(owners);
    }
    let sockets = socket_units(unit, systemctl)?;
    let search = Search {
        hierarchy: &hierarchy,
        manager: manager.and_then(ControlGroup::parse),
        sockets: &sockets,
        until: Monotonic::now() + SEARCH,
    };
    owners.extend(others.into_iter().map(|id| (id, search.owner(id))));
    Ok(owners)
}

/// The `.socket` units that trigger the service, by name.
pub(super) fn socket_units(
    unit: &UnitState,
    systemctl: &Systemctl,
) -> Result<Vec<(String, SocketUnit)>, String> {
    let sockets = unit.triggered_by.iter();
    sockets
        .filter(|name| name.strip_suffix(".socket").is_some())
        .map(|name| Ok((name.clone(), systemctl.show_socket(name)?)))
        .collect()
}

struct Search<'a> {
    hierarchy: &'a Hierarchy,
    manager: Option<ControlGroup>,
    sockets: &'a [(String, SocketUnit)],
    until: Monotonic,
}

impl Search<'_> {
    fn owner(&self, id: u64) -> Owner {
        for (name, socket) in self.sockets {
            let group = socket.group.as_ref();
            if group.is_some_and(|group| self.has(group, id)) {
                return Owner::SocketUnit(name.clone());
            }
        }
        if self
            .manager
            .as_ref()
            .is_some_and(|group| self.has(group, id))
        {
            let listens = self.sockets.iter().flat_map(|(_, socket)| &socket.listens);
            return Owner::Manager(listens.cloned().collect());
        }
        match self.hierarchy.path_of_id(id, self.until) {
            Ok(Some(path)) => Owner::Foreign(path),
            Ok(None) => Owner::Removed,
            Err(why) => Owner::Unknown(why),
        }
    }

    fn has(&self, group: &ControlGroup, id: u64) -> bool {
        self.hierarchy.ids(group).is_ok_and(|ids| ids.contains(&id))
    }
}
