//! How long a restart by systemd may take. Pure.

use std::time::Duration;

use super::unit::Unit;

/// From the death of the main process to the next start: stopping the remaining processes, and the pause.
/// None if that may take for ever, or cannot be known.
pub(crate) fn longest_restart(unit: &Unit) -> Option<Duration> {
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
pub(crate) fn longest_start(unit: &Unit) -> Option<Duration> {
    let limit = unit.span("TimeoutStartUSec").ok()?;
    Some(limit).filter(|limit| *limit != Duration::MAX)
}

/// Whether such a command runs now: `ExecCondition=`, `ExecStartPre=`, or the `ExecStart=` of a unit whose main
/// process is not known yet.
pub(crate) fn runs_start_command(unit: &Unit) -> bool {
    unit.active_state() == Ok("activating")
        && matches!(
            unit.sub_state(),
            Ok("condition" | "start-pre" | "start" | "start-post")
        )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recovery::systemd::samples::demo;

    #[test]
    fn longest_restart_adds_up_what_systemd_waits_for() {
        for (changes, seconds) in [
            (&[][..], Some(90.3)),
            (&["RestartUSecNext=7s"], Some(97.0)),
            (&["RestartUSecNext=100ms"], Some(90.3)),
            (&["RestartRandomizedDelayUSec=5s"], Some(95.3)),
            (&["RestartUSec"], None),
            (&["RestartUSec=infinity"], None),
            (&["RestartUSecNext=infinity"], None),
            (&["TimeoutStopUSec=infinity"], None),
            (&["TimeoutStopUSec=soon"], None),
            (&["RestartRandomizedDelayUSec=infinity"], None),
        ] {
            let longest = longest_restart(&demo(changes)).map(|longest| longest.as_secs_f64());
            assert_eq!(longest, seconds, "{changes:?}");
        }
    }

    #[test]
    fn longest_start_is_the_units_own_limit() {
        assert_eq!(longest_start(&demo(&[])), Some(Duration::from_secs(90)));
        assert_eq!(longest_start(&demo(&["TimeoutStartUSec=infinity"])), None);
        assert_eq!(longest_start(&demo(&["TimeoutStartUSec"])), None);
    }

    #[test]
    fn runs_start_command_while_one_runs() {
        for (active, sub, expected) in [
            ("activating", "start-pre", true),
            ("activating", "condition", true),
            ("activating", "start", true),
            ("activating", "auto-restart", false),
            ("active", "running", false),
        ] {
            let (active, sub) = (format!("ActiveState={active}"), format!("SubState={sub}"));
            assert_eq!(
                runs_start_command(&demo(&[&active, &sub])),
                expected,
                "{sub}"
            );
        }
    }
}
