//! A manifest's text as a tree of values, which keeps what serde_json's own does not: the order of keys, and
//! duplicate keys. Independent of the keys and rules.

use std::fmt;

use serde::de::value::SeqAccessDeserializer;
use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::Number;

use super::syntax;
use crate::escape::quoted;

pub(super) const MOST_BYTES: usize = 8 * 1024 * 1024;

#[derive(Debug)]
pub(super) enum Json {
    Null,
    Bool(bool),
    Number(Number),
    Text(String),
    // Not Vec, which grows in steps and would double the memory of a manifest with 10,000 routes.
    Array(Box<[Json]>),
    Object(Box<[(String, Json)]>),
}

impl Json {
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, String> {
        if bytes.len() > MOST_BYTES {
            return Err("manifest: exceeds the 8 MiB limit; split it in two".to_owned());
        }
        let text = std::str::from_utf8(bytes).map_err(|error| {
            let valid = bytes.get(..error.valid_up_to()).unwrap_or_default();
            let place = syntax::place(&String::from_utf8_lossy(valid));
            format!("{place}: is not UTF-8; save the file as UTF-8")
        })?;
        serde_json::from_str(text).map_err(|error| syntax::message(text, &error))
    }

    pub(super) fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The first value of a key, if the value is an object with it.
    pub(super) fn get(&self, key: &str) -> Option<&Self> {
        match self {
            Self::Object(entries) => {
                let mut entries = entries.iter();
                entries.find_map(|(name, value)| (name == key).then_some(value))
            }
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

    fn visit_seq<A: SeqAccess<'de>>(self, array: A) -> Result<Json, A::Error> {
        Deserialize::deserialize(SeqAccessDeserializer::new(array)).map(Json::Array)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Json, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = map.next_entry()? {
            entries.push(entry);
        }
        Ok(Json::Object(entries.into()))
    }
}
