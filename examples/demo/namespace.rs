//! Runs the demo's incident in a separate process, as root with its own systemd in mount and PID namespaces,
//! and cleans up afterwards.

use std::env;
use std::fs;
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};

use anyhow::{Context, ensure};
use nix::sys::signal::{SigSet, Signal};
use nix::unistd::Uid;

/// The first process of the namespaces: a shell, because systemd as PID 1 would consider itself the system
/// manager. When the shell exits, the kernel ends all others.
const INIT: &str = r#"
for root in /sys/fs/cgroup/systemd /sys/fs/cgroup/unified /sys/fs/cgroup; do
    [ -e "$root/cgroup.procs" ] && mkdir "$root/$GROUP" && echo 0 > "$root/$GROUP/cgroup.procs"
done 2> /dev/null
mount -t tmpfs tmpfs /run && mkdir -p /run/systemd/system || exit
"$MANAGER" --user > "$FOLDER/log" 2>&1 < /dev/null &
for _ in $(seq 100); do
    case $(systemctl --user is-system-running 2> /dev/null) in
    running | degraded)
        : > "$FOLDER/up"
        "$DEMO" --under-systemd "$FOLDER"
        exit
        ;;
    esac
    sleep 0.1
done
"#;

/// Mounts cgroup2 at the usual path, without which the unit of a process is unknown.
const WITH_CGROUP2: &str = r#"
{ [ -d /sys/fs/cgroup ] || { mount -t tmpfs tmpfs /sys && mkdir -p /sys/fs/cgroup; }; } 2> /dev/null
[ -e /sys/fs/cgroup/unified/cgroup.procs ] || [ -e /sys/fs/cgroup/cgroup.procs ] ||
    mount -t cgroup2 cgroup2 /sys/fs/cgroup 2> /dev/null
exec "$@"
"#;

const MANAGERS: [&str; 2] = ["/usr/lib/systemd/systemd", "/lib/systemd/systemd"];

/// Runs `demo MODE FOLDER`; as root in a new mount namespace.
///
/// # Errors
///
/// The demo fails.
pub(crate) fn plain(mode: &str, folder: &Path) -> anyhow::Result<()> {
    let demo = env::current_exe()?;
    let may_mount = mode == "--under-stand-in" && Uid::effective().is_root() && can_unshare();
    let mut command = if may_mount {
        let mut command = Command::new("unshare");
        command
            .args(["--mount", "sh", "-c", WITH_CGROUP2, "sh"])
            .arg(demo);
        command
    } else {
        Command::new(demo)
    };
    command.args([mode]).arg(folder);
    succeed(run(command, folder)?)
}

/// Runs the incident under its own systemd: `Ok` with the result of the incident once that systemd was up.
///
/// # Errors
///
/// No such systemd can be started.
pub(crate) fn with_systemd(folder: &Path) -> anyhow::Result<anyhow::Result<()>> {
    ensure!(Uid::effective().is_root(), "namespaces need root");
    let manager = MANAGERS.iter().find(|path| Path::new(path).exists());
    let manager = manager.context("systemd is not installed")?;
    ensure!(can_unshare(), "this environment allows no namespaces");
    println!(
        "The backend runs as a unit of a systemd that is started in namespaces for this demo."
    );
    let runtime = folder.join("run");
    fs::create_dir(&runtime)?;
    let mut command = Command::new("unshare");
    command
        .args(["--mount", "--pid", "--fork", "--mount-proc", "--kill-child"])
        .args(["sh", "-c", INIT])
        .env("MANAGER", manager)
        .env("DEMO", env::current_exe()?)
        .env("FOLDER", folder)
        .env("GROUP", folder.file_name().context("no folder")?)
        .env("HOME", folder)
        .env("XDG_RUNTIME_DIR", &runtime)
        .env_remove("DBUS_SESSION_BUS_ADDRESS")
        .env("SYSTEMD_LOG_TARGET", "console");
    let ended = run(command, folder)?;
    ensure!(
        folder.join("up").exists(),
        "it did not come up ({ended}): {}",
        fs::read_to_string(folder.join("log"))
            .unwrap_or_default()
            .trim()
    );
    Ok(succeed(ended))
}

fn can_unshare() -> bool {
    Command::new("unshare")
        .args(["--mount", "--pid", "--fork", "true"])
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// Waits for the command, blocking interrupts meanwhile, and cleans up after it.
fn run(mut command: Command, folder: &Path) -> anyhow::Result<ExitStatus> {
    let mut child = command
        .spawn()
        .with_context(|| format!("cannot run {}", command.get_program().display()))?;
    // Only now, because the command would inherit the mask.
    let mut interrupts = SigSet::empty();
    interrupts.add(Signal::SIGINT);
    interrupts.add(Signal::SIGTERM);
    interrupts.thread_block()?;
    let ended = child.wait()?;
    let group = folder.file_name().context("no folder")?;
    for root in [
        "/sys/fs/cgroup/systemd",
        "/sys/fs/cgroup/unified",
        "/sys/fs/cgroup",
    ] {
        remove_group(&Path::new(root).join(group));
    }
    Ok(ended)
}

fn succeed(ended: ExitStatus) -> anyhow::Result<()> {
    ensure!(ended.success(), "it ended early: {ended}");
    Ok(())
}

/// Removes a control group after those below it; its files need not be removed.
fn remove_group(group: &Path) {
    for entry in fs::read_dir(group).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_group(&entry.path());
        }
    }
    let _absent = fs::remove_dir(group);
}
