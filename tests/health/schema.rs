//! `routes.schema.json` and the program accept the same manifests: both judge one corpus of good and bad
//! ones. Rules that a schema cannot express are listed by name.

use std::collections::BTreeSet;
use std::io::Write;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::test_env::BINARY;

/// The rules that only the program checks.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Beyond {
    /// Two routes with the same method and path.
    SameRoute,
    /// `HEAD` from the defaults, with a body check at the route.
    HeadFromDefaults,
    /// Two header names that differ in case only.
    SameHeader,
    /// A socket's path of at most 107 characters, but more bytes.
    LongSocketPath,
    /// A deadline too short to prove a hang.
    ShortDeadline,
    /// Brackets with hex digits and colons that are not an IPv6 address.
    NoIpv6Address,
    /// A host of more than 253 characters.
    LongHost,
    /// Header names and values of more than 64 KiB.
    LongHeaders,
}

/// A small good manifest, changed by `change`.
fn with(change: impl FnOnce(&mut Value)) -> Value {
    let mut manifest = json!({
        "base_url": "http://127.0.0.1:8000",
        "routes": [{ "path": "/", "core": true }]
    });
    change(&mut manifest);
    manifest
}

fn top(key: &str, value: Value) -> Value {
    with(|manifest| manifest[key] = value)
}

fn default(key: &str, value: Value) -> Value {
    top("defaults", json!({ key: value }))
}

fn route(key: &str, value: Value) -> Value {
    with(|manifest| manifest["routes"][0][key] = value)
}

fn recovery(key: &str, value: Value) -> Value {
    with(|manifest| {
        manifest["recovery"] = json!({ "unit": "a.service" });
        manifest["recovery"][key] = value;
    })
}

fn good() -> Vec<Value> {
    let mut list = vec![
        with(|_| {}),
        serde_json::from_str(include_str!("../../routes.json")).unwrap(),
        top("$schema", json!("./routes.schema.json")),
        top("recovery", json!({ "unit": "a.service" })),
        top("proxy", json!("env")),
        with(|m| m["routes"][0] = json!({ "path": "/", "core": true, "method": "HEAD" })),
        with(|m| m["routes"] = json!([{ "path": "/a" }, { "path": "/b", "core": true }])),
    ];
    for url in [
        "https://example.org",
        "HTTP://h:1",
        "http://[::1]:8000",
        "http://h/prefix/",
        "http://10.0.0.1",
        "http://_a-b.C.:00080/é@:",
        "http://1a",
        "http://1.2.3.256",
        "http://-a..b",
    ] {
        list.push(top("base_url", json!(url)));
    }
    list.extend(["x", "a b", "~!"].map(|agent| top("user_agent", json!(agent))));
    list.extend([json!(0.001), json!(86400), json!(1e2)].map(|n| top("deadline_seconds", n)));
    list.extend([json!(1), json!(64), json!(2.0)].map(|n| top("concurrency", n)));
    for (key, values) in [
        ("method", json!(["GET", "HEAD"])),
        ("expect", json!([[200], [429, 599], [200.0], [301, 301]])),
        ("timeout_seconds", json!([0.5, 3600])),
        ("retries", json!([0, 10, 3.0])),
        ("retry_backoff_seconds", json!([0, 60, 0.25])),
        ("max_redirects", json!([0, 20])),
        ("max_body_bytes", json!([1, 16777216])),
        (
            "headers",
            json!([{}, { "X-A": "b", "Host": "c" }, { "A": "${PATH}" }]),
        ),
    ] {
        for value in values.as_array().unwrap() {
            list.push(default(key, value.clone()));
            list.push(route(key, value.clone()));
        }
    }
    list.extend(["/a?b=c&d", "/ä", "//", "/%20"].map(|path| route("path", json!(path))));
    list.extend([" ", "$ ${A} }"].map(|text| route("body_contains", json!(text))));
    for checks in [
        json!({ "": 1 }),
        json!({ "/a~1b": null, "/c~0": [{}] }),
        json!({ "/": 1.0 }),
        json!({ "/${": [{ "${": "${A}" }] }),
    ] {
        list.push(route("json", checks));
    }
    for unit in [
        "a@b.service",
        "a@b@.service",
        "a-b_c:d.e\\x2d.service",
        ".service.service",
    ] {
        list.push(recovery("unit", json!(unit)));
    }
    list.extend(["system", "user"].map(|scope| recovery("scope", json!(scope))));
    list.extend(["SIGKILL", "SIGABRT"].map(|signal| recovery("signal", json!(signal))));
    list.extend(
        ["SIGUSR1", "SIGUSR2", "SIGQUIT"].map(|signal| recovery("dump_signal", json!(signal))),
    );
    let longest = format!("/{}", "a".repeat(106));
    list.extend(
        ["/run/a.sock", "/", "/a b/ä\n", &longest].map(|path| top("unix_socket", json!(path))),
    );
    list.extend([0, 86400].map(|n| recovery("min_uptime_seconds", json!(n))));
    list.extend([1, 3600].map(|n| recovery("verify_seconds", json!(n))));
    list.extend([json!(0), json!(0.5)].map(|n| recovery("grace_seconds", n)));
    list.extend(["a", "A.b-c_9", &"x".repeat(64)].map(|name| top("name", json!(name))));
    list
}

fn bad() -> Vec<Value> {
    let mut list = vec![
        json!([]),
        json!("x"),
        json!({}),
        json!({ "base_url": "http://h" }),
        json!({ "routes": [{ "path": "/", "core": true }] }),
        top("routes", json!([])),
        top("routes", json!({})),
        top("routes", json!([{ "path": "/" }])),
        top("routes", json!([{ "core": true }])),
        top("routes", json!(["/"])),
        top("defaults", json!([])),
        top("recovery", json!({})),
        top("recovery", json!(null)),
        top("proxy", json!("http://proxy")),
        top("$schema", json!(1)),
        top("surprise", json!(1)),
        route("surprise", json!(1)),
        recovery("surprise", json!(1)),
        default("path", json!("/")),
        default("core", json!(true)),
        default("body_contains", json!("x")),
        default("json", json!({ "": 1 })),
        route("core", json!("yes")),
        route("body_contains", json!("")),
        route("body_contains", json!("${A")),
        route("json", json!({ "/a": [{ "b": "${}" }] })),
    ];
    for url in [
        "",
        "127.0.0.1:8000",
        "ftp://h",
        "http://",
        "http://h?q",
        "http://h#f",
        "http://u@h",
        "http://h:x",
        "http://a b",
        "http://h:0",
        "http://h:65536",
        "http://ä",
        "http://a*",
    ] {
        list.push(top("base_url", json!(url)));
    }
    list.extend(["", " ", "ä", "a\nb"].map(|agent| top("user_agent", json!(agent))));
    list.extend(
        [json!(0), json!(-1), json!(86400.5), json!("1")].map(|n| top("deadline_seconds", n)),
    );
    list.extend([json!(0), json!(65), json!(1.5), json!(true)].map(|n| top("concurrency", n)));
    for (key, values) in [
        ("method", json!(["POST", "get", 1])),
        ("expect", json!([[], [199], [600], ["200"], 200, [200.5]])),
        ("timeout_seconds", json!([0, 3600.1, "1", null])),
        ("retries", json!([-1, 11, 0.5])),
        ("retry_backoff_seconds", json!([-0.1, 60.1])),
        ("max_redirects", json!([-1, 21])),
        ("max_body_bytes", json!([0, 16777217])),
        (
            "headers",
            json!([[], { "a b": "c" }, { "": "c" }, { "A": 1 }, { "content-LENGTH": "1" },
                { "A": "a\nb" }, { "A": "\u{7f}" }, { "A": "${B" }, { "A": "${1}" }]),
        ),
    ] {
        for value in values.as_array().unwrap() {
            list.push(default(key, value.clone()));
            list.push(route(key, value.clone()));
        }
    }
    list.extend(["", "a", "/a b", "/a#b", "/\u{7f}"].map(|path| route("path", json!(path))));
    list.extend(
        [json!({}), json!({ "a": 1 }), json!({ "/~2": 1 }), json!([])].map(|j| route("json", j)),
    );
    list.push(with(|m| {
        m["routes"][0] =
            json!({ "path": "/", "core": true, "method": "HEAD", "body_contains": "x" });
    }));
    for unit in [
        "",
        "a",
        "a.timer",
        ".service",
        "a@.service",
        "a b.service",
        "a*.service",
        "@a.service",
    ] {
        list.push(recovery("unit", json!(unit)));
    }
    list.push(recovery("scope", json!("root")));
    list.push(recovery("signal", json!("SIGTERM")));
    list.extend(
        [json!("SIGHUP"), json!("USR1"), json!(10), json!(null)]
            .map(|signal| recovery("dump_signal", signal)),
    );
    let too_long = format!("/{}", "a".repeat(107));
    list.extend(["", "run/a.sock", "/a\0b", &too_long].map(|path| top("unix_socket", json!(path))));
    list.extend(
        [("base_url", "https://h"), ("proxy", "env")].map(|(key, value)| {
            with(|m| {
                m["unix_socket"] = json!("/run/a.sock");
                m[key] = json!(value);
            })
        }),
    );
    list.push(with(|m| {
        m["recovery"] = json!({ "unit": "a.service" });
        m["proxy"] = json!("env");
    }));
    list.extend([json!(-1), json!(86401)].map(|n| recovery("min_uptime_seconds", n)));
    list.extend([json!(0.5), json!(3601)].map(|n| recovery("verify_seconds", n)));
    list.extend([json!(-0.1), json!(3601)].map(|n| recovery("grace_seconds", n)));
    list.extend(["", "a b", "ä", &"x".repeat(65)].map(|name| top("name", json!(name))));
    let route = |n: usize| json!({ "path": format!("/{n}"), "core": true });
    let routes: Vec<Value> = (0..10_001).map(route).collect();
    list.push(top("routes", json!(routes)));
    list
}

fn beyond() -> Vec<(Beyond, Value)> {
    let twice = json!([{ "path": "/", "core": true }, { "path": "/", "method": "GET" }]);
    vec![
        (Beyond::SameRoute, top("routes", twice)),
        (
            Beyond::HeadFromDefaults,
            with(|m| {
                m["defaults"] = json!({ "method": "HEAD" });
                m["routes"][0]["body_contains"] = json!("x");
            }),
        ),
        (
            Beyond::SameHeader,
            default("headers", json!({ "X-A": "1", "x-a": "2" })),
        ),
        (
            Beyond::LongSocketPath,
            top("unix_socket", json!(format!("/{}", "ä".repeat(54)))),
        ),
        (
            Beyond::ShortDeadline,
            with(|m| {
                m["recovery"] = json!({ "unit": "a.service" });
                m["deadline_seconds"] = json!(5);
            }),
        ),
        (Beyond::NoIpv6Address, top("base_url", json!("http://[1]"))),
        (
            Beyond::LongHost,
            top("base_url", json!(format!("http://{}", "a.".repeat(127)))),
        ),
        (
            Beyond::LongHeaders,
            default("headers", json!({ "A": "a".repeat(65_536) })),
        ),
    ]
}

/// The program's message about a manifest; none if it accepts it.
fn program_says(manifest: &Value) -> Option<String> {
    let mut child = Command::new(BINARY)
        .args(["--validate", "--manifest", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(manifest.to_string().as_bytes())
        .unwrap();
    let output = child.wait_with_output().unwrap();
    match output.status.code() {
        Some(0) => None,
        Some(2) => Some(String::from_utf8(output.stderr).unwrap()),
        other => panic!("{other:?} for {manifest}"),
    }
}

#[test]
fn schema_and_program_know_the_same_keys() {
    let schema: Value = serde_json::from_str(include_str!("../../routes.schema.json")).unwrap();
    let table = json!({ "unknown": 0 });
    let unknown = json!({ "unknown": 0, "defaults": table, "routes": [table], "recovery": table });
    let said = program_says(&unknown).unwrap();
    for (table, at) in [
        ("", ""),
        ("defaults.", "/properties/defaults"),
        ("routes[0].", "/$defs/route"),
        ("recovery.", "/properties/recovery"),
    ] {
        let start = format!("standard input: {table}unknown: unknown key; known keys are ");
        let known = said.lines().find_map(|line| line.strip_prefix(&start));
        let known: BTreeSet<&str> = known
            .unwrap_or_else(|| panic!("{said}"))
            .split(", ")
            .collect();
        let described = schema.pointer(&format!("{at}/properties")).unwrap();
        let described = described.as_object().unwrap().keys().map(String::as_str);
        assert_eq!(known, described.collect(), "program and schema: {table}");
    }
}

#[test]
fn schema_and_program_agree_on_every_manifest() {
    let schema = serde_json::from_str(include_str!("../../routes.schema.json")).unwrap();
    let schema = jsonschema::draft202012::new(&schema).unwrap();
    let (good, bad, beyond) = (good(), bad(), beyond());
    for manifest in &good {
        let errors: Vec<String> = schema
            .iter_errors(manifest)
            .map(|e| e.to_string())
            .collect();
        assert!(
            errors.is_empty(),
            "the schema refuses {manifest}: {errors:?}"
        );
        assert_eq!(
            program_says(manifest),
            None,
            "the program refuses {manifest}"
        );
    }
    for manifest in &bad {
        assert!(!schema.is_valid(manifest), "the schema takes {manifest}");
        assert!(
            program_says(manifest).is_some(),
            "the program takes {manifest}"
        );
    }
    for (rule, manifest) in &beyond {
        assert!(
            schema.is_valid(manifest),
            "the schema knows {rule:?} after all"
        );
        assert!(
            program_says(manifest).is_some(),
            "the program takes {manifest} against {rule:?}"
        );
    }
    let count = good.len() + bad.len();
    assert!(count > 150, "only {count} manifests");
}
