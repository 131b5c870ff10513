//! The wording of the tally, the verdict and other text that several formats share. Pure; callers escape
//! the text.

#[cfg(test)]
mod tests;

use std::time::Duration;

use crate::cause::{Class, Severity, SkipReason};
use crate::manifest::{Manifest, Method, Route, in_seconds};
use crate::recovery::{self, Recovery};
use crate::verdict::{BackendState, ProbeResult, Tally, Verdict};

/// Counts of the core routes' results; the tally counts all routes.
#[derive(Debug, Default)]
struct Core {
    routes: usize,
    lost: usize,
    skipped: usize,
    /// The causes of the lost ones, each once.
    causes: Vec<&'static str>,
}

impl Core {
    fn of(manifest: &Manifest, results: &[ProbeResult]) -> Self {
        let mut core = Self::default();
        let routes = manifest.routes.iter().zip(results);
        for (_, result) in routes.filter(|(route, _)| route.core) {
            core.routes += 1;
            match result.class {
                Class::Ok | Class::RateLimited | Class::HttpError(_) => {}
                Class::Skipped(_) => core.skipped += 1,
                Class::TimeoutUnreachable(error) => {
                    core.lost += 1;
                    if !core.causes.contains(&error.name()) {
                        core.causes.push(error.name());
                    }
                }
            }
        }
        core
    }

    /// The results that fail the run.
    fn hard(&self, verdict: &Verdict) -> Vec<String> {
        let of_core = |count| format!("{count} of {} core routes", self.routes);
        let lost = of_core(self.lost);
        let causes = self.causes.join(", ");
        let mut parts = Vec::new();
        match verdict.backend {
            BackendState::Hung => parts.push(format!("the backend hung: {lost} stayed silent")),
            BackendState::Down => parts.push(format!(
                "the backend is down: {lost} did not answer ({causes})"
            )),
            BackendState::Up if self.lost > 0 => {
                parts.push(format!("{lost} did not answer ({causes})"));
            }
            BackendState::Up => {}
        }
        if self.skipped > 0 {
            let (subject, were) = (of_core(self.skipped), were(self.skipped));
            parts.push(format!("{subject} {were} not probed"));
        }
        let errors = verdict.tally.http_error;
        if errors > 0 {
            parts.push(format!("{} gave an HTTP error", routes(errors, "")));
        }
        parts
    }

    /// The results that are reported but do not fail the run.
    fn soft(&self, tally: &Tally) -> Vec<String> {
        let lost = tally.timeout_unreachable.saturating_sub(self.lost);
        let skipped = tally.skipped.saturating_sub(self.skipped);
        let limited = tally.rate_limited;
        let mut parts = Vec::new();
        if lost > 0 {
            parts.push(format!("{} did not answer", routes(lost, "auxiliary ")));
        }
        if skipped > 0 {
            let (subject, were) = (routes(skipped, "auxiliary "), were(skipped));
            parts.push(format!("{subject} {were} not probed"));
        }
        if limited > 0 {
            let (subject, were) = (routes(limited, ""), were(limited));
            parts.push(format!("{subject} {were} rate-limited"));
        }
        parts
    }
}

/// A number of routes, with an optional kind.
pub(super) fn routes(count: usize, kind: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {kind}route{plural}")
}

fn were(count: usize) -> &'static str {
    if count == 1 { "was" } else { "were" }
}

/// Joins parts with commas and "and": `a, b and c`.
fn list(parts: &[String]) -> String {
    match parts {
        [] => String::new(),
        [one] => one.clone(),
        [most @ .., last] => format!("{} and {last}", most.join(", ")),
    }
}

/// The tally line, which timers and dashboards parse.
pub(super) fn tally(tally: &Tally) -> String {
    let Tally {
        ok,
        timeout_unreachable,
        rate_limited,
        http_error,
        skipped,
    } = tally;
    let mut line = format!(
        "{ok} OK, {timeout_unreachable} timeout/unreachable, {rate_limited} rate-limited, {http_error} HTTP error"
    );
    if *skipped > 0 {
        line += &format!(", {skipped} skipped");
    }
    line
}

/// The verdict's first word, and the text after it.
pub(super) fn verdict(
    manifest: &Manifest,
    results: &[ProbeResult],
    verdict: &Verdict,
) -> (&'static str, String) {
    let core = Core::of(manifest, results);
    let soft = list(&core.soft(&verdict.tally));
    if verdict.healthy {
        let rest = match soft.is_empty() {
            true => ": all routes are OK".to_owned(),
            false => format!(", but {soft}"),
        };
        return ("healthy", rest);
    }
    let hard = list(&core.hard(verdict));
    let rest = match soft.is_empty() {
        true => format!(": {hard}"),
        false => format!(": {hard}; {soft}"),
    };
    ("unhealthy", rest)
}

/// One line about an unhealthy sweep that will be repeated, for at most `left`.
pub fn unhealthy_sweep(
    number: usize,
    manifest: &Manifest,
    results: &[ProbeResult],
    verdict: &Verdict,
    left: Duration,
) -> String {
    let hard = list(&Core::of(manifest, results).hard(verdict));
    let seconds = left.as_secs_f64().ceil();
    format!("sweep {number}: {hard}; trying again for {seconds} s")
}

/// One line about a manifest that is valid.
pub(super) fn valid_manifest(manifest: &Manifest) -> String {
    let core = manifest.routes.iter().filter(|route| route.core).count();
    let recovery = match &manifest.recovery {
        Some(plan) => format!("recovery of {} after {}", plan.unit, silence(manifest)),
        None => "no recovery".to_owned(),
    };
    format!(
        "{} is valid: {} ({core} core) at {}, {recovery}",
        manifest.source,
        routes(manifest.routes.len(), ""),
        manifest.base_url,
    )
}

/// One line at the start of a dry run; none if nothing would be recovered.
pub fn dry_run(manifest: &Manifest) -> Option<String> {
    let plan = manifest.recovery.as_ref()?;
    Some(format!(
        "dry run: {} would be recovered after {}",
        plan.unit,
        silence(manifest)
    ))
}

/// How long the core has to be silent until a hang is proved.
fn silence(manifest: &Manifest) -> String {
    format!("{} s of silence", in_seconds(manifest.proof_time()))
}

/// The class of one route in a word or two.
pub(super) fn class(class: Class) -> &'static str {
    match class {
        Class::Ok => "OK",
        Class::TimeoutUnreachable(error) => error.name(),
        Class::RateLimited => "rate-limited",
        Class::HttpError(_) => "HTTP error",
        Class::Skipped(_) => "skipped",
    }
}

/// The result of one route on one line: class, status, `after`, and the note.
pub(super) fn result(result: &ProbeResult, after: &str) -> String {
    let status = result.status.map(|status| format!(" {status}"));
    let note = note(result);
    let comma = if note.is_empty() { "" } else { ", " };
    let (class, status) = (class(result.class), status.unwrap_or_default());
    format!("{class}{status}{after}{comma}{note}")
}

/// The note on one route: the number of attempts and the reason for the result.
pub(super) fn note(result: &ProbeResult) -> String {
    let reason = match result.class {
        Class::Skipped(SkipReason::BackendHung) => Some("the backend hung"),
        Class::Skipped(SkipReason::BackendDown) => Some("the backend is down"),
        Class::Skipped(SkipReason::Deadline) => Some("the deadline had passed"),
        Class::Ok | Class::TimeoutUnreachable(_) | Class::RateLimited | Class::HttpError(_) => {
            result.detail.as_deref()
        }
    };
    match (result.attempts, reason) {
        (0 | 1, reason) => reason.unwrap_or_default().to_owned(),
        (attempts, None) => format!("{attempts} attempts"),
        (attempts, Some(reason)) => format!("{attempts} attempts: {reason}"),
    }
}

/// A route's path, with the method if it is not GET.
pub(super) fn target(route: &Route) -> String {
    match route.options.method {
        Method::Get => route.path.clone(),
        Method::Head => format!("HEAD {}", route.path),
    }
}

/// A length of time in at most seven columns.
pub(super) fn time(length: Duration) -> String {
    let micros = length.as_micros();
    let milliseconds = length.as_secs_f64() * 1e3;
    let seconds = length.as_secs_f64();
    match micros {
        // Each limit is where the previous form would round up to one more digit.
        0..9_950 => format!("{milliseconds:.1} ms"),
        9_950..999_500 => format!("{milliseconds:.0} ms"),
        999_500..9_995_000 => format!("{seconds:.2} s"),
        9_995_000..99_950_000 => format!("{seconds:.1} s"),
        _ => format!("{seconds:.0} s"),
    }
}

/// The severity of a recovery's outcome: a kill or a dry run is soft, a hang that remains is hard.
pub(super) fn severity(outcome: &recovery::Outcome) -> Severity {
    match outcome {
        recovery::Outcome::NotNeeded => Severity::Fine,
        recovery::Outcome::NotConfigured
        | recovery::Outcome::Disabled(_)
        | recovery::Outcome::WouldKill
        | recovery::Outcome::Recovered { .. } => Severity::Soft,
        recovery::Outcome::Refused(..)
        | recovery::Outcome::Failed(_)
        | recovery::Outcome::NotRecovered { .. } => Severity::Hard,
    }
}

/// The processes that were asked for stacks, the command that shows them, and their first lines if known.
pub(super) fn dump(dump: &recovery::Stacks) -> Vec<String> {
    let processes: Vec<_> = dump.processes.iter().map(ToString::to_string).collect();
    let head = format!(
        "stacks: {} was sent to {} before the kill: {}",
        dump.signal.name(),
        list(&processes),
        dump.command
    );
    vec![head]
}

/// A recovery in one line that begins with `recovery: OUTCOME`.
pub(super) fn recovery(recovery: &Recovery) -> String {
    let outcome = &recovery.outcome;
    let facts: Vec<String> = [
        recovery.unit.as_ref().map(ToString::to_string),
        recovery.pid.map(|pid| format!("PID {pid}")),
        outcome
            .new_pid()
            .map(|pid| format!("new PID {}", pid.get())),
        outcome
            .guard()
            .map(|guard| format!("guard {}", guard.name())),
    ]
    .into_iter()
    .flatten()
    .collect();
    let message = match outcome {
        recovery::Outcome::NotConfigured => "the manifest has no \"recovery\"".to_owned(),
        recovery::Outcome::NotNeeded => "the backend is not hung".to_owned(),
        recovery::Outcome::WouldKill => {
            "all guards passed; without --dry-run it would be killed".to_owned()
        }
        recovery::Outcome::Recovered { .. } => format!(
            "killed and restarted; the core answers again after {}",
            time(recovery.elapsed)
        ),
        recovery::Outcome::Disabled(text)
        | recovery::Outcome::Refused(_, text)
        | recovery::Outcome::Failed(text)
        | recovery::Outcome::NotRecovered { detail: text, .. } => text.clone(),
    };
    let name = outcome.name();
    match facts.is_empty() {
        true => format!("recovery: {name}: {message}"),
        false => format!("recovery: {name} ({}): {message}", facts.join(", ")),
    }
}
