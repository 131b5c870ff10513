//! Hangs under a real systemd: detected, killed and recovered exactly once, and what is reported if the
//! restart fails.

use std::fs;
use std::time::Duration;

use serde_json::json;

use crate::run::Run;
use crate::script::{ok, silent};
use crate::scripted::Scripted;
use crate::systemd::{Systemd, recovery};
use crate::test_env::{BINARY, TestEnv};
use crate::wait::wait_until;

const SECOND: Duration = Duration::from_secs(1);

const RESTARTS: &str = "Restart=always\nRestartSec=100ms";

/// A test environment that probes a unit's backend and may kill it.
fn watching(systemd: &Systemd, backend: &Scripted<'_>) -> TestEnv {
    TestEnv::new()
        .at(backend.url())
        .beside(systemd)
        .default("timeout_seconds", 1.5)
        .core("/api/health", ok())
        .core("/", ok())
        .aux("/graph", ok())
        .top("recovery", recovery(&backend.unit, json!({})))
}

#[track_caller]
fn is_recovered(systemd: &Systemd, backend: &Scripted<'_>, run: &Run, old: u32) {
    let new = backend.pid();
    run.exits(1)
        .healthy(false)
        .hung(true)
        .tally([0, 2, 0, 0, 1])
        .outcome("recovered")
        .pid("pid", old)
        .pid("new_pid", new)
        .stderr_has(&old.to_string())
        .stderr_has(&backend.unit);
    assert_ne!(old, new);
    assert!(!systemd.is_alive(old));
    assert_eq!(systemd.property(&backend.unit, "NRestarts"), "1");
}

#[test]
fn a_stopped_backend_is_recovered() {
    let Some(systemd) = Systemd::start() else {
        return;
    };
    let backend = Scripted::healthy(&systemd, "stopped.service", RESTARTS);
    let test_env = watching(&systemd, &backend);
    test_env
        .run([])
        .exits(0)
        .tally([3, 0, 0, 0, 0])
        .outcome("not_needed");

    let old = backend.pid();
    backend.freeze();
    let run = test_env.run([]);
    is_recovered(&systemd, &backend, &run, old);
    assert!(run.report["recovery"]["evidence"].is_object(), "{run:?}");
    test_env
        .run([])
        .exits(0)
        .tally([3, 0, 0, 0, 0])
        .outcome("not_needed");
}

#[test]
fn a_blocked_backend_is_recovered_and_reported() {
    let Some(systemd) = Systemd::start() else {
        return;
    };
    let backend = Scripted::healthy(&systemd, "blocked.service", RESTARTS);
    let test_env = watching(&systemd, &backend);
    let old = backend.pid();
    backend.block();
    let run = test_env.run_as_is([]);
    run.exits(1)
        .line("0 OK, 2 timeout/unreachable, 0 rate-limited, 0 HTTP error, 1 skipped")
        .line_with("recovery: recovered", "blocked.service");
    assert_ne!(backend.pid(), old);
    test_env
        .run_as_is([])
        .exits(0)
        .line("3 OK, 0 timeout/unreachable, 0 rate-limited, 0 HTTP error");
}

#[test]
fn an_abort_lets_the_backend_leave_a_trace() {
    let Some(systemd) = Systemd::start() else {
        return;
    };
    let backend = Scripted::healthy(
        &systemd,
        "abort.service",
        "Restart=on-abort\nRestartSec=100ms",
    );
    let keys = recovery(&backend.unit, json!({ "signal": "SIGABRT" }));
    let test_env = watching(&systemd, &backend).top("recovery", keys);
    let old = backend.pid();
    backend.block();
    let run = test_env.run([]);
    is_recovered(&systemd, &backend, &run, old);
    run.within(SECOND * 5);
}

#[test]
fn a_process_that_ignores_the_abort_is_killed_in_the_end() {
    let Some(systemd) = Systemd::start() else {
        return;
    };
    // A stopped process does not handle SIGABRT, but SIGKILL ends it.
    let backend = Scripted::healthy(&systemd, "deaf.service", RESTARTS);
    let keys = recovery(&backend.unit, json!({ "signal": "SIGABRT" }));
    let test_env = watching(&systemd, &backend).top("recovery", keys);
    let old = backend.pid();
    backend.freeze();
    let run = test_env.run([]);
    is_recovered(&systemd, &backend, &run, old);
    assert!(
        run.elapsed >= SECOND * 5,
        "5 s between the signals: {run:?}"
    );
}

#[test]
fn two_runs_at_once_kill_once() {
    runs_at_once_kill_once([[].as_slice(), &[]]);
}

#[test]
fn a_core_run_beside_a_full_one_kills_once() {
    runs_at_once_kill_once([[].as_slice(), &["--core"]]);
}

#[test]
fn two_timers_at_the_same_moment_kill_once() {
    let Some(systemd) = Systemd::start() else {
        return;
    };
    let backend = Scripted::healthy(&systemd, "timed.service", RESTARTS);
    // On a busy machine, a shorter timeout proves nothing.
    let test_env = watching(&systemd, &backend).default("timeout_seconds", 2);
    let manifest = test_env.write_manifest();
    let command = format!("ExecStart={BINARY} --manifest {}", manifest.display());
    let runs = [("whole", ""), ("core", " --core")];
    let ends = |name| test_env.dir().join(name);
    for (name, argument) in runs {
        let end = format!(
            "ExecStopPost=sh -c 'echo $EXIT_STATUS >> {}'",
            ends(name).display()
        );
        let service = format!("Type=oneshot\n{command}{argument}\n{end}\n");
        let service = format!("[Unit]\nStartLimitIntervalSec=0\n[Service]\n{service}");
        systemd.write_unit(&format!("{name}.service"), &service);
        let timer = "[Timer]\nOnCalendar=*:*:*\nAccuracySec=1ms\n";
        systemd.write_unit(&format!("{name}.timer"), timer);
    }
    let old = backend.pid();
    backend.freeze();
    systemd.systemctl(&["daemon-reload"]);
    systemd.systemctl(&["start", "whole.timer", "core.timer"]);
    for (name, _) in runs {
        let read = || fs::read_to_string(ends(name)).unwrap_or_default();
        // The first run of each timer detected the hang, and a later one found a healthy backend.
        assert!(
            wait_until(SECOND * 20, || read().contains('0')),
            "{name}: {}",
            read()
        );
        assert!(read().starts_with('1'), "{name}: {}", read());
    }
    assert_eq!(systemd.property(&backend.unit, "NRestarts"), "1");
    assert_ne!(backend.pid(), old);
}

fn runs_at_once_kill_once(arguments: [&[&str]; 2]) {
    let Some(systemd) = Systemd::start() else {
        return;
    };
    let backend = Scripted::healthy(&systemd, "twice.service", RESTARTS);
    // On a busy machine, a shorter timeout proves nothing.
    let test_env = watching(&systemd, &backend).default("timeout_seconds", 2);
    let old = backend.pid();
    backend.freeze();
    let started = arguments.map(|arguments| {
        let mut command = test_env.command(["--format", "json"]);
        command.args(arguments);
        test_env.spawn(command)
    });
    let runs = started.map(|running| running.finish());
    for run in &runs {
        run.exits(1).hung(true);
    }
    let outcomes = runs.map(|run| run.report["recovery"]["outcome"].clone());
    assert!(outcomes.contains(&"recovered".into()), "{outcomes:?}");
    assert_eq!(
        systemd.property(&backend.unit, "NRestarts"),
        "1",
        "{outcomes:?}"
    );
    assert_ne!(backend.pid(), old);
    test_env.run([]).exits(0);
}

#[test]
fn a_slow_restart_is_waited_for() {
    let Some(systemd) = Systemd::start() else {
        return;
    };
    let backend = Scripted::healthy(
        &systemd,
        "slow.service",
        "Restart=on-failure\nRestartSec=2s",
    );
    let keys = recovery(&backend.unit, json!({ "verify_seconds": 1 }));
    let test_env = watching(&systemd, &backend).top("recovery", keys);
    let old = backend.pid();
    backend.freeze();
    let run = test_env.run([]);
    is_recovered(&systemd, &backend, &run, old);
    assert!(run.elapsed >= SECOND * 2, "{run:?}");
}

#[test]
fn children_that_outlive_the_main_process_are_waited_for() {
    let Some(systemd) = Systemd::start() else {
        return;
    };
    let backend = Scripted::healthy(
        &systemd,
        "workers.service",
        &format!("{RESTARTS}\nTimeoutStopSec=2s"),
    );
    // A worker in the unit's group that ignores SIGTERM; killed after TimeoutStopSec=.
    let group = systemd.property(&backend.unit, "ControlGroup");
    systemd.deaf_process_in(&group);
    let test_env = watching(&systemd, &backend);
    let old = backend.pid();
    backend.freeze();
    let run = test_env.run([]);
    is_recovered(&systemd, &backend, &run, old);
    assert!(run.elapsed >= SECOND * 2, "{run:?}");
}

#[test]
fn a_dry_run_decides_and_touches_nothing() {
    let Some(systemd) = Systemd::start() else {
        return;
    };
    let backend = Scripted::healthy(&systemd, "dry-run.service", RESTARTS);
    let test_env = watching(&systemd, &backend);
    let old = backend.pid();
    backend.freeze();
    let run = test_env.run(["--dry-run"]);
    run.exits(1)
        .hung(true)
        .outcome("would_kill")
        .pid("pid", old)
        .pid("new_pid", None);
    assert!(run.report["recovery"]["evidence"].is_object(), "{run:?}");
    test_env
        .run_as_is(["--dry-run"])
        .line_with("recovery: would_kill", &backend.unit)
        .line_with("recovery: would_kill", &old.to_string());
    assert!(systemd.is_alive(old));
    assert_eq!(backend.pid(), old);
}

#[test]
fn only_a_hang_is_recovered() {
    let Some(systemd) = Systemd::start() else {
        return;
    };
    let backend = Scripted::healthy(&systemd, "fine.service", RESTARTS);
    let old = backend.pid();
    let slow = TestEnv::new()
        .beside(&systemd)
        .core("/up", silent())
        .core("/busy", crate::script::status(503))
        .top("recovery", recovery(&backend.unit, json!({})));
    slow.run([])
        .exits(1)
        .hung(false)
        .down(false)
        .outcome("not_needed")
        .pid("pid", None);
    let dead = crate::server::DeadPort::reserve();
    let down = watching(&systemd, &backend).at(dead.url());
    down.run([])
        .exits(1)
        .hung(false)
        .down(true)
        .outcome("not_needed")
        .pid("pid", None);
    assert_eq!(backend.pid(), old);
    assert_eq!(systemd.property(&backend.unit, "NRestarts"), "0");
}

#[test]
fn a_start_limit_is_reported() {
    let Some(systemd) = Systemd::start() else {
        return;
    };
    let unit = "limit.service";
    let limit = "[Unit]\nStartLimitBurst=2\nStartLimitIntervalSec=1h";
    let backend = Scripted::silent(&systemd, unit, &format!("{RESTARTS}\n{limit}"));
    // Starts by hand count, too.
    systemd.systemctl(&["restart", unit]);
    backend.wait_until_it_listens();
    let old = backend.pid();
    let run = backend.test_env(json!({})).run([]);
    // The run does not wait for a unit in state "failed", however long `verify_seconds` is.
    run.exits(1)
        .outcome("not_recovered")
        .pid("pid", old)
        .pid("new_pid", None)
        .within(SECOND * 5);
    let detail = run.report["recovery"]["detail"].as_str().unwrap_or("");
    assert!(
        detail.contains("start limit") || detail.contains("start-limit"),
        "{run:?}"
    );
    assert!(detail.contains("reset-failed"), "the remedy: {run:?}");
    assert_eq!(systemd.property(unit, "ActiveState"), "failed");
}

#[test]
fn a_new_process_that_hangs_as_well_is_not_recovered() {
    let Some(systemd) = Systemd::start() else {
        return;
    };
    let unit = "again.service";
    let backend = Scripted::silent(&systemd, unit, RESTARTS);
    let old = backend.pid();
    let run = backend.test_env(json!({ "verify_seconds": 1 })).run([]);
    let new = systemd.main_pid(unit);
    assert_ne!(new, old);
    run.exits(1)
        .outcome("not_recovered")
        .pid("pid", old)
        .pid("new_pid", new)
        .within(SECOND * 6);
    assert_eq!(
        systemd.property(unit, "NRestarts"),
        "1",
        "never a second kill"
    );
}
