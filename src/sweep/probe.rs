//! The attempts of one route: retries, deadline, and the class of the last attempt.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use super::Round;
use super::attempt::{Attempt, Received};
use super::checks::failed_checks;
use super::failure::Failure;
use super::http::Response;
use crate::cause::{Class, ResponseError, SkipReason, TransportError};
use crate::clock::Monotonic;
use crate::escape::shortened;
use crate::manifest::{Options, Route};
use crate::verdict::ProbeResult;

/// Probes `route`, which has this `index` in the manifest, with all attempts within the round's deadline.
pub(super) fn probe(round: &Round<'_>, index: usize, route: &Route) -> ProbeResult {
    let (client, options) = (&round.prober.client, &route.options);
    let retries = if round.once { 0 } else { options.retries };
    let mut due = Monotonic::now();
    if due >= round.deadline {
        return skipped(SkipReason::Deadline);
    }
    let (mut silent, mut received_any, mut starved) = (true, false, None);
    let (mut attempts, mut pause, mut error) = (0, options.backoff, None);
    loop {
        attempts += 1;
        let attempt = Arc::new(Attempt::new(client, round.deadline, options.timeout));
        attempt.was_due(due);
        let mut result = result_of(&attempt, route);
        if let Some(number) = round.parks_as.filter(|_| result.silent) {
            attempt.park(index, number, attempts == 1);
        }
        silent &= result.silent;
        received_any |= result.received_any;
        starved = starved.max(result.starved);
        due = attempt.began + result.elapsed + pause;
        let budget_is_spent = u32::from(attempts) > retries;
        if budget_is_spent || due >= round.deadline || !is_retried(result.class, result.status) {
            if let Some(error) = &error {
                keep_http_error(&mut result, error);
            }
            return ProbeResult {
                attempts,
                silent: silent && budget_is_spent,
                received_any,
                starved,
                ..result
            };
        }
        if let Class::HttpError(_) = result.class {
            error = Some(result);
        }
        thread::sleep(due.remaining());
        pause *= 2;
    }
}

/// Makes the attempt: its own result.
fn result_of(attempt: &Arc<Attempt>, route: &Route) -> ProbeResult {
    let response = attempt.send(route);
    let elapsed = Monotonic::now().since(attempt.began);
    let status = attempt.state().status;
    let received = attempt.state().received;
    let (class, detail) = judge(route, response, attempt.is_full());
    let timed_out = class == Class::TimeoutUnreachable(TransportError::Timeout);
    ProbeResult {
        class,
        status,
        detail,
        attempts: 1,
        elapsed,
        silent: timed_out && received != Received::Response,
        received_any: received != Received::Nothing,
        starved: attempt.starved(),
    }
}

/// Whether another attempt may give a better result.
fn is_retried(class: Class, status: Option<u16>) -> bool {
    use TransportError::{Deadline, Tls};
    match class {
        Class::TimeoutUnreachable(error) => !matches!(error, Tls | Deadline),
        Class::HttpError(ResponseError::Status) => matches!(status, Some(502..=504)),
        Class::Ok | Class::RateLimited | Class::HttpError(_) | Class::Skipped(_) => false,
    }
}

pub(super) fn skipped(reason: SkipReason) -> ProbeResult {
    ProbeResult {
        class: Class::Skipped(reason),
        status: None,
        detail: None,
        attempts: 0,
        elapsed: Duration::ZERO,
        silent: false,
        received_any: false,
        starved: None,
    }
}

/// Replaces a rate limit by the `earlier` result of the same route, if that is an HTTP error: a 429 caused by our
/// own probes must not mask it. Returns whether it does so.
pub(super) fn keep_http_error(last: &mut ProbeResult, earlier: &ProbeResult) -> bool {
    let (Class::RateLimited, Class::HttpError(_)) = (last.class, earlier.class) else {
        return false;
    };
    last.class = earlier.class;
    last.status = earlier.status;
    last.detail.clone_from(&earlier.detail);
    true
}

/// The class and the detail of one attempt; `full` if it had its full timeout, not only the rest of the deadline.
fn judge(
    route: &Route,
    response: Result<Response, Failure>,
    full: bool,
) -> (Class, Option<Box<str>>) {
    let options = &route.options;
    let (class, detail) = match response {
        Err(failure) if failure.at_end && !full => {
            let class = Class::TimeoutUnreachable(TransportError::Deadline);
            (class, Some(failure.detail))
        }
        Err(failure) => (failure.class, Some(failure.detail)),
        Ok(response) if options.accepts(response.status) => match failed_checks(route, &response) {
            Some(detail) => (Class::HttpError(ResponseError::Body), Some(detail)),
            None => (Class::Ok, None),
        },
        Ok(response) if response.status == 429 => (Class::RateLimited, None),
        Ok(response) => {
            let detail = unexpected(options, response.location.as_deref());
            (Class::HttpError(ResponseError::Status), detail)
        }
    };
    (class, detail.map(|detail| options.redact(&detail).into()))
}

/// What was expected instead of an unexpected status, and where a redirect leads.
fn unexpected(options: &Options, location: Option<&str>) -> Option<String> {
    let listed: Vec<String> = options.expect.iter().map(u16::to_string).collect();
    let expected = match listed.split_last() {
        None => None,
        Some((last, [])) => Some(format!("expected {last}")),
        Some((last, others)) => Some(format!("expected {} or {last}", others.join(", "))),
    };
    let location = location.map(|location| options.redact(location));
    let leads = location.map(|location| format!("leads to {}", shortened(&location)));
    let parts: Vec<String> = expected.into_iter().chain(leads).collect();
    (!parts.is_empty()).then(|| parts.join("; "))
}

#[cfg(test)]
mod tests {
    use super::super::Prober;
    use super::super::checks::tests::options;
    use super::super::http::tests::manifest;
    use super::*;
    use crate::manifest::BodyChecks;
    use std::net::TcpListener;

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
        ProbeResult {
            class,
            status,
            attempts,
            silent: true,
            ..skipped(SkipReason::Deadline)
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
        route.options.expect = vec![429];
        assert_eq!(judge(&route, response(429), true).0, Class::Ok);
        assert_eq!(judge(&route, response(200), true).0, BAD_STATUS);
    }

    #[test]
    fn a_rate_limit_does_not_mask_an_earlier_error() {
        let merged = |mut last: ProbeResult, earlier: &ProbeResult| {
            keep_http_error(&mut last, earlier);
            (last.class, last.status, last.attempts)
        };
        let limited = || probe_result(Class::RateLimited, Some(429), 2);
        let error = probe_result(BAD_STATUS, Some(503), 1);
        assert_eq!(merged(limited(), &error), (BAD_STATUS, Some(503), 2));
        let fine = probe_result(Class::Ok, Some(200), 1);
        let unchanged = (Class::RateLimited, Some(429), 2);
        assert_eq!(merged(limited(), &fine), unchanged);
        assert_eq!(merged(fine.clone(), &error).0, Class::Ok);
    }

    /// The result of probing `server`, whose connections nobody accepts, within `limit`.
    fn probed(server: &TcpListener, route: &Route, limit: Duration) -> ProbeResult {
        let url = format!("http://{}", server.local_addr().unwrap());
        let manifest = manifest(&url, "tester");
        let prober = Prober::new(&manifest, false).unwrap();
        probe(&prober.round(Monotonic::now() + limit), 0, route)
    }

    #[test]
    fn pauses_double_until_the_budget_is_spent() {
        let silent = TcpListener::bind("127.0.0.1:0").unwrap();
        let millis = Duration::from_millis;
        let mut route = route(None);
        (route.options.timeout, route.options.backoff) = (millis(20), millis(200));
        let began = Monotonic::now();
        let result = probed(&silent, &route, Duration::from_secs(10));
        let took = Monotonic::now().since(began);
        assert_eq!((result.attempts, result.silent), (3, true));
        assert!(took >= millis(660) && took < millis(1000), "{took:?}");
    }

    #[test]
    fn a_retry_beyond_the_deadline_is_not_made_and_leaves_nothing_proved() {
        let silent = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut route = route(None);
        (route.options.timeout, route.options.backoff) =
            (Duration::from_millis(20), Duration::from_secs(10));
        let result = probed(&silent, &route, Duration::from_secs(5));
        let timeout = Class::TimeoutUnreachable(TransportError::Timeout);
        assert_eq!((result.class, result.attempts), (timeout, 1));
        assert!(!result.silent);
    }

    #[test]
    fn only_transient_errors_and_gateway_errors_are_retried() {
        for error in [
            TransportError::Timeout,
            TransportError::Refused,
            TransportError::Reset,
            TransportError::Dns,
            TransportError::Network,
        ] {
            assert!(
                is_retried(Class::TimeoutUnreachable(error), None),
                "{error:?}"
            );
        }
        for error in [TransportError::Tls, TransportError::Deadline] {
            assert!(
                !is_retried(Class::TimeoutUnreachable(error), None),
                "{error:?}"
            );
        }
        for status in [500, 501, 502, 503, 504, 505] {
            let expected = (502..=504).contains(&status);
            assert_eq!(
                is_retried(Class::HttpError(ResponseError::Status), Some(status)),
                expected,
                "{status}"
            );
        }
        assert!(!is_retried(Class::RateLimited, Some(429)));
        assert!(!is_retried(
            Class::HttpError(ResponseError::Body),
            Some(503)
        ));
        assert!(!is_retried(Class::Ok, Some(503)));
    }
}
