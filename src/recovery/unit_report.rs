//! What systemd says of the recovery unit, for the reports.

use std::time::SystemTime;

use super::systemd::Unit;
use crate::clock::Monotonic;

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

impl UnitReport {
    /// The state of the unit called `name`, as of `now` on both clocks; none if systemd does not say it.
    pub(super) fn of(
        name: &str,
        unit: &Unit,
        now: Monotonic,
        wall_clock: SystemTime,
    ) -> Option<Self> {
        let since = unit.state_changed().ok();
        Some(Self {
            name: name.to_owned(),
            active_state: unit.active_state().ok()?.to_owned(),
            sub_state: unit.sub_state().ok()?.to_owned(),
            since: since.and_then(|since| wall_clock.checked_sub(now.since(since))),
            restarts: unit
                .value("NRestarts")
                .and_then(|number| number.parse().ok()),
        })
    }
}
