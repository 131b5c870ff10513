//! The guards that judge what systemd says about the unit, and the manifest's own file.

use super::super::facts::{Context, Facts, MainProcess};
use super::super::systemd::systemctl;
use super::{Answer, refuse, refuse_for, the_process};
use crate::escape::escape;
use crate::manifest::Scope;

pub(super) fn not_loaded(context: &Context, facts: &Facts) -> Answer {
    let (name, typed) = (context.unit(), systemctl(context.plan.scope));
    match facts.unit.text("LoadState")? {
        "loaded" => Ok(()),
        "not-found" => refuse(format!(
            "{name} does not exist: correct recovery.unit in the manifest (\"{typed} list-units --type=service\" lists the names)"
        )),
        "masked" => refuse(format!(
            "{name} is masked: \"{typed} unmask {name}\" allows it to run again"
        )),
        other => refuse(format!(
            "{name} is not loaded (LoadState={}): \"{typed} status {name}\" shows why",
            escape(other)
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
    let sub = facts.unit.text("SubState").unwrap_or("unknown");
    refuse(format!(
        "{} is not active: {meaning} (ActiveState={}, SubState={})",
        context.unit(),
        escape(state),
        escape(sub)
    ))
}

pub(super) fn job_queued(context: &Context, facts: &Facts) -> Answer {
    refuse_for(facts.unit.job()?.map(|job| {
        format!(
            "job {} is queued for {}: it is already being started or stopped (\"{} list-jobs\" shows it)",
            escape(job),
            context.unit(),
            systemctl(context.plan.scope)
        )
    }))
}

pub(super) fn frozen(context: &Context, facts: &Facts) -> Answer {
    let name = context.unit();
    if let Some(state) = facts
        .unit
        .value("FreezerState")
        .filter(|state| *state != "running")
    {
        return refuse(format!(
            "{name} is frozen (FreezerState={}): \"{} thaw {name}\" thaws it",
            escape(state),
            systemctl(context.plan.scope)
        ));
    }
    let frozen = &facts.group.as_ref().map_err(Clone::clone)?.frozen;
    refuse_for(frozen.as_ref().map(|group| {
        format!(
            "control group {} of {name} is frozen, as in a paused container: thaw it",
            escape(group)
        )
    }))
}

pub(super) fn no_restart(context: &Context, facts: &Facts) -> Answer {
    facts.restart(context)?.no_restart()?;
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
