//! The body checks of a route: `body_contains` and `json`. Pure.

use std::collections::HashMap;

use memchr::memmem;
use serde_json::value::RawValue;

use super::http::Response;
use crate::escape::shortened;
use crate::manifest::{Options, Route};

/// The body checks that `response` fails, in words.
pub(super) fn failed_checks(route: &Route, response: &Response) -> Option<String> {
    let (checks, options) = (route.checks.as_ref()?, &route.options);
    let body = response.body.as_slice();
    let mut failed = Vec::new();
    if let Some(text) = &checks.contains
        && memmem::find(body, text.as_bytes()).is_none()
    {
        let searched = body.len();
        failed.push(if searched < options.max_body_bytes {
            format!("the body does not contain {text:?}")
        } else {
            format!(
                "the first {searched} bytes of the body do not contain {text:?}; raise \"max_body_bytes\" to \
                 search more"
            )
        });
    }
    if !checks.json.is_empty() {
        failed.extend(failed_json(&checks.json, options, body));
    }
    match &response.encoding {
        _ if failed.is_empty() => None,
        Some(encoding) => Some(format!(
            "the body is compressed (Content-Encoding: {}); body checks need it uncompressed",
            shortened(&options.redact(encoding))
        )),
        None => Some(failed.join("; ")),
    }
}

/// What is wrong at each pointer. The body may be nested to any depth and contain any number: only the wanted
/// values are parsed, everything else is passed over without recursion.
fn failed_json(
    wanted: &[(String, serde_json::Value)],
    options: &Options,
    body: &[u8],
) -> Vec<String> {
    let read = body.len();
    let whole: &RawValue = match serde_json::from_slice(body) {
        Ok(whole) => whole,
        Err(error) if error.is_eof() && read >= options.max_body_bytes => {
            return vec![format!(
                "the JSON does not end within the first {read} bytes; raise \"max_body_bytes\""
            )];
        }
        Err(error) => return vec![format!("the body is not JSON: {error}")],
    };
    let mut failed = Vec::new();
    for (pointer, wanted) in wanted {
        let Some(found) = value_at(whole, pointer) else {
            failed.push(format!("no value at {pointer:?}; expected {wanted}"));
            continue;
        };
        // A value that cannot be parsed is none that a manifest can want.
        let parsed: Option<serde_json::Value> = serde_json::from_str(found.get()).ok();
        if parsed.as_ref() != Some(wanted) {
            let shown = parsed.map_or_else(|| found.get().to_owned(), |value| value.to_string());
            let shown = options.redact(&shown);
            let shown = shortened(&shown);
            failed.push(format!("{pointer:?} is {shown}, not {wanted}"));
        }
    }
    failed
}

/// The value at a JSON Pointer (RFC 6901), as it is written.
fn value_at<'a>(whole: &'a RawValue, pointer: &str) -> Option<&'a RawValue> {
    let mut tokens = pointer.split('/').skip(1);
    tokens.try_fold(whole, |value, token| {
        if value.get().starts_with('{') {
            let mut fields: HashMap<String, &RawValue> = serde_json::from_str(value.get()).ok()?;
            return fields.remove(&token.replace("~1", "/").replace("~0", "~"));
        }
        let is_index = token == "0" || !token.starts_with(['0', '+']);
        let index: usize = token.parse().ok().filter(|_| is_index)?;
        let items: Vec<&RawValue> = serde_json::from_str(value.get()).ok()?;
        items.get(index).copied()
    })
}

#[cfg(test)]
pub(super) mod tests {
    use std::time::Duration;

    use serde_json::json;

    use super::*;
    use crate::manifest::{BodyChecks, Method};

    /// Options of a GET with retries.
    pub(in super::super) fn options() -> Options {
        Options {
            method: Method::Get,
            expect: Vec::new(),
            timeout: Duration::from_secs(1),
            retries: 2,
            backoff: Duration::ZERO,
            max_redirects: 3,
            headers: Vec::new(),
            max_body_bytes: 1024,
        }
    }

    fn failed(checks: &BodyChecks, body: impl AsRef<[u8]>) -> String {
        let response = Response {
            body: body.as_ref().to_vec(),
            ..Response::default()
        };
        let route = Route {
            path: "/".to_owned(),
            core: true,
            options: options(),
            checks: Some(Box::new(checks.clone())),
        };
        failed_checks(&route, &response).unwrap_or_default()
    }

    fn pointers(json: &[(&str, serde_json::Value)]) -> BodyChecks {
        let json = json
            .iter()
            .map(|(at, wanted)| ((*at).to_owned(), wanted.clone()));
        BodyChecks {
            contains: None,
            json: json.collect(),
        }
    }

    #[test]
    fn failed_checks_compare_json_as_written() {
        for (pointer, wanted, body, expected) in [
            ("/a/1", json!(1), r#"{"a": [0, 1]}"#, ""),
            ("", json!(true), " true ", ""),
            ("/", json!(2), r#"{"": 1, "": 2}"#, ""),
            ("/a~1b/~01", json!(1), r#"{"a/b": {"~1": 1}}"#, ""),
            ("/\u{fc}", json!("\n"), r#"{"\u00fc": "\n"}"#, ""),
            (
                "/a",
                json!({"b": [1, 2], "c": null}),
                r#"{"a": {"c" :null, "b":[1,2]}}"#,
                "",
            ),
            ("/a", json!(1), r#"{"a": 1.0}"#, r#""/a" is 1.0, not 1"#),
            ("/a", json!(1), r#"{"a": "1"}"#, r#""/a" is "1", not 1"#),
            ("/a", json!(1), r#"{"a": 1e999}"#, r#""/a" is 1e999, not 1"#),
            ("/a", json!(1), r#"{"a": [ 1 ]}"#, r#""/a" is [1], not 1"#),
            (
                "/b",
                json!(1),
                r#"{"a": 1}"#,
                r#"no value at "/b"; expected 1"#,
            ),
            (
                "/01",
                json!(1),
                "[0, 1]",
                r#"no value at "/01"; expected 1"#,
            ),
            (
                "/+1",
                json!(1),
                "[0, 1]",
                r#"no value at "/+1"; expected 1"#,
            ),
            ("/-", json!(1), "[0, 1]", r#"no value at "/-"; expected 1"#),
            (
                "/0",
                json!("a"),
                r#""a""#,
                r#"no value at "/0"; expected "a""#,
            ),
            (
                "/a",
                json!(1),
                "<html>",
                "the body is not JSON: expected value at line 1 column 1",
            ),
            (
                "/a",
                json!(1),
                r#"{"a": 1"#,
                "the body is not JSON: EOF while parsing an object at line 1 column 7",
            ),
            (
                "/a",
                json!(1),
                r#"{"a": 1} x"#,
                "the body is not JSON: trailing characters at line 1 column 10",
            ),
        ] {
            let given = format!("{pointer} {body}");
            assert_eq!(
                failed(&pointers(&[(pointer, wanted)]), body),
                expected,
                "{given}"
            );
        }
        let long = format!(r#"{{"a": "{}"}}"#, "ä".repeat(500));
        assert!(failed(&pointers(&[("/a", json!(1))]), &long).len() < 250);
        let not_utf8 = failed(
            &pointers(&[("/a", json!(1))]),
            b"{\"a\": 1, \"b\": \"\xff\"}",
        );
        assert!(not_utf8.starts_with("the body is not JSON"), "{not_utf8}");
    }

    #[test]
    fn value_at_finds_what_serde_json_finds() {
        let pointers = [
            "", "/", "/a", "/a/b", "/a/0", "/0", "/1/a", "/00", "/+0", "/-", "/a~1b", "/~0",
            "/~01", "/a/",
        ];
        for text in [
            "null",
            "7",
            r#""/a""#,
            "[]",
            r#"[[0], {"a": 2}]"#,
            r#"{"": 1, "a": {"b": [], "0": 3, "": 4}, "0": 5, "-": 6}"#,
            r#"{"a": [1], "a/b": 7, "~": 8, "~1": 9, "00": 10, "+0": 11, "a": [12]}"#,
        ] {
            let whole: &RawValue = serde_json::from_str(text).unwrap();
            let value: serde_json::Value = serde_json::from_str(text).unwrap();
            for pointer in pointers {
                let found = value_at(whole, pointer).map(|raw| raw.get().parse().unwrap());
                assert_eq!(found.as_ref(), value.pointer(pointer), "{text} {pointer}");
            }
        }
    }

    #[test]
    fn every_failed_check_is_named() {
        let mut checks = pointers(&[("/a", json!(1)), ("/ok", json!(1)), ("/b", json!(2))]);
        checks.contains = Some("ready".to_owned());
        assert_eq!(
            failed(&checks, r#"{"a": 2, "ok": 1}"#),
            r#"the body does not contain "ready"; "/a" is 2, not 1; no value at "/b"; expected 2"#
        );
    }

    #[test]
    fn json_of_any_depth_and_any_number_is_read() {
        let deep = "[".repeat(1_000_000) + &"]".repeat(1_000_000);
        let body = format!(r#"{{"deep": {deep}, "large": 1e999, "a": 1}}"#);
        assert_eq!(failed(&pointers(&[("/a", json!(1))]), &body), "");
        let failed = failed(&pointers(&[("/deep", json!([]))]), &body);
        assert!(failed.starts_with("\"/deep\" is [[[["), "{failed:.100}");
    }

    #[test]
    fn a_body_that_was_cut_is_not_blamed() {
        let body = format!(r#"{{"a": "{}"}}"#, "x".repeat(5_000));
        let cut = &body.as_bytes()[..options().max_body_bytes];
        assert_eq!(
            failed(&pointers(&[("/a", json!(1))]), cut),
            r#"the JSON does not end within the first 1024 bytes; raise "max_body_bytes""#
        );
    }

    #[test]
    fn failed_checks_find_text_among_any_bytes() {
        let checks = BodyChecks {
            contains: Some("grün".to_owned()),
            json: Vec::new(),
        };
        assert_eq!(failed(&checks, b"\xff\xfegr\xc3\xbcn\xff"), "");
        assert!(failed(&checks, b"gruen").contains("grün"));
    }
}
