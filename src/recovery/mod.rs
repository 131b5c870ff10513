//! Kills a main process that provably hangs, so that systemd restarts it. If any fact is missing, it refuses
//! and gives the reason.

mod cgroup;
pub(crate) mod evidence;
mod facts;
mod guards;
mod machine;
mod pidfd;
mod proc;
#[cfg(any(test, fuzzing))]
pub(crate) mod properties;
mod queue_watch;
#[cfg(test)]
mod samples;
#[cfg(test)]
mod simulation;
mod sockets;
mod stacks;
mod steps;
mod systemd;
pub mod warnings;

use std::collections::BTreeSet;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

pub use self::evidence::Evidence;
use self::facts::Context;
pub use self::guards::Guard;
use self::machine::{Host, Machine};
pub use self::queue_watch::QueueWatch;
use self::sockets::Place;
pub use self::stacks::Stacks;
pub(crate) use self::systemd::systemctl;
use self::systemd::{Systemctl, Unit};
use crate::manifest::Manifest;
use crate::sweep::{ParkedRequest, Prober, Sweep};

/// What a sweep found, and what may be done about it.
pub struct RecoveryRequest<'a> {
    /// The manifest, which names the unit that may be killed.
    pub manifest: &'a Manifest,
    /// What the sweep found.
    pub sweep: &'a Sweep,
    /// The prober of the sweep, which holds the parked requests.
    pub prober: &'a Prober<'a>,
    /// The accept queues during the sweep; none if the thread that reads them could not be started.
    pub queues: Option<QueueWatch>,
    /// Prints one line on stderr.
    pub log: &'a (dyn Fn(&str) + Sync),
}

/// How far a recovery may go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Permission {
    /// Completely.
    Act,
    /// Up to the signal, which is not sent (`--dry-run`).
    DryRun,
    /// Not at all; the reason.
    Forbidden(&'static str),
}

/// Recovers a hung backend as far as `permission` allows, or returns the reason why not. Returns after the
/// restart and its verification, which can take minutes.
pub fn attempt(request: &RecoveryRequest<'_>, permission: Permission) -> Recovery {
    let Some(plan) = &request.manifest.recovery else {
        return Recovery::default();
    };
    let idle = |outcome| Recovery {
        outcome,
        unit: Some(plan.unit.clone()),
        ..Recovery::default()
    };
    if !request.sweep.verdict.hung() {
        return idle(Outcome::NotNeeded);
    }
    let dry_run = match permission {
        Permission::Forbidden(why) => return idle(Outcome::Disabled(why.to_owned())),
        Permission::DryRun => true,
        Permission::Act => false,
    };
    let prober = request.prober;
    let over_tcp = request.manifest.unix_socket.is_none();
    let over_https = request.manifest.base_url.is_https();
    let mut results = request.manifest.routes.iter().zip(&request.sweep.results);
    let any_byte = results.any(|(route, result)| route.core && result.received_any);
    let resolved = over_tcp.then(|| prober.lookup()());
    let parked = prober.parked();
    let silent: BTreeSet<_> = parked.iter().filter_map(ParkedRequest::remote).collect();
    let context = Context {
        dry_run,
        hung_since: Some(request.sweep.began),
        addresses: silent.into_iter().collect(),
        no_handshake: over_https && !any_byte,
        starved: request.sweep.verdict.starved,
        ..machine::context(plan.clone(), &request.manifest.source, resolved)
    };
    let machine = Machine {
        systemctl: Systemctl::new(plan.scope, Arc::default()),
        place: Place::of(request.manifest),
        unix_peers: Box::new(prober.unix_peers()),
        hung: Some(request),
    };
    let queues = request.queues.as_ref().map(QueueWatch::history);
    steps::run(&context, &machine, queues.unwrap_or_default())
}

/// A process that may be signalled: never 0, 1 or this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct MainPid(NonZeroU32);

impl MainPid {
    /// The process `pid`, unless it is 0, 1 or `own`, this process's own number.
    pub fn new(pid: u32, own: u32) -> Option<Self> {
        NonZeroU32::new(pid)
            .filter(|pid| pid.get() != 1 && pid.get() != own)
            .map(Self)
    }

    /// The number.
    pub const fn get(self) -> u32 {
        self.0.get()
    }
}

/// The outcome of a recovery.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Outcome {
    /// The manifest has no `recovery`.
    #[default]
    NotConfigured,
    /// The backend is not hung.
    NotNeeded,
    /// Hung, but the command line forbids recovery; how.
    Disabled(String),
    /// Hung, and all guards passed, but this is a dry run.
    WouldKill,
    /// Hung, but a guard refused; its message.
    Refused(Guard, String),
    /// Hung, but `systemctl` or the signal failed; how, and what to do.
    Failed(String),
    /// Killed, restarted by systemd, and the core answers again.
    Recovered {
        /// The new main process.
        new_pid: MainPid,
    },
    /// Killed, but no healthy core in time.
    NotRecovered {
        /// The new main process, where there is one.
        new_pid: Option<MainPid>,
        /// What is known, and what to do.
        detail: String,
    },
}

/// One recovery from the first question to systemd to the end of the verification.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Recovery {
    /// Its outcome.
    pub outcome: Outcome,
    /// The unit, where one is configured.
    pub unit: Option<String>,
    /// The main process judged, where there was one.
    pub pid: Option<u32>,
    /// What was observed of the unit's processes before the signal.
    pub evidence: Option<Evidence>,
    /// The stacks that were asked for before the signal.
    pub stacks: Option<Stacks>,
    /// What systemd said of the unit last.
    pub unit_report: Option<UnitReport>,
    /// From the first question to systemd to the end of the verification.
    pub elapsed: Duration,
}

/// What systemd says of the recovery unit at the time of the run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnitReport {
    /// Its name.
    pub name: String,
    /// `ActiveState=`.
    pub active_state: String,
    /// `SubState=`.
    pub sub_state: String,
    /// When it entered this state, where known.
    pub since: Option<SystemTime>,
    /// `NRestarts=`: automatic restarts since the last manual start, where known.
    pub restarts: Option<u64>,
}

impl UnitReport {
    /// The state of the unit called `name`; none if systemd does not say it.
    fn of(name: &str, unit: &Unit, host: &impl Host) -> Option<Self> {
        let since = unit.moment("StateChangeTimestampMonotonic").ok();
        let restarts = unit.value("NRestarts");
        Some(Self {
            name: name.to_owned(),
            active_state: unit.text("ActiveState").ok()?.to_owned(),
            sub_state: unit.text("SubState").ok()?.to_owned(),
            since: since.and_then(|at| host.wall_clock().checked_sub(host.now().since(at))),
            restarts: restarts.and_then(|number| number.parse().ok()),
        })
    }
}

impl Outcome {
    /// Every outcome's name in reports, in the order of the documentation.
    pub const NAMES: [&'static str; 8] = [
        "not_configured",
        "not_needed",
        "disabled",
        "would_kill",
        "refused",
        "failed",
        "recovered",
        "not_recovered",
    ];

    /// The guard that refused.
    pub const fn guard(&self) -> Option<Guard> {
        match self {
            Self::Refused(guard, _) => Some(*guard),
            _ => None,
        }
    }

    /// The outcome's name in reports.
    pub fn name(&self) -> &'static str {
        self.parts().0
    }

    /// The new main process, where there is one.
    pub fn new_pid(&self) -> Option<MainPid> {
        self.parts().1
    }

    /// The message that explains the outcome.
    pub fn detail(&self) -> Option<&str> {
        self.parts().2
    }

    fn parts(&self) -> (&'static str, Option<MainPid>, Option<&str>) {
        let [
            unset,
            unneeded,
            disabled,
            dry,
            refused,
            failed,
            recovered,
            lost,
        ] = Self::NAMES;
        match self {
            Self::NotConfigured => (unset, None, None),
            Self::NotNeeded => (unneeded, None, None),
            Self::Disabled(why) => (disabled, None, Some(why)),
            Self::WouldKill => (dry, None, None),
            Self::Refused(_, why) => (refused, None, Some(why)),
            Self::Failed(why) => (failed, None, Some(why)),
            Self::Recovered { new_pid } => (recovered, Some(*new_pid), None),
            Self::NotRecovered { new_pid, detail } => (lost, *new_pid, Some(detail)),
        }
    }
}
