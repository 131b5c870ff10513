//! The rule for each simple value: returns the value, or a message that says what is allowed. Pure, and
//! independent of the location and of other values.

use std::str::FromStr;
use std::time::Duration;

use super::json::Json;
use super::problems::quoted;
use super::{SocketPath, UnitName, Variables};

/// A day in seconds: the upper limit of every duration.
pub(super) const DAY: u32 = 86_400;

/// A whole number from `min` to `max`. As in JSON Schema, `2.0` is one.
pub(super) fn whole<T: TryFrom<u32>>(min: u32, max: u32) -> impl Fn(&Json) -> Result<T, String> {
    move |value| {
        let number = match integer(value) {
            Ok(number) if number < min.into() => Err("too small"),
            Ok(number) if number > max.into() => Err("too large"),
            Ok(number) => T::try_from(number as u32).map_err(|_| "too large"),
            Err(wrong) => Err(wrong),
        };
        let allowed = format!("give a whole number from {min} to {max}");
        number.map_err(|wrong| not_a_number(value, wrong, allowed))
    }
}

fn integer(value: &Json) -> Result<i128, &'static str> {
    let Json::Number(number) = value else {
        return Err(value.kind());
    };
    match (number.as_i128(), number.as_f64()) {
        (Some(number), _) => Ok(number),
        // Saturates, and so stays too small or too large.
        (None, Some(number)) if number.fract() == 0.0 => Ok(number as i128),
        (None, _) => Err("not whole"),
    }
}

/// Seconds, more than 0 and at most `max`.
pub(super) fn seconds_up_to(max: u32) -> impl Fn(&Json) -> Result<Duration, String> {
    move |value| {
        let allowed = format!("give more than 0 and at most {max}");
        duration(value, |seconds| seconds <= 0.0, max)
            .map_err(|wrong| not_a_number(value, wrong, allowed))
    }
}

/// Seconds from `min` to `max`.
pub(super) fn seconds(min: u32, max: u32) -> impl Fn(&Json) -> Result<Duration, String> {
    move |value| {
        let allowed = format!("give a number from {min} to {max}");
        duration(value, |seconds| seconds < min.into(), max)
            .map_err(|wrong| not_a_number(value, wrong, allowed))
    }
}

/// A duration. A positive value below a nanosecond counts as a nanosecond.
fn duration(
    value: &Json,
    is_too_small: impl FnOnce(f64) -> bool,
    max: u32,
) -> Result<Duration, &'static str> {
    let Json::Number(number) = value else {
        return Err(value.kind());
    };
    let seconds = number.as_f64().unwrap_or_default();
    if is_too_small(seconds) {
        return Err("too small");
    }
    let least = Duration::from_nanos(u64::from(seconds > 0.0));
    match Duration::try_from_secs_f64(seconds) {
        Ok(length) if seconds <= max.into() => Ok(length.max(least)),
        _ => Err("too large"),
    }
}

/// The message about a value that is no allowed number. Proposes one for a string like "10", "10s" or "500ms".
fn not_a_number(value: &Json, wrong: &str, allowed: String) -> String {
    const UNITS: [(&str, f64); 5] = [
        ("ms", 0.001),
        ("s", 1.0),
        ("m", 60.0),
        ("min", 60.0),
        ("h", 3600.0),
    ];
    let written = value.text().unwrap_or_default();
    let digits = written.trim_end_matches(|c: char| c.is_ascii_alphabetic() || c == ' ');
    let unit = written.strip_prefix(digits).unwrap_or_default().trim();
    let unit = UNITS.iter().find(|(name, _)| *name == unit);
    let factor = unit.map_or(1.0, |(_, factor)| *factor);
    match digits.parse::<f64>() {
        Ok(number) if number.is_finite() => {
            let number = number * factor;
            value.problem(
                wrong,
                format_args!("{allowed}, such as {number} without quotes"),
            )
        }
        _ => value.problem(wrong, allowed),
    }
}

/// `true` or `false`.
pub(super) fn boolean(value: &Json) -> Result<bool, String> {
    match value {
        Json::Bool(value) => Ok(*value),
        _ => Err(value.wrong_type("give true or false, without quotes")),
    }
}

/// Any text.
pub(super) fn text(value: &Json) -> Result<&str, String> {
    match value {
        Json::Text(text) => Ok(text),
        _ => Err(value.wrong_type("give a string")),
    }
}

/// `body_contains`: text that is not empty, even after its variables are expanded.
pub(super) fn body_text(value: &Json, variables: Variables<'_>) -> Result<String, String> {
    let written = text(value)?;
    let expanded = variables.expand(written)?.text;
    let checked = match variables {
        Variables::Required(_) => &*expanded,
        Variables::MayBeMissing => written,
    };
    if checked.is_empty() {
        let what = if written.is_empty() {
            "is empty"
        } else {
            "has only empty variables"
        };
        return Err(format!(
            "{what}, so every body contains it; give some text, or leave the key out"
        ));
    }
    Ok(expanded)
}

/// Text that is parsed into another type.
pub(super) fn parsed<T: FromStr<Err = String>>(value: &Json) -> Result<T, String> {
    text(value)?.parse()
}

/// `user_agent`: non-empty, visible ASCII and spaces.
pub(super) fn user_agent(value: &Json) -> Result<String, String> {
    let text = text(value)?;
    if text.trim().is_empty() {
        return Err("is empty or blank; give a name, or leave the key out".to_owned());
    }
    match text.chars().find(|c| !matches!(c, ' '..='~')) {
        None => Ok(text.to_owned()),
        Some(c) => Err(format!(
            "contains {}; use visible ASCII characters and spaces",
            quoted(c.encode_utf8(&mut [0; 4]))
        )),
    }
}

/// `name`: the backend's name in reports.
pub(super) fn name(value: &Json) -> Result<String, String> {
    let text = text(value)?;
    let fits = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    if (1..=64).contains(&text.len()) && text.chars().all(fits) {
        return Ok(text.to_owned());
    }
    Err("give 1 to 64 characters of A-Z a-z 0-9 . _ -".to_owned())
}

/// One of a few words.
pub(super) fn word<T: Copy>(words: &[(&str, T)]) -> impl Fn(&Json) -> Result<T, String> {
    move |value| {
        let known: Vec<String> = words.iter().map(|(word, _)| quoted(word)).collect();
        let allowed = format!("give {}", known.join(" or "));
        let Json::Text(text) = value else {
            return Err(value.wrong_type(allowed));
        };
        match words.iter().find(|(word, _)| word == text) {
            Some((_, meaning)) => Ok(*meaning),
            None => Err(value.problem("not known", allowed)),
        }
    }
}

/// A path with an optional query, the origin form of RFC 9112. Characters that a URI cannot contain are
/// encoded when it is sent.
pub(super) fn path(value: &Json) -> Result<String, String> {
    let path = text(value)?;
    // Nearly every path is plain, and checking bytes is much cheaper than checking characters.
    if path.starts_with('/') && path.bytes().all(|b| b.is_ascii_graphic() && b != b'#') {
        return Ok(path.to_owned());
    }
    let shown = quoted(path);
    if !path.starts_with('/') {
        return Err(format!(
            "{shown} does not begin with \"/\"; give the path alone, such as \"/api/health\""
        ));
    }
    if path.contains('#') {
        return Err(format!(
            "{shown} has a fragment, which is never sent; remove it from \"#\" on, or write %23 for the character"
        ));
    }
    match path.chars().find(|c| c.is_whitespace() || c.is_control()) {
        None => Ok(path.to_owned()),
        Some(c) => Err(format!(
            "{shown} contains {}; write spaces and control characters percent-encoded, such as %20",
            quoted(c.encode_utf8(&mut [0; 4]))
        )),
    }
}

/// A JSON Pointer (RFC 6901, section 3).
pub(super) fn pointer(text: &str) -> Result<(), String> {
    if !text.is_empty() && !text.starts_with('/') {
        return Err(
            "is not a JSON Pointer; begin it with \"/\", such as \"/status\" (\"\" is the whole body)"
                .to_owned(),
        );
    }
    let escapes_hold = text
        .split('~')
        .skip(1)
        .all(|rest| rest.starts_with(['0', '1']));
    if escapes_hold {
        Ok(())
    } else {
        Err(
            "is not a JSON Pointer; write \"~0\" for \"~\", and \"~1\" for \"/\" in a key"
                .to_owned(),
        )
    }
}

impl FromStr for UnitName {
    type Err = String;

    /// Reads the name of a service as `unit_name_is_valid` of systemd's `unit-name.c` does.
    ///
    /// # Errors
    ///
    /// A message that says what is wrong with the name and what is allowed.
    fn from_str(name: &str) -> Result<Self, String> {
        const LONGEST: usize = 255;
        let shown = quoted(name);
        let Some(prefix) = name.strip_suffix(".service") else {
            let remedy = if name.is_empty() || name.contains('.') {
                "give the full name of a service, such as \"scidex-api.service\"".to_owned()
            } else {
                format!("write {}", quoted(&format!("{name}.service")))
            };
            return Err(format!("{shown} does not end in \".service\"; {remedy}"));
        };
        if prefix.is_empty() || prefix.starts_with('@') {
            return Err(format!(
                "{shown} has no name before its {}; give one, such as \"scidex-api.service\"",
                if prefix.is_empty() { "suffix" } else { "\"@\"" }
            ));
        }
        let allowed = |c: &char| c.is_ascii_alphanumeric() || ":-_.\\@".contains(*c);
        if let Some(c) = prefix.chars().find(|c| !allowed(c)) {
            return Err(format!(
                "{shown} contains {}; a unit's name has only letters, digits and : - _ . \\ @ (see systemd-escape(1))",
                quoted(c.encode_utf8(&mut [0; 4]))
            ));
        }
        if prefix.find('@') == Some(prefix.len() - 1) {
            return Err(format!(
                "{shown} is a template, which has no process of its own; name an instance, such as {}",
                quoted(&format!("{prefix}1.service"))
            ));
        }
        if name.len() > LONGEST {
            return Err(format!(
                "{shown} has {} characters; a unit's name has at most {LONGEST}",
                name.len()
            ));
        }
        Ok(Self(name.to_owned()))
    }
}

impl FromStr for SocketPath {
    type Err = String;

    /// Reads the path of a UNIX socket, which must fit into `sun_path` with its NUL (unix(7)).
    ///
    /// # Errors
    ///
    /// A message that says what is wrong with the path and what is allowed.
    fn from_str(path: &str) -> Result<Self, String> {
        const LONGEST: usize = 107;
        let shown = quoted(path);
        if !path.starts_with('/') {
            return Err(format!(
                "{shown} is not an absolute path; begin it with \"/\", such as \"/run/scidex-api.sock\""
            ));
        }
        if path.contains('\0') {
            return Err(format!("{shown} contains a NUL character; remove it"));
        }
        if path.len() > LONGEST {
            return Err(format!(
                "{shown} has {} bytes; the path of a socket has at most {LONGEST}",
                path.len()
            ));
        }
        Ok(Self(path.into()))
    }
}
