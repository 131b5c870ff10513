//! Probes the routes of a web backend and, when its core routes prove that it hangs, kills its
//! main process so that systemd restarts it.
//!
//! The modules stand in the order in which data moves: manifest → sweep → verdict → recovery →
//! report → exit status. None imports from a later stage, except that the sweep asks the pure
//! verdict, after the core routes, whether probing the others still makes sense.

// The program itself is built, and held to these lints, without its tests: a table of cases may be
// as long as it likes.
#![cfg_attr(test, allow(clippy::pedantic))]

pub mod cli;
pub mod clock;
pub mod escape;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzzing;
pub mod manifest;
mod privileges;
pub mod recovery;
pub mod report;
#[cfg(test)]
#[path = "../tests/health/skip.rs"]
mod skip;
pub mod status;
pub mod stderr;
pub mod sweep;

pub mod verdict;
