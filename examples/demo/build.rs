//! Makes cargo build another target of this package. Also used by the tests.

use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::process::Command;
use std::{env, io};

/// Builds `target`, such as `["--bin", "NAME"]`, into `folder`: `target/debug`, or that of another profile.
///
/// # Errors
///
/// Cargo cannot be run, or fails.
pub(crate) fn build(cargo: OsString, folder: &Path, target: [&str; 2]) -> io::Result<()> {
    let (Some(targets), Some(name)) = (folder.parent(), folder.file_name()) else {
        return Err(io::Error::other("no target folder"));
    };
    let profile = if name == "debug" {
        OsStr::new("dev")
    } else {
        name
    };
    let mut command = Command::new(cargo);
    command
        .args(["build", "--quiet", "--locked"])
        .args(target)
        .arg("--manifest-path")
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml"))
        .arg("--target-dir")
        .arg(targets)
        .arg("--profile")
        .arg(profile);
    // cargo sets these for programs that it runs; with them, ring and its dependents would be rebuilt.
    for (name, _) in env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("CARGO_MANIFEST_") || text.starts_with("CARGO_PKG_") {
            command.env_remove(&name);
        }
    }
    if command.status()?.success() {
        Ok(())
    } else {
        Err(io::Error::other(format!(
            "cannot build {}",
            target.join(" ")
        )))
    }
}
