//! The guard `no_restart`: a kill is useful only if systemd then restarts the unit.

use super::super::observation::{GuardContext, Observation, Process};
use super::super::restart::{LeftOver, Policy};
use super::super::systemctl::systemctl;
use super::super::unit::UnitState;
use super::{Guard, Passed, known, readable, refuse, the_process};
use crate::manifest::{KillSignal, Scope};

pub(super) fn restarts(context: &GuardContext<'_>, now: &Observation) -> Passed {
    let others = readable(&now.members)?.others;
    no_restart(
        &now.unit,
        context.unit,
        context.scope,
        context.signal,
        others,
    )?;
    child_of_manager(context, now)
}

/// `no_restart`, as far as the settings of the unit and its `others` processes beside the main one
/// decide.
pub(super) fn no_restart(
    unit: &UnitState,
    name: &str,
    scope: Scope,
    signal: KillSignal,
    others: usize,
) -> Passed {
    let left_over = match others {
        0 => None,
        processes => Some(LeftOver {
            processes,
            kill_mode: *known(&unit.kill_mode)?,
            send_sigkill: *known(&unit.send_sigkill)?,
            waits_forever: *known(&unit.stops_forever)?,
        }),
    };
    let policy = Policy {
        restart: *known(&unit.restart)?,
        remains: *known(&unit.remains)?,
        exits_as_group: *known(&unit.exits_as_group)?,
        ignores_failure: *known(&unit.ignores_failure)?,
        success: known(&unit.success)?,
        prevent: known(&unit.prevent)?,
        force: known(&unit.force)?,
        left_over,
    };
    // A process that survives SIGABRT gets SIGKILL, so systemd must restart it after both. Whether it
    // will dump core cannot be known.
    let ends: &[(&str, bool)] = match signal {
        KillSignal::Kill => &[("KILL", false)],
        KillSignal::Abort => &[("ABRT", false), ("ABRT", true), ("KILL", false)],
    };
    for &(signal, dumped_core) in ends {
        let never = || (unit.never_restarts).then(|| "RestartSec=infinity never ends".to_owned());
        if let Some(why) = policy.no_restart_after(signal, dumped_core).or_else(never) {
            return refuse(
                Guard::NoRestart,
                format!(
                    "systemd would not restart {name} after SIG{signal} ({why}), so a kill would turn a hang into an outage: \
                     correct it with \"{} edit {name}\"",
                    systemctl(scope)
                ),
            );
        }
    }
    Ok(())
}

/// A manager notices the death only of its own children (wait(2)). The manager is PID 1, or the user manager,
/// which is in the `init.scope` of its own control group and serves its private socket.
fn child_of_manager(context: &GuardContext<'_>, now: &Observation) -> Passed {
    let Process::Alive(vitals) = &now.process else {
        return Ok(());
    };
    let parent = &vitals.parent;
    let is_manager = match context.scope {
        Scope::System => parent.pid == 1,
        Scope::User if context.user_manager == Some(parent.pid) => true,
        Scope::User => {
            let group = known(&now.unit.group)?;
            let manages = |path: &String| {
                path.strip_suffix("init.scope")
                    .is_some_and(|above| group.as_str().starts_with(above))
            };
            match &parent.group {
                Some(path) => parent.pid > 1 && manages(path),
                None => {
                    return refuse(
                        Guard::Unreadable,
                        format!(
                            "/proc does not show process {}, the parent of the main process; without it a kill is not safe",
                            parent.pid
                        ),
                    );
                }
            }
        }
    };
    if is_manager {
        return Ok(());
    }
    refuse(
        Guard::NoRestart,
        format!(
            "{} is a child of process {}, not of the service manager, so systemd would not notice its death and a kill would turn a hang into an outage (usual causes: MAINPID= sent with sd_notify, or PIDFile= of a supervised process)",
            the_process(&now.unit),
            parent.pid
        ),
    )
}
