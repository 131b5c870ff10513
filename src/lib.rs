//! Probes the routes of a web backend and, when its core routes prove that it hangs, kills its
//! main process so that systemd restarts it.
//!
//! Data moves through the modules in this order: manifest → sweep → verdict → recovery → report →
//! exit status. No module imports from a later one, with one exception: after the core routes, the
//! sweep calls the verdict, which is pure, to decide whether to probe the others.

// These lints apply to the program without its tests: a table of cases may be long.
#![cfg_attr(test, allow(clippy::pedantic))]

pub mod cause;
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
