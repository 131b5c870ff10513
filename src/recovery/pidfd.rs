//! Holds one process by a pidfd, so that a reused PID cannot be signalled. The only file with unsafe code.

// nix has neither pidfd_open nor pidfd_send_signal (nix-rust/nix#2748), so the two system calls
// are made by number here; and changing a signal's disposition is unsafe in nix.
#![allow(unsafe_code)]

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::sync::Once;
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::signal::{SigHandler, Signal, signal};
use nix::sys::time::TimeSpec;

use crate::clock::Monotonic;

/// A process, as pidfd_open(2) holds it.
#[derive(Debug)]
pub(super) struct PidFd(OwnedFd);

impl PidFd {
    /// Takes hold of the process that has the number `pid` at this moment.
    ///
    /// # Errors
    ///
    /// `ESRCH` where there is none; others as pidfd_open(2) names them.
    pub(super) fn open(pid: u32) -> Result<Self, Errno> {
        let pid = libc::pid_t::try_from(pid).map_err(|_| Errno::ESRCH)?;
        // SAFETY: pidfd_open takes two integers and touches no memory of ours.
        let result = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
        let fd = RawFd::try_from(Errno::result(result)?).map_err(|_| Errno::EBADF)?;
        // SAFETY: the kernel has just opened this descriptor for us, so nobody else owns it.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// Signals the process; `None` only asks whether that would be possible.
    ///
    /// # Errors
    ///
    /// `ESRCH` where it has died, `EPERM` where we may not; see pidfd_send_signal(2).
    pub(super) fn signal(&self, signal: Option<Signal>) -> Result<(), Errno> {
        let number = signal.map_or(0, |signal| signal as libc::c_int);
        // SAFETY: the descriptor is open as long as `self` lives, and a null `info` asks the
        // kernel to fill it in as kill(2) does.
        let result = unsafe {
            libc::syscall(
                libc::SYS_pidfd_send_signal,
                self.0.as_raw_fd(),
                number,
                std::ptr::null::<libc::siginfo_t>(),
                0,
            )
        };
        Errno::result(result).map(drop)
    }

    /// Waits for the process to die and says whether it did within `at_most`.
    pub(super) fn died_within(&self, at_most: Duration) -> bool {
        died_within(self.0.as_fd(), at_most)
    }
}

/// As [`PidFd::died_within`], for any pidfd: pidfd_open(2), "poll".
pub(super) fn died_within(pidfd: BorrowedFd<'_>, at_most: Duration) -> bool {
    let until = Monotonic::now() + at_most;
    loop {
        let mut fds = [PollFd::new(pidfd, PollFlags::POLLIN)];
        // An interrupted wait is no answer; the absolute end keeps the loop short.
        if matches!(
            ppoll(&mut fds, Some(TimeSpec::from(until.remaining())), None),
            Ok(1..)
        ) {
            return true;
        }
        if until.has_passed() {
            return false;
        }
    }
}

impl AsFd for PidFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Lets this process learn how its children end, also where it was started with SIGCHLD ignored
/// (`trap "" CHLD`): then the kernel would discard each exit status (sigaction(2), "SIGCHLD").
pub(super) fn keep_exit_statuses() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // SAFETY: the default disposition runs no code of ours. It fails only for signals that
        // cannot be caught.
        let _ = unsafe { signal(Signal::SIGCHLD, SigHandler::SigDfl) };
    });
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
    }

    #[test]
    fn a_number_that_nobody_has_is_no_process() {
        let mut child = sleeper();
        let number = child.id();
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(PidFd::open(number).unwrap_err(), Errno::ESRCH);
        assert_eq!(PidFd::open(u32::MAX).unwrap_err(), Errno::ESRCH);
    }
}
