//! Reads an object whose keys the manifest format defines. The known keys are those that the caller asks
//! for.

use std::fmt;

use strsim::levenshtein;

use super::json::Json;
use super::node::Node;
use super::problems::QUOTED;

pub(super) const DUPLICATE_KEY: &str = "duplicate key; keep one of the two";

/// Reads the keys of one object.
pub(super) struct Object<'v, 'n> {
    pub(super) node: &'n Node<'v>,
    entries: &'v [(String, Json)],
    /// The keys that the caller has asked for.
    known: Vec<&'static str>,
}

impl<'v> Object<'v, '_> {
    /// What `read` returns for the keys of `node`, if that is an object. Every key that `read` has not asked
    /// for is a problem.
    pub(super) fn read<T>(
        node: &Node<'v>,
        read: impl FnOnce(&mut Object<'v, '_>) -> T,
    ) -> Result<T, String> {
        let Json::Object(entries) = node.json else {
            // Without the value, which may be a secret in the wrong place.
            return Err(format!("is {}; give an object", node.json.kind()));
        };
        let known = Vec::with_capacity(entries.len());
        let mut object = Object {
            node,
            entries,
            known,
        };
        let value = read(&mut object);
        object.note_unknown_keys();
        Ok(value)
    }

    /// Whether there is a value for `key`.
    pub(super) fn has(&self, key: &str) -> bool {
        self.node.json.get(key).is_some()
    }

    /// The value of `key` by its rule; none if it is absent or invalid.
    pub(super) fn value<T>(
        &mut self,
        key: &'static str,
        rule: impl FnOnce(&Node<'v>) -> Result<T, String>,
    ) -> Option<T> {
        self.known.push(key);
        let mut values = self.entries.iter().filter(|(name, _)| name == key);
        let (_, first) = values.next()?;
        let node = self.node.key(key, first);
        let context = node.context;
        let before = context.problems.borrow().len();
        for _ in values {
            node.note(DUPLICATE_KEY);
        }
        let value = node.check(rule(&node));
        if context.problems.borrow().len() > before {
            context.invalid.borrow_mut().insert(key);
        }
        value
    }

    /// The value of `key` by its rule, or else `default`.
    pub(super) fn value_or<T>(
        &mut self,
        key: &'static str,
        default: T,
        rule: impl FnOnce(&Node<'v>) -> Result<T, String>,
    ) -> T {
        self.value(key, rule).unwrap_or(default)
    }

    /// The value of a key that must not be absent.
    pub(super) fn required<T>(
        &mut self,
        key: &'static str,
        rule: impl FnOnce(&Node<'v>) -> Result<T, String>,
    ) -> Option<T> {
        if !self.has(key) {
            self.note(key, "missing; this key is required");
        }
        self.value(key, rule)
    }

    /// Notes a problem with `key`.
    pub(super) fn note(&self, key: &str, message: impl fmt::Display) {
        self.node.key(key, self.node.json).note(message);
    }

    /// Notes that `key`, if it is given, conflicts with another value.
    pub(super) fn conflict(&self, key: &str, other: &str) {
        if self.has(key) {
            self.note(key, format_args!("cannot be used with {other}"));
        }
    }

    fn note_unknown_keys(&self) {
        let is_known = |key: &str| self.known.contains(&key);
        for (key, value) in self.entries.iter().filter(|(key, _)| !is_known(key)) {
            let plain = key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
            // A long key is quoted, which shortens it.
            let node = if plain && (1..=QUOTED).contains(&key.len()) {
                self.node.key(key, value)
            } else {
                self.node.entry(key, value)
            };
            node.note(format_args!("unknown key; {}", advice(key, &self.known)));
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
