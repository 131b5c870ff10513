//! Ends a main process that provably hangs, so that systemd restarts it; with any doubt, it says
//! why not. It knows nothing of HTTP: the prober is asked through [`Backend`].

mod evidence;
mod facts;
mod guards;
mod host;
mod pidfd;
mod prober;
mod proc;
#[cfg(any(test, fuzzing))]
pub(crate) mod properties;
mod restart;
#[cfg(test)]
mod simulation;
mod steps;
mod systemctl;
mod unit;
pub mod warnings;

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::time::Duration;

pub use self::evidence::{Cpu, Evidence, Reading, ThreadGroup};
use self::facts::Standing;
use self::host::Machine;
use self::steps::{Story, Task};
use self::systemctl::Systemctl;
use crate::clock::Monotonic;
use crate::manifest::{Manifest, UnitName};
use crate::verdict::Verdict;

/// What a sweep found, and what may be done about it.
pub struct Case<'a> {
    /// What may be killed, and on whose word.
    pub manifest: &'a Manifest,
    /// What the sweep found.
    pub verdict: &'a Verdict,
    /// When that sweep began.
    pub sweep_began: Monotonic,
    /// Prints one line on stderr.
    pub say: &'a dyn Fn(&str),
}

/// How far a recovery may go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Permission {
    /// Up to the end.
    Act,
    /// Up to the signal, which is not sent (`--dry-run`).
    Rehearse,
    /// Not at all; the sentence that says why.
    Forbidden(&'static str),
}

/// Recovers a hung backend as far as `permission` goes, or says why not. Takes the time that the
/// restart and its verification take, minutes at worst.
pub fn attempt(case: &Case<'_>, permission: Permission, backend: &dyn Backend) -> Recovery {
    let Some(plan) = &case.manifest.recovery else {
        return Recovery::idle(Outcome::NotConfigured, None);
    };
    let idle = |outcome| Recovery::idle(outcome, Some(plan.unit.clone()));
    if !case.verdict.hung() {
        return idle(Outcome::NotNeeded);
    }
    let rehearse = match permission {
        Permission::Forbidden(why) => return idle(Outcome::Disabled(why.to_owned())),
        Permission::Rehearse => true,
        Permission::Act => false,
    };
    let began = Monotonic::now();
    let addresses = backend.addresses();
    let unit = plan.unit.as_str();
    let task = Task {
        standing: Standing {
            unit,
            scope: plan.scope,
            signal: plan.signal,
            min_uptime: plan.min_uptime,
            sweep_began: case.sweep_began,
            starved: case.verdict.starved,
            own_pid: std::process::id(),
            not_local: host::not_local(&addresses),
            manifest_writable: host::manifest_writable(&case.manifest.source),
        },
        verify: plan.verify,
        rehearse,
    };
    let machine = Machine {
        systemctl: Systemctl::new(plan.scope),
        unit,
        addresses: addresses.as_deref().unwrap_or_default(),
        say: case.say,
    };
    let Story {
        outcome,
        pid,
        evidence,
    } = steps::run(&task, &machine, backend);
    Recovery {
        outcome,
        unit: Some(plan.unit.clone()),
        pid,
        evidence,
        elapsed: Monotonic::now().since(began),
    }
}

/// What recovery asks of the prober.
pub trait Backend {
    /// Sends one GET to a core route on a fresh connection, in the background.
    fn knock(&self) -> Box<dyn Knock>;

    /// Probes every core route once and says whether all are `ok` or `rate_limited`; returns by
    /// `until` at the latest.
    fn core_answers(&self, until: Monotonic) -> bool;

    /// The addresses that `base_url` leads to.
    ///
    /// # Errors
    ///
    /// A sentence, where the name cannot be resolved.
    fn addresses(&self) -> Result<Vec<SocketAddr>, String>;
}

/// The last GET before the signal, under way in the background.
pub trait Knock {
    /// What has come of it so far.
    fn heard(&self) -> Heard;

    /// The connection's local and remote address, once it is established.
    fn connection(&self) -> Option<(SocketAddr, SocketAddr)>;
}

/// What the last GET has brought so far.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    /// Not a byte.
    Nothing,
    /// At least one byte: the backend woke up.
    Byte,
    /// The connection ended without a byte, which a hung process does not do; why.
    Ended(String),
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

/// Why a hung backend is left alone. Where several guards refuse, the first in this order is named.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Guard {
    /// The unit is not loaded.
    NotLoaded,
    /// The unit is not active.
    NotActive,
    /// The main PID is 0, 1, or this very process.
    MainPid,
    /// The main process is younger than the minimal uptime.
    TooYoung,
    /// The main process started after the sweep began.
    Restarted,
    /// The main PID changed between the two looks.
    Changed,
    /// The process was gone before the signal.
    Gone,
    /// The backend woke up between the last probe and the signal.
    Answered,
    /// systemd would not restart it after this signal.
    NoRestart,
    /// A job is already queued for the unit.
    JobQueued,
    /// Somebody traces the process.
    Traced,
    /// Somebody has frozen the unit.
    Frozen,
    /// This program itself was starved while it probed.
    Starved,
    /// The base URL does not lead to this machine.
    NotLocal,
    /// Others may write the manifest of a privileged run.
    ManifestWritable,
    /// A property that a guard depends on is missing or unreadable.
    Unreadable,
}

impl Guard {
    /// The guard's fixed name in reports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::NotLoaded => "not_loaded",
            Self::NotActive => "not_active",
            Self::MainPid => "main_pid",
            Self::TooYoung => "too_young",
            Self::Restarted => "restarted",
            Self::Changed => "changed",
            Self::Gone => "gone",
            Self::Answered => "answered",
            Self::NoRestart => "no_restart",
            Self::JobQueued => "job_queued",
            Self::Traced => "traced",
            Self::Frozen => "frozen",
            Self::Starved => "starved",
            Self::NotLocal => "not_local",
            Self::ManifestWritable => "manifest_writable",
            Self::Unreadable => "unreadable",
        }
    }
}

/// What came of a recovery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The manifest names nothing to recover.
    NotConfigured,
    /// The backend is not hung.
    NotNeeded,
    /// Hung, but the command line forbids recovery; how.
    Disabled(String),
    /// Hung, and all guards passed, but this is a rehearsal.
    WouldKill,
    /// Hung, but a guard said no; its sentence.
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

/// The whole story of one recovery.
#[derive(Clone, Debug, PartialEq)]
pub struct Recovery {
    /// What came of it.
    pub outcome: Outcome,
    /// The unit, where one is configured.
    pub unit: Option<UnitName>,
    /// The main process judged, where there was one.
    pub pid: Option<u32>,
    /// What was seen of the process before the signal.
    pub evidence: Option<Evidence>,
    /// From the first question to systemd to the end of the verification.
    pub elapsed: Duration,
}

impl Recovery {
    /// A recovery that did nothing.
    pub(crate) fn idle(outcome: Outcome, unit: Option<UnitName>) -> Self {
        Self {
            outcome,
            unit,
            pid: None,
            evidence: None,
            elapsed: Duration::ZERO,
        }
    }
}

impl Outcome {
    /// Every outcome's name in reports, in the README's order.
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

    /// The outcome's name in reports.
    pub const fn name(&self) -> &'static str {
        let [
            not_configured,
            not_needed,
            disabled,
            would_kill,
            refused,
            failed,
            recovered,
            not_recovered,
        ] = Self::NAMES;
        match self {
            Self::NotConfigured => not_configured,
            Self::NotNeeded => not_needed,
            Self::Disabled(_) => disabled,
            Self::WouldKill => would_kill,
            Self::Refused(..) => refused,
            Self::Failed(_) => failed,
            Self::Recovered { .. } => recovered,
            Self::NotRecovered { .. } => not_recovered,
        }
    }

    /// The guard that said no.
    pub const fn guard(&self) -> Option<Guard> {
        match self {
            Self::Refused(guard, _) => Some(*guard),
            Self::NotConfigured
            | Self::NotNeeded
            | Self::Disabled(_)
            | Self::WouldKill
            | Self::Failed(_)
            | Self::Recovered { .. }
            | Self::NotRecovered { .. } => None,
        }
    }

    /// The new main process, where there is one.
    pub const fn new_pid(&self) -> Option<MainPid> {
        match self {
            Self::Recovered { new_pid } => Some(*new_pid),
            Self::NotRecovered { new_pid, .. } => *new_pid,
            Self::NotConfigured
            | Self::NotNeeded
            | Self::Disabled(_)
            | Self::WouldKill
            | Self::Refused(..)
            | Self::Failed(_) => None,
        }
    }

    /// The sentence that explains the outcome.
    pub fn detail(&self) -> Option<&str> {
        match self {
            Self::Disabled(text) | Self::Refused(_, text) | Self::Failed(text) => Some(text),
            Self::NotRecovered { detail, .. } => Some(detail),
            Self::NotConfigured | Self::NotNeeded | Self::WouldKill | Self::Recovered { .. } => {
                None
            }
        }
    }
}
