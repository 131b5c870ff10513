//! A manifest's text as a tree of values, which keeps what serde_json's own does not: the order of keys, and
//! duplicate keys. Independent of the keys and rules.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use super::object::DUPLICATE_KEY;
use super::problems::{Context, entry, quoted};

/// A value.
#[derive(Debug)]
pub(super) enum Json {
    Null,
    Bool(bool),
    Number(Number),
    Text(String),
    Array(Vec<Json>),
    Object(Vec<(String, Json)>),
}

impl Json {
    /// The text, if the value is a string.
    pub(super) fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The first value of a key, if the value is an object with it.
    pub(super) fn get(&self, key: &str) -> Option<&Self> {
        match self {
            Self::Object(entries) => entries
                .iter()
                .find(|(name, _)| name == key)
                .map(|(_, value)| value),
            _ => None,
        }
    }

    /// The kind of value, without its content.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool(_) => "a boolean",
            Self::Number(_) => "a number",
            Self::Text(_) => "a string",
            Self::Array(_) => "a list",
            Self::Object(_) => "an object",
        }
    }

    /// The message about a value of the wrong type.
    pub(super) fn wrong_type(&self, remedy: impl fmt::Display) -> String {
        self.problem(self.kind(), remedy)
    }

    /// The message about a value that is `wrong`; shows the value unless it is a list or an object.
    pub(super) fn problem(&self, wrong: &str, remedy: impl fmt::Display) -> String {
        let quoted = match self {
            Self::Bool(value) => format!("{value} "),
            Self::Number(value) => format!("{value} "),
            Self::Text(text) => format!("{} ", quoted(text)),
            Self::Null | Self::Array(_) | Self::Object(_) => String::new(),
        };
        format!("{quoted}is {wrong}; {remedy}")
    }

    /// The value for a later comparison, unchanged except for the variables in its strings. A duplicate
    /// key is a problem.
    pub(super) fn expand(&self, place: &str, context: &mut Context<'_>) -> Value {
        match self {
            Self::Null => Value::Null,
            Self::Bool(value) => Value::Bool(*value),
            Self::Number(value) => Value::Number(value.clone()),
            Self::Text(text) => {
                let expanded = context.variables.expand(text);
                let expanded = context.check(place, expanded);
                expanded.map_or(Value::Null, |expanded| Value::String(expanded.text))
            }
            Self::Array(items) => items
                .iter()
                .enumerate()
                .map(|(index, item)| item.expand(&format!("{place}[{index}]"), context))
                .collect(),
            Self::Object(entries) => {
                let mut expanded = Map::new();
                for (key, value) in entries {
                    let place = entry(place, key);
                    let value = value.expand(&place, context);
                    if expanded.insert(key.clone(), value).is_some() {
                        context.note(&place, DUPLICATE_KEY);
                    }
                }
                Value::Object(expanded)
            }
        }
    }
}

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Tree)
    }
}

struct Tree;

impl<'de> Visitor<'de> for Tree {
    type Value = Json;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON value")
    }

    fn visit_unit<E>(self) -> Result<Json, E> {
        Ok(Json::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Json, E> {
        Ok(Json::Bool(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Json, E> {
        Ok(Json::Number(value.into()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Json, E> {
        Ok(Json::Number(value.into()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Json, E> {
        Ok(Number::from_f64(value).map_or(Json::Null, Json::Number))
    }

    fn visit_str<E>(self, text: &str) -> Result<Json, E> {
        Ok(Json::Text(text.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut array: A) -> Result<Json, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = array.next_element()? {
            items.push(item);
        }
        items.shrink_to_fit();
        Ok(Json::Array(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Json, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = map.next_entry()? {
            entries.push(entry);
        }
        // Most of 10,000 routes have one or two keys, and a Vec has room for four.
        entries.shrink_to_fit();
        Ok(Json::Object(entries))
    }
}
