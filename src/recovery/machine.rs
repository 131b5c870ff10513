//! Implements [`Host`] with this machine.

use std::cell::RefCell;
use std::collections::HashSet;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use nix::errno::Errno;
use nix::sys::signal::Signal;
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, UnixAddr, connect, getsockopt, socket, sockopt,
};

use super::cgroup::{ControlGroup, Hierarchy};
use super::evidence::{self, ProcessEvidence};
use super::facts::{Context, CpuTimes, Group, MainProcess};
use super::host::{Host, NotSent};
use super::pidfd::PidFd;
use super::sockets::owners::Owner;
use super::sockets::reader::{Reading, SocketReader};
use super::sockets::unix::UnixListener;
use super::sockets::unix_owner;
use super::systemd::{Systemctl, Unit, missing_path};
use super::{MainPid, RecoveryRequest, processes, stacks};
use crate::clock::Monotonic;
use crate::escape::escape;
use crate::manifest::{Manifest, RecoveryPlan, Scope, Source};
use crate::privileges::Caller;
use crate::sweep::{ParkedRequest, UnixPeer};

/// The time limit for finding the control group with a given id.
const SEARCH: Duration = Duration::from_millis(500);

/// This machine.
pub(super) struct Machine<'a> {
    systemctl: Systemctl,
    sockets: RefCell<SocketReader>,
    unix_socket: Option<PathBuf>,
    unix_peers: Box<dyn Fn() -> Vec<UnixPeer> + Send + 'a>,
    own_pid: u32,
    dump_signal: Option<Signal>,
    /// The recovery, if the backend hangs.
    hung: Option<&'a RecoveryRequest<'a>>,
}

/// A process, held by a pidfd.
pub(super) struct Held {
    pid: MainPid,
    fd: PidFd,
}

impl<'a> Machine<'a> {
    /// The machine for the backend of `manifest`. `unix_peers` lists the peers of the probes' connections to its
    /// UNIX socket.
    pub(super) fn new(
        manifest: &Manifest,
        systemctl: Systemctl,
        unix_peers: impl Fn() -> Vec<UnixPeer> + Send + 'a,
        hung: Option<&'a RecoveryRequest<'a>>,
    ) -> Self {
        Self {
            systemctl,
            sockets: RefCell::new(SocketReader::new(manifest)),
            unix_socket: manifest.unix_socket.clone(),
            unix_peers: Box::new(unix_peers),
            own_pid: std::process::id(),
            dump_signal: manifest.recovery.as_ref().and_then(|plan| plan.dump_signal),
            hung,
        }
    }
}

impl Host for Machine<'_> {
    type Process = Held;

    fn now(&self) -> Monotonic {
        Monotonic::now()
    }

    fn wall_clock(&self) -> SystemTime {
        SystemTime::now()
    }

    fn pause(&self, length: Duration) {
        std::thread::sleep(length);
    }

    fn show(&self, unit: &str) -> Result<Unit, String> {
        self.systemctl.show(unit)
    }

    fn neighbours(&self, unit: &Unit) -> Result<Vec<Unit>, String> {
        self.systemctl.neighbours(unit)
    }

    fn missing_path(&self, unit: &Unit) -> Option<String> {
        missing_path(unit)
    }

    fn open(&self, pid: MainPid) -> Result<Option<Held>, String> {
        match PidFd::open(pid.get()) {
            Ok(fd) => Ok(Some(Held { pid, fd })),
            Err(Errno::ESRCH) => Ok(None),
            Err(error) => Err(format!(
                "process {}: cannot open a pidfd (pidfd_open(2) is missing or forbidden): {error}",
                pid.get()
            )),
        }
    }

    fn inspect(&self, process: &Held) -> MainProcess {
        let vitals = processes::vitals(process.pid.get());
        // Checked last: while the process lives, its PID is not reused, so the facts are its own.
        if process.fd.died_within(Duration::ZERO) {
            return MainProcess::Gone("it has died");
        }
        vitals.map_or(MainProcess::Hidden, MainProcess::Alive)
    }

    fn group(&self, group: &ControlGroup) -> Result<Group, String> {
        let hierarchy = Hierarchy::find()?;
        let contents = hierarchy.contents(group)?;
        let times = hierarchy
            .waited_for_cpu(group)
            .zip(hierarchy.used_cpu(group));
        let at = Monotonic::now();
        Ok(Group {
            ids: contents.ids,
            members: processes::members(&contents.processes)?,
            frozen: contents.frozen,
            cpu: times.map(|(waited, used)| CpuTimes { at, waited, used }),
        })
    }

    fn group_ids(&self, group: &ControlGroup) -> Result<HashSet<u64>, String> {
        Ok(Hierarchy::find()?.contents(group)?.ids)
    }

    fn path_of_group(&self, id: u64) -> Result<Option<String>, String> {
        Hierarchy::find()?.path_of_id(id, Monotonic::now() + SEARCH)
    }

    fn read_sockets(&self, connections: bool) -> Result<Reading, String> {
        let mut reader = self.sockets.borrow_mut();
        if connections {
            reader.read()
        } else {
            reader.read_listeners()
        }
    }

    fn unix_owner(
        &self,
        own: &ControlGroup,
        manager: Option<&ControlGroup>,
        listeners: &[UnixListener],
    ) -> (String, Result<Owner, String>) {
        let Some(path) = &self.unix_socket else {
            return (String::new(), Err("there is no UNIX socket".to_owned()));
        };
        let peers = (self.unix_peers)();
        if peers.is_empty() && self.hung.is_none() {
            // The probes have not connected yet.
            return (path.display().to_string(), Ok(Owner::Unit));
        }
        let owner = unix_owner::owner(path.as_path(), own, &peers, manager, listeners);
        (path.display().to_string(), owner)
    }

    fn parked(&self) -> Vec<ParkedRequest> {
        self.hung.map_or_else(Vec::new, |hung| hung.prober.parked())
    }

    fn processes(&self, main: MainPid, group: &Group, until: Monotonic) -> Vec<ProcessEvidence> {
        evidence::processes(main.get(), group, self.dump_signal, until)
    }

    fn log(&self, line: &str) {
        if let Some(hung) = self.hung {
            (hung.log)(line);
        }
    }

    fn signal(&self, process: &Held, signal: Option<Signal>) -> Result<(), NotSent> {
        let result = match signal {
            Some(signal) => process.fd.signal(signal),
            None => process.fd.may_signal(),
        };
        result.map_err(|error| match error {
            Errno::ESRCH => NotSent::Gone,
            error => NotSent::Refused(error.to_string()),
        })
    }

    fn ask_for_stacks(&self, group: &Group, path: &ControlGroup, signal: Signal) -> Vec<u32> {
        stacks::ask(group, path, signal, self.own_pid)
    }

    fn died_within(&self, process: &Held, at_most: Duration) -> bool {
        process.fd.died_within(at_most)
    }

    fn core_answers(&self, until: Monotonic) -> bool {
        self.hung
            .is_some_and(|hung| hung.prober.core_answers(until))
    }
}

/// The context of a backend that is not known to hang. `addresses` are those of its base URL; none over a UNIX
/// socket.
pub(super) fn context(
    plan: RecoveryPlan,
    source: &Source,
    addresses: Option<Result<Vec<SocketAddr>, String>>,
) -> Context {
    Context {
        user_manager: user_manager(plan.scope),
        plan,
        dry_run: true,
        hung_since: None,
        no_handshake: false,
        starved: None,
        own_pid: std::process::id(),
        not_local: addresses.as_ref().and_then(not_local),
        addresses: addresses.and_then(Result::ok).unwrap_or_default(),
        manifest_writable: source
            .writable_by_others(Caller::current(), "who could have any process killed"),
    }
}

/// The process that serves the private socket of this user's manager, which `systemctl --user` uses.
fn user_manager(scope: Scope) -> Option<u32> {
    if scope != Scope::User {
        return None;
    }
    let folder = std::env::var_os("XDG_RUNTIME_DIR")?;
    listening_process(&Path::new(&folder).join("systemd/private")).filter(|&pid| pid > 1)
}

/// The process that listens at the UNIX socket `path`; none also where its accept queue is full.
fn listening_process(path: &Path) -> Option<u32> {
    // Without blocking: the manager may hang.
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = socket(AddressFamily::Unix, SockType::Stream, flags, None).ok()?;
    connect(socket.as_raw_fd(), &UnixAddr::new(path).ok()?).ok()?;
    let peer = getsockopt(&socket, sockopt::PeerCredentials).ok()?;
    u32::try_from(peer.pid()).ok()
}

/// Why the base URL may resolve to another machine, if that is possible.
fn not_local(addresses: &Result<Vec<SocketAddr>, String>) -> Option<String> {
    let why = match addresses {
        Err(why) => format!("its name cannot be resolved ({})", escape(why)),
        Ok(addresses) if addresses.is_empty() => "its name has no address".to_owned(),
        Ok(addresses) => {
            let foreign = addresses.iter().find(|address| !is_local(**address))?;
            format!("{} is not an address of this machine", foreign.ip())
        }
    };
    Some(format!(
        "base_url may not resolve to this machine: {why}, and a timeout across a network proves nothing about a local process; \
         set it to an address on which the backend listens here, such as 127.0.0.1"
    ))
}

/// Whether `address` belongs to this machine. Only for an address of this machine does the kernel choose
/// the peer's address as the local one; listing the interfaces would need AF_NETLINK, which hardened units
/// forbid.
fn is_local(address: SocketAddr) -> bool {
    let ip = address.ip().to_canonical();
    // Connecting to the unspecified address reaches this machine, ip(7).
    if ip.is_loopback() || ip.is_unspecified() {
        return true;
    }
    let reaches_itself = || {
        let socket = match address {
            SocketAddr::V4(_) => UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)),
            SocketAddr::V6(_) => UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0)),
        }?;
        // Connecting a UDP socket sends nothing; any port will do.
        socket.connect(address)?;
        Ok::<_, std::io::Error>(socket.local_addr()?.ip().to_canonical() == ip)
    };
    reaches_itself().unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use nix::sys::socket::{Backlog, listen};

    use super::*;

    #[test]
    fn a_user_manager_that_hangs_is_not_waited_for() {
        let folder = tempfile::TempDir::new().unwrap();
        let path = folder.path().join("private");
        let listener = UnixListener::bind(&path).unwrap();
        listen(&listener, Backlog::new(0).unwrap()).unwrap();
        assert_eq!(listening_process(&path), Some(std::process::id()));
        assert_eq!(listening_process(&path), None);
    }

    #[test]
    fn not_local_knows_this_machine_from_others() {
        let at = |text: &str| Ok(vec![text.parse().unwrap()]);
        for here in [
            "127.0.0.1:8000",
            "127.9.9.9:1",
            "[::1]:8000",
            "[::ffff:127.0.0.1]:8000",
            "0.0.0.0:8000",
        ] {
            assert_eq!(not_local(&at(here)), None, "{here}");
        }
        // Addresses for documentation (RFC 5737, RFC 3849), which no machine has.
        for there in [
            "192.0.2.1:8000",
            "[2001:db8::1]:8000",
            "[::ffff:192.0.2.1]:8000",
        ] {
            let why = not_local(&at(there)).unwrap();
            assert!(why.contains("is not an address of this machine"), "{why}");
        }
        let both = Ok(vec![
            "127.0.0.1:80".parse().unwrap(),
            "192.0.2.1:80".parse().unwrap(),
        ]);
        assert!(not_local(&both).unwrap().contains("192.0.2.1"));
        assert!(not_local(&Ok(Vec::new())).unwrap().contains("no address"));
        assert!(
            not_local(&Err("no\nsuch name".to_owned()))
                .unwrap()
                .contains("no\\nsuch name")
        );
    }

    #[test]
    fn not_local_knows_the_external_address_of_this_machine() {
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        if socket.connect("192.0.2.1:9").is_ok() {
            assert_eq!(not_local(&Ok(vec![socket.local_addr().unwrap()])), None);
        }
    }
}
