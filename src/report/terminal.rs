//! What standard output and standard error are connected to, which determines how text is written there:
//! prefixes for the journal, color and columns for a terminal, plain lines otherwise.

use std::io::{self, IsTerminal};
use std::os::fd::AsFd;

use anstream::{AutoStream, ColorChoice};
use terminal_size::Width;

use crate::cli::Color;
use crate::stderr::is_journal;

/// What a stream is connected to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stream {
    /// The journal, which takes a line's level from a prefix (sd-daemon(3)).
    Journal,
    /// A terminal.
    Terminal {
        /// The width in columns.
        columns: usize,
    },
    /// A file, a pipe, or anything else.
    Plain,
}

/// How lines of text are to be shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Appearance {
    /// What the lines are written to.
    pub(super) stream: Stream,
    /// Whether they are colored.
    pub(super) color: bool,
    /// Whether characters beyond ASCII may be used.
    pub(super) unicode: bool,
    /// Whether GitHub Actions reads the lines and turns workflow commands into annotations.
    pub(super) github: bool,
}

impl Stream {
    /// What a standard stream is connected to.
    pub(super) fn of(stream: &(impl AsFd + IsTerminal)) -> Self {
        if is_journal(stream) {
            return Self::Journal;
        }
        if !stream.is_terminal() {
            return Self::Plain;
        }
        let columns = match terminal_size::terminal_size_of(stream) {
            Some((Width(columns @ 1..), _)) => columns.into(),
            // It does not report its width.
            _ => 80,
        };
        Self::Terminal { columns }
    }

    /// The width of lines; `usize::MAX` if they may be of any length.
    pub(super) const fn columns(self) -> usize {
        match self {
            Self::Terminal { columns } => columns,
            Self::Journal | Self::Plain => usize::MAX,
        }
    }

    /// Whether this is a terminal that can erase text.
    pub(super) fn erases(self) -> bool {
        matches!(self, Self::Terminal { .. }) && variable("TERM").is_none_or(|term| term != "dumb")
    }
}

impl Appearance {
    /// How lines on standard output are to be shown.
    pub(super) fn of_stdout(choice: Color) -> Self {
        let stream = Stream::of(&io::stdout());
        let locale = ["LC_ALL", "LC_CTYPE", "LANG"].map(variable);
        Self {
            stream,
            color: colored(choice, stream),
            unicode: is_utf8(locale.each_ref().map(Option::as_deref)),
            github: variable("GITHUB_ACTIONS").is_some_and(|value| value == "true"),
        }
    }
}

/// Whether text on standard output, which is `stream`, is colored, by the same rules as the help.
fn colored(choice: Color, stream: Stream) -> bool {
    match (choice, stream) {
        // Other readers of the journal would see the escape sequences.
        (_, Stream::Journal) | (Color::Never, _) => false,
        (Color::Always, _) => true,
        // anstream would treat 0 as a request for color.
        (Color::Auto, Stream::Plain) if variable("CLICOLOR_FORCE").as_deref() == Some("0") => false,
        (Color::Auto, _) => AutoStream::choice(&io::stdout()) != ColorChoice::Never,
    }
}

/// Whether the first of these locale names that is set means UTF-8 (locale(7)).
fn is_utf8(names: [Option<&str>; 3]) -> bool {
    let name = names.into_iter().flatten().find(|name| !name.is_empty());
    name.is_some_and(|name| name.to_ascii_lowercase().contains("utf"))
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colored_follows_the_choice_but_never_in_the_journal() {
        for (choice, stream, expected) in [
            (Color::Always, Stream::Terminal { columns: 80 }, true),
            (Color::Always, Stream::Plain, true),
            (Color::Always, Stream::Journal, false),
            (Color::Never, Stream::Terminal { columns: 80 }, false),
            (Color::Never, Stream::Plain, false),
            (Color::Auto, Stream::Journal, false),
        ] {
            assert_eq!(colored(choice, stream), expected, "{choice:?} {stream:?}");
        }
    }

    #[test]
    fn is_utf8_asks_the_first_name_that_is_set() {
        assert!(is_utf8([None, None, Some("en_GB.UTF-8")]));
        assert!(is_utf8([Some(""), Some("C.utf8"), Some("C")]));
        assert!(!is_utf8([Some("C"), None, Some("C.UTF-8")]));
        assert!(!is_utf8([None, None, None]));
    }
}
