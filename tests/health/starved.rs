//! A program that is kept from running during the core's attempts proves nothing and kills no process, wherever
//! the stop falls.

use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use serde_json::json;

use crate::scripted::Scripted;
use crate::systemd::Systemd;
use crate::test_env::{Running, TestEnv};
use crate::wait::wait_until;

/// Longer than the guard allows: a second, or half a timeout.
const STOP: Duration = Duration::from_millis(1400);

/// Starts a run, stops it for a moment this long after its first request, and returns it.
fn stop_after(
    systemd: &Systemd,
    test_env: &TestEnv,
    after: Duration,
    asked: impl Fn() -> bool,
) -> Running {
    // Found by the path of its manifest, which no other process on the machine has as an argument.
    let manifest = test_env.write_manifest();
    let manifest = manifest.to_str().unwrap();
    let running = test_env.start(["-m", manifest]);
    assert!(wait_until(Duration::from_secs(10), asked), "no request");
    let first = Instant::now();
    let program = systemd.find(manifest).unwrap();
    thread::sleep((first + after).saturating_duration_since(Instant::now()));
    kill(program, Signal::SIGSTOP).unwrap();
    thread::sleep(STOP);
    kill(program, Signal::SIGCONT).unwrap();
    // nsenter stops together with its child.
    running.signal(Signal::SIGCONT);
    running
}

#[test]
fn a_program_that_is_stopped_anywhere_in_the_cores_attempts_kills_no_process() {
    let Some(systemd) = Systemd::start() else {
        return;
    };
    // Two attempts of two seconds, with a pause of 0.05 s. Each stop has a backend of its own.
    let moments = [0, 300, 700, 1200, 1700, 1950, 2300, 2900, 3400, 3700];
    thread::scope(|scope| {
        for moment in moments {
            let systemd = &systemd;
            scope.spawn(move || {
                let unit = format!("stopped-{moment}.service");
                let backend = Scripted::silent(systemd, &unit, "Restart=always");
                let pid = backend.pid();
                let test_env = backend
                    .test_env(json!({}))
                    .default("timeout_seconds", 2)
                    .default("retries", 1);
                let asked = || backend.requests() > 0;
                let after = Duration::from_millis(moment);
                let run = stop_after(systemd, &test_env, after, asked).finish();
                println!("{moment} ms: {}", run.report["recovery"]["guard"]);
                run.refused("starved");
                assert!(systemd.is_alive(pid), "{unit} was killed");
            });
        }
    });
}

#[test]
fn a_short_timeout_allows_only_a_short_stop() {
    let Some(systemd) = Systemd::start() else {
        return;
    };
    let backend = Scripted::silent(&systemd, "short.service", "Restart=always");
    let pid = backend.pid();
    let test_env = backend.test_env(json!({}));
    let asked = || backend.requests() > 0;
    let run = stop_after(&systemd, &test_env, Duration::ZERO, asked).finish();
    run.refused("starved");
    assert!(systemd.is_alive(pid));
}

#[test]
fn a_stop_within_one_long_attempt_is_noticed() {
    let Some(systemd) = Systemd::start() else {
        return;
    };
    let backend = Scripted::silent(&systemd, "long.service", "Restart=always");
    let pid = backend.pid();
    // Long enough for the attempt to end in time despite the stop.
    let test_env = backend.test_env(json!({})).default("timeout_seconds", 4);
    let asked = || backend.requests() > 0;
    let after = Duration::from_millis(500);
    let run = stop_after(&systemd, &test_env, after, asked).finish();
    run.refused("starved");
    assert!(systemd.is_alive(pid));
}
