//! Request headers: which names may be set, and to which values, which no message from this file shows, and their removal
//! from text that a server sent.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;

use serde_json::Value;

use super::Options;
use super::json::Json;
use super::reader::Node;
use crate::escape::find_quoted;

/// The largest number of headers in one object, and of bytes in their names and values together. Servers
/// allow no more (nginx and uvicorn: 32 and 64 KiB, Apache httpd: 100 headers), so more is a mistake.
const MOST: usize = 128;
const MOST_BYTES: usize = 64 * 1024;

/// Headers that frame the message or manage the connection.
const FRAMING: &str = "connection content-length expect keep-alive proxy-connection te trailer transfer-encoding upgrade";

const HIDDEN: &str = "***";

/// Characters of the shortest secret that is searched for; shorter ones occur in any text.
const SHORTEST: usize = 4;

/// Parts of the names of headers whose values are credentials.
const CREDENTIALS: [&str; 6] = ["auth", "cookie", "token", "key", "secret", "session"];

/// A request header, whose value must never appear in any output; it prints as `***`, also with `Debug`.
#[derive(Clone, PartialEq, Eq)]
pub struct Header {
    /// The name as written: a token of RFC 9110, section 5.6.2.
    pub name: String,
    /// With environment variables expanded.
    value: String,
    /// What is hidden where a server sends it back.
    hidden: Vec<String>,
}

impl Header {
    /// The header `name` with the value `text`, in which `variables` have been replaced. Servers send values like that
    /// of `Host` back for good reasons; hidden there are the variables, and a credential as a whole and without its
    /// scheme (RFC 9110, section 11.4).
    fn new(name: &str, text: &str, variables: Vec<(String, String)>) -> Self {
        let values = variables.into_iter().map(|(_, value)| value);
        let mut hidden: Vec<String> = values.collect();
        let lower = name.to_ascii_lowercase();
        if CREDENTIALS.iter().any(|part| lower.contains(part)) {
            hidden.push(text.to_owned());
            hidden.extend(text.split_once(' ').map(|(_, rest)| rest.to_owned()));
        }
        if lower == "cookie" {
            let values = text.split(';').filter_map(|pair| pair.split_once('='));
            hidden.extend(values.map(|(_, value)| value.to_owned()));
        }
        Self {
            name: name.to_owned(),
            value: text.to_owned(),
            hidden,
        }
    }

    /// The value itself, for the one place that sends it.
    pub fn reveal(&self) -> &str {
        &self.value
    }

    /// The length of name and value together.
    pub fn bytes(&self) -> usize {
        self.name.len() + self.value.len()
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

impl fmt::Debug for Header {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {HIDDEN}", self.name)
    }
}

impl Options {
    /// `text`, which may contain what a server sent, with `***` in place of each secret in a header. Values of
    /// fewer than 4 characters are not searched for. Call it before the text is shortened: a piece of a secret
    /// would not be found.
    pub fn redact<'t>(&self, text: &'t str) -> Cow<'t, str> {
        let headers = self.headers.iter();
        let mut found = Vec::new();
        for spelling in headers.flat_map(|header| header.spellings()) {
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

/// Reads the object name → value.
pub(super) fn headers(object: &Node<'_>) -> Result<Vec<Header>, String> {
    let kind = object.json.kind();
    let Json::Object(entries) = object.json else {
        return Err(format!("is {kind}; give an object, name → value"));
    };
    // RFC 9110, section 5.6.2.
    let in_token = |b: &u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(b);
    let mut names = HashSet::new();
    let mut headers = Vec::new();
    for (name, value) in entries {
        // If the author wrote "Name: value" as the name, the value must not appear in a log.
        let token = name.bytes().take_while(in_token).count();
        let node = object.entry(name.get(..token).unwrap_or_default(), value);
        let read = if token == 0 || token < name.len() {
            Err(
                "the name is not a valid HTTP header name; use letters, digits and \"-\""
                    .to_owned(),
            )
        } else if !names.insert(name.to_ascii_lowercase()) {
            Err("duplicate header (names are not case-sensitive); keep one of the two".to_owned())
        } else {
            header(name, &node)
        };
        headers.extend(node.check(read));
    }
    let bytes: usize = headers.iter().map(Header::bytes).sum();
    let number = names.len();
    if number > MOST || bytes > MOST_BYTES {
        return Err(format!(
            "{number} headers with {bytes} bytes are too many; give at most {MOST} with {MOST_BYTES}"
        ));
    }
    Ok(headers)
}

/// The header, if it may be set to this value.
fn header(name: &str, value: &Node<'_>) -> Result<Header, String> {
    let is = |known: &str| name.eq_ignore_ascii_case(known);
    if is("user-agent") {
        return Err("is set by the key \"user_agent\" at the top level; use that key".to_owned());
    }
    if FRAMING.split(' ').any(is) {
        let message =
            "frames the message or manages the connection, so this program sets it; remove it";
        return Err(message.to_owned());
    }
    let Json::Text(written) = value.json else {
        return Err(format!("is {}; give a string", value.json.kind()));
    };
    sendable(written, "the value")?;
    let (text, variables) = value.context.variables.expand(written)?;
    for (variable, value) in &variables {
        sendable(value, &format!("the variable {variable}"))?;
    }
    // Blanks around a value are not part of it (RFC 9110, section 5.5).
    let text = text.trim_matches([' ', '\t']);
    Ok(Header::new(name, text, variables))
}

/// Whether a field value may contain `text` (RFC 9110, section 5.5): anything but control characters.
fn sendable(text: &str, what: &str) -> Result<(), String> {
    // Shows only the control character of the value, usually a newline.
    let control = find_quoted(text, |c| c.is_control() && c != '\t');
    control.map_or(Ok(()), |c| {
        Err(format!(
            "{what} contains the control character {c}; remove it"
        ))
    })
}
