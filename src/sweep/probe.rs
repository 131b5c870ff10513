//! The attempts of one route: retries, deadline, and the class of the last attempt. Only [`probe`] waits and
//! uses the network; the other functions are pure.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use super::attempt::{Attempt, Received, starved_after};
use super::checks::{failed_checks, shortened};
use super::client::Client;
use super::failure::Failure;
use super::http::Response;
use super::parked::{ParkedRequest, ParkedState, Reach};
use super::retry::{RetryBudget, is_retried};
use crate::cause::{Class, ResponseError, SkipReason, TransportError};
use crate::clock::Monotonic;
use crate::manifest::{Expect, Route};
use crate::verdict::{ProbeResult, Proof};

/// An attempt that ends this much after its timeout shows that this process was kept from
/// running.
const OVERRUN: Duration = Duration::from_secs(1);

/// How routes are probed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plan {
    /// Without retries.
    pub(super) once: bool,
    /// Parks requests that time out without a byte; the number of this round.
    pub(super) park_in_round: Option<u32>,
}

/// Probes `route`, which has this `index` in the manifest, with all attempts within `deadline`. Those that
/// were silent are parked if the plan says so.
pub(super) fn probe(
    client: &Arc<Client>,
    (index, route): (usize, &Route),
    plan: Plan,
    deadline: Monotonic,
) -> ProbeResult {
    let options = &route.options;
    let mut error = None;
    let mut attempts: u16 = 0;
    let retries = if plan.once { 0 } else { options.retries };
    let mut budget = RetryBudget::new(retries, options.backoff);
    let mut proof = Proof {
        silent: true,
        ..Proof::default()
    };
    loop {
        let start = Monotonic::now();
        if start >= deadline && attempts == 0 {
            return skipped(SkipReason::Deadline);
        }
        let full = start + options.timeout <= deadline;
        let end = deadline.min(start + options.timeout);
        let attempt = Arc::new(Attempt::new(client, end, options.timeout));
        let response = attempt.send(&route.path, options, route.checks.is_some());
        let timed_out = Monotonic::now();
        let elapsed = timed_out.since(start);
        attempts += 1;

        let status = match &response {
            Ok(response) => Some(response.status),
            Err(failure) => failure.status,
        };
        let received = attempt.received();
        let (class, detail) = judge(route, response, full);
        let silent = class == Class::TimeoutUnreachable(TransportError::Timeout)
            && received != Received::Response;
        if let Some(round) = plan.park_in_round.filter(|_| silent) {
            let of = (index, round, attempts);
            park(client, of, (start, timed_out), &attempt);
        }
        let overran = elapsed.saturating_sub(options.timeout);
        proof.silent &= silent;
        proof.received_any |= received != Received::Nothing;
        let overran = Some(overran).filter(|by| *by > OVERRUN);
        proof.starved = proof.starved.max(attempt.starved()).max(overran);

        let result = ProbeResult {
            class,
            status,
            detail,
            attempts,
            elapsed,
            proof,
        };
        let retried = is_retried(class, status);
        let pause = retried.then(|| budget.next_pause(deadline)).flatten();
        let Some(pause) = pause else {
            return final_result(result, budget.is_spent(), error);
        };
        if let Class::HttpError(_) = class {
            error = Some(result);
        }
        thread::sleep(pause);
        let late = Monotonic::now().since(timed_out).saturating_sub(pause);
        let late = Some(late).filter(|late| *late > starved_after(options.timeout));
        proof.starved = proof.starved.max(late);
    }
}

/// Parks the request of a silent attempt: the route's index, the round and the number of the attempt, and when it
/// began and timed out.
fn park(
    client: &Client,
    (route, round, number): (usize, u32, u16),
    (began, timed_out): (Monotonic, Monotonic),
    attempt: &Attempt,
) {
    let request = ParkedRequest {
        route,
        round,
        first_attempt: number == 1,
        began,
        timed_out,
        connection: None,
        reach: Reach::Unconnected,
        state: ParkedState::Waiting,
    };
    client.parked.park(&request, attempt.take_sockets());
}

/// A route that was not probed.
pub(super) fn skipped(reason: SkipReason) -> ProbeResult {
    ProbeResult {
        class: Class::Skipped(reason),
        status: None,
        detail: None,
        attempts: 0,
        elapsed: Duration::ZERO,
        proof: Proof::default(),
    }
}

/// The route's result from its last attempt: `spent` is whether the whole retry budget was used,
/// `error` is the route's latest HTTP error before this attempt.
fn final_result(mut last: ProbeResult, spent: bool, error: Option<ProbeResult>) -> ProbeResult {
    last.proof.silent &= spent;
    match error {
        Some(error) => keep_http_error(last, &error),
        None => last,
    }
}

/// `last`, unless it is a rate limit: a 429 caused by our own probes must not mask an earlier HTTP error
/// of the same route.
pub(super) fn keep_http_error(last: ProbeResult, error: &ProbeResult) -> ProbeResult {
    match last.class {
        Class::RateLimited => ProbeResult {
            class: error.class,
            status: error.status,
            detail: error.detail.clone(),
            ..last
        },
        Class::Ok | Class::TimeoutUnreachable(_) | Class::HttpError(_) | Class::Skipped(_) => last,
    }
}

/// The class and the detail of one attempt. `full` means that the attempt had its full timeout, not only the
/// rest of the deadline.
fn judge(
    route: &Route,
    response: Result<Response, Failure>,
    full: bool,
) -> (Class, Option<Box<str>>) {
    let options = &route.options;
    let with = |class, detail: String| (class, Some(options.redact(&detail).into()));
    let response = match response {
        Ok(response) => response,
        Err(failure) if failure.at_end && !full => {
            let class = Class::TimeoutUnreachable(TransportError::Deadline);
            return with(class, failure.detail);
        }
        Err(failure) => return with(failure.class, failure.detail),
    };
    if !options.expect.accepts(response.status) {
        if response.status == 429 {
            return (Class::RateLimited, None);
        }
        let class = Class::HttpError(ResponseError::Status);
        let location = response.location.as_deref();
        let location = location.map(|location| shortened(&options.redact(location)));
        return match unexpected(&options.expect, location) {
            Some(detail) => with(class, detail),
            None => (class, None),
        };
    }
    let checks = route.checks.as_ref();
    match checks.and_then(|checks| failed_checks(checks, options, &response)) {
        Some(detail) => with(Class::HttpError(ResponseError::Body), detail),
        None => (Class::Ok, None),
    }
}

/// What was expected instead of an unexpected status, and where a redirect leads.
fn unexpected(expect: &Expect, location: Option<String>) -> Option<String> {
    let expected = match expect {
        Expect::Success => None,
        Expect::Listed(list) => {
            let list: Vec<String> = list.iter().map(u16::to_string).collect();
            Some(match list.split_last() {
                Some((last, [])) => format!("expected {last}"),
                Some((last, others)) => format!("expected {} or {last}", others.join(", ")),
                None => "expected none".to_owned(),
            })
        }
    };
    let leads = location.map(|location| format!("leads to {location}"));
    let parts: Vec<String> = expected.into_iter().chain(leads).collect();
    (!parts.is_empty()).then(|| parts.join("; "))
}

#[cfg(test)]
mod tests {
    use super::super::checks::tests::options;
    use super::*;
    use crate::manifest::BodyChecks;

    fn route(checks: Option<BodyChecks>) -> Route {
        Route {
            path: "/".to_owned(),
            core: true,
            options: options(),
            checks: checks.map(Box::new),
        }
    }

    fn response(status: u16) -> Result<Response, Failure> {
        Ok(Response {
            status,
            ..Response::default()
        })
    }

    fn failed(error: TransportError, at_end: bool) -> Result<Response, Failure> {
        Err(Failure {
            at_end,
            ..Failure::new(error, "as it was")
        })
    }

    fn probe_result(class: Class, status: Option<u16>, attempts: u16) -> ProbeResult {
        let proof = Proof {
            silent: true,
            received_any: false,
            starved: None,
        };
        ProbeResult {
            class,
            status,
            detail: None,
            attempts,
            elapsed: Duration::ZERO,
            proof,
        }
    }

    const BAD_STATUS: Class = Class::HttpError(ResponseError::Status);

    #[test]
    fn judge_classifies_every_attempt() {
        use TransportError::{Deadline, Dns, Refused, Timeout};
        let class = Class::TimeoutUnreachable;
        let broken = Failure::response(ResponseError::Protocol, "no");
        let protocol = Class::HttpError(ResponseError::Protocol);
        for (attempt, full, expected) in [
            (response(200), true, Class::Ok),
            (response(302), true, Class::Ok),
            (response(404), true, BAD_STATUS),
            (response(429), true, Class::RateLimited),
            (failed(Timeout, true), true, class(Timeout)),
            (failed(Timeout, true), false, class(Deadline)),
            (failed(Dns, true), false, class(Deadline)),
            (failed(Refused, false), false, class(Refused)),
            (Err(broken), true, protocol),
        ] {
            let given = format!("{attempt:?} {full}");
            let (class, _) = judge(&route(None), attempt, full);
            assert_eq!(class, expected, "{given}");
        }
    }

    #[test]
    fn judge_accepts_a_listed_429() {
        let mut route = route(None);
        route.options.expect = Expect::Listed(vec![429]);
        assert_eq!(judge(&route, response(429), true).0, Class::Ok);
        assert_eq!(judge(&route, response(200), true).0, BAD_STATUS);
    }

    #[test]
    fn final_result_does_not_let_a_rate_limit_mask_an_error() {
        let limited = || probe_result(Class::RateLimited, Some(429), 2);
        let error = Some(probe_result(BAD_STATUS, Some(503), 1));
        let merged = final_result(limited(), true, error.clone());
        assert_eq!(
            (merged.class, merged.status, merged.attempts),
            (BAD_STATUS, Some(503), 2)
        );
        assert_eq!(
            final_result(limited(), true, None).class,
            Class::RateLimited
        );
        let merged = final_result(probe_result(Class::Ok, Some(200), 2), true, error);
        assert_eq!((merged.class, merged.attempts), (Class::Ok, 2));
    }

    #[test]
    fn final_result_is_not_silent_with_an_unused_budget() {
        let silent = || probe_result(Class::TimeoutUnreachable(TransportError::Timeout), None, 2);
        assert!(final_result(silent(), true, None).proof.silent);
        assert!(!final_result(silent(), false, None).proof.silent);
    }
}
