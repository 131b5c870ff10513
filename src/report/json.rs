//! The report for programs: one JSON object. The items of the object and of its parts have their own lines, so
//! that a report can be read, searched and compared line by line.

#[cfg(test)]
mod tests;

use std::time::Duration;

use serde::Serialize;

use super::{Report, Row, timestamp};
use crate::escape::deceives;
use crate::manifest::Source;
use crate::recovery::{Recovery, Stacks, UnitReport};
use crate::verdict::BackendState;

/// Incremented if a key is renamed or removed, which needs a good reason.
const SCHEMA_VERSION: u32 = 1;

pub(super) fn render(report: &Report) -> String {
    let (manifest, verdict) = (report.manifest, &report.sweep.verdict);
    let source = match &manifest.source {
        Source::Stdin => "-".to_owned(),
        Source::File { path, .. } => path.display().to_string(),
    };
    let socket = manifest.unix_socket.as_ref();
    let socket = socket.map(|path| path.display().to_string());
    let tally = lines(verdict.tally.map(|(class, count)| item(class, count)));
    let routes = lines(report.by_route().map(route));
    let recovery = lines(recovery(&report.recovery));
    let unit = report.unit.as_ref().map_or("null".to_owned(), unit);
    let items = [
        item("schema_version", SCHEMA_VERSION),
        item("version", env!("CARGO_PKG_VERSION")),
        item("started_at", timestamp(report.started_at)),
        item("elapsed_seconds", seconds(report.elapsed)),
        item("manifest", source),
        item("name", &manifest.name),
        item("base_url", manifest.base_url.to_string()),
        item("unix_socket", socket),
        item("healthy", verdict.healthy),
        item("hung", verdict.hung()),
        item("down", verdict.backend == BackendState::Down),
        format!("\"tally\": {{\n    {tally}\n  }}"),
        format!("\"routes\": [\n    {routes}\n  ]"),
        format!("\"recovery\": {{\n    {recovery}\n  }}"),
        format!("\"unit\": {unit}"),
        item("warnings", &report.warnings),
    ];
    format!("{{\n  {}\n}}\n", items.join(",\n  "))
}

/// The items of a part, each on its own line.
fn lines(items: impl IntoIterator<Item = String>) -> String {
    let mut text = String::new();
    for item in items {
        let separator = if text.is_empty() { "" } else { ",\n    " };
        text += &format!("{separator}{item}");
    }
    text
}

fn route((route, result): Row) -> String {
    object(&[
        item("path", &route.path),
        item("method", route.options.method.as_str()),
        item("core", route.core),
        item("class", result.class.name()),
        item("cause", result.class.cause()),
        item("status", result.status),
        item("detail", &result.detail),
        item("attempts", result.attempts),
        item("elapsed_seconds", seconds(result.elapsed)),
    ])
}

fn recovery(recovery: &Recovery) -> [String; 9] {
    let outcome = &recovery.outcome;
    let dump = recovery.stacks.as_ref().map_or("null".to_owned(), stacks);
    [
        item("outcome", outcome.name()),
        item("unit", &recovery.unit),
        item("pid", recovery.pid),
        item("new_pid", outcome.new_pid().map(|pid| pid.get())),
        item("guard", outcome.guard().map(|guard| guard.name())),
        item("detail", outcome.detail()),
        item("evidence", &recovery.evidence),
        format!("\"dump\": {dump}"),
        item("elapsed_seconds", seconds(recovery.elapsed)),
    ]
}

fn stacks(stacks: &Stacks) -> String {
    object(&[
        item("signal", stacks.signal.as_str()),
        item("processes", &stacks.processes),
        item("since", timestamp(stacks.since)),
        item("until", timestamp(stacks.until)),
        item("command", &stacks.command),
    ])
}

fn unit(unit: &UnitReport) -> String {
    object(&[
        item("name", &unit.name),
        item("active_state", &unit.active_state),
        item("sub_state", &unit.sub_state),
        item("since", unit.since.map(timestamp)),
        item("restarts", unit.restarts),
    ])
}

/// An object on one line.
fn object(items: &[String]) -> String {
    format!("{{{}}}", items.join(", "))
}

fn item(key: &str, value: impl Serialize) -> String {
    format!("\"{key}\": {}", json(value))
}

/// A value on one line. Also escapes characters that JSON allows but a terminal acts on: a report may be
/// printed to a terminal.
fn json(value: impl Serialize) -> String {
    // Fails for maps whose keys are no strings; there are none.
    let text = serde_json::to_string(&value).unwrap_or_else(|_| "null".to_owned());
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        if !deceives(character) {
            escaped.push(character);
            continue;
        }
        for unit in character.encode_utf16(&mut [0; 2]) {
            escaped += &format!("\\u{unit:04x}");
        }
    }
    escaped
}

/// Seconds, to the microsecond.
fn seconds(length: Duration) -> f64 {
    length.as_micros() as f64 / 1e6
}
