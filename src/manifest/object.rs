//! Reads an object whose keys the manifest format defines. The known keys are those that the caller asks
//! for.

use std::borrow::Cow;
use std::fmt;

use strsim::levenshtein;

use super::json::Json;
use super::problems::{Context, DUPLICATE_KEY, Field, Invalid, Location, QUOTED};

/// Reads the keys of one object.
pub(super) struct ObjectReader<'j, 'a, 'v> {
    entries: &'j [(Cow<'j, str>, Json<'j>)],
    /// Whether a syntax error ended the object: a key may then be absent only because of it.
    is_cut: bool,
    location: &'a Location<'a>,
    context: &'a mut Context<'v>,
    /// The keys that the caller has asked for.
    pub(super) known: Vec<&'static str>,
}

impl<'j, 'a, 'v> ObjectReader<'j, 'a, 'v> {
    /// A reader of `json`, if that is an object.
    pub(super) fn new(
        json: &'j Json<'j>,
        location: &'a Location<'a>,
        context: &'a mut Context<'v>,
    ) -> Field<Self> {
        match json {
            Json::Object(entries) => Ok(Self {
                entries,
                is_cut: json.is_cut(),
                location,
                context,
                known: Vec::new(),
            }),
            Json::Cut => Err(Invalid),
            _ => {
                let message = format!("is {}; give an object", json.kind());
                Err(context.problems.add(location, message))
            }
        }
    }

    /// The value of an optional key, as `read` returns it.
    pub(super) fn optional<T>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(&'j Json<'j>, &Location<'_>, &mut Context<'v>) -> Field<T>,
    ) -> Field<Option<T>> {
        self.known.push(key);
        let location = Location::Key(self.location, key);
        let mut values = self.entries.iter().filter(|(name, _)| name == key);
        let first = values.next();
        for _ in values {
            self.context.problems.add(&location, DUPLICATE_KEY);
        }
        match first {
            Some((_, Json::Cut)) => Err(Invalid),
            Some((_, value)) => read(value, &location, self.context).map(Some),
            None if self.is_cut => Err(Invalid),
            None => Ok(None),
        }
    }

    /// The value of a key, or `default` if it is absent.
    pub(super) fn or<T>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(&'j Json<'j>, &Location<'_>, &mut Context<'v>) -> Field<T>,
        default: T,
    ) -> Field<T> {
        Ok(self.optional(key, read)?.unwrap_or(default))
    }

    /// The value of a required key.
    pub(super) fn required<T>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(&'j Json<'j>, &Location<'_>, &mut Context<'v>) -> Field<T>,
    ) -> Field<T> {
        let missing = "missing; this key is required";
        let value = self.optional(key, read)?;
        value.ok_or_else(|| self.problem(key, missing))
    }

    /// Notes a problem with the value of `key`.
    pub(super) fn problem(&mut self, key: &str, message: impl fmt::Display) -> Invalid {
        let location = Location::Key(self.location, key);
        self.context.problems.add(&location, message)
    }

    /// Whether every key of the object has been asked for.
    pub(super) fn is_exhausted(&self) -> bool {
        let is_known = |key: &str| self.known.contains(&key);
        self.entries.iter().all(|(key, _)| is_known(key))
    }

    /// Reports every key that was not asked for as unknown.
    pub(super) fn end(self) {
        for (key, value) in self.entries {
            if self.known.contains(&&**key) || matches!(value, Json::Cut) {
                continue;
            }
            let plain = key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
            // A long key is quoted, which shortens it.
            let location = if plain && (1..=QUOTED).contains(&key.len()) {
                Location::Key(self.location, key)
            } else {
                Location::Entry(self.location, key)
            };
            let message = format!("unknown key; {}", advice(key, &self.known));
            self.context.problems.add(&location, message);
        }
    }
}

/// The remedy for an unknown key: the one that was probably meant, or a list of the known ones.
fn advice(unknown: &str, keys: &[&str]) -> String {
    // Lengths first, because the edit distance to a long text takes long to compute.
    let alike =
        |key: &str| unknown.len().abs_diff(key.len()) <= 2 && levenshtein(unknown, key) <= 2;
    let near = |key: &&&str| (unknown.len() >= 4 && key.starts_with(unknown)) || alike(key);
    match keys.iter().find(near) {
        Some(key) => format!("did you mean \"{key}\"?"),
        None => format!("known keys are {}", keys.join(", ")),
    }
}

/// Reads a value by its rule.
pub(super) fn rule<T>(
    rule: impl Fn(&Json<'_>) -> Result<T, String>,
) -> impl Fn(&Json<'_>, &Location<'_>, &mut Context<'_>) -> Field<T> {
    move |value, location, context| context.note(location, rule(value))
}
