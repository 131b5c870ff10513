//! What systemd says of the recovery unit, for the reports.

use std::time::SystemTime;

/// The unit's state at the time of the run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnitReport {
    /// Its name.
    pub name: String,
    /// `ActiveState=`.
    pub active_state: String,
    /// `SubState=`.
    pub sub_state: String,
    /// When it entered this state, where known.
    pub since: Option<SystemTime>,
    /// `NRestarts=`: automatic restarts since the last manual start, where known.
    pub restarts: Option<u64>,
}
