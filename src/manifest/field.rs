//! The value of one key: absent, invalid, or valid. Independent of JSON and of the keys.

/// The value of a key.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) enum Field<T> {
    /// The key is not there.
    #[default]
    Absent,
    /// The key is there, but with a problem that has been noted.
    Invalid,
    /// The key is there and valid.
    Value(T),
}

impl<T> Field<T> {
    /// Whether the key is not there.
    pub(super) fn is_absent(&self) -> bool {
        matches!(self, Self::Absent)
    }

    /// The value, where there is a valid one.
    pub(super) fn get(&self) -> Option<&T> {
        match self {
            Self::Absent | Self::Invalid => None,
            Self::Value(value) => Some(value),
        }
    }

    /// The same, taken out.
    pub(super) fn value(self) -> Option<T> {
        match self {
            Self::Absent | Self::Invalid => None,
            Self::Value(value) => Some(value),
        }
    }

    /// The value of an optional key: none where it is invalid.
    #[expect(
        clippy::option_option,
        reason = "whether it is there, if that is known"
    )]
    pub(super) fn optional(self) -> Option<Option<T>> {
        match self {
            Self::Absent => Some(None),
            Self::Invalid => None,
            Self::Value(value) => Some(Some(value)),
        }
    }

    /// Sets what is not there.
    pub(super) fn fill(&mut self, with: impl FnOnce() -> Self) {
        if self.is_absent() {
            *self = with();
        }
    }
}

impl<T> From<Option<T>> for Field<T> {
    /// `None` means a value with a problem.
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Invalid, Self::Value)
    }
}
