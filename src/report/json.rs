//! The report for programs: one JSON object, with one route per line. Routes are written one by one,
//! because there may be 100,000.

mod lines;
#[cfg(test)]
mod tests;

use std::io::{self, Write};
use std::time::Duration;

use serde::{Serialize, Serializer};

use self::lines::Lines;
use super::{Report, timestamp};
use crate::manifest::{Route, Source};
use crate::recovery::Evidence;
use crate::verdict::{ProbeResult, Tally};

/// Incremented if a key is renamed or removed, which needs a good reason.
const SCHEMA_VERSION: u32 = 1;

/// Writes the report as one JSON object.
///
/// # Errors
///
/// `out` cannot be written.
pub(super) fn render(report: &Report, out: &mut dyn Write) -> io::Result<()> {
    let mut serializer = serde_json::Serializer::with_formatter(&mut *out, Lines::default());
    document(report).serialize(&mut serializer)?;
    out.write_all(b"\n")
}

#[derive(Serialize)]
struct Document<'a> {
    schema_version: u32,
    version: &'static str,
    started_at: String,
    elapsed_seconds: f64,
    manifest: String,
    base_url: String,
    healthy: bool,
    hung: bool,
    down: bool,
    #[serde(serialize_with = "by_class")]
    tally: Tally,
    #[serde(serialize_with = "by_route")]
    routes: &'a Report<'a>,
    recovery: Recovery<'a>,
    warnings: &'a [String],
}

#[derive(Serialize)]
struct Entry<'a> {
    path: &'a str,
    method: &'static str,
    core: bool,
    class: &'static str,
    cause: Option<&'static str>,
    status: Option<u16>,
    detail: Option<&'a str>,
    attempts: u16,
    elapsed_seconds: f64,
}

#[derive(Serialize)]
struct Recovery<'a> {
    outcome: &'static str,
    unit: Option<&'a str>,
    pid: Option<u32>,
    new_pid: Option<u32>,
    guard: Option<&'static str>,
    detail: Option<&'a str>,
    evidence: Option<&'a Evidence>,
    dump: Option<Dump<'a>>,
    elapsed_seconds: f64,
}

#[derive(Serialize)]
struct Dump<'a> {
    signal: &'static str,
    processes: &'a [u32],
    since: String,
    until: String,
    command: &'a str,
}

fn document<'a>(report: &'a Report<'a>) -> Document<'a> {
    let recovery = &report.recovery;
    Document {
        schema_version: SCHEMA_VERSION,
        version: env!("CARGO_PKG_VERSION"),
        started_at: timestamp(report.started_at),
        elapsed_seconds: seconds(report.elapsed),
        manifest: match &report.manifest.source {
            Source::Stdin => "-".to_owned(),
            Source::File { path, .. } => path.display().to_string(),
        },
        base_url: report.manifest.base_url.to_string(),
        healthy: report.verdict.healthy,
        hung: report.verdict.hung(),
        down: report.verdict.down(),
        tally: report.verdict.tally,
        routes: report,
        recovery: Recovery {
            outcome: recovery.outcome.name(),
            unit: recovery.unit.as_ref().map(|unit| unit.as_str()),
            pid: recovery.pid,
            new_pid: recovery.outcome.new_pid().map(|pid| pid.get()),
            guard: recovery.outcome.guard().map(|guard| guard.name()),
            detail: recovery.outcome.detail(),
            evidence: recovery.evidence.as_ref(),
            dump: recovery.stacks.as_ref().map(|dump| Dump {
                signal: dump.signal.name(),
                processes: &dump.processes,
                since: timestamp(dump.since),
                until: timestamp(dump.until),
                command: &dump.command,
            }),
            elapsed_seconds: seconds(recovery.elapsed),
        },
        warnings: &report.warnings,
    }
}

fn entry<'a>(route: &'a Route, result: &'a ProbeResult) -> Entry<'a> {
    let ProbeResult {
        class,
        status,
        detail,
        attempts,
        elapsed,
        proof: _,
    } = result;
    Entry {
        path: &route.path,
        method: route.options.method.as_str(),
        core: route.core,
        class: class.name(),
        cause: class.cause(),
        status: *status,
        detail: detail.as_deref(),
        attempts: *attempts,
        elapsed_seconds: seconds(*elapsed),
    }
}

fn by_class<S: Serializer>(tally: &Tally, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(tally.by_class())
}

fn by_route<S: Serializer>(report: &Report, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(
        report
            .by_route()
            .map(|(route, result)| entry(route, result)),
    )
}

/// Seconds, to the microsecond.
fn seconds(length: Duration) -> f64 {
    length.as_micros() as f64 / 1e6
}
