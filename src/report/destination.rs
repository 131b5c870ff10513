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
use nix::poll::PollTimeout;
use nix::unistd::{AccessFlags, eaccess};

use crate::escape::reason;
use crate::stderr::{stdout_is_written, takes_text};

/// How long a pipe may stay full without its reader reading anything, in milliseconds.
const MAX_STANDSTILL: u16 = 5_000;

/// A file that a report is to be written to.
#[derive(Debug)]
pub(super) struct Destination {
    what: &'static str,
    path: PathBuf,
    /// What is no regular file; opened early, because closing a pipe would signal its end to the reader.
    in_place: Option<File>,
}

impl Destination {
    /// The file at `path` for the report called `what`; if it cannot work, a line that says what to do.
    pub(super) fn prepare(what: &'static str, path: &Path) -> Result<Self, String> {
        let in_place = open(path).map_err(|error| complaint(what, path, &error))?;
        let path = path.to_owned();
        Ok(Self {
            what,
            path,
            in_place,
        })
    }

    /// Writes the file, or returns a line that says what to do.
    pub(super) fn write(self, text: &str) -> Result<(), String> {
        // What was a regular file may have become something else since.
        let opened = self
            .in_place
            .map_or_else(|| open(&self.path), |file| Ok(Some(file)));
        let written = opened.and_then(|file| match file {
            Some(file) => write_in_place(file, MAX_STANDSTILL.into(), text),
            None => replace(&resolve(&self.path)?, text),
        });
        written.map_err(|error| complaint(self.what, &self.path, &error))
    }
}

/// Opens what is no regular file, and otherwise checks that the file can be replaced. Does not change the disk.
fn open(path: &Path) -> io::Result<Option<File>> {
    match path.to_str() {
        // These may refer to a socket, which cannot be opened, or to a log file, which must not be replaced.
        Some("/dev/stdout") => duplicate(&io::stdout()).map(Some),
        Some("/dev/stderr") => duplicate(&io::stderr()).map(Some),
        _ if path.metadata().is_ok_and(|facts| !facts.is_file()) => {
            let flags = libc::O_NONBLOCK | libc::O_NOCTTY;
            let mut options = OpenOptions::new();
            options.write(true).custom_flags(flags).open(path).map(Some)
        }
        _ => {
            let path = resolve(path)?;
            eaccess(directory(&path), AccessFlags::W_OK | AccessFlags::X_OK)?;
            Ok(None)
        }
    }
}

fn complaint(what: &str, path: &Path, error: &io::Error) -> String {
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
    match (one.metadata(), other.metadata()) {
        (Ok(one), Ok(other)) => (one.dev(), one.ino()) == (other.dev(), other.ino()),
        _ => {
            one == other || resolve(one).is_ok_and(|one| resolve(other).is_ok_and(|two| one == two))
        }
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

/// Writes to standard output, and returns whether it succeeded; a failure is reported on standard error.
pub(super) fn write_stdout(text: &str) -> bool {
    let stdout = duplicate(&io::stdout());
    let written = stdout.and_then(|stdout| write_in_place(stdout, PollTimeout::NONE, text));
    stdout_is_written(written)
}

/// Writes to a file that may be full for a while, but not for longer than `limit` at a time.
fn write_in_place(mut file: File, limit: PollTimeout, text: &str) -> io::Result<()> {
    let mut rest = text.as_bytes();
    while !rest.is_empty() {
        match file.write(rest) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => rest = rest.get(written..).unwrap_or_default(),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                if !takes_text(&file, limit) {
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
