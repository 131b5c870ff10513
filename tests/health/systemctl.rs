//! A `systemctl` first on the PATH that is missing, stuck, chatty or mad: the run says what failed,
//! in bounded time, and the process that it might have killed lives on.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::fake::{Fake, Sleeper};
use crate::patience::within;
use crate::play::ok;
use crate::run::Run;

#[test]
fn an_honest_answer_leads_to_the_signal() {
    // The control for all tests below: they differ from this by one fault each.
    let mut fake = Fake::new();
    let run = fake.scene.run(["--dry-run"]);
    run.exits(1).outcome("would_kill").pid("pid", fake.pid());
    fake.spared(&run);
    // Once it is dead, this systemctl goes on telling of the same process.
    let mut running = fake.scene.start([]);
    assert!(within(Duration::from_secs(10), || !fake.victim.is_alive()));
    let told = format!("{}", fake.pid());
    assert!(
        running.stderr().contains(&told),
        "the line before the signal: {}",
        running.stderr()
    );
    assert!(!running.is_over(), "it waits for a new main process");
}

#[test]
fn a_hang_ends_the_waiting_where_it_can_be_recovered() {
    let mut fake = Fake::new();
    let run = fake.scene.run(["--wait", "20", "--dry-run"]);
    run.exits(1).outcome("would_kill").pid("pid", fake.pid());
    fake.spared(&run);
    assert_eq!(fake.scene.server().count("/up"), 2, "a sweep, the last GET");
}

#[test]
fn a_hang_does_not_end_the_waiting_where_recovery_is_switched_off() {
    let mut fake = Fake::new();
    let run = fake.scene.run(["--wait", "2.5", "--no-recover"]);
    run.exits(1).hung(true).outcome("disabled");
    fake.spared(&run);
    let sweeps = fake.scene.server().count("/up");
    assert!((2..=3).contains(&sweeps), "{sweeps} sweeps in 2.5 s");
}

#[test]
fn systemctl_is_asked_in_a_way_that_cannot_be_misread() {
    let fake = Fake::new();
    fake.script(
        "printf '%s|' \"$LC_ALL\" \"$SYSTEMD_PAGER\" \"$@\" >>asked; echo >>asked; cat answer",
    );
    fake.scene.run(["--dry-run"]).outcome("would_kill");
    let asked = fs::read_to_string(fake.scene.dir().join("asked")).unwrap();
    let shows: Vec<_> = asked
        .lines()
        .filter(|line| line.contains("|show|"))
        .collect();
    assert!(shows.len() >= 2, "two looks: {asked}");
    for line in shows {
        assert!(
            line.starts_with("C|") || line.starts_with("C.UTF-8|"),
            "{line}"
        );
        assert!(line.ends_with("|--|backend.service|"), "{line}");
        assert!(!line.contains("--user"), "{line}");
    }
}

#[test]
fn systemctl_is_left_alone_where_recovery_is_off() {
    let mut fake = Fake::new();
    fake.script("echo asked >>asked; cat answer");
    let url = fake.scene.server().url();
    for run in [
        fake.scene.run(["--no-recover"]),
        fake.scene.run(["--base-url", &url]),
    ] {
        run.exits(1).hung(true).outcome("disabled").pid("pid", None);
        fake.spared(&run);
    }
    assert!(!fake.scene.dir().join("asked").exists());
}

#[test]
fn a_systemctl_that_cannot_be_run_fails_the_recovery() {
    let mut fake = Fake::new();
    let path = fake.scene.dir().join("bin/systemctl");
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
fn a_systemctl_that_hangs_is_given_up_after_5_s() {
    let mut fake = Fake::new();
    fake.script("exec sleep 20");
    fake.fails("5 s");
}

#[test]
fn a_systemctl_that_hangs_with_its_children_is_given_up_after_5_s() {
    let mut fake = Fake::new();
    fake.script("sleep 20 & exec sleep 20");
    fake.fails("5 s");
}

#[test]
fn an_answer_counts_even_while_a_child_of_systemctl_holds_its_output() {
    let mut fake = Fake::new();
    fake.script("sleep 8 & cat answer");
    let run = fake.scene.run(["--dry-run"]);
    run.exits(1).outcome("would_kill").pid("pid", fake.pid());
    fake.spared(&run);
}

#[test]
fn a_systemctl_that_ignores_signals_is_not_waited_for() {
    let mut fake = Fake::new();
    fake.script("trap '' TERM INT HUP PIPE; sleep 20; sleep 20");
    fake.fails("5 s");
}

#[test]
fn a_flood_from_systemctl_fails_the_recovery_and_is_not_passed_on() {
    for flood in [
        "exec yes MainPID=1",
        "exec yes >&2",
        "exec cat /dev/zero",
        "cat answer; exec yes ''",
    ] {
        let mut fake = Fake::new();
        fake.script(flood);
        let run = fake.run();
        run.failed("garbage without end");
        assert!(
            run.stdout.len() + run.stderr.len() < 20_000,
            "{flood}: it is passed on"
        );
        fake.spared(&run);
    }
}

#[test]
fn garbage_from_systemctl_fails_the_recovery() {
    for (garbage, part) in [
        ("head -c 4096 /dev/urandom", "not UTF-8"),
        ("echo hello", "garbage: \"hello\""),
        ("true", "printed nothing"),
        ("printf '=\\n==\\n=x\\n'", "twice"),
        ("echo MainPID", "garbage: \"MainPID\""),
    ] {
        let mut fake = Fake::new();
        fake.script(garbage);
        fake.fails(part);
    }
}

#[test]
fn a_failure_of_systemctl_is_told_with_its_reason() {
    let mut fake = Fake::new();
    fake.script("echo 'Failed to connect to bus: Connection refused' >&2; exit 1");
    fake.fails("Failed to connect to bus: Connection refused");
    fake.script("cat answer; exit 1");
    fake.fails("systemctl");
    fake.script("cat answer; kill -9 $$");
    fake.fails("systemctl");
    // What it says is text from outside, like a server's.
    fake.script("printf 'bad \\033[31mred\\n' >&2; exit 1");
    let run = fake.scene.run_as_is([]);
    run.line_with("recovery: failed", r"bad \u{1b}[31mred");
    assert!(
        !run.stdout.contains('\x1b') && !run.stderr.contains('\x1b'),
        "{run:?}"
    );
}

#[test]
fn each_guard_reads_what_systemctl_says() {
    // One row for each property: the guards' own tests have all values.
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
        for (property, value, guard) in rows {
            scope.spawn(move || {
                let mut fake = Fake::new();
                fake.say(&fake.changed(property, value));
                fake.is_refused(guard);
            });
        }
    });
    // An older systemd does not have the first two, and the others have a default.
    for property in ["FreezerState", "ExitType", "RemainAfterExit", "ExecStart"] {
        let fake = Fake::new();
        fake.say(&fake.changed(property, None));
        fake.scene.run(["--dry-run"]).outcome("would_kill");
    }
}

#[test]
fn a_process_that_is_gone_is_not_signalled() {
    let mut fake = Fake::new();
    let mut short = Command::new("true").spawn().unwrap();
    short.wait().unwrap();
    fake.say(&fake.answer_about(short.id()));
    fake.is_refused("gone");
}

#[test]
fn an_answer_about_several_units_fails_the_recovery() {
    let mut fake = Fake::new();
    let other = fake.answer_about(std::process::id());
    fake.say(&format!("{}\n{other}", fake.answer()));
    fake.fails("more than one unit");
}

/// One run whose `systemctl` does this from the last GET on. Its calls are slow, so that the second
/// look comes later than the change.
#[track_caller]
fn changing(change: impl FnOnce(&Fake)) -> (Fake, Run) {
    let fake = Fake::new();
    fake.script("sleep 0.4; cat answer");
    let running = fake.scene.start([]);
    let knocked = within(Duration::from_secs(10), || {
        fake.scene.server().connections() > 1
    });
    assert!(knocked, "no last GET");
    change(&fake);
    (fake, running.finish())
}

#[test]
fn a_unit_that_changes_between_the_looks_is_left_alone() {
    let mut other = Sleeper::start();
    let pid = other.pid();
    for (guard, property, value) in [
        ("changed", "MainPID", Some(pid.to_string())),
        ("changed", "InvocationID", Some("0".repeat(32))),
        ("not_active", "ActiveState", Some("deactivating".into())),
        ("job_queued", "Job", Some("7".into())),
        ("no_restart", "Restart", Some("no".into())),
        ("unreadable", "MainPID", None),
    ] {
        let (mut fake, run) = changing(|fake| fake.say(&fake.changed(property, value.as_deref())));
        run.refused(guard);
        fake.spared(&run);
    }
    assert!(other.is_alive(), "the new main process was killed");
}

#[test]
fn a_failure_of_systemctl_at_the_second_look_fails_the_recovery() {
    let (mut fake, run) = changing(|fake| fake.script("exit 1"));
    run.failed("systemctl");
    fake.spared(&run);
}

#[test]
fn a_recovery_that_would_not_work_is_warned_of_on_a_good_day() {
    let about = |fake: &Fake, part: &str| {
        let run = fake.scene.run([]);
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
    let fake = Fake::with(
        ok(),
        json!({ "unit": "backend.service", "min_uptime_seconds": 0 }),
    );
    let run = fake.scene.run([]);
    assert_eq!(run.exits(0).report["warnings"], json!([]), "{run:?}");
    fake.say(&fake.changed("LoadState", Some("not-found")));
    about(&fake, "");
    fake.say(&fake.changed("Restart", Some("no")));
    about(&fake, "Restart=no");
    fake.say(&fake.changed("ExitType", Some("cgroup")));
    about(&fake, "ExitType=cgroup");
    fake.say(&fake.changed("NeedDaemonReload", Some("yes")));
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
    assert!(fake.scene.run(["--no-recover"]).report["warnings"] == json!([]));
}
