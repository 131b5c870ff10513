//! The location of a problem in a manifest, and the list of problems.

use std::fmt;

use super::Variables;
use crate::escape::escape;

/// How many problems are shown; a generated manifest can repeat the same one 100,000 times.
const SHOWN: usize = 100;

/// How many characters of a quoted text are shown.
pub(super) const QUOTED: usize = 80;

pub(super) const DUPLICATE_KEY: &str = "duplicate key; keep one of the two";

/// A value, or [`Invalid`] after a problem with it was noted, which fails the whole manifest.
pub(super) type Field<T> = Result<T, Invalid>;

/// A problem has been noted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Invalid;

/// The state of reading a manifest.
pub(super) struct Context<'v> {
    pub(super) problems: Problems,
    pub(super) variables: Variables<'v>,
}

impl<'v> Context<'v> {
    pub(super) fn new(variables: Variables<'v>) -> Self {
        Self {
            problems: Problems::default(),
            variables,
        }
    }

    /// Notes the message if the value is invalid.
    pub(super) fn note<T>(
        &mut self,
        location: &Location<'_>,
        value: Result<T, String>,
    ) -> Field<T> {
        value.map_err(|message| self.problems.add(location, message))
    }
}

/// A location in a manifest, as a chain of borrowed links: nothing is formatted unless there is a problem.
#[derive(Clone, Copy)]
pub(super) enum Location<'a> {
    /// The manifest as a whole.
    Top,
    /// A key that the manifest format defines.
    Key(&'a Location<'a>, &'a str),
    /// A key that the author chose.
    Entry(&'a Location<'a>, &'a str),
    /// An item of a list, counted from 0.
    Item(&'a Location<'a>, usize),
}

impl fmt::Display for Location<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Top => f.write_str("manifest"),
            Self::Key(Self::Top, key) => f.write_str(key),
            Self::Key(parent, key) => write!(f, "{parent}.{key}"),
            Self::Entry(parent, key) => write!(f, "{parent}[{}]", quoted(key)),
            Self::Item(parent, index) => write!(f, "{parent}[{index}]"),
        }
    }
}

/// All problems of a manifest, one line for each. They never contain header values.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Problems {
    shown: Vec<String>,
    suppressed: usize,
    end: Option<String>,
}

impl Problems {
    /// Notes a problem at `location`.
    pub(super) fn add(&mut self, location: &Location<'_>, message: impl fmt::Display) -> Invalid {
        self.add_line(|| format!("{location}: {message}"));
        Invalid
    }

    fn add_line(&mut self, line: impl FnOnce() -> String) {
        if self.shown.len() < SHOWN {
            self.shown.push(line());
        } else {
            self.suppressed += 1;
        }
    }

    /// Notes other problems after these.
    pub(super) fn append(&mut self, other: Self) {
        for line in other.shown {
            self.add_line(|| line);
        }
        self.suppressed += other.suppressed;
    }

    /// Notes the problem that ended the parsing; nothing after it was checked.
    pub(super) fn end(&mut self, line: usize, column: usize, message: impl fmt::Display) {
        self.end = Some(format!("line {line}, column {column}: {message}"));
    }

    /// How many problems there are.
    pub(super) fn count(&self) -> usize {
        self.shown.len() + self.suppressed + usize::from(self.end.is_some())
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let more = (self.suppressed > 0).then(|| format!("and {} more problems", self.suppressed));
        let lines = self.shown.iter().chain(&more).chain(&self.end);
        for (index, line) in lines.enumerate() {
            let separator = if index == 0 { "" } else { "\n" };
            write!(f, "{separator}{line}")?;
        }
        Ok(())
    }
}

/// `text` in double quotes, safe to print, and shortened if it is long.
pub(super) fn quoted(text: &str) -> String {
    match text.char_indices().nth(QUOTED) {
        Some((end, _)) => format!("\"{}…\"", escape(text.get(..end).unwrap_or_default())),
        None => format!("\"{}\"", escape(text)),
    }
}
