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
                "the backend served another client since the sweep began ({sign}): it is overloaded or works partly, not hung"
            ),
        ),
    }
}

/// `busy`, for a backend whose processes have work but hardly any CPU time
pub(super) fn has_cpu_time(first: Option<CpuWait>, now: Option<CpuWait>) -> Passed {
    let Some((first, now)) = first.zip(now) else {
        return Ok(());
    };
    let elapsed = now.at.since(first.at);
    let waited = now.total.saturating_sub(first.total);
    let used = now.used.saturating_sub(first.used);
    // The reported wait is a mean over the processors, and sometimes little more than half of the true
    // one; the CPU time used is exact.
    if elapsed.is_zero() || waited * 2 < elapsed || used * 10 > elapsed {
        return Ok(());
    }
    refuse(
        Guard::Busy,
        format!(
            "the unit's processes have work, but had a CPU for {:.2} of the last {:.2} s, and waited for one for {:.2} s: the backend is overloaded, not hung (raise its CPUQuota=, or reduce the load on this machine)",
            used.as_secs_f64(),
            elapsed.as_secs_f64(),
            waited.as_secs_f64()
        ),
    )
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::clock::Monotonic;

    #[test]
    fn has_cpu_time_requires_a_tenth_of_the_time() {
        let reading = |at, total, used| {
            Some(CpuWait {
                at: Monotonic::from_micros(at),
                total: Duration::from_micros(total),
                used: Duration::from_micros(used),
            })
        };
        let first = reading(1_000, 700, 50);
        for (now, passes) in [
            // Idle.
            (reading(2_000, 700, 50), true),
            (reading(2_000, 1_199, 60), true),
            // Measured with processes that get one percent of a CPU.
            (reading(2_000, 1_200, 60), false),
            (reading(2_000, 1_690, 60), false),
            // It computes in a loop, and shares the CPU with others.
            (reading(2_000, 1_500, 150), false),
            (reading(2_000, 1_500, 151), true),
            (first, true),
            (None, true),
        ] {
            assert_eq!(has_cpu_time(first, now).is_ok(), passes, "{now:?}");
        }
        assert!(has_cpu_time(None, first).is_ok());
    }
}
