//! Reads the values of a manifest with their places, and notes all problems.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fmt;

use strsim::levenshtein;

use super::Variables;
use super::json::Json;
use crate::escape::{quoted, shortened};

pub(super) const DUPLICATE_KEY: &str = "duplicate key; keep one of the two";

/// What is needed everywhere while a manifest is read.
pub(super) struct Context<'v> {
    pub(super) variables: Variables<'v>,
    /// All problems so far, each with its place. The reading goes on with the inherited value or the default; a
    /// manifest with any problem is refused.
    pub(super) problems: RefCell<Vec<String>>,
    /// The keys that have a problem somewhere: what follows from their values is unknown.
    pub(super) invalid: RefCell<BTreeSet<&'static str>>,
}

pub(super) struct Node<'v> {
    pub(super) json: &'v Json,
    /// Such as `routes[3].retries`; empty for the whole manifest.
    pub(super) place: String,
    /// The path of the route that the value belongs to.
    pub(super) route: Option<&'v str>,
    pub(super) context: &'v Context<'v>,
}

impl<'v> Node<'v> {
    /// The value of a key that the manifest format defines.
    pub(super) fn key(&self, key: &str, json: &'v Json) -> Self {
        let separator = if self.place.is_empty() { "" } else { "." };
        self.child(json, format_args!("{separator}{key}"))
    }

    /// The value of a key that the author was free to choose; `shown` is the key, or what may be shown of it.
    pub(super) fn entry(&self, shown: &str, json: &'v Json) -> Self {
        self.child(json, format_args!("[{}]", quoted(shown)))
    }

    pub(super) fn item(&self, index: usize, json: &'v Json) -> Self {
        self.child(json, format_args!("[{index}]"))
    }

    fn child(&self, json: &'v Json, step: fmt::Arguments<'_>) -> Self {
        let place = format!("{}{step}", self.place);
        Self {
            json,
            place,
            ..*self
        }
    }

    pub(super) fn note(&self, message: impl fmt::Display) {
        let message = message.to_string();
        let route = self.route.map(quoted);
        let route = route.filter(|path| !message.contains(path.as_str()));
        let route = route.map_or_else(String::new, |path| format!(" (route {path})"));
        let place = self.place.as_str();
        let is_top = place.is_empty() || place.starts_with('[');
        let root = if is_top { "manifest" } else { "" };
        let mut problems = self.context.problems.borrow_mut();
        problems.push(format!("{root}{place}: {message}{route}"));
    }

    /// What was read from this value; none after the message about it was noted.
    pub(super) fn check<T>(&self, read: Result<T, String>) -> Option<T> {
        read.map_err(|message| self.note(message)).ok()
    }
}

/// Reads an object whose keys the manifest format defines. The known keys are those that the caller asks for.
pub(super) struct Object<'v, 'n> {
    pub(super) node: &'n Node<'v>,
    entries: &'v [(String, Json)],
    /// The keys that the caller has asked for.
    known: Vec<&'static str>,
}

impl<'v> Object<'v, '_> {
    /// What `read` returns for the keys of `node`, if that is an object. Every key that it has not asked for is a problem.
    pub(super) fn read<T>(
        node: &Node<'v>,
        read: impl FnOnce(&mut Object<'v, '_>) -> T,
    ) -> Result<T, String> {
        let Json::Object(entries) = node.json else {
            // Without the value, which may be a secret in the wrong place.
            return Err(format!("is {}; give an object", node.json.kind()));
        };
        let mut object = Object {
            node,
            entries,
            known: Vec::with_capacity(entries.len()),
        };
        let value = read(&mut object);
        object.note_unknown_keys();
        Ok(value)
    }

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
            let is_plain = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
            let node = if !key.is_empty() && key.bytes().all(is_plain) {
                self.node.key(&shortened(key), value)
            } else {
                self.node.entry(key, value)
            };
            node.note(format_args!("unknown key; {}", advice(key, &self.known)));
        }
    }
}

/// The remedy for an unknown key: the one that was probably meant, or a list of the known ones.
fn advice(unknown: &str, keys: &[&str]) -> String {
    let is_short_for = |key: &str| unknown.len() >= 4 && key.starts_with(unknown);
    let near = |key: &&&str| is_short_for(key) || levenshtein(unknown, key) <= 2;
    match keys.iter().find(near) {
        Some(key) => format!("did you mean \"{key}\"?"),
        None => format!("known keys are {}", keys.join(", ")),
    }
}
