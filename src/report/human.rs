//! The report for people: a table at a terminal, plain lines in a pipe, and in the journal only
//! what is not as it should be. The tally, the verdict and the recovery are always the last lines.

#[cfg(test)]
mod tests;

use std::io::{self, Write};
use std::time::Duration;

use anstyle::{AnsiColor, Style};
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use super::stderr::Level;
use super::stream::{Look, Stream};
use super::{Report, words};
use crate::manifest::Route;
use crate::text::escape;
use crate::verdict::{Class, Outcome, Severity};

/// From this width on, a terminal has room for the scale, and for notes beside the paths.
const WIDE: usize = 80;
/// The scale's width, and the time at its left end.
const SCALE: usize = 10;
const SCALE_BEGINS: Duration = Duration::from_millis(1);
/// The longest path that others are aligned with where lines may be of any length.
const PLAIN_PATH: usize = 60;
/// How far a note is set in that has lines of its own.
const INDENT: usize = 4;

/// Writes the report as lines; nothing at all where `quiet` and healthy.
///
/// # Errors
///
/// Where `out` cannot be written.
pub fn render(report: &Report, look: Look, quiet: bool, out: &mut dyn Write) -> io::Result<()> {
    if quiet && report.verdict.healthy {
        return Ok(());
    }
    let journal = look.stream == Stream::Journal;
    if journal {
        for (route, outcome) in report.results().filter(not_ok) {
            let level = level(outcome.class.severity(route.core));
            writeln!(out, "{}{}", level.prefix(), sentence(route, outcome))?;
        }
    } else {
        let table = Table::new(report, look, quiet);
        if !quiet {
            table.heading(report, out)?;
        }
        for result in report.results().filter(|result| !quiet || not_ok(result)) {
            table.row(result, out)?;
        }
        if !quiet {
            writeln!(out)?;
        }
    }
    end(report, look, out)
}

fn not_ok((_, outcome): &(&Route, &Outcome)) -> bool {
    outcome.class != Class::Ok
}

/// The lines that scripts rely on.
fn end(report: &Report, look: Look, out: &mut dyn Write) -> io::Result<()> {
    let prefix = |severity| match look.stream {
        Stream::Journal => level(severity).prefix(),
        Stream::Terminal { .. } | Stream::Plain => "",
    };
    let recovery = &report.recovery;
    if let Some(evidence) = &recovery.evidence {
        let summary = evidence.summary();
        writeln!(
            out,
            "{}evidence: {}",
            prefix(Severity::Soft),
            escape(&summary)
        )?;
    }
    let verdict = &report.verdict;
    writeln!(
        out,
        "{}{}",
        prefix(Severity::Fine),
        words::tally(&verdict.tally)
    )?;
    let severity = match (verdict.healthy, verdict.tally.ok == report.outcomes.len()) {
        (true, true) => Severity::Fine,
        (true, false) => Severity::Soft,
        (false, _) => Severity::Hard,
    };
    let (word, rest) = words::verdict(report.manifest, &report.outcomes, verdict);
    let style = style(look, severity);
    writeln!(out, "{}{style}{word}{style:#}{rest}", prefix(severity))?;
    if verdict.hung() {
        let severity = words::severity(&recovery.outcome);
        let line = words::recovery(recovery);
        writeln!(out, "{}{}", prefix(severity), escape(&line))?;
    }
    Ok(())
}

fn level(severity: Severity) -> Level {
    match severity {
        Severity::Fine => Level::Info,
        Severity::Soft => Level::Soft,
        Severity::Hard => Level::Failure,
    }
}

fn style(look: Look, severity: Severity) -> Style {
    let colour = match severity {
        _ if !look.colour => return Style::new(),
        Severity::Fine => AnsiColor::Green,
        Severity::Soft => AnsiColor::Yellow,
        Severity::Hard => AnsiColor::Red,
    };
    colour.on_default().bold()
}

fn dim(look: Look) -> Style {
    match look.colour {
        true => Style::new().dimmed(),
        false => Style::new(),
    }
}

/// One route in the journal, where alignment is of no use.
fn sentence(route: &Route, outcome: &Outcome) -> String {
    let target = words::target(route);
    let core = if route.core { "core " } else { "" };
    let class = words::class(outcome.class);
    let status = outcome.status.map(|status| format!(" {status}"));
    let time = match outcome.class {
        Class::Skipped(_) => String::new(),
        Class::Ok | Class::TimeoutUnreachable(_) | Class::RateLimited | Class::HttpError(_) => {
            format!(" after {}", words::time(outcome.elapsed))
        }
    };
    let note = words::note(outcome);
    let comma = if note.is_empty() { "" } else { ", " };
    let line = format!(
        "{core}{target}: {class}{}{time}{comma}{note}",
        status.unwrap_or_default()
    );
    escape(&line).into_owned()
}

/// How the columns of routes are laid out.
struct Table {
    look: Look,
    /// The terminal's width; none where lines may be of any length.
    columns: Option<usize>,
    /// Columns up to the path.
    lead: usize,
    /// The right end of the scale; none where there is no scale.
    scale: Option<Duration>,
    /// Columns for a path that stands alone, and for its note.
    room: usize,
    /// Columns for a path with a note beside it.
    path: usize,
    gap: &'static str,
}

impl Table {
    fn new(report: &Report, look: Look, quiet: bool) -> Self {
        let columns = match look.stream {
            Stream::Terminal { columns } => Some(columns),
            Stream::Journal | Stream::Plain => None,
        };
        let narrow = columns.is_some_and(|columns| columns < WIDE);
        let gap = if narrow { " " } else { "  " };
        let longest = report
            .manifest
            .routes
            .iter()
            .map(|r| r.options.timeout)
            .max();
        let drawn = columns.is_some() && !narrow && look.unicode;
        let scale = longest.filter(|longest| drawn && *longest > SCALE_BEGINS);
        let scale_columns = scale.map_or(0, |_| SCALE + gap.len());
        let lead = "rate-limited".len() + "core".len() + 3 + 7 + 4 * gap.len() + scale_columns;
        let room = columns.map_or(PLAIN_PATH, |columns| columns.saturating_sub(lead).max(8));
        let shown = report.results().filter(|result| !quiet || not_ok(result));
        // Only paths with a note beside them need to end in the same place.
        let noted = shown.filter(|(_, outcome)| !words::note(outcome).is_empty());
        let path = noted.map(|(route, _)| escape(&words::target(route)).width());
        let path = path.max().unwrap_or(0);
        // On a wide terminal, half of the room is left to the notes.
        let cap = match columns {
            Some(_) if !narrow => room / 2,
            Some(_) | None => room,
        };
        Self {
            look,
            columns,
            lead,
            scale,
            room,
            path: path.min(cap),
            gap,
        }
    }

    fn heading(&self, report: &Report, out: &mut dyn Write) -> io::Result<()> {
        let source = &report.manifest.source;
        let base_url = report.manifest.base_url.to_string();
        let count = report.manifest.routes.len();
        let line = format!("{base_url}, {count} routes of {source}");
        for line in wrap(&escape(&line), self.columns.unwrap_or(usize::MAX).max(8)) {
            writeln!(out, "{line}")?;
        }
        let Some(longest) = self.scale else {
            return writeln!(out);
        };
        let right = words::time(longest).replace(".00", "").replace(".0", "");
        let left = self.lead - SCALE - self.gap.len();
        let dim = dim(self.look);
        let labels = SCALE - "1 ms".len();
        writeln!(out, "{:left$}{dim}1 ms{right:>labels$}{dim:#}", "")
    }

    fn row(&self, (route, outcome): (&Route, &Outcome), out: &mut dyn Write) -> io::Result<()> {
        let gap = self.gap;
        let style = style(self.look, outcome.class.severity(route.core));
        let core = if route.core { "core" } else { "" };
        let status = outcome.status.map(|status| status.to_string());
        let attempted = !matches!(outcome.class, Class::Skipped(_));
        let time = attempted.then(|| words::time(outcome.elapsed));
        write!(
            out,
            "{style}{:<12}{style:#}{gap}{core:<4}{gap}{:>3}{gap}{:>7}{gap}",
            words::class(outcome.class),
            status.as_deref().unwrap_or("-"),
            time.as_deref().unwrap_or("-"),
        )?;
        if let Some(longest) = self.scale {
            let bar = if attempted {
                bar(outcome.elapsed, longest)
            } else {
                String::new()
            };
            write!(
                out,
                "{style}{bar}{style:#}{:1$}{gap}",
                "",
                SCALE - bar.width()
            )?;
        }
        let target = words::target(route);
        let target = escape(&target);
        let note = words::note(outcome);
        let note = escape(&note);
        let Some(columns) = self.columns else {
            let padding = match note.is_empty() {
                true => 0,
                false => self.path.saturating_sub(target.width()) + gap.len(),
            };
            return writeln!(out, "{target}{:padding$}{note}", "");
        };
        let beside = columns.saturating_sub(self.lead + self.path + gap.len());
        if !note.is_empty() && target.width() <= self.path && note.width() <= beside {
            let padding = self.path + gap.len() - target.width();
            return writeln!(out, "{target}{:padding$}{note}", "");
        }
        writeln!(out, "{}", shorten(&target, self.room, self.look.unicode))?;
        if note.is_empty() {
            return Ok(());
        }
        let indent = if columns < WIDE { 0 } else { self.lead } + INDENT;
        let dim = dim(self.look);
        for line in wrap(&note, columns.saturating_sub(indent).max(8)) {
            writeln!(out, "{:indent$}{dim}{line}{dim:#}", "")?;
        }
        Ok(())
    }
}

/// A bar whose length is the logarithm of the time, so that 4 ms and 4 s can both be seen.
fn bar(elapsed: Duration, longest: Duration) -> String {
    let decades = |time: Duration| (time.as_secs_f64() / SCALE_BEGINS.as_secs_f64()).log10();
    let share = (decades(elapsed) / decades(longest)).clamp(0.0, 1.0);
    // Drawn in half columns. Between 0 and 20: the cast cannot lose anything.
    let halves = ((share * SCALE as f64 * 2.0).round() as usize).max(1);
    "━".repeat(halves / 2) + if halves % 2 == 1 { "╸" } else { "" }
}

/// Takes out of the middle what is beyond `columns`: both ends of a path tell routes apart.
fn shorten(text: &str, columns: usize, unicode: bool) -> String {
    if text.width() <= columns {
        return text.to_owned();
    }
    let mark = if unicode { "…" } else { "..." };
    let room = columns.saturating_sub(mark.width());
    let head = fitting(text.chars(), room.div_ceil(2));
    let tail: String = fitting(text.chars().rev(), room / 2)
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

/// Breaks text into lines at its spaces, and in the middle of words that are too long.
fn wrap(text: &str, columns: usize) -> Vec<String> {
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
