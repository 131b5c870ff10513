//! Messages on standard error, with level prefixes if it is connected to the journal. A closed standard
//! error causes no panic.

use std::env;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::sync::OnceLock;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::stat::fstat;

use crate::escape::reason;

/// The severity of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// Something failed.
    Failure,
    /// A problem that does not fail the run.
    Warning,
    /// For information.
    Info,
}

impl Level {
    /// The journal's prefix for the level (sd-daemon(3)).
    pub(crate) const fn prefix(self) -> &'static str {
        match self {
            Self::Failure => "<3>",
            Self::Warning => "<4>",
            Self::Info => "<6>",
        }
    }
}

/// Whether `stream` is connected to the journal, which takes a line's level from a prefix.
pub(crate) fn is_journal(stream: &impl AsFd) -> bool {
    env::var("JOURNAL_STREAM").is_ok_and(|named| is_file(stream, &named))
}

/// Whether `stream` is the file with the given `device:inode` (systemd.exec(5)).
fn is_file(stream: &impl AsFd, named: &str) -> bool {
    let Some((device, inode)) = named.split_once(':') else {
        return false;
    };
    let Ok(stat) = fstat(stream) else {
        return false;
    };
    device.parse() == Ok(stat.st_dev) && inode.parse() == Ok(stat.st_ino)
}

/// Whether standard error is connected to the journal.
pub(crate) fn stderr_is_journal() -> bool {
    static JOURNAL: OnceLock<bool> = OnceLock::new();
    *JOURNAL.get_or_init(|| is_journal(&io::stderr()))
}

/// Writes `text`, one or more lines, to standard error in a single write, so that the output of other
/// processes does not interleave. Errors are ignored.
pub fn log(level: Level, text: &str) {
    let lines = lines(level, text, stderr_is_journal());
    let _ = io::stderr().write_all(lines.as_bytes());
}

/// Like [`log`], but drops the line if standard error accepts nothing for a second: a stopped terminal or
/// a blocked reader must not delay a recovery.
pub fn log_nonblocking(level: Level, text: &str) {
    const MAX_WAIT: Duration = Duration::from_secs(1);
    if takes_text(io::stderr(), MAX_WAIT) {
        log(level, text);
    }
}

/// Whether `stream` takes at least one short line within `max_wait`: a pipe is writable only where
/// it has room for `PIPE_BUF` bytes (pipe(7)).
pub(crate) fn takes_text(stream: impl AsFd, max_wait: Duration) -> bool {
    let mut fds = [PollFd::new(stream.as_fd(), PollFlags::POLLOUT)];
    let timeout = PollTimeout::try_from(max_wait).unwrap_or(PollTimeout::ZERO);
    matches!(poll(&mut fds, timeout), Ok(1..))
}

/// Logs that standard output cannot be written.
pub(crate) fn log_stdout_failed(error: &io::Error) {
    let reason = reason(error);
    let text = format!("cannot write to standard output: {reason}");
    log(Level::Failure, &text);
}

fn lines(level: Level, text: &str, journal: bool) -> String {
    let prefix = if journal { level.prefix() } else { "" };
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
        assert!(takes_text(&writer, Duration::ZERO));
        fcntl(&writer, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).unwrap();
        while writer.write(&[0; 4_096]).is_ok() {}
        assert!(!takes_text(&writer, Duration::from_millis(10)));
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
            lines(Level::Failure, "one\n\ntwo", true),
            "<3>one\n<3>two\n"
        );
        assert_eq!(lines(Level::Warning, "one", true), "<4>one\n");
        assert_eq!(lines(Level::Info, "one\n", false), "one\n");
    }
}
