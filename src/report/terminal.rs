//! What standard output and standard error are connected to, which determines how text is written there:
//! prefixes for the journal, color and columns for a terminal, plain lines otherwise.

use std::env;
use std::io::{self, IsTerminal};

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
    /// What standard output is connected to.
    fn of_stdout() -> Self {
        let stdout = io::stdout();
        if is_journal(&stdout) {
            Self::Journal
        } else if stdout.is_terminal() {
            let size = terminal_size::terminal_size_of(&stdout);
            let columns = size.map_or(80, |(Width(columns), _)| columns.into());
            Self::Terminal { columns }
        } else {
            Self::Plain
        }
    }

    /// The width of lines; `usize::MAX` if they may be of any length.
    pub(super) const fn columns(self) -> usize {
        match self {
            Self::Terminal { columns } => columns,
            Self::Journal | Self::Plain => usize::MAX,
        }
    }
}

impl Appearance {
    /// How lines on standard output are to be shown.
    pub(super) fn of_stdout(choice: Color) -> Self {
        let stream = Stream::of_stdout();
        let locale = ["LC_ALL", "LC_CTYPE", "LANG"];
        Self {
            stream,
            color: colored(choice, stream),
            unicode: is_utf8(locale.map(|name| env::var(name).unwrap_or_default())),
            github: env::var("GITHUB_ACTIONS").as_deref() == Ok("true"),
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
        (Color::Auto, Stream::Plain) if env::var("CLICOLOR_FORCE").as_deref() == Ok("0") => false,
        (Color::Auto, _) => AutoStream::choice(&io::stdout()) != ColorChoice::Never,
    }
}

/// Whether the first of these locale names that is set means UTF-8 (locale(7)).
fn is_utf8(names: [String; 3]) -> bool {
    let name = names.into_iter().find(|name| !name.is_empty());
    name.is_some_and(|name| name.to_ascii_lowercase().contains("utf"))
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
        let is_utf8 = |names: [&str; 3]| is_utf8(names.map(str::to_owned));
        assert!(is_utf8(["", "", "en_GB.UTF-8"]));
        assert!(is_utf8(["", "C.utf8", "C"]));
        assert!(!is_utf8(["C", "", "C.UTF-8"]));
        assert!(!is_utf8(["", "", ""]));
    }
}
