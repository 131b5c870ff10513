//! Makes foreign text and the system's error messages safe for one-line messages.

use std::borrow::Cow;
use std::io;

use nix::errno::Errno;

/// `text` with every character escaped that would move the cursor, break the line, be invisible, or
/// change the order in which the rest is read.
///
/// Tab, newline and carriage return become `\t`, `\n` and `\r`, the others `\u{…}`. A backslash
/// is not escaped: the result is for reading, not for parsing.
pub fn escape(text: &str) -> Cow<'_, str> {
    if !text.contains(deceives) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 16);
    for character in text.chars() {
        if deceives(character) {
            shown.extend(character.escape_default());
        } else {
            shown.push(character);
        }
    }
    Cow::Owned(shown)
}

/// Whether a terminal would act on `character` instead of showing it: the controls (C0, DEL, C1), and from Unicode's
/// default-ignorable and bidirectional formatting characters (UAX #9, UTS #39) those that can hide or reorder text.
pub(crate) const fn deceives(character: char) -> bool {
    matches!(character,
        '\0'..='\u{1f}' | '\u{7f}'..='\u{9f}'
        | '\u{ad}'                      // soft hyphen
        | '\u{61c}'                     // Arabic letter mark
        | '\u{180e}'                    // Mongolian vowel separator
        | '\u{200b}'..='\u{200f}'       // zero width, left-to-right and right-to-left marks
        | '\u{2028}'..='\u{202e}'       // line and paragraph separators, embeddings, overrides
        | '\u{2060}'..='\u{206f}'       // invisible operators, isolates, deprecated format
        | '\u{feff}'                    // zero width no-break space
        | '\u{fff9}'..='\u{fffb}'       // interlinear annotations
        | '\u{e0000}'..='\u{e007f}'     // tags
    )
}

/// `text`, shortened so that a person can read it.
pub(crate) fn shortened(text: &str) -> Cow<'_, str> {
    const LONGEST: usize = 80;
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => Cow::Owned(format!("{}…", text.get(..end).unwrap_or_default())),
        None => Cow::Borrowed(text),
    }
}

/// `text` in double quotes, safe to print, and shortened if it is long.
pub(crate) fn quoted(text: &str) -> String {
    format!("\"{}\"", escape(&shortened(text)))
}

/// The first character of `text` that is `wrong`, in double quotes.
pub(crate) fn find_quoted(text: &str, wrong: impl Fn(char) -> bool) -> Option<String> {
    let found = text.chars().find(|c| wrong(*c))?;
    Some(quoted(found.encode_utf8(&mut [0; 4])))
}

/// The error's message, in lower case and without its number.
pub(crate) fn reason(error: &io::Error) -> String {
    let text = match error.raw_os_error() {
        Some(number) => Errno::from_raw(number).desc().to_owned(),
        None => error.to_string(),
    };
    let mut characters = text.chars();
    let first = characters.next().map(char::to_lowercase);
    first.into_iter().flatten().chain(characters).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escape_shows_what_a_terminal_would_act_upon() {
        for (text, shown) in [
            ("", ""),
            ("plain, \"quoted\" \\ text", "plain, \"quoted\" \\ text"),
            ("Žluťoučký 🦀 日本", "Žluťoučký 🦀 日本"),
            ("a\tb\r\nc", "a\\tb\\r\\nc"),
            ("\u{1b}[31mred\0", "\\u{1b}[31mred\\u{0}"),
            ("\u{7f}\u{9b}2J", "\\u{7f}\\u{9b}2J"),
            ("abc\u{202e}fdp.exe", "abc\\u{202e}fdp.exe"),
            (
                "\u{2066}x\u{2069}\u{61c}\u{200e}",
                "\\u{2066}x\\u{2069}\\u{61c}\\u{200e}",
            ),
            ("one\u{2028}two\u{2029}", "one\\u{2028}two\\u{2029}"),
            (
                "a\u{200b}b\u{feff}c\u{2060}d",
                "a\\u{200b}b\\u{feff}c\\u{2060}d",
            ),
            ("\u{e0041}", "\\u{e0041}"),
        ] {
            assert_eq!(escape(text), shown);
        }
    }

    #[test]
    fn escape_does_not_copy_harmless_text() {
        assert!(matches!(escape("nothing to do"), Cow::Borrowed(_)));
        assert!(matches!(escape("one\u{7}bell"), Cow::Owned(_)));
    }

    #[test]
    fn reason_is_lower_case_and_has_no_number() {
        let denied = io::Error::from(Errno::EACCES);
        assert_eq!(reason(&denied), "permission denied");
        assert_eq!(reason(&io::Error::other("Ünlucky")), "ünlucky");
        assert_eq!(reason(&io::Error::other("")), "");
    }

    #[test]
    fn escaping_twice_changes_nothing_more() {
        for text in ["a\tb", "\u{202e}", "\\n"] {
            let once = escape(text).into_owned();
            assert_eq!(escape(&once), once.as_str());
        }
    }
}
