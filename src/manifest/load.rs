//! Finds and reads the manifest's file, and says who else could have written it.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::{anyhow, bail};
use nix::fcntl::OFlag;

use super::json::MOST_BYTES;
use super::{BaseUrl, Manifest, Variables};
use crate::escape::{escape, reason};
use crate::privileges::Caller;

/// The paths that are tried, in this order, when the command line names no manifest.
pub(crate) const DEFAULT_PATHS: [&str; 2] = ["routes.json", "/etc/scidex-route-health/routes.json"];

/// Where a manifest was read from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// Standard input, which is the caller's own.
    Stdin,
    /// A file, with the facts about the very file that was opened (stat(3type)).
    File {
        /// The path as it was given.
        path: PathBuf,
        /// The file's owner (`st_uid`).
        owner: u32,
        /// The file's type and permission bits (`st_mode`).
        mode: u32,
    },
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stdin => f.write_str("standard input"),
            Self::File { path, .. } => f.write_str(&escape(&path.to_string_lossy())),
        }
    }
}

impl Source {
    /// The problem that a user other than root and `caller` may write the file, if `caller` may kill any process;
    /// with its `consequence` and a remedy.
    pub(crate) fn writable_by_others(&self, caller: Caller, consequence: &str) -> Option<String> {
        let Self::File { owner, mode, .. } = self else {
            return None;
        };
        let (who, remedy) = if !caller.may_kill {
            return None;
        } else if ![0, caller.euid].contains(owner) {
            let who = format!("belongs to user {owner}");
            (who, format!("chown {} {self}", caller.euid))
        } else if mode & 0o022 != 0 {
            let who = format!("is writable by others (mode {:03o})", mode & 0o7777);
            (who, format!("chmod go-w {self}"))
        } else {
            return None;
        };
        Some(format!(
            "the manifest \"{self}\" {who}, {consequence}; run \"{remedy}\" to secure it"
        ))
    }
}

impl Manifest {
    /// Reads the manifest in `file`, or from standard input if that is `-`. Without a file, it is the first of
    /// `DEFAULT_PATHS` that exists. For the other arguments, see [`Self::parse`].
    ///
    /// # Errors
    ///
    /// The file cannot be read or is too large; or a privileged run found a default file that other users
    /// may write; or the manifest is invalid. Every problem is listed, without any header's value.
    pub fn load(
        file: Option<&Path>,
        base_url: Option<&BaseUrl>,
        variables: Variables<'_>,
    ) -> anyhow::Result<Self> {
        let (bytes, source) = match file {
            Some(path) => read_named(path).map_err(|error| unreadable(path, &error))?,
            None => read_first(&DEFAULT_PATHS)?,
        };
        let consequence = "and a run as root or with CAP_KILL uses such a file only if --manifest names it, because it \
            decides where secrets are sent and what is killed";
        // If variables may be missing, no secret is read and nothing is sent.
        if file.is_none()
            && matches!(variables, Variables::Required(_))
            && let Some(problem) = source.writable_by_others(Caller::current(), consequence)
        {
            bail!("{problem}, or pass --manifest {source}");
        }
        Self::parse(&bytes, source, base_url, variables)
    }
}

fn read_named(path: &Path) -> io::Result<(Vec<u8>, Source)> {
    if path.as_os_str() == "-" {
        return Ok((read(io::stdin().lock())?, Source::Stdin));
    }
    read_file(File::open(path)?, path)
}

/// Reads the first of `paths` that exists. One that exists and cannot be read ends the search:
/// another manifest may name another unit.
fn read_first(paths: &[&str]) -> anyhow::Result<(Vec<u8>, Source)> {
    for path in paths.iter().map(Path::new) {
        match open_regular(path).and_then(|file| read_file(file, path)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            read => return read.map_err(|error| unreadable(path, &error)),
        }
    }
    bail!(
        "found no manifest: neither \"{}\" exists; write one, or name another file with --manifest",
        paths.join("\" nor \"")
    )
}

/// Opens a regular file. Anything else is an error at once: a FIFO that somebody put there would otherwise
/// block for ever, in the open or in the first read.
pub(super) fn open_regular(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    let options = options.read(true).custom_flags(OFlag::O_NONBLOCK.bits());
    let file = options.open(path)?;
    if file.metadata()?.is_file() {
        Ok(file)
    } else {
        Err(io::Error::other("is not a regular file"))
    }
}

/// Reads an open file, and the facts about it.
fn read_file(file: File, path: &Path) -> io::Result<(Vec<u8>, Source)> {
    let facts = file.metadata()?;
    let source = Source::File {
        path: path.to_owned(),
        owner: facts.uid(),
        mode: facts.mode(),
    };
    Ok((read(file)?, source))
}

/// Reads at most one byte more than a manifest may contain.
fn read(from: impl io::Read) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    from.take(MOST_BYTES as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn unreadable(path: &Path, error: &io::Error) -> anyhow::Error {
    let reason = reason(error);
    anyhow!(
        "could not read the manifest {path:?}: {reason}; check its path and permissions, or name another file with --manifest"
    )
}

#[cfg(test)]
mod tests {
    use nix::errno::Errno;

    use super::*;

    fn message(path: &Path) -> String {
        Manifest::load(Some(path), None, Variables::MayBeMissing)
            .expect_err("no manifest")
            .to_string()
    }

    #[test]
    fn the_shipped_manifest_loads() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("routes.json");
        let manifest = Manifest::load(Some(&path), None, Variables::MayBeMissing).expect("valid");
        assert_eq!(manifest.source.to_string(), path.display().to_string());
        let facts = std::fs::metadata(&path).expect("facts");
        let (owner, mode) = (facts.uid(), facts.mode());
        assert_eq!(manifest.source, Source::File { path, owner, mode });
        assert_eq!(manifest.routes.len(), 17);
    }

    #[test]
    fn a_file_that_cannot_be_read_is_one_line() {
        let missing = Path::new("/nonexistent/a\u{1b}.json");
        assert_eq!(
            message(missing),
            "could not read the manifest \"/nonexistent/a\\u{1b}.json\": no such file or directory; \
             check its path and permissions, or name another file with --manifest"
        );
        let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
        assert!(message(folder).contains("is a directory"));
        let zero = message(Path::new("/dev/zero"));
        assert!(zero.starts_with("/dev/zero: manifest: exceeds the 8 MiB limit"));
        assert!(
            message(Path::new("/dev/null"))
                .starts_with("/dev/null: line 1, column 1: expected more")
        );
    }

    #[test]
    fn a_file_that_may_not_be_read_is_one_line() {
        // Root, who often runs the tests, may read any file.
        let error = unreadable(Path::new("/etc/shadow"), &io::Error::from(Errno::EACCES));
        assert_eq!(
            error.to_string(),
            "could not read the manifest \"/etc/shadow\": permission denied; \
             check its path and permissions, or name another file with --manifest"
        );
    }

    #[test]
    fn the_first_that_exists_is_read() {
        let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("routes.json");
        let file = shipped.join("x");
        let (shipped, file) = (shipped.to_str().unwrap(), file.to_str().unwrap());
        let (none, folder) = ("/nonexistent/a", "/");
        let (_, source) = read_first(&[none, shipped]).expect("the second");
        assert_eq!(source.to_string(), shipped);
        let error = read_first(&[none, none]).expect_err("neither").to_string();
        assert_eq!(
            error,
            "found no manifest: neither \"/nonexistent/a\" nor \"/nonexistent/a\" exists; \
             write one, or name another file with --manifest"
        );
        let error = read_first(&[file, shipped]).expect_err("no directory");
        assert!(error.to_string().contains("routes.json/x\": "), "{error}");
        let error = read_first(&[folder, shipped]).expect_err("a directory");
        assert!(error.to_string().contains("\"/\": is not a regular file"));
    }

    #[test]
    fn writable_by_others_asks_who_could_have_written() {
        let file = |owner, mode| Source::File {
            path: PathBuf::from("/etc/routes.json"),
            owner,
            mode,
        };
        for (source, euid, remedy) in [
            (file(0, 0o100_644), 0, None),
            (file(0, 0o100_600), 0, None),
            (file(0, 0o100_664), 0, Some("chmod go-w /etc/routes.json")),
            (file(0, 0o100_646), 0, Some("chmod go-w /etc/routes.json")),
            (file(1_000, 0o100_644), 0, Some("chown 0 /etc/routes.json")),
            (file(990, 0o100_644), 990, None),
            (file(0, 0o100_644), 990, None),
            (
                file(991, 0o100_644),
                990,
                Some("chown 990 /etc/routes.json"),
            ),
            (Source::Stdin, 0, None),
        ] {
            let caller = Caller {
                euid,
                may_kill: true,
            };
            let found = source.writable_by_others(caller, "who could do harm");
            let end =
                remedy.map(|remedy| format!(", who could do harm; run \"{remedy}\" to secure it"));
            assert_eq!(found.is_some(), remedy.is_some(), "{source:?} {euid}");
            assert!(
                found
                    .unwrap_or_default()
                    .ends_with(&end.unwrap_or_default()),
                "{source:?}"
            );
            let caller = Caller {
                may_kill: false,
                ..caller
            };
            assert_eq!(source.writable_by_others(caller, ""), None, "{source:?}");
        }
    }
}
