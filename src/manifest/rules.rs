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
        let allowed = format!("give a whole number from {min} to {max}");
        let number = number(value, min.into(), max, &allowed)?;
        if number.fract() != 0.0 {
            return Err(value.problem("not whole", allowed));
        }
        T::try_from(number as u32).map_err(|_| value.problem("too large", allowed))
    }
}

/// Seconds, more than 0 and at most `max`.
pub(super) fn seconds_up_to(max: u32) -> impl Fn(&Json) -> Result<Duration, String> {
    move |value| {
        let allowed = format!("give more than 0 and at most {max}");
        number(value, f64::MIN_POSITIVE, max, &allowed).map(duration)
    }
}

/// Seconds from `min` to `max`.
pub(super) fn seconds(min: u32, max: u32) -> impl Fn(&Json) -> Result<Duration, String> {
    move |value| {
        let allowed = format!("give a number from {min} to {max}");
        number(value, min.into(), max, &allowed).map(duration)
    }
}

/// A duration of at most a day. A positive one below a nanosecond counts as a nanosecond.
fn duration(seconds: f64) -> Duration {
    let least = Duration::from_nanos(u64::from(seconds > 0.0));
    Duration::try_from_secs_f64(seconds)
        .unwrap_or_default()
        .max(least)
}

/// A number from `min` to `max`, which `allowed` says in words. For a string such as "10", "10s" or "500ms", the
/// message also names the number to write.
fn number(value: &Json, min: f64, max: u32, allowed: &str) -> Result<f64, String> {
    const UNITS: [(&str, f64); 5] = [
        ("s", 1.0),
        ("ms", 0.001),
        ("m", 60.0),
        ("min", 60.0),
        ("h", 3600.0),
    ];
    let written = match value {
        Json::Number(number) => match number.as_f64().unwrap_or_default() {
            number if number < min => return Err(value.problem("too small", allowed)),
            number if number > max.into() => return Err(value.problem("too large", allowed)),
            number => return Ok(number),
        },
        Json::Text(text) => text.as_str(),
        _ => "",
    };
    let digits = written.trim_end_matches(|c: char| c.is_ascii_alphabetic() || c == ' ');
    let unit = written.get(digits.len()..).map(str::trim);
    let unit = UNITS.iter().find(|(name, _)| unit == Some(name));
    let meant = digits
        .parse()
        .ok()
        .map(|number: f64| number * unit.map_or(1.0, |(_, factor)| *factor));
    let meant = meant.map(|number| format!(", such as {number} without quotes"));
    Err(value.wrong_type(format_args!("{allowed}{}", meant.unwrap_or_default())))
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
    let wrong = match variables {
        _ if written.is_empty() => "is empty",
        Variables::Required(_) if expanded.is_empty() => "has only empty variables",
        Variables::Required(_) | Variables::MayBeMissing => return Ok(expanded),
    };
    Err(format!(
        "{wrong}, so every body contains it; give some text, or leave the key out"
    ))
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
    let wrong = if !path.starts_with('/') {
        "does not begin with \"/\"; give the path alone, such as \"/api/health\"".to_owned()
    } else if path.contains('#') {
        "has a fragment, which is never sent; remove it from \"#\" on, or write %23 for the character".to_owned()
    } else if let Some(c) = path.chars().find(|c| c.is_whitespace() || c.is_control()) {
        let c = quoted(c.encode_utf8(&mut [0; 4]));
        format!("contains {c}; write spaces and control characters percent-encoded, such as %20")
    } else {
        return Ok(path.to_owned());
    };
    Err(format!("{} {wrong}", quoted(path)))
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

impl FromStr for UnitName {
    type Err = String;

    /// Reads the name of a service as `unit_name_is_valid` of systemd's `unit-name.c` does.
    ///
    /// # Errors
    ///
    /// A message that says what is wrong with the name and what is allowed.
    fn from_str(name: &str) -> Result<Self, String> {
        const LONGEST: usize = 255;
        let allowed = |c: char| c.is_ascii_alphanumeric() || ":-_.\\@".contains(c);
        let (prefix, is_service) = match name.strip_suffix(".service") {
            Some(prefix) => (prefix, true),
            None => (name, false),
        };
        let wrong = if !is_service && !name.is_empty() && !name.contains('.') {
            let full = quoted(&format!("{name}.service"));
            format!("does not end in \".service\"; write {full}")
        } else if !is_service {
            "does not end in \".service\"; give the full name of a service, such as \"scidex-api.service\"".to_owned()
        } else if prefix.is_empty() || prefix.starts_with('@') {
            "has no name before its suffix; give one, such as \"scidex-api.service\"".to_owned()
        } else if let Some(c) = prefix.chars().find(|c| !allowed(*c)) {
            let c = quoted(c.encode_utf8(&mut [0; 4]));
            format!(
                "contains {c}; a unit's name has only letters, digits and : - _ . \\ @ (see systemd-escape(1))"
            )
        } else if prefix.find('@') == Some(prefix.len() - 1) {
            let instance = quoted(&format!("{prefix}1.service"));
            format!(
                "is a template, which has no process of its own; name an instance, such as {instance}"
            )
        } else if name.len() > LONGEST {
            format!(
                "has {} characters; a unit's name has at most {LONGEST}",
                name.len()
            )
        } else {
            return Ok(Self(name.to_owned()));
        };
        Err(format!("{} {wrong}", quoted(name)))
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
        let bytes = path.len();
        let wrong = if !path.starts_with('/') {
            "is not an absolute path; begin it with \"/\", such as \"/run/scidex-api.sock\""
                .to_owned()
        } else if path.contains('\0') {
            "contains a NUL character; remove it".to_owned()
        } else if bytes > LONGEST {
            format!("has {bytes} bytes; the path of a socket has at most {LONGEST}")
        } else {
            return Ok(Self(path.into()));
        };
        Err(format!("{} {wrong}", quoted(path)))
    }
}
