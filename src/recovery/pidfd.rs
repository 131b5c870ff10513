//! Holds one process by a pidfd, so that a reused PID cannot be signalled. Changing a signal's disposition is
//! unsafe in nix.
#![allow(unsafe_code)]

use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::signal::{SigHandler, Signal, signal};
use nix::sys::time::TimeSpec;
// nix has no system call for pidfds (nix-rust/nix#2748).
use rustix::process::{Pid, PidfdFlags, pidfd_open, pidfd_send_signal, test_kill_process};

use crate::clock::Monotonic;

/// A process, as pidfd_open(2) holds it.
#[derive(Debug)]
pub(super) struct PidFd {
    pid: Pid,
    fd: OwnedFd,
}

impl PidFd {
    /// Opens the process that has the number `pid` at this moment; `ESRCH` if there is none.
    pub(super) fn open(pid: u32) -> Result<Self, Errno> {
        let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
        let pid = pid.ok_or(Errno::ESRCH)?;
        let fd = pidfd_open(pid, PidfdFlags::empty()).map_err(errno)?;
        Ok(Self { pid, fd })
    }

    pub(super) fn pid(&self) -> u32 {
        self.pid.as_raw_nonzero().get().cast_unsigned()
    }

    /// Sends a signal to the process; with none, only asks whether one would be permitted. `ESRCH` if it has died,
    /// `EPERM` if we may not; see pidfd_send_signal(2).
    pub(super) fn signal(&self, signal: Option<Signal>) -> Result<(), Errno> {
        let Some(signal) = signal else {
            let answer = test_kill_process(self.pid).map_err(errno);
            // While the process lives, its PID is not reused, so the answer was about this process.
            let died = self.died_within(Duration::ZERO);
            return if died { Err(Errno::ESRCH) } else { answer };
        };
        let number = rustix::process::Signal::from_named_raw(signal as i32);
        pidfd_send_signal(&self.fd, number.ok_or(Errno::EINVAL)?).map_err(errno)
    }

    /// As [`died_within`].
    pub(super) fn died_within(&self, at_most: Duration) -> bool {
        died_within(&self.fd, at_most)
    }
}

/// Waits for the process of this pidfd to die, and returns whether it did within `at_most`: pidfd_open(2), "poll".
pub(super) fn died_within(pidfd: impl AsFd, at_most: Duration) -> bool {
    let until = Monotonic::now() + at_most;
    loop {
        let mut fds = [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)];
        // An interrupted wait is repeated, until the same absolute end.
        let wait = TimeSpec::from(until.remaining());
        if matches!(ppoll(&mut fds, Some(wait), None), Ok(1..)) {
            return true;
        }
        if until.has_passed() {
            return false;
        }
    }
}

fn errno(error: rustix::io::Errno) -> Errno {
    Errno::from_raw(error.raw_os_error())
}

/// Makes the exit statuses of children available even if this process was started with SIGCHLD ignored
/// (`trap "" CHLD`): the kernel would then discard them (sigaction(2), "SIGCHLD").
pub(super) fn keep_exit_statuses() {
    // SAFETY: the default disposition runs none of our code. The call fails only for signals that cannot be caught.
    let _ = unsafe { signal(Signal::SIGCHLD, SigHandler::SigDfl) };
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command};

    use super::*;

    fn sleeper() -> Child {
        Command::new("sleep").arg("600").spawn().unwrap()
    }

    #[test]
    fn a_signalled_process_dies_and_its_descriptor_says_so() {
        let mut child = sleeper();
        let process = PidFd::open(child.id()).unwrap();
        assert!(!process.died_within(Duration::ZERO));
        process.signal(None).unwrap();
        assert!(!process.died_within(Duration::from_millis(20)));
        process.signal(Some(Signal::SIGKILL)).unwrap();
        assert!(process.died_within(Duration::from_secs(10)));
        child.wait().unwrap();
        assert_eq!(process.signal(Some(Signal::SIGKILL)), Err(Errno::ESRCH));
        assert_eq!(process.signal(None), Err(Errno::ESRCH));
    }

    #[test]
    fn an_unused_pid_is_not_a_process() {
        let mut child = sleeper();
        let number = child.id();
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(PidFd::open(number).unwrap_err(), Errno::ESRCH);
        assert_eq!(PidFd::open(u32::MAX).unwrap_err(), Errno::ESRCH);
    }
}
