//! The facts that the guards judge, and the one place where they are gathered: for the warnings about a healthy
//! backend, and for each observation of a hung one.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use nix::errno::Errno;

use super::MainPid;
use super::machine::Host;
use super::proc::Status;
use super::sockets::Reading;
use super::sockets::owners::Owner;
use super::sockets::queue::QueueHistory;
use super::systemd::{RestartFacts, Unit};
use crate::clock::Monotonic;
use crate::manifest::RecoveryPlan;
use crate::sweep::ParkedRequest;

/// The facts that stay the same during one recovery.
#[derive(Clone, Debug)]
pub(super) struct Context {
    /// The unit that may be killed, and how.
    pub(super) plan: RecoveryPlan,
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
    pub(super) own_pid: u32,
    /// Why the base URL may resolve to another machine, if that is possible.
    pub(super) not_local: Option<String>,
    /// Why another user may have written the manifest, if that is possible.
    pub(super) manifest_writable: Option<String>,
}

impl Context {
    pub(super) fn unit(&self) -> &str {
        self.plan.unit.as_str()
    }
}

/// The facts of one observation, which may change a moment later.
#[derive(Clone, Debug)]
pub(super) struct Facts {
    /// Just before systemd was asked.
    pub(super) at: Monotonic,
    pub(super) unit: Unit,
    /// When it had said so.
    pub(super) shown: Monotonic,
    /// The units that decide what a kill sets off.
    pub(super) neighbours: Result<Rc<[Unit]>, String>,
    /// What is wrong with a path that the restart needs.
    pub(super) missing: Option<String>,
    pub(super) process: MainProcess,
    pub(super) group: Result<Group, String>,
    pub(super) sockets: Result<Sockets, String>,
    /// The accept queues since the sweep began.
    pub(super) queues: QueueHistory,
    pub(super) parked: Vec<ParkedRequest>,
    /// The first observation, if this is a later one.
    pub(super) earlier: Option<Rc<Facts>>,
}

impl Facts {
    /// What decides whether a kill ends in a restart. A message, if something of it cannot be read.
    pub(super) fn restart<'a>(&'a self, context: &'a Context) -> Result<RestartFacts<'a>, String> {
        // A unit that does not run is judged by its settings alone.
        let others = if self.process == MainProcess::None {
            0
        } else {
            let members = &self.group.as_ref().map_err(Clone::clone)?.members;
            let main = self.unit.main_pid()?;
            members.iter().filter(|member| member.pid != main).count()
        };
        Ok(RestartFacts {
            plan: &context.plan,
            unit: &self.unit,
            others,
            neighbours: self.neighbours.as_deref().map_err(Clone::clone)?,
            now: self.at,
        })
    }

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
    Alive(Vitals),
}

/// A living process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Vitals {
    /// Its age, including time during which the machine was suspended.
    pub(super) age: Duration,
    pub(super) status: Status,
    /// Its control group on cgroup2, where there is one.
    pub(super) group: Option<String>,
    /// That of its parent, where it can be read.
    pub(super) parent_group: Option<String>,
}

/// A unit's control group and the groups below.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Group {
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
    /// The signals that it would handle, signal N as bit N-1.
    pub(super) handled: u64,
    /// What a debugger or a core dump does to it, in words.
    pub(super) disturbance: Option<String>,
}

/// CPU times of a control group up to one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct CpuTimes {
    pub(super) at: Monotonic,
    /// How long its processes had work while none of them had a CPU.
    pub(super) waited: Duration,
    pub(super) used: Duration,
}

/// The sockets at which the requests wait.
#[derive(Clone, Debug)]
pub(super) struct Sockets {
    pub(super) reading: Reading,
    /// By control group: the owner of the sockets that it created. The kernel does not show that of a UNIX socket; the
    /// owner of the process that listens there has the key none.
    pub(super) owners: HashMap<Option<u64>, Owner>,
}

/// A main process that may be signalled, held by a pidfd.
pub(super) struct Held<P> {
    pub(super) pid: MainPid,
    pub(super) process: P,
}

/// Gathers facts about one unit, several times during a recovery.
pub(super) struct Gatherer<'a, H: Host> {
    context: &'a Context,
    host: &'a H,
    queues: QueueHistory,
    /// The units that decide what a kill sets off, asked for once.
    neighbours: Option<Result<Rc<[Unit]>, String>>,
    /// The main process of the first observation, if there was one that may be signalled.
    pub(super) main: Option<Rc<Held<H::Process>>>,
    first: Option<Rc<Facts>>,
}

impl<'a, H: Host> Gatherer<'a, H> {
    /// `queues` are the accept queues as read during the sweep.
    pub(super) fn new(context: &'a Context, host: &'a H, queues: QueueHistory) -> Self {
        Self {
            context,
            host,
            queues,
            neighbours: None,
            main: None,
            first: None,
        }
    }

    /// Makes an observation: asks systemd first, and reads what changes fastest last. The first one opens the main
    /// process. The error says that systemd did not say anything about the unit, or that the pidfd cannot be opened.
    pub(super) fn observe(&mut self) -> Result<Rc<Facts>, String> {
        let host = self.host;
        let at = host.now();
        let unit = host.show(self.context.unit())?;
        let shown = host.now();
        let process = match &self.main {
            Some(main) => host.inspect(&main.process),
            None => self.open(&unit)?,
        };
        let ask = || host.neighbours(&unit).map(Rc::from);
        let neighbours = self.neighbours.get_or_insert_with(ask).clone();
        let group = unit.control_group().and_then(|group| host.group(&group));
        let sockets = self.sockets(&unit, &process, &neighbours);
        let facts = Rc::new(Facts {
            at,
            shown,
            missing: host.missing_path(&unit),
            unit,
            neighbours,
            process,
            group,
            sockets,
            queues: self.queues.clone(),
            parked: host.parked(),
            earlier: self.first.clone(),
        });
        self.first.get_or_insert_with(|| Rc::clone(&facts));
        Ok(facts)
    }

    fn open(&mut self, unit: &Unit) -> Result<MainProcess, String> {
        let pid = MainPid::new(unit.main_pid().unwrap_or(0), self.context.own_pid);
        let Some(pid) = pid.filter(|_| self.first.is_none()) else {
            return Ok(MainProcess::None);
        };
        // Opened before the second observation. The PID can be reused, the descriptor keeps its process:
        // if the PID is still the unit's main PID then, the descriptor's process is the main process.
        match self.host.open(pid) {
            Ok(process) => {
                let seen = self.host.inspect(&process);
                self.main = Some(Rc::new(Held { pid, process }));
                Ok(seen)
            }
            Err(Errno::ESRCH) => Ok(MainProcess::Gone("no process has this PID any more")),
            Err(error) => Err(format!(
                "process {}: cannot open a pidfd (pidfd_open(2) is missing or forbidden): {error}",
                pid.get()
            )),
        }
    }

    fn sockets(
        &mut self,
        unit: &Unit,
        process: &MainProcess,
        neighbours: &Result<Rc<[Unit]>, String>,
    ) -> Result<Sockets, String> {
        let reading = self.host.read_sockets()?;
        self.queues.record(&self.context.addresses, &reading);
        let own = unit.control_group()?;
        // The parent is the service manager; if it is not, a guard refuses. Without a process to ask, that of the
        // system.
        let manager = match process {
            MainProcess::Alive(vitals) => vitals.parent_group.as_deref(),
            MainProcess::None | MainProcess::Gone(_) | MainProcess::Hidden => None,
        };
        let manager = manager.unwrap_or("/init.scope");
        let mut owners = HashMap::new();
        for (id, path) in self.host.groups_of(&reading, &own) {
            let neighbours = neighbours.as_deref().map_err(Clone::clone);
            let owner = path.map_or_else(Owner::Unknown, |path| {
                Owner::of(path, &own, manager, unit, neighbours)
            });
            // A UNIX socket may have been replaced during the sweep: no request may wait at another unit's.
            if !matches!(owners.get(&id), Some(Owner::Foreign(_))) {
                owners.insert(id, owner);
            }
        }
        Ok(Sockets { reading, owners })
    }
}
