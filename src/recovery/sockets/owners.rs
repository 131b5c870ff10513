//! Finds the owners of the control groups in which the sockets at a port were created: from the cgroup2
//! hierarchy and, for `.socket` units, from systemd. The guards judge the result.

use std::collections::{HashMap, HashSet};

use super::super::cgroup::ControlGroup;
use super::super::host::Host;
use super::super::systemd::Unit;

/// The owner of the control group of a socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Owner {
    /// The unit's own group, or one below it.
    Unit,
    /// The group of a `.socket` unit that triggers the unit; its name.
    SocketUnit(String),
    /// The service manager's own group: it creates the sockets of `.socket` units. Contains what those
    /// `.socket` units that trigger the unit list in `Listen=`.
    Manager(Vec<String>),
    /// Another group; its path.
    Foreign(String),
    /// A group that no longer exists.
    Removed,
    /// It could not be determined; why.
    Unknown(String),
}

/// The service manager as the owner, on behalf of these `.socket` units.
pub(crate) fn manager(socket_units: &[&Unit]) -> Owner {
    let listens = socket_units.iter().flat_map(|unit| unit.listens());
    Owner::Manager(listens.map(str::to_owned).collect())
}

/// Where owners are looked for.
pub(crate) struct Search<'a, H> {
    pub(crate) host: &'a H,
    /// The service manager's own group, if known.
    pub(crate) manager: Option<&'a ControlGroup>,
    /// The `.socket` units that trigger the service.
    pub(crate) socket_units: &'a dyn Fn() -> Result<Vec<&'a Unit>, String>,
}

impl<H: Host> Search<'_, H> {
    /// The owner of each of the groups `ids`; `own` are those of the unit.
    ///
    /// # Errors
    ///
    /// A message, if systemd does not tell about the `.socket` units.
    pub(crate) fn owners(
        &self,
        own: &HashSet<u64>,
        ids: &HashSet<u64>,
    ) -> Result<HashMap<u64, Owner>, String> {
        let mut owners = HashMap::new();
        for &id in ids {
            let owner = if own.contains(&id) {
                Owner::Unit
            } else {
                self.other_owner(id)?
            };
            owners.insert(id, owner);
        }
        Ok(owners)
    }

    fn other_owner(&self, id: u64) -> Result<Owner, String> {
        let socket_units = (self.socket_units)()?;
        let has = |group: &ControlGroup| {
            let ids = self.host.group_ids(group);
            ids.is_ok_and(|ids| ids.contains(&id))
        };
        for unit in &socket_units {
            if unit.control_group().is_ok_and(|group| has(&group)) {
                return Ok(Owner::SocketUnit(unit.id().unwrap_or_default().to_owned()));
            }
        }
        if self.manager.is_some_and(has) {
            return Ok(manager(&socket_units));
        }
        Ok(match self.host.path_of_group(id) {
            Ok(Some(path)) => Owner::Foreign(path),
            Ok(None) => Owner::Removed,
            Err(why) => Owner::Unknown(why),
        })
    }
}
