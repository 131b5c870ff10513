//! Tests of the manifest format: what an author writes, and what is reported. They use only the module's
//! public interface.

mod headers;
mod syntax;
mod url;
mod values;
mod whole;

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;

use serde_json::{Value, json};

use super::*;

/// Parses with the variables TOKEN, LINES and LATIN1 in the environment.
fn parse(text: &str) -> anyhow::Result<Manifest> {
    parse_with(text, None)
}

fn parse_with(text: &str, base_url: Option<&str>) -> anyhow::Result<Manifest> {
    let environment = |name: &str| match name {
        "TOKEN" => Some(OsString::from("hunter2")),
        "LINES" => Some(OsString::from("hunter2\nSet-Cookie: hunter2")),
        "LATIN1" => Some(OsString::from_vec(b"hunter2\xe9".to_vec())),
        "EMPTY" => Some(OsString::new()),
        _ => None,
    };
    let base_url: Option<BaseUrl> = base_url.map(|url| url.parse().expect("a base URL"));
    let variables = Variables::Required(&environment);
    Manifest::parse(text.as_bytes(), Source::Stdin, base_url.as_ref(), variables)
}

/// The problems of a manifest, one line each, without the name of the file that each begins with.
fn lines(text: &str) -> Vec<String> {
    let Err(problems) = parse(text) else {
        return Vec::new();
    };
    let problems = problems.to_string();
    let lines = problems
        .lines()
        .map(|line| line.strip_prefix("standard input: "));
    lines
        .map(|line| line.expect("the file").to_owned())
        .collect()
}

fn minimal() -> Value {
    json!({ "base_url": "http://127.0.0.1:8000", "routes": [{ "path": "/", "core": true }] })
}

/// A valid manifest, but with the JSON text `value` at a location such as `routes[0].retries`.
fn with(place: &str, value: &str) -> String {
    let value: Value = serde_json::from_str(value).expect("JSON");
    let mut manifest = minimal();
    match place.split_once('.') {
        None => manifest[place] = value,
        Some(("routes[0]", key)) => manifest["routes"][0][key] = value,
        Some(("recovery", key)) => {
            manifest["recovery"] = json!({ "unit": "scidex-api.service" });
            manifest["recovery"][key] = value;
        }
        Some((table, key)) => manifest[table] = json!({ key: value }),
    }
    manifest.to_string()
}

#[track_caller]
fn accepts(place: &str, values: &[&str]) {
    for value in values {
        let text = with(place, value);
        assert_eq!(lines(&text), Vec::<String>::new(), "{place} = {value}");
    }
}

/// Each value causes exactly one line, located at `place`, that contains the text given beside it.
#[track_caller]
fn rejects(place: &str, values: &[(&str, &str)]) {
    for (value, reported) in values {
        let lines = lines(&with(place, value));
        assert_eq!(lines.len(), 1, "{place} = {value}: {lines:?}");
        let begins = lines[0].starts_with(place);
        assert!(
            begins && lines[0].contains(reported),
            "{place} = {value}: {lines:?}"
        );
    }
}
