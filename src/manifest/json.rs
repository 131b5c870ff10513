//! Reads JSON in one pass, straight into what the manifest's tables hold, so that a wrong type is
//! a problem with a place and not the end of the reading. It knows no key and no rule.

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};
use strsim::levenshtein;

use super::Variables;
use super::given::Given;
use super::place::{Place, Problems, QUOTED, quoted};

/// What goes along on the pass.
pub(super) struct Context<'v> {
    pub(super) problems: Problems,
    pub(super) variables: Variables<'v>,
}

/// A value without parts, or the kind of one that has parts.
#[derive(Debug)]
pub(super) enum Scalar<'de> {
    Null,
    Bool(bool),
    Int(i128),
    Float(f64),
    Text(Cow<'de, str>),
    List,
    Table,
}

impl Scalar<'_> {
    /// The kind of value, which gives nothing of it away.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool(_) => "a boolean",
            Self::Int(_) | Self::Float(_) => "a number",
            Self::Text(_) => "a string",
            Self::List => "a list",
            Self::Table => "an object",
        }
    }

    /// The sentence about a value of the wrong type.
    pub(super) fn wrong_type(&self, remedy: impl fmt::Display) -> String {
        self.objection(self.kind(), remedy)
    }

    /// The sentence about a value that is `wrong`, quoted where it has no parts.
    pub(super) fn objection(&self, wrong: &str, remedy: impl fmt::Display) -> String {
        match self {
            Self::Null | Self::List | Self::Table => format!("is {wrong}; {remedy}"),
            _ => format!("{self} is {wrong}; {remedy}"),
        }
    }
}

/// The value as it was written, safe to print.
impl fmt::Display for Scalar<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bool(value) => write!(f, "{value}"),
            Self::Int(value) => write!(f, "{value}"),
            // `Debug` writes 1e300 in five characters where `Display` needs 301.
            Self::Float(value) => write!(f, "{value:?}"),
            Self::Text(text) => f.write_str(&quoted(text)),
            Self::Null | Self::List | Self::Table => f.write_str(self.kind()),
        }
    }
}

/// What is made of a value, whatever its type. Lists and tables are read past unless the shape
/// takes them.
pub(super) trait Shape<'de>: Sized {
    type Out;

    fn scalar(self, scalar: Scalar<'de>) -> Self::Out;

    fn list<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Out, A::Error> {
        while list.next_element::<IgnoredAny>()?.is_some() {}
        Ok(self.scalar(Scalar::List))
    }

    fn table<A: MapAccess<'de>>(self, mut table: A) -> Result<Self::Out, A::Error> {
        while table.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(self.scalar(Scalar::Table))
    }
}

/// A shape as serde wants it. Its errors are syntax errors only.
pub(super) struct Read<S>(pub(super) S);

impl<'de, S: Shape<'de>> DeserializeSeed<'de> for Read<S> {
    type Value = S::Out;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<S::Out, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de, S: Shape<'de>> Visitor<'de> for Read<S> {
    type Value = S::Out;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON value")
    }

    fn visit_unit<E>(self) -> Result<S::Out, E> {
        Ok(self.0.scalar(Scalar::Null))
    }

    fn visit_bool<E>(self, value: bool) -> Result<S::Out, E> {
        Ok(self.0.scalar(Scalar::Bool(value)))
    }

    fn visit_u64<E>(self, value: u64) -> Result<S::Out, E> {
        Ok(self.0.scalar(Scalar::Int(value.into())))
    }

    fn visit_i64<E>(self, value: i64) -> Result<S::Out, E> {
        Ok(self.0.scalar(Scalar::Int(value.into())))
    }

    fn visit_f64<E>(self, value: f64) -> Result<S::Out, E> {
        Ok(self.0.scalar(Scalar::Float(value)))
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<S::Out, E> {
        Ok(self.0.scalar(Scalar::Text(Cow::Borrowed(text))))
    }

    fn visit_str<E>(self, text: &str) -> Result<S::Out, E> {
        Ok(self.0.scalar(Scalar::Text(Cow::Owned(text.to_owned()))))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<S::Out, A::Error> {
        self.0.list(list)
    }

    fn visit_map<A: MapAccess<'de>>(self, table: A) -> Result<S::Out, A::Error> {
        self.0.table(table)
    }
}

/// Any value, compound ones by their kind only.
pub(super) struct AnyScalar;

impl<'de> Shape<'de> for AnyScalar {
    type Out = Scalar<'de>;

    fn scalar(self, scalar: Scalar<'de>) -> Scalar<'de> {
        scalar
    }
}

/// Reads the value that comes next in `table` by `rule`, whose sentence is noted where it fails.
pub(super) fn scalar<'de, A: MapAccess<'de>, T>(
    table: &mut A,
    place: &Place<'_>,
    context: &mut Context<'_>,
    rule: impl FnOnce(&Scalar<'de>) -> Result<T, String>,
) -> Result<Given<T>, A::Error> {
    let value = rule(&table.next_value_seed(Read(AnyScalar))?);
    Ok(Given::from(
        value
            .map_err(|message| context.problems.add(place, message))
            .ok(),
    ))
}

/// An object with keys of the manifest's own language.
pub(super) trait Table<'de> {
    /// Every key, at most 32, the required ones first.
    const KEYS: &'static [&'static str];
    /// How many keys are required.
    const REQUIRED: usize;

    /// Reads the value of `key`, which is one of [`Self::KEYS`] and stands at `place`.
    fn value<A: MapAccess<'de>>(
        &mut self,
        key: &'static str,
        table: &mut A,
        place: &Place<'_>,
        context: &mut Context<'_>,
    ) -> Result<(), A::Error>;
}

/// The shape that fills a [`Table`]; tells whether there was an object at all.
pub(super) struct Fill<'a, 'v, T> {
    pub(super) target: &'a mut T,
    pub(super) place: &'a Place<'a>,
    pub(super) context: &'a mut Context<'v>,
}

impl<'de, T: Table<'de>> Shape<'de> for Fill<'_, '_, T> {
    type Out = bool;

    fn scalar(self, scalar: Scalar<'de>) -> bool {
        let message = format!("is {}; give an object", scalar.kind());
        self.context.problems.add(self.place, message);
        false
    }

    fn table<A: MapAccess<'de>>(self, mut table: A) -> Result<bool, A::Error> {
        let mut seen: u32 = 0;
        while let Some(key) = table.next_key_seed(Read(KeyOf(T::KEYS)))? {
            match key {
                Key::Known(index, key) => {
                    let place = Place::Key(self.place, key);
                    if seen & (1 << index) == 0 {
                        seen |= 1 << index;
                        self.target
                            .value(key, &mut table, &place, &mut *self.context)?;
                    } else {
                        table.next_value::<IgnoredAny>()?;
                        let message = "duplicate key; keep one of the two";
                        self.context.problems.add(&place, message);
                    }
                }
                Key::Unknown(key) => {
                    table.next_value::<IgnoredAny>()?;
                    let plain = key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
                    // Quoted where it is long, since that cuts it short.
                    let place = if plain && (1..=QUOTED).contains(&key.len()) {
                        Place::Key(self.place, &key)
                    } else {
                        Place::Entry(self.place, &key)
                    };
                    let message = format!("unknown key; {}", advice(&key, T::KEYS));
                    self.context.problems.add(&place, message);
                }
            }
        }
        for (index, key) in T::KEYS.iter().take(T::REQUIRED).enumerate() {
            if seen & (1 << index) == 0 {
                let message = "missing; this key is required";
                self.context
                    .problems
                    .add(&Place::Key(self.place, key), message);
            }
        }
        Ok(true)
    }
}

enum Key {
    Known(usize, &'static str),
    Unknown(String),
}

struct KeyOf(&'static [&'static str]);

impl<'de> Shape<'de> for KeyOf {
    type Out = Key;

    fn scalar(self, scalar: Scalar<'de>) -> Key {
        let Scalar::Text(text) = scalar else {
            return Key::Unknown(scalar.to_string());
        };
        match self.0.iter().enumerate().find(|(_, key)| **key == text) {
            Some((index, key)) => Key::Known(index, key),
            None => Key::Unknown(text.into_owned()),
        }
    }
}

/// What to write instead of an unknown key: the one that was probably meant, or the choice.
fn advice(unknown: &str, keys: &[&str]) -> String {
    // Lengths first, because the distance of a long text takes long to find.
    let alike =
        |key: &str| unknown.len().abs_diff(key.len()) <= 2 && levenshtein(unknown, key) <= 2;
    let near = |key: &&&str| (unknown.len() >= 4 && key.starts_with(unknown)) || alike(key);
    match keys.iter().find(near) {
        Some(key) => format!("did you mean \"{key}\"?"),
        None => format!("known are {}", keys.join(", ")),
    }
}

/// A value that is compared later, as it stands; only a key that is there twice is a problem.
pub(super) struct Exact<'a, 'v> {
    pub(super) place: &'a Place<'a>,
    pub(super) context: &'a mut Context<'v>,
}

impl<'de> Shape<'de> for Exact<'_, '_> {
    type Out = Value;

    fn scalar(self, scalar: Scalar<'de>) -> Value {
        match scalar {
            Scalar::Null | Scalar::List | Scalar::Table => Value::Null,
            Scalar::Bool(value) => Value::Bool(value),
            Scalar::Int(value) => Number::from_i128(value).map_or(Value::Null, Value::Number),
            Scalar::Float(value) => Number::from_f64(value).map_or(Value::Null, Value::Number),
            Scalar::Text(text) => Value::String(text.into_owned()),
        }
    }

    fn list<A: SeqAccess<'de>>(self, mut list: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        loop {
            let place = Place::Item(self.place, items.len());
            let exact = Exact {
                place: &place,
                context: &mut *self.context,
            };
            match list.next_element_seed(Read(exact))? {
                Some(item) => items.push(item),
                None => return Ok(Value::Array(items)),
            }
        }
    }

    fn table<A: MapAccess<'de>>(self, mut table: A) -> Result<Value, A::Error> {
        let mut entries = Map::new();
        while let Some(key) = table.next_key::<String>()? {
            let place = Place::Entry(self.place, &key);
            let exact = Exact {
                place: &place,
                context: &mut *self.context,
            };
            let value = table.next_value_seed(Read(exact))?;
            if entries.contains_key(&key) {
                let message = "duplicate key; keep one of the two";
                self.context.problems.add(&place, message);
            }
            entries.insert(key, value);
        }
        Ok(Value::Object(entries))
    }
}
