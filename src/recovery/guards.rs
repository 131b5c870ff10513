//! The guards: the reasons not to kill a hung backend. Pure: they judge facts that other modules collected.
//! A kill rests on three proofs: the backend is silent, the socket is the unit's own, and the unit makes no
//! progress.

mod no_restart;
mod ownership;
mod progress;
pub(super) mod silence;

use std::time::Duration;

use self::no_restart::{no_restart, restarts};
use super::MainPid;
use super::observation::{Disturbance, GuardContext, Members, Observation, Process, Sockets};
use super::systemctl::systemctl;
use super::unit::{Property, UnitState, Unreadable};
use crate::clock::Monotonic;
use crate::escape::escape;
use crate::manifest::Scope;

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
    /// The backend woke up between the last probe and the signal.
    Answered,
    /// The base URL does not lead to this machine.
    NotLocal,
    /// The socket at which the probes waited is not the unit's own.
    ForeignListener,
    /// The requests may not have reached the backend.
    NotReached,
    /// The backend served another client meanwhile.
    Busy,
    /// systemd would not restart it after this signal.
    NoRestart,
    /// A job is already queued for the unit.
    JobQueued,
    /// A process of the unit is debugged or dumps core.
    Traced,
    /// Somebody has frozen the unit.
    Frozen,
    /// This program itself was starved while it probed.
    Starved,
    /// Others may write the manifest of a privileged run.
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
    let (unit, name, scope) = (&now.unit, context.unit, context.scope);
    loaded(unit, name, scope)?;
    active(unit, name)?;
    main_pid(context, now)?;
    old_enough(&seen, context.min_uptime)?;
    same_as_probed(&seen, context.sweep_began)?;
    unchanged(&seen, name)?;
    still_there(&seen)?;
    silence::unanswered(now.probe.as_ref(), now.sockets.as_ref().ok())?;
    refuse_if(Guard::NotLocal, context.not_local.as_ref())?;
    proofs(context, &seen)?;
    restarts(context, now)?;
    no_job(unit, name, scope)?;
    undisturbed(&now.members)?;
    unfrozen(unit, name, scope)?;
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
        loaded(&now.unit, context.unit, context.scope)?;
        if now.process == Process::None {
            return settings(0);
        }
        main_pid(context, now)?;
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

/// `not_loaded`
pub(super) fn loaded(unit: &UnitState, name: &str, scope: Scope) -> Passed {
    let typed = systemctl(scope);
    match known(&unit.load)?.as_str() {
        "loaded" => Ok(()),
        "not-found" => refuse(
            Guard::NotLoaded,
            format!(
                "{name} does not exist: correct recovery.unit in the manifest (\"{typed} list-units --type=service\" lists the names)"
            ),
        ),
        "masked" => refuse(
            Guard::NotLoaded,
            format!("{name} is masked: \"{typed} unmask {name}\" allows it to run again"),
        ),
        other => refuse(
            Guard::NotLoaded,
            format!(
                "{name} is not loaded (LoadState={}): \"{typed} status {name}\" shows why",
                escape(other)
            ),
        ),
    }
}

fn active(unit: &UnitState, name: &str) -> Passed {
    match known(&unit.active)?.as_str() {
        "active" => Ok(()),
        other => {
            let sub = unit.sub.as_deref().unwrap_or("unknown");
            refuse(
                Guard::NotActive,
                format!(
                    "{name} is not active (ActiveState={}, SubState={}): it is starting, stopping or stopped",
                    escape(other),
                    escape(sub)
                ),
            )
        }
    }
}

fn main_pid(context: &GuardContext<'_>, now: &Observation) -> Passed {
    let name = context.unit;
    let pid = *known(&now.unit.main_pid)?;
    if MainPid::new(pid, context.own_pid).is_none() {
        let why = match pid {
            0 => format!("{name} has no main process (MainPID=0)"),
            1 => format!("the main process of {name} is process 1, which is never signalled"),
            _ => format!(
                "the main process of {name} is this program itself ({pid}): recovery.unit must name the backend's unit"
            ),
        };
        return refuse(Guard::MainPid, why);
    }
    let group = known(&now.unit.group)?;
    let Process::Alive(vitals) = &now.process else {
        return Ok(());
    };
    match &vitals.group {
        Some(path) if group.contains(path) => Ok(()),
        Some(path) => refuse(
            Guard::MainPid,
            format!(
                "process {pid} is in control group {}, not in that of {name} ({}): the service manager counts processes in another PID namespace (a container), or the process has left its unit",
                escape(path),
                escape(group.as_str())
            ),
        ),
        None => refuse(
            Guard::Unreadable,
            format!(
                "the control group of process {pid} is unknown; without it a kill is not safe (this needs cgroup2)"
            ),
        ),
    }
}

fn old_enough(seen: &Observations<'_>, min_uptime: Duration) -> Passed {
    let age = seen.now.at.since(seen.started()?);
    if age >= min_uptime {
        return Ok(());
    }
    refuse(
        Guard::TooYoung,
        format!(
            "{} is {} s old, younger than min_uptime_seconds ({}): it is still starting",
            the_process(&seen.now.unit),
            age.as_secs(),
            min_uptime.as_secs_f64()
        ),
    )
}

fn same_as_probed(seen: &Observations<'_>, sweep_began: Monotonic) -> Passed {
    if seen.started()? <= sweep_began {
        return Ok(());
    }
    refuse(
        Guard::Restarted,
        format!(
            "{} started after this sweep began: it is not the process that hung",
            the_process(&seen.now.unit)
        ),
    )
}

fn unchanged(seen: &Observations<'_>, name: &str) -> Passed {
    let (before, now) = (&seen.first.unit, &seen.now.unit);
    let invocation = known(&now.invocation)?;
    let (was, is) = (known(&before.main_pid)?, known(&now.main_pid)?);
    if was != is {
        return refuse(
            Guard::Changed,
            format!(
                "the main process of {name} changed from {was} to {is} between two observations: it is being restarted"
            ),
        );
    }
    // The PID alone proves nothing: the next process may have the same one.
    if known(&before.invocation)? != invocation {
        return refuse(
            Guard::Changed,
            format!("{name} was restarted between two observations (its InvocationID changed)"),
        );
    }
    Ok(())
}

fn still_there(seen: &Observations<'_>) -> Passed {
    // systemd notes the start right after the fork, so no main process is younger than that note;
    // the second is for rounding. A younger process has reused the PID.
    const ROUNDING: Duration = Duration::from_secs(1);
    let process = the_process(&seen.now.unit);
    match &seen.now.process {
        Process::Gone(how) => refuse(
            Guard::Gone,
            format!("{process} was gone before the signal: {how}"),
        ),
        Process::Alive(vitals) if vitals.kill_pending => refuse(
            Guard::Gone,
            format!(
                "{process} already has a pending SIGKILL (state {}){}",
                vitals.state,
                if vitals.state == 'D' {
                    ": it waits for a device or a network file system"
                } else {
                    ""
                }
            ),
        ),
        Process::Alive(vitals) if seen.now.at.since(seen.started()?) > vitals.age + ROUNDING => {
            refuse(
                Guard::Gone,
                format!("{process} started after the unit's main process; its PID was reused"),
            )
        }
        Process::Hidden => refuse(
            Guard::Unreadable,
            format!(
                "/proc does not show {process}: allow it (ProtectProc=default, and no hidepid= on /proc)"
            ),
        ),
        Process::None | Process::Alive(_) => Ok(()),
    }
}

fn no_job(unit: &UnitState, name: &str, scope: Scope) -> Passed {
    match known(&unit.job)? {
        None => Ok(()),
        Some(job) => refuse(
            Guard::JobQueued,
            format!(
                "job {} is queued for {name}: it is already being started or stopped (\"{} list-jobs\" shows it)",
                escape(job),
                systemctl(scope)
            ),
        ),
    }
}

/// `traced`
fn undisturbed(members: &Result<Members, String>) -> Passed {
    let Some(disturbed) = readable(members)?.disturbed else {
        return Ok(());
    };
    let pid = disturbed.pid;
    let how = match disturbed.by {
        Disturbance::Tracer(tracer) => format!("is traced by process {tracer}"),
        Disturbance::TracingStop => "is held by a tracer (state t)".to_owned(),
        Disturbance::CoreDump => "is dumping core".to_owned(),
    };
    refuse(
        Guard::Traced,
        format!("process {pid} of the unit {how}: wait until this has finished"),
    )
}

fn unfrozen(unit: &UnitState, name: &str, scope: Scope) -> Passed {
    match unit.freezer.as_deref() {
        None | Some("running") => Ok(()),
        Some(other) => refuse(
            Guard::Frozen,
            format!(
                "{name} is frozen (FreezerState={}): \"{} thaw {name}\" lets it run again",
                escape(other),
                systemctl(scope)
            ),
        ),
    }
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

/// What a guard needs to know and cannot, as a refusal.
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
