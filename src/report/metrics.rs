//! The report as Prometheus metrics, in the text format that node_exporter's textfile collector reads. Every
//! series except the causes exists after every run, so that alerts need not interpret missing series.

#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::fmt::Display;
use std::io::{self, Write};
use std::time::UNIX_EPOCH;

use super::Report;
use crate::cause::Class;
use crate::manifest::Route;
use crate::recovery;
use crate::verdict::ProbeResult;

const PREFIX: &str = "scidex_route_health";

/// Writes the report as metrics.
///
/// # Errors
///
/// `out` cannot be written.
pub(super) fn render(report: &Report, out: &mut dyn Write) -> io::Result<()> {
    let verdict = &report.verdict;
    let is_healthy = u8::from(verdict.healthy);
    single(
        out,
        "healthy",
        "Whether no route failed the run.",
        is_healthy,
    )?;
    let is_hung = u8::from(verdict.hung());
    single(out, "hung", "Whether every core route was silent.", is_hung)?;

    head(out, "routes", "Routes by class.")?;
    for (class, count) in verdict.tally.by_class() {
        writeln!(out, "{PREFIX}_routes{{class=\"{class}\"}} {count}")?;
    }
    let help = "Whether the route's class is ok.";
    of_routes(report, out, "route_up", help, |result| {
        u8::from(result.class == Class::Ok).to_string()
    })?;
    let help = "The time of the last attempt, 0 where there was none.";
    of_routes(report, out, "route_duration_seconds", help, |result| {
        format!("{:.6}", result.elapsed.as_secs_f64())
    })?;
    let help = "Attempts made to probe the route.";
    of_routes(report, out, "route_attempts", help, |result| {
        result.attempts.to_string()
    })?;
    head(out, "route_cause", "Why the route's class is not ok.")?;
    for (route, result) in report.by_route() {
        if let Some(cause) = result.class.cause() {
            let labels = labels(route);
            writeln!(out, "{PREFIX}_route_cause{{{labels},cause=\"{cause}\"}} 1")?;
        }
    }

    head(out, "recovery", "The outcome of this run's recovery.")?;
    for outcome in recovery::Outcome::NAMES {
        let this = u8::from(outcome == report.recovery.outcome.name());
        writeln!(out, "{PREFIX}_recovery{{outcome=\"{outcome}\"}} {this}")?;
    }

    // Zero for a clock before 1970.
    let started = report.started_at.duration_since(UNIX_EPOCH);
    let ended = (started.unwrap_or_default() + report.elapsed).as_secs_f64();
    let help = "When the last run ended, in Unix time.";
    single(
        out,
        "last_run_timestamp_seconds",
        help,
        format_args!("{ended:.3}"),
    )?;
    let elapsed = report.elapsed.as_secs_f64();
    let help = "How long the last run took.";
    single(
        out,
        "last_run_duration_seconds",
        help,
        format_args!("{elapsed:.6}"),
    )
}

fn head(out: &mut dyn Write, name: &str, help: &str) -> io::Result<()> {
    writeln!(
        out,
        "# HELP {PREFIX}_{name} {help}\n# TYPE {PREFIX}_{name} gauge"
    )
}

fn single(out: &mut dyn Write, name: &str, help: &str, value: impl Display) -> io::Result<()> {
    head(out, name, help)?;
    writeln!(out, "{PREFIX}_{name} {value}")
}

fn of_routes(
    report: &Report,
    out: &mut dyn Write,
    name: &str,
    help: &str,
    value: impl Fn(&ProbeResult) -> String,
) -> io::Result<()> {
    head(out, name, help)?;
    for (route, result) in report.by_route() {
        let (labels, value) = (labels(route), value(result));
        writeln!(out, "{PREFIX}_{name}{{{labels}}} {value}")?;
    }
    Ok(())
}

/// The labels that name a route.
fn labels(route: &Route) -> String {
    let Route { path, core, .. } = route;
    let method = route.options.method.as_str();
    format!(
        "path=\"{}\",method=\"{method}\",core=\"{core}\"",
        label(path)
    )
}

/// A label's value (prometheus.io/docs/instrumenting/exposition_formats).
fn label(text: &str) -> Cow<'_, str> {
    if !text.contains(['\\', '"', '\n']) {
        return text.into();
    }
    let escaped = text.replace('\\', r"\\").replace('"', "\\\"");
    escaped.replace('\n', r"\n").into()
}
