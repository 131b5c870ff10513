//! The location of a problem in a manifest, and the list of problems.

use std::fmt;

use crate::escape::escape;

/// Problems that are shown one by one; a generated manifest can repeat the same one 100,000 times.
const SHOWN: usize = 100;

/// Characters of a quoted text that are shown.
pub(super) const QUOTED: usize = 80;

/// A location in a manifest, as a chain of borrowed links: nothing is formatted while all is well.
#[derive(Clone, Copy)]
pub(super) enum Location<'a> {
    /// The manifest as a whole.
    Top,
    /// A key of the manifest's own language.
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

/// Everything that is wrong with a manifest, a line for each problem. Header values are never in it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Problems {
    shown: Vec<String>,
    suppressed: usize,
    end: Option<String>,
}

impl Problems {
    /// Notes that `message` holds at `location`.
    pub(super) fn add(&mut self, location: &Location<'_>, message: impl fmt::Display) {
        if self.shown.len() < SHOWN {
            self.shown.push(format!("{location}: {message}"));
        } else {
            self.suppressed += 1;
        }
    }

    /// Notes the problem that ended the reading; nothing after it was checked.
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

/// `text` in double quotes and safe to print, cut short where it is long.
pub(super) fn quoted(text: &str) -> String {
    match text.char_indices().nth(QUOTED) {
        Some((end, _)) => format!("\"{}…\"", escape(text.get(..end).unwrap_or_default())),
        None => format!("\"{}\"", escape(text)),
    }
}
