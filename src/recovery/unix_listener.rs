//! Finds the process that listens at a UNIX socket, for which the kernel shows neither control group nor byte
//! counts. What that means for a kill is judged in `proofs`.

use std::fs;
use std::os::fd::AsFd;
use std::path::Path;
use std::time::{Duration, SystemTime};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::cgroup::{ControlGroup, Hierarchy};
use super::observation::{UnixFacts, UnixOwner};
use super::systemctl::Systemctl;
use super::unit::UnitState;
use super::{owners, processes};
use crate::manifest::SocketPath;
use crate::sweep::UnixPeer;

/// The socket at `path`, for the service that `unit` describes. `peers` are those that the probes'
/// connections named, and `manager` the path of the service manager's own group.
pub(super) fn facts(
    path: &SocketPath,
    unit: &UnitState,
    peers: &[UnixPeer],
    manager: Option<&str>,
    systemctl: &Systemctl,
) -> UnixFacts {
    let owner = match peers.last() {
        Some(peer) => of_peer(path.as_path(), peer, manager).and_then(|process| {
            if let Some(owner) = process {
                return Ok(owner);
            }
            let sockets = owners::socket_units(unit, systemctl)?.into_iter();
            let listens = sockets.flat_map(|(_, socket)| socket.listens);
            Ok(UnixOwner::Manager(listens.collect()))
        }),
        None => unit
            .group
            .as_ref()
            .map_err(|why| why.0.clone())
            .and_then(|group| by_descriptor(path.as_path(), group)),
    };
    UnixFacts {
        path: path.to_string(),
        owner,
    }
}

/// The process that `peer` names; none where it is the service manager.
fn of_peer(
    path: &Path,
    peer: &UnixPeer,
    manager: Option<&str>,
) -> Result<Option<UnixOwner>, String> {
    let pid = peer.pid;
    let hidden = || format!("the process that listens ({pid}) is outside this PID namespace");
    if pid == 0 {
        return Err(hidden());
    }
    let vitals = processes::vitals(pid);
    let same = match &peer.pidfd {
        Some(process) => is_alive(process),
        None => vitals
            .as_ref()
            .is_some_and(|vitals| listened(path, vitals.age)),
    };
    if !same {
        return Err(format!(
            "process {pid}, which listened there, has ended, and another one serves the socket"
        ));
    }
    let group = vitals.and_then(|vitals| vitals.group).ok_or_else(hidden)?;
    if pid == 1 || manager == Some(group.as_str()) {
        return Ok(None);
    }
    Ok(Some(UnixOwner::Process { pid, group }))
}

/// Whether the process that is held by `pidfd` lives: pidfd_open(2), "poll".
fn is_alive(pidfd: &impl AsFd) -> bool {
    let mut fds = [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)];
    poll(&mut fds, PollTimeout::ZERO) == Ok(0)
}

/// Whether a process of this age can be the one that created the socket, rather than a later one that
/// was given its number. For kernels without SO_PEERPIDFD.
fn listened(path: &Path, age: Duration) -> bool {
    // The clock of the file's time may have been set since.
    const SLACK: Duration = Duration::from_secs(60);
    let created = fs::metadata(path).and_then(|facts| facts.modified());
    created.is_ok_and(|created| {
        let exists = SystemTime::now().duration_since(created);
        exists.unwrap_or_default() <= age + SLACK
    })
}

/// The process of `group` that has a descriptor of the socket, where no connection could be made
/// because the queue is full.
fn by_descriptor(path: &Path, group: &ControlGroup) -> Result<UnixOwner, String> {
    let table = table()?;
    let wanted: Vec<String> = listening(&table, path)
        .map(|inode| format!("socket:[{inode}]"))
        .collect();
    let mut refused = false;
    for pid in Hierarchy::find()?.processes(group)? {
        let Ok(descriptors) = fs::read_dir(format!("/proc/{pid}/fd")) else {
            refused = true;
            continue;
        };
        let links = descriptors
            .flatten()
            .filter_map(|fd| fs::read_link(fd.path()).ok());
        for link in links {
            if wanted
                .iter()
                .any(|wanted| link.as_os_str() == wanted.as_str())
            {
                let group = processes::group_of(pid).ok_or("it has just ended")?;
                return Ok(UnixOwner::Process { pid, group });
            }
        }
    }
    Err(match refused {
        true => "its accept queue is full, and the descriptors of the unit's processes may not be read: run as the backend's own user".to_owned(),
        false => "its accept queue is full, and no process of the unit has a descriptor of it".to_owned(),
    })
}

/// The text of `/proc/net/unix`. Another program's address need not be UTF-8.
fn table() -> Result<String, String> {
    let table = fs::read("/proc/self/net/unix")
        .map_err(|error| format!("/proc/self/net/unix cannot be read: {}", error.kind()))?;
    Ok(String::from_utf8_lossy(&table).into_owned())
}

/// The inodes of the sockets that listen at `path`, in the text of `/proc/net/unix`.
pub(super) fn listening<'a>(table: &'a str, path: &'a Path) -> impl Iterator<Item = &'a str> {
    // __SO_ACCEPTCON, include/uapi/linux/net.h
    const ACCEPTS: u32 = 1 << 16;
    table.lines().filter_map(move |line| {
        // Num: RefCount Protocol Flags Type St Inode Path
        let mut rest = line;
        let mut field = || {
            let (field, behind) = rest.trim_ascii_start().split_once(' ')?;
            rest = behind;
            Some(field)
        };
        let mut fields = std::iter::from_fn(&mut field);
        let flags = u32::from_str_radix(fields.nth(3)?, 16).ok()?;
        let inode = fields.nth(2)?;
        // What is left is the path, which may hold spaces; an abstract address is no path (unix(7)).
        (flags & ACCEPTS != 0 && Path::new(rest) == path).then_some(inode)
    })
}

#[cfg(test)]
mod tests {
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::net::{SocketAddr, UnixListener};

    use super::*;

    #[test]
    fn listening_finds_the_socket_of_a_path() {
        let folder = tempfile::TempDir::new().unwrap();
        let path = folder.path().join("a b.sock");
        let _listener = UnixListener::bind(&path).unwrap();
        // Addresses of others, which are no paths.
        let mut abstract_name = b"\xff /".to_vec();
        abstract_name.extend(path.as_os_str().as_encoded_bytes());
        let other = SocketAddr::from_abstract_name(abstract_name).unwrap();
        let _other = UnixListener::bind_addr(&other).unwrap();
        let table = table().unwrap();
        assert_eq!(listening(&table, &path).count(), 1);
        let inode = listening(&table, &path).next().unwrap();
        assert!(inode.parse::<u64>().unwrap() > 0);
        assert_eq!(listening(&table, Path::new("/nonexistent")).next(), None);
    }

    #[test]
    fn listened_wants_a_process_that_is_older_than_the_socket() {
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
