//! How text is written to standard output: with prefixes to the journal, with color and in columns to a
//! terminal, as plain lines otherwise.

use std::env;
use std::io::{self, IsTerminal};

use anstream::{AutoStream, ColorChoice};
use terminal_size::Width;

use crate::cli::Color;
use crate::stderr::is_journal;

/// How lines of text are to be shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Appearance {
    /// Whether the journal reads them, which takes a line's level from a prefix (sd-daemon(3)).
    pub(super) journal: bool,
    /// The terminal's width; `usize::MAX` if lines may be of any length.
    pub(super) columns: usize,
    /// Whether they are colored.
    pub(super) color: bool,
    /// Whether GitHub Actions reads the lines and turns workflow commands into annotations.
    pub(super) github: bool,
}

impl Appearance {
    pub(super) fn of_stdout(choice: Color) -> Self {
        let stdout = io::stdout();
        let (journal, is_terminal) = (is_journal(&stdout), stdout.is_terminal());
        let columns = match terminal_size::terminal_size_of(&stdout) {
            _ if !is_terminal => usize::MAX,
            Some((Width(columns), _)) => columns.into(),
            None => 80,
        };
        Self {
            journal,
            columns,
            color: colored(choice, journal, is_terminal),
            github: !journal && env::var("GITHUB_ACTIONS").as_deref() == Ok("true"),
        }
    }
}

/// Whether text on standard output is colored, by the same rules as the help.
fn colored(choice: Color, journal: bool, is_terminal: bool) -> bool {
    match choice {
        // Other readers of the journal would see the escape sequences.
        _ if journal => false,
        Color::Always => true,
        Color::Never => false,
        // anstream would treat 0 as a request for color.
        Color::Auto if !is_terminal && env::var("CLICOLOR_FORCE").as_deref() == Ok("0") => false,
        Color::Auto => AutoStream::choice(&io::stdout()) != ColorChoice::Never,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colored_follows_the_choice_but_never_in_the_journal() {
        for is_terminal in [true, false] {
            assert!(colored(Color::Always, false, is_terminal));
            assert!(!colored(Color::Never, false, is_terminal));
            assert!(!colored(Color::Always, true, is_terminal));
            assert!(!colored(Color::Auto, true, is_terminal));
        }
    }
}
