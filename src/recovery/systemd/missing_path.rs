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
