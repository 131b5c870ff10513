//! Files that reports are written to. A regular file is replaced atomically, so that no reader sees half of
//! it; anything else is written in place, and opening it never blocks.

#[cfg(test)]
mod tests;

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::{AccessFlags, eaccess};

use crate::escape::reason;
use crate::stderr::log_stdout_failed;

/// How long a pipe may stay full without its reader reading anything, in milliseconds.
const MAX_STANDSTILL: u16 = 5_000;

/// A file that a report is to be written to.
#[derive(Debug)]
pub(super) struct Destination {
    what: &'static str,
    path: PathBuf,
    opened: Option<File>,
}

impl Destination {
    /// The file at `path` for the report called `what`, and whether it can work at all: if not, a line that
    /// says what to do. Does not change the disk. A file that is written in place is opened and kept open,
    /// because closing a pipe would signal its end to the reader.
    pub(super) fn prepare(what: &'static str, path: &Path) -> (Self, Result<(), String>) {
        let (path, flags) = (path.to_owned(), AccessFlags::W_OK | AccessFlags::X_OK);
        let (opened, checked) = match open_in_place(&path) {
            Ok(Some(file)) => (Some(file), Ok(())),
            Ok(None) => (
                None,
                resolve(&path).and_then(|path| Ok(eaccess(directory(&path), flags)?)),
            ),
            Err(error) => (None, Err(error)),
        };
        let destination = Self { what, path, opened };
        let checked = checked.map_err(|error| destination.complaint(&error));
        (destination, checked)
    }

    /// Writes the file, or returns a line that says what to do.
    pub(super) fn write(mut self, text: &str) -> Result<(), String> {
        let file = match self.opened.take() {
            None => open_in_place(&self.path),
            opened => Ok(opened),
        };
        let written = file.and_then(|file| match file {
            Some(file) => write_in_place(file, MAX_STANDSTILL.into(), text),
            None => replace(&resolve(&self.path)?, text),
        });
        written.map_err(|error| self.complaint(&error))
    }

    fn complaint(&self, error: &io::Error) -> String {
        let Self { what, path, .. } = self;
        let remedy = match error.raw_os_error().map(Errno::from_raw) {
            Some(Errno::ENOENT) => "; create its directory first",
            Some(Errno::EACCES | Errno::EPERM) => "; let this user write in its directory",
            Some(Errno::EROFS) => "; use a writable path (in a unit: ReadWritePaths=)",
            Some(Errno::ENXIO) => "; start its reader first",
            Some(Errno::EISDIR) => "; give a file's name",
            Some(Errno::ENOSPC | Errno::EDQUOT) => "; free some space",
            _ => "",
        };
        let reason = reason(error);
        format!("cannot write the {what} {path:?}: {reason}{remedy}")
    }
}

/// Opens what is written in place: a device, a pipe, or one of our own standard streams.
fn open_in_place(path: &Path) -> io::Result<Option<File>> {
    match path.to_str() {
        // These may refer to a socket, which cannot be opened, or to a log file, which must not be replaced.
        Some("/dev/stdout") => return duplicate(&io::stdout()).map(Some),
        Some("/dev/stderr") => return duplicate(&io::stderr()).map(Some),
        _ => {}
    }
    match path.metadata() {
        Ok(facts) if facts.is_dir() => Err(Errno::EISDIR.into()),
        Ok(facts) if !facts.is_file() => {
            let mut options = OpenOptions::new();
            let flags = libc::O_NONBLOCK | libc::O_NOCTTY;
            let file = options.write(true).custom_flags(flags).open(path);
            file.map(Some)
        }
        _ => Ok(None),
    }
}

/// The path without symbolic links. The file itself may not exist yet.
fn resolve(path: &Path) -> io::Result<PathBuf> {
    match path.canonicalize() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        resolved => return resolved,
    }
    if let Ok(next) = path.read_link() {
        // Not a loop, which would have been another error.
        return resolve(&directory(path).join(next));
    }
    match path.file_name() {
        // rename(2) would fail for "missing/" as well, but only after the sweep.
        Some(name) if !path.as_os_str().as_encoded_bytes().ends_with(b"/") => {
            Ok(directory(path).canonicalize()?.join(name))
        }
        _ => Err(Errno::EISDIR.into()),
    }
}

/// Whether two paths refer to the same file, which may not exist yet.
pub(super) fn is_same(one: &Path, other: &Path) -> bool {
    if let (Ok(one), Ok(other)) = (one.metadata(), other.metadata()) {
        return (one.dev(), one.ino()) == (other.dev(), other.ino());
    }
    match (resolve(one), resolve(other)) {
        (Ok(one), Ok(other)) => one == other,
        _ => one == other,
    }
}

fn directory(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// Writes a file beside `path` and renames it to `path`. It is synced before the rename, so that a power
/// failure does not leave an empty report.
fn replace(path: &Path, text: &str) -> io::Result<()> {
    let mut file = tempfile::Builder::new()
        // The textfile collector reads *.prom.
        .prefix(".scidex-route-health.")
        .suffix(".tmp")
        // tempfile's default mode would hide the report from other users; here the umask decides.
        .make_in(directory(path), |path| File::create_new(path))?;
    file.write_all(text.as_bytes())?;
    file.as_file().sync_all()?;
    file.persist(path)?;
    Ok(())
}

/// Writes to standard output, and returns whether it succeeded; a failure is reported on standard error. A
/// reader that has closed it is none.
pub(super) fn write_stdout(text: &str) -> bool {
    let stdout = duplicate(&io::stdout());
    match stdout.and_then(|stdout| write_in_place(stdout, PollTimeout::NONE, text)) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => true,
        written => written.inspect_err(log_stdout_failed).is_ok(),
    }
}

/// Writes to a file that may be full for a while, but not for longer than `limit` at a time.
fn write_in_place(mut file: File, limit: PollTimeout, text: &str) -> io::Result<()> {
    let mut rest = text.as_bytes();
    while !rest.is_empty() {
        match file.write(rest) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => rest = rest.get(written..).unwrap_or_default(),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                let mut polled = [PollFd::new(file.as_fd(), PollFlags::POLLOUT)];
                if poll(&mut polled, limit) == Ok(0) {
                    return Err(io::Error::other("its reader does not read"));
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// A second descriptor for a standard stream: std's own handle flushes at each line and hides some errors.
fn duplicate(stream: &impl AsFd) -> io::Result<File> {
    Ok(stream.as_fd().try_clone_to_owned()?.into())
}
