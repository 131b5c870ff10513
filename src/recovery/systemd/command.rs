//! Runs systemctl with limits on time and memory. Leaves no process behind.

use std::io::{ErrorKind, PipeReader, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::signal::{Signal, killpg};
use nix::sys::time::TimeSpec;
use nix::unistd::Pid;

use super::super::pidfd::{self, PidFd};
use crate::clock::Monotonic;
use crate::escape::escape;

/// The largest number of bytes read from each output.
const OUTPUT: usize = 1 << 20;

/// Runs `command`, for messages written as `typed`, until it ends, for at most `bound`, or until the other end of
/// `cancelled` is closed. Returns its output, which is in English and without colour.
///
/// # Errors
///
/// A message: there is no whole output, or it failed.
pub(super) fn run(
    command: &mut Command,
    typed: &str,
    bound: Duration,
    cancelled: Option<&PipeReader>,
) -> Result<Vec<u8>, String> {
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
    let child = command.spawn().map_err(|error| match error.kind() {
        ErrorKind::NotFound => {
            "systemctl was not found in PATH: recovery requires systemd".to_owned()
        }
        _ => format!("systemctl could not be started: {error}"),
    })?;
    let output =
        (Running(child).collect(bound, cancelled)).map_err(|why| format!("\"{typed}\" {why:#}"))?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    let complaint = String::from_utf8_lossy(&output.stderr);
    let mut lines = complaint.lines().map(str::trim);
    let first = lines.find(|line| !line.is_empty());
    Err(format!(
        "\"{typed}\" failed ({}): {}",
        output.status,
        escape(first.unwrap_or("it gave no reason"))
    ))
}

/// A child process. Dropping it ends its whole process group.
struct Running(Child);

impl Running {
    fn collect(
        mut self,
        bound: Duration,
        cancelled: Option<&PipeReader>,
    ) -> anyhow::Result<Output> {
        const UNSEEN: &str = "could not be watched";
        let until = Monotonic::now() + bound;
        let process = PidFd::open(self.0.id()).context(UNSEEN)?;
        let mut stdout = Stream::new(self.0.stdout.take()).context(UNSEEN)?;
        let mut stderr = Stream::new(self.0.stderr.take()).context(UNSEEN)?;
        loop {
            let ended = process.died_within(Duration::ZERO);
            stdout.drain()?;
            stderr.drain()?;
            // If this program was stopped meanwhile (Ctrl-Z), the answer may be as old as that pause.
            ensure!(
                !until.has_passed(),
                "did not end within {} s: the service manager or D-Bus is stuck",
                bound.as_secs_f64()
            );
            // The output ends when the program exits, not when the pipe closes: a child of it may
            // keep the pipe open indefinitely.
            if ended {
                break;
            }
            let sources = [
                cancelled.map(AsFd::as_fd),
                Some(process.as_fd()),
                stdout.open(),
                stderr.open(),
            ];
            let open = sources.into_iter().flatten();
            let mut fds: Vec<_> = open.map(|fd| PollFd::new(fd, PollFlags::POLLIN)).collect();
            // Whatever the result of the wait, the loop checks everything again.
            let _ = ppoll(&mut fds, Some(TimeSpec::from(until.remaining())), None);
            let hung_up = |fd: &PollFd| fd.revents() == Some(PollFlags::POLLHUP);
            if cancelled.is_some() && fds.first().is_some_and(hung_up) {
                bail!("did not end in time");
            }
        }
        Ok(Output {
            status: self.0.wait().context(UNSEEN)?,
            stdout: stdout.bytes,
            stderr: stderr.bytes,
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
        let bytes = Vec::new();
        Ok(Self { pipe, bytes })
    }

    fn open(&self) -> Option<BorrowedFd<'_>> {
        self.pipe.as_ref().map(AsFd::as_fd)
    }

    /// Reads everything that has arrived so far.
    fn drain(&mut self) -> anyhow::Result<()> {
        if let Some(pipe) = &mut self.pipe {
            let end = pipe.take(OUTPUT as u64 + 1).read_to_end(&mut self.bytes);
            ensure!(self.bytes.len() <= OUTPUT, "printed endless garbage");
            if !end.is_err_and(|error| error.kind() == ErrorKind::WouldBlock) {
                self.pipe = None;
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
        let why = Running(child).collect(Duration::ZERO, None).unwrap_err();
        assert!(
            why.to_string().starts_with("did not end within 0 s"),
            "{why}"
        );
    }
}
