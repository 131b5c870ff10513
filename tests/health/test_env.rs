//! A test environment: a backend, a manifest and runs of the real program. Uses the documented names, and
//! nothing of the program's internals.

use std::ffi::OsString;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::run::Run;
use crate::script::{Script, ok, silent, status};
use crate::server::Server;
use crate::systemd::Systemd;

pub(crate) const BINARY: &str = env!("CARGO_BIN_EXE_scidex-route-health");

/// How often a run is made if it is starved each time.
const RUNS: usize = 4;

/// How long a run may take before it is killed and its test fails.
const LIMIT: Duration = Duration::from_secs(30);

/// The timeout of a test environment's routes unless it says otherwise.
pub(crate) const TIMEOUT: Duration = Duration::from_millis(400);

/// A shell command that makes the file `hosts` of the test environment's folder appear as `/etc/hosts`. A
/// bind mount would need an existing file, which a minimal system does not have.
pub(crate) const HOSTS: &str = "mount -t overlay -o lowerdir=.:/etc overlay /etc";

pub(crate) struct TestEnv {
    dir: TempDir,
    server: Server,
    manifest: Value,
    env: Vec<(OsString, OsString)>,
    /// A command prefix, through which the program is run.
    wrapper: Vec<OsString>,
}

impl TestEnv {
    /// A server without routes and a manifest for it: short timeouts, no retries, no recovery.
    pub(crate) fn new() -> Self {
        Self::with(Server::start())
    }

    /// As [`TestEnv::new`], for a server of another kind.
    pub(crate) fn with(server: Server) -> Self {
        let manifest = json!({
            "base_url": server.url(),
            "deadline_seconds": 60,
            "defaults": {
                "timeout_seconds": TIMEOUT.as_secs_f64(),
                "retries": 0,
                "retry_backoff_seconds": 0.05,
            },
            "routes": [],
        });
        let path = std::env::var_os("PATH").unwrap_or_default();
        Self {
            dir: TempDir::new().unwrap(),
            server,
            manifest,
            env: vec![("PATH".into(), path)],
            wrapper: Vec::new(),
        }
    }

    pub(crate) fn core(self, path: &str, script: Script) -> Self {
        self.route(path, script, json!({ "core": true }))
    }

    pub(crate) fn aux(self, path: &str, script: Script) -> Self {
        self.route(path, script, json!({}))
    }

    /// A route with more keys than its path.
    pub(crate) fn route(mut self, path: &str, script: Script, keys: Value) -> Self {
        self.server.set(path, script);
        let mut route = keys;
        route["path"] = path.into();
        self.manifest["routes"].as_array_mut().unwrap().push(route);
        self
    }

    /// Adds a path that is not a route of the manifest, such as the target of a redirect.
    pub(crate) fn also(self, path: &str, script: Script) -> Self {
        self.server.set(path, script);
        self
    }

    /// A key at the top of the manifest.
    pub(crate) fn top(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.manifest[key] = value.into();
        self
    }

    /// An option for all routes.
    pub(crate) fn default(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.manifest["defaults"][key] = value.into();
        self
    }

    /// Sets another base URL; the test environment's own server may stay unused.
    pub(crate) fn at(self, base_url: impl Into<String>) -> Self {
        self.server.may_stay_unused();
        self.top("base_url", base_url.into())
    }

    pub(crate) fn env(mut self, name: &str, value: impl Into<OsString>) -> Self {
        self.env.retain(|(have, _)| have != name);
        self.env.push((name.into(), value.into()));
        self
    }

    /// Runs beside this manager, so that `systemctl --user` reaches it.
    pub(crate) fn beside(mut self, systemd: &Systemd) -> Self {
        self.wrapper = systemd.enter(self.dir());
        self.env.extend(systemd.environment());
        self
    }

    /// Runs the program through this command, beside systemd where [`TestEnv::beside`] came before.
    pub(crate) fn through<const N: usize>(mut self, command: [&str; N]) -> Self {
        self.wrapper.extend(command.map(OsString::from));
        self
    }

    pub(crate) fn server(&self) -> &Server {
        &self.server
    }

    /// The folder in which the program runs.
    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn manifest(&self) -> String {
        format!("{:#}", self.manifest)
    }

    /// Writes the manifest and returns its path.
    pub(crate) fn write_manifest(&self) -> PathBuf {
        let path = self.dir().join("routes.json");
        // An existing file is overwritten, not replaced: a test may have changed its mode.
        fs::write(&path, self.manifest()).unwrap();
        path
    }

    /// The command for the program with its environment, to which the test can add.
    pub(crate) fn command<const N: usize>(&self, args: [&str; N]) -> Command {
        self.write_manifest();
        let mut words = self.wrapper.clone();
        words.push(BINARY.into());
        let mut command = Command::new(&words[0]);
        command
            .args(&words[1..])
            .args(args)
            .current_dir(self.dir())
            .env_clear()
            .envs(self.env.iter().cloned())
            .stdin(Stdio::null());
        command
    }

    /// Starts the program with these arguments and nothing else.
    pub(crate) fn start_as_is<const N: usize>(&self, args: [&str; N]) -> Running {
        self.spawn(self.command(args))
    }

    /// Starts the program with `--format json` and these arguments.
    pub(crate) fn start<const N: usize>(&self, args: [&str; N]) -> Running {
        let mut command = self.command(["--format", "json"]);
        command.args(args);
        self.spawn(command)
    }

    /// Starts a command from [`TestEnv::command`].
    pub(crate) fn spawn(&self, mut command: Command) -> Running {
        // Files rather than pipes: a grandchild that holds one open cannot stall the test.
        let output = TempDir::new().unwrap();
        let file = |name| File::create(output.path().join(name)).unwrap();
        command.stdout(file("stdout")).stderr(file("stderr"));
        let started = Instant::now();
        let child = command.spawn().expect("start the program");
        Running {
            child,
            started,
            output,
            context: format!("{command:?}\nmanifest: {}", self.manifest()),
        }
    }

    /// One complete run with a JSON report. On a busy machine the program or the backend may get no CPU, and
    /// the program then refuses to recover; it has changed nothing and is run again.
    pub(crate) fn run<const N: usize>(&self, args: [&str; N]) -> Run {
        let run = || self.start(args).finish();
        decided(run)
    }

    /// One complete run with these arguments and nothing else.
    pub(crate) fn run_as_is<const N: usize>(&self, args: [&str; N]) -> Run {
        self.start_as_is(args).finish()
    }
}

/// The first of a few runs in which neither the program nor the backend lacked CPU; else the last one.
pub(crate) fn decided(run: impl Fn() -> Run) -> Run {
    let decides = |run: &Run| {
        let recovery = &run.report["recovery"];
        let detail = recovery["detail"].as_str().unwrap_or_default();
        !match recovery["guard"].as_str() {
            Some("starved") => true,
            Some("busy") => detail.contains("CPU"),
            Some("unreadable") => detail.contains("in time"),
            _ => false,
        }
    };
    let mut runs = (1..RUNS).map(|_| run());
    runs.find(decides).unwrap_or_else(&run)
}

/// A backend whose routes all answer, perhaps late on a busy machine.
pub(crate) fn healthy() -> TestEnv {
    never_silent().core("/up", ok()).aux("/page", ok())
}

/// A backend that is up and answers an auxiliary route with an error.
pub(crate) fn unhealthy() -> TestEnv {
    never_silent().core("/up", ok()).aux("/page", status(500))
}

/// A test environment without a silent route, so that long timeouts cost nothing.
fn never_silent() -> TestEnv {
    TestEnv::new().default("timeout_seconds", 10)
}

/// A core that never answers, and a unit that may be killed for it.
pub(crate) fn with_silent_core(systemd: &Systemd, recovery: Value) -> TestEnv {
    TestEnv::new()
        .beside(systemd)
        .core("/up", silent())
        .top("recovery", recovery)
}

/// A run in progress; killed if its test ends first.
pub(crate) struct Running {
    child: Child,
    started: Instant,
    output: TempDir,
    context: String,
}

impl Running {
    pub(crate) fn pid(&self) -> nix::unistd::Pid {
        nix::unistd::Pid::from_raw(self.child.id().try_into().unwrap())
    }

    pub(crate) fn signal(&self, signal: nix::sys::signal::Signal) {
        nix::sys::signal::kill(self.pid(), signal).expect("signal the program");
    }

    pub(crate) fn is_over(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// What it has written to stderr so far.
    pub(crate) fn stderr(&self) -> String {
        read(&self.output.path().join("stderr"))
    }

    #[track_caller]
    pub(crate) fn finish(mut self) -> Run {
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            let overdue = self.started.elapsed() > LIMIT;
            assert!(
                !overdue,
                "still running after {LIMIT:?}: {}",
                self.described()
            );
            thread::sleep(Duration::from_millis(1));
        };
        let elapsed = self.started.elapsed();
        let stdout = read(&self.output.path().join("stdout"));
        Run {
            status,
            elapsed,
            report: serde_json::from_str(&stdout).unwrap_or(Value::Null),
            stdout,
            stderr: self.stderr(),
            context: std::mem::take(&mut self.context),
        }
    }

    fn described(&self) -> String {
        let stdout = read(&self.output.path().join("stdout"));
        format!(
            "{}\nstdout: {stdout}\nstderr: {}",
            self.context,
            self.stderr()
        )
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Both fail if it has already ended, which is the normal case.
        let _over = self.child.kill();
        let _over = self.child.wait();
    }
}

fn read(path: &Path) -> String {
    String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).into_owned()
}
