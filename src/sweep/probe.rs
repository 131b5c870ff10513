//! One route's attempts: how often, until when, and what the last one is called. Judging is pure;
//! only [`probe`] waits and asks the network.

use std::thread;
use std::time::Duration;

use super::http::{Client, End, Reply};
use super::line::Failure;
use crate::clock::Monotonic;
use crate::manifest::{BodyChecks, Options, Route};
use crate::verdict::{Class, ProbeResult, Proof, ResponseError, SkipReason, TransportError};

/// An attempt that ends this much after its time-out shows that this process was kept from
/// running.
const OVERRUN: Duration = Duration::from_secs(1);

/// Probes `route` with up to `retries` further attempts, all within `deadline`.
pub(super) fn probe(
    client: &mut Client,
    route: &Route,
    retries: u32,
    deadline: Monotonic,
) -> ProbeResult {
    let options = &route.options;
    let mut error = None;
    let mut attempts: u16 = 0;
    let mut pause = options.backoff;
    let mut proof = Proof {
        silent: true,
        heard: false,
        overran: false,
    };
    loop {
        let start = Monotonic::now();
        if start >= deadline && attempts == 0 {
            return skipped(SkipReason::Deadline);
        }
        let full = start + options.timeout <= deadline;
        let end = if full {
            start + options.timeout
        } else {
            deadline
        };
        let reply = client.attempt(&route.path, options, route.checks.is_some(), end);
        let elapsed = Monotonic::now().since(start);
        attempts += 1;

        let Reply { status, heard, end } = reply;
        let (class, detail) = judge(route, status, end, full);
        let mute = class == Class::TimeoutUnreachable(TransportError::Timeout) && !heard;
        proof.silent &= mute;
        proof.heard |= heard;
        proof.overran |= elapsed > options.timeout + OVERRUN;

        let outcome = ProbeResult {
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
            return settle(outcome, spent, error);
        }
        if let Class::HttpError(_) = class {
            error = Some(outcome);
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

/// The route's outcome from its last attempt: `spent` says whether the retry budget was used,
/// `error` is the route's latest HTTP error before this attempt.
fn settle(mut last: ProbeResult, spent: bool, error: Option<ProbeResult>) -> ProbeResult {
    last.proof.silent &= spent;
    match error {
        Some(error) => {
            let attempts = last.attempts;
            unhidden(last, &error, attempts)
        }
        None => last,
    }
}

/// `last`, unless it is a rate limit: what a provoked limiter says must not hide an HTTP error that
/// the same route gave before. Then all `attempts` count.
pub(super) fn unhidden(last: ProbeResult, error: &ProbeResult, attempts: u16) -> ProbeResult {
    match last.class {
        Class::RateLimited => ProbeResult {
            class: error.class,
            status: error.status,
            detail: error.detail.clone(),
            attempts,
            ..last
        },
        Class::Ok | Class::TimeoutUnreachable(_) | Class::HttpError(_) | Class::Skipped(_) => last,
    }
}

/// Whether another attempt may bring something better.
fn retried(class: Class, status: Option<u16>) -> bool {
    match class {
        Class::TimeoutUnreachable(loss) => match loss {
            TransportError::Timeout
            | TransportError::Refused
            | TransportError::Reset
            | TransportError::Dns
            | TransportError::Network => true,
            TransportError::Tls | TransportError::Deadline => false,
        },
        Class::HttpError(objection) => match objection {
            ResponseError::Status => matches!(status, Some(502..=504)),
            ResponseError::Body | ResponseError::Protocol | ResponseError::Redirects => false,
        },
        Class::Ok | Class::RateLimited | Class::Skipped(_) => false,
    }
}

/// What one attempt is called, and what more there is to say. `full` says that the attempt had its
/// whole time-out, rather than what the deadline left of it.
fn judge(route: &Route, status: Option<u16>, end: End, full: bool) -> (Class, Option<Box<str>>) {
    let options = &route.options;
    let said = |class, text: String| (class, Some(options.redact(&text).into()));
    match end {
        End::Lost(Failure {
            loss,
            at_end,
            detail,
        }) => {
            let loss = if at_end && !full {
                TransportError::Deadline
            } else {
                loss
            };
            said(Class::TimeoutUnreachable(loss), detail)
        }
        End::Broken(text) => said(Class::HttpError(ResponseError::Protocol), text),
        End::TooManyRedirects => {
            let text = format!("more than {} redirects", route.options.max_redirects);
            said(Class::HttpError(ResponseError::Redirects), text)
        }
        End::Response(body) => {
            let status = status.unwrap_or_default();
            if !route.options.expect.accepts(status) {
                let class = match status {
                    429 => Class::RateLimited,
                    _ => Class::HttpError(ResponseError::Status),
                };
                return (class, None);
            }
            let checks = route.checks.as_ref();
            match checks.and_then(|checks| objection(checks, options, &body)) {
                Some(text) => said(Class::HttpError(ResponseError::Body), text),
                None => (Class::Ok, None),
            }
        }
    }
}

/// What `body` lacks of what it must hold.
fn objection(checks: &BodyChecks, options: &Options, body: &[u8]) -> Option<String> {
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
            None => Some(format!("nothing stands at {pointer:?}; expected {wanted}")),
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
    use std::sync::Arc;

    use super::*;
    use crate::manifest::{Expect, Method, Options};

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

    fn response() -> End {
        End::Response(Vec::new())
    }

    fn lost(loss: TransportError, at_end: bool) -> End {
        End::Lost(Failure {
            loss,
            at_end,
            detail: "as it was".to_owned(),
        })
    }

    fn outcome(class: Class, status: Option<u16>, attempts: u16) -> ProbeResult {
        let proof = Proof {
            silent: true,
            heard: false,
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
    fn judge_names_every_end() {
        let loss = Class::TimeoutUnreachable;
        let broken = End::Broken("no".to_owned());
        let protocol = Class::HttpError(ResponseError::Protocol);
        for (status, end, full, expected) in [
            (Some(200), response(), true, Class::Ok),
            (Some(302), response(), true, Class::Ok),
            (Some(404), response(), true, BAD_STATUS),
            (Some(429), response(), true, Class::RateLimited),
            (
                None,
                lost(TransportError::Timeout, true),
                true,
                loss(TransportError::Timeout),
            ),
            (
                None,
                lost(TransportError::Timeout, true),
                false,
                loss(TransportError::Deadline),
            ),
            (
                None,
                lost(TransportError::Dns, true),
                false,
                loss(TransportError::Deadline),
            ),
            (
                None,
                lost(TransportError::Refused, false),
                false,
                loss(TransportError::Refused),
            ),
            (Some(200), broken, true, protocol),
        ] {
            let told = format!("{status:?} {end:?} {full}");
            let (class, _) = judge(&route(None), status, end, full);
            assert_eq!(class, expected, "{told}");
        }
        let (class, detail) = judge(&route(None), Some(302), End::TooManyRedirects, true);
        assert_eq!(class, Class::HttpError(ResponseError::Redirects));
        assert_eq!(detail.as_deref(), Some("more than 3 redirects"));
    }

    #[test]
    fn judge_takes_a_listed_429_as_expected() {
        let mut route = route(None);
        Arc::make_mut(&mut route.options).expect = Expect::Listed(vec![429]);
        assert_eq!(judge(&route, Some(429), response(), true).0, Class::Ok);
        assert_eq!(judge(&route, Some(200), response(), true).0, BAD_STATUS);
    }

    #[test]
    fn objection_compares_json_as_written() {
        let check = |pointer: &str, wanted: serde_json::Value, body: &str| {
            let checks = BodyChecks {
                contains: None,
                json: vec![(pointer.to_owned(), wanted)],
            };
            objection(&checks, &route(None).options, body.as_bytes())
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
                .starts_with("nothing stands at")
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
    fn objection_finds_text_among_any_bytes() {
        let checks = BodyChecks {
            contains: Some("grün".to_owned()),
            json: Vec::new(),
        };
        assert_eq!(
            objection(&checks, &route(None).options, b"\xff\xfegr\xc3\xbcn\xff"),
            None
        );
        assert!(
            objection(&checks, &route(None).options, b"gruen")
                .unwrap()
                .contains("grün")
        );
    }

    #[test]
    fn retried_are_only_losses_that_may_pass_and_gateway_errors() {
        for loss in [
            TransportError::Timeout,
            TransportError::Refused,
            TransportError::Reset,
            TransportError::Dns,
            TransportError::Network,
        ] {
            assert!(retried(Class::TimeoutUnreachable(loss), None), "{loss:?}");
        }
        for loss in [TransportError::Tls, TransportError::Deadline] {
            assert!(!retried(Class::TimeoutUnreachable(loss), None), "{loss:?}");
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
    fn settle_lets_no_limiter_hide_an_error() {
        let limited = || outcome(Class::RateLimited, Some(429), 2);
        let error = Some(outcome(BAD_STATUS, Some(503), 1));
        let settled = settle(limited(), true, error.clone());
        assert_eq!(
            (settled.class, settled.status, settled.attempts),
            (BAD_STATUS, Some(503), 2)
        );
        assert_eq!(settle(limited(), true, None).class, Class::RateLimited);
        let settled = settle(outcome(Class::Ok, Some(200), 2), true, error);
        assert_eq!((settled.class, settled.attempts), (Class::Ok, 2));
    }

    #[test]
    fn settle_takes_an_unused_budget_for_no_silence() {
        let mute = || outcome(Class::TimeoutUnreachable(TransportError::Timeout), None, 2);
        assert!(settle(mute(), true, None).proof.silent);
        assert!(!settle(mute(), false, None).proof.silent);
    }
}
