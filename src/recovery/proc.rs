//! Reads the processes of a unit from /proc, proc(5).

use std::fmt::Display;
use std::fs;
use std::io::{self, ErrorKind};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::signal::kill;
use nix::time::{ClockId, clock_gettime};
use nix::unistd::Pid;

use super::cgroup;
use super::facts::{Member, Vitals};
use crate::clock::Monotonic;

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
pub(super) fn parse_stat(text: &str) -> Option<Stat> {
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
    /// `R`, `S`, `D`, `T`, `t`, `Z`, …
    pub(super) state: char,
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
pub(super) fn parse_status(text: &str) -> Option<Status> {
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
        state: field("State")?.chars().next()?,
        dumping: field("CoreDumping").is_some_and(|value| value != "0"),
        kill_pending: (mask("SigPnd")? | mask("ShdPnd")?) & kill != 0,
        resident: field("VmRSS")
            .and_then(|value| value.strip_suffix(" kB"))
            .and_then(|value| value.trim().parse::<u64>().ok())
            .map(|kib| kib.saturating_mul(1_024)),
        handled: mask("SigCgt")? & !mask("SigBlk")?,
    })
}

/// What /proc shows of process `pid`; none if it shows nothing.
pub(super) fn vitals(pid: u32) -> Option<Vitals> {
    let stat = stat(pid).ok()?;
    let status = status(pid).ok()?;
    let now = clock_gettime(ClockId::CLOCK_BOOTTIME).ok()?;
    Some(Vitals {
        age: Duration::from(now).saturating_sub(stat.started),
        status,
        group: group_of(pid),
        parent_group: group_of(status.parent),
    })
}

/// The control group of process `pid` on cgroup2.
fn group_of(pid: u32) -> Option<String> {
    let text = read(pid, "cgroup").ok()?;
    cgroup::path_of(&text).map(str::to_owned)
}

/// Reads these processes of a control group, until `until`. A message, if one of them cannot be read, or not all of
/// them in time.
pub(super) fn members(
    processes: impl IntoIterator<Item = u32>,
    until: Monotonic,
) -> Result<Vec<Member>, String> {
    let mut members = Vec::new();
    for pid in processes {
        if until.has_passed() {
            return Err("the processes of the unit could not all be read in time".to_owned());
        }
        if pid == 0 {
            return Err("a process of the unit is outside this program's PID namespace".to_owned());
        }
        match disturbance(pid).and_then(|found| Ok((found, status(pid)?.handled))) {
            Ok((disturbance, handled)) => members.push(Member {
                pid,
                handled,
                disturbance,
            }),
            Err(error) if has_ended(pid, &error) => {}
            Err(_) => {
                return Err(format!(
                    "/proc does not show process {pid} of the unit: allow it (ProtectProc=default, and no hidepid= on /proc)"
                ));
            }
        }
    }
    Ok(members)
}

/// Finds a debugger or core dump of a thread of process `pid`: tracers attach to single threads (ptrace(2)).
fn disturbance(pid: u32) -> io::Result<Option<String>> {
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        let thread = task?.file_name();
        let found = match status(format!("{pid}/task/{}", thread.display())) {
            Err(error) if is_gone(&error) => continue,
            status => shown_by(&status?),
        };
        if found.is_some() {
            return Ok(found);
        }
    }
    Ok(None)
}

/// The debugger or core dump that this thread's status shows.
fn shown_by(status: &Status) -> Option<String> {
    if status.tracer != 0 {
        Some(format!("is traced by process {}", status.tracer))
    } else if status.state == 't' {
        Some("is held by a tracer (state t)".to_owned())
    } else if status.dumping {
        Some("is dumping core".to_owned())
    } else {
        None
    }
}

/// Whether `error` means that process `pid` has ended. A process that /proc hides causes the same error, but
/// kill(2) still finds it.
fn has_ended(pid: u32, error: &io::Error) -> bool {
    let number = i32::try_from(pid);
    is_gone(error) && number.is_ok_and(|pid| kill(Pid::from_raw(pid), None) == Err(Errno::ESRCH))
}

fn is_gone(error: &io::Error) -> bool {
    error.kind() == ErrorKind::NotFound || error.raw_os_error() == Some(libc::ESRCH)
}

/// Of a process, or of the thread `PID/task/TID`.
pub(super) fn stat(process: impl Display) -> io::Result<Stat> {
    let stat = parse_stat(&read(process, "stat")?);
    Ok(stat.ok_or(ErrorKind::InvalidData)?)
}

/// As [`stat`].
pub(super) fn status(process: impl Display) -> io::Result<Status> {
    let status = parse_status(&read(process, "status")?);
    Ok(status.ok_or(ErrorKind::InvalidData)?)
}

pub(super) fn read(process: impl Display, file: &str) -> io::Result<String> {
    let bytes = fs::read(format!("/proc/{process}/{file}"))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use nix::sys::ptrace;

    use super::*;

    #[test]
    fn vitals_are_those_of_the_process() {
        let own = vitals(std::process::id()).unwrap();
        assert!(!own.status.kill_pending && !own.status.dumping);
        assert!(own.age < Duration::from_secs(3_600));
        assert_eq!(own.status.parent, std::os::unix::process::parent_id());
        assert_eq!(vitals(u32::MAX), None);
    }

    #[test]
    fn members_that_cannot_be_read_are_an_error() {
        let soon = || Monotonic::now() + Duration::from_secs(10);
        let own = std::process::id();
        let ended = u32::MAX;
        let pids = |processes: &[u32], until| {
            let members = members(processes.iter().copied(), until)?.into_iter();
            Ok::<_, String>(members.map(|member| member.pid).collect::<Vec<_>>())
        };
        assert_eq!(pids(&[own, 1], soon()), Ok(vec![own, 1]));
        assert_eq!(pids(&[own, i32::MAX as u32], soon()), Ok(vec![own]));
        let outside = pids(&[own, 0], soon()).unwrap_err();
        assert!(outside.contains("PID namespace"), "{outside}");
        let late = pids(&[own], Monotonic::from_micros(0)).unwrap_err();
        assert!(late.contains("in time"), "{late}");
        assert!(pids(&[ended], soon()).is_err());
    }

    #[test]
    fn shown_by_sees_a_tracer_its_stop_and_a_core_dump() {
        let status = |state: &str, tracer: u32, dumping: u32| {
            parse_status(&format!(
                "State:\t{state}\nPPid:\t1\nTracerPid:\t{tracer}\nCoreDumping:\t{dumping}\n\
                 SigPnd:\t0\nShdPnd:\t0\nSigBlk:\t0\nSigCgt:\t0\n"
            ))
            .unwrap()
        };
        for (status, expected) in [
            (status("S (sleeping)", 0, 0), None),
            (status("T (stopped)", 0, 0), None),
            (status("S (sleeping)", 7, 0), Some("is traced by process 7")),
            // The tracer may be outside this PID namespace.
            (
                status("t (tracing stop)", 0, 0),
                Some("is held by a tracer (state t)"),
            ),
            (status("D (disk sleep)", 0, 1), Some("is dumping core")),
        ] {
            assert_eq!(shown_by(&status).as_deref(), expected, "{status:?}");
        }
    }

    #[test]
    fn disturbance_sees_a_tracer() {
        let mut child = Command::new("sleep").arg("600").spawn().unwrap();
        assert_eq!(disturbance(child.id()).unwrap(), None);
        let pid = Pid::from_raw(child.id().cast_signed());
        // Only the thread that attached may detach.
        ptrace::seize(pid, ptrace::Options::empty()).unwrap();
        let seen = disturbance(child.id()).unwrap();
        ptrace::detach(pid, None).unwrap_or_default();
        child.kill().unwrap();
        child.wait().unwrap();
        let seen = seen.unwrap();
        assert!(seen.starts_with("is traced by process "), "{seen}");
        let gone = disturbance(child.id()).unwrap_err();
        assert!(has_ended(child.id(), &gone));
        assert!(!has_ended(1, &io::Error::from_raw_os_error(libc::ENOENT)));
    }

    #[test]
    fn stat_reads_names_with_spaces_and_parentheses() {
        let tail = "S 19290 19290 4262 0 -1 4194304 101 0 0 0 17 5 0 0 20 0 1 0 290103 3133440 394";
        for name in ["cat", "a b", "evil) R 1 1", "(((", ")", ""] {
            let stat = parse_stat(&format!("19299 ({name}) {tail}")).unwrap();
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
            assert_eq!(parse_stat(text), None, "{text}");
        }
    }

    const STATUS: &str = "Name:\tpython3\nState:\tS (sleeping)\nPPid:\t1\nTracerPid:\t0\nVmRSS:\t    1844 kB\n\
        CoreDumping:\t0\nSigPnd:\t0000000000000000\nShdPnd:\t0000000000000000\nSigBlk:\t0000000000000004\nSigCgt:\t0000000000000200\n";

    #[test]
    fn status_reads_what_a_guard_needs() {
        let calm = Status {
            parent: 1,
            tracer: 0,
            state: 'S',
            dumping: false,
            kill_pending: false,
            resident: Some(1_844 * 1_024),
            handled: 0x200,
        };
        assert_eq!(parse_status(STATUS), Some(calm));
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
            assert_eq!(
                parse_status(&STATUS.replace(from, to)),
                Some(expected),
                "{to}"
            );
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
            assert_eq!(parse_status(&STATUS.replace(line, "")), None, "{line}");
        }
        assert_eq!(
            parse_status(&STATUS.replace("TracerPid:\t0", "TracerPid:\t-")),
            None
        );
    }
}
