//! Runs systemctl with limits on time and memory. Leaves no process behind.

use std::io::{self, ErrorKind, PipeReader, Read};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use anyhow::{Context as _, ensure};
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
/// `cancelled` is closed. Returns its output, which is in English and without colour, or a message: there is no whole
/// output, or it failed.
pub(super) fn run(
    command: &mut Command,
    typed: &str,
    bound: Duration,
    cancelled: Option<&PipeReader>,
) -> Result<Vec<u8>, String> {
    let running = Running::start(command).map_err(|error| match error.kind() {
        ErrorKind::NotFound => {
            "systemctl was not found in PATH: recovery requires systemd".to_owned()
        }
        _ => format!("systemctl could not be started: {error}"),
    })?;
    let output =
        (running.collect(bound, cancelled)).map_err(|why| format!("\"{typed}\" {why:#}"))?;
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
struct Running {
    child: Child,
    stdout: PipeReader,
    stderr: PipeReader,
}

impl Running {
    /// Starts `command`, which keeps the other ends of the pipes open: only the end of the process ends the output.
    fn start(command: &mut Command) -> io::Result<Self> {
        let (stdout, stdout_end) = io::pipe()?;
        let (stderr, stderr_end) = io::pipe()?;
        for pipe in [&stdout, &stderr] {
            fcntl(pipe, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        }
        command
            .env("LC_ALL", "C")
            .env("SYSTEMD_COLORS", "0")
            // Its debug messages would precede the reason of a failure.
            .env_remove("SYSTEMD_LOG_LEVEL")
            .stdin(Stdio::null())
            .stdout(stdout_end)
            .stderr(stderr_end)
            // A separate process group, so that its children can be killed with it.
            .process_group(0);
        pidfd::keep_exit_statuses();
        Ok(Self {
            child: command.spawn()?,
            stdout,
            stderr,
        })
    }

    fn collect(
        mut self,
        bound: Duration,
        cancelled: Option<&PipeReader>,
    ) -> anyhow::Result<Output> {
        let until = Monotonic::now() + bound;
        let process = PidFd::open(self.child.id()).context("could not be watched")?;
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        loop {
            let ended = process.died_within(Duration::ZERO);
            drain(&self.stdout, &mut stdout)?;
            drain(&self.stderr, &mut stderr)?;
            // If this program was stopped meanwhile (Ctrl-Z), the answer may be as old as that pause.
            ensure!(
                !until.has_passed(),
                "did not end within {} s: the service manager or D-Bus is stuck",
                bound.as_secs_f64()
            );
            if ended {
                break;
            }
            let mut sources = vec![process.as_fd(), self.stdout.as_fd(), self.stderr.as_fd()];
            sources.extend(cancelled.map(AsFd::as_fd));
            let polled = |fd| PollFd::new(fd, PollFlags::POLLIN);
            let mut fds: Vec<_> = sources.into_iter().map(polled).collect();
            // Whatever the result of the wait, the loop checks everything again.
            let _ = ppoll(&mut fds, Some(TimeSpec::from(until.remaining())), None);
            let hung_up = |fd: &PollFd| fd.revents() == Some(PollFlags::POLLHUP);
            let cancel = cancelled.is_some() && fds.last().is_some_and(hung_up);
            ensure!(!cancel, "did not end in time");
        }
        Ok(Output {
            status: self.child.wait().context("could not be watched")?,
            stdout,
            stderr,
        })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Unless the run was abandoned, `wait` above has reaped it. Until it is reaped, its PID
        // cannot be reused, so the number still means its group.
        if let (Ok(None), Ok(number)) = (self.child.try_wait(), i32::try_from(self.child.id())) {
            let _ = killpg(Pid::from_raw(number), Signal::SIGKILL);
            // If even SIGKILL does not end it soon, it is left to init.
            if PidFd::open(self.child.id())
                .is_ok_and(|process| process.died_within(Duration::from_millis(200)))
            {
                let _ = self.child.try_wait();
            }
        }
    }
}

/// Reads everything that has arrived so far.
fn drain(pipe: &PipeReader, bytes: &mut Vec<u8>) -> anyhow::Result<()> {
    // It ends with `WouldBlock`, or beyond the limit.
    let _ = pipe.take(OUTPUT as u64 + 1).read_to_end(bytes);
    ensure!(bytes.len() <= OUTPUT, "printed endless garbage");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_that_is_read_too_late_is_discarded() {
        let mut command = Command::new("echo");
        let running = Running::start(command.arg("MainPID=4711")).unwrap();
        let process = PidFd::open(running.child.id()).unwrap();
        assert!(process.died_within(Duration::from_secs(30)));
        let why = running.collect(Duration::ZERO, None).unwrap_err();
        assert!(
            why.to_string().starts_with("did not end within 0 s"),
            "{why}"
        );
    }
}
