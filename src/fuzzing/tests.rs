//! The properties under proptest, with input that is mostly valid or nearly so. The fuzzer finds its
//! own way there, but not within a second.

use proptest::collection::{btree_map, hash_set, vec};
use proptest::option::of;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use serde_json::{Map, Value, json};

use super::{manifest_property, proc_property, show_property};

/// `cases` cases; what fails is shown small, and no file is left behind.
fn config(cases: u32) -> ProptestConfig {
    ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::with_cases(cases)
    }
}

/// Chooses between 0 and all of the pairs of key and strategy, and makes an object of them.
macro_rules! object {
    ($($key:literal: $value:expr),* $(,)?) => {
        vec![$(of($value.prop_map(|value| json!(value))).prop_map(|value| ($key, value)).boxed()),*]
            .prop_map(|pairs| {
                let given = pairs.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?)));
                Value::Object(given.collect())
            })
    };
}

fn base_url() -> impl Strategy<Value = String> {
    let host = select(
        &[
            "127.0.0.1",
            "localhost",
            "[::1]",
            "[2001:DB8::0:1]",
            "api_1.Example.",
            "xn--bcher-kva",
        ][..],
    );
    let port = select(&["", ":1", ":80", ":443", ":8000", ":65535"][..]);
    let prefix = select(&["", "/", "/api", "/a/../b//", "/é%zz[%41", "/@:;=&"][..]);
    (select(&["http", "https", "HTTP"][..]), host, port, prefix)
        .prop_map(|(scheme, host, port, prefix)| format!("{scheme}://{host}{port}{prefix}"))
}

/// Seconds from `least` to `most`, both ends now and then.
fn seconds(least: f64, most: f64) -> impl Strategy<Value = Value> {
    let whole = (least.ceil() as u64)..=(most as u64);
    prop_oneof![
        (least..=most).prop_map(|seconds| json!(seconds)),
        whole.prop_map(|seconds| json!(seconds)),
        select(vec![json!(least), json!(most), json!(most as u64)]),
    ]
}

/// Whole numbers from `least` to `most`, small and large ones, also written as `2.0`.
fn whole(least: u32, most: u32) -> impl Strategy<Value = Value> {
    prop_oneof![
        (least..=most).prop_map(|number| json!(number)),
        (least..=most.min(least + 9)).prop_map(|number| json!(f64::from(number))),
        select(vec![json!(least), json!(most)]),
    ]
}

fn headers() -> impl Strategy<Value = Value> {
    let name = "[!#$%&'*+.^_`|~a-z-]{0,3}x[a-zA-Z0-9]{0,2}";
    let value = prop_oneof![
        "[ \\t]?[ -#%-~é]{0,12}",
        Just("Bearer ${TOKEN}".to_owned()),
        Just("$ ${TOKEN}${TOKEN}}".to_owned())
    ];
    btree_map(name, value, 0..3).prop_map(|table| {
        let mut known = std::collections::HashSet::new();
        let unique = table
            .into_iter()
            .filter(|(name, _)| known.insert(name.to_ascii_lowercase()));
        Value::Object(unique.map(|(name, value)| (name, json!(value))).collect())
    })
}

fn options(method: &'static [&'static str]) -> impl Strategy<Value = Value> {
    object! {
        "method": select(method),
        "expect": vec(200_u16..600, 1..4),
        "timeout_seconds": seconds(0.000_000_1, 3_600.0),
        "retries": whole(0, 10),
        "retry_backoff_seconds": seconds(0.0, 60.0),
        "max_redirects": whole(0, 20),
        "headers": headers(),
        "max_body_bytes": whole(1, 16_777_216),
    }
}

fn route() -> impl Strategy<Value = Value> {
    let checks = object! {
        "body_contains": ".{1,9}",
        "json": btree_map("|(/([a-z/]|~0|~1|é){0,4})", any::<Option<i64>>(), 1..3),
    };
    let probed = options(&["GET", "HEAD"]).prop_map(|options| (options, json!({})));
    let checked = (options(&["GET"]), checks);
    let parts = prop_oneof![probed, checked];
    (object! { "core": any::<bool>() }, parts).prop_map(|(core, (options, checks))| {
        let mut route = merged([core, options, checks]);
        // With checks, never the HEAD of the defaults.
        if route.contains_key("body_contains") || route.contains_key("json") {
            route.insert("method".to_owned(), json!("GET"));
        }
        Value::Object(route)
    })
}

fn merged<const N: usize>(tables: [Value; N]) -> Map<String, Value> {
    tables
        .into_iter()
        .flat_map(|table| table.as_object().cloned().unwrap_or_default())
        .collect()
}

fn recovery() -> impl Strategy<Value = Value> {
    let more = object! {
        "scope": select(&["system", "user"][..]),
        "signal": select(&["SIGKILL", "SIGABRT"][..]),
        "min_uptime_seconds": seconds(0.0, 86_400.0),
        "verify_seconds": seconds(1.0, 3_600.0),
    };
    ("[a-zA-Z0-9:_.\\\\-]{1,9}(@[a-z@.]{1,4})?", more).prop_map(|(unit, more)| {
        Value::Object(merged([json!({ "unit": format!("{unit}.service") }), more]))
    })
}

/// Paths that differ; what a URI cannot hold is in some.
fn paths() -> impl Strategy<Value = Vec<String>> {
    hash_set(
        "/([a-z%/.?&=\\[\\]éß🦀\\\\\"<>|^{}-]|%[0-9A-Fa-f]{2}){0,12}",
        1..6,
    )
    .prop_map(|paths| paths.into_iter().collect())
}

/// A valid manifest.
fn valid(with_recovery: bool) -> impl Strategy<Value = Value> {
    let top = object! {
        "$schema": any::<String>(),
        "user_agent": "[ -~]{0,9}[!-~]",
        "concurrency": whole(1, 64),
        "defaults": options(&["GET", "HEAD"]),
    };
    // With recovery, the time that a hang takes to prove is not the generator's to know.
    let deadline = if with_recovery { 80_000.0 } else { 0.000_000_1 };
    let plan = recovery().prop_map(move |plan| with_recovery.then_some(plan));
    let proxy = of(select(if with_recovery {
        &["none"][..]
    } else {
        &["none", "env"]
    }));
    (
        base_url(),
        top,
        seconds(deadline, 86_400.0),
        proxy,
        plan,
        paths().prop_flat_map(routes),
    )
        .prop_map(|(base_url, top, deadline, proxy, plan, routes)| {
            let mut all = merged([
                json!({ "base_url": base_url, "deadline_seconds": deadline, "routes": routes }),
                top,
            ]);
            all.extend(proxy.map(|proxy| ("proxy".to_owned(), json!(proxy))));
            all.extend(plan.map(|plan| ("recovery".to_owned(), plan)));
            Value::Object(all)
        })
}

fn routes(paths: Vec<String>) -> impl Strategy<Value = Vec<Value>> {
    (vec(route(), paths.len()), any::<Index>()).prop_map(move |(mut routes, core)| {
        for (route, path) in routes.iter_mut().zip(&paths) {
            route["path"] = json!(path);
        }
        core.get_mut(&mut routes)["core"] = json!(true);
        routes
    })
}

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
enum Change {
    Value(Value),
    Remove,
    Repeat,
    Add(String, Value),
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        5 => odd().prop_map(Change::Value),
        1 => Just(Change::Remove),
        1 => Just(Change::Repeat),
        1 => ("retrys|[a-z]{0,3}\\PC?|method|json|\u{1b}", odd()).prop_map(|(key, value)| Change::Add(key, value)),
    ]
}

fn spoil(manifest: &mut Value, at: &Index, change: Change) {
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

/// `text`, with a few of its bytes replaced, so that it is cut, bent, or no UTF-8 any more.
fn bend(text: &str, changes: &[(Index, u8)], end: Option<Index>) -> Vec<u8> {
    let mut bytes = text.as_bytes().to_vec();
    for (at, byte) in changes {
        if let Some(there) = bytes.get_mut(at.index(text.len().max(1))) {
            *there = *byte;
        }
    }
    bytes.truncate(end.map_or(bytes.len(), |end| end.index(bytes.len() + 1)));
    bytes
}

/// Values that each break one rule of a valid manifest, by their place; `*` is the last route.
fn violations() -> Vec<(&'static str, Value)> {
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
            { "unit": "a.service", "min_uptime_seconds": -1 }, { "unit": "a.service", "min_uptime_seconds": 86_400.5 },
            { "unit": "a.service", "verify_seconds": 0.5 }, { "unit": "a.service", "verify_seconds": 3_600.5 },
            { "unit": "a.service", "retries": 1 }])))
        .collect()
}

/// Sets the value at `place`, in a table that is there or that is made.
fn set(manifest: &mut Value, place: &str, value: Value) {
    let mut there = manifest;
    for key in place.split('/').skip(1) {
        there = match there {
            Value::Array(list) => list.last_mut().expect("a route"),
            table => &mut table[key],
        };
    }
    *there = value;
}

proptest! {
    #![proptest_config(config(64))]

    #[test]
    fn a_valid_manifest_loads_and_means_what_it_says(manifest in valid(false)) {
        prop_assert!(manifest_property(manifest.to_string().as_bytes()), "{manifest:#}");
    }

    #[test]
    fn a_manifest_with_recovery_obeys_the_limits(manifest in valid(true)) {
        manifest_property(manifest.to_string().as_bytes());
    }

    #[test]
    fn a_spoiled_manifest_loads_only_within_the_limits(
        mut manifest in any::<bool>().prop_flat_map(valid),
        changes in vec((any::<Index>(), change()), 1..4),
    ) {
        for (at, change) in changes {
            spoil(&mut manifest, &at, change);
        }
        manifest_property(manifest.to_string().as_bytes());
    }

    #[test]
    fn a_manifest_that_breaks_one_rule_does_not_load(
        manifest in any::<bool>().prop_flat_map(valid),
        start in any::<Index>(),
    ) {
        if manifest_property(manifest.to_string().as_bytes()) {
            let all = violations();
            // A few for each manifest; together the cases go through nearly all of them.
            for (place, value) in all.iter().cycle().skip(start.index(all.len())).step_by(7).take(20) {
                let mut broken = manifest.clone();
                set(&mut broken, place, value.clone());
                prop_assert!(!manifest_property(broken.to_string().as_bytes()), "{place}: {value}");
            }
        }
    }

    #[test]
    fn a_bent_manifest_is_told_where_it_breaks(
        manifest in valid(false),
        changes in vec((any::<Index>(), any::<u8>()), 0..3),
        end in of(any::<Index>()),
    ) {
        manifest_property(&bend(&manifest.to_string(), &changes, end));
    }
}

/// What systemd prints of a unit that may be killed, or nearly so.
fn unit() -> impl Strategy<Value = String> {
    let line = |name: &'static str, usual: &'static str, others: &'static [&'static str]| {
        prop_oneof![
            12 => Just(Some(usual.to_owned())),
            2 => select(others).prop_map(|other| Some(other.to_owned())),
            1 => Just(None),
            1 => "[^\\n\\x00]{0,6}".prop_map(Some),
        ]
        .prop_map(move |value| value.map(|value| format!("{name}={value}")))
    };
    let signals = &["KILL", "9", "SIGABRT ABRT", "1 TERM"][..];
    [
        line("LoadState", "loaded", &["not-found", "masked"]),
        line("ActiveState", "active", &["failed", "activating"]),
        line("SubState", "running", &["dead"]),
        line("Result", "success", &["signal"]),
        line("MainPID", "4711", &["0", "1", "99", "+5", "4294967296"]),
        line(
            "InvocationID",
            "fe5921ce7fb248c7935c4f07c95f822f",
            &["", "fe59"],
        ),
        line(
            "ExecMainStartTimestampMonotonic",
            "2993160532",
            &["0", "18446744073709551615"],
        ),
        line(
            "Restart",
            "always",
            &["no", "on-failure", "on-success", "on-abort", "on-watchdog"],
        ),
        line("SuccessExitStatus", "", signals),
        line("RestartPreventExitStatus", "", signals),
        line("RestartForceExitStatus", "", signals),
        line("Job", "", &["0", "68"]),
        line("FreezerState", "running", &["frozen", "thawing"]),
        line("TimeoutStopUSec", "1min 30s", &["infinity", "0", "1y 1us"]),
        line(
            "RestartUSec",
            "100ms",
            &["infinity", "1.5s", "9999999999999999y"],
        ),
        line("NeedDaemonReload", "no", &["yes"]),
        line("TriggeredBy", "demo.timer", &["", "a b  c"]),
    ]
    .prop_shuffle()
    .prop_map(|lines| {
        lines
            .into_iter()
            .flatten()
            .map(|line| line + "\n")
            .collect()
    })
}

proptest! {
    #![proptest_config(config(128))]

    #[test]
    fn what_systemd_tells_stands_line_by_line(
        unit in unit(),
        changes in vec((any::<Index>(), any::<u8>()), 0..2),
        end in of(any::<Index>()),
    ) {
        show_property(unit.as_bytes());
        show_property(&bend(&unit, &changes, end));
    }

    #[test]
    fn what_systemd_could_tell_comes_back(bytes in vec(any::<u8>(), 0..256)) {
        show_property(&bytes);
    }

    #[test]
    fn what_the_kernel_could_tell_comes_back(bytes in vec(any::<u8>(), 0..256)) {
        proc_property(&bytes);
    }

    #[test]
    fn what_the_kernel_tells_is_read(
        text in "[0-9]{1,6} \\(\\PC{0,15}\\) [RSDTtZ]( -?[0-9]{1,12}){30}|\
            ( {0,4}[0-9]{1,3}: ([0-9A-F]{8}|[0-9A-F]{32}):[0-9A-F]{4} ([0-9A-F]{8}|[0-9A-F]{32}):[0-9A-F]{4} 0[1-9AB] [0-9A-F]{8}:[0-9A-F]{8} 0 0 0 0 [0-9]{1,20}\n){1,3}|\
            (((TracerPid|SigPnd|ShdPnd|CapEff|CoreDumping):\t[0-9]{1,20}|VmRSS:\t {0,4}[0-9]{1,20} kB|Name:\t\\PC{0,15})\n){5,12}",
    ) {
        proc_property(text.as_bytes());
    }
}
