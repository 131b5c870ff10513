//! What a single value may be: from a scalar as written to our own type, or a sentence that names
//! what was written and what is allowed.

use std::ops::RangeInclusive;
use std::str::FromStr;
use std::time::Duration;

use super::json::Scalar;
use super::{KillSignal, Method, Proxy, Scope, UnitName};
use crate::text::escape;

/// A number of seconds, greater than 0 and at most `max`.
pub(super) fn positive_seconds(scalar: &Scalar, max: u32) -> Result<Duration, String> {
    let allowed = format!("more than 0 and at most {max}");
    let number = number(scalar, &allowed)?;
    within(number > 0.0, number <= f64::from(max), scalar, &allowed)?;
    // Less than a nanosecond is still more than nothing.
    Ok(duration(number).max(Duration::from_nanos(1)))
}

/// A number of seconds in a range.
pub(super) fn seconds(scalar: &Scalar, range: RangeInclusive<u32>) -> Result<Duration, String> {
    let (min, max) = (*range.start(), *range.end());
    let allowed = format!("{min} to {max}");
    let number = number(scalar, &allowed)?;
    within(
        number >= f64::from(min),
        number <= f64::from(max),
        scalar,
        &allowed,
    )?;
    Ok(duration(number))
}

/// A whole number in a range. As JSON Schema has it, 2.0 is one.
pub(super) fn integer(scalar: &Scalar, range: RangeInclusive<u32>) -> Result<u32, String> {
    let (min, max) = (*range.start(), *range.end());
    let allowed = format!("a whole number, {min} to {max}");
    let number = number(scalar, &allowed)?;
    if number.fract() != 0.0 {
        return Err(format!("{scalar} is not whole; give {allowed}"));
    }
    within(
        number >= f64::from(min),
        number <= f64::from(max),
        scalar,
        &allowed,
    )?;
    // In range and whole, so the conversion is exact.
    Ok(number as u32)
}

fn number(scalar: &Scalar, allowed: &str) -> Result<f64, String> {
    match scalar {
        Scalar::Int(value) => Ok(*value as f64),
        Scalar::Float(value) => Ok(*value),
        other => Err(format!("{other} is not a number; give {allowed}")),
    }
}

fn within(low: bool, high: bool, scalar: &Scalar, allowed: &str) -> Result<(), String> {
    match (low, high) {
        (false, _) => Err(format!("{scalar} is too small; give {allowed}")),
        (_, false) => Err(format!("{scalar} is too large; give {allowed}")),
        _ => Ok(()),
    }
}

fn duration(seconds: f64) -> Duration {
    // Cannot fail for what is in range; zero is the answer that waits for nothing.
    Duration::try_from_secs_f64(seconds).unwrap_or_default()
}

/// `true` or `false`.
pub(super) fn boolean(scalar: &Scalar) -> Result<bool, String> {
    match scalar {
        Scalar::Bool(value) => Ok(*value),
        other => Err(format!(
            "{other} is neither true nor false; give one of them"
        )),
    }
}

/// Text; `what` says which.
pub(super) fn text(scalar: Scalar, what: &str) -> Result<String, String> {
    match scalar {
        Scalar::Text(text) => Ok(text),
        other => Err(format!("{other} is not text; give {what} in quotes")),
    }
}

/// Text that is not empty.
pub(super) fn non_empty(scalar: Scalar, what: &str) -> Result<String, String> {
    match text(scalar, what)? {
        text if text.is_empty() => Err(format!("empty; give {what}")),
        text => Ok(text),
    }
}

/// Any text; only its kind matters.
pub(super) fn schema(scalar: Scalar) -> Result<(), String> {
    text(scalar, "the schema's address").map(drop)
}

/// The name under which the probes go.
pub(super) fn user_agent(scalar: Scalar) -> Result<String, String> {
    let agent = text(scalar, "a name")?;
    if agent.trim().is_empty() {
        return Err("empty; give visible ASCII, such as \"our-checker/1.0\"".to_owned());
    }
    match agent.chars().find(|c| !matches!(c, ' '..='~')) {
        Some(bad) => Err(format!(
            "\"{}\" is not allowed here; give visible ASCII and spaces",
            escape(&bad.to_string())
        )),
        None => Ok(agent),
    }
}

/// The path and query of a route.
pub(super) fn path(scalar: Scalar) -> Result<String, String> {
    // `http::Uri` holds no more than 65,534 bytes, of which encoding may make three of each.
    const LONGEST: usize = 20_000;
    let path = text(scalar, "a path")?;
    let shown = || Scalar::Text(path.clone());
    if !path.starts_with('/') {
        return Err(format!(
            "{} does not begin with \"/\"; give a path from the root on",
            shown()
        ));
    }
    if path.len() > LONGEST {
        return Err(format!(
            "{} bytes are too many; give at most {LONGEST}",
            path.len()
        ));
    }
    match path
        .chars()
        .find(|c| *c == '#' || c.is_whitespace() || c.is_control())
    {
        Some('#') => Err(format!(
            "{} has a fragment, which is never sent; leave out the \"#\"",
            shown()
        )),
        Some(bad) => Err(format!(
            "{} contains \"{}\"; leave it out or write it percent-encoded",
            shown(),
            escape(&bad.to_string())
        )),
        None => Ok(path),
    }
}

/// One of a few words.
fn choice<T: Copy>(scalar: &Scalar, words: &[(&str, T)]) -> Result<T, String> {
    if let Scalar::Text(text) = scalar
        && let Some((_, value)) = words.iter().find(|(word, _)| word == text)
    {
        return Ok(*value);
    }
    let allowed: Vec<String> = words
        .iter()
        .map(|(word, _)| format!("\"{word}\""))
        .collect();
    Err(format!(
        "{scalar} is not known here; give {}",
        allowed.join(" or ")
    ))
}

/// `GET` or `HEAD`.
pub(super) fn method(scalar: &Scalar) -> Result<Method, String> {
    choice(scalar, &[("GET", Method::Get), ("HEAD", Method::Head)])
}

/// `none` or `env`.
pub(super) fn proxy(scalar: &Scalar) -> Result<Proxy, String> {
    choice(scalar, &[("none", Proxy::None), ("env", Proxy::Env)])
}

/// `system` or `user`.
pub(super) fn scope(scalar: &Scalar) -> Result<Scope, String> {
    choice(scalar, &[("system", Scope::System), ("user", Scope::User)])
}

/// `SIGKILL` or `SIGABRT`.
pub(super) fn signal(scalar: &Scalar) -> Result<KillSignal, String> {
    choice(
        scalar,
        &[
            ("SIGKILL", KillSignal::Kill),
            ("SIGABRT", KillSignal::Abort),
        ],
    )
}

/// The name of a service.
pub(super) fn unit(scalar: Scalar) -> Result<UnitName, String> {
    text(scalar, "a unit's name")?.parse()
}

impl FromStr for UnitName {
    type Err = String;

    /// Takes what systemd itself would (`unit_name_is_valid` in its src/basic/unit-name.c), of
    /// services only, and no template.
    fn from_str(name: &str) -> Result<Self, String> {
        const LONGEST: usize = 255;
        let shown = escape(name);
        let say = |problem: &str| Err(format!("\"{shown}\" {problem}"));
        let Some(prefix) = name.strip_suffix(".service") else {
            return say("is not a service; give a name that ends in \".service\"");
        };
        let valid = |c: char| c.is_ascii_alphanumeric() || ":-_.\\@".contains(c);
        if !name.chars().all(valid) {
            return say("is not a unit's name; give letters, digits and \":-_.\\@\"");
        }
        if name.len() > LONGEST {
            return Err(format!(
                "{} bytes are too many; give at most {LONGEST}",
                name.len()
            ));
        }
        if prefix.is_empty() || prefix.starts_with('@') {
            return say("has no name before its suffix; give the unit's full name");
        }
        if prefix.ends_with('@') {
            return say(&format!(
                "is a template; name an instance, such as \"{prefix}a.service\""
            ));
        }
        Ok(Self(name.to_owned()))
    }
}

/// A JSON Pointer (RFC 6901, section 3).
pub(super) fn pointer(text: &str) -> Result<(), &'static str> {
    if !text.is_empty() && !text.starts_with('/') {
        return Err(
            "not a JSON Pointer; begin it with \"/\", or leave it empty for the whole body",
        );
    }
    if text
        .split('~')
        .skip(1)
        .any(|rest| !rest.starts_with(['0', '1']))
    {
        return Err("not a JSON Pointer; write \"~\" as \"~0\"");
    }
    Ok(())
}
