//! A scene is a backend, a manifest and one run of the real program, told in a sentence. It knows
//! the contract's names and nothing of how the program is built.

use std::ffi::OsString;
use std::fs::{self, File};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::server::{Play, Server};
use crate::systemd::Systemd;

pub(crate) const BINARY: &str = env!("CARGO_BIN_EXE_scidex-route-health");

/// How long a run may take before it is killed and its test fails.
const LIMIT: Duration = Duration::from_secs(30);

/// The time-out of a scene's routes unless it says otherwise.
pub(crate) const TIMEOUT: Duration = Duration::from_millis(400);

pub(crate) struct Scene {
    dir: TempDir,
    server: Server,
    manifest: Value,
    env: Vec<(OsString, OsString)>,
    /// A command that the program is run through, with its arguments.
    wrapper: Vec<OsString>,
}

impl Scene {
    /// A server without routes and a manifest for it: short time-outs, no retries, no recovery.
    pub(crate) fn new() -> Self {
        Self::with(Server::start())
    }

    /// As [`Scene::new`], for a server of another kind.
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

    pub(crate) fn core(self, path: &str, play: Play) -> Self {
        self.route(path, play, json!({ "core": true }))
    }

    pub(crate) fn aux(self, path: &str, play: Play) -> Self {
        self.route(path, play, json!({}))
    }

    /// A route with more keys than its path.
    pub(crate) fn route(mut self, path: &str, play: Play, keys: Value) -> Self {
        self.server.set(path, play);
        let mut route = keys;
        route["path"] = path.into();
        self.manifest["routes"].as_array_mut().unwrap().push(route);
        self
    }

    /// What a path answers that no route of the manifest asks for: the target of a redirect.
    pub(crate) fn also(self, path: &str, play: Play) -> Self {
        self.server.set(path, play);
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

    /// The manifest points elsewhere; the scene's own server may stay unused.
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
        self.wrapper = systemd.enter();
        self.env.extend(systemd.environment());
        self
    }

    /// Runs the program through this command.
    pub(crate) fn through<const N: usize>(mut self, command: [&str; N]) -> Self {
        self.wrapper = command.map(OsString::from).to_vec();
        self
    }

    pub(crate) fn server(&self) -> &Server {
        &self.server
    }

    /// The folder that the program runs in.
    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn manifest(&self) -> String {
        format!("{:#}", self.manifest)
    }

    /// Writes the manifest and returns its path.
    pub(crate) fn write_manifest(&self) -> PathBuf {
        let path = self.dir().join("routes.json");
        // Kept if it is there: a test may have given it another mode.
        fs::write(&path, self.manifest()).unwrap();
        path
    }

    /// The program with its environment, before the test adds what is special.
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

    /// Starts a command that [`Scene::command`] gave.
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
            story: format!("{command:?}\nmanifest: {}", self.manifest()),
        }
    }

    /// One whole run that reports as JSON.
    pub(crate) fn run<const N: usize>(&self, args: [&str; N]) -> Run {
        self.start(args).finish()
    }

    /// One whole run with these arguments and nothing else.
    pub(crate) fn run_as_is<const N: usize>(&self, args: [&str; N]) -> Run {
        self.start_as_is(args).finish()
    }
}

/// A run under way; killed if its test ends first.
pub(crate) struct Running {
    child: Child,
    started: Instant,
    output: TempDir,
    story: String,
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
            assert!(!overdue, "still running after {LIMIT:?}: {}", self.told());
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
            story: std::mem::take(&mut self.story),
        }
    }

    fn told(&self) -> String {
        let stdout = read(&self.output.path().join("stdout"));
        format!(
            "{}\nstdout: {stdout}\nstderr: {}",
            self.story,
            self.stderr()
        )
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Both fail where it is over already, which is the usual end.
        let _over = self.child.kill();
        let _over = self.child.wait();
    }
}

fn read(path: &Path) -> String {
    String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).into_owned()
}

/// A finished run; every check returns it, so that checks line up, and tells the whole story where
/// it fails.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) status: ExitStatus,
    pub(crate) elapsed: Duration,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    /// The JSON report; null where stdout is none.
    pub(crate) report: Value,
    story: String,
}

impl Run {
    #[track_caller]
    fn check(&self, right: bool, what: impl std::fmt::Display) -> &Self {
        assert!(
            right,
            "expected {what}\nstatus: {:?}, after {:?}\nstdout: {}\nstderr: {}\nrun: {}",
            self.status, self.elapsed, self.stdout, self.stderr, self.story
        );
        self
    }

    #[track_caller]
    fn is(&self, have: &Value, want: impl Into<Value>, what: &str) -> &Self {
        let want = want.into();
        self.check(*have == want, format_args!("{what} {want}, got {have}"))
    }

    #[track_caller]
    pub(crate) fn exits(&self, code: i32) -> &Self {
        self.check(
            self.status.code() == Some(code),
            format_args!("exit {code}"),
        )
    }

    #[track_caller]
    pub(crate) fn dies_of(&self, signal: nix::sys::signal::Signal) -> &Self {
        self.check(self.status.signal() == Some(signal as i32), signal)
    }

    #[track_caller]
    pub(crate) fn within(&self, limit: Duration) -> &Self {
        self.check(self.elapsed <= limit, format_args!("at most {limit:?}"))
    }

    /// The report's entry for a path.
    #[track_caller]
    pub(crate) fn route(&self, path: &str) -> &Value {
        let routes = self.report["routes"].as_array();
        let found = routes.and_then(|all| all.iter().find(|route| route["path"] == path));
        self.check(
            found.is_some(),
            format_args!("a report with the route {path}"),
        );
        found.unwrap()
    }

    #[track_caller]
    pub(crate) fn class(&self, path: &str, class: &str) -> &Self {
        let what = format!("{path} of class");
        self.is(&self.route(path)["class"], class, &what)
    }

    /// The cause, `None` for null.
    #[track_caller]
    pub(crate) fn cause(&self, path: &str, cause: impl Into<Option<&'static str>>) -> &Self {
        let what = format!("{path} with cause");
        self.is(&self.route(path)["cause"], cause.into(), &what)
    }

    #[track_caller]
    pub(crate) fn status(&self, path: &str, status: impl Into<Option<u16>>) -> &Self {
        let what = format!("{path} with status");
        self.is(&self.route(path)["status"], status.into(), &what)
    }

    #[track_caller]
    pub(crate) fn attempts(&self, path: &str, attempts: u32) -> &Self {
        let what = format!("{path} with attempts");
        self.is(&self.route(path)["attempts"], attempts, &what)
    }

    /// OK, timeout/unreachable, rate-limited, HTTP error, skipped.
    #[track_caller]
    pub(crate) fn tally(&self, counts: [u32; 5]) -> &Self {
        let [ok, timeout_unreachable, rate_limited, http_error, skipped] = counts;
        let want = json!({
            "ok": ok, "timeout_unreachable": timeout_unreachable, "rate_limited": rate_limited,
            "http_error": http_error, "skipped": skipped,
        });
        self.is(&self.report["tally"], want, "the tally")
    }

    #[track_caller]
    pub(crate) fn healthy(&self, healthy: bool) -> &Self {
        self.is(&self.report["healthy"], healthy, "healthy")
    }

    #[track_caller]
    pub(crate) fn hung(&self, hung: bool) -> &Self {
        self.is(&self.report["hung"], hung, "hung")
    }

    #[track_caller]
    pub(crate) fn down(&self, down: bool) -> &Self {
        self.is(&self.report["down"], down, "down")
    }

    #[track_caller]
    pub(crate) fn outcome(&self, outcome: &str) -> &Self {
        self.is(&self.report["recovery"]["outcome"], outcome, "the outcome")
    }

    /// Refused by this guard, with a sentence that explains it.
    #[track_caller]
    pub(crate) fn refused(&self, guard: &str) -> &Self {
        self.exits(1).hung(true).outcome("refused");
        self.is(&self.report["recovery"]["guard"], guard, "the guard");
        let detail = self.report["recovery"]["detail"].as_str().unwrap_or("");
        self.check(detail.len() > 10, "a sentence that explains the refusal")
    }

    /// A recovery that failed, with a sentence that holds `part`.
    #[track_caller]
    pub(crate) fn failed(&self, part: &str) -> &Self {
        self.exits(1).hung(true).outcome("failed");
        let detail = self.report["recovery"]["detail"].as_str().unwrap_or("");
        self.check(
            detail.contains(part),
            format_args!("a failure that names {part:?}"),
        )
    }

    #[track_caller]
    pub(crate) fn pid(&self, key: &str, pid: impl Into<Option<u32>>) -> &Self {
        self.is(&self.report["recovery"][key], pid.into(), key)
    }

    #[track_caller]
    pub(crate) fn stdout_has(&self, part: &str) -> &Self {
        self.check(
            self.stdout.contains(part),
            format_args!("{part:?} on stdout"),
        )
    }

    #[track_caller]
    pub(crate) fn stderr_has(&self, part: &str) -> &Self {
        self.check(
            self.stderr.contains(part),
            format_args!("{part:?} on stderr"),
        )
    }

    #[track_caller]
    pub(crate) fn stdout_is_empty(&self) -> &Self {
        self.check(self.stdout.is_empty(), "nothing on stdout")
    }

    #[track_caller]
    pub(crate) fn stderr_is_empty(&self) -> &Self {
        self.check(self.stderr.is_empty(), "nothing on stderr")
    }

    /// A line of its own on stdout.
    #[track_caller]
    pub(crate) fn line(&self, line: &str) -> &Self {
        let found = self.stdout.lines().any(|have| have == line);
        self.check(found, format_args!("the line {line:?} on stdout"))
    }
}
