//! The guards that judge the unit, its processes, and this program itself.

use std::time::Duration;

use super::super::MainPid;
use super::super::facts::{Context, Facts, MainProcess, Vitals};
use super::super::systemd::systemctl;
use super::{Answer, Objection, refuse, refuse_for, the_process};
use crate::clock::Monotonic;
use crate::escape::escape;
use crate::manifest::Scope;

pub(super) fn not_loaded(context: &Context, facts: &Facts) -> Answer {
    let (name, typed) = (context.unit(), systemctl(context.plan.scope));
    match &*escape(facts.unit.text("LoadState")?) {
        "loaded" => Ok(()),
        "not-found" => refuse(format!(
            "{name} does not exist: correct recovery.unit in the manifest (\"{typed} list-units --type=service\" lists the names)"
        )),
        "masked" => refuse(format!(
            "{name} is masked: \"{typed} unmask {name}\" allows it to run again"
        )),
        other => refuse(format!(
            "{name} is not loaded (LoadState={other}): \"{typed} status {name}\" shows why"
        )),
    }
}

pub(super) fn not_active(context: &Context, facts: &Facts) -> Answer {
    let state = facts.unit.text("ActiveState")?;
    if state == "active" {
        return Ok(());
    }
    let meaning = match state {
        "reloading" | "refreshing" => "it is reloading its configuration",
        "activating" => "it is starting",
        "deactivating" => "it is stopping",
        "inactive" => "it is stopped",
        "failed" => "it has failed",
        _ => "it does not run normally",
    };
    let sub = escape(facts.unit.text("SubState").unwrap_or("unknown"));
    let (name, state) = (context.unit(), escape(state));
    refuse(format!(
        "{name} is not active: {meaning} (ActiveState={state}, SubState={sub})"
    ))
}

pub(super) fn job_queued(context: &Context, facts: &Facts) -> Answer {
    let (name, typed) = (context.unit(), systemctl(context.plan.scope));
    refuse_for(facts.unit.job()?.map(escape).map(|job| format!(
        "job {job} is queued for {name}: it is already being started or stopped (\"{typed} list-jobs\" shows it)"
    )))
}

pub(super) fn frozen(context: &Context, facts: &Facts) -> Answer {
    let (name, typed) = (context.unit(), systemctl(context.plan.scope));
    let state = facts.unit.value("FreezerState").map(escape);
    if let Some(state) = state.filter(|state| state != "running") {
        return refuse(format!(
            "{name} is frozen (FreezerState={state}): \"{typed} thaw {name}\" thaws it"
        ));
    }
    let frozen = &facts.group.as_ref().map_err(Clone::clone)?.frozen;
    refuse_for(frozen.as_deref().map(escape).map(|group| {
        format!("control group {group} of {name} is frozen, as in a paused container: thaw it")
    }))
}

pub(super) fn no_restart(context: &Context, facts: &Facts) -> Answer {
    facts.restart(context)?.no_restart()?;
    refuse_for(facts.missing.as_ref().map(|what| {
        let name = context.unit();
        format!("systemd could not restart {name}: {what}; restore it, or correct the unit")
    }))?;
    child_of_manager(context, facts)
}

/// A manager notices the death only of its own children (wait(2)). The manager is PID 1, or the user manager,
/// which is in the `init.scope` of its own control group.
fn child_of_manager(context: &Context, facts: &Facts) -> Answer {
    let MainProcess::Alive(vitals) = &facts.process else {
        return Ok(());
    };
    let parent = vitals.status.parent;
    let is_manager = match context.plan.scope {
        Scope::System => parent == 1,
        Scope::User => {
            let group = facts.unit.control_group()?;
            let path = vitals.parent_group.as_ref().ok_or_else(|| {
                format!("/proc does not show process {parent}, the parent of the main process")
            })?;
            let above = path.strip_suffix("init.scope");
            parent > 1 && above.is_some_and(|above| group.as_str().starts_with(above))
        }
    };
    refuse_for((!is_manager).then(|| format!(
        "{} is a child of process {parent}, not of the service manager, so systemd would not notice its death and a kill would turn a hang into an outage (usual causes: MAINPID= sent with sd_notify, or PIDFile= of a supervised process)",
        the_process(facts)
    )))
}

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
    let least = min_uptime.as_secs_f64();
    if age < min_uptime {
        let (process, seconds) = (the_process(facts), age.as_secs());
        return refuse(format!(
            "{process} is {seconds} s old, younger than min_uptime_seconds ({least}): it may still be starting"
        ));
    }
    let same = facts.unit.invocation() == facts.first().unit.invocation();
    let judged = if same { facts } else { facts.first() };
    let changed = judged.unit.moment("StateChangeTimestampMonotonic")?;
    let age = judged.at.since(changed);
    let (name, seconds) = (context.unit(), age.as_secs());
    refuse_for((age < min_uptime).then(|| format!(
        "{name} was reloaded {seconds} s ago, less than min_uptime_seconds ({least}): its processes may still be starting"
    )))
}

pub(super) fn restarted(context: &Context, facts: &Facts) -> Answer {
    let started = started(facts)?;
    let is_new = context.hung_since.is_some_and(|began| started > began);
    refuse_for(is_new.then(|| {
        let process = the_process(facts);
        format!("{process} started after this sweep began: it is not the process that hung")
    }))
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
    refuse_for((before.invocation()? != invocation).then(|| {
        format!("{name} was restarted between two observations (its InvocationID changed)")
    }))
}

pub(super) fn gone(_: &Context, facts: &Facts) -> Answer {
    // systemd records the start right after the fork, so the main process is never younger than
    // that; the second is for rounding. A younger process has reused the PID.
    const ROUNDING: Duration = Duration::from_secs(1);
    let process = the_process(facts);
    match &facts.process {
        MainProcess::Gone(how) => refuse(format!("{process} was gone before the signal: {how}")),
        MainProcess::Alive(Vitals { status, .. }) if status.kill_pending => {
            let state = status.state;
            let device = ": it waits for a device or a network file system";
            let why = if state == 'D' { device } else { "" };
            refuse(format!(
                "{process} already has a pending SIGKILL (state {state}){why}"
            ))
        }
        MainProcess::Alive(vitals) if facts.at.since(started(facts)?) > vitals.age + ROUNDING => {
            refuse(format!(
                "{process} started after the unit's main process; its PID was reused"
            ))
        }
        MainProcess::None | MainProcess::Hidden | MainProcess::Alive(_) => Ok(()),
    }
}

pub(super) fn traced(_: &Context, facts: &Facts) -> Answer {
    let mut members = facts.group.as_ref().map_err(Clone::clone)?.members.iter();
    refuse_for(members.find_map(|member| {
        let (pid, disturbance) = (member.pid, member.disturbance.as_ref()?);
        Some(format!(
            "process {pid} of the unit {disturbance}: wait until this has finished"
        ))
    }))
}

pub(super) fn uninterruptible(_: &Context, facts: &Facts) -> Answer {
    let waits = |facts: &Facts| matches!(&facts.process, MainProcess::Alive(vitals) if vitals.status.state == 'D');
    let stuck = waits(facts) && facts.earlier.as_deref().is_some_and(waits);
    refuse_for(stuck.then(|| format!(
        "{} waits inside the kernel for a device or a network file system (state D): a signal would only take effect once that wait is over, when the process may go on by itself",
        the_process(facts)
    )))
}

pub(super) fn starved(context: &Context, _: &Facts) -> Answer {
    refuse_for(context.starved.map(|gap| gap.as_secs_f64()).map(|gap| format!(
        "this program itself was starved: it was kept from running for {gap:.1} s while the core was probed, so its timeouts prove nothing"
    )))
}

/// The start of the main process of the first observation.
fn started(facts: &Facts) -> Result<Monotonic, String> {
    let unit = &facts.first().unit;
    unit.moment("ExecMainStartTimestampMonotonic")
}
