//! The operations on the machine that a recovery needs. `machine.rs` implements them with as little logic as
//! possible, because the simulation replaces it.

use std::time::{Duration, SystemTime};

use nix::errno::Errno;
use nix::sys::signal::Signal;

use super::MainPid;
use super::cgroup::ControlGroup;
use super::evidence::ProcessEvidence;
use super::facts::{Group, MainProcess};
use super::sockets::Reading;
use super::sockets::unix::UnixListener;
use super::systemd::Unit;
use crate::clock::Monotonic;
use crate::sweep::ParkedRequest;

/// The machine. Errors are messages.
pub(super) trait Host {
    /// A handle to one process, independent of its PID.
    type Process;

    /// The current time.
    fn now(&self) -> Monotonic;
    /// The current time for people and the journal.
    fn wall_clock(&self) -> SystemTime;
    /// Lets time pass.
    fn pause(&self, length: Duration);
    /// Asks systemd about a unit.
    fn show(&self, unit: &str) -> Result<Unit, String>;
    /// Asks systemd about the units that decide what a kill of `unit` sets off.
    fn neighbours(&self, unit: &Unit) -> Result<Vec<Unit>, String>;
    /// What is wrong with a path that the restart of `unit` needs; for people.
    fn missing_path(&self, unit: &Unit) -> Option<String>;
    /// Opens the process that has this PID now; `ESRCH` if there is none.
    fn open(&self, pid: MainPid) -> Result<Self::Process, Errno>;
    /// What /proc shows of the process.
    fn inspect(&self, process: &Self::Process) -> MainProcess;
    /// A control group with its processes.
    fn group(&self, group: &ControlGroup) -> Result<Group, String>;
    /// The path of the control group with this id, which is first searched below `own`.
    fn path_of_group(&self, id: u64, own: &ControlGroup) -> Result<String, String>;
    /// Reads the sockets at which the requests wait: the listeners and, if `connections` is set, the
    /// connections.
    fn read_sockets(&self, connections: bool) -> Result<Reading, String>;
    /// The control groups of the processes that listen at the UNIX socket: see
    /// [`super::sockets::owners::unix_groups`].
    fn unix_groups(
        &self,
        own: &ControlGroup,
        listeners: &[UnixListener],
    ) -> Vec<Result<String, String>>;
    /// The parked requests.
    fn parked(&self) -> Vec<ParkedRequest>;
    /// Records what process `main` and then the others of `group` are doing, by `until` at the latest.
    fn processes(&self, main: MainPid, group: &Group, until: Monotonic) -> Vec<ProcessEvidence>;
    /// Logs the line before a signal.
    fn log(&self, line: &str);
    /// Sends the signal; with none, only checks whether one would be permitted.
    fn signal(&self, process: &Self::Process, signal: Option<Signal>) -> Result<(), NotSent>;
    /// Sends `signal` to each process of `group` that catches it and does not block it, and returns their
    /// PIDs.
    fn ask_for_stacks(&self, group: &Group, path: &ControlGroup, signal: Signal) -> Vec<u32>;
    /// Waits for the process to die, and returns whether it did within `at_most`.
    fn died_within(&self, process: &Self::Process, at_most: Duration) -> bool;
    /// Probes every core route once and returns whether all are `ok` or `rate_limited`, by `until` at the
    /// latest.
    fn core_answers(&self, until: Monotonic) -> bool;
}

/// Why a signal was not sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum NotSent {
    /// The process has died.
    Gone,
    /// The kernel refused; why.
    Refused(String),
}
