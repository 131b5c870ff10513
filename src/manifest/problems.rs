//! The problems of a manifest, and how a message quotes foreign text.

use std::error::Error;
use std::fmt;

use crate::escape::escape;

/// How many problems are shown; a generated manifest can repeat the same one 10,000 times.
const SHOWN: usize = 100;

/// How many characters of a quoted text are shown.
pub(super) const QUOTED: usize = 80;

/// All problems of a manifest, one line for each with the file's name. They never contain header values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problems {
    pub(super) source: String,
    /// Each with its place.
    pub(super) lines: Vec<String>,
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let more = self.lines.len().saturating_sub(SHOWN);
        let more = (more > 0).then(|| format!("and {more} more problems"));
        let shown = self.lines.iter().take(SHOWN).chain(&more);
        let lines: Vec<String> = shown
            .map(|line| format!("{}: {line}", self.source))
            .collect();
        f.write_str(&lines.join("\n"))
    }
}

impl Error for Problems {}

/// `text` in double quotes, safe to print, and shortened if it is long.
pub(super) fn quoted(text: &str) -> String {
    match text.char_indices().nth(QUOTED) {
        Some((end, _)) => format!("\"{}…\"", escape(text.get(..end).unwrap_or_default())),
        None => format!("\"{}\"", escape(text)),
    }
}

/// The first character of `text` that is `wrong`, in double quotes.
pub(super) fn find_quoted(text: &str, wrong: impl Fn(char) -> bool) -> Option<String> {
    let found = text.chars().find(|c| wrong(*c))?;
    Some(quoted(found.encode_utf8(&mut [0; 4])))
}
