//! Checks that the manual of the manifest matches its schema: the man page of section 5 is generated from the
//! schema (`UPDATE_GENERATED=1` regenerates it), and docs/manifest.md names every key.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::path::Path;

use serde_json::Value;

const HEAD: &str = r#".SH NAME
scidex\-route\-health\-routes \- the manifest of scidex\-route\-health, routes.json
.SH SYNOPSIS
.I routes.json
.br
.I /etc/scidex\-route\-health/routes.json
.SH DESCRIPTION
The manifest lists the routes that
.BR scidex\-route\-health (1)
probes, and names the unit that it may recover. It is a JSON object in UTF\-8 with the keys below. Unknown keys are errors.
.B scidex\-route\-health \-\-validate
reports every problem with its location. Numbers of seconds may be fractional.
"#;

const TAIL: &str = r#".SH EXAMPLE
.nf
{
  "base_url": "http://127.0.0.1:8000",
  "routes": [
    { "path": "/api/health", "core": true, "json": { "/status": "healthy" } },
    { "path": "/papers", "timeout_seconds": 20 }
  ],
  "recovery": { "unit": "scidex\-api.service" }
}
.fi
.SH FILES
.I /usr/share/scidex\-route\-health/routes.schema.json
describes the same format as a JSON Schema, for editors.
.SH SEE ALSO
.BR scidex\-route\-health (1)
"#;

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn schema() -> Value {
    let text = fs::read_to_string(repository().join("routes.schema.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

/// The objects with keys: the heading of each, and the pointer to its properties in the schema.
const PLACES: [(&str, &str); 4] = [
    ("TOP LEVEL", "/properties"),
    ("ROUTES", "/$defs/route/properties"),
    ("DEFAULTS", "/properties/defaults/properties"),
    ("RECOVERY", "/properties/recovery/properties"),
];

fn escaped(text: &str) -> String {
    text.replace('\\', r"\e").replace('-', r"\-")
}

/// The limits and the default of a key, from its schema.
fn limits(key: &Value) -> String {
    let mut limits = vec![];
    let bound = |name: &str| key.get(name).map(Value::to_string);
    if let Some(least) = bound("exclusiveMinimum") {
        limits.push(format!("more than {least}"));
    }
    if let Some(least) = bound("minimum") {
        limits.push(format!("at least {least}"));
    }
    if let Some(most) = bound("maximum") {
        limits.push(format!("at most {most}"));
    }
    if let Some(values) = key.get("enum").and_then(Value::as_array) {
        let values: Vec<String> = values.iter().map(Value::to_string).collect();
        limits.push(format!("one of {}", values.join(", ")));
    }
    if let Some(default) = bound("default") {
        limits.push(format!("default {default}"));
    }
    let mut text = limits.join("; ");
    if let Some(first) = text.get_mut(..1) {
        first.make_ascii_uppercase();
        text.push('.');
    }
    text
}

fn page(schema: &Value) -> String {
    let mut page = format!(
        ".TH scidex\\-route\\-health\\-routes 5 \"\" \"scidex\\-route\\-health {}\" \"File Formats\"\n{HEAD}",
        env!("CARGO_PKG_VERSION")
    );
    for (heading, pointer) in PLACES {
        writeln!(page, ".SH {heading}").unwrap();
        // Sorted, because the order depends on the features of serde_json.
        let keys: BTreeMap<&String, &Value> = schema
            .pointer(pointer)
            .unwrap()
            .as_object()
            .unwrap()
            .iter()
            .collect();
        if heading == "DEFAULTS" {
            let names: Vec<&str> = keys.keys().map(|name| name.as_str()).collect();
            let names = escaped(&names.join(", "));
            writeln!(
                page,
                "These keys of a route can also be set in\n.B defaults\nfor all routes: {names}."
            )
            .unwrap();
            continue;
        }
        let object = pointer.strip_suffix("/properties").unwrap();
        let required = schema.pointer(object).unwrap()["required"]
            .as_array()
            .unwrap();
        for (name, key) in keys {
            let key = key.get("$ref").and_then(Value::as_str).map_or(key, |of| {
                schema.pointer(of.trim_start_matches('#')).unwrap()
            });
            let needed = match required.contains(&name.as_str().into()) {
                true => " \" (required)\"",
                false => "",
            };
            let text = key["description"].as_str().unwrap_or_default();
            let text = format!("{text} {}", limits(key));
            writeln!(page, ".TP\n.BR {}{needed}", escaped(name)).unwrap();
            writeln!(page, "{}", escaped(text.trim())).unwrap();
        }
    }
    page + TAIL
}

#[test]
fn the_man_page_of_the_manifest_describes_the_schema() {
    let path = repository().join("contrib/man/scidex-route-health-routes.5");
    let expected = page(&schema());
    if std::env::var_os("UPDATE_GENERATED").is_some() {
        fs::write(&path, &expected).unwrap();
    }
    assert!(
        fs::read_to_string(&path).unwrap_or_default() == expected,
        "{path:?} is out of date; run UPDATE_GENERATED=1 cargo test manual"
    );
}

#[test]
fn the_manual_names_every_key() {
    let schema = schema();
    let manual = fs::read_to_string(repository().join("docs/manifest.md")).unwrap();
    for (_, pointer) in PLACES {
        for name in schema.pointer(pointer).unwrap().as_object().unwrap().keys() {
            assert!(
                manual.contains(&format!("| `{name}` |")),
                "docs/manifest.md has no row for {name} of {pointer}"
            );
        }
    }
}
