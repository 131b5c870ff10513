//! A finished run and the checks that tests make on it. Uses the documented names, and nothing of the
//! program's internals.

use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::skip::skip_unless_ci;

/// Whether this machine has a program that a test needs; see [`skip_unless_ci`].
#[track_caller]
pub(crate) fn has(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).any(|folder| folder.join(program).is_file());
    if !found {
        skip_unless_ci(&format!("no {program}"));
    }
    found
}

/// A finished run. Every check returns it, so that checks can be chained, and shows the whole output if it
/// fails.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) status: ExitStatus,
    pub(crate) elapsed: Duration,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    /// The JSON report; null if stdout has none.
    pub(crate) report: Value,
    pub(crate) context: String,
}

impl Run {
    #[track_caller]
    fn check(&self, right: bool, what: impl std::fmt::Display) -> &Self {
        assert!(
            right,
            "expected {what}\nstatus: {:?}, after {:?}\nstdout: {}\nstderr: {}\nrun: {}",
            self.status, self.elapsed, self.stdout, self.stderr, self.context
        );
        self
    }

    #[track_caller]
    fn is(&self, have: &Value, want: impl Into<Value>, what: &str) -> &Self {
        let want = want.into();
        self.check(*have == want, format_args!("{what} {want}, got {have}"))
    }

    #[track_caller]
    pub(crate) fn exits(&self, code: i32) -> &Self {
        self.check(
            self.status.code() == Some(code),
            format_args!("exit {code}"),
        )
    }

    #[track_caller]
    pub(crate) fn dies_of(&self, signal: Signal) -> &Self {
        self.check(self.status.signal() == Some(signal as i32), signal)
    }

    #[track_caller]
    pub(crate) fn within(&self, limit: Duration) -> &Self {
        self.check(self.elapsed <= limit, format_args!("at most {limit:?}"))
    }

    /// The report's entry for a path.
    #[track_caller]
    pub(crate) fn route(&self, path: &str) -> &Value {
        let routes = self.report["routes"].as_array();
        let found = routes.and_then(|all| all.iter().find(|route| route["path"] == path));
        self.check(
            found.is_some(),
            format_args!("a report with the route {path}"),
        );
        found.unwrap()
    }

    #[track_caller]
    pub(crate) fn class(&self, path: &str, class: &str) -> &Self {
        let what = format!("{path} of class");
        self.is(&self.route(path)["class"], class, &what)
    }

    /// The cause, `None` for null.
    #[track_caller]
    pub(crate) fn cause(&self, path: &str, cause: impl Into<Option<&'static str>>) -> &Self {
        let what = format!("{path} with cause");
        self.is(&self.route(path)["cause"], cause.into(), &what)
    }

    #[track_caller]
    pub(crate) fn status(&self, path: &str, status: impl Into<Option<u16>>) -> &Self {
        let what = format!("{path} with status");
        self.is(&self.route(path)["status"], status.into(), &what)
    }

    #[track_caller]
    pub(crate) fn attempts(&self, path: &str, attempts: u32) -> &Self {
        let what = format!("{path} with attempts");
        self.is(&self.route(path)["attempts"], attempts, &what)
    }

    /// A detail that contains `part`.
    #[track_caller]
    pub(crate) fn detail_has(&self, path: &str, part: &str) -> &Self {
        let detail = &self.route(path)["detail"];
        self.check(
            detail.as_str().unwrap_or("").contains(part),
            format_args!("{part:?} in the detail of {path}, got {detail}"),
        )
    }

    /// OK, timeout/unreachable, rate-limited, HTTP error, skipped.
    #[track_caller]
    pub(crate) fn tally(&self, counts: [u32; 5]) -> &Self {
        let [ok, timeout_unreachable, rate_limited, http_error, skipped] = counts;
        let want = json!({
            "ok": ok, "timeout_unreachable": timeout_unreachable, "rate_limited": rate_limited,
            "http_error": http_error, "skipped": skipped,
        });
        self.is(&self.report["tally"], want, "the tally")
    }

    #[track_caller]
    pub(crate) fn healthy(&self, healthy: bool) -> &Self {
        self.is(&self.report["healthy"], healthy, "healthy")
    }

    #[track_caller]
    pub(crate) fn hung(&self, hung: bool) -> &Self {
        self.is(&self.report["hung"], hung, "hung")
    }

    #[track_caller]
    pub(crate) fn down(&self, down: bool) -> &Self {
        self.is(&self.report["down"], down, "down")
    }

    #[track_caller]
    pub(crate) fn outcome(&self, outcome: &str) -> &Self {
        self.is(&self.report["recovery"]["outcome"], outcome, "the outcome")
    }

    /// Refused by this guard, with a message that explains it.
    #[track_caller]
    pub(crate) fn refused(&self, guard: &str) -> &Self {
        self.exits(1).hung(true).outcome("refused");
        self.is(&self.report["recovery"]["guard"], guard, "the guard");
        let detail = self.report["recovery"]["detail"].as_str().unwrap_or("");
        self.check(detail.len() > 10, "a message that explains the refusal")
    }

    /// A recovery that failed, with a message that contains `part`.
    #[track_caller]
    pub(crate) fn failed(&self, part: &str) -> &Self {
        self.exits(1).hung(true).outcome("failed");
        let detail = self.report["recovery"]["detail"].as_str().unwrap_or("");
        self.check(
            detail.contains(part),
            format_args!("a failure that names {part:?}"),
        )
    }

    #[track_caller]
    pub(crate) fn pid(&self, key: &str, pid: impl Into<Option<u32>>) -> &Self {
        self.is(&self.report["recovery"][key], pid.into(), key)
    }

    #[track_caller]
    pub(crate) fn stdout_has(&self, part: &str) -> &Self {
        self.check(
            self.stdout.contains(part),
            format_args!("{part:?} on stdout"),
        )
    }

    #[track_caller]
    pub(crate) fn stderr_has(&self, part: &str) -> &Self {
        self.check(
            self.stderr.contains(part),
            format_args!("{part:?} on stderr"),
        )
    }

    #[track_caller]
    pub(crate) fn stdout_is_empty(&self) -> &Self {
        self.check(self.stdout.is_empty(), "nothing on stdout")
    }

    #[track_caller]
    pub(crate) fn stderr_is_empty(&self) -> &Self {
        self.check(self.stderr.is_empty(), "nothing on stderr")
    }

    /// A line on stdout that begins with `start` and contains `part`.
    #[track_caller]
    pub(crate) fn line_with(&self, start: &str, part: &str) -> &Self {
        let mut lines = self.stdout.lines().filter(|line| line.starts_with(start));
        self.check(
            lines.any(|line| line.contains(part)),
            format_args!("a line {start:?} with {part:?} on stdout"),
        )
    }

    /// A line on stdout that is exactly `line`.
    #[track_caller]
    pub(crate) fn line(&self, line: &str) -> &Self {
        let found = self.stdout.lines().any(|have| have == line);
        self.check(found, format_args!("the line {line:?} on stdout"))
    }
}
