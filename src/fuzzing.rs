//! Exports the properties that hold for any input to the fuzz targets, which are a separate crate and cannot
//! reach the private parsers. Compiled only for tests and with `cfg(fuzzing)`, which cargo-fuzz sets, so the
//! program contains none of it.

pub use crate::manifest::properties::manifest_property;
pub use crate::recovery::properties::{netlink_property, proc_property, show_property};

#[cfg(test)]
mod tests;
