//! The body checks of a route: `body_contains` and `json`. Pure.

use crate::manifest::{BodyChecks, Options};

/// The first body check that `body` fails.
pub(super) fn failed_check(checks: &BodyChecks, options: &Options, body: &[u8]) -> Option<String> {
    if let Some(text) = &checks.contains
        && !contains(body, text.as_bytes())
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
fn contains(body: &[u8], needle: &[u8]) -> bool {
    needle.is_empty() || body.windows(needle.len()).any(|window| window == needle)
}

/// A JSON value's text, shortened so that a person can read it.
fn shortened(text: &str) -> String {
    const LONGEST: usize = 80;
    match text.char_indices().nth(LONGEST) {
        Some((cut, _)) => format!("{}…", text.get(..cut).unwrap_or_default()),
        None => text.to_owned(),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::time::Duration;

    use super::*;
    use crate::manifest::{Expect, Method};

    /// Options of a GET with retries.
    pub(in super::super) fn options() -> Options {
        Options {
            method: Method::Get,
            expect: Expect::Success,
            timeout: Duration::from_secs(1),
            retries: 2,
            backoff: Duration::ZERO,
            max_redirects: 3,
            headers: Vec::new(),
            max_body_bytes: 1024,
        }
    }

    #[test]
    fn failed_check_compares_json_as_written() {
        let check = |pointer: &str, wanted: serde_json::Value, body: &str| {
            let checks = BodyChecks {
                contains: None,
                json: vec![(pointer.to_owned(), wanted)],
            };
            failed_check(&checks, &options(), body.as_bytes())
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
            failed_check(&checks, &options(), b"\xff\xfegr\xc3\xbcn\xff"),
            None
        );
        assert!(
            failed_check(&checks, &options(), b"gruen")
                .unwrap()
                .contains("grün")
        );
    }
}
