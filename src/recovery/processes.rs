//! Reads the processes of a unit from /proc, for the guards.

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
use super::proc::{self, Stat, Status};
use crate::clock::Monotonic;

/// What /proc shows of process `pid`; none if it shows nothing.
pub(super) fn vitals(pid: u32) -> Option<Vitals> {
    let stat = stat(pid).ok()?;
    let status = status(pid).ok()?;
    let now = clock_gettime(ClockId::CLOCK_BOOTTIME).ok()?;
    Some(Vitals {
        state: stat.state,
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
        let member = disturbance(pid).and_then(|disturbance| {
            let handled = status(pid)?.handled;
            Ok(Member {
                pid,
                handled,
                disturbance,
            })
        });
        match member {
            Ok(member) => members.push(member),
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
    } else if status.tracing_stop {
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
    let stat = proc::stat(&read(process, "stat")?);
    Ok(stat.ok_or(ErrorKind::InvalidData)?)
}

/// As [`stat`].
pub(super) fn status(process: impl Display) -> io::Result<Status> {
    let status = proc::status(&read(process, "status")?);
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
            proc::status(&format!(
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
}
