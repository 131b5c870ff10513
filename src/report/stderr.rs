//! Messages on standard error, for everybody: with the journal's levels where it listens, and
//! without a panic where nobody does.

use std::io::{self, Write};
use std::sync::OnceLock;

use super::stream::Stream;

/// How grave a line is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// Something failed.
    Failure,
    /// Something is not as it should be, but fails nothing.
    Soft,
    /// For information.
    Info,
}

impl Level {
    /// The prefix that tells the journal the level (sd-daemon(3)).
    pub(super) const fn prefix(self) -> &'static str {
        match self {
            Self::Failure => "<3>",
            Self::Soft => "<4>",
            Self::Info => "<6>",
        }
    }
}

/// Whether standard error is connected to the journal.
pub fn stderr_is_journal() -> bool {
    static JOURNAL: OnceLock<bool> = OnceLock::new();
    *JOURNAL.get_or_init(|| Stream::stderr() == Stream::Journal)
}

/// Writes `text` to standard error, one or more lines, in one piece so that no other process
/// writes into the middle. A standard error that cannot be written is nobody's concern.
pub fn say(level: Level, text: &str) {
    let lines = lines(level, text, stderr_is_journal());
    let _ = io::stderr().write_all(lines.as_bytes());
}

fn lines(level: Level, text: &str, journal: bool) -> String {
    let prefix = if journal { level.prefix() } else { "" };
    // An empty line has no message to have a level.
    let shown = text.lines().filter(|line| !(journal && line.is_empty()));
    shown.map(|line| format!("{prefix}{line}\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_has_its_level_in_the_journal_alone() {
        assert_eq!(
            lines(Level::Failure, "one\n\ntwo", true),
            "<3>one\n<3>two\n"
        );
        assert_eq!(lines(Level::Soft, "one", true), "<4>one\n");
        assert_eq!(lines(Level::Info, "one\n", false), "one\n");
    }
}
