//! The one entry point to the properties that hold for all input: the fuzz targets are a crate of their
//! own, and two of the parsers are private. In no build but that of the tests and the fuzzer
//! (`cfg(fuzzing)`, which cargo-fuzz sets), so the program holds nothing of it.

pub use crate::manifest::properties::manifest_property;
pub use crate::recovery::properties::{netlink_property, proc_property, show_property};

#[cfg(test)]
mod tests;
