//! How long a restart by systemd may take. Pure.

use std::time::Duration;

use super::unit::Unit;

/// From the death of the main process to the next start: stopping the remaining processes, and the pause.
/// None if that may take for ever, or cannot be known.
pub(in crate::recovery) fn longest_restart(unit: &Unit) -> Option<Duration> {
    let optional = |name| unit.parsed_or(name, Duration::ZERO, super::span::span).ok();
    let pause = unit.span("RestartUSec").ok()?;
    // With RestartSteps=, since systemd 254, the next pause may be longer than RestartSec=.
    let pause = pause.max(optional("RestartUSecNext").filter(|next| *next != Duration::MAX)?);
    unit.span("TimeoutStopUSec")
        .ok()?
        .checked_add(pause)?
        .checked_add(optional("RestartRandomizedDelayUSec")?)
        .filter(|total| *total != Duration::MAX)
}

/// How long systemd lets the commands run that come before the main process. None: for ever.
pub(in crate::recovery) fn longest_start(unit: &Unit) -> Option<Duration> {
    let limit = unit.span("TimeoutStartUSec").ok()?;
    Some(limit).filter(|limit| *limit != Duration::MAX)
}

/// Whether such a command runs now: `ExecCondition=`, `ExecStartPre=`, or the `ExecStart=` of a unit whose main
/// process is not known yet.
pub(in crate::recovery) fn runs_start_command(unit: &Unit) -> bool {
    unit.active_state() == Ok("activating")
        && matches!(
            unit.sub_state(),
            Ok("condition" | "start-pre" | "start" | "start-post")
        )
}
