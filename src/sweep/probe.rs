//! The attempts of one route: retries, deadline, and the class of the last attempt. Judging is pure; only
//! [`probe`] waits and uses the network.

use std::net::SocketAddr;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use super::attempt::Attempt;
use super::client::Client;
use super::failure::Failure;
use super::http::Response;
use crate::clock::Monotonic;
use crate::manifest::{BodyChecks, Options, Route};
use crate::verdict::{Class, ProbeResult, Proof, ResponseError, SkipReason, TransportError};

/// An attempt that ends this much after its timeout shows that this process was kept from
/// running.
const OVERRUN: Duration = Duration::from_secs(1);

/// Probes `route` with up to `retries` further attempts, all within `deadline`. Returns also where an
/// attempt received nothing in all its time.
pub(super) fn probe(
    client: &Arc<Client>,
    route: &Route,
    retries: u32,
    deadline: Monotonic,
) -> (ProbeResult, Vec<SocketAddr>) {
    let options = &route.options;
    let mut silent_at = Vec::new();
    let mut error = None;
    let mut attempts: u16 = 0;
    let mut pause = options.backoff;
    let mut proof = Proof {
        silent: true,
        ..Proof::default()
    };
    loop {
        let start = Monotonic::now();
        if start >= deadline && attempts == 0 {
            return (skipped(SkipReason::Deadline), silent_at);
        }
        let full = start + options.timeout <= deadline;
        let end = deadline.min(start + options.timeout);
        let attempt = Arc::new(Attempt::new(client, end));
        let response = attempt.send(&route.path, options, route.checks.is_some());
        let elapsed = Monotonic::now().since(start);
        attempts += 1;

        let status = match &response {
            Ok(response) => Some(response.status),
            Err(failure) => failure.status,
        };
        let received_any = response.is_ok() || attempt.received_any();
        let (class, detail) = judge(route, response, full);
        let silent = class == Class::TimeoutUnreachable(TransportError::Timeout) && !received_any;
        if silent {
            let connections = attempt.connections().into_iter();
            silent_at.extend(connections.map(|at| at.connection.remote));
        }
        proof.silent &= silent;
        proof.received_any |= received_any;
        proof.overran |= elapsed > options.timeout + OVERRUN;

        let result = ProbeResult {
            class,
            status,
            detail,
            attempts,
            elapsed,
            proof,
        };
        let spent = u32::from(attempts) > retries;
        let late = Monotonic::now() + pause >= deadline;
        if spent || late || !retried(class, status) {
            return (final_result(result, spent, error), silent_at);
        }
        if let Class::HttpError(_) = class {
            error = Some(result);
        }
        thread::sleep(pause);
        pause *= 2;
    }
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

/// The route's result from its last attempt: `spent` says whether the retry budget was used,
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

/// Whether another attempt may have a better result.
fn retried(class: Class, status: Option<u16>) -> bool {
    match class {
        Class::TimeoutUnreachable(error) => match error {
            TransportError::Timeout
            | TransportError::Refused
            | TransportError::Reset
            | TransportError::Dns
            | TransportError::Network => true,
            TransportError::Tls | TransportError::Deadline => false,
        },
        Class::HttpError(error) => match error {
            ResponseError::Status => matches!(status, Some(502..=504)),
            ResponseError::Body | ResponseError::Protocol | ResponseError::Redirects => false,
        },
        Class::Ok | Class::RateLimited | Class::Skipped(_) => false,
    }
}

/// The class and the detail of one attempt. `full` means that the attempt had its whole timeout, instead of
/// the rest of the deadline.
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
    if !route.options.expect.accepts(response.status) {
        let class = match response.status {
            429 => Class::RateLimited,
            _ => Class::HttpError(ResponseError::Status),
        };
        return (class, None);
    }
    let checks = route.checks.as_ref();
    match checks.and_then(|checks| failed_check(checks, options, &response.body)) {
        Some(detail) => with(Class::HttpError(ResponseError::Body), detail),
        None => (Class::Ok, None),
    }
}

/// The first body check that `body` fails.
fn failed_check(checks: &BodyChecks, options: &Options, body: &[u8]) -> Option<String> {
    if let Some(text) = &checks.contains
        && !holds(body, text.as_bytes())
    {
        return Some(format!("the body does not contain {text:?}"));
    }
    if checks.json.is_empty() {
        return None;
    }
    let value: serde_json::Value = match serde_json::from_slice(body) {
        Ok(value) => value,
        Err(error) => return Some(format!("the body is not JSON: {error}")),
    };
    checks
        .json
        .iter()
        .find_map(|(pointer, wanted)| match value.pointer(pointer) {
            Some(found) if found == wanted => None,
            Some(found) => Some(format!(
                "{pointer:?} is {}, not {wanted}",
                shortened(&options.redact(&found.to_string()))
            )),
            None => Some(format!("no value at {pointer:?}; expected {wanted}")),
        })
}

/// Whether `needle` occurs in `body`.
fn holds(body: &[u8], needle: &[u8]) -> bool {
    needle.is_empty() || body.windows(needle.len()).any(|window| window == needle)
}

/// A JSON value's text in a length that a person can read.
fn shortened(text: &str) -> String {
    const LONGEST: usize = 80;
    match text.char_indices().nth(LONGEST) {
        Some((cut, _)) => format!("{}…", text.get(..cut).unwrap_or_default()),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::{Expect, Method};

    fn route(checks: Option<BodyChecks>) -> Route {
        let options = Options {
            method: Method::Get,
            expect: Expect::Success,
            timeout: Duration::from_secs(1),
            retries: 2,
            backoff: Duration::ZERO,
            max_redirects: 3,
            headers: Vec::new(),
            max_body_bytes: 1024,
        };
        Route {
            path: "/".to_owned(),
            core: true,
            options: Arc::new(options),
            checks: checks.map(Box::new),
        }
    }

    fn response(status: u16) -> Result<Response, Failure> {
        let body = Vec::new();
        Ok(Response { status, body })
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
            overran: false,
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
    fn judge_names_every_attempt() {
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
    fn judge_takes_a_listed_429_as_expected() {
        let mut route = route(None);
        Arc::make_mut(&mut route.options).expect = Expect::Listed(vec![429]);
        assert_eq!(judge(&route, response(429), true).0, Class::Ok);
        assert_eq!(judge(&route, response(200), true).0, BAD_STATUS);
    }

    #[test]
    fn failed_check_compares_json_as_written() {
        let check = |pointer: &str, wanted: serde_json::Value, body: &str| {
            let checks = BodyChecks {
                contains: None,
                json: vec![(pointer.to_owned(), wanted)],
            };
            failed_check(&checks, &route(None).options, body.as_bytes())
        };
        assert_eq!(check("/a/1", 1.into(), r#"{"a": [0, 1]}"#), None);
        assert_eq!(check("", true.into(), "true"), None);
        assert_eq!(
            check("/a", 1.into(), r#"{"a": 1.0}"#).unwrap(),
            r#""/a" is 1.0, not 1"#
        );
        assert_eq!(
            check("/a", 1.into(), r#"{"a": "1"}"#).unwrap(),
            r#""/a" is "1", not 1"#
        );
        assert!(
            check("/b", 1.into(), r#"{"a": 1}"#)
                .unwrap()
                .starts_with("no value at")
        );
        assert!(
            check("/a", 1.into(), "<html>")
                .unwrap()
                .starts_with("the body is not JSON")
        );
        let long = format!(r#"{{"a": "{}"}}"#, "ä".repeat(500));
        assert!(check("/a", 1.into(), &long).unwrap().len() < 250);
    }

    #[test]
    fn failed_check_finds_text_among_any_bytes() {
        let checks = BodyChecks {
            contains: Some("grün".to_owned()),
            json: Vec::new(),
        };
        assert_eq!(
            failed_check(&checks, &route(None).options, b"\xff\xfegr\xc3\xbcn\xff"),
            None
        );
        assert!(
            failed_check(&checks, &route(None).options, b"gruen")
                .unwrap()
                .contains("grün")
        );
    }

    #[test]
    fn retried_are_only_errors_that_may_pass_and_gateway_errors() {
        for error in [
            TransportError::Timeout,
            TransportError::Refused,
            TransportError::Reset,
            TransportError::Dns,
            TransportError::Network,
        ] {
            assert!(retried(Class::TimeoutUnreachable(error), None), "{error:?}");
        }
        for error in [TransportError::Tls, TransportError::Deadline] {
            assert!(
                !retried(Class::TimeoutUnreachable(error), None),
                "{error:?}"
            );
        }
        for status in [500, 501, 502, 503, 504, 505] {
            let expected = (502..=504).contains(&status);
            assert_eq!(retried(BAD_STATUS, Some(status)), expected, "{status}");
        }
        assert!(!retried(Class::RateLimited, Some(429)));
        assert!(!retried(Class::HttpError(ResponseError::Body), Some(503)));
        assert!(!retried(Class::Ok, Some(503)));
    }

    #[test]
    fn final_result_lets_no_limiter_hide_an_error() {
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
    fn final_result_takes_an_unused_budget_for_no_silence() {
        let silent = || probe_result(Class::TimeoutUnreachable(TransportError::Timeout), None, 2);
        assert!(final_result(silent(), true, None).proof.silent);
        assert!(!final_result(silent(), false, None).proof.silent);
    }
}
