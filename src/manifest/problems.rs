//! The problems of a manifest, and their places.

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

impl Context<'_> {
    /// Notes a problem at `place`, such as `routes[3].retries`.
    pub(super) fn note(&mut self, place: &str, message: impl fmt::Display) {
        let message = message.to_string();
        let route = self.route.map(quoted);
        let route = route.filter(|path| !message.contains(path.as_str()));
        let route = route.map_or_else(String::new, |path| format!(" (route {path})"));
        let place = if place.is_empty() { "manifest" } else { place };
        self.problems.push(format!("{place}: {message}{route}"));
    }

    /// The value, or none after its message was noted.
    pub(super) fn check<T>(&mut self, place: &str, value: Result<T, String>) -> Option<T> {
        value.map_err(|message| self.note(place, message)).ok()
    }
}

/// The place of a key that the author was free to choose.
pub(super) fn entry(parent: &str, key: &str) -> String {
    format!("{parent}[{}]", quoted(key))
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
