//! Parses the kernel's text about processes, proc(5). Pure.

use std::time::Duration;

/// Clock ticks per second in values that the kernel shows to user space (`USER_HZ`,
/// include/uapi/asm-generic/param.h); the same on every architecture that Rust runs on.
const TICKS: u64 = 100;

/// From `/proc/PID/stat`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Stat {
    /// The command name, at most 15 bytes, chosen by the process itself.
    pub(super) name: String,
    /// `R`, `S`, `D`, `T`, `t`, `Z`, …
    pub(super) state: char,
    /// CPU time used, in ticks.
    pub(super) ticks: u64,
    /// When it started, on `CLOCK_BOOTTIME`.
    pub(super) started: Duration,
}

/// Reads `/proc/PID/stat` or `/proc/PID/task/TID/stat`; none if it is not of that form.
pub(super) fn stat(text: &str) -> Option<Stat> {
    // The name may contain spaces and parentheses, so its end is the last one.
    let (head, tail) = text.rsplit_once(')')?;
    let (_, name) = head.split_once('(')?;
    let mut fields = tail.split_ascii_whitespace();
    let state = fields.next()?.chars().next()?;
    let mut number = |skip| fields.nth(skip)?.parse::<u64>().ok();
    let (user, system) = (number(10)?, number(0)?);
    let started = number(6)?;
    Some(Stat {
        name: name.to_owned(),
        state,
        ticks: user.saturating_add(system),
        started: Duration::from_millis(started.saturating_mul(1_000 / TICKS)),
    })
}

/// From `/proc/PID/status`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Status {
    /// The parent's PID, 0 if it is outside this PID namespace.
    pub(super) parent: u32,
    /// The tracer's PID, 0 if there is none.
    pub(super) tracer: u32,
    /// Whether this thread is stopped by its tracer (state `t`).
    pub(super) tracing_stop: bool,
    /// Whether it is dumping core. A process that has released its memory has no such line and
    /// does not dump: proc_pid_status() of the kernel's fs/proc/array.c.
    pub(super) dumping: bool,
    /// Whether a SIGKILL is pending.
    pub(super) kill_pending: bool,
    /// Resident memory in bytes; none for a process that has released its memory.
    pub(super) resident: Option<u64>,
    /// The signals that the process would handle, signal N as bit N-1: it has a handler (`SigCgt`), and its first
    /// thread does not block them (`SigBlk`).
    pub(super) handled: u64,
}

/// Reads `/proc/PID/status`; none if a needed field is missing.
pub(super) fn status(text: &str) -> Option<Status> {
    let field = |name| {
        text.lines()
            .filter_map(|line| line.split_once(':'))
            .find_map(|(key, value)| (key == name).then(|| value.trim()))
    };
    let mask = |name| u64::from_str_radix(field(name)?, 16).ok();
    let kill = 1 << (libc::SIGKILL - 1);
    Some(Status {
        parent: field("PPid")?.parse().ok()?,
        tracer: field("TracerPid")?.parse().ok()?,
        tracing_stop: field("State")?.starts_with('t'),
        dumping: field("CoreDumping").is_some_and(|value| value != "0"),
        kill_pending: (mask("SigPnd")? | mask("ShdPnd")?) & kill != 0,
        resident: field("VmRSS")
            .and_then(|value| value.strip_suffix(" kB"))
            .and_then(|value| value.trim().parse::<u64>().ok())
            .map(|kib| kib.saturating_mul(1_024)),
        handled: mask("SigCgt")? & !mask("SigBlk")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stat_reads_names_with_spaces_and_parentheses() {
        let tail = "S 19290 19290 4262 0 -1 4194304 101 0 0 0 17 5 0 0 20 0 1 0 290103 3133440 394";
        for name in ["cat", "a b", "evil) R 1 1", "(((", ")", ""] {
            let stat = stat(&format!("19299 ({name}) {tail}")).unwrap();
            assert_eq!(stat.name, name);
            assert_eq!(stat.state, 'S');
            assert_eq!(stat.ticks, 22);
            assert_eq!(stat.started, Duration::from_millis(2_901_030));
        }
    }

    #[test]
    fn stat_refuses_truncated_text() {
        for text in [
            "",
            "19299",
            "1 (cat)",
            "1 (cat) S 1 2 3",
            "1 (cat S 1 2 3",
            "1 cat) S",
        ] {
            assert_eq!(stat(text), None, "{text}");
        }
    }

    const STATUS: &str = "Name:\tpython3\nState:\tS (sleeping)\nPPid:\t1\nTracerPid:\t0\nVmRSS:\t    1844 kB\n\
        CoreDumping:\t0\nSigPnd:\t0000000000000000\nShdPnd:\t0000000000000000\nSigBlk:\t0000000000000004\nSigCgt:\t0000000000000200\n";

    #[test]
    fn status_reads_what_a_guard_needs() {
        let calm = Status {
            parent: 1,
            tracer: 0,
            tracing_stop: false,
            dumping: false,
            kill_pending: false,
            resident: Some(1_844 * 1_024),
            handled: 0x200,
        };
        assert_eq!(status(STATUS), Some(calm));
        for (from, to, expected) in [
            (
                "TracerPid:\t0",
                "TracerPid:\t77",
                Status { tracer: 77, ..calm },
            ),
            (
                "CoreDumping:\t0",
                "CoreDumping:\t1",
                Status {
                    dumping: true,
                    ..calm
                },
            ),
            ("CoreDumping:\t0\n", "", calm),
            (
                "ShdPnd:\t0000000000000000",
                "ShdPnd:\t0000000000000100",
                Status {
                    kill_pending: true,
                    ..calm
                },
            ),
            (
                "SigPnd:\t0000000000000000",
                "SigPnd:\t0000000000000100",
                Status {
                    kill_pending: true,
                    ..calm
                },
            ),
            (
                "ShdPnd:\t0000000000000000",
                "ShdPnd:\t0000000000000220",
                calm,
            ),
            (
                "SigBlk:\t0000000000000004",
                "SigBlk:\t0000000000000200",
                Status { handled: 0, ..calm },
            ),
            (
                "SigCgt:\t0000000000000200",
                "SigCgt:\t0000000000000206",
                Status {
                    handled: 0x202,
                    ..calm
                },
            ),
            (
                "VmRSS:\t    1844 kB\n",
                "",
                Status {
                    resident: None,
                    ..calm
                },
            ),
        ] {
            assert_eq!(status(&STATUS.replace(from, to)), Some(expected), "{to}");
        }
    }

    #[test]
    fn status_refuses_text_without_a_field_that_a_guard_needs() {
        for line in [
            "TracerPid:\t0\n",
            "ShdPnd:\t0000000000000000\n",
            "PPid:\t1\n",
            "SigCgt:\t0000000000000200\n",
            "SigBlk:\t0000000000000004\n",
        ] {
            assert_eq!(status(&STATUS.replace(line, "")), None, "{line}");
        }
        assert_eq!(
            status(&STATUS.replace("TracerPid:\t0", "TracerPid:\t-")),
            None
        );
    }
}
