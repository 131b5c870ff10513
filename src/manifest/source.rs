//! Where manifests are looked for, where one was read from, and who else could have written it.

use std::fmt;
use std::path::{Path, PathBuf};

use crate::escape::escape;
use crate::privileges::Caller;

/// The paths that are tried, in this order, when the command line names no manifest.
pub(crate) const DEFAULT_PATHS: [&str; 2] = ["routes.json", "/etc/scidex-route-health/routes.json"];

/// Where a manifest was read from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// Standard input, which is the caller's own.
    Stdin,
    /// A file, with the facts about the very file that was opened.
    File {
        /// The path as it was given.
        path: PathBuf,
        /// The file's owner (`st_uid`, stat(3type)).
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

/// A manifest that users other than root and the caller may write. Displays as who may write which
/// file.
#[derive(Debug)]
pub(crate) struct WritableByOthers<'a> {
    path: &'a Path,
    by: Writer,
    caller: Caller,
}

#[derive(Debug)]
enum Writer {
    /// The file's owner, a user who is neither root nor the caller.
    Owner(u32),
    /// Its group or everybody, by these permission bits.
    Others(u32),
}

impl Source {
    /// The file, if a user other than root and `caller` may write it.
    pub(crate) fn writable_by_others(&self, caller: Caller) -> Option<WritableByOthers<'_>> {
        const GROUP_AND_WORLD: u32 = 0o022;
        let Self::File { path, owner, mode } = self else {
            return None;
        };
        let by = if ![0, caller.euid].contains(owner) {
            Writer::Owner(*owner)
        } else if mode & GROUP_AND_WORLD != 0 {
            Writer::Others(mode & 0o7777)
        } else {
            return None;
        };
        Some(WritableByOthers { path, by, caller })
    }
}

impl fmt::Display for WritableByOthers<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.to_string_lossy();
        write!(f, "the manifest \"{}\" ", escape(&path))?;
        match self.by {
            Writer::Owner(owner) => write!(f, "belongs to user {owner}"),
            Writer::Others(mode) => write!(f, "is writable by others (mode {mode:03o})"),
        }
    }
}

impl WritableByOthers<'_> {
    /// The command after which no other user may write it.
    pub(crate) fn remedy(&self) -> String {
        let path = self.path.to_string_lossy();
        let path = escape(&path);
        match self.by {
            Writer::Owner(_) => format!("chown {} {path}", self.caller.euid),
            Writer::Others(_) => format!("chmod go-w {path}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
            let found = source.writable_by_others(caller);
            let found = found.map(|writable| writable.remedy());
            assert_eq!(found.as_deref(), remedy, "{source:?} {euid}");
        }
    }
}
