//! The owner of a socket, by the control group in which it was created. The kernel does not show that of a UNIX
//! socket, so the process that listens is looked for. The guards judge the result.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::super::cgroup::{ControlGroup, Hierarchy};
use super::super::systemd::Unit;
use super::super::{pidfd, proc};
use super::unix::UnixListener;
use crate::sweep::UnixPeer;

/// The owner of a socket.
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
    /// It could not be determined; why.
    Unknown(String),
}

impl Owner {
    /// The owner of a socket from the control group at `path`. `own` is the group of `unit`, `manager` that of
    /// the service manager; `neighbours` contain the `.socket` units.
    pub(crate) fn of(
        path: String,
        own: &ControlGroup,
        manager: &str,
        unit: &Unit,
        neighbours: Result<&[Unit], String>,
    ) -> Self {
        if own.contains(&path) {
            return Self::Unit;
        }
        let names: Vec<&str> = unit.triggered_by(".socket").collect();
        let triggers = |unit: &&Unit| unit.id().is_some_and(|id| names.contains(&id));
        let socket_units: Vec<_> = match neighbours {
            Ok(units) => units.iter().filter(triggers).collect(),
            Err(why) => return Self::Unknown(why),
        };
        let is_above = |group: ControlGroup| group.contains(&path);
        let contains = |unit: &&&Unit| unit.control_group().is_ok_and(is_above);
        if let Some(unit) = socket_units.iter().find(contains) {
            Self::SocketUnit(unit.id().unwrap_or_default().to_owned())
        } else if path == manager {
            let listens = socket_units.iter().flat_map(|unit| unit.listens());
            Self::Manager(listens.map(str::to_owned).collect())
        } else {
            Self::Foreign(path)
        }
    }
}

/// The control groups of the processes that have listened at `path` during the sweep, each or why it is unknown: by
/// the `peers` of the probes' connections or, where none could be made, by the descriptors of the processes of `own`.
pub(crate) fn unix_groups(
    path: &Path,
    own: &ControlGroup,
    peers: &[UnixPeer],
    listeners: &[UnixListener],
) -> Vec<Result<String, String>> {
    if peers.is_empty() {
        return vec![by_descriptor(listeners, own)];
    }
    peers.iter().map(|peer| group_of(path, peer)).collect()
}

/// The control group of the process `peer`.
fn group_of(path: &Path, peer: &UnixPeer) -> Result<String, String> {
    let pid = peer.pid;
    let hidden = || format!("the process that listens ({pid}) is outside this PID namespace");
    if pid == 0 {
        return Err(hidden());
    }
    let vitals = proc::vitals(pid);
    let same = match &peer.pidfd {
        Some(process) => !pidfd::died_within(process, Duration::ZERO),
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
    created.is_ok_and(|created| created.elapsed().unwrap_or_default() <= age + SLACK)
}

/// `own`, if one of its processes has a descriptor of one of `listeners`. Used if no connection could be made
/// because the accept queue is full.
fn by_descriptor(listeners: &[UnixListener], own: &ControlGroup) -> Result<String, String> {
    let is_listener = |link: PathBuf| {
        let mut inodes = listeners.iter().map(|listener| listener.inode);
        inodes.any(|inode| link.as_os_str() == &*format!("socket:[{inode}]"))
    };
    let mut refused = false;
    for process in Hierarchy::find()?.group(own)?.members {
        let Ok(descriptors) = fs::read_dir(format!("/proc/{}/fd", process.pid)) else {
            refused = true;
            continue;
        };
        let mut links = descriptors
            .flatten()
            .flat_map(|fd| fs::read_link(fd.path()));
        if links.any(is_listener) {
            return Ok(own.as_str().to_owned());
        }
    }
    Err(if refused {
        "its accept queue is full, and the descriptors of the unit's processes may not be read: run as the backend's own user"
    } else {
        "its accept queue is full, and no process of the unit has a descriptor of it"
    }
    .to_owned())
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;
    use std::time::SystemTime;

    use std::sync::Arc;

    use rustix::process::{Pid, PidfdFlags, pidfd_open};

    use super::super::super::cgroup::tests::Sleepers;
    use super::*;

    #[test]
    fn unix_groups_are_those_of_the_peers() {
        let Some(sleepers) = Sleepers::start(1) else {
            return;
        };
        let peer = |pid: u32| UnixPeer {
            pid,
            pidfd: Pid::from_raw(pid.cast_signed())
                .and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok())
                .map(Arc::new),
        };
        let own = peer(sleepers.processes[0].id());
        let other = peer(std::process::id());
        let groups = unix_groups(
            Path::new("/nonexistent"),
            &sleepers.group,
            &[own, other],
            &[],
        );
        let [Ok(own), Ok(other)] = &groups[..] else {
            panic!("{groups:?}");
        };
        assert_eq!(own, sleepers.group.as_str());
        assert!(!sleepers.group.contains(other), "{other}");
    }

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
