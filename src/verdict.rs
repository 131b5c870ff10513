//! Judges the results of the probes. Pure: uses no network, clock or disk.

use std::time::Duration;

use crate::cause::{Class, Severity, TransportError};

/// The result of probing one route. Small, because there may be 10,000.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProbeResult {
    /// The class of the result.
    pub class: Class,
    /// The last attempt's status; none if no response head arrived.
    pub status: Option<u16>,
    /// More about the result, as text that may contain anything a server sent.
    pub detail: Option<Box<str>>,
    /// Attempts made.
    pub attempts: u16,
    /// The last attempt's time.
    pub elapsed: Duration,
    /// Whether the whole budget was used, and each attempt had its full timeout and timed out before a single byte
    /// arrived.
    pub silent: bool,
    /// Whether at least one attempt received at least one byte; here, a TLS handshake counts.
    pub received_any: bool,
    /// How long this program was kept from running during an attempt, if that was too long.
    pub starved: Option<Duration>,
}

/// The state of the backend, as the core routes prove it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BackendState {
    /// Neither hung nor down: it answers something, or nothing is proved.
    Up,
    /// Every core route was silent.
    Hung,
    /// No core route received a byte, but the backend is not hung.
    Down,
}

/// The meaning of all results.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// No result is hard.
    pub healthy: bool,
    /// What the core routes prove.
    pub backend: BackendState,
    /// How long this program was kept from running while it probed a core route, if that was too long.
    pub starved: Option<Duration>,
    /// How many routes are in each class of [`Class::NAMES`]; always counted from the results.
    pub tally: [(&'static str, usize); 5],
}

impl Verdict {
    /// Whether the backend is hung.
    pub fn hung(&self) -> bool {
        self.backend == BackendState::Hung
    }
}

/// What the core routes' results prove about the backend.
pub fn backend_state<'a>(core: impl IntoIterator<Item = &'a ProbeResult>) -> BackendState {
    let (mut any, mut hung, mut down) = (false, true, true);
    for result in core {
        any = true;
        hung &= result.silent;
        let unreachable = matches!(result.class, Class::TimeoutUnreachable(_));
        let cut_short = result.class == Class::TimeoutUnreachable(TransportError::Deadline);
        down &= unreachable && !cut_short && !result.received_any;
    }
    match (any, hung, down) {
        (true, true, _) => BackendState::Hung,
        (true, false, true) => BackendState::Down,
        _ => BackendState::Up,
    }
}

/// Judges a sweep: each result with whether its route is core, and what the core's last round proved.
pub fn judge<'a>(
    results: impl IntoIterator<Item = (bool, &'a ProbeResult)>,
    backend: BackendState,
) -> Verdict {
    let mut tally = Class::NAMES.map(|name| (name, 0));
    let (mut healthy, mut starved) = (true, None);
    for (core, result) in results {
        for (name, count) in &mut tally {
            *count += usize::from(*name == result.class.name());
        }
        healthy &= result.class.severity(core) != Severity::Hard;
        if core {
            starved = starved.max(result.starved);
        }
    }
    Verdict {
        healthy,
        backend,
        starved,
        tally,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cause::{ResponseError, SkipReason};

    /// What the attempts prove: whether they were silent, and whether they received anything.
    type Proof = (bool, bool);

    const SILENT: Proof = (true, false);
    const NOTHING: Proof = (false, false);
    const RECEIVED: Proof = (false, true);

    fn result(class: Class, (silent, received_any): Proof) -> ProbeResult {
        ProbeResult {
            class,
            status: None,
            detail: None,
            attempts: 1,
            elapsed: Duration::ZERO,
            silent,
            received_any,
            starved: None,
        }
    }

    fn lost(error: TransportError, proof: Proof) -> ProbeResult {
        result(Class::TimeoutUnreachable(error), proof)
    }

    #[test]
    fn backend_state_is_hung_only_when_every_core_route_is_silent() {
        let silent = || lost(TransportError::Timeout, SILENT);
        let ok = result(Class::Ok, RECEIVED);
        let half = lost(TransportError::Timeout, RECEIVED);
        let refused = lost(TransportError::Refused, NOTHING);
        let early = lost(TransportError::Timeout, NOTHING);
        let cut = lost(TransportError::Deadline, NOTHING);
        let skipped = result(Class::Skipped(SkipReason::Deadline), NOTHING);
        let cases: [(&[ProbeResult], BackendState); 12] = [
            (&[silent()], BackendState::Hung),
            (&[silent(), silent(), silent()], BackendState::Hung),
            (&[silent(), ok.clone()], BackendState::Up),
            (&[silent(), half.clone()], BackendState::Up),
            (&[silent(), result(BAD, RECEIVED)], BackendState::Up),
            (&[silent(), refused.clone()], BackendState::Down),
            (&[silent(), early], BackendState::Down),
            (&[silent(), cut.clone()], BackendState::Up),
            (&[silent(), skipped], BackendState::Up),
            (&[refused.clone(), refused.clone()], BackendState::Down),
            (&[refused, half], BackendState::Up),
            (&[], BackendState::Up),
        ];
        for (results, expected) in cases {
            assert_eq!(backend_state(results), expected, "{results:#?}");
        }
        assert_eq!(backend_state(&[cut]), BackendState::Up);
    }

    const BAD: Class = Class::HttpError(ResponseError::Status);

    #[test]
    fn judge_fails_the_run_for_hard_outcomes_only() {
        let timeout = Class::TimeoutUnreachable(TransportError::Timeout);
        let skipped = Class::Skipped(SkipReason::Deadline);
        for (core, class, healthy) in [
            (true, Class::Ok, true),
            (true, Class::RateLimited, true),
            (true, BAD, false),
            (true, timeout, false),
            (true, skipped, false),
            (false, Class::RateLimited, true),
            (false, BAD, false),
            (false, timeout, true),
            (false, skipped, true),
        ] {
            let result = result(class, RECEIVED);
            let verdict = judge([(core, &result)], BackendState::Up);
            assert_eq!(verdict.healthy, healthy, "{core} {class:?}");
        }
    }

    #[test]
    fn judge_counts_each_class() {
        let results = [
            (true, result(Class::Ok, RECEIVED)),
            (true, result(Class::RateLimited, RECEIVED)),
            (false, result(Class::RateLimited, RECEIVED)),
            (false, lost(TransportError::Reset, NOTHING)),
            (false, result(BAD, RECEIVED)),
            (false, result(Class::Skipped(SkipReason::Deadline), NOTHING)),
        ];
        let verdict = judge(
            results.iter().map(|(core, result)| (*core, result)),
            BackendState::Up,
        );
        let tally = [
            ("ok", 1),
            ("timeout_unreachable", 1),
            ("rate_limited", 2),
            ("http_error", 1),
            ("skipped", 1),
        ];
        assert_eq!(verdict.tally, tally);
        assert_eq!(verdict.starved, None);
    }

    #[test]
    fn judge_sees_starvation_in_core_attempts_only() {
        let starved = ProbeResult {
            starved: Some(Duration::from_secs(2)),
            ..result(Class::Ok, RECEIVED)
        };
        let verdict = |core| judge([(core, &starved)], BackendState::Up);
        assert_eq!(verdict(true).starved, Some(Duration::from_secs(2)));
        assert_eq!(verdict(false).starved, None);
    }
}
