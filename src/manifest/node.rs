//! A value of the manifest with its place, and where its problems are noted.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fmt;

use super::Variables;
use super::json::Json;
use super::problems::quoted;

/// What is needed everywhere while a manifest is read.
pub(super) struct Context<'v> {
    pub(super) variables: Variables<'v>,
    /// All problems so far, each with its place. The reading goes on with the inherited value or the default; a
    /// manifest with any problem is refused.
    pub(super) problems: RefCell<Vec<String>>,
    /// The keys that have a problem somewhere: what follows from their values is unknown.
    pub(super) invalid: RefCell<BTreeSet<&'static str>>,
}

/// A value of the manifest with its place.
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

    /// An item of a list.
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

    /// Notes a problem with this value.
    pub(super) fn note(&self, message: impl fmt::Display) {
        let message = message.to_string();
        let route = self.route.map(quoted);
        let route = route.filter(|path| !message.contains(path.as_str()));
        let route = route.map_or_else(String::new, |path| format!(" (route {path})"));
        let place = self.place.as_str();
        let root = if place.is_empty() || place.starts_with('[') {
            "manifest"
        } else {
            ""
        };
        let mut problems = self.context.problems.borrow_mut();
        problems.push(format!("{root}{place}: {message}{route}"));
    }

    /// What was read from this value; none after the message about it was noted.
    pub(super) fn check<T>(&self, read: Result<T, String>) -> Option<T> {
        read.map_err(|message| self.note(message)).ok()
    }
}
