//! Timing: a timeout is exact, because the guard `starved` depends on it, and a kill follows a hang after a
//! time that can be computed in advance. Tests start in the order of their names, and one of these takes the
//! longest, so this module's name puts it first.

use std::time::Duration;

use serde_json::json;

use crate::script::{ok, silent};
use crate::scripted::Scripted;
use crate::server::NeverAccepts;
use crate::systemd::Systemd;
use crate::test_env::TestEnv;

/// How late a timeout may be.
const LATE: f64 = 0.02;

/// The best of these shows how exact the program is; the others show how busy the machine is.
const SAMPLES: u32 = 5;

/// Far enough apart that one busy moment of the machine delays only one probe.
const APART: f64 = 0.07;

/// Checks that silent routes with timeouts from `seconds` on time out exactly.
#[track_caller]
fn is_exact(seconds: f64, test_env: TestEnv) {
    let samples = (0..SAMPLES).map(|n| (format!("/{n}"), seconds + f64::from(n) * APART));
    let samples: Vec<(String, f64)> = samples.collect();
    let test_env = samples.iter().fold(
        test_env.top("concurrency", SAMPLES),
        |test_env, (path, seconds)| {
            let keys = json!({ "core": true, "timeout_seconds": seconds });
            test_env.route(path, silent(), keys)
        },
    );
    let run = test_env.run([]);
    run.exits(1).hung(true);
    let late = samples
        .iter()
        .map(|(path, seconds)| run.route(path)["elapsed_seconds"].as_f64().unwrap() - seconds);
    let least = late.fold(f64::INFINITY, f64::min);
    assert!(
        (0.0..=LATE).contains(&least),
        "{seconds} s were {least} s late"
    );
}

#[test]
fn a_timeout_is_late_by_at_most_20_ms() {
    std::thread::scope(|scope| {
        for seconds in [0.5, 5.0, 20.0] {
            scope.spawn(move || is_exact(seconds, TestEnv::new()));
            scope.spawn(move || {
                let never = NeverAccepts::start();
                let url = never.url().replace("http:", "https:");
                is_exact(seconds, TestEnv::new().at(url));
            });
        }
    });
}

#[test]
fn the_kill_comes_on_time_whatever_the_number_of_auxiliary_routes() {
    let Some(systemd) = Systemd::start() else {
        return;
    };
    let backend = Scripted::silent(&systemd, "late.service", "Restart=always");
    let mut test_env = backend
        .test_env(json!({ "grace_seconds": 0.5 }))
        .default("timeout_seconds", 1.2)
        .default("retries", 1)
        .default("retry_backoff_seconds", 0.1)
        .core("/second", silent())
        .core("/third", silent());
    for number in 0..100 {
        test_env = test_env.aux(&format!("/page/{number}"), ok());
    }
    let run = test_env.run(["--dry-run"]);
    run.outcome("would_kill").tally([0, 3, 0, 0, 100]);
    // Two rounds, the pause between them, the grace period, and a second for everything else, including the
    // start of a program in a namespace.
    let bound = Duration::from_millis(1_200 * 2 + 100 + 500 + 1_000);
    let elapsed = run.report["elapsed_seconds"].as_f64().unwrap();
    assert!(elapsed <= bound.as_secs_f64(), "{elapsed} s");
}
