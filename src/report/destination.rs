//! Files that reports are written to. A regular file is replaced atomically, so that no reader sees half of
//! it; anything else is written in place, and opening it never blocks.

#[cfg(test)]
mod tests;

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::{AccessFlags, eaccess};

use crate::clock::Monotonic;
use crate::escape::reason;

/// How many symbolic links are followed before they count as a loop, the same as in the kernel
/// (path_resolution(7)).
const MOST_LINKS: usize = 40;
/// How long a pipe may stay full because its reader does not read.
const MAX_WAIT: Duration = Duration::from_secs(5);

/// A file that a report is to be written to.
#[derive(Debug)]
pub(super) struct Destination {
    what: &'static str,
    path: PathBuf,
    opened: Option<File>,
}

/// How a file is written.
enum Target {
    /// By replacing this file, which may not exist yet.
    Regular(PathBuf),
    /// In place: a device, a pipe, or our own standard error.
    InPlace(File),
    /// To our own standard output, like the report there.
    Stdout,
}

/// Writes through a descriptor that may be full for a while.
struct BoundedWriter {
    file: File,
    end: Option<Monotonic>,
}

impl Destination {
    /// The file at `path` for the report called `what`.
    pub(super) fn new(what: &'static str, path: &Path) -> Self {
        Self {
            what,
            path: path.to_owned(),
            opened: None,
        }
    }

    /// Finds out whether the path can work at all, without changing the disk. A file that is written in place
    /// is opened and kept open, because closing a pipe would signal its end to the reader.
    ///
    /// # Errors
    ///
    /// A line that says what is wrong and what to do.
    pub(super) fn prepare(&mut self) -> Result<(), String> {
        let checked = target(&self.path).and_then(|target| match target {
            Target::Stdout => Ok(()),
            Target::InPlace(file) => {
                self.opened = Some(file);
                Ok(())
            }
            Target::Regular(path) => Ok(eaccess(
                directory(&path),
                AccessFlags::W_OK | AccessFlags::X_OK,
            )?),
        });
        checked.map_err(|error| self.complaint(&error))
    }

    /// Writes the output of `render`.
    ///
    /// # Errors
    ///
    /// A line that says what is wrong and what to do.
    pub(super) fn write(
        mut self,
        render: impl FnOnce(&mut dyn Write) -> io::Result<()>,
    ) -> Result<(), String> {
        let target = match self.opened.take() {
            Some(file) => Ok(Target::InPlace(file)),
            None => target(&self.path),
        };
        let written = target.and_then(|target| match target {
            Target::InPlace(file) => {
                let end = Some(Monotonic::now() + MAX_WAIT);
                write_buffered(BoundedWriter { file, end }, render)
            }
            Target::Stdout => write_stdout(render),
            Target::Regular(path) => replace(&path, render),
        });
        written.map_err(|error| self.complaint(&error))
    }

    fn complaint(&self, error: &io::Error) -> String {
        let Self { what, path, .. } = self;
        let remedy = match error.raw_os_error().map(Errno::from_raw) {
            Some(Errno::ENOENT) => "; create its directory first",
            Some(Errno::EACCES | Errno::EPERM) => {
                "; this user must be allowed to write in its directory"
            }
            Some(Errno::EROFS) => {
                "; give a path on a writable file system (ReadWritePaths= in a unit)"
            }
            Some(Errno::ENXIO) => "; start its reader first",
            Some(Errno::EISDIR) => "; give a file's name",
            Some(Errno::ENOSPC | Errno::EDQUOT) => "; free some space",
            _ => "",
        };
        let reason = reason(error);
        format!("cannot write the {what} {path:?}: {reason}{remedy}")
    }
}

fn target(path: &Path) -> io::Result<Target> {
    let facts = match path.metadata() {
        Ok(facts) => facts,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let path = follow(path)?;
            // rename(2) would fail for "missing/" as well, but only after the sweep.
            return match path.as_os_str().as_encoded_bytes().last() {
                None | Some(b'/') => Err(Errno::EISDIR.into()),
                Some(_) => Ok(Target::Regular(path)),
            };
        }
        Err(error) => return Err(error),
    };
    if facts.is_dir() {
        return Err(Errno::EISDIR.into());
    }
    // /dev/stderr may refer to a socket, which cannot be opened, or to a log file, which must not be
    // replaced while others write to it.
    let leads_to = |stream: &File| -> io::Result<bool> {
        let own = stream.metadata()?;
        Ok((own.dev(), own.ino()) == (facts.dev(), facts.ino()))
    };
    if leads_to(&duplicate(&io::stdout())?)? {
        return Ok(Target::Stdout);
    }
    let stderr = duplicate(&io::stderr())?;
    if leads_to(&stderr)? {
        return Ok(Target::InPlace(stderr));
    }
    if facts.is_file() {
        return Ok(Target::Regular(path.canonicalize()?));
    }
    let mut options = OpenOptions::new();
    options
        .write(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY);
    Ok(Target::InPlace(options.open(path)?))
}

/// Resolves a path whose last component may be a symbolic link to a file that does not exist.
fn follow(path: &Path) -> io::Result<PathBuf> {
    let mut path = path.to_owned();
    for _ in 0..MOST_LINKS {
        match path.read_link() {
            Ok(next) => path = directory(&path).join(next),
            Err(_) => return Ok(path),
        }
    }
    Err(Errno::ELOOP.into())
}

/// Whether two paths refer to the same file, which may not exist yet.
pub(super) fn is_same(one: &Path, other: &Path) -> bool {
    let place = |path: &Path| -> io::Result<PathBuf> {
        path.canonicalize().or_else(|_| {
            let path = follow(path)?;
            let name = path.file_name().unwrap_or_default();
            Ok(directory(&path).canonicalize()?.join(name))
        })
    };
    match (place(one), place(other)) {
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
fn replace(path: &Path, render: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> io::Result<()> {
    let mut file = tempfile::Builder::new()
        // The textfile collector reads *.prom.
        .prefix(".scidex-route-health.")
        .suffix(".tmp")
        // tempfile's default mode would hide the report from other users; here the umask decides.
        .make_in(directory(path), |path| File::create_new(path))?;
    write_buffered(file.as_file_mut(), render)?;
    file.as_file().sync_all()?;
    file.persist(path).map_err(|failed| failed.error)?;
    Ok(())
}

fn write_buffered(
    out: impl Write,
    render: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> io::Result<()> {
    let mut out = BufWriter::with_capacity(64 * 1024, out);
    render(&mut out)?;
    out.flush()
}

/// Writes the output of `render` to standard output. A reader that has closed it is not an error.
pub(super) fn write_stdout(
    render: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> io::Result<()> {
    let file = duplicate(&io::stdout())?;
    match write_buffered(BoundedWriter { file, end: None }, render) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => written,
    }
}

/// A second descriptor for a standard stream: std's own handle flushes at each line and hides some
/// errors.
fn duplicate(stream: &impl AsFd) -> io::Result<File> {
    Ok(stream.as_fd().try_clone_to_owned()?.into())
}

impl Write for BoundedWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            match self.file.write(bytes) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.wait()?,
                written => return written,
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl BoundedWriter {
    /// Waits until the descriptor accepts more.
    fn wait(&self) -> io::Result<()> {
        let limit = match self.end {
            None => PollTimeout::NONE,
            Some(end) => PollTimeout::try_from(end.remaining()).unwrap_or(PollTimeout::MAX),
        };
        let mut polled = [PollFd::new(self.file.as_fd(), PollFlags::POLLOUT)];
        match poll(&mut polled, limit) {
            Ok(0) => Err(io::Error::new(
                io::ErrorKind::TimedOut,
                "its reader does not read",
            )),
            Ok(_) | Err(Errno::EINTR) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }
}
