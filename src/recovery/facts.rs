//! The facts that the guards judge. What a guard compares with the first observation is a field of the later ones.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

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
            missing: self.missing.as_deref(),
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
    /// `R`, `S`, `D`, `T`, `t`, `Z`, …
    pub(super) state: char,
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
