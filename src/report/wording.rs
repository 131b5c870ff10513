//! The wording of the tally, the verdict and other text that several formats share. Pure; callers escape the text.

#[cfg(test)]
mod tests;

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::time::Duration;

use super::{Report, Row, severity, timestamp};
use crate::cause::{Class, ResponseError, Severity, SkipReason, TransportError};
use crate::escape::escape;
use crate::manifest::{Manifest, Method, Route, in_seconds};
use crate::recovery::{Outcome, Recovery, Stacks, systemctl};
use crate::sweep::Sweep;
use crate::verdict::{BackendState, ProbeResult, Verdict};

/// How many routes are named in a sentence.
const NAMED: usize = 3;

/// What happened to the routes that are not OK, the worst first, and the core routes before the others; with
/// their names if they fail the run.
fn phrases(report: &Report) -> String {
    let core = report.by_route().filter(|row| row.0.core).count();
    let mut groups: BTreeMap<_, Vec<Row>> = BTreeMap::new();
    let is_not_ok = |row: &Row| severity(*row) != Severity::Fine;
    for row in report.by_route().filter(is_not_ok) {
        let key = (Reverse(severity(row)), !row.0.core, class(row.1.class).1);
        groups.entry(key).or_default().push(row);
    }
    let phrase = |((Reverse(severity), is_other, happened), rows): (_, Vec<Row>)| {
        let number = rows.len();
        let subject = if is_other {
            count(number, "other route")
        } else {
            format!("{number} of {core} core routes")
        };
        if severity == Severity::Soft {
            return format!("{subject} {happened}");
        }
        let mut names: Vec<String> = rows.into_iter().take(NAMED).map(name).collect();
        if number > NAMED {
            names.push(format!("{} more", number - NAMED));
        }
        format!("{subject} {happened} ({})", names.join(", "))
    };
    let phrases: Vec<String> = groups.into_iter().map(phrase).collect();
    phrases.join("; ")
}

/// A route and why it is not OK in a word: the status, if that is the reason, or the cause.
fn name((route, result): Row) -> String {
    let reason = match (result.class, result.status) {
        (Class::HttpError(ResponseError::Status), Some(status)) => status.to_string(),
        (class, _) => class.cause().unwrap_or_default().to_owned(),
    };
    format!("{}: {reason}", target(route))
}

fn state(verdict: &Verdict) -> &'static str {
    match verdict.backend {
        BackendState::Hung => "the backend hung: ",
        BackendState::Down => "the backend is down: ",
        BackendState::Up => "",
    }
}

/// A number of things: `1 route`, `2 routes`.
pub(super) fn count(number: usize, what: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {what}{plural}")
}

/// The tally line, which timers and dashboards parse.
fn tally(tally: [(&str, usize); 5]) -> String {
    let [ok, unreachable, limited, errors, skipped] = tally.map(|(_, count)| count);
    let line = format!(
        "{ok} OK, {unreachable} timeout/unreachable, {limited} rate-limited, {errors} HTTP error"
    );
    match skipped {
        0 => line,
        skipped => format!("{line}, {skipped} skipped"),
    }
}

fn address(manifest: &Manifest) -> String {
    let base_url = &manifest.base_url;
    match &manifest.unix_socket {
        Some(path) => format!("{base_url} over {}", path.display()),
        None => base_url.to_string(),
    }
}

/// The backend, its address, and what was probed.
pub(super) fn heading(manifest: &Manifest) -> String {
    let (name, source) = (&manifest.name, &manifest.source);
    let mut address = address(manifest);
    // Without a "name" or a unit, the name is a part of the address.
    if !address.contains(name) {
        address = format!("{name} at {address}");
    }
    let routes = count(manifest.routes.len(), "route");
    format!("{address}, {routes} of {source}")
}

/// The last lines of a report, which scripts rely on: how severe each is, what is stressed, and the text after that.
pub(super) fn conclusion(report: &Report) -> Vec<(Severity, String, String)> {
    let verdict = &report.sweep.verdict;
    let (phrases, state) = (phrases(report), state(verdict));
    let (word, rest) = match (verdict.healthy, phrases.as_str()) {
        (true, "") => ("healthy", ": all routes are OK".to_owned()),
        (true, _) => ("healthy", format!(", but {phrases}")),
        (false, _) => ("unhealthy", format!(": {state}{phrases}")),
    };
    let worst = report.by_route().map(severity).max();
    let mut lines = vec![
        (Severity::Fine, String::new(), tally(verdict.tally)),
        (worst.unwrap_or(Severity::Fine), word.to_owned(), rest),
    ];
    lines.extend(verdict.hung().then(|| recovery(&report.recovery)));
    lines
}

/// One line about an unhealthy sweep that will be repeated, for at most `left`: what it waits for.
pub fn unhealthy_sweep(
    number: usize,
    manifest: &Manifest,
    sweep: &Sweep,
    left: Duration,
) -> String {
    let rows = manifest.routes.iter().zip(&sweep.results);
    let failed = || rows.clone().filter(|row| severity(*row) == Severity::Hard);
    let first = failed().min_by_key(|(route, _)| !route.core);
    let first = first.map(message).unwrap_or_default();
    let more = match failed().count().saturating_sub(1) {
        0 => String::new(),
        more => format!(" ({} failed)", count(more, "more route")),
    };
    let (state, seconds) = (state(&sweep.verdict), left.as_secs_f64().ceil());
    let line = format!("sweep {number}: {state}{first}{more}; trying again for up to {seconds} s");
    escape(&line).into_owned()
}

/// What systemd says of the unit of a backend that is hung or down, and the next command if it is down.
pub(super) fn unit(report: &Report) -> Option<String> {
    let unit = report.unit.as_ref()?;
    let name = &unit.name;
    let mut line = format!("{name}: {} ({})", unit.active_state, unit.sub_state);
    if let Some(since) = unit.since {
        line += &format!(" since {}", timestamp(since));
    }
    if let Some(restarts) = unit.restarts {
        line += &format!(", restarts: {restarts}");
    }
    if report.sweep.verdict.backend != BackendState::Down {
        return report.sweep.verdict.hung().then_some(line);
    }
    let refused = Class::TimeoutUnreachable(TransportError::Refused);
    let is_refused = |(route, result): Row| !route.core || result.class == refused;
    let next = match unit.active_state.as_str() {
        "inactive" => "start",
        "active" if report.by_route().all(is_refused) => {
            let address = address(report.manifest);
            line += &format!("; nothing listens at {address}, and systemd will not restart it");
            "restart"
        }
        _ => "status",
    };
    let systemctl = systemctl(report.manifest.recovery.as_ref()?.scope);
    Some(format!("{line}; next: {systemctl} {next} {name}"))
}

pub(super) fn valid_manifest(manifest: &Manifest) -> String {
    let core = manifest.routes.iter().filter(|route| route.core).count();
    let recovery = match &manifest.recovery {
        Some(plan) => format!("recovery of {} after {}", plan.unit, silence(manifest)),
        None => "no recovery".to_owned(),
    };
    let (source, base_url) = (&manifest.source, &manifest.base_url);
    let routes = count(manifest.routes.len(), "route");
    format!("{source} is valid: {routes} ({core} core) at {base_url}, {recovery}")
}

/// One line at the start of a dry run; none if nothing would be recovered.
pub fn dry_run(manifest: &Manifest) -> Option<String> {
    let plan = manifest.recovery.as_ref()?;
    let (unit, silence) = (&plan.unit, silence(manifest));
    let line = format!("dry run: {unit} would be recovered after {silence}");
    Some(line)
}

/// How long the core has to be silent until a hang is proved.
fn silence(manifest: &Manifest) -> String {
    format!("{} s of silence", in_seconds(manifest.proof_time()))
}

/// The class of one route in a word or two, and as the predicate of a sentence.
pub(super) fn class(class: Class) -> (&'static str, &'static str) {
    match class {
        Class::Ok => ("OK", "answered"),
        Class::TimeoutUnreachable(_) => (class.cause().unwrap_or_default(), "did not answer"),
        Class::RateLimited => ("rate-limited", "hit a rate limit"),
        Class::HttpError(ResponseError::Body) => ("wrong body", "gave an HTTP error"),
        Class::HttpError(_) => ("HTTP error", "gave an HTTP error"),
        Class::Skipped(_) => ("skipped", "could not be probed"),
    }
}

/// One route and its result, on one line.
pub(super) fn message((route, result): Row) -> String {
    let core = if route.core { "core " } else { "" };
    let after = match result.attempts {
        0 => String::new(),
        _ => format!(" after {}", time(result.elapsed)),
    };
    format!("{core}{}: {}", target(route), self::result(result, &after))
}

/// The result of one route on one line: class, status, `after`, and the note.
pub(super) fn result(result: &ProbeResult, after: &str) -> String {
    let status = result.status.map(|status| format!(" {status}"));
    let note = note(result);
    let comma = if note.is_empty() { "" } else { ", " };
    let ((class, _), status) = (class(result.class), status.unwrap_or_default());
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
    let seconds = length.as_secs_f64();
    match length.as_micros() {
        // Each limit is where the previous form would round up to one more digit.
        0..9_950 => format!("{:.1} ms", seconds * 1e3),
        9_950..999_500 => format!("{:.0} ms", seconds * 1e3),
        999_500..9_995_000 => format!("{seconds:.2} s"),
        9_995_000..99_950_000 => format!("{seconds:.1} s"),
        _ => format!("{seconds:.0} s"),
    }
}

/// The processes that were asked for stacks, and the command that shows them.
pub(super) fn stacks(stacks: &Stacks) -> String {
    let (signal, command) = (stacks.signal.as_str(), &stacks.command);
    let processes: Vec<_> = stacks.processes.iter().map(ToString::to_string).collect();
    let processes = processes.join(", ");
    format!("stacks: {signal} was sent to {processes} before the kill: {command}")
}

/// A recovery in one line: `recovery: OUTCOME`, and the text after it. A kill or a dry run is soft, a hang that
/// remains is hard.
fn recovery(recovery: &Recovery) -> (Severity, String, String) {
    let outcome = &recovery.outcome;
    let (new_pid, guard) = (outcome.new_pid(), outcome.guard());
    let facts = [
        recovery.unit.clone(),
        recovery.pid.map(|pid| format!("PID {pid}")),
        new_pid.map(|pid| format!("new PID {}", pid.get())),
        guard.map(|guard| format!("guard {}", guard.name())),
    ];
    let mut facts = facts.into_iter().flatten().collect::<Vec<_>>().join(", ");
    if !facts.is_empty() {
        facts = format!(" ({facts})");
    }
    let after = time(recovery.elapsed);
    let recovered = format!("killed and restarted; the core answers again after {after}");
    let would_kill = "all guards passed; without --dry-run it would be killed";
    let (severity, message) = match outcome {
        Outcome::NotConfigured => (Severity::Soft, "the manifest has no \"recovery\""),
        Outcome::NotNeeded => (Severity::Soft, "the backend is not hung"),
        Outcome::WouldKill => (Severity::Soft, would_kill),
        Outcome::Recovered { .. } => (Severity::Soft, recovered.as_str()),
        Outcome::Disabled(text) => (Severity::Soft, text.as_str()),
        Outcome::Refused(_, text)
        | Outcome::Failed(text)
        | Outcome::NotRecovered { detail: text, .. } => (Severity::Hard, text.as_str()),
    };
    let first = format!("recovery: {}", outcome.name());
    (severity, first, format!("{facts}: {message}"))
}
