//! Repeats the sweep until the backend is healthy or the time is up, and keeps errors that a later sweep must not mask.

use std::collections::HashMap;
use std::thread;
use std::time::Duration;

use super::probe::keep_http_error;
use super::{Event, OnEvent, Prober, Results, Sweep};
use crate::cause::{Class, Severity};
use crate::clock::Monotonic;
use crate::manifest::Route;
use crate::verdict::ProbeResult;

/// The pause between two sweeps.
const PAUSE: Duration = Duration::from_secs(1);

/// Repeats the sweep until one is healthy or proves a hang that may be recovered, and returns the last one. None begins
/// after `wait`, zero for a single sweep.
pub fn until_healthy(prober: &Prober, wait: Duration, on_event: &OnEvent) -> Sweep {
    let end = Monotonic::now() + wait;
    let mut history = SweepHistory::default();
    let mut number = 1;
    loop {
        let sweep = prober.sweep(&mut history, on_event);
        let over = Monotonic::now() + PAUSE > end;
        if sweep.verdict.healthy || over || (prober.plan.is_some() && sweep.verdict.hung()) {
            return sweep;
        }
        on_event(Event::Unhealthy(number, &sweep, end.remaining()));
        thread::sleep(PAUSE);
        history.results = sweep.results;
        number += 1;
    }
}

/// What the earlier sweeps found.
#[derive(Debug, Default)]
pub(super) struct SweepHistory {
    /// The results of the last sweep, by route.
    results: Vec<ProbeResult>,
    /// For each route that was not OK when it was last probed: its last HTTP error, else an earlier result, with all
    /// attempts since it was OK.
    failed: HashMap<usize, ProbeResult>,
}

impl SweepHistory {
    /// Whether the next sweep probes this route. The first sweep probes all; later ones probe the core routes, and
    /// those that failed hard or were skipped. Probing all of them every second would provoke rate limits.
    pub(super) fn is_due(&self, index: usize, route: &Route) -> bool {
        route.core
            || self.results.get(index).is_none_or(|result| {
                matches!(result.class, Class::Skipped(_))
                    || result.class.severity(route.core) == Severity::Hard
            })
    }

    /// The results of all routes; `probed` are those of the routes that were due, in order.
    pub(super) fn merge(&mut self, probed: Results) -> Vec<ProbeResult> {
        let mut results = std::mem::take(&mut self.results);
        for (index, result) in probed {
            let result = self.add(index, result);
            match results.get_mut(index) {
                Some(earlier) => *earlier = result,
                None => results.push(result),
            }
        }
        results
    }

    /// The result of one sweep, in which a rate limit does not mask an error of an earlier one.
    fn add(&mut self, index: usize, mut result: ProbeResult) -> ProbeResult {
        let earlier = self.failed.remove(&index);
        if result.class == Class::Ok {
            return result;
        }
        let attempts = earlier.as_ref().map_or(0, |earlier| earlier.attempts);
        let attempts = result.attempts.saturating_add(attempts);
        let is_error = matches!(result.class, Class::HttpError(_));
        let mut kept = earlier.filter(|_| !is_error).unwrap_or(result.clone());
        if keep_http_error(&mut result, &kept) {
            result.attempts = attempts;
        }
        kept.attempts = attempts;
        self.failed.insert(index, kept);
        result
    }
}

#[cfg(test)]
mod tests {
    use super::super::probe::skipped;
    use super::*;
    use crate::cause::{ResponseError, SkipReason, TransportError};

    const ERROR: Class = Class::HttpError(ResponseError::Status);
    const TIMEOUT: Class = Class::TimeoutUnreachable(TransportError::Timeout);

    /// The result of the last of several sweeps over one route; each has a class, a status and a number of attempts.
    fn last(sweeps: &[(Class, u16, u16)]) -> (Class, Option<u16>, u16) {
        let mut history = SweepHistory::default();
        let mut last = None;
        for &(class, status, attempts) in sweeps {
            let result = ProbeResult {
                class,
                status: Some(status),
                attempts,
                ..skipped(SkipReason::Deadline)
            };
            let results = history.merge(vec![(0, result)]);
            last = Some((results[0].class, results[0].status, results[0].attempts));
            history.results = results;
        }
        last.unwrap()
    }

    #[test]
    fn a_rate_limit_does_not_mask_an_earlier_error_and_all_attempts_count() {
        let limited = |attempts| (Class::RateLimited, 429, attempts);
        for (sweeps, expected) in [
            (
                &[(ERROR, 500, 1), (ERROR, 502, 3), limited(1)] as &[_],
                (ERROR, Some(502), 5),
            ),
            (
                &[(ERROR, 500, 1), limited(1), limited(1), limited(1)],
                (ERROR, Some(500), 4),
            ),
            (
                &[
                    (TIMEOUT, 0, 3),
                    (ERROR, 500, 1),
                    (TIMEOUT, 0, 3),
                    limited(1),
                ],
                (ERROR, Some(500), 8),
            ),
            (
                &[(ERROR, 500, 9), (Class::Ok, 200, 1), limited(1)],
                (Class::RateLimited, Some(429), 1),
            ),
            (
                &[
                    (ERROR, 500, 9),
                    (Class::Ok, 200, 1),
                    (ERROR, 503, 2),
                    limited(1),
                ],
                (ERROR, Some(503), 3),
            ),
            (&[(ERROR, 500, 1), (ERROR, 503, 2)], (ERROR, Some(503), 2)),
            (
                &[(ERROR, 500, 1), (Class::Ok, 200, 2)],
                (Class::Ok, Some(200), 2),
            ),
        ] {
            assert_eq!(last(sweeps), expected, "{sweeps:?}");
        }
    }
}
