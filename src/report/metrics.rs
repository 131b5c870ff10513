//! The report as Prometheus metrics, in the text format that node_exporter's textfile collector reads. Every series
//! except the causes and the unit's restarts exists after every run, so that alerts need not interpret missing series.

#[cfg(test)]
mod tests;

use std::fmt::Display;
use std::time::UNIX_EPOCH;

use super::{Report, Row};
use crate::cause::Class;
use crate::recovery;

const PREFIX: &str = "scidex_route_health";

/// The metrics so far, and the labels that all of them have.
struct Metrics {
    text: String,
    run: String,
}

pub(super) fn render(report: &Report) -> String {
    let run = if report.core_only { "core" } else { "all" };
    let backend = label(&report.manifest.name);
    let mut metrics = Metrics {
        text: String::new(),
        run: format!("backend=\"{backend}\",run=\"{run}\""),
    };
    let verdict = &report.sweep.verdict;
    let help = "Whether no route failed the run.";
    metrics.single("healthy", help, u8::from(verdict.healthy));
    let help = "Whether every core route was silent.";
    metrics.single("hung", help, u8::from(verdict.hung()));
    let classes = verdict.tally;
    let classes = classes.map(|(class, count)| (format!(",class=\"{class}\""), count));
    metrics.gauge("routes", "Routes by class.", classes);

    let routes = || report.by_route().map(|row| (labels(row), row.1));
    let values = routes().map(|(labels, result)| (labels, u8::from(result.class == Class::Ok)));
    metrics.gauge("route_up", "Whether the route's class is ok.", values);
    let help = "The time of the last attempt, 0 where there was none.";
    let values = routes().map(|(labels, result)| (labels, result.elapsed.as_secs_f64()));
    let values = values.map(|(labels, seconds)| (labels, format!("{seconds:.6}")));
    metrics.gauge("route_duration_seconds", help, values);
    let help = "Attempts made to probe the route.";
    let values = routes().map(|(labels, result)| (labels, result.attempts));
    metrics.gauge("route_attempts", help, values);
    let values = routes().filter_map(|(labels, result)| {
        let cause = result.class.cause()?;
        Some((format!("{labels},cause=\"{cause}\""), 1))
    });
    metrics.gauge("route_cause", "Why the route's class is not ok.", values);

    let this = report.recovery.outcome.name();
    let outcomes = recovery::Outcome::NAMES;
    let outcomes = outcomes.map(|name| (format!(",outcome=\"{name}\""), u8::from(name == this)));
    metrics.gauge("recovery", "The outcome of this run's recovery.", outcomes);
    let restarts = report.unit.iter().filter_map(|unit| {
        let name = label(&unit.name);
        Some((format!(",unit=\"{name}\""), unit.restarts?))
    });
    let help = "Automatic restarts of the recovery unit since its last manual start.";
    metrics.gauge("unit_restarts", help, restarts);
    let help = "Warnings of the last run, such as a recovery that would be refused.";
    metrics.single("warnings", help, report.warnings.len());

    // Zero for a clock before 1970.
    let started = report.started_at.duration_since(UNIX_EPOCH);
    let ended = (started.unwrap_or_default() + report.elapsed).as_secs_f64();
    let help = "When the last run ended, in Unix time.";
    metrics.single("last_run_timestamp_seconds", help, format!("{ended:.3}"));
    let elapsed = format!("{:.6}", report.elapsed.as_secs_f64());
    let help = "How long the last run took.";
    metrics.single("last_run_duration_seconds", help, elapsed);
    metrics.text
}

impl Metrics {
    fn single(&mut self, name: &str, help: &str, value: impl Display) {
        self.gauge(name, help, [("", value)]);
    }

    /// Adds one gauge. Each sample has further labels, and a value.
    fn gauge<L: Display, V: Display>(
        &mut self,
        name: &str,
        help: &str,
        samples: impl IntoIterator<Item = (L, V)>,
    ) {
        let mut head = format!("# HELP {PREFIX}_{name} {help}\n# TYPE {PREFIX}_{name} gauge\n");
        for (labels, value) in samples {
            let sample = format!("{PREFIX}_{name}{{{}{labels}}} {value}\n", self.run);
            self.text += &(std::mem::take(&mut head) + &sample);
        }
    }
}

fn labels((route, _): Row) -> String {
    let path = label(&route.path);
    let (method, core) = (route.options.method.as_str(), route.core);
    format!(",path=\"{path}\",method=\"{method}\",core=\"{core}\"")
}

/// A label's value (prometheus.io/docs/instrumenting/exposition_formats).
fn label(text: &str) -> String {
    let text = text.replace('\\', r"\\").replace('"', "\\\"");
    text.replace('\n', r"\n")
}
