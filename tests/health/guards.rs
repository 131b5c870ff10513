//! Every reason to leave a hung backend alone that a real systemd can cause: the process must still be alive.
//! Without such a reason, the same test environment ends in a kill: see
//! `a_new_process_that_hangs_as_well_is_not_recovered` in `recovery`. Also: decisions about restarts match
//! what systemd then does.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::ptrace;
use nix::sys::signal::Signal;
use serde_json::json;

use crate::run::{Run, has};
use crate::scripted::{SILENT, Scripted};
use crate::skip::skip;
use crate::systemd::{Systemd, recovery};
use crate::test_env::{TestEnv, with_silent_core};
use crate::wait::wait_until;

const RESTARTS: &str = "Restart=always";

/// Runs against a silent server; `unit` does not run a backend, and its main process must not be killed.
#[track_caller]
fn spares(systemd: &Systemd, unit: &str, guard: &str) {
    let test_env = with_silent_core(systemd, recovery(unit, json!({})));
    is_spared(systemd, unit, &test_env, guard);
}

/// Runs against a hung backend that would be killed without the guard, and must not be.
#[track_caller]
fn spares_hung(systemd: &Systemd, backend: &Scripted<'_>, guard: &str) {
    is_spared(systemd, &backend.unit, &backend.test_env(json!({})), guard);
}

#[track_caller]
fn is_spared(systemd: &Systemd, unit: &str, test_env: &TestEnv, guard: &str) -> Run {
    let before = systemd.main_pid(unit);
    let run = test_env.run([]);
    run.refused(guard);
    assert_eq!(
        systemd.main_pid(unit),
        before,
        "{unit} has another main process"
    );
    assert!(before == 0 || systemd.is_alive(before), "{unit} was killed");
    run
}

#[test]
fn a_unit_that_does_not_exist_is_refused() {
    let Some(systemd) = Systemd::start() else {
        return;
    };
    spares(&systemd, "no-such.service", "not_loaded");
    // systemd.unit(5): an empty file masks the unit.
    systemd.write_unit("hidden.service", "");
    assert_eq!(systemd.property("hidden.service", "LoadState"), "masked");
    spares(&systemd, "hidden.service", "not_loaded");
}

#[test]
fn a_unit_that_is_not_active_is_left_alone() {
    let Some(systemd) = Systemd::start() else {
        return;
    };
    systemd.sleeper("stopped.service", RESTARTS);
    systemd.systemctl(&["stop", "stopped.service"]);
    spares(&systemd, "stopped.service", "not_active");

    systemd.write_unit(
        "starting.service",
        "[Service]\nType=oneshot\nExecStart=sleep infinity\n",
    );
    systemd.systemctl(&["start", "--no-block", "starting.service"]);
    systemd.wait_for("starting.service", "ActiveState", "activating");
    spares(&systemd, "starting.service", "not_active");
}

#[test]
fn a_unit_without_a_main_process_is_left_alone() {
    let Some(systemd) = Systemd::start() else {
        return;
    };
    systemd.service(
        "none.service",
        "Type=oneshot\nRemainAfterExit=yes\nExecStart=true",
    );
    spares(&systemd, "none.service", "main_pid");
}

#[test]
fn a_young_main_process_is_left_alone() {
    let Some(systemd) = Systemd::start() else {
        return;
    };
    let backend = Scripted::silent(&systemd, "young.service", RESTARTS);
    let test_env = backend.test_env(json!({ "min_uptime_seconds": 120 }));
    is_spared(&systemd, &backend.unit, &test_env, "too_young");
}

#[test]
fn a_unit_that_was_reloaded_a_moment_ago_is_left_alone() {
    let Some(systemd) = Systemd::start() else {
        return;
    };
    // Its main process stays the same: gunicorn boots new workers then, under the old one.
    let service = format!("{RESTARTS}\nExecReload=true");
    let backend = Scripted::silent(&systemd, "reloaded.service", &service);
    let started = Instant::now();
    let test_env = backend.test_env(json!({ "min_uptime_seconds": 5 }));
    let old_enough = || started.elapsed() > Duration::from_secs(5);
    assert!(wait_until(Duration::from_secs(10), old_enough));
    // The control: without the reload, its age is sufficient.
    let run = test_env.run(["--dry-run"]);
    run.exits(1).outcome("would_kill");
    systemd.systemctl(&["reload", &backend.unit]);
    is_spared(&systemd, &backend.unit, &test_env, "too_young").stdout_has("reload");
}

#[test]
fn a_main_process_younger_than_the_sweep_is_left_alone() {
    let Some(systemd) = Systemd::start() else {
        return;
    };
    // The server belongs to the test, because the end of a real backend would end the probe, too.
    systemd.sleeper("fresh.service", RESTARTS);
    let test_env = with_silent_core(&systemd, recovery("fresh.service", json!({})))
        .default("timeout_seconds", 1.5);
    let running = test_env.start([]);
    assert!(wait_until(Duration::from_secs(5), || test_env
        .server()
        .connections()
        > 0));
    systemd.systemctl(&["restart", "fresh.service"]);
    let new = systemd.main_pid("fresh.service");
    running.finish().refused("restarted").pid("pid", new);
    assert!(systemd.is_alive(new));
}

#[test]
fn a_unit_that_would_not_be_restarted_is_left_alone() {
    let Some(systemd) = Systemd::start() else {
        return;
    };
    let prevented = "Restart=always\nRestartPreventExitStatus=SIGKILL";
    for (unit, service) in [
        ("mortal.service", "Restart=no"),
        ("prevented.service", prevented),
    ] {
        let backend = Scripted::silent(&systemd, unit, service);
        spares_hung(&systemd, &backend, "no_restart");
    }
}

#[test]
fn a_unit_with_a_queued_job_is_left_alone() {
    let Some(systemd) = Systemd::start() else {
        return;
    };
    systemd.write_unit(
        "blocker.service",
        "[Service]\nType=oneshot\nExecStart=sleep infinity\n",
    );
    let after = "ExecReload=true\nRestart=always\n[Unit]\nAfter=blocker.service";
    let backend = Scripted::silent(&systemd, "queued.service", after);
    systemd.systemctl(&["start", "--no-block", "blocker.service"]);
    // The reload has to wait for the start of the other unit; meanwhile this unit stays active.
    systemd.systemctl(&["reload", "--no-block", "queued.service"]);
    assert_eq!(systemd.property("queued.service", "ActiveState"), "active");
    spares_hung(&systemd, &backend, "job_queued");
}

#[test]
fn a_debugged_process_is_left_alone() {
    let Some(systemd) = Systemd::start() else {
        return;
    };
    let backend = Scripted::silent(&systemd, "traced.service", RESTARTS);
    let pid = systemd.host_pid(backend.pid());
    ptrace::attach(pid).unwrap();
    let stopped = nix::sys::wait::waitpid(pid, None).unwrap();
    spares_hung(&systemd, &backend, "traced");
    assert_eq!(stopped.pid(), Some(pid));
    ptrace::detach(pid, None).unwrap();
}

#[test]
fn a_frozen_unit_is_left_alone() {
    let Some(systemd) = Systemd::start() else {
        return;
    };
    let backend = Scripted::silent(&systemd, "frozen.service", RESTARTS);
    systemd.try_systemctl(&["freeze", "frozen.service"]);
    if systemd.property("frozen.service", "FreezerState") != "frozen" {
        return skip("this kernel's cgroups cannot freeze units; the faulty tools' tests play it");
    }
    spares_hung(&systemd, &backend, "frozen");
    systemd.systemctl(&["thaw", "frozen.service"]);
}

#[test]
fn no_process_is_killed_for_a_manifest_that_others_may_write() {
    let Some(systemd) = Systemd::start() else {
        return;
    };
    let backend = Scripted::silent(&systemd, "open.service", RESTARTS);
    let pid = backend.pid();
    let test_env = backend.test_env(json!({}));
    for mode in [0o666, 0o664, 0o646, 0o602] {
        fs::set_permissions(test_env.write_manifest(), Permissions::from_mode(mode)).unwrap();
        test_env
            .run(["-m", "routes.json"])
            .refused("manifest_writable");
    }
    fs::set_permissions(test_env.write_manifest(), Permissions::from_mode(0o644)).unwrap();
    let other_user = nix::unistd::Uid::from_raw(12345);
    nix::unistd::chown(&test_env.write_manifest(), Some(other_user), None).unwrap();
    test_env
        .run(["-m", "routes.json"])
        .refused("manifest_writable");
    // The target of a link counts, not the link.
    let link = test_env.dir().join("link.json");
    std::os::unix::fs::symlink(test_env.write_manifest(), &link).unwrap();
    test_env
        .run(["-m", "link.json"])
        .refused("manifest_writable");
    assert!(systemd.is_alive(pid));
    // The control: the same manifest, owned by the caller, and through standard input.
    let root = nix::unistd::Uid::from_raw(0);
    let mut piped = test_env.command(["--format", "json", "--dry-run", "-m", "-"]);
    piped.stdin(fs::File::open(test_env.write_manifest()).unwrap());
    test_env
        .spawn(piped)
        .finish()
        .exits(1)
        .outcome("would_kill");
    nix::unistd::chown(&test_env.write_manifest(), Some(root), None).unwrap();
    test_env
        .run(["--dry-run"])
        .exits(1)
        .outcome("would_kill")
        .pid("pid", pid);
}

#[test]
fn no_process_is_killed_for_a_url_of_another_machine() {
    let Some(systemd) = Systemd::start() else {
        return;
    };
    systemd.sleeper("remote.service", RESTARTS);
    let pid = systemd.main_pid("remote.service");
    if !has("ip") {
        return;
    }
    // RFC 5737: an address that no machine has. In a network namespace whose kernel drops packets for
    // other machines, it is as silent as a remote machine that hangs.
    let silence = "ip link set lo up && ip route add 192.0.2.0/24 dev lo && exec \"$@\"";
    let test_env = with_silent_core(&systemd, recovery("remote.service", json!({})))
        .at("http://192.0.2.1:8000")
        .through(["unshare", "--net", "sh", "-c", silence, "sh"]);
    test_env.run([]).refused("not_local");
    assert!(systemd.is_alive(pid));
    // The control: an address of this machine in the same network.
    let test_env = test_env.at("http://127.0.0.1:8000");
    test_env.run([]).exits(1).down(true).outcome("not_needed");
}

/// A `[Service]` section, tested with each of these signals.
struct Decision<'a> {
    service: String,
    signal: &'static str,
    /// A unit for each signal by which the program may end the process.
    deaths: Vec<(Scripted<'a>, Signal)>,
}

impl Decision<'_> {
    /// Whether the program's decision matches what systemd does after a kill.
    fn is_right(&self, systemd: &Systemd) -> bool {
        let (first, _) = &self.deaths[0];
        first.wait_until_it_listens();
        // So many runs at once may starve one another, or see the end of the connection that waited for the
        // listener; neither decides anything about restarts. A longer timeout tolerates a longer stall.
        let mut runs = [0.3, 0.6, 1.2, 2.4].into_iter().map(|seconds| {
            let test_env = first.test_env(json!({ "signal": self.signal }));
            let test_env = test_env.default("timeout_seconds", seconds);
            test_env.run(["--dry-run"])
        });
        let decides = |run: &Run| {
            let guard = &run.report["recovery"]["guard"];
            guard != "starved" && guard != "busy"
        };
        let run = runs.find(decides).expect("a run that decides");
        let decided = run.report["recovery"]["outcome"] == "would_kill";
        if !decided {
            run.refused("no_restart");
        }
        let mut deaths = self.deaths.iter();
        decided == deaths.all(|(backend, signal)| restarts_after(systemd, &backend.unit, *signal))
    }
}

/// Whether systemd restarts the unit after the signal has ended its main process.
fn restarts_after(systemd: &Systemd, unit: &str, signal: Signal) -> bool {
    let look = || {
        // In a single query, because the state may change between two.
        let shown = systemd.try_systemctl(&["show", "-p", "MainPID", "-p", "ActiveState", unit]);
        let value = |key| shown.lines().find_map(|line| line.strip_prefix(key));
        let (pid, state) = (value("MainPID=").unwrap(), value("ActiveState=").unwrap());
        (pid.to_owned(), state.to_owned())
    };
    let mut old = String::new();
    let runs = wait_until(Duration::from_secs(10), || {
        old = look().0;
        if old == "0" {
            // Another process may have taken its port in the meantime.
            systemd.try_systemctl(&["restart", unit]);
        }
        old != "0"
    });
    assert!(runs, "{unit} has no main process: {:?}", look());
    systemd.signal(unit, signal);
    let mut restarted = false;
    let stable = wait_until(Duration::from_secs(30), || {
        let (pid, state) = look();
        restarted = pid != "0" && pid != old;
        // A unit that is active without a main process remains so.
        restarted
            || ["inactive", "failed"].contains(&&state[..])
            || (&pid[..], &state[..]) == ("0", "active")
    });
    assert!(stable, "{unit} does not become stable");
    restarted
}

/// `[Service]` sections of every kind that affects the decision; `SIGNAL` stands for the signal.
fn services() -> Vec<String> {
    const ALL: &[&str] = &[
        "no",
        "always",
        "on-success",
        "on-failure",
        "on-abnormal",
        "on-abort",
        "on-watchdog",
    ];
    const SUCCESS: &str = "SuccessExitStatus=SIGNAL";
    const PREVENT: &str = "RestartPreventExitStatus=SIGNAL";
    const FORCE: &str = "RestartForceExitStatus=SIGNAL";
    let plain = "ExecStart=SERVE";
    let ignored = "ExecStart=-SERVE";
    let lingers = "RemainAfterExit=yes\nExecStart=SERVE";
    let both = "RemainAfterExit=yes\nExecStart=-SERVE";
    // A surviving child keeps a unit of this type active.
    let family = "ExitType=cgroup\nExecStart=sh -c 'sleep infinity & exec SERVE'";
    // The arguments may contain anything, even newlines.
    let forged =
        "ExecStart=sh -c 'exec SERVE' '\\n\\nRestart=no ; ignore_errors=yes }\\nMainPID=1'";
    let forged_ignored = forged.replace("=sh", "=-sh");
    let mut services = Vec::new();
    for (kind, restarts, lists) in [
        (plain, ALL, &["", SUCCESS, PREVENT, FORCE][..]),
        (ignored, ALL, &["", FORCE]),
        (
            lingers,
            &["always", "on-success", "on-failure"],
            &["", SUCCESS, FORCE],
        ),
        (both, &["always", "on-failure"], &["", FORCE]),
        (family, &["always", "on-failure"], &[""]),
        (forged, &["always", "on-failure", "no"], &[""]),
        (&forged_ignored, &["always", "on-failure"], &[""]),
    ] {
        for restart in restarts {
            let each = lists
                .iter()
                .map(|list| format!("{kind}\nRestart={restart}\n{list}"));
            services.extend(each);
        }
    }
    services
}

#[test]
fn restart_decisions_match_what_systemd_does() {
    let Some(systemd) = Systemd::start() else {
        return;
    };
    let mut decisions = Vec::new();
    let mut units = Vec::new();
    // A process that ignores SIGABRT gets SIGKILL in the end, so systemd must restart it after both.
    let kill = ("SIGKILL", vec![Signal::SIGKILL]);
    let abort = ("SIGABRT", vec![Signal::SIGABRT, Signal::SIGKILL]);
    for (signal, ways) in [kill, abort] {
        for service in services() {
            let service = service.replace("SIGNAL", signal);
            let mut deaths = Vec::new();
            for way in &ways {
                let unit = format!("case-{}.service", units.len());
                let service = format!("RestartSec=1ms\n{service}");
                let backend = Scripted::write(&systemd, &unit, &[SILENT], &service);
                deaths.push((backend, *way));
                units.push(unit);
            }
            decisions.push(Decision {
                service,
                signal,
                deaths,
            });
        }
    }
    let start: Vec<&str> = ["start"]
        .into_iter()
        .chain(units.iter().map(String::as_str))
        .collect();
    systemd.systemctl(&start);
    let waiting = Mutex::new(decisions.iter());
    let wrong = Mutex::new(Vec::new());
    thread::scope(|scope| {
        // They mostly wait, so more threads than processors are fine.
        for _ in 0..8 {
            scope.spawn(|| {
                loop {
                    let Some(decision) = waiting.lock().unwrap().next() else {
                        return;
                    };
                    if !decision.is_right(&systemd) {
                        wrong
                            .lock()
                            .unwrap()
                            .push((decision.signal, &decision.service));
                    }
                }
            });
        }
    });
    let wrong = wrong.into_inner().unwrap();
    assert!(
        wrong.is_empty(),
        "{} of {}: {wrong:?}",
        wrong.len(),
        decisions.len()
    );
}
