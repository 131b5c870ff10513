//! The human report: a table at a terminal, plain lines in a pipe, and in the journal only the routes
//! that are not OK. The tally, the verdict and the recovery are always the last lines.

mod github;
mod table;
#[cfg(test)]
mod tests;

use anstyle::{AnsiColor, Style};

use self::table::{Table, wrap};
use super::terminal::Appearance;
use super::{Report, severity, wording};
use crate::cause::{Class, Severity};
use crate::escape::escape;
use crate::stderr::prefix;

/// The other routes that were skipped and are shown where only routes that are not OK are.
const SKIPPED: usize = 2;

/// The report as lines; nothing at all if `quiet` and healthy.
pub(super) fn render(report: &Report, appearance: Appearance, quiet: bool) -> String {
    if quiet && report.verdict.healthy {
        return String::new();
    }
    let journal = appearance.journal;
    let compact = quiet || journal;
    let table = Table::new(report, appearance);
    let mut text = String::new();
    if !compact {
        text += &table.heading(report);
    }
    let mut skipped = 0;
    for row in report.by_route() {
        let (core, class) = (row.0.core, row.1.class);
        let is_skipped = !core && matches!(class, Class::Skipped(_));
        skipped += usize::from(is_skipped);
        if compact && (class == Class::Ok || is_skipped && skipped > SKIPPED) {
            continue;
        }
        if journal {
            let prefix = prefix(severity(row));
            text += &format!("{prefix}{}\n", escape(&wording::message(row)));
        } else {
            text += &table.row(row);
        }
    }
    if !compact {
        text += "\n";
    } else if skipped > SKIPPED {
        let prefix = if journal { prefix(Severity::Soft) } else { "" };
        text += &format!("{prefix}({} more skipped)\n", skipped - SKIPPED);
    }
    if appearance.github {
        text += &github::annotations(report);
    }
    text + &end(report, appearance)
}

/// The last lines; scripts rely on those from the tally on.
fn end(report: &Report, appearance: Appearance) -> String {
    let recovery = &report.recovery;
    let mut text = String::new();
    let mut line = |severity, first: &str, rest: &str| {
        if appearance.journal {
            text += prefix(severity);
        }
        let style = style(appearance, severity);
        if !first.is_empty() {
            text += &format!("{style}{first}{style:#}");
        }
        text += &format!("{}\n", escape(rest));
    };
    if let Some(evidence) = &recovery.evidence {
        let evidence = format!("evidence: {}", evidence.summary());
        for part in wrap(&evidence, appearance.columns) {
            line(Severity::Soft, "", &part);
        }
    }
    let stacks = recovery.stacks.as_ref().map(wording::stacks);
    for note in stacks.into_iter().chain(wording::unit(report)) {
        line(Severity::Soft, "", &note);
    }
    line(Severity::Fine, "", &wording::tally(report.verdict.tally));
    let worst = report.by_route().map(severity).max();
    let (word, rest) = wording::verdict(report);
    line(worst.unwrap_or(Severity::Fine), word, &rest);
    if report.verdict.hung() {
        let (severity, outcome, rest) = wording::recovery(recovery);
        line(severity, &outcome, &rest);
    }
    text
}

fn style(appearance: Appearance, severity: Severity) -> Style {
    let color = match severity {
        _ if !appearance.color => return Style::new(),
        Severity::Fine => AnsiColor::Green,
        Severity::Soft => AnsiColor::Yellow,
        Severity::Hard => AnsiColor::Red,
    };
    color.on_default().bold()
}
