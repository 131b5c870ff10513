use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::Value;

use super::*;
use crate::escape::deceives;
use crate::report::samples::*;

fn shown(report: &Report) -> String {
    render(report)
}

#[test]
fn render_writes_one_object_with_one_route_per_line() {
    with_report(healthy(), |report| {
        assert_golden("healthy.json", &shown(report));
    });
    with_report(hung(), |report| {
        report.recovery = recovered();
        report.unit = Some(active());
        report.warnings = vec!["scidex-api.service: the unit file is newer".to_owned()];
        assert_golden("hung.json", &shown(report));
    });
}

#[test]
fn json_parsers_read_the_report_back_unchanged() {
    let odd = "\"\\\u{1b}[31m\u{7f}\u{9b}2J \u{202e}日本 🦀\u{e0041}";
    let cases = vec![
        case("/", crate::cause::Class::Ok, Some(200), 0)
            .core()
            .detail(odd),
    ];
    with_report(cases, |report| {
        let text = shown(report);
        assert!(!text.contains(|c: char| deceives(c) && c != '\n'), "{text}");
        let value: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value.pointer("/routes/0/detail").unwrap(), odd);
        assert_eq!(value.pointer("/routes/0/elapsed_seconds").unwrap(), 0.0);
    });
}

#[test]
fn render_survives_a_clock_that_is_far_off() {
    let far = UNIX_EPOCH + Duration::from_secs(1 << 40);
    for (time, expected) in [
        (
            UNIX_EPOCH - Duration::from_secs(1),
            "1970-01-01T00:00:00.000Z",
        ),
        (far, "9999-12-31T23:59:59.000Z"),
    ] {
        with_report(healthy(), |report| {
            report.started_at = time;
            let value: Value = serde_json::from_str(&shown(report)).unwrap();
            assert_eq!(value.get("started_at").unwrap(), expected);
        });
    }
    assert!(super::timestamp(SystemTime::now()).ends_with('Z'));
}

#[test]
fn the_documentation_shows_every_key() {
    fn keys(value: &Value) -> Vec<(String, Vec<String>)> {
        let parts = ["", "/tally", "/routes/0", "/recovery"];
        parts
            .map(|part| {
                let object = value.pointer(part).and_then(Value::as_object).unwrap();
                (part.to_owned(), object.keys().cloned().collect())
            })
            .into()
    }

    let page = include_str!("../../../docs/operations.md");
    let (_, example) = page.split_once("```json\n{\n  \"schema_version\"").unwrap();
    let (example, _) = example.split_once("```").unwrap();
    let example = &format!("{{\"schema_version\"{example}");
    let example: Value = serde_json::from_str(example).unwrap();
    with_report(healthy(), |report| {
        let printed: Value = serde_json::from_str(&shown(report)).unwrap();
        assert_eq!(keys(&example), keys(&printed));
    });
}
