//! Messages on standard error, with level prefixes for the journal. If it is closed, nothing panics.

use std::env;
use std::io::{self, Write};
use std::os::fd::AsFd;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::stat::fstat;

use crate::cause::Severity;
use crate::escape::reason;

/// The journal's prefix for a line of this severity (sd-daemon(3)).
pub(crate) const fn prefix(severity: Severity) -> &'static str {
    match severity {
        Severity::Hard => "<3>",
        Severity::Soft => "<4>",
        Severity::Fine => "<6>",
    }
}

/// Whether `stream` is connected to the journal, which takes a line's level from a prefix.
pub(crate) fn is_journal(stream: &impl AsFd) -> bool {
    env::var("JOURNAL_STREAM").is_ok_and(|named| is_file(stream, &named))
}

/// Whether `stream` is the file with the given `device:inode` (systemd.exec(5)).
fn is_file(stream: &impl AsFd, named: &str) -> bool {
    fstat(stream).is_ok_and(|stat| named == format!("{}:{}", stat.st_dev, stat.st_ino))
}

/// Writes `text`, one or more lines, to standard error in a single write, so that the output of other
/// processes does not interleave. Errors are ignored.
pub fn log(severity: Severity, text: &str) {
    let lines = lines(severity, text, is_journal(&io::stderr()));
    let _ = io::stderr().write_all(lines.as_bytes());
}

/// Like [`log`], but drops the line if standard error accepts nothing for a second: a stopped terminal or
/// a blocked reader must not delay a recovery.
pub fn log_nonblocking(severity: Severity, text: &str) {
    if takes_text(io::stderr(), 1_000_u16.into()) {
        log(severity, text);
    }
}

/// Whether `stream` takes at least one short line before the timeout: a pipe is writable only where it has
/// room for `PIPE_BUF` bytes (pipe(7)).
pub(crate) fn takes_text(stream: impl AsFd, timeout: PollTimeout) -> bool {
    let mut fds = [PollFd::new(stream.as_fd(), PollFlags::POLLOUT)];
    matches!(poll(&mut fds, timeout), Ok(1..))
}

/// Whether standard output was written; a failure is logged. A reader that has closed it is no failure.
pub(crate) fn stdout_is_written(result: io::Result<()>) -> bool {
    match result {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            let reason = reason(&error);
            let text = format!("cannot write to standard output: {reason}");
            log(Severity::Hard, &text);
            false
        }
        Ok(()) | Err(_) => true,
    }
}

fn lines(severity: Severity, text: &str, journal: bool) -> String {
    let prefix = if journal { prefix(severity) } else { "" };
    // In the journal, an empty line would become an entry without a message.
    let shown = text.lines().filter(|line| !(journal && line.is_empty()));
    shown.map(|line| format!("{prefix}{line}\n")).collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use nix::fcntl::{FcntlArg, OFlag, fcntl};

    use super::*;

    #[test]
    fn takes_text_waits_for_no_reader() {
        let (_reader, mut writer) = io::pipe().unwrap();
        assert!(takes_text(&writer, PollTimeout::ZERO));
        fcntl(&writer, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).unwrap();
        while writer.write(&[0; 4_096]).is_ok() {}
        assert!(!takes_text(&writer, 10_u16.into()));
    }

    #[test]
    fn is_file_compares_device_and_inode() {
        let file = tempfile::tempfile().unwrap();
        let facts = file.metadata().unwrap();
        let (device, inode) = (facts.dev(), facts.ino());
        assert!(is_file(&file, &format!("{device}:{inode}")));
        assert!(!is_file(&file, &format!("{device}:{}", inode + 1)));
        assert!(!is_file(&file, "garbage"));
    }

    #[test]
    fn lines_have_levels_only_in_the_journal() {
        assert_eq!(
            lines(Severity::Hard, "one\n\ntwo", true),
            "<3>one\n<3>two\n"
        );
        assert_eq!(lines(Severity::Soft, "one", true), "<4>one\n");
        assert_eq!(lines(Severity::Fine, "one\n", false), "one\n");
    }
}
