//! Finds the owner of a UNIX socket, for which the kernel does not show the control group. The guards judge the
//! result.

use std::fs;
use std::os::fd::AsFd;
use std::path::Path;
use std::time::{Duration, SystemTime};

use super::super::cgroup::{ControlGroup, Hierarchy};
use super::super::{pidfd, processes};
use super::owners::Owner;
use super::unix::UnixListener;
use crate::sweep::UnixPeer;

/// The owner of the socket at `path`, for the service whose control group is `own`: by the peers of the probes'
/// connections or, where none could be made, by the descriptors of the unit's processes. `manager` is the service
/// manager's own group. What its `.socket` units list is left to the caller.
///
/// # Errors
///
/// Why it cannot be determined.
pub(crate) fn owner(
    path: &Path,
    own: &ControlGroup,
    peers: &[UnixPeer],
    manager: Option<&ControlGroup>,
    listeners: &[UnixListener],
) -> Result<Owner, String> {
    let mut owner = None;
    for peer in peers {
        owner = Some(owner_of(path, own, peer, manager));
        // The socket may have been replaced during the sweep: no request may wait at another unit's.
        if let Some(Ok(Owner::Foreign(_))) = owner {
            break;
        }
    }
    owner.unwrap_or_else(|| by_descriptor(listeners, own))
}

/// The owner by the process `peer`.
fn owner_of(
    path: &Path,
    own: &ControlGroup,
    peer: &UnixPeer,
    manager: Option<&ControlGroup>,
) -> Result<Owner, String> {
    let group = group_of(path, peer)?;
    if peer.pid == 1 || manager.is_some_and(|manager| manager.as_str() == group) {
        return Ok(Owner::Manager(Vec::new()));
    }
    if own.contains(&group) {
        Ok(Owner::Unit)
    } else {
        Ok(Owner::Foreign(group))
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

/// Whether a process of `group` has a descriptor of one of `listeners`. Used if no connection could be made
/// because the accept queue is full.
fn by_descriptor(listeners: &[UnixListener], group: &ControlGroup) -> Result<Owner, String> {
    let wanted: Vec<String> = (listeners.iter())
        .map(|listener| format!("socket:[{}]", listener.inode))
        .collect();
    let mut refused = false;
    for pid in Hierarchy::find()?.contents(group)?.processes {
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

    use std::sync::Arc;

    use rustix::process::{Pid, PidfdFlags, pidfd_open};

    use super::super::super::cgroup::tests::Sleepers;
    use super::*;

    #[test]
    fn a_socket_at_which_another_unit_listened_during_the_sweep_is_foreign() {
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
        let owner = |peers: &[UnixPeer]| {
            owner(Path::new("/nonexistent"), &sleepers.group, peers, None, &[]).unwrap()
        };
        assert_eq!(owner(std::slice::from_ref(&own)), Owner::Unit);
        for peers in [[other.clone(), own.clone()], [own, other]] {
            let owner = owner(&peers);
            assert!(matches!(owner, Owner::Foreign(_)), "{owner:?}");
        }
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
