//! Whether the files are still there that a restart needs.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use nix::sys::statfs::{TMPFS_MAGIC, statfs};

use super::unit::Unit;

/// A path that the restart needs and that does not exist any more, as far as this program can look: the program
/// of `ExecStart=`, and `WorkingDirectory=`.
pub(in crate::recovery) fn missing_path(unit: &Unit) -> Option<String> {
    // Any of these shows the unit other files than this program sees.
    const OTHER_ROOT: [&str; 7] = [
        "RootDirectory",
        "RootImage",
        "BindPaths",
        "BindReadOnlyPaths",
        "MountImages",
        "ExtensionImages",
        "ExtensionDirectories",
    ];
    let elsewhere = |name: &&str| unit.value(name).is_some_and(|value| !value.is_empty());
    if OTHER_ROOT.iter().any(elsewhere) {
        return None;
    }
    let program = unit.value("ExecStart").and_then(|command| {
        let (path, _) = command.strip_prefix("{ path=")?.split_once(" ; argv[]=")?;
        Some(path)
    });
    // systemctl prints WorkingDirectory=-/folder, which may be missing, as !/folder.
    let folder = unit.value("WorkingDirectory");
    [program, folder]
        .into_iter()
        .flatten()
        .find(|path| is_gone(Path::new(path)))
        .map(str::to_owned)
}

/// Whether `path` certainly does not exist. A permission error is no proof, and neither is a folder that systemd may
/// have hidden from this program: `PrivateTmp=`, `ProtectHome=`, `InaccessiblePaths=`.
fn is_gone(path: &Path) -> bool {
    let private = ["/tmp", "/var/tmp"];
    if !path.is_absolute() || private.iter().any(|folder| path.starts_with(folder)) {
        return false;
    }
    if !matches!(path.try_exists(), Ok(false)) {
        return false;
    }
    let exists = |folder: &&Path| folder.symlink_metadata().is_ok();
    let Some(above) = path.ancestors().skip(1).find(exists) else {
        return false;
    };
    let hidden = above
        .symlink_metadata()
        .map_or(true, |meta| meta.permissions().mode() % 0o1000 == 0);
    let replaced = statfs(above).map_or(true, |system| system.filesystem_type() == TMPFS_MAGIC);
    !hidden && !replaced
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recovery::systemd::samples::demo;

    #[test]
    fn missing_path_is_the_program_or_the_folder() {
        const GONE: &str = "/usr/bin/nonexistent-program";
        let program = format!(
            "ExecStart={{ path={GONE} ; argv[]={GONE} ; ignore_errors=no ; start_time=[n/a] }}"
        );
        for (changes, expected) in [
            (&["WorkingDirectory="][..], None),
            (&["WorkingDirectory=/usr"], None),
            (
                &["WorkingDirectory=/usr/nonexistent"],
                Some("/usr/nonexistent"),
            ),
            (&["WorkingDirectory=!/usr/nonexistent"], None),
            (&["WorkingDirectory=~"], None),
            (&["WorkingDirectory=/tmp/nonexistent"], None),
            (&["WorkingDirectory=/var/tmp/nonexistent"], None),
            (
                &["WorkingDirectory=/proc/1/nonexistent"],
                Some("/proc/1/nonexistent"),
            ),
            (&["WorkingDirectory=/usr/bin/env/folder"], None),
            (
                &["WorkingDirectory=/usr/nonexistent", "RootDirectory=/srv"],
                None,
            ),
            (
                &[
                    "WorkingDirectory=/usr/nonexistent",
                    "BindPaths=/srv:/usr/nonexistent:rbind",
                ],
                None,
            ),
            (&[&program, "WorkingDirectory=/"], Some(GONE)),
            (&["ExecStart=", "WorkingDirectory=/"], None),
            (&["ExecStart", "WorkingDirectory"], None),
        ] {
            assert_eq!(
                missing_path(&demo(changes)).as_deref(),
                expected,
                "{changes:?}"
            );
        }
    }

    #[test]
    fn a_folder_that_may_hide_files_proves_nothing() {
        let shown = tempfile::TempDir::new_in("/dev/shm");
        let Ok(tmpfs) = shown else { return };
        assert!(!is_gone(&tmpfs.path().join("nonexistent")));
    }
}
