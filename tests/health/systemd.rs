//! A real systemd for one test: a user manager in its own mount and PID namespaces, which always ends with
//! the test. PIDs that it reports are those of its namespace.

use std::ffi::OsString;
use std::fs::{self, File};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, Uid};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::skip::skip_unless_ci;
use crate::wait::wait_until;

/// The init of the namespace: a shell that starts the manager, which as PID 1 would consider itself a system
/// manager. The shell exits when the test closes its stdin, and the kernel then ends all others.
const INIT: &str = r#"
for root in /sys/fs/cgroup/systemd /sys/fs/cgroup/unified /sys/fs/cgroup; do
    # On a hybrid hierarchy the last one is a tmpfs, where a group would be a plain folder that stays.
    [ -e "$root/cgroup.procs" ] || continue
    # A separate group, so that several managers do not clean up each other's.
    mkdir "$root/$GROUP" && echo 0 >"$root/$GROUP/cgroup.procs"
done
mount -t tmpfs tmpfs /run
# Without this folder systemd ends without a word: sd_booted(3).
mkdir -p /run/systemd/system
"$MANAGER" --user &
read -r _
"#;

/// Where systemd mounts the hierarchies that contain its units.
const HIERARCHIES: [&str; 3] = [
    "/sys/fs/cgroup/systemd",
    "/sys/fs/cgroup/unified",
    "/sys/fs/cgroup",
];

const MANAGERS: [&str; 2] = ["/lib/systemd/systemd", "/usr/lib/systemd/systemd"];

pub(crate) struct Systemd {
    dir: TempDir,
    /// `unshare`, the outer parent of everything in the namespace.
    namespace: Child,
    group: String,
}

impl Systemd {
    /// A running manager; `None` if this machine cannot run one, see [`skip_unless_ci`].
    pub(crate) fn start() -> Option<Self> {
        Self::try_start()
            .inspect_err(|why| skip_unless_ci(&format!("no real systemd: {why}")))
            .ok()
    }

    fn try_start() -> Result<Self, String> {
        static COUNT: AtomicU32 = AtomicU32::new(0);

        if !Uid::effective().is_root() {
            return Err("namespaces need root".into());
        }
        let manager = MANAGERS
            .into_iter()
            .find(|path| Path::new(path).exists())
            .ok_or("systemd is not installed")?;
        let dir = TempDir::new().map_err(|error| error.to_string())?;
        let private = |name: &str| {
            fs::DirBuilder::new()
                .mode(0o700)
                .create(dir.path().join(name))
        };
        ["run", "units"]
            .into_iter()
            .try_for_each(private)
            .map_err(|error| error.to_string())?;
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let group = format!("scidex-route-health-test-{}-{number}", std::process::id());
        let log = File::create(dir.path().join("log")).map_err(|error| error.to_string())?;
        let namespace = Command::new("unshare")
            .args(["--mount", "--pid", "--fork", "--mount-proc", "--kill-child"])
            .args(["sh", "-c", INIT])
            .env_clear()
            .envs(std::env::var_os("PATH").map(|path| ("PATH", path)))
            .env("GROUP", &group)
            .env("MANAGER", manager)
            .env("HOME", dir.path())
            .env("XDG_RUNTIME_DIR", dir.path().join("run"))
            // Before the usual folders, which the colon at the end stands for.
            .env("SYSTEMD_UNIT_PATH", join(dir.path(), "units:"))
            .env("SYSTEMD_LOG_TARGET", "console")
            .stdin(Stdio::piped())
            .stdout(log.try_clone().map_err(|error| error.to_string())?)
            .stderr(log)
            .spawn()
            .map_err(|error| format!("cannot run unshare: {error}"))?;
        let systemd = Self {
            dir,
            namespace,
            group,
        };
        let socket = systemd.dir.path().join("run/systemd/private");
        let up = wait_until(Duration::from_secs(30), || socket.exists());
        if !up {
            let log = fs::read_to_string(systemd.dir.path().join("log")).unwrap_or_default();
            return Err(format!("the manager does not come up: {log}"));
        }
        let mut state = String::new();
        wait_until(Duration::from_secs(10), || {
            // The socket exists a moment before the manager listens on it.
            state = systemd.try_systemctl(&["is-system-running", "--wait"]);
            !state.trim().is_empty()
        });
        match state.trim() {
            "running" | "degraded" => Ok(systemd),
            other => Err(format!("the manager is {other:?}")),
        }
    }

    /// The command prefix that runs another command in the namespace and in this folder.
    pub(crate) fn enter(&self, dir: &Path) -> Vec<OsString> {
        let ns = format!("/proc/{}/ns", self.namespace.id());
        vec![
            "nsenter".into(),
            format!("--mount={ns}/mnt").into(),
            format!("--pid={ns}/pid_for_children").into(),
            "--".into(),
            // nsenter's own option would resolve the folder with the mounts outside.
            "env".into(),
            format!("--chdir={}", dir.display()).into(),
        ]
    }

    pub(crate) fn environment(&self) -> Vec<(OsString, OsString)> {
        vec![("XDG_RUNTIME_DIR".into(), self.dir.path().join("run").into())]
    }

    /// Writes or overwrites a unit file.
    pub(crate) fn write_unit(&self, name: &str, text: &str) -> PathBuf {
        let path = self.dir.path().join("units").join(name);
        fs::write(&path, text).unwrap();
        path
    }

    /// Writes a service and starts it: `service` is the content of its `[Service]` section.
    pub(crate) fn service(&self, name: &str, service: &str) {
        self.write_unit(name, &format!("[Service]\n{service}\n"));
        self.systemctl(&["start", name]);
    }

    /// A service that sleeps and listens nowhere.
    pub(crate) fn sleeper(&self, name: &str, service: &str) {
        self.service(name, &format!("ExecStart=sleep infinity\n{service}"));
    }

    #[track_caller]
    pub(crate) fn systemctl(&self, args: &[&str]) {
        let output = self
            .command("systemctl")
            .arg("--user")
            .args(args)
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "systemctl {args:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }

    /// What systemctl prints, whatever its exit status.
    pub(crate) fn try_systemctl(&self, args: &[&str]) -> String {
        let output = self
            .command("systemctl")
            .arg("--user")
            .args(args)
            .output()
            .unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    pub(crate) fn property(&self, unit: &str, property: &str) -> String {
        let shown = self.try_systemctl(&["show", "--value", "--property", property, "--", unit]);
        shown.trim().to_owned()
    }

    pub(crate) fn main_pid(&self, unit: &str) -> u32 {
        self.property(unit, "MainPID").parse().unwrap()
    }

    #[track_caller]
    pub(crate) fn wait_for(&self, unit: &str, property: &str, value: &str) {
        let reached = wait_until(Duration::from_secs(10), || {
            self.property(unit, property) == value
        });
        let last = self.property(unit, property);
        assert!(reached, "{unit}: {property} stays {last:?}, not {value:?}");
    }

    /// Signals the unit's main process without systemd's help.
    pub(crate) fn signal(&self, unit: &str, signal: Signal) {
        kill(self.host_pid(self.main_pid(unit)), signal).unwrap();
    }

    /// The PID outside the namespace of a process in it.
    pub(crate) fn host_pid(&self, inner: u32) -> Pid {
        let found = self.process_where("status", |status| {
            let numbers = status.lines().find_map(|line| line.strip_prefix("NSpid:"));
            let last = numbers.and_then(|numbers| numbers.split_whitespace().last());
            last == Some(&inner.to_string())
        });
        found.unwrap_or_else(|| panic!("no process {inner} in the namespace"))
    }

    /// The process in the namespace whose command line contains this text.
    pub(crate) fn find(&self, text: &str) -> Option<Pid> {
        self.process_where("cmdline", |line| line.contains(text))
    }

    /// The PID of a process that has ended.
    pub(crate) fn ended_pid(&self) -> u32 {
        let output = self.command("sh").args(["-c", "echo $$"]).output().unwrap();
        let number = String::from_utf8_lossy(&output.stdout).trim().parse();
        number.unwrap()
    }

    /// The process in the namespace whose file of this name in `/proc` is as wanted; the PID is the one
    /// outside.
    fn process_where(&self, file: &str, wanted: impl Fn(&str) -> bool) -> Option<Pid> {
        let ns = |pid: &str, name: &str| fs::read_link(format!("/proc/{pid}/ns/{name}")).ok();
        let ours = ns(&self.namespace.id().to_string(), "pid_for_children");
        fs::read_dir("/proc").unwrap().find_map(|entry| {
            let pid = entry.ok()?.file_name().into_string().ok()?;
            let text = fs::read(format!("/proc/{pid}/{file}")).ok()?;
            let found = wanted(&String::from_utf8_lossy(&text)) && ns(&pid, "pid") == ours;
            found.then(|| Pid::from_raw(pid.parse().unwrap()))
        })
    }

    /// A process in a unit's control group that SIGTERM does not end; it ends with the manager.
    pub(crate) fn deaf_process_in(&self, group: &str) -> u32 {
        let join = r#"for root in /sys/fs/cgroup/systemd /sys/fs/cgroup/unified /sys/fs/cgroup; do
            [ ! -e "$root$0/cgroup.procs" ] || echo 0 >"$root$0/cgroup.procs"
        done
        trap '' TERM
        sleep infinity >/dev/null 2>&1 &
        echo $!"#;
        let output = self.command("sh").args(["-c", join, group]).output();
        let number = String::from_utf8_lossy(&output.unwrap().stdout)
            .trim()
            .parse();
        number.unwrap_or_else(|_| panic!("cannot join {group}"))
    }

    /// Whether this process still runs and is not a zombie.
    pub(crate) fn is_alive(&self, inner: u32) -> bool {
        let script = format!("grep -q '^State:.[^ZX]' /proc/{inner}/status");
        let mut command = self.command("sh");
        command.args(["-c", &script]).stderr(Stdio::null());
        command.status().unwrap().success()
    }

    fn command(&self, program: &str) -> Command {
        let enter = self.enter(self.dir.path());
        let mut command = Command::new(&enter[0]);
        command
            .args(&enter[1..])
            .arg(program)
            .envs(self.environment())
            .env("SYSTEMD_PAGER", "")
            .stdin(Stdio::null());
        command
    }
}

impl Drop for Systemd {
    fn drop(&mut self) {
        // Ends the shell, which is the namespace's init: the kernel ends all others with it.
        drop(self.namespace.stdin.take());
        let ended = wait_until(Duration::from_secs(5), || {
            !matches!(self.namespace.try_wait(), Ok(None))
        });
        if !ended {
            let _over = self.namespace.kill();
            let _over = self.namespace.wait();
        }
        for root in HIERARCHIES {
            let group = Path::new(root).join(&self.group);
            // A group can be removed only a moment after its last process has ended.
            let removed = wait_until(Duration::from_secs(5), || {
                remove_group(&group);
                !group.exists()
            });
            assert!(removed || thread::panicking(), "{} stays", group.display());
        }
    }
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

/// `recovery` for a unit of this manager, with keys that suit tests; `more` adds and replaces.
pub(crate) fn recovery(unit: &str, more: Value) -> Value {
    let mut recovery = json!({
        "unit": unit, "scope": "user", "min_uptime_seconds": 0, "verify_seconds": 10, "grace_seconds": 0.5,
    });
    for (key, value) in more.as_object().into_iter().flatten() {
        recovery[key] = value.clone();
    }
    recovery
}

fn join(dir: &Path, name: &str) -> OsString {
    dir.join(name).into_os_string()
}
