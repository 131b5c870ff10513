//! What the guards judge: the facts about a unit and its main process, gathered by others. No
//! opinions here.

use std::time::Duration;

use super::Heard;
use super::unit::UnitState;
use crate::clock::Monotonic;
use crate::manifest::{KillSignal, Scope};

/// What stays the same from one look at the unit to the next.
#[derive(Clone, Debug)]
pub(super) struct Standing<'a> {
    /// The unit's name.
    pub(super) unit: &'a str,
    /// Its manager.
    pub(super) scope: Scope,
    /// The signal to be sent.
    pub(super) signal: KillSignal,
    /// A main process younger than this is still starting.
    pub(super) min_uptime: Duration,
    /// When the sweep began that found the backend hung.
    pub(super) sweep_began: Monotonic,
    /// Whether that sweep was starved.
    pub(super) starved: bool,
    /// This process.
    pub(super) own_pid: u32,
    /// Why the base URL may lead to another machine.
    pub(super) not_local: Option<String>,
    /// Why the manifest may be another user's.
    pub(super) manifest_writable: Option<String>,
}

/// How a person types `systemctl` for this manager.
pub(super) const fn systemctl(scope: Scope) -> &'static str {
    match scope {
        Scope::System => "systemctl",
        Scope::User => "systemctl --user",
    }
}

/// How a person types `journalctl` for this manager.
pub(super) const fn journalctl(scope: Scope) -> &'static str {
    match scope {
        Scope::System => "journalctl",
        Scope::User => "journalctl --user",
    }
}

/// One look: everything that may be different a moment later.
#[derive(Clone, Debug)]
pub(super) struct Look<'a> {
    /// When systemd was asked.
    pub(super) at: Monotonic,
    /// What systemd says.
    pub(super) unit: &'a UnitState,
    /// What it said at the first look, if this is not the first.
    pub(super) before: Option<&'a UnitState>,
    /// The main process that the first look found.
    pub(super) process: Process,
    /// What the last GET has brought so far.
    pub(super) heard: Heard,
}

impl Look<'_> {
    /// The unit as it was when its main process was first looked at: what is said of the age of
    /// the main process must not be said of a successor.
    pub(super) fn judged(&self) -> &UnitState {
        self.before.unwrap_or(self.unit)
    }
}

/// A main process, as /proc shows it through a pidfd.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Process {
    /// There is none that could be looked at.
    None,
    /// It has died; how it is known.
    Gone(&'static str),
    /// It lives, but /proc does not tell about it.
    Hidden,
    /// It lives.
    Alive(Vitals),
}

/// A living process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Vitals {
    /// `R`, `S`, `D`, `T`, `t`, `Z`, …
    pub(super) state: char,
    /// The tracer's PID, 0 where there is none.
    pub(super) tracer: u32,
    /// Whether it is dumping core.
    pub(super) dumping: bool,
    /// Whether a SIGKILL is on its way already.
    pub(super) kill_pending: bool,
    /// Its age, time during which the machine was suspended included.
    pub(super) age: Duration,
}
