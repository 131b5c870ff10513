//! How valid manifests are spoiled, by chance or against one rule.

use proptest::prelude::*;
use proptest::sample::{Index, select};
use serde_json::{Value, json};

/// A value that breaks some rule, or keeps it by a hair.
fn odd() -> impl Strategy<Value = Value> {
    let texts = [
        "",
        "/",
        "#",
        "/a b",
        "GET",
        "HEAD",
        "env",
        "x.service",
        "@.service",
        "x@.service",
        "${TOKEN}",
        "${LINES}",
        "${LATIN1}",
        "${NONE}",
        "${",
        "a\u{1b}[31m",
        "\u{202e}",
        "http://u:p@h/",
        "http://h/?q",
        "é.service",
        "/~2",
        " ",
    ];
    let numbers = [
        -1.0,
        -0.0,
        0.0,
        0.5,
        1.0,
        10.0,
        10.5,
        11.0,
        21.0,
        60.1,
        64.0,
        65.0,
        199.0,
        200.0,
        599.0,
        600.0,
        3_600.1,
        86_400.1,
        16_777_217.0,
        1e-10,
        1e300,
        4_294_967_296.0,
    ];
    prop_oneof![
        4 => select(texts.to_vec()).prop_map(|text| json!(text)).boxed(),
        4 => select(numbers.to_vec()).prop_map(|number| json!(number)).boxed(),
        1 => select(vec![json!(null), json!(true), json!([]), json!({}), json!([200, "x"]), json!({"X-A": "a\nb"})]),
        1 => any::<String>().prop_map(|text| json!(text)),
    ]
}

/// Every place in `value`, as JSON Pointers.
fn places(value: &Value, at: String, all: &mut Vec<String>) {
    match value {
        Value::Object(table) => {
            for (key, value) in table {
                let key = key.replace('~', "~0").replace('/', "~1");
                places(value, format!("{at}/{key}"), all);
            }
        }
        Value::Array(list) => {
            for (index, value) in list.iter().enumerate() {
                places(value, format!("{at}/{index}"), all);
            }
        }
        _ => {}
    }
    all.push(at);
}

/// How a valid manifest is spoiled at one place.
#[derive(Clone, Debug)]
pub(super) enum Change {
    Value(Value),
    Remove,
    Repeat,
    Add(String, Value),
}

pub(super) fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        5 => odd().prop_map(Change::Value),
        1 => Just(Change::Remove),
        1 => Just(Change::Repeat),
        1 => ("retrys|[a-z]{0,3}\\PC?|method|json|\u{1b}", odd()).prop_map(|(key, value)| Change::Add(key, value)),
    ]
}

pub(super) fn spoil(manifest: &mut Value, at: &Index, change: Change) {
    let mut all = Vec::new();
    places(manifest, String::new(), &mut all);
    let place = at.get(&all);
    let (parent, last) = place.rsplit_once('/').unwrap_or_default();
    let last = last.replace("~1", "/").replace("~0", "~");
    match (change, manifest.pointer_mut(place)) {
        (Change::Value(value), Some(there)) => *there = value,
        (Change::Add(key, value), Some(Value::Object(table))) => {
            table.insert(key, value);
        }
        (Change::Remove, _) => match manifest.pointer_mut(parent) {
            Some(Value::Object(table)) => {
                table.remove(&last);
            }
            Some(Value::Array(list)) => {
                list.pop();
            }
            _ => {}
        },
        (Change::Repeat, _) => {
            if let Some(Value::Array(list)) = manifest.pointer_mut(parent) {
                list.extend(list.clone());
            }
        }
        _ => {}
    }
}

/// Values that each break one rule of a valid manifest, by their place; `*` is the last route.
pub(super) fn violations() -> Vec<(&'static str, Value)> {
    let each = |at: &'static str, values: Value| {
        let values = values.as_array().cloned().unwrap_or_default();
        values.into_iter().map(move |value| (at, value))
    };
    let options = [
        ("method", json!(["POST", "get", 1, null])),
        (
            "expect",
            json!([[], [199], [200, 600], [200.5], 200, ["200"]]),
        ),
        (
            "timeout_seconds",
            json!([0, -0.0, -1, 3_600.001, "1", null]),
        ),
        ("retries", json!([-1, 11, 1.5, 4_294_967_296_u64, "2"])),
        ("retry_backoff_seconds", json!([-0.001, 60.001, [1]])),
        ("max_redirects", json!([-1, 21, 0.5])),
        ("max_body_bytes", json!([0, 16_777_217, 1.5, -1])),
        (
            "headers",
            json!([
                [], "x", { "X-A": 1 }, { "X-A": "a\r\nb" }, { "X-A": "\u{7f}" }, { "X-A": "${NONE}" }, { "X-A": "${LINES}" },
                { "X-A": "${LATIN1}" }, { "X-A": "${" }, { "X-A": "${1}" }, { "": "a" }, { "X A": "a" }, { "X:": "a" },
                { "x-a": "1", "X-A": "2" }, { "User-Agent": "a" }, { "Content-length": "1" }, { "TE": "a" }
            ]),
        ),
    ];
    let in_defaults = [
        "/defaults/method",
        "/defaults/expect",
        "/defaults/timeout_seconds",
        "/defaults/retries",
        "/defaults/retry_backoff_seconds",
        "/defaults/max_redirects",
        "/defaults/max_body_bytes",
        "/defaults/headers",
    ];
    let in_route = [
        "/routes/*/method",
        "/routes/*/expect",
        "/routes/*/timeout_seconds",
        "/routes/*/retries",
        "/routes/*/retry_backoff_seconds",
        "/routes/*/max_redirects",
        "/routes/*/max_body_bytes",
        "/routes/*/headers",
    ];
    let both = options
        .into_iter()
        .zip(in_defaults.into_iter().zip(in_route));
    both.flat_map(|((_, values), (defaults, route))| each(defaults, values.clone()).chain(each(route, values)))
        .chain(each("/base_url", json!([
            "", "h", "ftp://h", "http://", "http://u:p@h", "http://h?q", "http://h/#f", "http://h:0", "http://h:65536", "http://::1",
            "http://[::1", "http://1.2.3", "http://é", "http://h /", "http://-h", 1
        ])))
        .chain(each("/unix_socket", json!(["", "a", "./a", "@a", "/\0", format!("/{}", "é".repeat(54)), 1, null])))
        .chain(each("/user_agent", json!(["", "  ", "é", "a\tb", null])))
        .chain(each("/deadline_seconds", json!([0, -1, 86_400.001, "1"])))
        .chain(each("/concurrency", json!([0, 65, 1.5, -1])))
        .chain(each("/proxy", json!(["system", null])))
        .chain(each("/defaults/path", json!(["/"])))
        .chain(each("/retries", json!([1])))
        .chain(each("/routes/*/path", json!(["", "a", "/#", "/ ", "/\u{a0}", "/\n", "http://h/", 1, null])))
        .chain(each("/routes/*/core", json!([1, "true", null])))
        .chain(each("/routes/*/body_contains", json!(["", 1])))
        .chain(each("/routes/*/json", json!([{}, [], { "a": 1 }, { "/~": 1 }, { "/~2": 1 }])))
        .chain(each("/routes/*/proxy", json!(["none"])))
        .chain(each("/routes", json!([[], {}, null, [{ "path": "/" }], [{ "core": true }], [{ "path": "/", "core": true }, 1],
            [{ "path": "/", "core": true }, { "path": "/" }],
            [{ "path": "/", "core": true, "method": "HEAD", "body_contains": "x" }],
            [{ "path": "/", "core": true, "method": "HEAD", "json": { "": 1 } }]])))
        .chain(each("/recovery", json!([null, {}, [], { "unit": "" }, { "unit": "a" }, { "unit": ".service" }, { "unit": "@.service" },
            { "unit": "@a.service" }, { "unit": "a@.service" }, { "unit": "a b.service" }, { "unit": "a/b.service" },
            { "unit": "é.service" }, { "unit": "a.timer" }, { "unit": format!("{}.service", "a".repeat(248)) },
            { "unit": "a.service", "scope": "global" }, { "unit": "a.service", "signal": "SIGTERM" },
            { "unit": "a.service", "dump_signal": "SIGABRT" }, { "unit": "a.service", "dump_signal": null },
            { "unit": "a.service", "min_uptime_seconds": -1 }, { "unit": "a.service", "min_uptime_seconds": 86_400.5 },
            { "unit": "a.service", "verify_seconds": 0.5 }, { "unit": "a.service", "verify_seconds": 3_600.5 },
            { "unit": "a.service", "retries": 1 }])))
        .collect()
}

/// Sets the value at `place`, in a table that is there or that is made.
pub(super) fn set(manifest: &mut Value, place: &str, value: Value) {
    let mut there = manifest;
    for key in place.split('/').skip(1) {
        there = match there {
            Value::Array(list) => list.last_mut().expect("a route"),
            table => &mut table[key],
        };
    }
    *there = value;
}
