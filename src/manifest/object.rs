//! Reads an object whose keys the manifest format defines. The known keys are those that the caller asks
//! for.

use std::fmt;

use strsim::levenshtein;

use super::json::Json;
use super::problems::{Context, QUOTED, entry};

pub(super) const DUPLICATE_KEY: &str = "duplicate key; keep one of the two";

/// Reads the keys of one object.
pub(super) struct Object<'v, 'a> {
    json: &'v Json,
    entries: &'v [(String, Json)],
    place: &'a str,
    pub(super) context: &'a mut Context<'v>,
    /// The keys that the caller has asked for.
    known: Vec<&'static str>,
}

impl<'v> Object<'v, '_> {
    /// What `read` returns for the keys of `json`, if that is an object. Every key that `read` has not asked
    /// for is a problem.
    pub(super) fn read<T>(
        json: &'v Json,
        place: &str,
        context: &mut Context<'v>,
        read: impl FnOnce(&mut Object<'v, '_>) -> T,
    ) -> Option<T> {
        let Json::Object(entries) = json else {
            // Without the value, which may be a secret in the wrong place.
            context.note(place, format_args!("is {}; give an object", json.kind()));
            return None;
        };
        let mut object = Object {
            json,
            entries,
            place,
            context,
            known: Vec::with_capacity(entries.len()),
        };
        let value = read(&mut object);
        object.note_unknown_keys();
        Some(value)
    }

    /// What is written for `key`.
    pub(super) fn get(&self, key: &str) -> Option<&'v Json> {
        self.json.get(key)
    }

    /// The place of `key`.
    fn place_of(&self, key: &str) -> String {
        match self.place {
            "" => key.to_owned(),
            place => format!("{place}.{key}"),
        }
    }

    /// A value that consists of several, as `read` returns it.
    pub(super) fn part<T>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(&'v Json, &str, &mut Context<'v>) -> Option<T>,
    ) -> Option<T> {
        self.known.push(key);
        let mut values = self.entries.iter().filter(|(name, _)| name == key);
        let (_, first) = values.next()?;
        let place = self.place_of(key);
        let before = self.context.problems.count();
        for _ in values {
            self.context.note(&place, DUPLICATE_KEY);
        }
        let value = read(first, &place, self.context);
        if self.context.problems.count() > before {
            self.context.invalid.insert(key);
        }
        value
    }

    /// A simple value by its rule.
    pub(super) fn value<T>(
        &mut self,
        key: &'static str,
        rule: impl FnOnce(&Json) -> Result<T, String>,
    ) -> Option<T> {
        self.part(key, |value, place, context| {
            context.check(place, rule(value))
        })
    }

    /// Replaces `target` with the value of `key`, if there is one.
    pub(super) fn set<T>(
        &mut self,
        target: &mut T,
        key: &'static str,
        rule: impl FnOnce(&Json) -> Result<T, String>,
    ) {
        if let Some(value) = self.value(key, rule) {
            *target = value;
        }
    }

    /// Notes that a required key is missing.
    pub(super) fn require(&mut self, key: &'static str) {
        if self.get(key).is_none() {
            self.problem(key, "missing; this key is required");
        }
    }

    /// Notes a problem with the value of `key`.
    pub(super) fn problem(&mut self, key: &str, message: impl fmt::Display) {
        let place = self.place_of(key);
        self.context.note(&place, message);
    }

    fn note_unknown_keys(&mut self) {
        let is_known = |key: &str| self.known.contains(&key);
        for (key, _) in self.entries.iter().filter(|(key, _)| !is_known(key)) {
            let plain = key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
            // A long key is quoted, which shortens it.
            let place = match (plain && (1..=QUOTED).contains(&key.len()), self.place) {
                (true, _) => self.place_of(key),
                (false, "") => entry("manifest", key),
                (false, place) => entry(place, key),
            };
            let message = format!("unknown key; {}", advice(key, &self.known));
            self.context.note(&place, message);
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
