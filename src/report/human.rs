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
    if quiet && report.sweep.verdict.healthy {
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

fn end(report: &Report, appearance: Appearance) -> String {
    let recovery = &report.recovery;
    let evidence = recovery.evidence.iter().flat_map(|evidence| {
        let text = format!("evidence: {}", evidence.summary());
        wrap(&text, appearance.columns)
    });
    let notes = evidence.chain(recovery.stacks.as_ref().map(wording::stacks));
    let notes = notes.chain(wording::unit(report));
    let notes = notes.map(|note| (Severity::Soft, String::new(), note));
    let mut text = String::new();
    for (severity, first, rest) in notes.chain(wording::conclusion(report)) {
        if appearance.journal {
            text += prefix(severity);
        }
        if !first.is_empty() {
            let style = style(appearance, severity);
            text += &format!("{style}{first}{style:#}");
        }
        text += &format!("{}\n", escape(&rest));
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
