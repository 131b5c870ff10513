//! Finds the owner of a UNIX socket, for which the kernel shows neither control group nor byte counts.
//! `guards` judges the result.

use std::fs;
use std::os::fd::AsFd;
use std::path::Path;
use std::time::{Duration, SystemTime};

use super::cgroup::{ControlGroup, Hierarchy};
use super::observation::{Owner, UnixFacts};
use super::systemctl::Systemctl;
use super::unit::UnitState;
use super::{pidfd, processes, tcp_owners, unix_diag};
use crate::clock::Monotonic;
use crate::manifest::SocketPath;
use crate::sweep::UnixPeer;

/// How long the search for a descriptor may take.
const LIMIT: Duration = Duration::from_secs(1);

/// The facts about the socket at `path`, for the service that `unit` describes. `peers` are the peers of the
/// probes' connections, `manager` is the path of the service manager's own group.
pub(super) fn facts(
    path: &SocketPath,
    unit: &UnitState,
    peers: &[UnixPeer],
    manager: Option<&str>,
    systemctl: &Systemctl,
) -> UnixFacts {
    let owner = || {
        let own = unit.group.as_ref().map_err(|why| why.0.clone())?;
        let Some(peer) = peers.last() else {
            return by_descriptor(path.as_path(), own);
        };
        let group = group_of(path.as_path(), peer)?;
        if peer.pid == 1 || manager == Some(group.as_str()) {
            let sockets = tcp_owners::socket_units(unit, systemctl)?.into_iter();
            let listens = sockets.flat_map(|(_, socket)| socket.listens);
            return Ok(Owner::Manager(listens.collect()));
        }
        match own.contains(&group) {
            true => Ok(Owner::Unit),
            false => Ok(Owner::Foreign(group)),
        }
    };
    UnixFacts {
        path: path.to_string(),
        owner: owner().unwrap_or_else(Owner::Unknown),
    }
}

/// The control group of the process `peer`.
fn group_of(path: &Path, peer: &UnixPeer) -> Result<String, String> {
    let pid = peer.pid;
    let hidden = || format!("the process that listens ({pid}) is outside this PID namespace");
    if pid == 0 {
        return Err(hidden());
    }
    let vitals = processes::vitals(pid);
    let same = match &peer.pidfd {
        Some(process) => !pidfd::died_within(process.as_fd(), Duration::ZERO),
        None => vitals
            .as_ref()
            .is_some_and(|vitals| listened(path, vitals.age)),
    };
    if !same {
        return Err(format!(
            "process {pid}, which listened there, has ended, and another one serves the socket"
        ));
    }
    vitals.and_then(|vitals| vitals.group).ok_or_else(hidden)
}

/// Whether a process of this age can be the one that created the socket, rather than a later one with a
/// reused PID. For kernels without SO_PEERPIDFD.
fn listened(path: &Path, age: Duration) -> bool {
    // The wall clock, from which the file has its time, may have been set since.
    const SLACK: Duration = Duration::from_secs(60);
    let created = fs::metadata(path).and_then(|facts| facts.modified());
    created.is_ok_and(|created| {
        let exists = SystemTime::now().duration_since(created);
        exists.unwrap_or_default() <= age + SLACK
    })
}

/// Whether a process of `group` has a descriptor of the socket. Used if no connection could be made because
/// the accept queue is full.
fn by_descriptor(path: &Path, group: &ControlGroup) -> Result<Owner, String> {
    let mut wanted = Vec::new();
    unix_diag::listeners(path, Monotonic::now() + LIMIT, |listener| {
        wanted.push(format!("socket:[{}]", listener.inode));
    })?;
    let mut refused = false;
    for pid in Hierarchy::find()?.processes(group)? {
        let Ok(descriptors) = fs::read_dir(format!("/proc/{pid}/fd")) else {
            refused = true;
            continue;
        };
        let mut links = descriptors
            .flatten()
            .filter_map(|fd| fs::read_link(fd.path()).ok());
        if links.any(|link| {
            wanted
                .iter()
                .any(|wanted| link.as_os_str() == wanted.as_str())
        }) {
            return Ok(Owner::Unit);
        }
    }
    Err(match refused {
        true => "its accept queue is full, and the descriptors of the unit's processes may not be read: run as the backend's own user".to_owned(),
        false => "its accept queue is full, and no process of the unit has a descriptor of it".to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn listened_requires_a_process_that_is_older_than_the_socket() {
        let folder = tempfile::TempDir::new().unwrap();
        let path = folder.path().join("a.sock");
        let _listener = UnixListener::bind(&path).unwrap();
        assert!(listened(&path, Duration::ZERO));
        let yesterday = SystemTime::now() - Duration::from_secs(86_400);
        fs::File::open(folder.path()).unwrap();
        let file = path.with_extension("file");
        fs::write(&file, "").unwrap();
        fs::File::options()
            .write(true)
            .open(&file)
            .unwrap()
            .set_modified(yesterday)
            .unwrap();
        assert!(!listened(&file, Duration::from_secs(3_600)));
        assert!(listened(&file, Duration::from_secs(90_000)));
        assert!(!listened(Path::new("/nonexistent"), Duration::MAX / 2));
    }
}
