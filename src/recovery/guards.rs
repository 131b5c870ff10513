//! The guards: the reasons not to kill a hung backend. Pure: they judge facts that other modules collected.
//! A kill rests on three proofs: the backend is silent, the socket is the unit's own, and the unit makes no
//! progress.

mod no_restart;
mod ownership;
mod process;
mod progress;
pub(super) mod silence;
mod unit;

use self::no_restart::{no_restart, restarts};
use super::observation::{GuardContext, Observation, Process, Sockets};
use super::unit::{Property, UnitState, Unreadable};
use crate::clock::Monotonic;

/// Why a hung backend is left alone, in the order of the checks: the first guard that refuses is
/// named.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Guard {
    /// The unit is not loaded.
    NotLoaded,
    /// The unit is not active.
    NotActive,
    /// The main PID is 0, 1, this very process, or not in the unit's control group.
    MainPid,
    /// The main process is younger than the minimal uptime.
    TooYoung,
    /// The main process started after the sweep began.
    Restarted,
    /// The main PID changed between two observations.
    Changed,
    /// The process was gone before the signal.
    Gone,
    /// The backend woke up before the signal.
    Answered,
    /// The base URL may not resolve to this machine.
    NotLocal,
    /// The socket at which the probes waited is not the unit's own.
    ForeignListener,
    /// The requests may not have reached the backend.
    NotReached,
    /// The backend served another client since the sweep began, or had hardly any CPU time.
    Busy,
    /// systemd would not restart the unit after this signal.
    NoRestart,
    /// A job is already queued for the unit.
    JobQueued,
    /// A process of the unit is debugged or dumps core.
    Traced,
    /// The unit is frozen.
    Frozen,
    /// This program itself was starved of CPU time while it probed.
    Starved,
    /// A privileged run, and other users may write the manifest.
    ManifestWritable,
    /// A fact that a guard depends on is missing or unreadable.
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
            Self::NotLocal => "not_local",
            Self::ForeignListener => "foreign_listener",
            Self::NotReached => "not_reached",
            Self::Busy => "busy",
            Self::NoRestart => "no_restart",
            Self::JobQueued => "job_queued",
            Self::Traced => "traced",
            Self::Frozen => "frozen",
            Self::Starved => "starved",
            Self::ManifestWritable => "manifest_writable",
            Self::Unreadable => "unreadable",
        }
    }
}

/// A guard's refusal: its name and its message.
pub(super) type Refusal = (Guard, String);

pub(super) type Passed = Result<(), Refusal>;

/// Whether the process may be signalled, or the refusal of the first guard in the order of [`Guard`].
/// A guard that lacks a fact refuses as [`Guard::Unreadable`] in its own position. `first` is the first
/// observation, if `now` is a later one.
pub(super) fn judge(
    context: &GuardContext<'_>,
    now: &Observation,
    first: Option<&Observation>,
) -> Passed {
    let seen = Observations {
        now,
        first: first.unwrap_or(now),
    };
    let (state, name, scope) = (&now.unit, context.unit, context.scope);
    unit::loaded(state, name, scope)?;
    unit::active(state, name)?;
    process::main_pid(context, now)?;
    process::old_enough(&seen, context.min_uptime)?;
    process::same_as_probed(&seen, context.sweep_began)?;
    process::unchanged(&seen, name)?;
    process::still_there(&seen)?;
    silence::unanswered(now.probe.as_ref(), now.sockets.as_ref().ok())?;
    refuse_if(Guard::NotLocal, context.not_local.as_ref())?;
    proofs(context, &seen)?;
    restarts(context, now)?;
    unit::no_job(state, name, scope)?;
    process::undisturbed(&now.members)?;
    unit::unfrozen(state, &now.members, name, scope)?;
    silence::not_starved(context.starved.as_deref())?;
    refuse_if(Guard::ManifestWritable, context.manifest_writable.as_ref())
}

/// The first refusal for a reason that lasts, whether the backend hangs or not.
pub(super) fn lasting(context: &GuardContext<'_>, now: &Observation) -> Option<String> {
    let settings = |others| {
        no_restart(
            &now.unit,
            context.unit,
            context.scope,
            context.signal,
            others,
        )
    };
    let running = || {
        unit::loaded(&now.unit, context.unit, context.scope)?;
        if now.process == Process::None {
            return settings(0);
        }
        process::main_pid(context, now)?;
        ownership::own_listener(context, readable(&now.sockets)?, None)?;
        restarts(context, now)
    };
    running().err().map(|(_, why)| why)
}

/// An observation, and the first one, with which it is compared.
struct Observations<'a> {
    now: &'a Observation,
    first: &'a Observation,
}

impl Observations<'_> {
    /// The start time of the main process of the first observation: the age of a successor must not be
    /// judged instead.
    fn started(&self) -> Result<Monotonic, Refusal> {
        known(&self.first.unit.started).copied()
    }
}

/// `foreign_listener`, `not_reached`, `busy`
fn proofs(context: &GuardContext<'_>, seen: &Observations<'_>) -> Passed {
    let sockets = readable(&seen.now.sockets)?;
    let probe = seen.now.probe.as_ref();
    ownership::own_listener(context, sockets, probe)?;
    if let (Sockets::Tcp(now), Sockets::Tcp(first)) = (sockets, readable(&seen.first.sockets)?) {
        silence::reached(probe, first, now)?;
        progress::no_progress(now)?;
    }
    let cpu_wait = |seen: &Observation| seen.members.as_ref().ok()?.cpu_wait;
    progress::has_cpu_time(cpu_wait(seen.first), cpu_wait(seen.now))
}

/// The refusal that was determined before the first observation, if there is one.
fn refuse_if(guard: Guard, why: Option<&String>) -> Passed {
    why.map_or(Ok(()), |why| refuse(guard, why.clone()))
}

pub(super) fn refuse(guard: Guard, why: String) -> Passed {
    Err((guard, why))
}

fn known<T>(property: &Property<T>) -> Result<&T, Refusal> {
    property.as_ref().map_err(|Unreadable(why)| unreadable(why))
}

fn readable<T>(facts: &Result<T, String>) -> Result<&T, Refusal> {
    facts.as_ref().map_err(|why| unreadable(why))
}

/// The refusal of a guard that lacks a fact.
pub(super) fn unreadable(why: &str) -> Refusal {
    (
        Guard::Unreadable,
        format!("{why}; without this a kill is not safe"),
    )
}

fn the_process(unit: &UnitState) -> String {
    match unit.main_pid {
        Ok(pid @ 1..) => format!("the main process {pid}"),
        _ => "the main process".to_owned(),
    }
}

#[cfg(test)]
mod tests;
