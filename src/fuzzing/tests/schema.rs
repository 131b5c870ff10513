//! `routes.schema.json` against the program: what the one takes, the other takes, but for the rules
//! that no schema can state.

use std::sync::LazyLock;

use jsonschema::Validator;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use serde_json::{Value, json};

use super::spoil::{change, spoil};
use super::valid::valid;
use crate::manifest::{LoadOptions, Manifest, Source, Variables};

static SCHEMA: LazyLock<Validator> = LazyLock::new(|| {
    let schema = include_str!("../../../routes.schema.json");
    let schema = serde_json::from_str(schema).expect("JSON");
    jsonschema::draft202012::new(&schema).expect("a schema")
});

/// Problems of which the schema knows nothing; `tests/health/schema.rs` has a manifest for each.
const BEYOND: [&str; 9] = [
    ": same method and path as ",
    " cannot be used with HEAD",
    ": duplicate header ",
    " is too short to prove a hang",
    " bytes; the path of a socket has at most ",
    " is not an IPv6 address",
    // A name of more than 253 characters.
    " is not a DNS name",
    ": the URL is too long",
    " bytes are too many; give at most 128",
];

fn agree(manifest: &Value) {
    let options = LoadOptions {
        base_url: None,
        variables: Variables::MayBeMissing,
    };
    let program = Manifest::parse(manifest.to_string().as_bytes(), Source::Stdin, &options);
    match (SCHEMA.is_valid(manifest), program) {
        (true, Ok(_)) | (false, Err(_)) => {}
        (false, Ok(_)) => {
            let errors: Vec<_> = SCHEMA
                .iter_errors(manifest)
                .map(|e| e.to_string())
                .collect();
            panic!("the schema alone refuses {manifest}: {errors:?}");
        }
        (true, Err(problems)) => {
            let text = problems.to_string();
            for line in text.lines() {
                let host = line.contains(" is not a DNS name") && line.len() < 80;
                let known = BEYOND.iter().any(|beyond| line.contains(beyond));
                assert!(
                    known && !host,
                    "the program alone refuses {manifest}: {line}"
                );
            }
        }
    }
}

/// Text of a few pieces, each of which may matter to a rule.
fn pieces(pieces: &'static [&'static str]) -> impl Strategy<Value = String> {
    proptest::collection::vec(select(pieces), 0..8).prop_map(|pieces| pieces.concat())
}

/// A place in a manifest, and text that may or may not stand there.
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
    const UNIT: &[&str] = &[
        "a", "@", ".service", ".service", ".", "-", "\\", ":", "/", " ", "é", "*",
    ];
    prop_oneof![
        3 => pieces(HOST).prop_map(|host| ("/base_url", format!("http://{host}"))),
        1 => pieces(HOST).prop_map(|url| ("/base_url", url)),
        2 => pieces(TEXT).prop_map(|value| ("/defaults/headers/X-A", value)),
        1 => pieces(TEXT).prop_map(|value| ("/user_agent", value)),
        1 => pieces(TEXT).prop_map(|value| ("/routes/0/body_contains", value)),
        1 => pieces(TEXT).prop_map(|value| ("/routes/0/json/~1a/0/b", value)),
        2 => pieces(PATH).prop_map(|path| ("/routes/0/path", path)),
        1 => pieces(PATH).prop_map(|path| ("/unix_socket", path)),
        2 => pieces(UNIT).prop_map(|unit| ("/recovery/unit", unit)),
    ]
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
        agree(&manifest);
    }

    #[test]
    fn schema_and_program_agree_on_keys(key in pieces(&["a", "X", "-", "é", " ", ":", "te", "TE", "host", "/", "~", "~0", "~1", "", "user-agent"])) {
        let manifest = |keys: Value| json!({
            "base_url": "http://h", "routes": [{ "path": "/", "core": true }], "defaults": keys,
        });
        agree(&manifest(json!({ "headers": { &key: "a" } })));
        let mut checked = manifest(json!({}));
        checked["routes"][0]["json"] = json!({ key: "a" });
        agree(&checked);
    }
}

proptest! {
    #![proptest_config(super::config(64))]

    #[test]
    fn schema_and_program_agree_on_valid_and_spoiled_manifests(
        mut manifest in any::<bool>().prop_flat_map(valid),
        changes in proptest::collection::vec((any::<Index>(), change()), 0..3),
    ) {
        for (at, change) in changes {
            spoil(&mut manifest, &at, change);
        }
        agree(&manifest);
    }
}
