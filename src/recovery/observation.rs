//! The facts that the guards judge: those that stay the same during one recovery, and those of one
//! observation of the machine.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Duration;

use super::socket_log::Sign;
use super::tcp_table::TcpSocket;
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
    /// The addresses at which probes were silent.
    pub(super) silent_at: Vec<SocketAddr>,
    /// How this program was kept from running during the sweep, if it was.
    pub(super) starved: Option<String>,
    /// This process.
    pub(super) own_pid: u32,
    /// The process that serves the user manager's private socket, where one does.
    pub(super) user_manager: Option<u32>,
    /// Why the base URL may resolve to another machine, if that is possible.
    pub(super) not_local: Option<String>,
    /// Why another user may have written the manifest, if that is possible.
    pub(super) manifest_writable: Option<String>,
}

/// The facts of one observation, which may change a moment later.
#[derive(Clone, Debug)]
pub(super) struct Observation {
    /// When systemd was queried.
    pub(super) at: Monotonic,
    /// What systemd reports.
    pub(super) unit: UnitState,
    /// The main process of the first observation.
    pub(super) process: Process,
    /// The other processes of the unit; a message if they cannot be read.
    pub(super) members: Result<Members, String>,
    /// The sockets at which the probes waited; a message if they cannot be read.
    pub(super) sockets: Result<Sockets, String>,
    /// The final probe; none before it is sent.
    pub(super) probe: Option<ProbeFacts>,
}

/// The state of the final probe so far.
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
    /// It has died; how we know.
    Gone(&'static str),
    /// It lives, but /proc does not show it.
    Hidden,
    /// It lives.
    Alive(Vitals),
}

impl Process {
    /// The control group of the service manager, if the process is its child; if it is not, a guard
    /// refuses.
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
    /// Its age, including time during which the machine was suspended.
    pub(super) age: Duration,
    /// Its control group on cgroup2, where there is one.
    pub(super) group: Option<String>,
    /// Its parent.
    pub(super) parent: Parent,
}

/// The parent of a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Parent {
    /// 0 if it is outside this PID namespace.
    pub(super) pid: u32,
    /// Its control group on cgroup2, where that can be read.
    pub(super) group: Option<String>,
}

/// The processes of a unit's control group and the groups below.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Members {
    /// How many there are beside the main process.
    pub(super) others: usize,
    /// The first process with a debugger or a core dump, if any.
    pub(super) disturbed: Option<Disturbed>,
    /// The path of a frozen control group, if any.
    pub(super) frozen: Option<String>,
    /// How long they have waited for a CPU; none if the kernel does not count it.
    pub(super) cpu_wait: Option<CpuWait>,
}

/// A reading of [`Hierarchy::waited_for_cpu`](super::cgroup::Hierarchy::waited_for_cpu).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct CpuWait {
    pub(super) at: Monotonic,
    pub(super) total: Duration,
    /// [`Hierarchy::used_cpu`](super::cgroup::Hierarchy::used_cpu)
    pub(super) used: Duration,
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

/// What the kernel shows about the backend's TCP port.
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
    /// A client that waited to be accepted when the sweep ended, and has been accepted since.
    pub(super) accepted: Option<SocketAddr>,
}

/// The owner of the control group of a socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Owner {
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

/// The facts about the UNIX socket that the probes used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct UnixFacts {
    /// The socket's path.
    pub(super) path: String,
    /// The owner of the control group of the process that listens.
    pub(super) owner: Owner,
}
