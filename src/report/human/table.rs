//! The routes in columns, for terminals of any width and for pipes.

use std::time::Duration;

use anstyle::Style;
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use super::style;
use crate::cause::{Class, SkipReason};
use crate::escape::escape;
use crate::manifest::in_seconds;
use crate::report::terminal::Appearance;
use crate::report::{Report, Row, severity, wording};
use crate::verdict::ProbeResult;

/// From this width on, a terminal has space for the scale, and for notes beside the paths.
const WIDE: usize = 80;
/// The fewest columns for a path.
const NARROWEST: usize = 8;
/// The width of the scale, and the time at its left end.
const SCALE: usize = 10;
const SCALE_BEGINS: Duration = Duration::from_millis(1);
/// The longest path that affects the alignment.
const WIDEST_PATH: usize = 60;
/// The indentation of a note that has its own lines.
const INDENT: usize = 4;

/// How the columns of routes are laid out.
pub(super) struct Table {
    appearance: Appearance,
    dim: Style,
    /// Columns before the path.
    lead: usize,
    /// The right end of the scale; none if there is no scale.
    scale: Option<Duration>,
    /// Columns for a path and the note beside it.
    rest: usize,
    /// Columns for a path whose note is aligned with others.
    path: usize,
    gap: &'static str,
}

impl Table {
    pub(super) fn new(report: &Report, appearance: Appearance) -> Self {
        let columns = appearance.columns;
        let gap = if columns < WIDE { " " } else { "  " };
        let timeouts = report.by_route().map(|(route, _)| route.options.timeout);
        let drawn = (WIDE..usize::MAX).contains(&columns);
        let scale = timeouts.max().filter(|_| drawn);
        let scale_columns = scale.map_or(0, |_| SCALE + gap.len());
        let lead = "rate-limited".len() + "core".len() + 3 + 7 + 4 * gap.len() + scale_columns;
        let rest = columns.saturating_sub(lead).max(NARROWEST);
        // Notes are aligned beside those paths that have one and leave at least half of the width to it.
        let noted = report.by_route().filter(|row| !note(row.1).is_empty());
        let widths = noted.map(|(route, _)| escape(&wording::target(route)).width());
        let widest = WIDEST_PATH.min(rest / 2);
        let path = widths.filter(|width| *width <= widest).max();
        let dim = appearance.color.then(|| Style::new().dimmed());
        Self {
            appearance,
            dim: dim.unwrap_or_default(),
            lead,
            scale,
            rest,
            path: path.unwrap_or(0),
            gap,
        }
    }

    pub(super) fn heading(&self, report: &Report) -> String {
        let heading = wording::heading(report.manifest);
        let lines = wrap(&escape(&heading), self.appearance.columns);
        let text = lines.join("\n") + "\n";
        let Some(longest) = self.scale else {
            return text + "\n";
        };
        let right = format!("{} s", in_seconds(longest));
        let left = self.lead - SCALE - self.gap.len();
        let (dim, labels) = (self.dim, SCALE - "1 ms".len());
        format!("{text}{:left$}{dim}1 ms{right:>labels$}{dim:#}\n", "")
    }

    pub(super) fn row(&self, (route, result): Row) -> String {
        let gap = self.gap;
        let style = style(self.appearance, severity((route, result)));
        let core = if route.core { "core" } else { "" };
        let none = || "-".to_owned();
        let status = result.status.map_or_else(none, |status| status.to_string());
        let attempted = (result.attempts > 0).then_some(result.elapsed);
        let time = attempted.map_or_else(none, wording::time);
        let (class, _) = wording::class(result.class);
        let mut text =
            format!("{style}{class:<12}{style:#}{gap}{core:<4}{gap}{status:>3}{gap}{time:>7}{gap}");
        if let Some(longest) = self.scale {
            let bar = attempted.map_or_else(String::new, |elapsed| bar(elapsed, longest));
            let rest = if bar.is_empty() { " " } else { "─" }.repeat(SCALE - bar.width());
            let dim = self.dim;
            text += &format!("{style}{bar}{style:#}{dim}{rest}{dim:#}{gap}");
        }
        let (path, note) = (wording::target(route), note(result));
        text + &self.path(&escape(&path), &escape(&note))
    }

    /// The path, and the note beside it, or below it if it does not fit.
    fn path(&self, path: &str, note: &str) -> String {
        let padding = match note {
            "" => 0,
            _ => self.path.saturating_sub(path.width()) + self.gap.len(),
        };
        if path.width() + padding + note.width() <= self.rest {
            return format!("{path}{:padding$}{note}\n", "");
        }
        let mut text = shorten(path, self.rest) + "\n";
        let columns = self.appearance.columns;
        let indent = if columns < WIDE { 0 } else { self.lead } + INDENT;
        let dim = self.dim;
        for line in wrap(note, columns.saturating_sub(indent)) {
            if !line.is_empty() {
                text += &format!("{:indent$}{dim}{line}{dim:#}\n", "");
            }
        }
        text
    }
}

/// The note on a route's line. Routes skipped because the backend hung or is down have none: the verdict
/// gives the reason once.
fn note(result: &ProbeResult) -> String {
    let Class::Skipped(SkipReason::BackendHung | SkipReason::BackendDown) = result.class else {
        return wording::note(result);
    };
    String::new()
}

/// A bar whose length is the logarithm of the time, so that both 4 ms and 4 s are visible.
pub(super) fn bar(elapsed: Duration, longest: Duration) -> String {
    let doublings = |time: Duration| log2(time.as_micros().max(1)) - log2(SCALE_BEGINS.as_micros());
    let share = (doublings(elapsed) / doublings(longest)).clamp(0.0, 1.0);
    // Drawn in half columns. Between 0 and 20: the cast cannot lose anything.
    let halves = ((share * SCALE as f64 * 2.0 + 0.5) as usize).max(1);
    "━".repeat(halves / 2) + if halves % 2 == 1 { "╾" } else { "" }
}

/// The logarithm of `number`, interpolated linearly between two powers of two. Exact enough for a bar; the
/// exact function would make every run load the mathematical library, a twelfth of its memory.
fn log2(number: u128) -> f64 {
    let whole = number.ilog2();
    f64::from(whole) + number as f64 / (1_u128 << whole) as f64 - 1.0
}

/// Shortens a path to `columns` by omitting its middle, because both ends distinguish routes.
pub(super) fn shorten(text: &str, columns: usize) -> String {
    if text.width() <= columns {
        return text.to_owned();
    }
    let columns = columns.saturating_sub("…".width());
    let head = fitting(text.chars(), columns.div_ceil(2));
    let tail = fitting(text.chars().rev(), columns / 2);
    let tail: String = tail.chars().rev().collect();
    format!("{head}…{tail}")
}

/// The first of these characters, as many as fit.
fn fitting(characters: impl Iterator<Item = char>, columns: usize) -> String {
    let mut used = 0;
    characters
        .take_while(|character| {
            used += character.width().unwrap_or(0);
            used <= columns
        })
        .collect()
}

/// Breaks text into lines at its spaces. A longer word is left to the terminal.
pub(super) fn wrap(text: &str, columns: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        match lines.last_mut() {
            Some(line) if line.is_empty() => line.push_str(word),
            Some(line) if line.width() + 1 + word.width() <= columns => {
                *line += &format!(" {word}");
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}
