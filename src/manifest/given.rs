//! What an author gave for one key: nothing, something wrong, or a value. It knows neither JSON nor
//! any key.

/// A key's value, as far as it is known.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) enum Given<T> {
    /// The key is not there.
    #[default]
    Absent,
    /// The key is there, but with a problem that has been noted.
    Broken,
    /// The key is there and valid.
    Value(T),
}

impl<T> Given<T> {
    /// The value, or else the default; none where the author's value is not known.
    pub(super) fn or(self, default: T) -> Option<T> {
        match self {
            Self::Absent => Some(default),
            Self::Broken => None,
            Self::Value(value) => Some(value),
        }
    }

    /// The same with `change` made to the value.
    pub(super) fn map<U>(self, change: impl FnOnce(T) -> U) -> Given<U> {
        match self {
            Self::Absent => Given::Absent,
            Self::Broken => Given::Broken,
            Self::Value(value) => Given::Value(change(value)),
        }
    }

    /// The value, where there is a valid one.
    pub(super) fn value(self) -> Option<T> {
        match self {
            Self::Absent | Self::Broken => None,
            Self::Value(value) => Some(value),
        }
    }

    /// The value, or else that of `lower`, or else the default; none where the author's value is
    /// not known.
    pub(super) fn over(self, lower: &Self, default: T) -> Option<T>
    where
        T: Clone,
    {
        match self {
            Self::Absent => lower.clone().or(default),
            own => own.or(default),
        }
    }
}

impl<T> From<Option<T>> for Given<T> {
    /// None stands for a value with a problem.
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Broken, Self::Value)
    }
}
