//! The guards that judge the main process and those beside it.

use std::time::Duration;

use super::super::MainPid;
use super::super::observation::{Disturbance, GuardContext, Members, Observation, Process};
use super::{Guard, Observations, Passed, known, readable, refuse, the_process};
use crate::clock::Monotonic;
use crate::escape::escape;

/// `main_pid`
pub(super) fn main_pid(context: &GuardContext<'_>, now: &Observation) -> Passed {
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

/// `too_young`
pub(super) fn old_enough(seen: &Observations<'_>, min_uptime: Duration) -> Passed {
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

/// `restarted`
pub(super) fn same_as_probed(seen: &Observations<'_>, sweep_began: Monotonic) -> Passed {
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

/// `changed`
pub(super) fn unchanged(seen: &Observations<'_>, name: &str) -> Passed {
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

/// `gone`
pub(super) fn still_there(seen: &Observations<'_>) -> Passed {
    // systemd records the start right after the fork, so the main process is never younger than
    // that; the second is for rounding. A younger process has reused the PID.
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

/// `traced`
pub(super) fn undisturbed(members: &Result<Members, String>) -> Passed {
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
