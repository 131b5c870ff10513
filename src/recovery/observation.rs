//! The facts that the guards judge: those that stay the same during one recovery, and those of one
//! observation of the machine.

use std::collections::HashMap;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use super::proofs::progress::Sign;
use super::tcp_diag::{TcpSocket, TcpState};
use super::unit::UnitState;
use crate::clock::Monotonic;
use crate::manifest::{DumpSignal, KillSignal, Scope};
use crate::sweep::{ProbeConnection, ProbeStatus};

/// The facts that stay the same during one recovery.
#[derive(Clone, Debug)]
pub(super) struct GuardContext<'a> {
    /// The unit's name.
    pub(super) unit: &'a str,
    /// Its manager.
    pub(super) scope: Scope,
    /// The signal to be sent.
    pub(super) signal: KillSignal,
    /// The signal that asks processes for their stacks first.
    pub(super) dump_signal: Option<DumpSignal>,
    /// A main process younger than this is still starting.
    pub(super) min_uptime: Duration,
    /// The time within which the core must answer after the restart.
    pub(super) verify: Duration,
    /// Stop short of the signal.
    pub(super) dry_run: bool,
    /// When the sweep began that found the backend hung.
    pub(super) sweep_began: Monotonic,
    /// Where the probes waited in vain.
    pub(super) silent_at: Vec<SocketAddr>,
    /// How this program was kept from running during the sweep, where it was.
    pub(super) starved: Option<String>,
    /// This process.
    pub(super) own_pid: u32,
    /// The process that serves the user manager's private socket, where one does.
    pub(super) user_manager: Option<u32>,
    /// Why the base URL may lead to another machine.
    pub(super) not_local: Option<String>,
    /// Why the manifest may be another user's.
    pub(super) manifest_writable: Option<String>,
}

/// The facts of one observation, which may be different a moment later.
#[derive(Clone, Debug)]
pub(super) struct Observation {
    /// When systemd was asked.
    pub(super) at: Monotonic,
    /// What systemd says.
    pub(super) unit: UnitState,
    /// The main process of the first observation.
    pub(super) process: Process,
    /// The other processes of the unit; a message where they cannot be read.
    pub(super) members: Result<Members, String>,
    /// The sockets at which the probes waited; a message where they cannot be read.
    pub(super) sockets: Result<Sockets, String>,
    /// The final GET; none before it is sent.
    pub(super) probe: Option<ProbeFacts>,
}

/// The state of the final GET so far.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ProbeFacts {
    pub(super) status: ProbeStatus,
    /// Its connections, several where a name has several addresses.
    pub(super) connections: Vec<ProbeConnection>,
}

/// A main process, as /proc shows it through a pidfd.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Process {
    /// There is no main process.
    None,
    /// It has died; how it is known.
    Gone(&'static str),
    /// It lives, but /proc does not show it.
    Hidden,
    /// It lives.
    Alive(Vitals),
}

impl Process {
    /// The control group of the service manager, where the process is its child; where it is not, a
    /// guard refuses.
    pub(super) fn manager_group(&self) -> Option<&str> {
        match self {
            Self::Alive(vitals) => vitals.parent.group.as_deref(),
            Self::None | Self::Gone(_) | Self::Hidden => None,
        }
    }
}

/// A living process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Vitals {
    /// `R`, `S`, `D`, `T`, `t`, `Z`, …
    pub(super) state: char,
    /// Whether it is dumping core.
    pub(super) dumping: bool,
    /// Whether a SIGKILL is pending already.
    pub(super) kill_pending: bool,
    /// Its age, time during which the machine was suspended included.
    pub(super) age: Duration,
    /// Its control group on cgroup2, where there is one.
    pub(super) group: Option<String>,
    /// Its parent.
    pub(super) parent: Parent,
}

/// The parent of a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Parent {
    /// 0 where it is outside this PID namespace.
    pub(super) pid: u32,
    /// Its control group on cgroup2, where that can be read.
    pub(super) group: Option<String>,
}

/// The processes of a unit's control group and the groups below.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Members {
    /// How many there are beside the main process.
    pub(super) others: usize,
    /// The first one with a debugger or a core dump.
    pub(super) disturbed: Option<Disturbed>,
    /// How long they have waited for a CPU; none where the kernel does not count it.
    pub(super) cpu_wait: Option<CpuWait>,
}

/// A reading of [`Hierarchy::waited_for_cpu`](super::cgroup::Hierarchy::waited_for_cpu).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct CpuWait {
    pub(super) at: Monotonic,
    pub(super) total: Duration,
}

/// A process with a debugger or a core dump.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Disturbed {
    pub(super) pid: u32,
    pub(super) by: Disturbance,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Disturbance {
    /// The process with this PID traces one of its threads.
    Tracer(u32),
    /// A thread is in state `t`.
    TracingStop,
    /// It is dumping core.
    CoreDump,
}

/// The sockets at which the probes waited.
#[derive(Clone, Debug)]
pub(super) enum Sockets {
    Tcp(TcpFacts),
    Unix(UnixFacts),
}

/// What the kernel shows at the backend's TCP port.
#[derive(Clone, Debug, Default)]
pub(super) struct TcpFacts {
    /// Listeners and connections.
    pub(super) table: Vec<TcpSocket>,
    /// The owner of each control group id in the table.
    pub(super) owners: HashMap<u64, Owner>,
    /// The first sign that the backend served another client since the sweep began.
    pub(super) progress: Option<Sign>,
    /// Whether a request of the sweep reached the backend's socket and got no byte in return, or may have
    /// found its accept queue full.
    pub(super) sweep_reached: bool,
}

impl TcpFacts {
    /// The listening sockets from which the kernel could have chosen for a connection to `address`:
    /// those bound to it or, where there are none, to the wildcard address (`compute_score` of the
    /// kernel's net/ipv4/inet_hashtables.c).
    pub(super) fn listeners(&self, address: SocketAddr) -> Vec<&TcpSocket> {
        listeners(&self.table, address)
    }

    /// The server's end of this program's `connection`.
    pub(super) fn server_side(&self, connection: &ProbeConnection) -> Option<&TcpSocket> {
        let (client, server) = (
            canonical(connection.connection.local),
            reached(connection.connection.remote),
        );
        self.table.iter().find(|socket| {
            socket.is_connection() && socket.local == server && socket.remote == client
        })
    }
}

/// As [`TcpFacts::listeners`].
pub(super) fn listeners(table: &[TcpSocket], address: SocketAddr) -> Vec<&TcpSocket> {
    let address = reached(address);
    let at_port = || {
        let listening = table
            .iter()
            .filter(|socket| socket.state == TcpState::Listen);
        listening.filter(|socket| socket.local.port() == address.port())
    };
    let exact: Vec<_> = at_port()
        .filter(|socket| socket.local.ip() == address.ip())
        .collect();
    if !exact.is_empty() {
        return exact;
    }
    at_port()
        .filter(|socket| {
            let wildcard = socket.local.ip();
            wildcard.is_unspecified()
                && (wildcard.is_ipv4() == address.is_ipv4()
                    || address.is_ipv4() && !socket.ipv6_only)
        })
        .collect()
}

/// An IPv4-mapped IPv6 address as IPv4; without scope and flow label.
pub(super) fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// The address that a connection to `address` reaches: the unspecified one means this machine, ip(7).
fn reached(address: SocketAddr) -> SocketAddr {
    match canonical(address) {
        SocketAddr::V4(any) if any.ip().is_unspecified() => {
            SocketAddr::new(Ipv4Addr::LOCALHOST.into(), any.port())
        }
        SocketAddr::V6(any) if any.ip().is_unspecified() => {
            SocketAddr::new(Ipv6Addr::LOCALHOST.into(), any.port())
        }
        address => address,
    }
}

/// The owner of the control group in which a socket was created.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Owner {
    /// The unit's own, or one below it.
    Unit,
    /// That of a `.socket` unit which triggers the unit; its name.
    SocketUnit(String),
    /// The service manager's own, which creates the sockets of `.socket` units: the addresses that
    /// those which trigger the unit list, as `Listen=` has them.
    Manager(Vec<String>),
    /// Another one; its path.
    Foreign(String),
    /// A group that no longer exists.
    Removed,
    /// It could not be found out; why.
    Unknown(String),
}

/// What is known of the UNIX socket that the probes used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct UnixFacts {
    /// The socket's path.
    pub(super) path: String,
    /// Who listens; a message where that cannot be found out.
    pub(super) owner: Result<UnixOwner, String>,
}

/// Who listens at a UNIX socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum UnixOwner {
    /// The process with this number, in this control group.
    Process { pid: u32, group: String },
    /// The service manager, and the paths that the `.socket` units which trigger the unit list.
    Manager(Vec<String>),
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recovery::proofs::samples::{self, listener, wildcard};

    fn cookies(table: &[TcpSocket], address: &str) -> Vec<u64> {
        let found = listeners(table, address.parse().unwrap());
        found.iter().map(|socket| socket.cookie).collect()
    }

    #[test]
    fn server_side_is_the_other_end_of_that_very_connection() {
        let [asked] = &samples::probe(true).connections[..] else {
            panic!("one connection");
        };
        let found = |socket: TcpSocket| {
            let facts = TcpFacts {
                table: vec![socket],
                ..TcpFacts::default()
            };
            facts.server_side(asked).is_some()
        };
        let row = samples::connection(1, 50_000);
        assert!(found(row));
        assert!(found(samples::in_state(row, TcpState::TimeWait)));
        // SYN_RECV
        assert!(!found(samples::in_state(row, TcpState::Other)));
        assert!(!found(samples::connection(1, 50_001)));
        assert!(!found(TcpSocket {
            local: "127.0.0.2:80".parse().unwrap(),
            ..row
        }));
    }

    #[test]
    fn listeners_prefer_the_very_address_to_the_wildcard() {
        let mut only = wildcard("[::]:80", 4);
        only.ipv6_only = true;
        let table = [
            listener("127.0.0.1:80", 1),
            listener("127.0.0.1:80", 2),
            wildcard("0.0.0.0:80", 3),
            only,
            wildcard("[::]:81", 5),
        ];
        assert_eq!(cookies(&table, "127.0.0.1:80"), [1, 2]);
        assert_eq!(cookies(&table, "[::ffff:127.0.0.1]:80"), [1, 2]);
        assert_eq!(cookies(&table, "127.0.0.2:80"), [3]);
        assert_eq!(cookies(&table, "[::1]:80"), [4]);
        assert_eq!(cookies(&table, "127.0.0.1:81"), [5]);
        assert_eq!(cookies(&table, "[::1]:81"), [5]);
        assert_eq!(cookies(&table, "127.0.0.1:82"), [] as [u64; 0]);
    }
}
