//! Request headers: which names may be set, and to which values. No message from this file shows a
//! value or a part of one.

use std::collections::HashSet;

use super::json::Json;
use super::problems::{Context, Field, Location, quoted};
use super::secret::Secret;
use super::variables::Expanded;
use super::{Header, Variables};

/// The largest number of headers in one object, and of bytes in their names and values together. Servers
/// allow no more (nginx and uvicorn: 32 and 64 KiB, Apache httpd: 100 headers), so more is a mistake.
const MOST: usize = 128;
const MOST_BYTES: usize = 64 * 1024;

/// Why the header `name` cannot be set, if it cannot.
fn reserved(name: &str) -> Option<&'static str> {
    const FRAMING: [&str; 9] = [
        "connection",
        "content-length",
        "expect",
        "keep-alive",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    ];
    if name.eq_ignore_ascii_case("user-agent") {
        Some("is set by the key \"user_agent\" at the top level; use that key")
    } else if FRAMING.iter().any(|f| name.eq_ignore_ascii_case(f)) {
        Some("frames the message or manages the connection, so this program sets it; remove it")
    } else {
        None
    }
}

/// Whether `b` may occur in a token (RFC 9110, section 5.6.2).
fn is_token(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b)
}

/// Reads the object name → value.
pub(super) fn headers(
    value: &Json<'_>,
    location: &Location<'_>,
    context: &mut Context<'_>,
) -> Field<Vec<Header>> {
    let Context {
        problems,
        variables,
    } = context;
    let Json::Object(entries) = value else {
        let message = format!("is {}; give an object, name → value", value.kind());
        return Err(problems.add(location, message));
    };
    let mut names = HashSet::new();
    let mut headers = Vec::new();
    let mut bytes = 0;
    let there = entries
        .iter()
        .filter(|(_, value)| !matches!(value, Json::Cut));
    for (name, value) in there {
        // If the author wrote "Name: value" as the name, the value must not appear in a log.
        let token = name.bytes().take_while(|b| is_token(*b)).count();
        let shown = name.get(..token).unwrap_or_default();
        let read = if token == 0 || token < name.len() {
            Err(
                "the name is not a valid HTTP header name; use letters, digits and \"-\""
                    .to_owned(),
            )
        } else if !names.insert(name.to_ascii_lowercase()) {
            Err("duplicate header (names are not case-sensitive); keep one of the two".to_owned())
        } else {
            header_value(name, value, *variables)
        };
        match read {
            Ok(value) => {
                bytes += name.len() + value.reveal().len();
                if headers.len() < MOST && bytes <= MOST_BYTES {
                    let name = name.to_string();
                    headers.push(Header { name, value });
                }
            }
            Err(message) => {
                problems.add(&Location::Entry(location, shown), message);
            }
        }
    }
    if names.len() > MOST || bytes > MOST_BYTES {
        let message = format!(
            "{} headers with {bytes} bytes are too many; give at most {MOST} with {MOST_BYTES}",
            names.len()
        );
        problems.add(location, message);
    }
    Ok(headers)
}

/// The value to send, if the header may be set to it.
fn header_value(name: &str, value: &Json<'_>, variables: Variables<'_>) -> Result<Secret, String> {
    if let Some(reason) = reserved(name) {
        return Err(reason.to_owned());
    }
    let Json::Text(written) = value else {
        return Err(format!("is {}; give a string", value.kind()));
    };
    sendable(written, "the value")?;
    let Expanded { text, values } = variables.expand(written)?;
    for (variable, value) in &values {
        sendable(value, &format!("the environment variable {variable}"))?;
    }
    // Blanks around a value are not part of it (RFC 9110, section 5.5).
    let text = text.trim_matches([' ', '\t']);
    Ok(Secret::with_parts(
        text,
        values.into_iter().map(|(_, value)| value),
    ))
}

/// Whether a field value may contain `text` (RFC 9110, section 5.5): anything but control characters.
fn sendable(text: &str, what: &str) -> Result<(), String> {
    match text.chars().find(|c| c.is_control() && *c != '\t') {
        None => Ok(()),
        // Shows only the control character of the value, usually a newline.
        Some(c) => Err(format!(
            "{what} contains the control character {}; remove it",
            quoted(c.encode_utf8(&mut [0; 4]))
        )),
    }
}
