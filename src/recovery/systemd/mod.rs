//! What systemd says about units, and what it will do after a kill. Only `systemctl` runs a program and only
//! `missing_path` touches the disk; everything else is pure.

mod command;
mod dependencies;
mod missing_path;
mod properties;
mod restart;
mod restart_time;
#[cfg(test)]
pub(in crate::recovery) mod samples;
mod settings;
mod span;
mod systemctl;
mod unit;

pub(in crate::recovery) use self::missing_path::missing_path;
pub(in crate::recovery) use self::restart::{RestartFacts, units_to_reset};
pub(in crate::recovery) use self::restart_time::{
    longest_restart, longest_start, runs_start_command,
};
pub(in crate::recovery) use self::systemctl::{Systemctl, systemctl};
pub(in crate::recovery) use self::unit::Unit;
