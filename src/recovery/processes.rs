//! Reads the processes of a unit from /proc, for the guards.

use std::fs;
use std::io::{self, ErrorKind};
use std::time::Duration;

use nix::sys::signal::kill;
use nix::time::{ClockId, clock_gettime};
use nix::unistd::Pid;

use super::cgroup::{self, ControlGroup, Hierarchy};
use super::observation::{Disturbance, Disturbed, Members, Parent, Vitals};
use super::proc::{self, Status};
use crate::clock::Monotonic;

/// The time limit for reading the processes of a unit.
const LIMIT: Duration = Duration::from_secs(1);

/// What /proc shows of process `pid`; none where it shows nothing.
pub(super) fn vitals(pid: u32) -> Option<Vitals> {
    let stat = proc::stat(&read(pid, "stat").ok()?)?;
    let status = status(pid)?;
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

/// The processes of `group`, of which `main` is the main one.
///
/// # Errors
///
/// A message, where one of them cannot be read, or not all of them in time.
pub(super) fn members(group: &ControlGroup, main: u32) -> Result<Members, String> {
    let until = Monotonic::now() + LIMIT;
    let mut members = Members::default();
    for pid in Hierarchy::find()?.processes(group)? {
        if until.has_passed() {
            return Err("the processes of the unit could not all be read in time".to_owned());
        }
        if pid == 0 {
            return Err("a process of the unit is outside this program's PID namespace".to_owned());
        }
        match disturbance(pid) {
            Ok(by) => {
                members.others += usize::from(pid != main);
                let disturbed = by.map(|by| Disturbed { pid, by });
                members.disturbed = members.disturbed.or(disturbed);
            }
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

/// Every process of `group` with its status; those that cannot be read are left out.
pub(super) fn statuses(group: &ControlGroup) -> Result<Vec<(u32, Status)>, String> {
    let processes = Hierarchy::find()?.processes(group)?;
    let with_status = |pid| Some((pid, status(pid)?));
    Ok(processes.into_iter().filter_map(with_status).collect())
}

/// What `/proc/PID/status` shows; none where it shows nothing.
pub(super) fn status(pid: u32) -> Option<Status> {
    proc::status(&read(pid, "status").ok()?)
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
        if status.tracer != 0 {
            return Ok(Some(Disturbance::Tracer(status.tracer)));
        }
        if status.tracing_stop {
            return Ok(Some(Disturbance::TracingStop));
        }
        if status.dumping {
            return Ok(Some(Disturbance::CoreDump));
        }
    }
    Ok(None)
}

fn has_ended_thread(error: &io::Error) -> bool {
    error.kind() == ErrorKind::NotFound || error.raw_os_error() == Some(libc::ESRCH)
}

/// Whether `error` says that process `pid` has ended. One that /proc hides looks the same there, but can
/// be asked for by its number.
fn has_ended(pid: u32, error: &io::Error) -> bool {
    has_ended_thread(error)
        && i32::try_from(pid)
            .is_ok_and(|pid| kill(Pid::from_raw(pid), None) == Err(nix::errno::Errno::ESRCH))
}

fn read(pid: u32, file: &str) -> io::Result<String> {
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
    fn disturbance_sees_a_tracer() {
        let mut child = Command::new("sleep").arg("600").spawn().unwrap();
        assert_eq!(disturbance(child.id()).unwrap(), None);
        let pid = Pid::from_raw(child.id().cast_signed());
        // Only the thread that attached may let go.
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
