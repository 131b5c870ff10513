//! What systemd says about units, and what it will do after a kill. Only `systemctl` runs a program and only
//! `missing_path` touches the disk; everything else is pure.

mod command;
mod dependencies;
mod missing_path;
mod properties;
mod restart;
mod restart_time;
#[cfg(test)]
pub(crate) mod samples;
mod settings;
mod span;
mod systemctl;
mod unit;

pub(crate) use self::missing_path::missing_path;
pub(crate) use self::restart::{RestartFacts, units_to_reset};
pub(crate) use self::restart_time::{longest_restart, longest_start, runs_start_command};
pub(crate) use self::systemctl::{Systemctl, systemctl};
pub(crate) use self::unit::Unit;
