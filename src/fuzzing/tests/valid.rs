//! Valid manifests, with every key up to both limits of the schema.

use std::collections::HashSet;

use proptest::collection::{btree_map, hash_set, vec};
use proptest::option::of;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use proptest::string::string_regex;
use serde_json::{Value, json};

use super::schema::{SCHEMA, described};

/// A value that a part of the schema allows.
fn allowed(part: &Value) -> BoxedStrategy<Value> {
    let part = described(part);
    if let Some(words) = part["enum"].as_array() {
        return select(words.clone()).boxed();
    }
    let least = part["minimum"].as_f64().unwrap_or(f64::from(1e-7_f32));
    let most = part["maximum"].as_f64().unwrap_or(f64::MAX);
    match part["type"].as_str() {
        Some("integer") => whole(least as u32, most as u32).boxed(),
        Some("number") => seconds(least, most).boxed(),
        Some("boolean") => any::<bool>().prop_map(|value| json!(value)).boxed(),
        Some("array") => {
            let items = vec(allowed(&part["items"]), 1..4);
            items.prop_map(|items| json!(items)).boxed()
        }
        _ => panic!("no values for {part}"),
    }
}

/// An object with some of the optional keys that the schema describes at `place`. `texts` generates the
/// values that it describes by a pattern.
fn object<const N: usize>(
    place: &str,
    texts: [(&str, BoxedStrategy<Value>); N],
) -> BoxedStrategy<Value> {
    let schema = SCHEMA.pointer(place).expect("a place");
    let required = schema["required"].as_array().map_or(&[][..], |keys| keys);
    let optional = schema["properties"].as_object().expect("an object");
    let optional = optional
        .iter()
        .filter(|(key, _)| !required.contains(&json!(key)));
    let pairs = optional.map(|(key, part)| {
        let text = texts.iter().find(|(name, _)| name == key);
        let value = text.map_or_else(|| allowed(part), |(_, values)| values.clone());
        of(value).prop_map(move |value| Some((key.clone(), value?)))
    });
    let pairs: Vec<_> = pairs.collect();
    pairs
        .prop_map(|pairs| Value::Object(pairs.into_iter().flatten().collect()))
        .boxed()
}

/// Text that matches a regular expression.
fn text(pattern: &str) -> BoxedStrategy<Value> {
    let texts = string_regex(pattern).expect("a regular expression");
    texts.prop_map(|text| json!(text)).boxed()
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

/// Seconds from `least` to `most`, including both ends.
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

fn headers() -> BoxedStrategy<Value> {
    let name = "[!#$%&'*+.^_`|~a-z-]{0,3}x[a-zA-Z0-9]{0,2}";
    let value = "[ \\t]?[ -#%-~é]{0,12}|Bearer \\$\\{TOKEN\\}|\\$ \\$\\{TOKEN\\}\\$\\{TOKEN\\}\\}";
    let headers = btree_map(name, value, 0..3).prop_map(|table| {
        let mut known = HashSet::new();
        let unique = table
            .into_iter()
            .filter(|(name, _)| known.insert(name.to_ascii_lowercase()));
        Value::Object(unique.map(|(name, value)| (name, json!(value))).collect())
    });
    headers.boxed()
}

fn expected() -> impl Strategy<Value = Value> {
    prop_oneof![
        any::<Option<i64>>().prop_map(|number| json!(number)),
        select(vec![json!("${TOKEN}"), json!([{ "${": "-${LINES}" }])]),
    ]
}

fn route() -> BoxedStrategy<Value> {
    let pointers = btree_map("|(/([a-z/]|~0|~1|é){0,4})", expected(), 1..3);
    let texts = [
        ("headers", headers()),
        ("body_contains", text("[^$]{1,9}|v=\\$\\{TOKEN\\}\\$")),
        ("json", pointers.prop_map(|json| json!(json)).boxed()),
    ];
    let route = object("/$defs/route", texts).prop_map(|mut route| {
        // A route with body checks must not inherit HEAD from the defaults.
        if route.get("body_contains").is_some() || route.get("json").is_some() {
            route["method"] = json!("GET");
        }
        route
    });
    route.boxed()
}

fn recovery() -> impl Strategy<Value = Value> {
    let unit = "[a-zA-Z0-9:_.\\\\-]{1,9}(@[a-z@.]{1,4})?\\.service";
    (text(unit), object("/properties/recovery", [])).prop_map(|(unit, mut plan)| {
        plan["unit"] = unit;
        plan
    })
}

/// Distinct paths; some contain characters that a URI cannot.
fn paths() -> impl Strategy<Value = Vec<String>> {
    hash_set(
        "/([a-z%/.?&=\\[\\]éß🦀\\\\\"<>|^{}-]|%[0-9A-Fa-f]{2}){0,12}",
        1..6,
    )
    .prop_map(|paths| paths.into_iter().collect())
}

/// A valid manifest.
pub(super) fn valid(with_recovery: bool) -> impl Strategy<Value = Value> {
    let top = object(
        "",
        [
            ("$schema", text("\\PC*")),
            ("name", text("[A-Za-z0-9._-]{1,64}")),
            ("unix_socket", text("/[ -~]{0,99}|/é{0,52}")),
            ("user_agent", text("[ -~]{0,9}[!-~]")),
            (
                "defaults",
                object("/properties/defaults", [("headers", headers())]),
            ),
            ("recovery", Just(json!(null)).boxed()),
        ],
    );
    let routes = paths().prop_flat_map(routes);
    // The generator does not compute how long it takes to prove a hang.
    let deadline = seconds(80_000.0, 86_400.0);
    (top, base_url(), routes, recovery(), deadline).prop_map(
        move |(mut top, base_url, routes, recovery, deadline)| {
            let all = top.as_object_mut().expect("an object");
            all.remove("recovery");
            if with_recovery {
                all.insert("recovery".to_owned(), recovery);
                all.insert("deadline_seconds".to_owned(), deadline);
                all.remove("proxy");
            }
            if base_url.starts_with("https") || all.get("proxy") == Some(&json!("env")) {
                all.remove("unix_socket");
            }
            all.insert("base_url".to_owned(), json!(base_url));
            all.insert("routes".to_owned(), json!(routes));
            top
        },
    )
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
