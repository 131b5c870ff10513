//! What holds for a manifest made of any bytes, stated once for proptest and the fuzzer. It reads
//! the JSON in another way than the parser does, and knows no rule of `rules.rs`.

#![expect(
    clippy::indexing_slicing,
    reason = "a property that does not hold panics in any case"
)]

use std::collections::HashSet;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;
use std::time::Duration;

use iri_string::types::UriAbsoluteStr;
use serde_json::Value;

use super::*;
use crate::escape::deceives;

/// What `${TOKEN}` in a header stands for.
const SECRET: &str = "hunter2-of-the-environment";

/// Checks every property of the parser on these bytes. Returns whether they are a valid manifest.
///
/// # Panics
///
/// Where one does not hold.
pub fn manifest_property(data: &[u8]) -> bool {
    let parsed = parse(data);
    let (shown, loads) = match &parsed {
        Ok(manifest) => {
            obeys_every_limit(manifest);
            means_what_is_written(manifest, data);
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
    // In body checks, a variable is no secret.
    let checks = parsed.iter().flat_map(|manifest| &manifest.routes);
    let checks = checks.map(|route| format!("{:?}", route.checks));
    let is_public = checks.into_iter().any(|checks| checks.contains(SECRET));
    if !is_public && !data.windows(SECRET.len()).any(|at| at == SECRET.as_bytes()) {
        assert!(!shown.contains(SECRET), "shows a secret: {shown}");
    }
    loads
}

fn parse(data: &[u8]) -> Result<Manifest, Problems> {
    let environment = |name: &str| match name {
        "TOKEN" => Some(OsString::from(SECRET)),
        "LINES" => Some(OsString::from(lines())),
        "LATIN1" => Some(OsString::from_vec([SECRET.as_bytes(), b"\xe9"].concat())),
        _ => None,
    };
    let options = LoadOptions {
        base_url: None,
        variables: Variables::Required(&environment),
    };
    Manifest::parse(data, Source::Stdin, &options)
}

/// What `${LINES}` stands for.
fn lines() -> String {
    format!("{SECRET}\r\nSet-Cookie: {SECRET}")
}

/// `value` with the variables put into its strings.
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

/// An invalid manifest has at least one problem, and each is one harmless line with its place.
fn are_located(problems: &Problems) {
    assert!(problems.count() > 0, "invalid, but without a problem");
    let text = problems.to_string();
    let mut lines = 0;
    for line in text.split('\n') {
        lines += 1;
        assert!(!line.contains(deceives), "raw control: {line:?}");
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
    assert!(lines <= 102, "{lines} lines");
}

/// The README's limits, one by one.
fn obeys_every_limit(manifest: &Manifest) {
    let second = Duration::from_secs(1);
    let base_url = manifest.base_url.to_string();
    let (_, rest) = base_url.split_once("://").unwrap_or_default();
    let authority = rest.split('/').next().unwrap_or_default();
    assert!(
        !authority.is_empty() && !authority.contains('@'),
        "{base_url}"
    );
    assert!(!base_url.contains(['?', '#', ' ']), "{base_url}");
    assert!(!base_url.contains(char::is_control), "{base_url:?}");
    assert!(manifest.base_url.port() > 0 && !manifest.base_url.host().is_empty());

    if let Some(path) = manifest.unix_socket.as_ref().map(SocketPath::as_path) {
        assert!(
            path.is_absolute() && path.as_os_str().len() <= 107,
            "{path:?}"
        );
        assert_eq!(manifest.base_url.scheme(), Scheme::Http);
        assert_eq!(manifest.proxy, Proxy::None);
    }

    let agent = &manifest.user_agent;
    assert!(!agent.trim().is_empty() && agent.bytes().all(|b| matches!(b, b' '..=b'~')));
    assert!(manifest.deadline > Duration::ZERO && manifest.deadline <= 86_400 * second);
    assert!((1..=64).contains(&manifest.concurrency.get()));

    assert!((1..=100_000).contains(&manifest.routes.len()));
    let core: Vec<&Route> = manifest.routes.iter().filter(|route| route.core).collect();
    assert!(!core.is_empty(), "no core route");
    let mut known = HashSet::new();
    for route in &manifest.routes {
        assert!(
            known.insert((route.options.method, &route.path)),
            "twice: {route:?}"
        );
        route_obeys(route, &manifest.base_url);
    }

    if let Some(plan) = &manifest.recovery {
        assert_eq!(manifest.proxy, Proxy::None);
        assert!(plan.min_uptime <= 86_400 * second);
        assert!(plan.verify >= second && plan.verify <= 3_600 * second);
        unit_obeys(plan.unit.as_str());
        let longest = core.iter().map(|route| silence(&route.options)).max();
        let rounds = core.len().div_ceil(manifest.concurrency.get());
        let needed = longest.unwrap_or_default() * u32::try_from(rounds).unwrap_or(u32::MAX);
        assert!(
            manifest.deadline >= needed,
            "{:?} < {needed:?}",
            manifest.deadline
        );
    }
}

/// The time that a route takes to stay silent on every attempt, added up one by one.
fn silence(options: &Options) -> Duration {
    let mut pause = options.backoff;
    let mut total = options.timeout;
    for _ in 0..options.retries {
        total += pause + options.timeout;
        pause *= 2;
    }
    total
}

fn route_obeys(route: &Route, base_url: &BaseUrl) {
    let (path, options) = (&route.path, &route.options);
    assert!(path.starts_with('/') && !path.contains('#'), "{path:?}");
    assert!(
        !path.contains(|c: char| c.is_whitespace() || c.is_control()),
        "{path:?}"
    );
    url_obeys(path, base_url);

    if let Expect::Listed(list) = &options.expect {
        assert!(!list.is_empty() && list.iter().all(|status| (200..600).contains(status)));
    }
    let second = Duration::from_secs(1);
    assert!(options.timeout > Duration::ZERO && options.timeout <= 3_600 * second);
    assert!(options.retries <= 10 && options.max_redirects <= 20);
    assert!(options.backoff <= 60 * second);
    assert!((1..=16 << 20).contains(&options.max_body_bytes));

    let mut names = HashSet::new();
    for Header { name, value } in &options.headers {
        let value = value.reveal();
        let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
        assert!(!name.is_empty() && name.bytes().all(token), "{name:?}");
        let lower = name.to_ascii_lowercase();
        let framing = [
            "connection",
            "content-length",
            "expect",
            "keep-alive",
            "proxy-connection",
            "te",
            "trailer",
            "transfer-encoding",
            "upgrade",
            "user-agent",
        ];
        assert!(!framing.contains(&lower.as_str()), "{name:?}");
        assert!(names.insert(lower), "{name:?} twice");
        assert!(
            !value.contains(|c: char| c.is_control() && c != '\t'),
            "{name}: {value:?}"
        );
        assert_eq!(value, value.trim_matches([' ', '\t']), "{name}");
    }

    if let Some(checks) = &route.checks {
        assert_eq!(options.method, Method::Get, "a body check with HEAD");
        assert!(checks.contains.is_some() || !checks.json.is_empty());
        assert_ne!(checks.contains.as_deref(), Some(""));
        for (pointer, _) in &checks.json {
            assert!(
                pointer.is_empty() || pointer.starts_with('/'),
                "{pointer:?}"
            );
            let left = pointer.replace("~0", "").replace("~1", "");
            assert!(!left.contains('~'), "{pointer:?}");
        }
    }
}

/// What is sent for a path begins with the origin, is a URI for all that will read it, and still
/// says the same.
fn url_obeys(path: &str, base_url: &BaseUrl) {
    let url = base_url.url(path);
    assert!(url.bytes().all(|b| b.is_ascii_graphic()), "{url:?}");
    assert!(UriAbsoluteStr::new(&url).is_ok(), "{url:?}");
    let root = base_url.url("");
    assert!(root.starts_with(base_url.scheme().as_str()) && !root.ends_with('/'));
    let tail = url.strip_prefix(&root).unwrap_or_default();
    assert_eq!(decoded(tail), decoded(path), "{url:?} of {path:?}");

    let uri: ureq::http::Uri = url.parse().unwrap_or_default();
    let host = uri.host().unwrap_or_default();
    assert_eq!(host.trim_matches(['[', ']']), base_url.host(), "{url:?}");
    assert_eq!(
        uri.scheme_str(),
        Some(base_url.scheme().as_str()),
        "{url:?}"
    );
    let port = match base_url.scheme() {
        Scheme::Http => 80,
        Scheme::Https => 443,
    };
    assert_eq!(uri.port_u16().unwrap_or(port), base_url.port(), "{url:?}");

    // A redirect to itself, and one to wherever the path leads, stay with this origin.
    for location in [&url, path] {
        if let Some(target) = base_url.resolve(&url, location) {
            let origin = root.split('/').take(3).collect::<Vec<_>>().join("/");
            let after = target.strip_prefix(&origin).unwrap_or_default();
            assert!(after.starts_with('/'), "{target:?} from {url:?}");
            assert!(target.bytes().all(|b| b.is_ascii_graphic()), "{target:?}");
        }
    }
}

/// The bytes that percent-encoded text stands for; a `%` that begins nothing stands for itself.
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

/// The name of a service that has a process: systemd.unit(5), and no template.
fn unit_obeys(unit: &str) {
    let prefix = unit.strip_suffix(".service").unwrap_or_default();
    assert!(!prefix.is_empty() && unit.len() <= 255, "{unit:?}");
    assert!(!prefix.starts_with('@'), "{unit:?}");
    let instance = prefix.split_once('@').map(|(_, instance)| instance);
    assert_ne!(instance, Some(""), "{unit:?}");
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b":-_.\\@".contains(&b);
    assert!(unit.bytes().all(allowed), "{unit:?}");
}

const TOP: &[&str] = &[
    "$schema",
    "base_url",
    "unix_socket",
    "user_agent",
    "deadline_seconds",
    "concurrency",
    "proxy",
    "defaults",
    "routes",
    "recovery",
];
const ROUTE: &[&str] = &["path", "core", "body_contains", "json"];
const OPTIONS: &[&str] = &[
    "method",
    "expect",
    "timeout_seconds",
    "retries",
    "retry_backoff_seconds",
    "max_redirects",
    "headers",
    "max_body_bytes",
];
const RECOVERY: &[&str] = &[
    "unit",
    "scope",
    "signal",
    "dump_signal",
    "min_uptime_seconds",
    "verify_seconds",
];

/// Everything that is written has been taken as it stands, and nothing else has been made up.
fn means_what_is_written(manifest: &Manifest, data: &[u8]) {
    let written: Value = serde_json::from_slice(data).unwrap_or_default();
    assert!(written.is_object(), "no JSON object, but it loads");
    has_only(&written, &[TOP]);
    assert_eq!(written["base_url"], manifest.base_url.to_string());
    assert_eq!(
        manifest.deadline,
        seconds(&written["deadline_seconds"], 120.0)
    );
    assert_eq!(
        whole(&written["concurrency"], 4),
        manifest.concurrency.get() as u64
    );
    let socket = manifest.unix_socket.as_ref().map(ToString::to_string);
    assert_eq!(written["unix_socket"].as_str(), socket.as_deref());
    let defaults = &written["defaults"];
    has_only(defaults, &[OPTIONS]);

    let routes = written["routes"]
        .as_array()
        .map(Vec::as_slice)
        .unwrap_or_default();
    assert_eq!(routes.len(), manifest.routes.len());
    for (written, route) in routes.iter().zip(&manifest.routes) {
        has_only(written, &[ROUTE, OPTIONS]);
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
            assert_eq!(options.expect.accepts(status), expected, "{status}");
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
        has_only(recovery, &[RECOVERY]);
        assert_eq!(recovery["unit"], plan.unit.as_str());
        assert_eq!(recovery["scope"] == "user", plan.scope == Scope::User);
        assert_eq!(
            recovery["signal"] == "SIGABRT",
            plan.signal == KillSignal::Abort
        );
        assert_eq!(
            recovery["dump_signal"].as_str(),
            plan.dump_signal.map(DumpSignal::name)
        );
        assert_eq!(
            plan.min_uptime,
            seconds(&recovery["min_uptime_seconds"], 120.0)
        );
        assert_eq!(plan.verify, seconds(&recovery["verify_seconds"], 60.0));
    }
}

fn has_only(table: &Value, known: &[&[&str]]) {
    for key in table.as_object().into_iter().flat_map(|table| table.keys()) {
        assert!(
            known.iter().any(|keys| keys.contains(&key.as_str())),
            "{key:?} is unknown"
        );
    }
}

/// A written length of time; where it is more than nothing, so is what it means.
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
