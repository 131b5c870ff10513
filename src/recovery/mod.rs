//! Kills a main process that provably hangs, so that systemd restarts it. If any fact is missing, it refuses
//! and gives the reason. Independent of HTTP: it uses the prober through [`CoreProber`].

mod cgroup;
mod command;
mod dump;
mod evidence;
mod guards;
mod host;
mod journalctl;
mod observation;
mod pidfd;
mod prober;
mod proc;
mod processes;
#[cfg(any(test, fuzzing))]
pub(crate) mod properties;
mod restart;
#[cfg(test)]
mod samples;
#[cfg(test)]
mod simulation;
mod sock_diag;
mod socket_log;
mod socket_watch;
mod steps;
mod systemctl;
mod tcp_diag;
mod tcp_owners;
mod tcp_table;
mod unit;
mod unit_report;
mod unix_diag;
mod unix_owner;
pub mod warnings;

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::time::Duration;

pub use self::dump::Dump;
pub use self::evidence::{Cpu, Evidence, Listener, ProcessEvidence, Reading, ThreadGroup};
pub use self::guards::Guard;
use self::host::Machine;
use self::observation::GuardContext;
pub use self::socket_watch::SocketWatch;
pub use self::unit_report::UnitReport;
use crate::clock::Monotonic;
use crate::manifest::{Manifest, UnitName};
use crate::sweep::{Connection, ProbeConnection, ProbeStatus, Sweep, UnixPeer};
use crate::verdict::Verdict;

/// What a sweep found, and what may be done about it.
pub struct RecoveryRequest<'a> {
    /// The manifest, which names the unit that may be killed.
    pub manifest: &'a Manifest,
    /// What the sweep found.
    pub verdict: &'a Verdict,
    /// The sweep itself.
    pub sweep: &'a Sweep,
    /// The socket watch of the sweep; none if it could not be started.
    pub watch: Option<SocketWatch>,
    /// Prints one line on stderr.
    pub log: &'a dyn Fn(&str),
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
pub fn attempt(
    request: RecoveryRequest<'_>,
    permission: Permission,
    prober: &dyn CoreProber,
) -> Recovery {
    let Some(plan) = &request.manifest.recovery else {
        return Recovery::idle(Outcome::NotConfigured, None);
    };
    let idle = |outcome| Recovery::idle(outcome, Some(plan.unit.clone()));
    if !request.verdict.hung() {
        return idle(Outcome::NotNeeded);
    }
    let dry_run = match permission {
        Permission::Forbidden(why) => return idle(Outcome::Disabled(why.to_owned())),
        Permission::DryRun => true,
        Permission::Act => false,
    };
    let began = Monotonic::now();
    let seen = socket_watch::finish(request.watch);
    let overran = request
        .verdict
        .starved
        .then(|| "a core attempt overran its timeout by more than 1 s".to_owned());
    let socket = &request.manifest.unix_socket;
    let context = GuardContext {
        dry_run,
        sweep_began: request.sweep.began,
        silent_at: request.sweep.silent_at.clone(),
        starved: overran.or_else(|| seen.starved()),
        not_local: match socket {
            Some(_) => None,
            None => host::not_local(&prober.addresses()),
        },
        manifest_writable: host::manifest_writable(&request.manifest.source),
        ..host::context(plan)
    };
    let machine = Machine::new(&context, request.manifest, seen.log, prober, request.log);
    let mut recovery = steps::run(&context, &machine, prober);
    // After the verification, which must not wait for it.
    if let Some(dump) = &mut recovery.dump {
        dump.command = journalctl::command(dump, context.unit, context.scope);
        dump.traces = journalctl::lines(dump, context.unit, context.scope);
    }
    Recovery {
        unit: Some(plan.unit.clone()),
        elapsed: Monotonic::now().since(began),
        ..recovery
    }
}

/// The operations that recovery needs from the prober of the sweep.
pub trait CoreProber {
    /// Sends one GET to a core route on a fresh connection, in the background.
    fn final_probe(&self) -> Box<dyn FinalProbe>;

    /// Probes every core route once and returns whether all are `ok` or `rate_limited`, by
    /// `until` at the latest.
    fn core_answers(&self, until: Monotonic) -> bool;

    /// The addresses to which `base_url` resolves.
    ///
    /// # Errors
    ///
    /// A message, if the name cannot be resolved.
    fn addresses(&self) -> Result<Vec<SocketAddr>, String>;

    /// Every TCP connection of this run; their traffic is not a sign of progress.
    fn connections(&self) -> Vec<Connection>;

    /// The peer processes of the sweep's connections to a UNIX socket.
    fn unix_peers(&self) -> Vec<UnixPeer>;
}

/// The final probe: the last GET before the signal, running in the background.
pub trait FinalProbe {
    /// Its status so far.
    fn status(&self) -> ProbeStatus;

    /// Its connections, established and pending.
    fn connections(&self) -> Vec<ProbeConnection>;
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
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The manifest has no `recovery`.
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
#[derive(Clone, Debug, PartialEq)]
pub struct Recovery {
    /// Its outcome.
    pub outcome: Outcome,
    /// The unit, where one is configured.
    pub unit: Option<UnitName>,
    /// The main process judged, where there was one.
    pub pid: Option<u32>,
    /// What was observed of the unit's processes before the signal.
    pub evidence: Option<Evidence>,
    /// The stacks that were asked for before the signal.
    pub dump: Option<Dump>,
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
            dump: None,
            elapsed: Duration::ZERO,
        }
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

    /// The guard that refused.
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

    /// The message that explains the outcome.
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
