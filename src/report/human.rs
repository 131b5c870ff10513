//! The human report: a table at a terminal, plain lines in a pipe, and in the journal only the routes
//! that are not OK. The tally, the verdict and the recovery are always the last lines.

mod github;
mod table;
#[cfg(test)]
mod tests;

use std::io::{self, Write};

use anstyle::{AnsiColor, Style};

use self::table::{Table, wrap};
use super::terminal::{Appearance, Stream};
use super::{Report, wording};
use crate::cause::{Class, Severity};
use crate::escape::escape;
use crate::manifest::Route;
use crate::stderr::Level;
use crate::verdict::ProbeResult;

/// Writes the report as lines; nothing at all if `quiet` and healthy.
///
/// # Errors
///
/// `out` cannot be written.
pub(super) fn render(
    report: &Report,
    appearance: Appearance,
    quiet: bool,
    out: &mut dyn Write,
) -> io::Result<()> {
    if quiet && report.verdict.healthy {
        return Ok(());
    }
    let journal = appearance.stream == Stream::Journal;
    if journal {
        for (route, result) in report.by_route().filter(not_ok) {
            let level = level(result.class.severity(route.core));
            writeln!(out, "{}{}", level.prefix(), message(route, result))?;
        }
    } else {
        let table = Table::new(report, appearance);
        if !quiet {
            table.heading(report, out)?;
        }
        for result in report.by_route().filter(|result| !quiet || not_ok(result)) {
            table.row(result, out)?;
        }
        if !quiet {
            writeln!(out)?;
        }
    }
    if appearance.github && !journal {
        for (route, result) in report.by_route() {
            if let Some(line) = github::annotation(route, result, &message(route, result)) {
                writeln!(out, "{line}")?;
            }
        }
    }
    end(report, appearance, out)
}

fn not_ok((_, result): &(&Route, &ProbeResult)) -> bool {
    result.class != Class::Ok
}

/// The lines that scripts rely on.
fn end(report: &Report, appearance: Appearance, out: &mut dyn Write) -> io::Result<()> {
    let prefix = |severity| match appearance.stream {
        Stream::Journal => level(severity).prefix(),
        Stream::Terminal { .. } | Stream::Plain => "",
    };
    let recovery = &report.recovery;
    if let Some(evidence) = &recovery.evidence {
        let line = format!("evidence: {}", evidence.summary());
        for line in wrap(&escape(&line), appearance.stream.columns()) {
            writeln!(out, "{}{line}", prefix(Severity::Soft))?;
        }
    }
    for line in recovery.stacks.iter().flat_map(wording::dump) {
        writeln!(out, "{}{}", prefix(Severity::Soft), escape(&line))?;
    }
    let verdict = &report.verdict;
    writeln!(
        out,
        "{}{}",
        prefix(Severity::Fine),
        wording::tally(&verdict.tally)
    )?;
    let severities = report.by_route().map(|(r, o)| o.class.severity(r.core));
    let severity = severities.max().unwrap_or(Severity::Fine);
    let (word, rest) = wording::verdict(report.manifest, &report.results, verdict);
    let style = style(appearance, severity);
    writeln!(out, "{}{style}{word}{style:#}{rest}", prefix(severity))?;
    if verdict.hung() {
        let severity = wording::severity(&recovery.outcome);
        let line = wording::recovery(recovery);
        writeln!(out, "{}{}", prefix(severity), escape(&line))?;
    }
    Ok(())
}

fn level(severity: Severity) -> Level {
    match severity {
        Severity::Fine => Level::Info,
        Severity::Soft => Level::Warning,
        Severity::Hard => Level::Failure,
    }
}

fn style(appearance: Appearance, severity: Severity) -> Style {
    let colour = match severity {
        _ if !appearance.colour => return Style::new(),
        Severity::Fine => AnsiColor::Green,
        Severity::Soft => AnsiColor::Yellow,
        Severity::Hard => AnsiColor::Red,
    };
    colour.on_default().bold()
}

/// One route in the journal, without alignment.
fn message(route: &Route, result: &ProbeResult) -> String {
    let target = wording::target(route);
    let core = if route.core { "core " } else { "" };
    let after = match result.class {
        Class::Skipped(_) => String::new(),
        Class::Ok | Class::TimeoutUnreachable(_) | Class::RateLimited | Class::HttpError(_) => {
            format!(" after {}", wording::time(result.elapsed))
        }
    };
    let line = format!("{core}{target}: {}", wording::result(result, &after));
    escape(&line).into_owned()
}
