//! Where a manifest was read from, and who else could have written it.

use std::fmt;
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use crate::escape::escape;
use crate::privileges::Caller;

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
    /// A file at `path` that has been opened.
    pub(super) fn of_file(path: &Path, facts: &Metadata) -> Self {
        Self::File {
            path: path.to_owned(),
            owner: facts.uid(),
            mode: facts.mode(),
        }
    }

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
