//! Whether the files are still there that a restart needs.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use nix::sys::statfs::{TMPFS_MAGIC, statfs};

use super::properties::OTHER_ROOT;
use super::unit::Unit;
use crate::escape::escape;

/// How long the files are waited for. A dead network file system never answers.
const LIMIT: Duration = Duration::from_secs(1);

/// What is wrong with a path that the restart needs, as far as this program can look: the program of `ExecStart=`, and
/// `WorkingDirectory=`.
pub(crate) fn missing_path(unit: &Unit) -> Option<String> {
    let paths = needed_paths(unit);
    let shown = escape(&paths.join(" or ")).into_owned();
    let (sender, receiver) = mpsc::channel();
    // Not joined: it may wait for ever.
    let thread = thread::Builder::new().spawn(move || {
        let gone = paths.into_iter().find(|path| is_gone(Path::new(path)));
        drop(sender.send(gone));
    });
    thread.ok()?;
    match receiver.recv_timeout(LIMIT) {
        Ok(gone) => gone.map(|path| format!("{} does not exist any more", escape(&path))),
        Err(_) => Some(format!("{shown} is on a file system that does not answer")),
    }
}

/// The absolute paths among the two.
fn needed_paths(unit: &Unit) -> Vec<String> {
    if OTHER_ROOT.iter().any(|name| unit.is_set(name)) {
        return Vec::new();
    }
    let program = unit.value("ExecStart").and_then(|command| {
        let (path, _) = command.strip_prefix("{ path=")?.split_once(" ; argv[]=")?;
        Some(path)
    });
    // systemctl prints WorkingDirectory=-/folder, which may be missing, as !/folder.
    let folder = unit.value("WorkingDirectory");
    let paths = [program, folder].into_iter().flatten();
    let absolute = paths.filter(|path| path.starts_with('/'));
    absolute.map(str::to_owned).collect()
}

/// Whether `path` certainly does not exist. A permission error is no proof, and neither is a folder that systemd may
/// have hidden from this program: `PrivateTmp=`, `ProtectHome=`, `InaccessiblePaths=`.
fn is_gone(path: &Path) -> bool {
    let private = path.starts_with("/tmp") || path.starts_with("/var/tmp");
    if private || !matches!(path.try_exists(), Ok(false)) {
        return false;
    }
    let mut folders = path.ancestors().skip(1);
    let nearest = folders.find_map(|folder| Some((folder, folder.symlink_metadata().ok()?)));
    nearest.is_some_and(|(folder, meta)| {
        let hidden = meta.permissions().mode() % 0o1000 == 0;
        !hidden && statfs(folder).is_ok_and(|system| system.filesystem_type() != TMPFS_MAGIC)
    })
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;
    use crate::recovery::systemd::samples::demo;
    use crate::skip::skip;

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
                missing_path(&demo(changes)),
                expected.map(|path| format!("{path} does not exist any more")),
                "{changes:?}"
            );
        }
    }

    #[test]
    fn a_dead_file_system_is_not_waited_for() {
        const INNER: &str = "SCIDEX_TEST_DEAD_FILE_SYSTEM";
        const NAME: &str =
            "recovery::systemd::missing_path::tests::a_dead_file_system_is_not_waited_for";
        // A FUSE file system that nobody serves, in a mount namespace of its own.
        const MOUNT: &str = "exec 3<>/dev/fuse && mount -i -t fuse \
            -o fd=3,rootmode=40000,user_id=0,group_id=0 none /mnt && exec timeout -s KILL 20 \"$@\"";
        if std::env::var_os(INNER).is_some() {
            println!("{:?}", missing_path(&demo(&["WorkingDirectory=/mnt/app"])));
            return;
        }
        let mut own = Command::new("unshare");
        own.args(["--mount", "sh", "-c", MOUNT, "sh"]);
        own.arg(std::env::current_exe().unwrap());
        own.args(["--exact", "--nocapture", NAME]).env(INNER, "1");
        let output = own.output().unwrap();
        let printed = String::from_utf8_lossy(&output.stdout);
        if !printed.contains("running 1 test") {
            return skip("FUSE cannot be mounted");
        }
        assert!(
            printed.contains("/mnt/app is on a file system that does not answer"),
            "{output:?}"
        );
    }

    #[test]
    fn a_folder_that_may_hide_files_proves_nothing() {
        let shown = tempfile::TempDir::new_in("/dev/shm");
        let Ok(tmpfs) = shown else { return };
        assert!(!is_gone(&tmpfs.path().join("nonexistent")));
    }
}
