//! Where a problem is, and the problems found so far. A place lives on the stack and becomes text
//! only when there is something to say about it.

use std::fmt;

use crate::text::escape;

/// More problems than a person reads; the rest is counted.
const SHOWN_MAX: usize = 100;

/// A place in the manifest, as a chain from the innermost step outwards.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place<'a> {
    outer: Option<&'a Place<'a>>,
    step: Step<'a>,
}

#[derive(Clone, Copy, Debug)]
enum Step<'a> {
    Top,
    Key(&'a str),
    Index(usize),
    Name(&'a str),
}

impl<'a> Place<'a> {
    /// The manifest itself.
    pub(super) const TOP: Place<'static> = Place {
        outer: None,
        step: Step::Top,
    };

    /// The value of a key that we know.
    pub(super) fn key(&'a self, key: &'a str) -> Self {
        Self {
            outer: Some(self),
            step: Step::Key(key),
        }
    }

    /// An element of a list.
    pub(super) fn index(&'a self, index: usize) -> Self {
        Self {
            outer: Some(self),
            step: Step::Index(index),
        }
    }

    /// The value of a name that the manifest's author chose.
    pub(super) fn name(&'a self, name: &'a str) -> Self {
        Self {
            outer: Some(self),
            step: Step::Name(name),
        }
    }
}

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let inside = self.outer.filter(|outer| !matches!(outer.step, Step::Top));
        if let Some(outer) = inside {
            outer.fmt(f)?;
        }
        match self.step {
            Step::Top => f.write_str("the manifest"),
            Step::Key(key) if inside.is_some() => write!(f, ".{key}"),
            Step::Key(key) => f.write_str(key),
            Step::Index(index) => write!(f, "[{index}]"),
            Step::Name(name) => write!(f, "[\"{}\"]", escape(name)),
        }
    }
}

/// All problems of one manifest, a line each.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Problems {
    lines: Vec<String>,
    more: usize,
}

impl Problems {
    /// Adds a problem: what is wrong at `place`, and what is allowed there.
    pub(super) fn add(&mut self, place: &Place, problem: impl fmt::Display) {
        self.add_line(|| format!("{place}: {problem}"));
    }

    /// Adds a problem whose place is a line and a column.
    pub(super) fn add_syntax(&mut self, error: &serde_json::Error) {
        let text = error.to_string();
        let place = format!(" at line {} column {}", error.line(), error.column());
        let what = text.strip_suffix(place.as_str()).unwrap_or(&text);
        // Always shown: everything after it is unread.
        let line = format!(
            "line {}, column {}: {}",
            error.line(),
            error.column(),
            escape(what)
        );
        self.lines.push(line);
    }

    /// Adds a problem that comes right after `before`.
    pub(super) fn add_line_and_column(&mut self, before: &[u8], problem: &str) {
        let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
        let column = before
            .iter()
            .rev()
            .take_while(|byte| **byte != b'\n')
            .count()
            + 1;
        self.lines
            .push(format!("line {line}, column {column}: {problem}"));
    }

    fn add_line(&mut self, line: impl FnOnce() -> String) {
        if self.lines.len() < SHOWN_MAX {
            self.lines.push(line());
        } else {
            self.more += 1;
        }
    }

    /// Whether there is nothing to complain of.
    pub fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    /// The problems, without the place-less count of those beyond.
    pub fn lines(&self) -> &[String] {
        &self.lines
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.lines.join("\n"))?;
        match self.more {
            0 => Ok(()),
            more => write!(f, "\nand {more} more problems"),
        }
    }
}

impl std::error::Error for Problems {}
