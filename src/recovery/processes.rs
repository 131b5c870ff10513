//! Reads the processes of a unit from /proc, for the guards.

use std::fs;
use std::io::{self, ErrorKind};
use std::time::Duration;

use nix::sys::signal::kill;
use nix::time::{ClockId, clock_gettime};
use nix::unistd::Pid;

use super::cgroup;
use super::facts::{Disturbance, Member, Parent, Signals, Vitals};
use super::proc::{self, Status};
use crate::clock::Monotonic;

/// The time limit for reading the processes of a unit.
const LIMIT: Duration = Duration::from_secs(1);

/// What /proc shows of process `pid`; none if it shows nothing.
pub(super) fn vitals(pid: u32) -> Option<Vitals> {
    let stat = proc::stat(&read(pid, "stat").ok()?)?;
    let status = proc::status(&read(pid, "status").ok()?)?;
    let now = clock_gettime(ClockId::CLOCK_BOOTTIME).ok()?;
    Some(Vitals {
        state: stat.state,
        dumping: status.dumping,
        kill_pending: status.kill_pending,
        age: Duration::from(now).saturating_sub(stat.started),
        group: group_of(pid),
        parent: Parent {
            pid: status.parent,
            group: group_of(status.parent),
        },
    })
}

/// The control group of process `pid` on cgroup2.
pub(super) fn group_of(pid: u32) -> Option<String> {
    let text = read(pid, "cgroup").ok()?;
    cgroup::path_of(&text).map(str::to_owned)
}

/// Reads the processes of a control group.
///
/// # Errors
///
/// A message, if one of them cannot be read, or not all of them in time.
pub(super) fn members(processes: &[u32]) -> Result<Vec<Member>, String> {
    members_by(processes, Monotonic::now() + LIMIT)
}

fn members_by(processes: &[u32], until: Monotonic) -> Result<Vec<Member>, String> {
    let mut members = Vec::new();
    for &pid in processes {
        if until.has_passed() {
            return Err("the processes of the unit could not all be read in time".to_owned());
        }
        if pid == 0 {
            return Err("a process of the unit is outside this program's PID namespace".to_owned());
        }
        match member(pid) {
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

fn member(pid: u32) -> io::Result<Member> {
    let disturbance = disturbance(pid)?;
    let text = read(pid, "status")?;
    let status = proc::status(&text).ok_or(ErrorKind::InvalidData)?;
    Ok(Member {
        pid,
        signals: status.signals,
        disturbance,
    })
}

/// The signals that process `pid` handles; none if /proc does not show it.
pub(super) fn signals(pid: u32) -> Option<Signals> {
    Some(proc::status(&read(pid, "status").ok()?)?.signals)
}

/// Finds a debugger or core dump of a thread of process `pid`: tracers attach to single threads (ptrace(2)).
fn disturbance(pid: u32) -> io::Result<Option<Disturbance>> {
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        let task = task?.path();
        let status = match fs::read(task.join("status")) {
            Ok(bytes) => bytes,
            Err(error) if has_ended_thread(&error) => continue,
            Err(error) => return Err(error),
        };
        let text = String::from_utf8_lossy(&status);
        let status = proc::status(&text).ok_or(ErrorKind::InvalidData)?;
        if let Some(by) = shown_by(&status) {
            return Ok(Some(by));
        }
    }
    Ok(None)
}

/// The debugger or core dump that this thread's status shows.
fn shown_by(status: &Status) -> Option<Disturbance> {
    if status.tracer != 0 {
        Some(Disturbance::Tracer(status.tracer))
    } else if status.tracing_stop {
        Some(Disturbance::TracingStop)
    } else if status.dumping {
        Some(Disturbance::CoreDump)
    } else {
        None
    }
}

fn has_ended_thread(error: &io::Error) -> bool {
    error.kind() == ErrorKind::NotFound || error.raw_os_error() == Some(libc::ESRCH)
}

/// Whether `error` means that process `pid` has ended. A process that /proc hides causes the same error, but
/// kill(2) still finds it.
fn has_ended(pid: u32, error: &io::Error) -> bool {
    has_ended_thread(error)
        && i32::try_from(pid)
            .is_ok_and(|pid| kill(Pid::from_raw(pid), None) == Err(nix::errno::Errno::ESRCH))
}

pub(super) fn read(pid: u32, file: &str) -> io::Result<String> {
    let bytes = fs::read(format!("/proc/{pid}/{file}"))?;
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
        assert!(!own.kill_pending && !own.dumping);
        assert!(own.age < Duration::from_secs(3_600));
        assert_eq!(own.parent.pid, std::os::unix::process::parent_id());
        assert_eq!(vitals(u32::MAX), None);
    }

    #[test]
    fn members_that_cannot_be_read_are_an_error() {
        let soon = || Monotonic::now() + Duration::from_secs(10);
        let own = std::process::id();
        let ended = u32::MAX;
        let pids = |processes: &[u32], until| {
            let members = members_by(processes, until)?.into_iter();
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
            (status("S (sleeping)", 7, 0), Some(Disturbance::Tracer(7))),
            // The tracer may be outside this PID namespace.
            (
                status("t (tracing stop)", 0, 0),
                Some(Disturbance::TracingStop),
            ),
            (status("D (disk sleep)", 0, 1), Some(Disturbance::CoreDump)),
        ] {
            assert_eq!(shown_by(&status), expected, "{status:?}");
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
        assert!(matches!(seen, Some(Disturbance::Tracer(_))), "{seen:?}");
        let gone = disturbance(child.id()).unwrap_err();
        assert!(has_ended(child.id(), &gone));
        assert!(!has_ended(1, &io::Error::from_raw_os_error(libc::ENOENT)));
    }
}
