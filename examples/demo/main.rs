//! One incident on one machine, in less than half a minute: a backend is healthy, is overloaded, hangs, and
//! is recovered. The real program checks it each time.
//!
//! The backend is a unit of the user's systemd. If there is none, and the user is root, it is a unit of a
//! systemd that is started in namespaces for the demo; otherwise it runs under a stand-in for systemd
//! (`stand_in.rs`).
//!
//! `demo --backend ADDRESS [PID]` is the backend: it serves until it is killed, or until the process PID
//! is gone.

mod address;
mod backend;
mod build;
mod namespace;
mod stand_in;

use std::env;
use std::fs;
use std::io::{self, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use serde_json::{Value, json};

use stand_in::StandIn;

/// The shipped manifest.
const MANIFEST: &str = include_str!("../../routes.json");

fn main() -> ExitCode {
    let args: Vec<String> = env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    let ended = match words.as_slice() {
        [] => demo(),
        ["--under-systemd", folder] => incident(Supervisor::Systemd, Path::new(folder)),
        ["--under-stand-in", folder] => incident(Supervisor::StandIn, Path::new(folder)),
        ["--systemctl", socket, args @ ..] => {
            stand_in::ask(Path::new(socket), args).map(|answer| print!("{answer}"))
        }
        ["--backend", address] => serve(address, None),
        ["--backend", address, pid] => serve(address, Some(pid)),
        _ => Err(anyhow::anyhow!("the demo takes no arguments")),
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("demo: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn serve(address: &str, pid: Option<&&str>) -> anyhow::Result<()> {
    if let Some(pid) = pid {
        backend::end_with(pid.parse().context("PID")?);
    }
    Ok(backend::serve(address.parse().context("ADDRESS")?)?)
}

/// Runs the incident in a separate process, so that this one can clean up even if the demo is
/// interrupted.
fn demo() -> anyhow::Result<()> {
    program()?;
    let folder = tempfile::TempDir::with_prefix("scidex-route-health-demo-")?;
    let why = match user_manager() {
        Ok(()) => {
            say("The backend runs as a unit of your systemd user manager.");
            return namespace::plain("--under-systemd", folder.path());
        }
        Err(why) => why,
    };
    println!("{why:#}.");
    match namespace::with_systemd(folder.path()) {
        Ok(ended) => return ended,
        Err(why) => println!("The demo cannot start its own systemd either: {why:#}."),
    }
    say(
        "STAND-IN, not systemd: the demo itself restarts the backend and answers \"systemctl show\".",
    );
    namespace::plain("--under-stand-in", folder.path())
}

#[derive(Clone, Copy)]
enum Supervisor {
    Systemd,
    StandIn,
}

fn incident(supervisor: Supervisor, folder: &Path) -> anyhow::Result<()> {
    let program = program()?;
    let backend = Backend::start(supervisor, folder)?;
    let path = folder.join("routes.json");
    fs::write(&path, manifest(&backend)?.to_string())?;
    // Root's umask may let others write it, and then the program would refuse to kill.
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
    let check = Check {
        program: &program,
        folder,
        environment: backend.environment(),
    };

    let obstacle = backend.obstacle();
    // The warning of a recovery that would be refused, in every run, would only repeat the explanation.
    let healthy: &[&str] = if obstacle.is_some() {
        &["--no-recover"]
    } else {
        &[]
    };
    if let Some(obstacle) = obstacle {
        explain(obstacle);
    }

    say("1. A healthy backend: every route answers.");
    check.run(healthy, 0)?;

    say(
        "2. An overloaded backend: two pages are slow, the rate limiter rejects others. No alarm: exit 0.",
    );
    backend::request(backend.address, "/__busy")?;
    check.run(healthy, 0)?;

    say("3. The backend hangs: the kernel still accepts connections, but nothing answers.");
    backend::request(backend.address, "/__hang")?;
    let old = backend.main_pid()?;
    let begun = Instant::now();
    check.run(&[], 1)?;
    let took = begun.elapsed().as_secs_f32();
    let new = backend.main_pid()?;
    if old == new {
        return refused(&backend, old);
    }

    say(&format!(
        "4. The unit's main process is now {new} instead of {old}. The same check again:"
    ));
    check.run(&[], 0)?;

    let by = match backend.host {
        Host::Unit(_) => "systemd",
        Host::StandIn(_) => "the stand-in for systemd",
    };
    summary(&[
        format!(
            "hung: every core route silent, so PID {old} was killed and {by} started PID {new} ({took:.1} s, exit 1)"
        ),
        "healthy again: exit 0".to_owned(),
    ]);
    Ok(())
}

/// Says before the first check why nothing can be killed here.
fn explain(obstacle: &str) {
    println!(
        "Nothing will be killed here: {obstacle}, and without a\n\
         control group of its own, nothing proves that the backend's process belongs to its unit. So step 3 finds the\n\
         hang, and a guard refuses the kill, which is correct. To see the recovery, run the demo where\n\
         \"systemctl --user\" answers, or as root where a cgroup2 file system is mounted at /sys/fs/cgroup."
    );
}

/// Shows that the program found a hang although a guard refused the kill.
fn refused(backend: &Backend, pid: u32) -> anyhow::Result<()> {
    ensure!(
        backend.obstacle().is_some(),
        "the main process is still {pid}"
    );
    println!(
        "\nevidence, read by the demo: {}",
        evidence(pid, backend.address)?
    );
    summary(&[
        format!("hung: every core route silent (exit 1); a guard refused to kill PID {pid}"),
        "not recovered: this environment cannot prove whose process it is".to_owned(),
    ]);
    Ok(())
}

/// The state of the process, and how many connections wait in its accept queue.
fn evidence(pid: u32, address: SocketAddr) -> anyhow::Result<String> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let state = status.lines().find_map(|line| line.strip_prefix("State:"));
    let SocketAddr::V4(v4) = address else {
        bail!("{address} is not an IPv4 address");
    };
    // In the format of proc(5): the address in host byte order, and state 0A, LISTEN.
    let host = u32::from_ne_bytes(v4.ip().octets());
    let local = format!("{host:08X}:{:04X}", v4.port());
    let table = fs::read_to_string("/proc/self/net/tcp")?;
    let row = table.lines().find_map(|line| {
        let mut fields = line.split_whitespace().skip(1);
        let listens = fields.next() == Some(&local) && fields.nth(1) == Some("0A");
        listens.then(|| fields.next()?.split_once(':')).flatten()
    });
    let (_, waiting) = row.context("no process listens on the backend's address")?;
    Ok(format!(
        "process {pid} is alive ({}), {} connections wait in its accept queue",
        state.context("no state")?.trim(),
        u32::from_str_radix(waiting, 16)?
    ))
}

fn summary(rest: &[String]) {
    say("What you saw");
    println!(
        "   healthy, then overloaded: exit 0 both times; slow pages and rate limits killed nothing"
    );
    for line in rest {
        println!("   {line}");
    }
}

fn say(text: &str) {
    println!("\n== {text}\n");
}

struct Check<'a> {
    program: &'a Path,
    /// The folder of its `routes.json`.
    folder: &'a Path,
    environment: Vec<(&'static str, std::ffi::OsString)>,
}

impl Check<'_> {
    /// Runs the program and compares its exit status with the expected one.
    fn run(&self, args: &[&str], status: i32) -> anyhow::Result<()> {
        println!("$ {}", [&["scidex-route-health"], args].concat().join(" "));
        io::stdout().flush()?;
        let ended = Command::new(self.program)
            .args(args)
            .current_dir(self.folder)
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .status()
            .with_context(|| format!("cannot run {}", self.program.display()))?;
        println!("-> exit {}", ended.code().unwrap_or(-1));
        ensure!(
            ended.code() == Some(status),
            "expected exit {status}, got: {ended}"
        );
        Ok(())
    }
}

/// The shipped manifest with the demo's address and shorter timeouts.
fn manifest(backend: &Backend) -> anyhow::Result<Value> {
    let mut manifest: Value = serde_json::from_str(MANIFEST)?;
    let put = |at: &mut Value, key: &str, value: Value| {
        if let Some(object) = at.as_object_mut() {
            object.insert(key.to_owned(), value);
        }
    };
    put(
        &mut manifest,
        "base_url",
        format!("http://{}", backend.address).into(),
    );
    let defaults = json!({ "timeout_seconds": 1, "retries": 1, "retry_backoff_seconds": 0.2 });
    put(&mut manifest, "defaults", defaults);
    let routes = manifest.get_mut("routes").and_then(Value::as_array_mut);
    for route in routes.context("no routes")? {
        if let Some(route) = route.as_object_mut() {
            route.remove("timeout_seconds");
        }
    }
    // The demo waits neither for two minutes of uptime nor for a grace period of 30 s.
    let recovery = json!({
        "unit": backend.name, "scope": "user", "min_uptime_seconds": 0, "grace_seconds": 1,
        "verify_seconds": 20,
    });
    put(&mut manifest, "recovery", recovery);
    Ok(manifest)
}

/// The program itself, built if necessary: `cargo run --example` does not build it.
fn program() -> anyhow::Result<PathBuf> {
    let own = env::current_exe()?;
    let profile = own
        .parent()
        .and_then(Path::parent)
        .context("no target folder")?;
    let program = profile.join("scidex-route-health");
    if let Some(cargo) = env::var_os("CARGO") {
        build::build(cargo, profile, ["--bin", "scidex-route-health"])?;
    }
    ensure!(
        program.exists(),
        "no {}; run \"cargo build\" first",
        program.display()
    );
    Ok(program)
}

/// The backend of the demo, ended on drop.
struct Backend {
    name: String,
    address: SocketAddr,
    host: Host,
}

enum Host {
    /// A transient unit of systemd.
    Unit(Unit),
    StandIn(StandIn),
}

impl Backend {
    fn start(supervisor: Supervisor, folder: &Path) -> anyhow::Result<Self> {
        let address = address::own_address()?;
        let own = env::current_exe()?;
        let name = format!("scidex-route-health-demo-{}.service", std::process::id());
        let command = vec![
            own.to_str()
                .context("the demo's path is not UTF-8")?
                .to_owned(),
            "--backend".into(),
            address.to_string(),
            std::process::id().to_string(),
        ];
        let host = match supervisor {
            Supervisor::Systemd => Host::Unit(Unit::start(&name, &command)?),
            Supervisor::StandIn => Host::StandIn(StandIn::start(&name, command, folder)?),
        };
        let backend = Self {
            name,
            address,
            host,
        };
        let begun = Instant::now();
        while TcpStream::connect(address).is_err() {
            if begun.elapsed() > Duration::from_secs(10) {
                bail!("the backend does not listen on {address}");
            }
            thread::sleep(Duration::from_millis(20));
        }
        Ok(backend)
    }

    fn main_pid(&self) -> anyhow::Result<u32> {
        match &self.host {
            Host::Unit(unit) => unit.main_pid(),
            Host::StandIn(stand_in) => Ok(stand_in.main_pid()),
        }
    }

    /// Why nothing can be killed here, if that is known in advance.
    fn obstacle(&self) -> Option<&str> {
        match &self.host {
            Host::Unit(_) => None,
            Host::StandIn(stand_in) => stand_in.obstacle(),
        }
    }

    fn environment(&self) -> Vec<(&'static str, std::ffi::OsString)> {
        match &self.host {
            Host::Unit(_) => vec![],
            Host::StandIn(stand_in) => stand_in.environment(),
        }
    }
}

/// A transient unit, stopped on drop.
struct Unit {
    name: String,
}

impl Unit {
    fn start(name: &str, command: &[String]) -> anyhow::Result<Self> {
        let started = Command::new("systemd-run")
            .args(["--user", "--quiet", "--collect", "--unit", name])
            .args([
                "--property=Restart=always",
                "--property=RestartSec=200ms",
                "--",
            ])
            .args(command)
            .stdin(Stdio::null())
            .output()
            .context("systemd-run cannot be run")?;
        let said = String::from_utf8_lossy(&started.stderr);
        ensure!(started.status.success(), "systemd-run: {}", said.trim());
        Ok(Self {
            name: name.to_owned(),
        })
    }

    fn main_pid(&self) -> anyhow::Result<u32> {
        let shown = systemctl(&["show", "--property=MainPID", "--", &self.name])?;
        let number = shown
            .stdout
            .strip_prefix("MainPID=")
            .context("no MainPID")?;
        Ok(number.parse()?)
    }
}

impl Drop for Unit {
    fn drop(&mut self) {
        for verb in ["stop", "reset-failed"] {
            let _gone = systemctl(&[verb, "--", &self.name]);
        }
    }
}

/// Whether a systemd user manager answers.
fn user_manager() -> anyhow::Result<()> {
    let state = systemctl(&["is-system-running"]);
    let state = state.context("systemctl cannot be run; is systemd installed?")?;
    ensure!(
        ["running", "degraded", "starting"].contains(&state.stdout.as_str()),
        "\"systemctl --user\" does not answer: {}",
        if state.stderr.is_empty() {
            &state.stdout
        } else {
            &state.stderr
        }
    );
    Ok(())
}

struct Said {
    stdout: String,
    stderr: String,
}

fn systemctl(args: &[&str]) -> anyhow::Result<Said> {
    let output = Command::new("systemctl")
        .arg("--user")
        .args(args)
        .stdin(Stdio::null())
        .output()?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    Ok(Said {
        stdout: text(&output.stdout),
        stderr: text(&output.stderr),
    })
}
