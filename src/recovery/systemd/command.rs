//! Runs another program with limits on time and memory. Leaves no process behind.

use std::io::{ErrorKind, PipeReader, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::signal::{Signal, killpg};
use nix::sys::time::TimeSpec;
use nix::unistd::Pid;

use super::super::pidfd::{self, PidFd};
use crate::clock::Monotonic;

/// The largest number of bytes read from each output.
const OUTPUT: usize = 1 << 20;

/// Runs `command` until it ends, for at most `bound`, or until the other end of `cancelled` is closed.
/// Its messages are in English and without colour.
///
/// # Errors
///
/// Why there is no whole output.
pub(crate) fn run(
    command: &mut Command,
    bound: Duration,
    cancelled: Option<&PipeReader>,
) -> Result<Output, Trouble> {
    command
        .env("LC_ALL", "C")
        .env("SYSTEMD_COLORS", "0")
        // Its debug messages would precede the reason of a failure.
        .env_remove("SYSTEMD_LOG_LEVEL")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        // A separate process group, so that its children can be killed with it.
        .process_group(0);
    pidfd::keep_exit_statuses();
    let until = Monotonic::now() + bound;
    let child = command.spawn().map_err(|error| match error.kind() {
        ErrorKind::NotFound => Trouble::Missing,
        _ => Trouble::Start(error.to_string()),
    })?;
    Running(child).collect(until, cancelled)
}

/// The output of a program that has ended.
pub(crate) struct Output {
    pub(crate) status: ExitStatus,
    pub(crate) answer: Vec<u8>,
    pub(crate) complaints: Vec<u8>,
}

/// Why there is no whole output.
pub(crate) enum Trouble {
    /// The program was not found in `PATH`.
    Missing,
    /// It could not be started; why.
    Start(String),
    /// It did not end in time.
    Slow,
    /// The caller cancelled it.
    Cancelled,
    /// It printed too much.
    Verbose,
}

/// A child process. Dropping it ends its whole process group.
struct Running(Child);

impl Running {
    fn collect(
        mut self,
        until: Monotonic,
        cancelled: Option<&PipeReader>,
    ) -> Result<Output, Trouble> {
        let start = |error: &dyn std::fmt::Display| Trouble::Start(error.to_string());
        let process = PidFd::open(self.0.id()).map_err(|error| start(&error))?;
        let mut answer = Stream::new(self.0.stdout.take()).map_err(|error| start(&error))?;
        let mut complaints = Stream::new(self.0.stderr.take()).map_err(|error| start(&error))?;
        loop {
            let ended = process.died_within(Duration::ZERO);
            answer.drain()?;
            complaints.drain()?;
            // If this program was stopped meanwhile (Ctrl-Z), the answer may be as old as that
            // pause.
            if until.has_passed() {
                return Err(Trouble::Slow);
            }
            // The output ends when the program exits, not when the pipe closes: a child of it may
            // keep the pipe open indefinitely.
            if ended {
                break;
            }
            let sources = [
                cancelled.map(AsFd::as_fd),
                Some(process.as_fd()),
                answer.open(),
                complaints.open(),
            ];
            let mut fds: Vec<PollFd> = sources
                .into_iter()
                .flatten()
                .map(|fd| PollFd::new(fd, PollFlags::POLLIN))
                .collect();
            // Whatever the result of the wait, the loop checks everything again.
            let _ = ppoll(&mut fds, Some(TimeSpec::from(until.remaining())), None);
            let hung_up = |fd: &PollFd| fd.revents() == Some(PollFlags::POLLHUP);
            if cancelled.is_some() && fds.first().is_some_and(hung_up) {
                return Err(Trouble::Cancelled);
            }
        }
        let status = self.0.wait().map_err(|error| start(&error))?;
        Ok(Output {
            status,
            answer: answer.bytes,
            complaints: complaints.bytes,
        })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Unless the run was abandoned, `wait` above has reaped it. Until it is reaped, its PID
        // cannot be reused, so the number still means its group.
        if let (Ok(None), Ok(number)) = (self.0.try_wait(), i32::try_from(self.0.id())) {
            let _ = killpg(Pid::from_raw(number), Signal::SIGKILL);
            // If even SIGKILL does not end it soon, it is left to init.
            if PidFd::open(self.0.id())
                .is_ok_and(|process| process.died_within(Duration::from_millis(200)))
            {
                let _ = self.0.try_wait();
            }
        }
    }
}

/// One output, read without blocking.
struct Stream<R> {
    pipe: Option<R>,
    bytes: Vec<u8>,
}

impl<R: Read + AsFd> Stream<R> {
    fn new(pipe: Option<R>) -> nix::Result<Self> {
        if let Some(pipe) = &pipe {
            fcntl(pipe, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        }
        Ok(Self {
            pipe,
            bytes: Vec::new(),
        })
    }

    fn open(&self) -> Option<BorrowedFd<'_>> {
        self.pipe.as_ref().map(AsFd::as_fd)
    }

    /// Reads everything that has arrived so far.
    fn drain(&mut self) -> Result<(), Trouble> {
        let mut buffer = [0; 4_096];
        while let Some(pipe) = &mut self.pipe {
            match pipe.read(&mut buffer) {
                Ok(0) => self.pipe = None,
                Ok(count) => self.bytes.extend(buffer.iter().take(count)),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(_) => self.pipe = None,
            }
            if self.bytes.len() > OUTPUT {
                return Err(Trouble::Verbose);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_that_is_read_too_late_is_discarded() {
        let child = Command::new("echo")
            .arg("MainPID=4711")
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let process = PidFd::open(child.id()).unwrap();
        assert!(process.died_within(Duration::from_secs(30)));
        let collected = Running(child).collect(Monotonic::now(), None);
        assert!(matches!(collected, Err(Trouble::Slow)));
    }
}
