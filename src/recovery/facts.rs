//! The facts that the guards judge, and the one function that gathers them. Warnings about a healthy backend and
//! each observation of a hung one call it; what a guard compares with the first observation is a field.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use super::MainPid;
use super::cgroup::ControlGroup;
use super::host::Host;
use super::sockets::owners::{self, Owner};
use super::sockets::queue::QueueHistory;
use super::sockets::reader::Reading;
use super::sockets::table::{TcpSocket, listeners, server_side};
use super::sockets::unix::UnixListener;
use super::systemd::{RestartFacts, Unit};
use crate::clock::Monotonic;
use crate::manifest::{DumpSignal, KillSignal, RecoveryPlan, Scope};
use crate::sweep::ParkedRequest;

/// The facts that stay the same during one recovery.
#[derive(Clone, Debug)]
pub(super) struct Context<'a> {
    /// The unit's name.
    pub(super) unit: &'a str,
    /// Its manager.
    pub(super) scope: Scope,
    /// The signal to be sent.
    pub(super) signal: KillSignal,
    /// The signal that asks processes for their stacks first.
    pub(super) dump_signal: Option<DumpSignal>,
    /// A main process younger than this may still be starting.
    pub(super) min_uptime: Duration,
    /// The time within which the core must answer after the restart.
    pub(super) verify: Duration,
    /// Stop short of the signal.
    pub(super) dry_run: bool,
    /// When the sweep began that found the backend hung; none while the backend is not known to hang.
    pub(super) hung_since: Option<Monotonic>,
    /// The addresses at which core requests are parked; of a healthy backend, those of the base URL. None over
    /// a UNIX socket.
    pub(super) addresses: Vec<SocketAddr>,
    /// Over https: no byte of a handshake has come on any core request.
    pub(super) no_handshake: bool,
    /// How long this program was kept from running during the sweep, if that was too long.
    pub(super) starved: Option<Duration>,
    /// This process.
    pub(super) own_pid: u32,
    /// The process that serves the user manager's private socket, where one does.
    pub(super) user_manager: Option<u32>,
    /// Why the base URL may resolve to another machine, if that is possible.
    pub(super) not_local: Option<String>,
    /// Why another user may have written the manifest, if that is possible.
    pub(super) manifest_writable: Option<String>,
}

impl<'a> Context<'a> {
    /// The context of `plan`, without the facts about a sweep and about this machine.
    pub(super) fn new(plan: &'a RecoveryPlan) -> Self {
        Self {
            unit: plan.unit.as_str(),
            scope: plan.scope,
            signal: plan.signal,
            dump_signal: plan.dump_signal,
            min_uptime: plan.min_uptime,
            verify: plan.verify,
            dry_run: true,
            hung_since: None,
            addresses: Vec::new(),
            no_handshake: false,
            starved: None,
            own_pid: std::process::id(),
            user_manager: None,
            not_local: None,
            manifest_writable: None,
        }
    }
}

/// The facts of one observation, which may change a moment later.
#[derive(Clone, Debug)]
pub(super) struct Facts {
    /// Just before systemd was asked.
    pub(super) at: Monotonic,
    /// What systemd says about the unit.
    pub(super) unit: Unit,
    /// When it had said so.
    pub(super) shown: Monotonic,
    /// The units that decide what a kill sets off.
    pub(super) neighbours: Result<Rc<[Unit]>, String>,
    /// What is wrong with a path that the restart needs.
    pub(super) missing: Option<String>,
    /// The main process.
    pub(super) process: MainProcess,
    /// The unit's control group.
    pub(super) group: Result<Group, String>,
    /// The sockets at which the requests wait.
    pub(super) sockets: Result<Sockets, String>,
    /// The parked requests.
    pub(super) parked: Vec<ParkedRequest>,
    /// The first observation, if this is a later one.
    pub(super) earlier: Option<Rc<Facts>>,
}

impl Facts {
    /// What decides whether a kill ends in a restart.
    ///
    /// # Errors
    ///
    /// A message: something of it cannot be read.
    pub(super) fn restart<'a>(&'a self, context: &Context<'a>) -> Result<RestartFacts<'a>, String> {
        // A unit that does not run is judged by its settings alone.
        let others = if self.process == MainProcess::None {
            0
        } else {
            let members = &self.group.as_ref().map_err(Clone::clone)?.members;
            let main = self.unit.main_pid()?;
            members.iter().filter(|member| member.pid != main).count()
        };
        Ok(RestartFacts {
            unit: &self.unit,
            name: context.unit,
            scope: context.scope,
            signal: context.signal,
            others,
            neighbours: self.neighbours.as_deref().map_err(Clone::clone)?,
            now: self.at,
            missing: self.missing.as_deref(),
        })
    }

    /// The first observation.
    pub(super) fn first(&self) -> &Self {
        self.earlier.as_deref().unwrap_or(self)
    }
}

/// A main process, as /proc shows it while a pidfd holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum MainProcess {
    /// There is no main process, or none that may be signalled.
    None,
    /// It has died; how we know.
    Gone(&'static str),
    /// It lives, but /proc does not show it.
    Hidden,
    /// It lives.
    Alive(Vitals),
}

impl MainProcess {
    /// The control group of the service manager, if the process is its child; if it is not, a guard
    /// refuses.
    fn manager_group(&self) -> Option<&str> {
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

/// A unit's control group and the groups below.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Group {
    /// The kernel's ids of these groups.
    pub(super) ids: HashSet<u64>,
    /// Their processes.
    pub(super) members: Vec<Member>,
    /// The path of a frozen one, if any.
    pub(super) frozen: Option<String>,
    /// What the kernel counts about their CPU time; none where it does not.
    pub(super) cpu: Option<CpuTimes>,
}

/// A process of the unit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Member {
    pub(super) pid: u32,
    pub(super) signals: Signals,
    /// What holds it, if anything does.
    pub(super) disturbance: Option<Disturbance>,
}

/// The signals that a process handles, signal N as bit N-1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Signals {
    /// Those for which it has a handler (`SigCgt`).
    pub(super) caught: u64,
    /// Those that its first thread blocks (`SigBlk`).
    pub(super) blocked: u64,
}

/// What disturbs a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Disturbance {
    /// The process with this PID traces one of its threads.
    Tracer(u32),
    /// A thread is in state `t`.
    TracingStop,
    /// It is dumping core.
    CoreDump,
}

/// CPU times of a control group up to one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct CpuTimes {
    pub(super) at: Monotonic,
    /// How long its processes had work while none of them had a CPU.
    pub(super) waited: Duration,
    /// How much CPU time they used.
    pub(super) used: Duration,
}

/// The sockets at which the requests wait.
#[derive(Clone, Debug)]
pub(super) enum Sockets {
    Tcp(TcpFacts),
    Unix(UnixFacts),
}

/// What the kernel shows about the backend's TCP port.
#[derive(Clone, Debug, Default)]
pub(super) struct TcpFacts {
    /// Listeners and connections.
    pub(super) rows: Vec<TcpSocket>,
    /// The owner of each control group whose sockets matter.
    pub(super) owners: HashMap<u64, Owner>,
    /// The accept queues since the sweep began.
    pub(super) queues: QueueHistory,
}

/// What is known about the UNIX socket at which the requests wait.
#[derive(Clone, Debug)]
pub(super) struct UnixFacts {
    /// The socket's path.
    pub(super) path: String,
    /// The owner of the control group of the process that listens.
    pub(super) owner: Owner,
    /// The sockets that listen there.
    pub(super) listeners: Vec<UnixListener>,
    /// The accept queue since the sweep began.
    pub(super) queues: QueueHistory,
}

/// A main process that may be signalled, held by a pidfd.
pub(super) struct Held<P> {
    pub(super) pid: MainPid,
    pub(super) process: P,
}

/// The first observation, and the main process, if there is one that may be signalled.
pub(super) type First<P> = (Facts, Option<Held<P>>);

/// Gathers facts about one unit, several times during a recovery.
pub(super) struct Gatherer<'a, H> {
    context: &'a Context<'a>,
    host: &'a H,
    queues: QueueHistory,
    /// The units that decide what a kill sets off, asked for once.
    neighbours: Option<Result<Rc<[Unit]>, String>>,
}

impl<'a, H: Host> Gatherer<'a, H> {
    /// `queues` are the accept queues as read during the sweep.
    pub(super) fn new(context: &'a Context<'a>, host: &'a H, queues: QueueHistory) -> Self {
        Self {
            context,
            host,
            queues,
            neighbours: None,
        }
    }

    /// Makes the first observation.
    ///
    /// # Errors
    ///
    /// A message: systemd did not say anything about the unit, or the pidfd cannot be opened.
    pub(super) fn observe(&mut self) -> Result<First<H::Process>, String> {
        let at = self.host.now();
        let unit = self.host.show(self.context.unit)?;
        let shown = self.host.now();
        let pid = *unit.main_pid().as_ref().unwrap_or(&0);
        // Opened before the second observation. The PID can be reused, the descriptor keeps its process: if
        // the PID is still the unit's main PID then, the descriptor's process is the main process.
        let (seen, held) = match MainPid::new(pid, self.context.own_pid) {
            None => (MainProcess::None, None),
            Some(pid) => match self.host.open(pid)? {
                None => (MainProcess::Gone("no process has this PID any more"), None),
                Some(process) => (self.host.inspect(&process), Some(Held { pid, process })),
            },
        };
        let facts = self.gather(at, shown, unit, seen, None);
        Ok((facts, held))
    }

    /// Makes a further observation of the process that the `first` one opened: systemd first, and what changes
    /// fastest last.
    ///
    /// # Errors
    ///
    /// As [`Self::observe`].
    pub(super) fn observe_again(
        &mut self,
        held: &H::Process,
        first: &Rc<Facts>,
    ) -> Result<Facts, String> {
        let at = self.host.now();
        let unit = self.host.show(self.context.unit)?;
        let shown = self.host.now();
        let process = self.host.inspect(held);
        Ok(self.gather(at, shown, unit, process, Some(Rc::clone(first))))
    }

    fn gather(
        &mut self,
        at: Monotonic,
        shown: Monotonic,
        unit: Unit,
        process: MainProcess,
        earlier: Option<Rc<Facts>>,
    ) -> Facts {
        let host = self.host;
        let neighbours = self
            .neighbours
            .get_or_insert_with(|| host.neighbours(&unit).map(Rc::from))
            .clone();
        let group = unit.control_group().and_then(|group| host.group(&group));
        let parked = host.parked();
        let sockets = self.sockets(&unit, &group, &process, &neighbours, &parked);
        Facts {
            at,
            shown,
            missing: host.missing_path(&unit),
            unit,
            neighbours,
            process,
            group,
            sockets,
            // Once more, since the answers change fastest.
            parked: host.parked(),
            earlier,
        }
    }

    fn sockets(
        &mut self,
        unit: &Unit,
        group: &Result<Group, String>,
        process: &MainProcess,
        neighbours: &Result<Rc<[Unit]>, String>,
        parked: &[ParkedRequest],
    ) -> Result<Sockets, String> {
        let reading = self.host.read_sockets(self.context.hung_since.is_some())?;
        self.queues.record(&self.context.addresses, &reading);
        let socket_units = || -> Result<Vec<&Unit>, String> {
            let names: Vec<&str> = unit
                .triggered_by()
                .filter(|name| name.ends_with(".socket"))
                .collect();
            let units = neighbours.as_ref().map_err(Clone::clone)?.iter();
            Ok(units
                .filter(|unit| unit.id().is_some_and(|id| names.contains(&id)))
                .collect())
        };
        let manager = process.manager_group().and_then(ControlGroup::parse);
        match reading {
            Reading::Tcp(reading) => {
                let ids = self.groups_that_matter(&reading.rows, parked);
                let own = &group.as_ref().map_err(Clone::clone)?.ids;
                let search = owners::Search {
                    host: self.host,
                    manager: manager.as_ref(),
                    socket_units: &socket_units,
                };
                Ok(Sockets::Tcp(TcpFacts {
                    owners: search.owners(own, &ids)?,
                    rows: reading.rows,
                    queues: self.queues.clone(),
                }))
            }
            Reading::Unix { listeners, .. } => {
                let group = unit.control_group()?;
                let (path, owner) = (self.host).unix_owner(&group, manager.as_ref(), &listeners);
                let owner = owner.unwrap_or_else(Owner::Unknown);
                let owner = match owner {
                    Owner::Manager(_) => owners::manager(&socket_units()?),
                    owner => owner,
                };
                Ok(Sockets::Unix(UnixFacts {
                    path,
                    owner,
                    listeners,
                    queues: self.queues.clone(),
                }))
            }
        }
    }

    /// The control groups of the listeners at the addresses, and of the other ends of the parked requests.
    fn groups_that_matter(&self, rows: &[TcpSocket], parked: &[ParkedRequest]) -> HashSet<u64> {
        let addresses = self.context.addresses.iter();
        let listeners = addresses.flat_map(|address| listeners(rows, *address));
        let connections = parked.iter().filter_map(|request| request.connection);
        let server_sides = connections.filter_map(|connection| server_side(rows, &connection));
        let sockets = listeners.chain(server_sides);
        sockets.filter_map(|socket| socket.group).collect()
    }
}
