//! Request headers: which names may be set, and how values take secrets from the environment. No
//! sentence of this file holds a value, or a part of one.

use std::collections::HashSet;

use serde::de::MapAccess;

use super::json::{AnyScalar, Context, Read, Scalar, Shape};
use super::place::{Place, QUOTED, quoted};
use super::{Header, Secret, Variables};

/// Headers in one table, and bytes of their names and values together. Servers allow no more
/// (nginx and uvicorn: 32 and 64 KiB, Apache httpd: 100 headers), so more is a mistake.
const MOST: usize = 128;
const MOST_BYTES: usize = 64 * 1024;

/// Why a header cannot be set, for those that cannot.
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
        Some("has a key of its own; write \"user_agent\" at the top of the manifest")
    } else if FRAMING.iter().any(|f| name.eq_ignore_ascii_case(f)) {
        Some(
            "frames the message or manages the connection, which the prober does itself; remove it",
        )
    } else {
        None
    }
}

/// Whether `b` may stand in a token (RFC 9110, section 5.6.2).
fn is_token(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b)
}

/// The shape of a `headers` table; none where there is no table.
pub(super) struct Headers<'a, 'v> {
    pub(super) place: &'a Place<'a>,
    pub(super) context: &'a mut Context<'v>,
}

impl<'de> Shape<'de> for Headers<'_, '_> {
    type Out = Option<Vec<Header>>;

    fn scalar(self, scalar: Scalar<'de>) -> Self::Out {
        let message = format!("is {}; give an object, name → value", scalar.kind());
        self.context.problems.add(self.place, message);
        None
    }

    fn table<A: MapAccess<'de>>(self, mut table: A) -> Result<Self::Out, A::Error> {
        let before = self.context.problems.count();
        let mut names = HashSet::new();
        let mut headers = Vec::new();
        let mut bytes = 0;
        while let Some(name) = table.next_key::<String>()? {
            let value = table.next_value_seed(Read(AnyScalar))?;
            let problems = &mut self.context.problems;
            // Who writes "Name: value" as the name shall not see the value in a log.
            let token = name.bytes().take_while(|b| is_token(*b)).count();
            let shown = name.get(..token).unwrap_or_default();
            let place = Place::Entry(self.place, shown);
            if token == 0 || token < name.len() {
                problems.add(
                    &place,
                    "the name is no token of HTTP; use letters, digits and \"-\"",
                );
                continue;
            }
            if !names.insert(name.to_ascii_lowercase()) {
                problems.add(
                    &place,
                    "duplicate header (names have no case); keep one of the two",
                );
                continue;
            }
            match self.context.variables.header(&name, &value) {
                Ok(value) => {
                    bytes += name.len() + value.len();
                    if headers.len() < MOST && bytes <= MOST_BYTES {
                        let value = Secret::new(value);
                        headers.push(Header { name, value });
                    }
                }
                Err(message) => problems.add(&place, message),
            }
        }
        if names.len() > MOST || bytes > MOST_BYTES {
            let message = format!(
                "{} headers with {bytes} bytes are too many; give at most {MOST} with {MOST_BYTES}",
                names.len()
            );
            self.context.problems.add(self.place, message);
        }
        Ok((self.context.problems.count() == before).then_some(headers))
    }
}

impl Variables<'_> {
    /// The value to send.
    fn header(&self, name: &str, value: &Scalar<'_>) -> Result<String, String> {
        if let Some(reason) = reserved(name) {
            return Err(reason.to_owned());
        }
        let Scalar::Text(text) = value else {
            return Err(format!("is {}; give a string", value.kind()));
        };
        let mut out = String::new();
        let mut rest: &str = text;
        while let Some((literal, reference)) = rest.split_once("${") {
            let Some((variable, tail)) = reference.split_once('}').filter(|(v, _)| is_name(v))
            else {
                return Err(
                    "has a \"${\" that no variable's name and \"}\" follow; write ${NAME} with letters, digits and \"_\""
                        .to_owned(),
                );
            };
            out.push_str(sendable(literal, "the value")?);
            out.push_str(&self.look_up(variable)?);
            rest = tail;
        }
        out.push_str(sendable(rest, "the value")?);
        // Blanks around a value are no part of it (RFC 9110, section 5.5).
        Ok(out.trim_matches([' ', '\t']).to_owned())
    }

    fn look_up(&self, variable: &str) -> Result<String, String> {
        let Self::Required(environment) = self else {
            return Ok(String::new());
        };
        let what = match variable.len() {
            0..=QUOTED => format!("the environment variable {variable}"),
            // Cut short by it.
            _ => format!("the environment variable {}", quoted(variable)),
        };
        let Some(value) = environment(variable) else {
            return Err(format!("{what} is not set; set it, or remove the header"));
        };
        let Ok(value) = value.into_string() else {
            return Err(format!("{what} is not valid UTF-8; correct its value"));
        };
        sendable(&value, &what)?;
        Ok(value)
    }
}

/// Whether `text` is a variable's name (POSIX.1, section 8.1, with lower case as shells allow it).
fn is_name(text: &str) -> bool {
    !text.starts_with(|c: char| c.is_ascii_digit())
        && !text.is_empty()
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

/// `text`, if a field value may hold it (RFC 9110, section 5.5): anything but control characters.
fn sendable<'a>(text: &'a str, what: &str) -> Result<&'a str, String> {
    match text.chars().find(|c| c.is_control() && *c != '\t') {
        None => Ok(text),
        // Of the value, only the control character is told, and mostly it is a line's end.
        Some(c) => Err(format!(
            "{what} holds the control character {}; remove it",
            quoted(c.encode_utf8(&mut [0; 4]))
        )),
    }
}
