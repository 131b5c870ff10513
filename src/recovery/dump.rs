//! Asks the processes of a unit to print their stacks before the kill.

use std::thread;
use std::time::{Duration, SystemTime};

use nix::sys::signal::Signal;

use super::cgroup::ControlGroup;
use super::pidfd::PidFd;
use super::proc::Status;
use super::processes;
use crate::manifest::DumpSignal;

/// The pause after each process, for its output, before the next one gets the signal.
const GAP: Duration = Duration::from_millis(20);
/// The limit on the sum of these pauses.
const GAPS: Duration = Duration::from_millis(400);

/// A request for stacks. The processes decide whether and where they print them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dump {
    /// The signal that asked for them.
    pub signal: DumpSignal,
    /// The processes that got it.
    pub processes: Vec<u32>,
    /// The moment before the signal.
    pub since: SystemTime,
    /// The moment when the wait for the stacks ended.
    pub until: SystemTime,
    /// The command that shows what they wrote to the journal.
    pub command: String,
    /// The first lines that it shows, escaped, if this program may read the journal.
    pub traces: Vec<String>,
}

/// Whether a process with this status has a handler for `signal` that would run, so that it does not die of
/// the signal, ignore it, or leave it pending.
pub(super) fn catches(status: &Status, signal: DumpSignal) -> bool {
    let bit = 1_u64 << (number(signal) as u32 - 1);
    status.caught & bit != 0 && status.blocked & bit == 0
}

/// Sends `signal` to every process of `group` that catches it, and returns their PIDs. A process that
/// cannot be signalled is left out; the kill will report the reason.
pub(super) fn send(group: &ControlGroup, signal: DumpSignal, own_pid: u32) -> Vec<u32> {
    let processes = processes::statuses(group).unwrap_or_default();
    let sent = |pid: u32| {
        let process = PidFd::open(pid).ok()?;
        // Read again, because the PID could have been reused before the descriptor was opened.
        let still = processes::status(pid).is_some_and(|status| catches(&status, signal))
            && processes::group_of(pid).is_some_and(|path| group.contains(&path));
        (still && process.signal(number(signal)).is_ok()).then_some(pid)
    };
    let catching: Vec<u32> = (processes.into_iter())
        .filter(|(pid, status)| *pid > 1 && *pid != own_pid && catches(status, signal))
        .map(|(pid, _)| pid)
        .collect();
    // One after the other, so that their output stays readable if they share a pipe.
    let gap = GAPS / u32::try_from(catching.len()).unwrap_or(u32::MAX).max(1);
    let mut got = Vec::new();
    for pid in catching {
        if let Some(pid) = sent(pid) {
            got.push(pid);
            thread::sleep(gap.min(GAP));
        }
    }
    got
}

const fn number(signal: DumpSignal) -> Signal {
    match signal {
        DumpSignal::Usr1 => Signal::SIGUSR1,
        DumpSignal::Usr2 => Signal::SIGUSR2,
        DumpSignal::Quit => Signal::SIGQUIT,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn catches_requires_a_handler_that_is_not_blocked() {
        let status = |caught, blocked| {
            super::super::proc::status(&format!(
                "State:\tS (sleeping)\nPPid:\t1\nTracerPid:\t0\nSigPnd:\t0\nShdPnd:\t0\nSigBlk:\t{blocked:016x}\nSigCgt:\t{caught:016x}\n"
            ))
            .unwrap()
        };
        let (usr1, usr2, quit) = (1 << 9, 1 << 11, 1 << 2);
        for (caught, blocked, signal, expected) in [
            (usr1, 0, DumpSignal::Usr1, true),
            (usr1, usr2, DumpSignal::Usr1, true),
            (usr1, usr1, DumpSignal::Usr1, false),
            (usr1, 0, DumpSignal::Usr2, false),
            (usr2, 0, DumpSignal::Usr2, true),
            (quit, 0, DumpSignal::Quit, true),
            (0, 0, DumpSignal::Quit, false),
        ] {
            let status = status(caught, blocked);
            assert_eq!(catches(&status, signal), expected, "{caught:x} {blocked:x}");
        }
    }
}
