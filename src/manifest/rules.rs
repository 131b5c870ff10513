//! The rule for each simple value: returns the value, or a message that says what is allowed. Independent of
//! other values.

use std::path::PathBuf;
use std::time::Duration;

use super::Variables;
use super::json::Json;
use super::reader::Node;
use super::url::BaseUrl;
use crate::escape::{find_quoted, quoted};

/// A day in seconds: the upper limit of every duration.
pub(super) const DAY: u32 = 86_400;

/// A whole number from `min` to `max`. As in JSON Schema, `2.0` is one.
pub(super) fn whole<T: TryFrom<u32>>(
    min: u32,
    max: u32,
) -> impl Fn(&Node<'_>) -> Result<T, String> {
    move |value| {
        let allowed = format!("give a whole number from {min} to {max}");
        let number = number(value.json, min.into(), max, &allowed)?;
        if number.fract() != 0.0 {
            return Err(value.json.problem("not whole", allowed));
        }
        T::try_from(number as u32).map_err(|_| value.json.problem("too large", allowed))
    }
}

/// Seconds from `min` to `max`; without `min`, more than 0.
pub(super) fn seconds(
    min: Option<u32>,
    max: u32,
) -> impl Fn(&Node<'_>) -> Result<Duration, String> {
    move |value| {
        let least = min.map_or(f64::MIN_POSITIVE, f64::from);
        let allowed = match min {
            Some(min) => format!("give a number from {min} to {max}"),
            None => format!("give more than 0 and at most {max}"),
        };
        let seconds = number(value.json, least, max, &allowed)?;
        // A positive number below a nanosecond counts as a nanosecond.
        let shortest = Duration::from_nanos(u64::from(seconds > 0.0));
        let seconds = Duration::try_from_secs_f64(seconds).unwrap_or_default();
        Ok(seconds.max(shortest))
    }
}

/// A number from `min` to `max`, which `allowed` says in words.
fn number(value: &Json, min: f64, max: u32, allowed: &str) -> Result<f64, String> {
    let Json::Number(number) = value else {
        return Err(value.wrong_type(format_args!("{allowed}, without quotes or a unit")));
    };
    match number.as_f64().unwrap_or_default() {
        number if number < min => Err(value.problem("too small", allowed)),
        number if number > max.into() => Err(value.problem("too large", allowed)),
        number => Ok(number),
    }
}

pub(super) fn boolean(value: &Node<'_>) -> Result<bool, String> {
    match value.json {
        Json::Bool(value) => Ok(*value),
        _ => Err(value.json.wrong_type("give true or false, without quotes")),
    }
}

pub(super) fn text<'v>(value: &Node<'v>) -> Result<&'v str, String> {
    let text = value.json.text();
    text.ok_or_else(|| value.json.wrong_type("give a string"))
}

/// One of a few words.
pub(super) fn word<T: Copy>(words: &[(&str, T)]) -> impl Fn(&Node<'_>) -> Result<T, String> {
    move |value| {
        let known: Vec<String> = words.iter().map(|(word, _)| quoted(word)).collect();
        let allowed = format!("give {}", known.join(" or "));
        let Json::Text(text) = value.json else {
            return Err(value.json.wrong_type(allowed));
        };
        match words.iter().find(|(word, _)| word == text) {
            Some((_, meaning)) => Ok(*meaning),
            None => Err(value.json.problem("not known", allowed)),
        }
    }
}

/// `name`: the backend's name in reports.
pub(super) fn name(value: &Node<'_>) -> Result<String, String> {
    let text = text(value)?;
    let fits = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    if (1..=64).contains(&text.len()) && text.chars().all(fits) {
        return Ok(text.to_owned());
    }
    Err("give 1 to 64 characters of A-Z a-z 0-9 . _ -".to_owned())
}

pub(super) fn base_url(value: &Node<'_>) -> Result<BaseUrl, String> {
    text(value)?.parse()
}

/// `unix_socket`: a path that fits into `sun_path` with its NUL (unix(7)).
pub(super) fn socket_path(value: &Node<'_>) -> Result<PathBuf, String> {
    let path = text(value)?;
    let wrong = if !path.starts_with('/') || path.contains('\0') {
        "is not an absolute path; begin it with \"/\", such as \"/run/scidex-api.sock\", and leave out NUL characters"
            .to_owned()
    } else if path.len() > 107 {
        let bytes = path.len();
        format!("has {bytes} bytes; the path of a socket has at most 107")
    } else {
        return Ok(path.into());
    };
    Err(format!("{} {wrong}", quoted(path)))
}

/// `user_agent`: non-empty, visible ASCII and spaces.
pub(super) fn user_agent(value: &Node<'_>) -> Result<String, String> {
    let text = text(value)?;
    if text.trim().is_empty() {
        return Err("is empty or blank; give a name, or leave the key out".to_owned());
    }
    if let Some(c) = find_quoted(text, |c| !matches!(c, ' '..='~')) {
        return Err(format!(
            "contains {c}; use visible ASCII characters and spaces"
        ));
    }
    Ok(text.to_owned())
}

/// `path`: with an optional query, the origin form of RFC 9112. Characters that a URI cannot contain are
/// encoded when it is sent.
pub(super) fn path(value: &Node<'_>) -> Result<String, String> {
    let path = text(value)?;
    let wrong = if !path.starts_with('/') {
        "does not begin with \"/\"; give the path alone, such as \"/api/health\"".to_owned()
    } else if path.contains('#') {
        "has a fragment, which is never sent; remove it from \"#\" on, or write %23 for the character".to_owned()
    } else if let Some(c) = find_quoted(path, |c| c.is_whitespace() || c.is_control()) {
        format!("contains {c}; write spaces and control characters percent-encoded, such as %20")
    } else {
        return Ok(path.to_owned());
    };
    Err(format!("{} {wrong}", quoted(path)))
}

/// `body_contains`: text that is not empty, even after its variables are expanded.
pub(super) fn body_text(value: &Node<'_>) -> Result<String, String> {
    let (written, variables) = (text(value)?, value.context.variables);
    let (expanded, _) = variables.expand(written)?;
    // A variable that may be missing counts as empty.
    let is_known = written.is_empty() || matches!(variables, Variables::Required(_));
    if is_known && expanded.is_empty() {
        return Err("is empty or has only empty variables, so every body contains it; give some text, or leave the key out"
            .to_owned());
    }
    Ok(expanded)
}

/// A JSON Pointer (RFC 6901, section 3).
pub(super) fn pointer(text: &str) -> Result<(), String> {
    let mut escapes = text.split('~').skip(1);
    let remedy = if !text.is_empty() && !text.starts_with('/') {
        "begin it with \"/\", such as \"/status\" (\"\" is the whole body)"
    } else if !escapes.all(|rest| rest.starts_with(['0', '1'])) {
        "write \"~0\" for \"~\", and \"~1\" for \"/\" in a key"
    } else {
        return Ok(());
    };
    Err(format!("is not a JSON Pointer; {remedy}"))
}

/// `unit`: the name of a service, as `unit_name_is_valid` of systemd's `unit-name.c` has it, and not a template.
pub(super) fn unit(value: &Node<'_>) -> Result<String, String> {
    let name = text(value)?;
    let prefix = name.strip_suffix(".service").unwrap_or_default();
    let is_wrong = |c: char| !c.is_ascii_alphanumeric() && !":-_.\\@".contains(c);
    let wrong = if !name.ends_with(".service") {
        "does not end in \".service\"; give the full name of a service, such as \"scidex-api.service\"".to_owned()
    } else if prefix.is_empty() || prefix.starts_with('@') {
        "has no name before its suffix; give one, such as \"scidex-api.service\"".to_owned()
    } else if let Some(c) = find_quoted(prefix, is_wrong) {
        format!(
            "contains {c}; a unit's name has only letters, digits and : - _ . \\ @ (see systemd-escape(1))"
        )
    } else if prefix.find('@') == Some(prefix.len() - 1) {
        let instance = quoted(&format!("{prefix}1.service"));
        format!(
            "is a template, which has no process of its own; name an instance, such as {instance}"
        )
    } else if name.len() > 255 {
        "is too long; a unit's name has at most 255 characters".to_owned()
    } else {
        return Ok(name.to_owned());
    };
    Err(format!("{} {wrong}", quoted(name)))
}
