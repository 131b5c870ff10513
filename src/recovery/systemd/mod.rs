//! What systemd says about units, and what it will do after a kill. Only `systemctl` runs a program and only
//! `missing_path` touches the disk; everything else is pure.

mod dependencies;
mod missing_path;
mod properties;
mod restart;
#[cfg(test)]
pub(crate) mod samples;
mod systemctl;
mod unit;

pub(crate) use self::missing_path::missing_path;
pub(crate) use self::restart::{RestartFacts, longest_restart, runs_start_command, units_to_reset};
pub(crate) use self::systemctl::{Systemctl, systemctl};
pub(crate) use self::unit::Unit;
