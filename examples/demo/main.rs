//! The whole story on one machine in half a minute: a backend is healthy, has a bad day, and hangs.
//! Each time the real program looks at it; the hang it ends, where a user's systemd is at hand.
//!
//! `demo --backend ADDRESS [PID]` is the backend of the story: it serves until it is ended, or until
//! the process PID is gone.

mod address;
mod backend;
mod build;

use std::env;
use std::io::{self, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use serde_json::{Value, json};

/// What operators copy.
const MANIFEST: &str = include_str!("../../routes.json");

fn main() -> ExitCode {
    let args: Vec<String> = env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    let ended = match words.as_slice() {
        [] => story(),
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

fn story() -> anyhow::Result<()> {
    let program = program()?;
    let backend = Backend::start()?;
    let manifest = manifest(&backend)?;

    say("1. A healthy day: every route answers.");
    let args: &[&str] = if backend.is_recoverable() {
        &[]
    } else {
        &["--no-recover"]
    };
    look(&program, &manifest, args, 0)?;

    say(
        "2. A bad day: two pages are slow, the rate limiter says no to the rest. No alarm: exit 0.",
    );
    backend::tell(backend.address, "/__busy")?;
    look(&program, &manifest, args, 0)?;

    say("3. The backend hangs: the kernel still takes connections, nobody answers.");
    backend::tell(backend.address, "/__hang")?;
    match &backend.host {
        Host::Unit(unit) => {
            let old = unit.main_pid()?;
            look(&program, &manifest, &[], 1)?;
            let new = unit.main_pid()?;
            ensure!(old != new, "the main process is still {old}");
            say(&format!(
                "systemd runs a new main process: {new} in place of {old}. Once more:"
            ));
            look(&program, &manifest, &[], 0)?;
        }
        Host::Child(_, why) => {
            println!("   Nothing can be recovered here: {why}.");
            println!("   So this shows only what would be decided (--dry-run).\n");
            look(&program, &manifest, &["--dry-run"], 1)?;
        }
    }
    println!("\nThat is all; the demo has cleaned up after itself.");
    Ok(())
}

fn say(text: &str) {
    println!("\n== {text}\n");
}

/// Runs the program on this manifest and holds it to its exit status.
fn look(program: &Path, manifest: &Value, args: &[&str], status: i32) -> anyhow::Result<()> {
    println!("$ scidex-route-health --manifest - {}", args.join(" "));
    io::stdout().flush()?;
    let mut child = Command::new(program)
        .args(["--manifest", "-"])
        .args(args)
        .stdin(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot run {}", program.display()))?;
    let mut stdin = child.stdin.take().context("no pipe to the program")?;
    stdin.write_all(manifest.to_string().as_bytes())?;
    drop(stdin);
    let ended = child.wait()?;
    println!("-> exit {}", ended.code().unwrap_or(-1));
    ensure!(
        ended.code() == Some(status),
        "expected exit {status}, got: {ended}"
    );
    Ok(())
}

/// The shipped manifest with the story's address and shorter times.
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
    let unit = match &backend.host {
        Host::Unit(unit) => unit.name.as_str(),
        Host::Child(..) => "scidex-route-health-demo.service",
    };
    // The story does not wait for two minutes of uptime.
    let recovery = json!({
        "unit": unit, "scope": "user", "min_uptime_seconds": 0, "verify_seconds": 20,
    });
    put(&mut manifest, "recovery", recovery);
    Ok(manifest)
}

/// The program itself, built where that is still to do: `cargo run --example` does not.
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

/// The backend of the story, ended on drop.
struct Backend {
    address: SocketAddr,
    host: Host,
}

enum Host {
    /// A transient unit of the user's systemd.
    Unit(Unit),
    /// A child process, and why it is no unit.
    Child(Child, String),
}

impl Backend {
    fn start() -> anyhow::Result<Self> {
        let address = address::own_address()?;
        let own = env::current_exe()?;
        let words = [address.to_string(), std::process::id().to_string()];
        let host = match Unit::start(&own, &words) {
            Ok(unit) => Host::Unit(unit),
            Err(why) => {
                let mut command = Command::new(own);
                command.arg("--backend").args(&words).stdin(Stdio::null());
                Host::Child(command.spawn()?, format!("{why:#}"))
            }
        };
        let backend = Self { address, host };
        let begun = Instant::now();
        while TcpStream::connect(address).is_err() {
            if begun.elapsed() > Duration::from_secs(10) {
                bail!("the backend does not listen on {address}");
            }
            thread::sleep(Duration::from_millis(20));
        }
        Ok(backend)
    }

    const fn is_recoverable(&self) -> bool {
        matches!(self.host, Host::Unit(_))
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        if let Host::Child(child, _) = &mut self.host {
            // Fails only where it is over already.
            let _over = child.kill();
            let _over = child.wait();
        }
    }
}

/// A transient unit, stopped on drop.
struct Unit {
    name: String,
}

impl Unit {
    fn start(exe: &Path, words: &[String]) -> anyhow::Result<Self> {
        let state = systemctl(&["is-system-running"]);
        let state = state.context("systemctl cannot be run; is systemd installed?")?;
        ensure!(
            ["running", "degraded", "starting"].contains(&state.stdout.as_str()),
            "`systemctl --user` does not answer: {}",
            if state.stderr.is_empty() {
                &state.stdout
            } else {
                &state.stderr
            }
        );
        let unit = Self {
            name: format!("scidex-route-health-demo-{}.service", std::process::id()),
        };
        let started = Command::new("systemd-run")
            .args(["--user", "--quiet", "--collect", "--unit", &unit.name])
            .args([
                "--property=Restart=always",
                "--property=RestartSec=200ms",
                "--",
            ])
            .arg(exe)
            .arg("--backend")
            .args(words)
            .stdin(Stdio::null())
            .output()
            .context("systemd-run cannot be run")?;
        let said = String::from_utf8_lossy(&started.stderr);
        ensure!(started.status.success(), "systemd-run: {}", said.trim());
        Ok(unit)
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
