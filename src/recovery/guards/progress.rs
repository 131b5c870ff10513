//! The third proof: the unit makes no progress. It served no client since the sweep began, although its
//! processes had CPU time.

use super::super::observation::{CpuWait, TcpFacts};
use super::{Guard, Passed, refuse};

/// `busy`
pub(super) fn no_progress(facts: &TcpFacts) -> Passed {
    match &facts.progress {
        None => Ok(()),
        Some(sign) => refuse(
            Guard::Busy,
            format!(
                "the backend served another client since the sweep began ({sign}): it is overloaded or works in part, not hung"
            ),
        ),
    }
}

/// `busy`, of a backend whose processes have work, but hardly any CPU time for it
pub(super) fn has_cpu_time(first: Option<CpuWait>, now: Option<CpuWait>) -> Passed {
    let Some((first, now)) = first.zip(now) else {
        return Ok(());
    };
    let (elapsed, waited) = (
        now.at.since(first.at),
        now.total.saturating_sub(first.total),
    );
    // Nine tenths: more than a process loses on a machine that is merely loaded.
    if elapsed.is_zero() || waited * 10 < elapsed * 9 {
        return Ok(());
    }
    refuse(
        Guard::Busy,
        format!(
            "the unit's processes have work, but waited for a CPU for {:.2} of the last {:.2} s: the backend is overloaded, not hung (raise its CPUQuota=, or reduce the load on this machine)",
            waited.as_secs_f64(),
            elapsed.as_secs_f64()
        ),
    )
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::clock::Monotonic;

    #[test]
    fn has_cpu_time_wants_a_tenth_of_the_time() {
        let reading = |at, total| {
            Some(CpuWait {
                at: Monotonic::from_micros(at),
                total: Duration::from_micros(total),
            })
        };
        let first = reading(1_000, 700);
        for (now, passes) in [
            (reading(2_000, 700), true),
            (reading(2_000, 1_590), true),
            (reading(2_000, 1_600), false),
            (reading(2_000, 1_700), false),
            (first, true),
            (None, true),
        ] {
            assert_eq!(has_cpu_time(first, now).is_ok(), passes, "{now:?}");
        }
        assert!(has_cpu_time(None, first).is_ok());
    }
}
