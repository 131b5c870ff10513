//! The guards that judge what systemd reports about the unit.

use super::super::observation::Members;
use super::super::systemctl::systemctl;
use super::super::unit::UnitState;
use super::{Guard, Passed, known, readable, refuse};
use crate::escape::escape;
use crate::manifest::Scope;

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

/// `not_active`
pub(super) fn active(unit: &UnitState, name: &str) -> Passed {
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

/// `job_queued`
pub(super) fn no_job(unit: &UnitState, name: &str, scope: Scope) -> Passed {
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

/// `frozen`
pub(super) fn unfrozen(
    unit: &UnitState,
    members: &Result<Members, String>,
    name: &str,
    scope: Scope,
) -> Passed {
    match unit.freezer.as_deref() {
        None | Some("running") => match &readable(members)?.frozen {
            None => Ok(()),
            Some(group) => refuse(
                Guard::Frozen,
                format!(
                    "control group {} of {name} is frozen, as in a paused container: thaw it",
                    escape(group)
                ),
            ),
        },
        Some(other) => refuse(
            Guard::Frozen,
            format!(
                "{name} is frozen (FreezerState={}): \"{} thaw {name}\" thaws it",
                escape(other),
                systemctl(scope)
            ),
        ),
    }
}
