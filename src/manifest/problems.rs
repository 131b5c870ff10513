//! The places of a manifest, and the list of its problems.

use std::collections::BTreeSet;
use std::fmt;

use super::{Source, Variables};
use crate::escape::escape;

/// How many problems are shown; a generated manifest can repeat the same one 10,000 times.
const SHOWN: usize = 100;

/// How many characters of a quoted text are shown.
pub(super) const QUOTED: usize = 80;

/// What is needed everywhere while a manifest is read. A problem is noted here, and the reading goes on with
/// the inherited value or the default; a manifest with any problem is refused.
pub(super) struct Context<'v> {
    pub(super) variables: Variables<'v>,
    /// The path of the route that is being read.
    pub(super) route: Option<&'v str>,
    pub(super) problems: Problems,
    /// The keys that have a problem somewhere: what follows from their values is unknown.
    pub(super) invalid: BTreeSet<&'static str>,
}

impl<'v> Context<'v> {
    pub(super) fn new(source: &Source, variables: Variables<'v>) -> Self {
        Self {
            variables,
            route: None,
            problems: Problems::new(source),
            invalid: BTreeSet::new(),
        }
    }

    /// Notes a problem at `location`.
    pub(super) fn note(&mut self, location: &Location<'_>, message: impl fmt::Display) {
        self.invalid.extend(location.key());
        let message = message.to_string();
        let route = self.route.map(quoted);
        let route = route.filter(|path| !message.contains(path.as_str()));
        let route = route.map_or_else(String::new, |path| format!(" (route {path})"));
        self.problems.push(format!("{location}: {message}{route}"));
    }

    /// The value, or none after its message was noted.
    pub(super) fn check<T>(
        &mut self,
        location: &Location<'_>,
        value: Result<T, String>,
    ) -> Option<T> {
        value.map_err(|message| self.note(location, message)).ok()
    }
}

/// A location in a manifest, as a chain of borrowed links: nothing is formatted unless there is a problem.
#[derive(Clone, Copy)]
pub(super) enum Location<'a> {
    /// The manifest as a whole.
    Top,
    /// A key that the manifest format defines.
    Key(&'a Location<'a>, &'static str),
    /// A key that the manifest format does not define.
    Unknown(&'a Location<'a>, &'a str),
    /// A key that the author was free to choose.
    Entry(&'a Location<'a>, &'a str),
    /// An item of a list, counted from 0.
    Item(&'a Location<'a>, usize),
}

impl Location<'_> {
    /// The innermost key that the manifest format defines.
    fn key(&self) -> Option<&'static str> {
        match self {
            Self::Top | Self::Unknown(..) => None,
            Self::Key(_, key) => Some(key),
            Self::Entry(parent, _) | Self::Item(parent, _) => parent.key(),
        }
    }
}

impl fmt::Display for Location<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Top => f.write_str("manifest"),
            Self::Key(Self::Top, key) => f.write_str(key),
            Self::Key(parent, key) => write!(f, "{parent}.{key}"),
            Self::Unknown(Self::Top, key) if is_plain(key) => f.write_str(key),
            Self::Unknown(parent, key) if is_plain(key) => write!(f, "{parent}.{key}"),
            Self::Unknown(parent, key) | Self::Entry(parent, key) => {
                write!(f, "{parent}[{}]", quoted(key))
            }
            Self::Item(parent, index) => write!(f, "{parent}[{index}]"),
        }
    }
}

/// Whether a key can be shown without quotes, which also shorten it.
fn is_plain(key: &str) -> bool {
    (1..=QUOTED).contains(&key.len()) && key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

/// All problems of a manifest, one line for each with the file's name. They never contain header values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problems {
    source: String,
    shown: Vec<String>,
    more: usize,
}

impl Problems {
    pub(super) fn new(source: &Source) -> Self {
        Self {
            source: source.to_string(),
            shown: Vec::new(),
            more: 0,
        }
    }

    /// Adds a problem with its place.
    pub(super) fn push(&mut self, line: String) {
        if self.shown.len() < SHOWN {
            self.shown.push(line);
        } else {
            self.more += 1;
        }
    }

    /// How many problems there are.
    pub(super) fn count(&self) -> usize {
        self.shown.len() + self.more
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let more = (self.more > 0).then(|| format!("and {} more problems", self.more));
        for (index, line) in self.shown.iter().chain(&more).enumerate() {
            let separator = if index == 0 { "" } else { "\n" };
            write!(f, "{separator}{}: {line}", self.source)?;
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
