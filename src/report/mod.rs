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

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use self::destination::Destination;
use self::terminal::Appearance;
use crate::cli::{Cli, Format};
use crate::escape::escape;
use crate::manifest::{Manifest, Route};
use crate::recovery::Recovery;
use crate::stderr::{Level, log, log_nonblocking, log_stdout_failed};
use crate::verdict::{self, Verdict};

pub use self::progress::Progress;
pub use self::wording::{dry_run, unhealthy_sweep};

/// The last second that RFC 3339 can write, at the end of the year 9999.
const LAST_SECOND: Duration = Duration::from_secs(253_402_300_799);

/// Everything that a run found.
#[derive(Debug)]
pub struct Report<'a> {
    /// When the run began.
    pub started_at: SystemTime,
    /// How long the whole run took.
    pub elapsed: Duration,
    /// What was probed.
    pub manifest: &'a Manifest,
    /// The result of each route, in the manifest's order.
    pub results: Vec<verdict::ProbeResult>,
    /// What the results mean.
    pub verdict: Verdict,
    /// What was done about it.
    pub recovery: Recovery,
    /// Problems that would prevent the next recovery or the next run.
    pub warnings: Vec<String>,
}

impl Report<'_> {
    /// Each route with its result, in the manifest's order.
    fn by_route(&self) -> impl Iterator<Item = (&Route, &verdict::ProbeResult)> + Clone {
        self.manifest.routes.iter().zip(&self.results)
    }
}

/// Where the report goes.
#[derive(Debug)]
pub struct Outputs {
    format: Format,
    quiet: bool,
    appearance: Appearance,
    junit: Option<Destination>,
    metrics: Option<Destination>,
}

impl Outputs {
    /// Checks every destination of the report. A path that cannot work is reported now, before the probes;
    /// the run continues.
    ///
    /// # Errors
    ///
    /// Two reports would replace each other.
    pub fn prepare(cli: &Cli) -> anyhow::Result<Self> {
        if let (Some(junit), Some(metrics)) = (&cli.junit, &cli.metrics)
            && destination::is_same(junit, metrics)
        {
            anyhow::bail!(
                "--junit {junit:?} and --metrics {metrics:?} are the same file; give each its own file"
            );
        }
        let prepare = |what, path: &Option<_>| {
            let mut destination = Destination::new(what, path.as_deref()?);
            if let Err(complaint) = destination.prepare() {
                log_nonblocking(Level::Failure, &complaint);
            }
            Some(destination)
        };
        Ok(Self {
            format: cli.format,
            quiet: cli.quiet,
            appearance: Appearance::of_stdout(cli.color),
            junit: prepare("JUnit report", &cli.junit),
            metrics: prepare("metrics", &cli.metrics),
        })
    }
}

/// Writes the report to all its destinations, and returns whether all writes succeeded. Failures are
/// reported on standard error.
pub fn write_all(report: &Report, outputs: Outputs) -> bool {
    let Outputs {
        format,
        quiet,
        appearance,
        junit,
        metrics,
    } = outputs;
    // The files first, because a reader of the streams may be slow.
    let junit = junit.map_or(Ok(()), |file| file.write(|out| junit::render(report, out)));
    let metrics = metrics.map_or(Ok(()), |file| {
        file.write(|out| metrics::render(report, out))
    });
    // The JSON report contains them itself.
    if format == Format::Human {
        for warning in &report.warnings {
            log(Level::Warning, &format!("warning: {}", escape(warning)));
        }
    }
    let stdout = destination::write_stdout(|out| match format {
        Format::Human => human::render(report, appearance, quiet, out),
        Format::Json => json::render(report, out),
    });
    let complete = junit.is_ok() && metrics.is_ok() && stdout.is_ok();
    for complaint in [junit, metrics].into_iter().filter_map(Result::err) {
        log(Level::Failure, &complaint);
    }
    if let Err(error) = stdout {
        log_stdout_failed(&error);
    }
    complete
}

/// Prints one line about a valid manifest, and returns whether it could be written.
pub fn write_summary(manifest: &Manifest) -> bool {
    let line = wording::valid_manifest(manifest);
    destination::write_stdout(|out| writeln!(out, "{}", escape(&line)))
        .inspect_err(log_stdout_failed)
        .is_ok()
}

/// A point in time as RFC 3339 writes it, in UTC with milliseconds. A time outside of the range of the format
/// becomes the nearest one within it.
fn timestamp(time: SystemTime) -> String {
    let time = time.clamp(UNIX_EPOCH, UNIX_EPOCH + LAST_SECOND);
    humantime::format_rfc3339_millis(time).to_string()
}
