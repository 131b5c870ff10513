//! A `systemctl` that is missing, hangs, floods its output or prints garbage: the run reports the failure in
//! bounded time, and the process that it might have killed stays alive.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::fake::Fake;
use crate::scripted::SILENT;
use crate::systemd::{Systemd, recovery};
use crate::wait::wait_until;

#[test]
fn a_correct_answer_leads_to_the_signal() {
    // The control for all tests below: each differs from this one by a single fault.
    let Some(systemd) = Systemd::start() else {
        return;
    };
    let fake = Fake::new(&systemd);
    let run = fake.test_env.run(["--dry-run"]);
    run.exits(1).outcome("would_kill").pid("pid", fake.pid());
    fake.not_signalled(&run);
    // After its death, this systemctl keeps reporting the same process.
    fake.record();
    let mut running = fake.test_env.start([]);
    let ended = wait_until(Duration::from_secs(10), || !fake.is_alive());
    assert!(ended, "{:?}", running.finish());
    let message = format!("{}", fake.pid());
    assert!(
        running.stderr().contains(&message),
        "the line before the signal: {}",
        running.stderr()
    );
    assert!(!running.is_over(), "it waits for a new main process");
}

#[test]
fn a_hang_ends_the_waiting_where_it_can_be_recovered() {
    let Some(systemd) = Systemd::start() else {
        return;
    };
    let fake = Fake::new(&systemd);
    let run = fake.test_env.run(["--wait", "20", "--dry-run"]);
    run.exits(1).outcome("would_kill").pid("pid", fake.pid());
    fake.not_signalled(&run);
    assert_eq!(fake.backend.requests(), 1, "one sweep");
}

#[test]
fn a_hang_does_not_end_the_waiting_where_recovery_is_switched_off() {
    let Some(systemd) = Systemd::start() else {
        return;
    };
    let fake = Fake::new(&systemd);
    let run = fake.test_env.run(["--wait", "4", "--no-recover"]);
    run.exits(1).hung(true).outcome("disabled");
    fake.not_signalled(&run);
    let sweeps = fake.backend.requests();
    assert!((2..=3).contains(&sweeps), "{sweeps} sweeps in 4 s");
}

#[test]
fn systemctl_is_called_with_unambiguous_arguments() {
    let Some(systemd) = Systemd::start() else {
        return;
    };
    let fake = Fake::new(&systemd);
    fake.script(
        "printf '%s|' \"$LC_ALL\" \"$SYSTEMD_PAGER\" \"$@\" >>asked; echo >>asked; ./answer \"$@\"",
    );
    let asked = fake.test_env.dir().join("asked");
    let are_clear = |user| {
        let asked = fs::read_to_string(&asked).unwrap();
        let shows: Vec<_> = asked
            .lines()
            .filter(|line| line.contains("|show|"))
            .collect();
        for line in &shows {
            assert!(
                line.starts_with("C|") || line.starts_with("C.UTF-8|"),
                "{line}"
            );
            // Names follow, also those of other units, and nothing that looks like an option.
            let (_, names) = line.split_once("|--|").expect("names");
            assert!(!names.contains("|-"), "{line}");
            assert_eq!(line.contains("|--user|"), user, "{line}");
        }
        let own = |line: &&&str| line.ends_with("|--|backend.service|");
        shows.iter().filter(own).count()
    };
    fake.test_env.run(["--dry-run"]).outcome("would_kill");
    assert!(are_clear(true) >= 2, "two observations");
    fs::remove_file(&asked).unwrap();
    // No system manager runs here, so the user manager answers for it; the processes are not its children.
    fake.answer(r#"systemctl --user "$@""#);
    let system = recovery(&fake.backend.unit, json!({ "scope": "system" }));
    let test_env = fake.test_env.top("recovery", system);
    test_env.run(["--dry-run"]).outcome("refused");
    assert!(are_clear(false) >= 1);
}

#[test]
fn systemctl_is_left_alone_where_recovery_is_off() {
    let Some(systemd) = Systemd::start() else {
        return;
    };
    let fake = Fake::new(&systemd);
    fake.script("echo asked >>asked; ./answer \"$@\"");
    let url = fake.backend.url();
    for run in [
        fake.test_env.run(["--no-recover"]),
        fake.test_env.run(["--base-url", &url]),
    ] {
        run.exits(1).hung(true).outcome("disabled").pid("pid", None);
        fake.not_signalled(&run);
    }
    assert!(!fake.test_env.dir().join("asked").exists());
}

#[test]
fn a_systemctl_that_cannot_be_run_fails_the_recovery() {
    let Some(systemd) = Systemd::start() else {
        return;
    };
    let fake = Fake::new(&systemd);
    let path = fake.test_env.dir().join("bin/systemctl");
    fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
    fake.fails("systemctl");
    fs::write(&path, b"\x7fELF nonsense").unwrap();
    fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
    fake.fails("systemctl");
    fs::remove_file(&path).unwrap();
    fake.fails("systemctl");
    fs::create_dir(&path).unwrap();
    fake.fails("systemctl");
}

#[test]
fn a_systemctl_that_hangs_is_killed_after_5_s() {
    let Some(systemd) = Systemd::start() else {
        return;
    };
    let fake = Fake::new(&systemd);
    fake.script("exec sleep 20");
    fake.fails("5 s");
}

#[test]
fn a_systemctl_that_hangs_with_its_children_is_killed_after_5_s() {
    let Some(systemd) = Systemd::start() else {
        return;
    };
    let fake = Fake::new(&systemd);
    fake.script("sleep 20 & exec sleep 20");
    fake.fails("5 s");
}

#[test]
fn an_answer_counts_even_while_a_child_of_systemctl_holds_its_output() {
    let Some(systemd) = Systemd::start() else {
        return;
    };
    let fake = Fake::new(&systemd);
    fake.script("sleep 8 & ./answer \"$@\"");
    let run = fake.test_env.run(["--dry-run"]);
    run.exits(1).outcome("would_kill").pid("pid", fake.pid());
    fake.not_signalled(&run);
}

#[test]
fn the_program_does_not_wait_for_a_systemctl_that_ignores_signals() {
    let Some(systemd) = Systemd::start() else {
        return;
    };
    let fake = Fake::new(&systemd);
    fake.script("trap '' TERM INT HUP PIPE; sleep 20; sleep 20");
    fake.fails("5 s");
}

#[test]
fn a_flood_from_systemctl_fails_the_recovery_and_is_not_passed_on() {
    let Some(systemd) = Systemd::start() else {
        return;
    };
    let fake = Fake::new(&systemd);
    for flood in [
        "exec yes MainPID=1",
        "exec yes >&2",
        "exec cat /dev/zero",
        "./answer \"$@\"; exec yes ''",
    ] {
        fake.script(flood);
        let run = fake.run();
        run.failed("endless garbage");
        assert!(
            run.stdout.len() + run.stderr.len() < 20_000,
            "{flood}: it is passed on"
        );
        fake.not_signalled(&run);
    }
}

#[test]
fn garbage_from_systemctl_fails_the_recovery() {
    let Some(systemd) = Systemd::start() else {
        return;
    };
    let fake = Fake::new(&systemd);
    for (garbage, part) in [
        ("head -c 4096 /dev/urandom", "not UTF-8"),
        ("echo hello", "garbage: \"hello\""),
        ("true", "printed nothing"),
        ("printf '=\\n==\\n=x\\n'", "twice"),
        ("echo MainPID", "garbage: \"MainPID\""),
    ] {
        fake.script(garbage);
        fake.fails(part);
    }
}

#[test]
fn a_failure_of_systemctl_is_reported_with_its_reason() {
    let Some(systemd) = Systemd::start() else {
        return;
    };
    let fake = Fake::new(&systemd);
    fake.script("echo 'Failed to connect to bus: Connection refused' >&2; exit 1");
    fake.fails("Failed to connect to bus: Connection refused");
    fake.script("./answer \"$@\"; exit 1");
    fake.fails("systemctl");
    fake.script("./answer \"$@\"; kill -9 $$");
    fake.fails("systemctl");
    // Its output is foreign text, like a server's.
    fake.script("printf 'bad \\033[31mred\\n' >&2; exit 1");
    let run = fake.test_env.run_as_is([]);
    run.line_with("recovery: failed", r"bad \u{1b}[31mred");
    assert!(
        !run.stdout.contains('\x1b') && !run.stderr.contains('\x1b'),
        "{run:?}"
    );
}

#[test]
fn each_guard_reads_what_systemctl_says() {
    let Some(systemd) = Systemd::start() else {
        return;
    };
    // One row for each property; the unit tests of the guards cover all values.
    let rows = [
        ("LoadState", Some("masked"), "not_loaded"),
        ("ActiveState", Some("reloading"), "not_active"),
        ("MainPID", Some("1"), "main_pid"),
        ("MainPID", Some("99999999999999999999"), "unreadable"),
        ("InvocationID", None, "unreadable"),
        (
            "ExecMainStartTimestampMonotonic",
            Some("99999999999999999"),
            "restarted",
        ),
        ("Restart", Some("perhaps"), "unreadable"),
        ("SuccessExitStatus", None, "unreadable"),
        (
            "RestartPreventExitStatus",
            Some("1 ABRT KILL"),
            "no_restart",
        ),
        ("RestartForceExitStatus", None, "unreadable"),
        ("ExitType", Some("cgroup"), "no_restart"),
        ("RemainAfterExit", Some(""), "unreadable"),
        ("ExecStart", Some("/bin/sleep 120"), "unreadable"),
        ("Job", Some("4711"), "job_queued"),
        ("FreezerState", Some("thawing"), "frozen"),
    ];
    thread::scope(|scope| {
        for (number, (property, value, guard)) in rows.into_iter().enumerate() {
            let systemd = &systemd;
            scope.spawn(move || {
                let unit = format!("row-{number}.service");
                let fake = Fake::with(systemd, &unit, &[SILENT]);
                fake.change(property, value);
                fake.is_refused(guard);
            });
        }
    });
    // Older versions of systemd lack the first two; the others have a default.
    let fake = Fake::new(&systemd);
    for property in ["FreezerState", "ExitType", "RemainAfterExit", "ExecStart"] {
        fake.change(property, None);
        fake.test_env.run(["--dry-run"]).outcome("would_kill");
    }
}

#[test]
fn a_process_that_is_gone_is_not_signalled() {
    let Some(systemd) = Systemd::start() else {
        return;
    };
    let fake = Fake::new(&systemd);
    fake.change("MainPID", Some(&systemd.ended_pid().to_string()));
    fake.is_refused("gone");
}

#[test]
fn an_answer_about_several_units_fails_the_recovery() {
    let Some(systemd) = Systemd::start() else {
        return;
    };
    let fake = Fake::new(&systemd);
    systemd.sleeper("other.service", "");
    fake.answer(r#"systemctl "$@" other.service"#);
    fake.fails("more than one unit");
}

#[test]
fn a_unit_that_changes_between_the_observations_is_left_alone() {
    let Some(systemd) = Systemd::start() else {
        return;
    };
    type Value = fn(other: u32) -> Option<String>;
    let rows: [(_, _, Value); 6] = [
        ("changed", "MainPID", |other| Some(other.to_string())),
        ("changed", "InvocationID", |_| Some("0".repeat(32))),
        ("not_active", "ActiveState", |_| Some("deactivating".into())),
        ("job_queued", "Job", |_| Some("7".into())),
        ("no_restart", "Restart", |_| Some("no".into())),
        ("unreadable", "MainPID", |_| None),
    ];
    thread::scope(|scope| {
        for (number, (guard, property, value)) in rows.into_iter().enumerate() {
            let systemd = &systemd;
            scope.spawn(move || {
                let unit = format!("row-{number}.service");
                let fake = Fake::with(systemd, &unit, &[SILENT]);
                // The new main process belongs to the unit, as it would after a restart.
                let group = systemd.property(&unit, "ControlGroup");
                let other = systemd.deaf_process_in(&group);
                let run = fake.run_changing(&fake.changed(property, value(other).as_deref()));
                run.refused(guard);
                fake.not_signalled(&run);
                assert!(systemd.is_alive(other), "the new main process was killed");
            });
        }
    });
}

#[test]
fn a_failure_of_systemctl_at_the_second_observation_fails_the_recovery() {
    let Some(systemd) = Systemd::start() else {
        return;
    };
    let fake = Fake::new(&systemd);
    let run = fake.run_changing("exit 1");
    run.failed("systemctl");
    fake.not_signalled(&run);
}

#[test]
fn a_healthy_run_warns_of_a_recovery_that_would_not_work() {
    let Some(systemd) = Systemd::start() else {
        return;
    };
    let about = |fake: &Fake, part: &str| {
        let run = fake.test_env.run([]);
        run.exits(0)
            .healthy(true)
            .outcome("not_needed")
            .within(Duration::from_secs(2));
        let warnings = run.report["warnings"].to_string();
        assert!(
            warnings.contains("backend.service") && warnings.contains(part),
            "{part}: {run:?}"
        );
    };
    let fake = Fake::with(&systemd, "backend.service", &["200"]);
    let run = fake.test_env.run([]);
    assert_eq!(run.exits(0).report["warnings"], json!([]), "{run:?}");
    fake.change("LoadState", Some("not-found"));
    about(&fake, "");
    fake.change("Restart", Some("no"));
    about(&fake, "Restart=no");
    fake.change("ExitType", Some("cgroup"));
    about(&fake, "ExitType=cgroup");
    fake.change("NeedDaemonReload", Some("yes"));
    about(&fake, "daemon-reload");
    fake.script("exit 1");
    about(&fake, "systemctl");
    let begun = Instant::now();
    fake.script("exec sleep 20");
    about(&fake, "systemctl");
    assert!(
        begun.elapsed() < Duration::from_secs(2),
        "at most 1 s longer than the sweep"
    );
    assert!(fake.test_env.run(["--no-recover"]).report["warnings"] == json!([]));
}

#[test]
fn a_healthy_run_leaves_no_hanging_systemctl_behind() {
    let Some(systemd) = Systemd::start() else {
        return;
    };
    let fake = Fake::with(&systemd, "backend.service", &["200"]);
    let callers = fake.test_env.dir().join("callers");
    fake.script("sleep 20 & echo $$ $! >>callers; exec sleep 20");
    let run = fake.test_env.run([]);
    run.exits(0).healthy(true).within(Duration::from_secs(2));
    let warnings = run.report["warnings"].to_string();
    assert!(warnings.contains("in time"), "{run:?}");
    let callers = fs::read_to_string(callers).unwrap();
    let callers: Vec<u32> = callers
        .split_whitespace()
        .map(|pid| pid.parse().unwrap())
        .collect();
    assert!(callers.len() >= 2, "systemctl and its child: {callers:?}");
    for caller in callers {
        // The kernel may take a moment to end a process.
        let ended = wait_until(Duration::from_secs(1), || !systemd.is_alive(caller));
        assert!(ended, "{caller} is left behind");
    }
}
