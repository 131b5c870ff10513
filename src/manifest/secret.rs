//! Values of headers, which must never appear in any output, and their removal from text that a server sent.

use std::borrow::Cow;
use std::fmt;

use serde_json::Value;

use super::Options;

const HIDDEN: &str = "***";

/// Characters of the shortest secret that is searched for; shorter ones occur in any text.
const SHORTEST: usize = 4;

/// Parts of the names of headers whose values are credentials.
const CREDENTIALS: [&str; 6] = ["auth", "cookie", "token", "key", "secret", "session"];

/// The value of a header, which must never appear in any output; it prints as `***`, also with `Debug`.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret {
    text: String,
    /// What is hidden where a server sends it back.
    hidden: Vec<String>,
}

impl Secret {
    /// The value `text` of the header `name`, in which `variables` have been replaced. Servers send values
    /// like that of `Host` back for good reasons; hidden there are the variables, and a credential as a whole
    /// and without its scheme (RFC 9110, section 11.4).
    pub(super) fn of_header(name: &str, text: &str, variables: Vec<(String, String)>) -> Self {
        let values = variables.into_iter().map(|(_, value)| value);
        let mut hidden: Vec<String> = values.collect();
        let name = name.to_ascii_lowercase();
        if CREDENTIALS.iter().any(|part| name.contains(part)) {
            hidden.push(text.to_owned());
            hidden.extend(text.split_once(' ').map(|(_, rest)| rest.to_owned()));
        }
        if name == "cookie" {
            let values = text.split(';').filter_map(|pair| pair.split_once('='));
            hidden.extend(values.map(|(_, value)| value.to_owned()));
        }
        Self {
            text: text.to_owned(),
            hidden,
        }
    }

    /// The text itself, for the one place that sends it.
    pub fn reveal(&self) -> &str {
        &self.text
    }

    /// Everything to search for: what is hidden, also as a server may decode its bytes, and each of those as
    /// JSON and Rust quote it.
    fn spellings(&self) -> impl Iterator<Item = String> {
        let hidden = self.hidden.iter();
        let texts = hidden.map(|text| text.trim_matches([' ', '\t']));
        let texts = texts.filter(|text| text.chars().count() >= SHORTEST);
        // Many servers decode field values as ISO 8859-1 (RFC 9110, section 5.5).
        let texts =
            texts.flat_map(|text| [text.to_owned(), text.bytes().map(char::from).collect()]);
        texts.flat_map(|text| {
            let quoted = [Value::from(text.as_str()).to_string(), format!("{text:?}")];
            let inner = quoted.map(|quoted| quoted.get(1..quoted.len() - 1).map(str::to_owned));
            inner.into_iter().flatten().chain([text])
        })
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(HIDDEN)
    }
}

impl Options {
    /// `text`, which may contain what a server sent, with `***` in place of each secret in a header. Values of
    /// fewer than 4 characters are not searched for. Call it before the text is shortened: a piece of a secret
    /// would not be found.
    pub fn redact<'t>(&self, text: &'t str) -> Cow<'t, str> {
        let headers = self.headers.iter();
        let mut found = Vec::new();
        for spelling in headers.flat_map(|header| header.value.spellings()) {
            // Overlapping occurrences are found as well. No spelling is empty: each has SHORTEST characters or more.
            let windows = text.as_bytes().windows(spelling.len()).enumerate();
            let equal = windows.filter(|(_, window)| *window == spelling.as_bytes());
            found.extend(equal.map(|(start, _)| start..start + spelling.len()));
        }
        if found.is_empty() {
            return text.into();
        }
        found.sort_unstable_by_key(|range| range.start);
        let mut shown = String::with_capacity(text.len());
        let mut end = 0;
        for range in found {
            if range.start >= end {
                shown.push_str(text.get(end..range.start).unwrap_or_default());
                shown.push_str(HIDDEN);
            }
            end = end.max(range.end);
        }
        shown.push_str(text.get(end..).unwrap_or_default());
        shown.into()
    }
}
