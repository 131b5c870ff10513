//! What a run found, and how it is reported: one file per format, which turns the report into text and
//! does no I/O; `destination.rs` writes it. The exit statuses are decided elsewhere.

mod destination;
mod human;
mod json;
mod junit;
mod metrics;
mod progress;
#[cfg(test)]
mod samples;
mod terminal;
mod wording;

use std::io::{self, IsTerminal};
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use self::destination::{Destination, is_same, write_stdout};
use self::terminal::Appearance;
use crate::cause::Severity;
use crate::cli::{Cli, Format};
use crate::escape::escape;
use crate::manifest::{DEFAULT_PATHS, Manifest, Route};
use crate::recovery::{Recovery, UnitReport};
use crate::stderr::{is_journal, log, log_nonblocking};
use crate::sweep::Sweep;
use crate::verdict::ProbeResult;

pub use self::progress::Progress;
pub use self::wording::{dry_run, unhealthy_sweep};

/// Everything that a run found.
#[derive(Debug)]
pub struct Report<'a> {
    /// When the run began.
    pub started_at: SystemTime,
    /// How long the whole run took.
    pub elapsed: Duration,
    /// What was probed.
    pub manifest: &'a Manifest,
    /// Whether only the core routes were to be probed (`--core`).
    pub core_only: bool,
    /// The results and what they mean.
    pub sweep: Sweep,
    /// What was done about it.
    pub recovery: Recovery,
    /// What systemd says of the recovery unit, where it was asked.
    pub unit: Option<UnitReport>,
    /// Problems that would prevent the next recovery or the next run.
    pub warnings: Vec<String>,
}

impl Report<'_> {
    /// Each route with its result, in the manifest's order.
    fn by_route(&self) -> impl Iterator<Item = Row<'_>> + Clone {
        self.manifest.routes.iter().zip(&self.sweep.results)
    }

    /// The routes whose results are that severe.
    fn rows_of(&self, wanted: Severity) -> impl Iterator<Item = Row<'_>> + Clone {
        self.by_route().filter(move |row| severity(*row) == wanted)
    }
}

type Row<'a> = (&'a Route, &'a ProbeResult);

fn severity((route, result): Row) -> Severity {
    result.class.severity(route.core)
}

/// The files that the report goes to: each of them, or why it cannot work, and its format.
#[derive(Debug)]
pub struct Outputs(Vec<(Result<Destination, String>, Render)>);

/// Turns a report into a file's text.
type Render = fn(&Report) -> String;

impl Outputs {
    /// Checks every file that the report goes to. One that cannot work is reported now, before the probes; the run
    /// continues.
    ///
    /// # Errors
    ///
    /// A report would replace the manifest or the other report.
    pub fn prepare(cli: &Cli) -> anyhow::Result<Self> {
        let mut paths = match cli.manifest.as_deref() {
            Some(path) if path.as_os_str() == "-" => vec![Path::new("/dev/stdin")],
            Some(path) => vec![path],
            None => DEFAULT_PATHS.map(Path::new).into(),
        };
        let formats: [(_, _, _, Render); 2] = [
            ("--junit", "JUnit report", &cli.junit, junit::render),
            ("--metrics", "metrics", &cli.metrics, metrics::render),
        ];
        let mut files = vec![];
        for (option, what, path, render) in formats {
            let Some(path) = path else { continue };
            if let Some(other) = paths.iter().find(|other| is_same(path, other)) {
                anyhow::bail!(
                    "{option} {path:?} and {other:?} are the same file; give each its own file"
                );
            }
            paths.push(path);
            let file = Destination::prepare(what, path);
            if let Err(complaint) = &file {
                log_nonblocking(Severity::Hard, complaint);
            }
            files.push((file, render));
        }
        Ok(Self(files))
    }
}

/// Writes the report to all its destinations, and returns whether all writes succeeded. Failures are
/// reported on standard error.
pub fn write_all(report: &Report, cli: &Cli, Outputs(files): Outputs) -> bool {
    // The files first, because a reader of the streams may be slow.
    let files = files.into_iter();
    let files = files.map(|(file, render)| file?.write(&render(report)));
    let complaints: Vec<String> = files.filter_map(Result::err).collect();
    // cron would mail the same warnings after every healthy run. The JSON report contains them itself.
    let is_watched = io::stderr().is_terminal() || is_journal(&io::stderr());
    let mailed = cli.quiet && report.sweep.verdict.healthy && !is_watched;
    if cli.format == Format::Human && !mailed {
        for warning in &report.warnings {
            log(Severity::Soft, &format!("warning: {}", escape(warning)));
        }
    }
    let stdout = match cli.format {
        Format::Human => human::render(report, Appearance::of_stdout(cli.color), cli.quiet),
        Format::Json => json::render(report),
    };
    let written = write_stdout(&stdout);
    for complaint in &complaints {
        log(Severity::Hard, complaint);
    }
    written && complaints.is_empty()
}

/// Prints one line about a valid manifest, and returns whether it could be written.
pub fn write_summary(manifest: &Manifest) -> bool {
    let line = wording::valid_manifest(manifest);
    write_stdout(&format!("{}\n", escape(&line)))
}

/// A point in time as RFC 3339 writes it, in UTC with milliseconds. A time outside of the range of the format
/// becomes the nearest one within it.
fn timestamp(time: SystemTime) -> String {
    let end_of_9999 = UNIX_EPOCH + Duration::from_secs(253_402_300_799);
    let time = time.clamp(UNIX_EPOCH, end_of_9999);
    humantime::format_rfc3339_millis(time).to_string()
}
