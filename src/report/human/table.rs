//! The routes in columns, for terminals of any width and for pipes.

use std::io::{self, Write};
use std::time::Duration;

use anstyle::Style;
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use super::style;
use crate::cause::{Class, SkipReason};
use crate::escape::escape;
use crate::manifest::Route;
use crate::report::terminal::Appearance;
use crate::report::{Report, wording};
use crate::verdict::ProbeResult;

/// From this width on, a terminal has space for the scale, and for notes beside the paths.
const WIDE: usize = 80;
/// The fewest columns that text is wrapped into.
const NARROWEST: usize = 8;
/// The width of the scale, and the time at its left end.
const SCALE: usize = 10;
const SCALE_BEGINS: Duration = Duration::from_millis(1);
/// The longest path that affects the alignment if lines may be of any length.
const PLAIN_PATH: usize = 60;
/// The indentation of a note that has its own lines.
const INDENT: usize = 4;

/// How the columns of routes are laid out.
pub(super) struct Table {
    appearance: Appearance,
    /// The terminal's width; none if lines may be of any length.
    columns: Option<usize>,
    /// Columns before the path.
    lead: usize,
    /// The right end of the scale; none if there is no scale.
    scale: Option<Duration>,
    /// Columns for a path and the note beside it.
    path_width: usize,
    /// Columns for a path whose note is aligned with others.
    path: usize,
    gap: &'static str,
}

impl Table {
    pub(super) fn new(report: &Report, appearance: Appearance) -> Self {
        let columns = appearance.stream.columns();
        let narrow = columns.is_some_and(|columns| columns < WIDE);
        let gap = if narrow { " " } else { "  " };
        let longest = report
            .manifest
            .routes
            .iter()
            .map(|r| r.options.timeout)
            .max();
        let drawn = columns.is_some() && !narrow && appearance.unicode;
        let scale = longest.filter(|longest| drawn && *longest > SCALE_BEGINS);
        let scale_columns = scale.map_or(0, |_| SCALE + gap.len());
        let lead = "rate-limited".len() + "core".len() + 3 + 7 + 4 * gap.len() + scale_columns;
        let path_width = columns.map_or(PLAIN_PATH, |columns| {
            columns.saturating_sub(lead).max(NARROWEST)
        });
        // Notes are aligned beside those paths that have one and leave at least half of the width to it.
        let cap = columns.map_or(path_width, |_| path_width / 2);
        let noted = report.by_route().filter(|(_, o)| !note(o).is_empty());
        let widths = noted.map(|(route, _)| escape(&wording::target(route)).width());
        let path = widths.filter(|width| *width <= cap).max().unwrap_or(0);
        Self {
            appearance,
            columns,
            lead,
            scale,
            path_width,
            path,
            gap,
        }
    }

    pub(super) fn heading(&self, report: &Report, out: &mut dyn Write) -> io::Result<()> {
        let source = &report.manifest.source;
        let base_url = report.manifest.base_url.to_string();
        let count = wording::routes(report.manifest.routes.len(), "");
        let line = format!("{base_url}, {count} of {source}");
        for line in wrap(&escape(&line), self.columns) {
            writeln!(out, "{line}")?;
        }
        let Some(longest) = self.scale else {
            return writeln!(out);
        };
        let right = brief(longest);
        let left = self.lead - SCALE - self.gap.len();
        let dim = dim(self.appearance);
        let labels = SCALE - "1 ms".len();
        writeln!(out, "{:left$}{dim}1 ms{right:>labels$}{dim:#}", "")
    }

    pub(super) fn row(
        &self,
        (route, result): (&Route, &ProbeResult),
        out: &mut dyn Write,
    ) -> io::Result<()> {
        let gap = self.gap;
        let style = style(self.appearance, result.class.severity(route.core));
        let core = if route.core { "core" } else { "" };
        let status = result.status.map(|status| status.to_string());
        let attempted = !matches!(result.class, Class::Skipped(_));
        let time = attempted.then(|| wording::time(result.elapsed));
        write!(
            out,
            "{style}{:<12}{style:#}{gap}{core:<4}{gap}{:>3}{gap}{:>7}{gap}",
            wording::class(result.class),
            status.as_deref().unwrap_or("-"),
            time.as_deref().unwrap_or("-"),
        )?;
        if let Some(longest) = self.scale {
            let bar = match attempted {
                true => bar(result.elapsed, longest),
                false => String::new(),
            };
            let rest = SCALE - bar.width();
            let rest = if attempted { "─" } else { " " }.repeat(rest);
            let dim = dim(self.appearance);
            write!(out, "{style}{bar}{style:#}{dim}{rest}{dim:#}{gap}")?;
        }
        self.path(
            &escape(&wording::target(route)),
            &escape(&note(result)),
            out,
        )
    }

    /// The path, and the note beside it, or below it if it does not fit.
    fn path(&self, path: &str, note: &str, out: &mut dyn Write) -> io::Result<()> {
        let padding = match note.is_empty() {
            true => 0,
            false => self.path.saturating_sub(path.width()) + self.gap.len(),
        };
        let Some(columns) = self.columns else {
            return writeln!(out, "{path}{:padding$}{note}", "");
        };
        if path.width() + padding + note.width() <= self.path_width {
            return writeln!(out, "{path}{:padding$}{note}", "");
        }
        writeln!(
            out,
            "{}",
            shorten(path, self.path_width, self.appearance.unicode)
        )?;
        if note.is_empty() {
            return Ok(());
        }
        let indent = if columns < WIDE { 0 } else { self.lead } + INDENT;
        let dim = dim(self.appearance);
        for line in wrap(note, Some(columns.saturating_sub(indent))) {
            writeln!(out, "{:indent$}{dim}{line}{dim:#}", "")?;
        }
        Ok(())
    }
}

/// The note on a route's line. Routes skipped because the backend hung or is down have none: the verdict
/// gives the reason once.
fn note(result: &ProbeResult) -> String {
    match result.class {
        Class::Skipped(SkipReason::BackendHung | SkipReason::BackendDown) => String::new(),
        Class::Skipped(SkipReason::Deadline)
        | Class::Ok
        | Class::TimeoutUnreachable(_)
        | Class::RateLimited
        | Class::HttpError(_) => wording::note(result),
    }
}

/// A timeout in its shortest form.
pub(super) fn brief(length: Duration) -> String {
    let time = wording::time(length);
    match time.split_once(' ') {
        Some((number, unit)) if number.contains('.') => {
            let number = number.trim_end_matches('0').trim_end_matches('.');
            format!("{number} {unit}")
        }
        Some(_) | None => time,
    }
}

fn dim(appearance: Appearance) -> Style {
    match appearance.colour {
        true => Style::new().dimmed(),
        false => Style::new(),
    }
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
pub(super) fn shorten(text: &str, columns: usize, unicode: bool) -> String {
    if text.width() <= columns {
        return text.to_owned();
    }
    let mark = if unicode { "…" } else { "..." };
    let path_width = columns.saturating_sub(mark.width());
    let head = fitting(text.chars(), path_width.div_ceil(2));
    let tail: String = fitting(text.chars().rev(), path_width / 2)
        .chars()
        .rev()
        .collect();
    format!("{head}{mark}{tail}")
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

/// Breaks text into lines at its spaces, and in the middle of words that are too long. If `columns` is
/// none, a line may be of any length.
pub(super) fn wrap(text: &str, columns: Option<usize>) -> Vec<String> {
    let columns = columns.unwrap_or(usize::MAX).max(NARROWEST);
    let mut lines = vec![];
    let mut line = String::new();
    for word in text.split(' ') {
        let mut word = word;
        if !line.is_empty() && line.width() + 1 + word.width() <= columns {
            line.push(' ');
        } else if !line.is_empty() {
            lines.push(std::mem::take(&mut line));
        }
        while word.width() > columns {
            let part = fitting(word.chars(), columns);
            word = word.get(part.len()..).unwrap_or_default();
            lines.push(part);
        }
        line.push_str(word);
    }
    lines.push(line);
    lines
}
