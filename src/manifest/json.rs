//! Reads JSON in one pass into the objects of the manifest, so that a wrong type is a problem with a
//! location and does not end the reading. Independent of the keys and rules.

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use super::Variables;
use super::field::Field;
use super::location::{Location, Problems, quoted};

/// The state of the pass.
pub(super) struct Context<'v> {
    pub(super) problems: Problems,
    pub(super) variables: Variables<'v>,
}

/// A value without parts, or the kind of one that has parts.
#[derive(Debug)]
pub(super) enum JsonValue<'de> {
    Null,
    Bool(bool),
    Int(i128),
    Float(f64),
    Text(Cow<'de, str>),
    Array,
    Object,
}

impl JsonValue<'_> {
    /// The kind of value, without its content.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool(_) => "a boolean",
            Self::Int(_) | Self::Float(_) => "a number",
            Self::Text(_) => "a string",
            Self::Array => "a list",
            Self::Object => "an object",
        }
    }

    /// The message about a value of the wrong type.
    pub(super) fn wrong_type(&self, remedy: impl fmt::Display) -> String {
        self.problem(self.kind(), remedy)
    }

    /// The message about a value that is `wrong`, quoted where it has no parts.
    pub(super) fn problem(&self, wrong: &str, remedy: impl fmt::Display) -> String {
        match self {
            Self::Null | Self::Array | Self::Object => format!("is {wrong}; {remedy}"),
            _ => format!("{self} is {wrong}; {remedy}"),
        }
    }
}

/// The value as it was written, safe to print.
impl fmt::Display for JsonValue<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bool(value) => write!(f, "{value}"),
            Self::Int(value) => write!(f, "{value}"),
            // `Debug` writes 1e300 in five characters where `Display` needs 301.
            Self::Float(value) => write!(f, "{value:?}"),
            Self::Text(text) => f.write_str(&quoted(text)),
            Self::Null | Self::Array | Self::Object => f.write_str(self.kind()),
        }
    }
}

/// Converts a value of any type. Arrays and objects are skipped unless the visitor handles them.
pub(super) trait ValueVisitor<'de>: Sized {
    type Out;

    fn scalar(self, scalar: JsonValue<'de>) -> Self::Out;

    fn array<A: SeqAccess<'de>>(self, mut array: A) -> Result<Self::Out, A::Error> {
        while array.next_element::<IgnoredAny>()?.is_some() {}
        Ok(self.scalar(JsonValue::Array))
    }

    fn object<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Out, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(self.scalar(JsonValue::Object))
    }
}

/// Adapts a visitor to serde. Its only errors are syntax errors.
pub(super) struct Seed<S>(pub(super) S);

impl<'de, S: ValueVisitor<'de>> DeserializeSeed<'de> for Seed<S> {
    type Value = S::Out;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<S::Out, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de, S: ValueVisitor<'de>> Visitor<'de> for Seed<S> {
    type Value = S::Out;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON value")
    }

    fn visit_unit<E>(self) -> Result<S::Out, E> {
        Ok(self.0.scalar(JsonValue::Null))
    }

    fn visit_bool<E>(self, value: bool) -> Result<S::Out, E> {
        Ok(self.0.scalar(JsonValue::Bool(value)))
    }

    fn visit_u64<E>(self, value: u64) -> Result<S::Out, E> {
        Ok(self.0.scalar(JsonValue::Int(value.into())))
    }

    fn visit_i64<E>(self, value: i64) -> Result<S::Out, E> {
        Ok(self.0.scalar(JsonValue::Int(value.into())))
    }

    fn visit_f64<E>(self, value: f64) -> Result<S::Out, E> {
        Ok(self.0.scalar(JsonValue::Float(value)))
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<S::Out, E> {
        Ok(self.0.scalar(JsonValue::Text(Cow::Borrowed(text))))
    }

    fn visit_str<E>(self, text: &str) -> Result<S::Out, E> {
        Ok(self.0.scalar(JsonValue::Text(Cow::Owned(text.to_owned()))))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, array: A) -> Result<S::Out, A::Error> {
        self.0.array(array)
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<S::Out, A::Error> {
        self.0.object(map)
    }
}

/// A visitor that notes problems, with its location and the state of the pass.
pub(super) struct Reader<'a, 'v, K> {
    pub(super) kind: K,
    pub(super) location: &'a Location<'a>,
    pub(super) context: &'a mut Context<'v>,
}

impl<'a, 'v, K> Reader<'a, 'v, K> {
    pub(super) fn new(kind: K, location: &'a Location<'a>, context: &'a mut Context<'v>) -> Self {
        Self {
            kind,
            location,
            context,
        }
    }
}

/// Reads the value that comes next in `map` as `kind` does.
pub(super) fn visit<'de, A: MapAccess<'de>, K, T>(
    map: &mut A,
    location: &Location<'_>,
    context: &mut Context<'_>,
    kind: K,
) -> Result<Field<T>, A::Error>
where
    for<'a, 'v> Reader<'a, 'v, K>: ValueVisitor<'de, Out = Option<T>>,
{
    let reader = Reader::new(kind, location, context);
    Ok(map.next_value_seed(Seed(reader))?.into())
}

/// Any value; arrays and objects only by their kind.
pub(super) struct AnyValue;

impl<'de> ValueVisitor<'de> for AnyValue {
    type Out = JsonValue<'de>;

    fn scalar(self, scalar: JsonValue<'de>) -> JsonValue<'de> {
        scalar
    }
}

/// Reads the value that comes next in `map` by `rule`, whose message is noted where it fails.
pub(super) fn scalar<'de, A: MapAccess<'de>, T>(
    map: &mut A,
    location: &Location<'_>,
    context: &mut Context<'_>,
    rule: impl FnOnce(&JsonValue<'de>) -> Result<T, String>,
) -> Result<Field<T>, A::Error> {
    let value = rule(&map.next_value_seed(Seed(AnyValue))?);
    Ok(Field::from(
        value
            .map_err(|message| context.problems.add(location, message))
            .ok(),
    ))
}

/// A value for a later comparison, unchanged except for the variables in its strings. A duplicate key
/// is a problem.
pub(super) struct Exact;

impl<'de> ValueVisitor<'de> for Reader<'_, '_, Exact> {
    type Out = Value;

    fn scalar(self, scalar: JsonValue<'de>) -> Value {
        match scalar {
            JsonValue::Null | JsonValue::Array | JsonValue::Object => Value::Null,
            JsonValue::Bool(value) => Value::Bool(value),
            JsonValue::Int(value) => Number::from_i128(value).map_or(Value::Null, Value::Number),
            JsonValue::Float(value) => Number::from_f64(value).map_or(Value::Null, Value::Number),
            JsonValue::Text(text) => match self.context.variables.expand(&text) {
                Ok(expanded) => Value::String(expanded.text),
                Err(message) => {
                    self.context.problems.add(self.location, message);
                    Value::Null
                }
            },
        }
    }

    fn array<A: SeqAccess<'de>>(self, mut array: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        loop {
            let location = Location::Item(self.location, items.len());
            let reader = Reader::new(Exact, &location, self.context);
            match array.next_element_seed(Seed(reader))? {
                Some(item) => items.push(item),
                None => return Ok(Value::Array(items)),
            }
        }
    }

    fn object<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut entries = Map::new();
        while let Some(key) = map.next_key::<String>()? {
            let location = Location::Entry(self.location, &key);
            let reader = Reader::new(Exact, &location, self.context);
            let value = map.next_value_seed(Seed(reader))?;
            if entries.contains_key(&key) {
                let message = "duplicate key; keep one of the two";
                self.context.problems.add(&location, message);
            }
            entries.insert(key, value);
        }
        Ok(Value::Object(entries))
    }
}
