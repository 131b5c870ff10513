//! Asks the processes of a unit to print their stacks before the kill.

use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::sys::signal::Signal;

use super::cgroup::ControlGroup;
use super::facts::Group;
use super::pidfd::PidFd;
use super::proc;
use crate::manifest::{RecoveryPlan, Scope};

/// The pause after each process, for its output, before the next one gets the signal.
const GAP: Duration = Duration::from_millis(20);
/// The limit on the sum of these pauses.
const GAPS: Duration = Duration::from_millis(400);
/// How many seconds late a line may reach the journal, which timestamps it on receipt; one of them for the fraction.
const LAG: u64 = 2;

/// A request for stacks. The processes decide whether and where they print them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stacks {
    /// The signal that asked for them.
    pub signal: Signal,
    /// The processes that got it.
    pub processes: Vec<u32>,
    /// The moment before the signal.
    pub since: SystemTime,
    /// The moment when the wait for the stacks ended.
    pub until: SystemTime,
    /// The command that shows what they wrote to the journal.
    pub command: String,
}

/// The command with which a person reads the stacks from the unit's journal.
pub(super) fn command(
    plan: &RecoveryPlan,
    processes: &[u32],
    since: SystemTime,
    until: SystemTime,
) -> String {
    // Seconds since 1970 mean the same in every time zone (systemd.time(7)).
    let since_1970 = |time: SystemTime| time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let processes: String = processes.iter().map(|pid| format!(" _PID={pid}")).collect();
    let (journal, unit) = (journalctl(plan.scope), &plan.unit);
    let (since, until) = (
        since_1970(since).as_secs(),
        since_1970(until).as_secs() + LAG,
    );
    format!("{journal} -u {unit}{processes} --since=@{since} --until=@{until}")
}

/// How a person types `journalctl` for this manager.
pub(super) const fn journalctl(scope: Scope) -> &'static str {
    match scope {
        Scope::System => "journalctl",
        Scope::User => "journalctl --user",
    }
}

/// Whether a process that would handle these signals would run a handler for `signal`, so that it does not die of
/// the signal, ignore it, or leave it pending.
pub(super) fn catches(handled: u64, signal: Signal) -> bool {
    handled & 1 << (signal as u32 - 1) != 0
}

/// Sends `signal` to every process of `group`, whose path is `path`, that catches it, and returns their PIDs. A
/// process that cannot be signalled is left out; the kill will report the reason.
pub(super) fn ask(group: &Group, path: &ControlGroup, signal: Signal) -> Vec<u32> {
    // Read again, because the PID could have been reused before the descriptor was opened.
    let still_catches = |pid| {
        proc::vitals(pid).is_some_and(|vitals| {
            catches(vitals.status.handled, signal)
                && vitals.group.is_some_and(|group| path.contains(&group))
        })
    };
    let mut asked: Vec<u32> = (group.members.iter())
        .filter(|member| member.pid > 1 && member.pid != std::process::id())
        .filter(|member| catches(member.handled, signal))
        .map(|member| member.pid)
        .collect();
    // One after the other, so that their output stays readable if they share a pipe.
    let gap = GAPS / u32::try_from(asked.len()).unwrap_or(u32::MAX).max(1);
    asked.retain(|&pid| {
        let sent = PidFd::open(pid)
            .is_ok_and(|process| still_catches(pid) && process.signal(Some(signal)).is_ok());
        if sent {
            thread::sleep(gap.min(GAP));
        }
        sent
    });
    asked
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recovery::samples::context;

    #[test]
    fn catches_requires_a_handler() {
        let usr1 = 1 << (libc::SIGUSR1 - 1);
        for (handled, expected) in [(usr1, true), (u64::MAX, true), (0, false), (!usr1, false)] {
            assert_eq!(catches(handled, Signal::SIGUSR1), expected, "{handled:x}");
        }
    }

    #[test]
    fn the_command_means_the_same_in_every_time_zone() {
        let at = |millis| UNIX_EPOCH + Duration::from_millis(millis);
        let plan = RecoveryPlan {
            scope: Scope::User,
            ..context().plan
        };
        let (since, until) = (at(1_700_000_000_900), at(1_700_000_001_950));
        assert_eq!(
            command(&plan, &[7, 8], since, until),
            "journalctl --user -u demo.service _PID=7 _PID=8 --since=@1700000000 --until=@1700000003"
        );
    }
}
