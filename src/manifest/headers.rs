//! Request headers: which names may be set, and to which values. No message from this file shows any part of a value.

use std::collections::HashSet;

use super::Header;
use super::json::Json;
use super::reader::Node;
use super::secret::Secret;
use crate::escape::find_quoted;

/// The largest number of headers in one object, and of bytes in their names and values together. Servers
/// allow no more (nginx and uvicorn: 32 and 64 KiB, Apache httpd: 100 headers), so more is a mistake.
const MOST: usize = 128;
const MOST_BYTES: usize = 64 * 1024;

/// Headers that frame the message or manage the connection.
const FRAMING: &str = "connection content-length expect keep-alive proxy-connection te trailer transfer-encoding upgrade";

/// Whether `b` may occur in a token (RFC 9110, section 5.6.2).
fn is_token(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b)
}

/// Reads the object name → value.
pub(super) fn headers(object: &Node<'_>) -> Result<Vec<Header>, String> {
    let Json::Object(entries) = object.json else {
        return Err(format!(
            "is {}; give an object, name → value",
            object.json.kind()
        ));
    };
    let mut names = HashSet::new();
    let mut headers = Vec::new();
    for (name, value) in entries {
        // If the author wrote "Name: value" as the name, the value must not appear in a log.
        let token = name.bytes().take_while(|b| is_token(*b)).count();
        let node = object.entry(name.get(..token).unwrap_or_default(), value);
        let read = if token == 0 || token < name.len() {
            Err(
                "the name is not a valid HTTP header name; use letters, digits and \"-\""
                    .to_owned(),
            )
        } else if !names.insert(name.to_ascii_lowercase()) {
            Err("duplicate header (names are not case-sensitive); keep one of the two".to_owned())
        } else {
            header_value(name, &node)
        };
        let name = name.clone();
        headers.extend(node.check(read).map(|value| Header { name, value }));
    }
    let bytes = |header: &Header| header.name.len() + header.value.reveal().len();
    let bytes: usize = headers.iter().map(bytes).sum();
    if names.len() > MOST || bytes > MOST_BYTES {
        return Err(format!(
            "{} headers with {bytes} bytes are too many; give at most {MOST} with {MOST_BYTES}",
            names.len()
        ));
    }
    Ok(headers)
}

/// The value to send, if the header may be set to it.
fn header_value(name: &str, value: &Node<'_>) -> Result<Secret, String> {
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
    Ok(Secret::of_header(name, text, variables))
}

/// Whether a field value may contain `text` (RFC 9110, section 5.5): anything but control characters.
fn sendable(text: &str, what: &str) -> Result<(), String> {
    // Shows only the control character of the value, usually a newline.
    match find_quoted(text, |c| c.is_control() && c != '\t') {
        None => Ok(()),
        Some(c) => Err(format!(
            "{what} contains the control character {c}; remove it"
        )),
    }
}
