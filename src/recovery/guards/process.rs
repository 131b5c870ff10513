//! The guards that judge the main process, those beside it, and this program itself.

use std::time::Duration;

use super::super::MainPid;
use super::super::facts::{Context, Disturbance, Facts, MainProcess};
use super::{Answer, Objection, refuse, the_process};
use crate::clock::Monotonic;
use crate::escape::escape;

pub(super) fn main_pid(context: &Context, facts: &Facts) -> Answer {
    let name = context.unit();
    let pid = facts.unit.main_pid()?;
    let stopped = facts.unit.text("ActiveState") != Ok("active");
    if pid == 0 && stopped && context.hung_since.is_none() {
        // It gets a main process when it is started.
        return Ok(());
    }
    if MainPid::new(pid, context.own_pid).is_none() {
        return refuse(match pid {
            0 => format!("{name} has no main process (MainPID=0)"),
            1 => format!("the main process of {name} is process 1, which is never signalled"),
            _ => format!(
                "the main process of {name} is this program itself ({pid}): recovery.unit must name the backend's unit"
            ),
        });
    }
    let group = facts.unit.control_group()?;
    let vitals = match &facts.process {
        MainProcess::Alive(vitals) => vitals,
        MainProcess::Hidden => {
            return Err(Objection::Unreadable(format!(
                "/proc does not show {}: allow it (ProtectProc=default, and no hidepid= on /proc)",
                the_process(facts)
            )));
        }
        MainProcess::None | MainProcess::Gone(_) => return Ok(()),
    };
    match &vitals.group {
        Some(path) if group.contains(path) => Ok(()),
        Some(path) => refuse(format!(
            "process {pid} is in control group {}, not in that of {name} ({}): the service manager counts processes in another PID namespace (a container), or the process has left its unit",
            escape(path),
            escape(group.as_str())
        )),
        None => Err(Objection::Unreadable(format!(
            "the control group of process {pid} is unknown (this needs cgroup2)"
        ))),
    }
}

pub(super) fn too_young(context: &Context, facts: &Facts) -> Answer {
    let min_uptime = context.plan.min_uptime;
    // The age of a successor must not be judged instead: `changed` names it.
    let age = facts.at.since(started(facts)?);
    if age < min_uptime {
        return refuse(format!(
            "{} is {} s old, younger than min_uptime_seconds ({}): it may still be starting",
            the_process(facts),
            age.as_secs(),
            min_uptime.as_secs_f64()
        ));
    }
    let same = facts.unit.invocation() == facts.first().unit.invocation();
    let judged = if same { facts } else { facts.first() };
    let age = judged
        .at
        .since(judged.unit.moment("StateChangeTimestampMonotonic")?);
    if age < min_uptime {
        return refuse(format!(
            "{} was reloaded {} s ago, less than min_uptime_seconds ({}): its processes may still be starting",
            context.unit(),
            age.as_secs(),
            min_uptime.as_secs_f64()
        ));
    }
    Ok(())
}

pub(super) fn restarted(context: &Context, facts: &Facts) -> Answer {
    let Some(sweep_began) = context.hung_since else {
        return Ok(());
    };
    if started(facts)? <= sweep_began {
        return Ok(());
    }
    refuse(format!(
        "{} started after this sweep began: it is not the process that hung",
        the_process(facts)
    ))
}

pub(super) fn changed(context: &Context, facts: &Facts) -> Answer {
    let (name, before, now) = (context.unit(), &facts.first().unit, &facts.unit);
    let invocation = now.invocation()?;
    let (was, is) = (before.main_pid()?, now.main_pid()?);
    if was != is {
        return refuse(format!(
            "the main process of {name} changed from {was} to {is} between two observations: it is being restarted"
        ));
    }
    // The PID alone proves nothing: the next process may have the same one.
    if before.invocation()? != invocation {
        return refuse(format!(
            "{name} was restarted between two observations (its InvocationID changed)"
        ));
    }
    Ok(())
}

pub(super) fn gone(_: &Context, facts: &Facts) -> Answer {
    // systemd records the start right after the fork, so the main process is never younger than
    // that; the second is for rounding. A younger process has reused the PID.
    const ROUNDING: Duration = Duration::from_secs(1);
    let process = the_process(facts);
    match &facts.process {
        MainProcess::Gone(how) => refuse(format!("{process} was gone before the signal: {how}")),
        MainProcess::Alive(vitals) if vitals.kill_pending => refuse(format!(
            "{process} already has a pending SIGKILL (state {}){}",
            vitals.state,
            if vitals.state == 'D' {
                ": it waits for a device or a network file system"
            } else {
                ""
            }
        )),
        MainProcess::Alive(vitals) if facts.at.since(started(facts)?) > vitals.age + ROUNDING => {
            refuse(format!(
                "{process} started after the unit's main process; its PID was reused"
            ))
        }
        MainProcess::None | MainProcess::Hidden | MainProcess::Alive(_) => Ok(()),
    }
}

pub(super) fn traced(_: &Context, facts: &Facts) -> Answer {
    let members = &facts.group.as_ref().map_err(Clone::clone)?.members;
    for member in members {
        let how = match member.disturbance {
            None => continue,
            Some(Disturbance::Tracer(tracer)) => format!("is traced by process {tracer}"),
            Some(Disturbance::TracingStop) => "is held by a tracer (state t)".to_owned(),
            Some(Disturbance::CoreDump) => "is dumping core".to_owned(),
        };
        return refuse(format!(
            "process {} of the unit {how}: wait until this has finished",
            member.pid
        ));
    }
    Ok(())
}

pub(super) fn uninterruptible(_: &Context, facts: &Facts) -> Answer {
    let waits = |process: &MainProcess| matches!(process, MainProcess::Alive(vitals) if vitals.state == 'D');
    let before = facts.earlier.as_ref();
    if waits(&facts.process) && before.is_some_and(|before| waits(&before.process)) {
        return refuse(format!(
            "{} waits inside the kernel for a device or a network file system (state D): a signal would only take effect once that wait is over, when the process may go on by itself",
            the_process(facts)
        ));
    }
    Ok(())
}

pub(super) fn starved(context: &Context, _: &Facts) -> Answer {
    match context.starved {
        None => Ok(()),
        Some(gap) => refuse(format!(
            "this program itself was starved: it was kept from running for {:.1} s while the core was probed, so its timeouts prove nothing",
            gap.as_secs_f64()
        )),
    }
}

/// The start of the main process of the first observation.
fn started(facts: &Facts) -> Result<Monotonic, Objection> {
    Ok(facts
        .first()
        .unit
        .moment("ExecMainStartTimestampMonotonic")?)
}
