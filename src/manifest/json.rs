//! JSON, read in one pass without building a tree: tables with known keys, lists, and lenient
//! scalars, so that a value of the wrong kind is a problem with its place rather than the end of
//! reading. Knows nothing of what the keys mean.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::place::{Place, Problems};
use crate::text::escape;

/// A value as it was written, as far as a single value can say it.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Scalar {
    Null,
    Bool(bool),
    Int(i128),
    Float(f64),
    Text(String),
    List,
    Table,
}

impl fmt::Display for Scalar {
    /// The value for a message, quoted and escaped, or its kind.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const LONGEST: usize = 60;
        match self {
            Self::Null => f.write_str("null"),
            Self::Bool(value) => write!(f, "{value}"),
            Self::Int(value) => write!(f, "{value}"),
            Self::Float(value) => write!(f, "{value}"),
            Self::Text(text) => match text.char_indices().nth(LONGEST) {
                Some((cut, _)) => write!(f, "\"{}…\"", escape(text.get(..cut).unwrap_or_default())),
                None => write!(f, "\"{}\"", escape(text)),
            },
            Self::List => f.write_str("a list"),
            Self::Table => f.write_str("an object"),
        }
    }
}

/// Reads a scalar; of lists and objects only that they are such.
pub(super) struct ScalarSeed;

impl<'de> DeserializeSeed<'de> for ScalarSeed {
    type Value = Scalar;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Scalar, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for ScalarSeed {
    type Value = Scalar;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_unit<E: Error>(self) -> Result<Scalar, E> {
        Ok(Scalar::Null)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Scalar, E> {
        Ok(Scalar::Bool(value))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Scalar, E> {
        Ok(Scalar::Int(value.into()))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Scalar, E> {
        Ok(Scalar::Int(value.into()))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Scalar, E> {
        Ok(Scalar::Float(value))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Scalar, E> {
        Ok(Scalar::Text(value.to_owned()))
    }

    fn visit_string<E: Error>(self, value: String) -> Result<Scalar, E> {
        Ok(Scalar::Text(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Scalar, A::Error> {
        while list.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Scalar::List)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut table: A) -> Result<Scalar, A::Error> {
        while table.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Scalar::Table)
    }
}

/// Something that a JSON object or list is read into.
pub(super) trait Fill {
    /// What the value must be, with its article: "an object", "a list".
    const KIND: &'static str;

    /// Takes an object's entries; the default refuses objects.
    fn table<'de, A: MapAccess<'de>>(
        &mut self,
        mut table: A,
        place: &Place,
        problems: &mut Problems,
    ) -> Result<(), A::Error> {
        while table.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        problems.add(place, format_args!("an object; give {}", Self::KIND));
        Ok(())
    }

    /// Takes a list's elements; the default refuses lists.
    fn list<'de, A: SeqAccess<'de>>(
        &mut self,
        mut list: A,
        place: &Place,
        problems: &mut Problems,
    ) -> Result<(), A::Error> {
        while list.next_element::<IgnoredAny>()?.is_some() {}
        problems.add(place, format_args!("a list; give {}", Self::KIND));
        Ok(())
    }
}

/// Reads a value into `target`.
pub(super) struct Into<'a, T> {
    pub(super) target: &'a mut T,
    pub(super) place: &'a Place<'a>,
    pub(super) problems: &'a mut Problems,
}

impl<'de, T: Fill> DeserializeSeed<'de> for Into<'_, T> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<T: Fill> Into<'_, T> {
    fn refuse(self, scalar: &Scalar) {
        self.problems.add(
            self.place,
            format_args!("{scalar} is not {0}; give {0}", T::KIND),
        );
    }
}

impl<'de, T: Fill> Visitor<'de> for Into<'_, T> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(T::KIND)
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        self.refuse(&Scalar::Null);
        Ok(())
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<(), E> {
        self.refuse(&Scalar::Bool(value));
        Ok(())
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<(), E> {
        self.refuse(&Scalar::Int(value.into()));
        Ok(())
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<(), E> {
        self.refuse(&Scalar::Int(value.into()));
        Ok(())
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<(), E> {
        self.refuse(&Scalar::Float(value));
        Ok(())
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<(), E> {
        self.refuse(&Scalar::Text(value.to_owned()));
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<(), A::Error> {
        self.target.list(list, self.place, self.problems)
    }

    fn visit_map<A: MapAccess<'de>>(self, table: A) -> Result<(), A::Error> {
        self.target.table(table, self.place, self.problems)
    }
}

/// The keys of one object: which are known, and which were seen.
pub(super) struct Keys {
    known: &'static [&'static str],
    seen: u32,
}

impl Keys {
    /// No key seen yet of at most 32 known ones.
    pub(super) fn of(known: &'static [&'static str]) -> Self {
        Self { known, seen: 0 }
    }

    /// Whether `key` was among them.
    pub(super) fn saw(&self, key: &str) -> bool {
        let index = self.known.iter().position(|known| *known == key);
        index.is_some_and(|index| self.seen & (1 << index) != 0)
    }

    /// The next known key of `table`. Unknown and repeated ones are problems, and their values are
    /// passed over.
    pub(super) fn next<'de, A: MapAccess<'de>>(
        &mut self,
        table: &mut A,
        place: &Place,
        problems: &mut Problems,
    ) -> Result<Option<&'static str>, A::Error> {
        while let Some(key) = table.next_key_seed(KeySeed(self.known))? {
            let known = match key {
                Key::Known(index) => self.known.get(index).map(|key| (index, *key)),
                Key::Unknown(name) => {
                    problems.add(&place.name(&name), unknown(&name, self.known));
                    None
                }
            };
            if let Some((index, key)) = known {
                let bit = 1 << index;
                if self.seen & bit == 0 {
                    self.seen |= bit;
                    return Ok(Some(key));
                }
                problems.add(&place.key(key), "given twice; give it once");
            }
            table.next_value::<IgnoredAny>()?;
        }
        Ok(None)
    }
}

/// What to say of a key that is not known.
fn unknown(name: &str, known: &[&str]) -> String {
    match known.iter().find(|key| near(key, name)) {
        Some(meant) => format!("unknown key; did you mean \"{meant}\"?"),
        None => format!("unknown key; known here: {}", known.join(", ")),
    }
}

/// Whether two names differ only in case, in the characters between words, in the unit at the
/// end, or in one letter more or less.
fn near(key: &str, name: &str) -> bool {
    let plain = |text: &str| {
        let letters = text.chars().filter(char::is_ascii_alphanumeric);
        letters.map(|c| c.to_ascii_lowercase()).collect::<String>()
    };
    let (key, name) = (plain(key), plain(name));
    let bare = key.strip_suffix("seconds").unwrap_or(&key);
    key == name
        || bare == name
        || key.strip_suffix('s') == Some(&name)
        || name.strip_suffix('s') == Some(&key)
}

enum Key {
    Known(usize),
    Unknown(String),
}

/// Compares a key where it stands, without a copy.
struct KeySeed(&'static [&'static str]);

impl<'de> DeserializeSeed<'de> for KeySeed {
    type Value = Key;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Key, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for KeySeed {
    type Value = Key;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Key, E> {
        let index = self.0.iter().position(|known| *known == text);
        Ok(index.map_or_else(|| Key::Unknown(text.to_owned()), Key::Known))
    }
}
