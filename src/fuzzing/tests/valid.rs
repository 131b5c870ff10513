//! Valid manifests, with every key at both ends of what is allowed.

use std::collections::HashSet;

use proptest::collection::{btree_map, hash_set, vec};
use proptest::option::of;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use serde_json::{Map, Value, json};

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
        let mut known = HashSet::new();
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

fn expected() -> impl Strategy<Value = Value> {
    prop_oneof![
        any::<Option<i64>>().prop_map(|number| json!(number)),
        select(vec![json!("${TOKEN}"), json!([{ "${": "-${LINES}" }])]),
    ]
}

fn route() -> impl Strategy<Value = Value> {
    let checks = object! {
        "body_contains": "[^$]{1,9}|v=\\$\\{TOKEN\\}\\$",
        "json": btree_map("|(/([a-z/]|~0|~1|é){0,4})", expected(), 1..3),
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
        "dump_signal": select(&["SIGUSR1", "SIGUSR2", "SIGQUIT"][..]),
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
pub(super) fn valid(with_recovery: bool) -> impl Strategy<Value = Value> {
    let top = object! {
        "$schema": any::<String>(),
        "user_agent": "[ -~]{0,9}[!-~]",
        "concurrency": whole(1, 64),
        "defaults": options(&["GET", "HEAD"]),
    };
    let socket = of("/[ -~]{0,99}|/é{0,52}");
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
        socket,
        paths().prop_flat_map(routes),
    )
        .prop_map(|(base_url, top, deadline, proxy, plan, socket, routes)| {
            let socket = socket.filter(|_| !base_url.starts_with("https") && proxy != Some("env"));
            let mut all = merged([
                json!({ "base_url": base_url, "deadline_seconds": deadline, "routes": routes }),
                top,
            ]);
            all.extend(proxy.map(|proxy| ("proxy".to_owned(), json!(proxy))));
            all.extend(socket.map(|path| ("unix_socket".to_owned(), json!(path))));
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
