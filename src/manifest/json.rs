//! A manifest's text as a tree of values, which keeps what serde_json's own does not: the order of keys,
//! duplicate keys, and what came before a syntax error. Independent of the keys and rules.

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use super::problems::{Context, DUPLICATE_KEY, Location, quoted};

/// A value, which borrows from the text.
#[derive(Debug)]
pub(super) enum Json<'t> {
    Null,
    Bool(bool),
    Number(Number),
    Text(Cow<'t, str>),
    Array(Vec<Json<'t>>),
    Object(Vec<(Cow<'t, str>, Json<'t>)>),
    /// A value that is missing because of a syntax error.
    Cut,
}

impl<'t> Json<'t> {
    /// Reads a text, up to its first syntax error. The items of the array at the top level's `key` are
    /// passed to `take` as they are parsed, and not kept.
    pub(super) fn parse(
        text: &'t str,
        key: &str,
        take: &mut dyn FnMut(Json<'t>),
    ) -> (Self, Result<(), serde_json::Error>) {
        let mut json = Json::Cut;
        let mut deserializer = serde_json::Deserializer::from_str(text);
        let reader = Reader {
            json: &mut json,
            key: Some(key),
            take: Some(take),
        };
        let read = reader.deserialize(&mut deserializer);
        (json, read.and_then(|()| deserializer.end()))
    }

    /// Whether a syntax error ended this value.
    pub(super) fn is_cut(&self) -> bool {
        match self {
            Self::Cut => true,
            Self::Array(items) => matches!(items.last(), Some(Self::Cut)),
            Self::Object(entries) => entries.last().is_some_and(|(_, value)| value.is_cut()),
            Self::Null | Self::Bool(_) | Self::Number(_) | Self::Text(_) => false,
        }
    }

    /// The text, if the value is a string.
    pub(super) fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The kind of value, without its content.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Null | Self::Cut => "null",
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
            Self::Null | Self::Cut | Self::Array(_) | Self::Object(_) => String::new(),
        };
        format!("{quoted}is {wrong}; {remedy}")
    }

    /// The value for a later comparison, unchanged except for the variables in its strings. A duplicate
    /// key is a problem.
    pub(super) fn expand(&self, location: &Location<'_>, context: &mut Context<'_>) -> Value {
        match self {
            Self::Null | Self::Cut => Value::Null,
            Self::Bool(value) => Value::Bool(*value),
            Self::Number(value) => Value::Number(value.clone()),
            Self::Text(text) => match context.variables.expand(text) {
                Ok(expanded) => Value::String(expanded.text),
                Err(message) => {
                    context.problems.add(location, message);
                    Value::Null
                }
            },
            Self::Array(items) => items
                .iter()
                .enumerate()
                .map(|(index, item)| item.expand(&Location::Item(location, index), context))
                .collect(),
            Self::Object(entries) => {
                let mut expanded = Map::new();
                let there = entries
                    .iter()
                    .filter(|(_, value)| !matches!(value, Self::Cut));
                for (key, value) in there {
                    let location = Location::Entry(location, key);
                    let value = value.expand(&location, context);
                    if expanded.insert(key.to_string(), value).is_some() {
                        context.problems.add(&location, DUPLICATE_KEY);
                    }
                }
                Value::Object(expanded)
            }
        }
    }
}

/// Reads a value in place, so that everything before a syntax error is kept.
struct Reader<'r, 't> {
    json: &'r mut Json<'t>,
    /// The key of this object whose array items are passed to `take`.
    key: Option<&'r str>,
    take: Option<&'r mut dyn FnMut(Json<'t>)>,
}

impl<'r, 't> Reader<'r, 't> {
    fn new(json: &'r mut Json<'t>) -> Self {
        Self {
            json,
            key: None,
            take: None,
        }
    }
}

impl<'t> DeserializeSeed<'t> for Reader<'_, 't> {
    type Value = ();

    fn deserialize<D: Deserializer<'t>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'t> Visitor<'t> for Reader<'_, 't> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON value")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        *self.json = Json::Null;
        Ok(())
    }

    fn visit_bool<E>(self, value: bool) -> Result<(), E> {
        *self.json = Json::Bool(value);
        Ok(())
    }

    fn visit_u64<E>(self, value: u64) -> Result<(), E> {
        *self.json = Json::Number(value.into());
        Ok(())
    }

    fn visit_i64<E>(self, value: i64) -> Result<(), E> {
        *self.json = Json::Number(value.into());
        Ok(())
    }

    fn visit_f64<E>(self, value: f64) -> Result<(), E> {
        *self.json = Number::from_f64(value).map_or(Json::Null, Json::Number);
        Ok(())
    }

    fn visit_borrowed_str<E>(self, text: &'t str) -> Result<(), E> {
        *self.json = Json::Text(text.into());
        Ok(())
    }

    fn visit_str<E>(self, text: &str) -> Result<(), E> {
        *self.json = Json::Text(text.to_owned().into());
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'t>>(mut self, mut array: A) -> Result<(), A::Error> {
        let mut items = Vec::new();
        let end = loop {
            let mut item = Json::Cut;
            let read = array.next_element_seed(Reader::new(&mut item));
            if let Ok(None) = read {
                break Ok(());
            }
            match &mut self.take {
                Some(take) => take(item),
                None => items.push(item),
            }
            if let Err(error) = read {
                items.push(Json::Cut);
                break Err(error);
            }
        };
        *self.json = Json::Array(items);
        end
    }

    fn visit_map<A: MapAccess<'t>>(mut self, mut map: A) -> Result<(), A::Error> {
        let mut entries = Vec::with_capacity(2);
        let end = loop {
            let (mut key, mut value) = (Json::Cut, Json::Cut);
            let read = match map.next_key_seed(Reader::new(&mut key)) {
                Ok(None) => break Ok(()),
                Ok(Some(())) => {
                    let mut reader = Reader::new(&mut value);
                    if let Some(take) = &mut self.take
                        && self
                            .key
                            .take_if(|wanted| key.text() == Some(wanted))
                            .is_some()
                    {
                        reader.take = Some(&mut **take);
                    }
                    map.next_value_seed(reader)
                }
                Err(error) => Err(error),
            };
            let key = match key {
                Json::Text(key) => key,
                _ => Cow::default(),
            };
            entries.push((key, value));
            if let Err(error) = read {
                break Err(error);
            }
        };
        *self.json = Json::Object(entries);
        end
    }
}
