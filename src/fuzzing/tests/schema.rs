//! Values on which `routes.schema.json` and the program may disagree: those at its limits, and text.

use std::sync::LazyLock;

use proptest::prelude::*;
use proptest::sample::select;
use serde_json::{Value, json};

use super::manifest_property;

/// The schema as JSON.
pub(super) static SCHEMA: LazyLock<Value> = LazyLock::new(|| {
    let schema = include_str!("../../../routes.schema.json");
    serde_json::from_str(schema).expect("JSON")
});

/// A part of the schema, with its `$ref` resolved.
pub(super) fn described(part: &Value) -> &Value {
    match part["$ref"].as_str() {
        Some(place) => SCHEMA.pointer(&place[1..]).expect("a place"),
        None => part,
    }
}

/// Values at a part's limits, a little beyond them, and of another type.
fn at_the_limits(part: &Value) -> Vec<Value> {
    let mut values = vec![
        json!(null),
        json!(true),
        json!("x"),
        json!("1"),
        json!([]),
        json!({}),
    ];
    let limits = ["minimum", "exclusiveMinimum", "maximum"].map(|limit| part[limit].as_f64());
    for limit in limits.into_iter().flatten() {
        values.extend([-1.0, -0.001, 0.0, 0.001, 0.5, 1.0].map(|step| json!(limit + step)));
        values.push(json!(limit as i64));
    }
    let words = part["enum"].as_array().into_iter().flatten();
    for word in words.filter_map(Value::as_str) {
        values.extend([json!(word), json!(word.to_lowercase())]);
    }
    if let Some(length) = part["maxLength"].as_u64() {
        let texts = [0, 1].map(|more| format!("/{}", "x".repeat(length as usize - 1 + more)));
        values.extend(texts.map(|text| json!(text)));
    }
    let items = part.get("items").map(described).map(at_the_limits);
    values.extend(items.into_iter().flatten().map(|item| json!([item])));
    values
}

fn check(manifest: &Value) {
    manifest_property(manifest.to_string().as_bytes());
}

/// Text made of a few pieces, each relevant to some rule.
fn pieces(pieces: &'static [&'static str]) -> impl Strategy<Value = String> {
    proptest::collection::vec(select(pieces), 0..8).prop_map(|pieces| pieces.concat())
}

/// A location in a manifest, and text that may or may not be valid there.
fn text() -> impl Strategy<Value = (&'static str, String)> {
    const HOST: &[&str] = &[
        "a",
        "Z",
        "1",
        "0",
        "01",
        "255",
        "256",
        ".",
        ".",
        "-",
        "_",
        "é",
        ":",
        ":0",
        ":80",
        ":65535",
        ":65536",
        ":00080",
        ":+1",
        "[",
        "]",
        "[::1]",
        "[1]",
        "@",
        "/",
        "/p",
        "?",
        "#",
        " ",
        "\u{85}",
        "\u{feff}",
        "\u{2028}",
        "\n",
        "%",
        "*",
        "127.0.0.1",
    ];
    const TEXT: &[&str] = &[
        "a", "${", "${A}", "${_1}", "${1}", "${é}", "${}", "$", "}", "{", "\t", "\n", "\u{1}",
        "\u{7f}", "\u{85}", "\u{a0}", "é", " ", "~0", "~2", "/",
    ];
    const PATH: &[&str] = &[
        "/", "a", "?", "#", " ", "%", "\u{85}", "\u{a0}", "\u{feff}", "\u{2003}", "\u{2028}",
        "\u{7f}", "\0", "é", "🦀",
    ];
    const UNIT: &str = "[a@:.\\\\*/ é-]{0,2}@?(\\.service){0,2}";
    prop_oneof![
        3 => pieces(HOST).prop_map(|host| ("/base_url", format!("http://{host}"))),
        1 => pieces(HOST).prop_map(|url| ("/base_url", url)),
        2 => pieces(TEXT).prop_map(|value| ("/defaults/headers/X-A", value)),
        1 => pieces(TEXT).prop_map(|value| ("/user_agent", value)),
        1 => pieces(TEXT).prop_map(|value| ("/routes/0/body_contains", value)),
        1 => pieces(TEXT).prop_map(|value| ("/routes/0/json/~1a/0/b", value)),
        2 => pieces(PATH).prop_map(|path| ("/routes/0/path", path)),
        1 => pieces(PATH).prop_map(|path| ("/unix_socket", path)),
        2 => UNIT.prop_map(|unit| ("/recovery/unit", unit)),
    ]
}

#[test]
fn schema_and_program_agree_at_each_limit() {
    let mut checked = 0;
    for (parent, place) in [
        ("", ""),
        ("/defaults", "/properties/defaults"),
        ("/routes/0", "/$defs/route"),
        ("/recovery", "/properties/recovery"),
    ] {
        let parts = SCHEMA.pointer(&format!("{place}/properties"));
        for (key, part) in parts.and_then(Value::as_object).expect("an object") {
            for value in at_the_limits(described(part)) {
                // With recovery, the rule about the deadline may hide that another one is broken.
                for recovery in [json!(null), json!({ "unit": "a.service" })] {
                    let mut manifest = json!({
                        "base_url": "http://h", "defaults": {}, "routes": [{ "path": "/", "core": true }],
                    });
                    if parent == "/recovery" || recovery.is_object() {
                        manifest["recovery"] = recovery;
                    }
                    if let Some(Value::Object(parent)) = manifest.pointer_mut(parent) {
                        parent.insert(key.clone(), value.clone());
                    }
                    check(&manifest);
                    checked += 1;
                }
            }
        }
    }
    assert!(checked > 800, "only {checked}");
}

proptest! {
    #![proptest_config(super::config(256))]

    #[test]
    fn schema_and_program_agree_on_text((place, text) in text()) {
        let mut manifest = json!({
            "base_url": "http://h", "user_agent": "a", "unix_socket": "/a", "recovery": { "unit": "a.service" },
            "defaults": { "headers": { "X-A": "" } },
            "routes": [{ "path": "/", "core": true, "body_contains": "a", "json": { "/a": [{ "b": "" }] } }],
        });
        *manifest.pointer_mut(place).expect("the place") = json!(text);
        check(&manifest);
    }

    #[test]
    fn schema_and_program_agree_on_keys(key in pieces(&["a", "X", "-", "é", " ", ":", "te", "TE", "host", "/", "~", "~0", "~1", "", "user-agent"])) {
        let manifest = |keys: Value| json!({
            "base_url": "http://h", "routes": [{ "path": "/", "core": true }], "defaults": keys,
        });
        check(&manifest(json!({ "headers": { &key: "a" } })));
        let mut checked = manifest(json!({}));
        checked["routes"][0]["json"] = json!({ key: "a" });
        check(&checked);
    }
}
