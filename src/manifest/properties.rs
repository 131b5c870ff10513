//! The properties of the manifest parser that hold for any bytes, stated once for proptest and the fuzzer.
//! They read the JSON independently of the parser. The limits are those of `routes.schema.json`; only the
//! rules that a schema cannot express are stated here.

#![expect(
    clippy::panic,
    reason = "a property that does not hold panics in any case"
)]

use std::collections::HashSet;
use std::ffi::OsString;
use std::net::Ipv6Addr;
use std::os::unix::ffi::OsStringExt as _;
use std::sync::LazyLock;
use std::time::Duration;

use iri_string::format::ToDedicatedString as _;
use iri_string::types::{UriAbsoluteStr, UriReferenceStr};
use jsonschema::Validator;
use serde_json::Value;

use super::*;
use crate::escape::deceives;

/// The value of `${TOKEN}`.
const SECRET: &str = "hunter2-of-the-environment";

static SCHEMA: LazyLock<Validator> = LazyLock::new(|| {
    let schema = include_str!("../../routes.schema.json");
    let schema = serde_json::from_str(schema).unwrap_or_default();
    jsonschema::draft202012::new(&schema).unwrap_or_else(|error| panic!("no schema: {error}"))
});

/// Problems that a schema cannot express; `tests/health/schema.rs` has a manifest for most.
const BEYOND: [&str; 9] = [
    ": same method and path as ",
    " cannot be used with HEAD",
    ": duplicate header ",
    ": duplicate key",
    " is too short to prove a hang",
    " bytes; the path of a socket has at most ",
    " is not an IPv6 address",
    // A name of more than 253 characters.
    " is not a DNS name of at most ",
    " bytes are too many; give at most 128",
];

/// Checks every property of the parser on these bytes. Returns whether they are a valid manifest.
///
/// # Panics
///
/// A property does not hold.
pub fn manifest_property(data: &[u8]) -> bool {
    let parsed = parse(data);
    let written = serde_json::from_slice(data);
    if let Ok(written) = &written {
        agrees_with_the_schema(data, written);
    }
    let (shown, loads) = match &parsed {
        Ok(manifest) => {
            obeys_the_rules_beyond_the_schema(manifest);
            means_what_is_written(manifest, &written.unwrap_or_default());
            (format!("{manifest:?}"), true)
        }
        Err(problems) => {
            are_located(problems);
            (problems.to_string(), false)
        }
    };
    let again = match parse(data) {
        Ok(manifest) => format!("{manifest:?}"),
        Err(problems) => problems.to_string(),
    };
    assert_eq!(shown, again, "parsed twice");
    // A variable in a body check is not secret.
    let checks = parsed.iter().flat_map(|manifest| &manifest.routes);
    let checks = checks.map(|route| format!("{:?}", route.checks));
    let is_public = checks.into_iter().any(|checks| checks.contains(SECRET));
    if !is_public && !data.windows(SECRET.len()).any(|at| at == SECRET.as_bytes()) {
        assert!(!shown.contains(SECRET), "shows a secret: {shown}");
    }
    loads
}

/// The program accepts what the schema accepts, except for rules that a schema cannot express. Variables
/// are not read, since the schema cannot know their values.
fn agrees_with_the_schema(data: &[u8], written: &Value) {
    let variables = Variables::MayBeMissing;
    match (
        SCHEMA.is_valid(written),
        Manifest::parse(data, Source::Stdin, None, variables),
    ) {
        (true, Ok(_)) | (false, Err(_)) => {}
        (false, Ok(_)) => {
            let errors = SCHEMA.iter_errors(written).map(|e| e.to_string());
            let errors: Vec<_> = errors.collect();
            panic!("the schema alone refuses {written}: {errors:?}");
        }
        (true, Err(problems)) => {
            for line in problems.to_string().lines() {
                let host = line.contains(" is not a DNS name") && line.len() < 200;
                let known = BEYOND.iter().any(|beyond| line.contains(beyond));
                assert!(
                    known && !host,
                    "the program alone refuses {written}: {line}"
                );
            }
        }
    }
}

fn parse(data: &[u8]) -> anyhow::Result<Manifest> {
    let environment = |name: &str| match name {
        "TOKEN" => Some(OsString::from(SECRET)),
        "LINES" => Some(OsString::from(lines())),
        "LATIN1" => Some(OsString::from_vec([SECRET.as_bytes(), b"\xe9"].concat())),
        _ => None,
    };
    let variables = Variables::Required(&environment);
    Manifest::parse(data, Source::Stdin, None, variables)
}

/// The value of `${LINES}`.
fn lines() -> String {
    format!("{SECRET}\r\nSet-Cookie: {SECRET}")
}

/// `value` with the variables in its strings expanded.
fn expanded(value: &Value) -> Value {
    match value {
        Value::String(text) => text
            .replace("${TOKEN}", SECRET)
            .replace("${LINES}", &lines())
            .into(),
        Value::Array(items) => items.iter().map(expanded).collect(),
        Value::Object(entries) => {
            let entries = entries.iter();
            entries
                .map(|(key, value)| (key.clone(), expanded(value)))
                .collect()
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => value.clone(),
    }
}

/// An invalid manifest has at least one problem, and each is one printable line with its location.
fn are_located(problems: &anyhow::Error) {
    let text = problems.to_string();
    assert!(!text.is_empty(), "invalid, but without a problem");
    let mut lines = 0;
    for line in text.split('\n') {
        lines += 1;
        assert!(!line.contains(deceives), "raw control: {line:?}");
        let line = line.strip_prefix("standard input: ").unwrap_or_default();
        let place = line.split_once(": ").map(|(place, _)| place);
        let more = line.starts_with("and ") && line.ends_with(" more problems");
        let located = |place: &str| {
            let first = place.split(['.', '[', ',', ' ']).next().unwrap_or_default();
            !first.is_empty()
                && first
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b"_$".contains(&b))
        };
        assert!(more || place.is_some_and(located), "no place: {line:?}");
    }
    assert!(lines <= 101, "{lines} lines");
}

/// The rules that a schema cannot express, one by one.
fn obeys_the_rules_beyond_the_schema(manifest: &Manifest) {
    let host = manifest.base_url.host();
    assert!(host.len() <= 253 && manifest.base_url.port() > 0, "{host}");
    assert!(
        !host.contains(':') || host.parse::<Ipv6Addr>().is_ok(),
        "{host}"
    );
    let mut socket = manifest.unix_socket.iter();
    assert!(socket.all(|path| path.as_os_str().len() <= 107));

    let mut known = HashSet::new();
    for route in &manifest.routes {
        let target = (route.options.method, &route.path);
        assert!(known.insert(target), "twice: {route:?}");
        let method = route.options.method;
        assert!(route.checks.is_none() || method == Method::Get, "{route:?}");
        url_obeys(&route.path, &manifest.base_url);
        headers_obey(&route.options.headers);
    }

    if manifest.recovery.is_some() {
        let core: Vec<&Route> = manifest.routes.iter().filter(|route| route.core).collect();
        let longest = core.iter().map(|route| silence(&route.options)).max();
        let rounds = core.len().div_ceil(manifest.concurrency.get());
        let needed = longest.unwrap_or_default() * u32::try_from(rounds).unwrap_or(u32::MAX);
        let needed = needed
            + manifest
                .recovery
                .as_ref()
                .map_or(Duration::ZERO, |plan| plan.grace);
        let deadline = manifest.deadline;
        assert!(deadline >= needed, "{deadline:?} < {needed:?}");
    }
}

/// How long a route takes if every attempt is silent, added up attempt by attempt.
fn silence(options: &Options) -> Duration {
    let mut pause = options.backoff;
    let mut total = options.timeout;
    for _ in 0..options.retries {
        total += pause + options.timeout;
        pause *= 2;
    }
    total
}

/// Checks the headers of a route, with their variables expanded.
fn headers_obey(headers: &[Header]) {
    let mut names = HashSet::new();
    let mut bytes = 0;
    for header in headers {
        let (name, value) = (&header.name, header.reveal());
        assert!(names.insert(name.to_ascii_lowercase()), "{name:?} twice");
        let control = |c: char| c.is_control() && c != '\t';
        assert!(!value.contains(control), "{name}: {value:?}");
        assert_eq!(value, value.trim_matches([' ', '\t']), "{name}");
        bytes += name.len() + value.len();
    }
    // Those of the defaults, and the route's own.
    assert!(bytes <= 2 * 64 * 1024);
}

/// The URL of a path begins with the origin, is a URI for every parser, and decodes to the same path.
fn url_obeys(path: &str, base_url: &BaseUrl) {
    let url = base_url.url(path);
    assert!(url.bytes().all(|b| b.is_ascii_graphic()), "{url:?}");
    assert!(UriAbsoluteStr::new(&url).is_ok(), "{url:?}");
    let root = base_url.url("");
    let (scheme, port) = if base_url.is_https() {
        ("https", 443)
    } else {
        ("http", 80)
    };
    assert!(root.starts_with(&format!("{scheme}://")) && !root.ends_with('/'));
    let tail = url.strip_prefix(&root).unwrap_or_default();
    assert_eq!(decoded(tail), decoded(path), "{url:?} of {path:?}");

    let uri: ureq::http::Uri = url.parse().unwrap_or_default();
    let host = uri.host().unwrap_or_default();
    assert_eq!(host.trim_matches(['[', ']']), base_url.host(), "{url:?}");
    assert_eq!(uri.scheme_str(), Some(scheme), "{url:?}");
    assert_eq!(uri.port_u16().unwrap_or(port), base_url.port(), "{url:?}");

    // A redirect to the URL itself, or to the path or a part of it, stays within this origin.
    let parts = path.char_indices().filter_map(|(at, _)| path.get(at..));
    for location in parts.take(100).chain([&*url]) {
        if let Some(target) = base_url.resolve(&url, location) {
            let origin = root.split('/').take(3).collect::<Vec<_>>().join("/");
            let after = target.strip_prefix(&origin).unwrap_or_default();
            assert!(after.starts_with('/'), "{target:?} from {url:?}");
            assert!(target.bytes().all(|b| b.is_ascii_graphic()), "{target:?}");
            // As another implementation resolves it, where that accepts it.
            if let (Ok(base), Ok(other)) =
                (UriAbsoluteStr::new(&url), UriReferenceStr::new(location))
            {
                let other = other.resolve_against(base).to_dedicated_string();
                assert_eq!(target, other.as_str(), "{location:?} from {url:?}");
            }
        }
    }
}

/// Percent-decodes text; a `%` without two hex digits is kept.
fn decoded(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let hex = |at| {
            tail.get(at)
                .and_then(|digit| char::from(*digit).to_digit(16))
        };
        match (first, hex(0), hex(1)) {
            (b'%', Some(high), Some(low)) => {
                bytes.extend(u8::try_from(high * 16 + low));
                rest = tail.get(2..).unwrap_or_default();
            }
            _ => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    bytes
}

/// The manifest has every value that was written, and no others.
fn means_what_is_written(manifest: &Manifest, written: &Value) {
    assert_eq!(written["base_url"], manifest.base_url.to_string());
    assert_eq!(
        manifest.deadline,
        seconds(&written["deadline_seconds"], 120.0)
    );
    assert_eq!(
        whole(&written["concurrency"], 4),
        manifest.concurrency.get() as u64
    );
    let socket = manifest.unix_socket.as_ref().map(|path| path.to_str());
    assert_eq!(written["unix_socket"].as_str(), socket.flatten());
    if let Some(name) = written["name"].as_str() {
        assert_eq!(manifest.name, name);
    }
    let defaults = &written["defaults"];

    let routes = written["routes"]
        .as_array()
        .map(Vec::as_slice)
        .unwrap_or_default();
    assert_eq!(routes.len(), manifest.routes.len());
    for (written, route) in routes.iter().zip(&manifest.routes) {
        assert_eq!(written["path"], route.path.as_str());
        assert_eq!(written["core"].as_bool().unwrap_or(false), route.core);
        let option = |key: &str| match written.get(key) {
            Some(own) => own.clone(),
            None => defaults[key].clone(),
        };
        let options = &route.options;
        assert_eq!(
            option("method").as_str().unwrap_or("GET"),
            options.method.as_str()
        );
        assert_eq!(options.timeout, seconds(&option("timeout_seconds"), 10.0));
        assert_eq!(
            options.backoff,
            seconds(&option("retry_backoff_seconds"), 0.5)
        );
        assert_eq!(u64::from(options.retries), whole(&option("retries"), 2));
        assert_eq!(
            u64::from(options.max_redirects),
            whole(&option("max_redirects"), 0)
        );
        assert_eq!(
            options.max_body_bytes as u64,
            whole(&option("max_body_bytes"), 1 << 20)
        );
        let listed = option("expect");
        for status in (190..=310).chain(590..=610) {
            let expected = match listed.as_array() {
                Some(list) => list.iter().any(|item| whole(item, 0) == u64::from(status)),
                None => (200..400).contains(&status),
            };
            assert_eq!(options.accepts(status), expected, "{status}");
        }
        let names = |table: &Value| -> Vec<String> {
            let table = table["headers"].as_object();
            table
                .into_iter()
                .flatten()
                .map(|(name, _)| name.to_ascii_lowercase())
                .collect()
        };
        let given: HashSet<_> = names(defaults).into_iter().chain(names(written)).collect();
        let taken = options
            .headers
            .iter()
            .map(|header| header.name.to_ascii_lowercase());
        assert_eq!(taken.collect::<HashSet<_>>(), given);
        let checks = route.checks.as_deref();
        assert_eq!(
            expanded(&written["body_contains"]).as_str(),
            checks.and_then(|c| c.contains.as_deref())
        );
        let json: serde_json::Map<_, _> = checks
            .map(|c| c.json.clone())
            .into_iter()
            .flatten()
            .collect();
        assert_eq!(
            expanded(&written["json"])
                .as_object()
                .cloned()
                .unwrap_or_default(),
            json
        );
    }

    let recovery = &written["recovery"];
    assert_eq!(recovery.is_object(), manifest.recovery.is_some());
    if let Some(plan) = &manifest.recovery {
        assert_eq!(recovery["unit"], plan.unit.as_str());
        assert_eq!(recovery["scope"] == "user", plan.scope == Scope::User);
        assert_eq!(
            recovery["signal"] == "SIGABRT",
            plan.signal == KillSignal::Abort
        );
        assert_eq!(
            recovery["dump_signal"].as_str(),
            plan.dump_signal.map(|signal| signal.as_str())
        );
        assert_eq!(
            plan.min_uptime,
            seconds(&recovery["min_uptime_seconds"], 120.0)
        );
        assert_eq!(plan.grace, seconds(&recovery["grace_seconds"], 30.0));
        assert_eq!(plan.verify, seconds(&recovery["verify_seconds"], 60.0));
    }
}

/// A written duration; a positive one never becomes zero.
fn seconds(written: &Value, default: f64) -> Duration {
    let seconds = written.as_f64().unwrap_or(default);
    let least = Duration::from_nanos(u64::from(seconds > 0.0));
    Duration::try_from_secs_f64(seconds)
        .unwrap_or_default()
        .max(least)
}

fn whole(written: &Value, default: u64) -> u64 {
    written.as_f64().map_or(default, |number| number as u64)
}
