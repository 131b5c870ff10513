//! Objects with keys of the manifest's own language: each key is declared once, and the struct, the
//! known keys, the reading and the defaults follow. It knows no particular key.

use std::borrow::Cow;

use serde::de::{IgnoredAny, MapAccess};
use strsim::levenshtein;

use super::field::Field;
use super::json::{Context, JsonValue, Reader, Seed, ValueVisitor};
use super::location::{Location, QUOTED};

/// Reads the object that comes next in `map`.
pub(super) fn object<'de, A: MapAccess<'de>, T: Object>(
    map: &mut A,
    location: &Location<'_>,
    context: &mut Context<'_>,
) -> Result<Field<T>, A::Error> {
    let mut target = T::default();
    let reader = Reader::new(&mut target, location, context);
    let is_object = map.next_value_seed(Seed(reader))?;
    Ok(is_object.then_some(target).into())
}

/// An object with keys of the manifest's own language; [`keys`] implements it.
pub(super) trait Object: Default {
    /// Every key, in the order in which messages list them.
    fn keys() -> Vec<&'static str>;

    /// Reads the value of `key`, and says whether there is such a key.
    fn read_value<'de, A: MapAccess<'de>>(
        &mut self,
        key: &str,
        map: &mut A,
        location: &Location<'_>,
        context: &mut Context<'_>,
    ) -> Result<bool, A::Error>;

    /// The required keys that have not been read.
    fn missing(&self) -> Vec<&'static str>;

    /// Fills the keys that are not there from `lower`.
    fn fill_from(&mut self, lower: &Self);

    /// Fills the object's own keys that are not there and have a default.
    fn fill_defaults(&mut self);
}

/// Declares an [`Object`]. Each line is a key:
///
/// ```text
/// field: Type = "key", reader(arguments), required;
/// field: Type = "key", reader(arguments), optional;
/// field: Type = "key", reader(arguments), default(value);
/// ```
///
/// The reader is called with the map, the location and the context before its own arguments. The
/// keys of the object after `..` are this object's own, too. With `for Target`, `build` makes that of
/// fields with the same names.
macro_rules! keys {
    ($(#[$meta:meta])* $name:ident for $target:ident { $($keys:tt)* }) => {
        keys! { $(#[$meta])* $name { $($keys)* } }
        keys! { @target $name $target { $($keys)* } }
    };
    (@target $name:ident $target:ident {
        $($field:ident: $type:ty = $key:literal, $reader:ident($($argument:expr)?),
            $kind:ident $(($default:expr))?;)*
    }) => {
        impl $name {
            /// The whole; none where a value is invalid, or a required one missing.
            pub(super) fn build(mut self) -> Option<$target> {
                self.fill_defaults();
                let Self { $($field),* } = self;
                Some($target { $($field: keys!(@build $kind $field)),* })
            }
        }
    };
    (@missing required $field:expr, $key:literal) => { $field.is_absent().then_some($key) };
    (@missing $kind:ident $field:expr, $key:literal) => { None };
    (@build optional $field:ident) => { $field.optional()? };
    (@build $kind:ident $field:ident) => { $field.value()? };
    (
        $(#[$meta:meta])* $name:ident {
            $($field:ident: $type:ty = $key:literal, $reader:ident($($argument:expr)?),
                $kind:ident $(($default:expr))?;)*
            $(..$rest:ident: $rest_type:ty)?
        }
    ) => {
        $(#[$meta])*
        #[derive(Clone, Default, PartialEq)]
        pub(super) struct $name {
            $(pub(super) $field: Field<$type>,)*
            $(pub(super) $rest: $rest_type,)?
        }

        impl Object for $name {
            fn keys() -> Vec<&'static str> {
                [vec![$($key),*], $(<$rest_type>::keys())?].concat()
            }

            fn read_value<'de, A: MapAccess<'de>>(
                &mut self,
                key: &str,
                map: &mut A,
                location: &Location<'_>,
                context: &mut Context<'_>,
            ) -> Result<bool, A::Error> {
                match key {
                    $($key if self.$field.is_absent() => {
                        self.$field = $reader(map, location, context, $($argument)?)?;
                    })*
                    $($key)|* => duplicate(map, location, context)?,
                    _ => {
                        $(return self.$rest.read_value(key, map, location, context);)?
                        #[allow(unreachable_code, reason = "there may be no other object")]
                        return Ok(false);
                    }
                }
                Ok(true)
            }

            fn missing(&self) -> Vec<&'static str> {
                let missing = [$(keys!(@missing $kind self.$field, $key)),*];
                missing.into_iter().flatten().collect()
            }

            fn fill_from(&mut self, lower: &Self) {
                $(self.$field.fill(|| lower.$field.clone());)*
                $(self.$rest.fill_from(&lower.$rest);)?
            }

            fn fill_defaults(&mut self) {
                $($(self.$field.fill(|| Field::Value($default));)?)*
            }
        }
    };
}
pub(super) use keys;

/// Skips the value of a key that has been read before.
pub(super) fn duplicate<'de, A: MapAccess<'de>>(
    map: &mut A,
    location: &Location<'_>,
    context: &mut Context<'_>,
) -> Result<(), A::Error> {
    map.next_value::<IgnoredAny>()?;
    let message = "duplicate key; keep one of the two";
    context.problems.add(location, message);
    Ok(())
}

/// Reads an [`Object`] in place, and says whether there was one at all.
impl<'de, T: Object> ValueVisitor<'de> for Reader<'_, '_, &mut T> {
    type Out = bool;

    fn scalar(self, value: JsonValue<'de>) -> Self::Out {
        let message = format!("is {}; give an object", value.kind());
        self.context.problems.add(self.location, message);
        false
    }

    fn object<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Out, A::Error> {
        while let Some(key) = map.next_key_seed(Seed(KeyText))? {
            let location = Location::Key(self.location, &key);
            if self
                .kind
                .read_value(&key, &mut map, &location, self.context)?
            {
                continue;
            }
            map.next_value::<IgnoredAny>()?;
            let plain = key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
            // Quoted where it is long, since that cuts it short.
            let location = if plain && (1..=QUOTED).contains(&key.len()) {
                location
            } else {
                Location::Entry(self.location, &key)
            };
            let message = format!("unknown key; {}", advice(&key, &T::keys()));
            self.context.problems.add(&location, message);
        }
        for key in self.kind.missing() {
            let location = Location::Key(self.location, key);
            let message = "missing; this key is required";
            self.context.problems.add(&location, message);
        }
        Ok(true)
    }
}

/// A key, which is always text.
struct KeyText;

impl<'de> ValueVisitor<'de> for KeyText {
    type Out = Cow<'de, str>;

    fn scalar(self, value: JsonValue<'de>) -> Self::Out {
        match value {
            JsonValue::Text(text) => text,
            other => other.to_string().into(),
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
