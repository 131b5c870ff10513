//! Silence that proves nothing about the unit, and processes whose death would not help: they are left alone
//! although the probes found a hang.

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::cpu_quota::CpuQuota;
use crate::crowd::Client;
use crate::network::{
    PrivateNetwork, READY, RESTARTS, hang, is_recovered, is_spared, python, start_systemd,
    start_systemd_for,
};
use crate::run::has;
use crate::systemd::recovery;
use crate::wait::wait_until;

const UNIT: &str = "own.service";
const LOCAL: &str = "http://127.0.0.1:8000";
const LISTEN: &str = "--listen 127.0.0.1:8000";

#[test]
fn a_process_that_sleeps_uninterruptibly_is_left_alone() {
    let Some(systemd) = start_systemd() else {
        return;
    };
    let network = PrivateNetwork::new(&systemd);
    let folder = tempfile::TempDir::new().unwrap();
    let fifo = folder.path().join("fifo");
    let options = format!("{LISTEN} --disk-sleep {}", fifo.display());
    network.start(UNIT, &options, RESTARTS);
    let test_env = network.watch(UNIT, LOCAL);
    test_env.run([]).exits(0);
    is_spared(&systemd, UNIT, &test_env, "uninterruptible");
    // What it waited for arrives, and it goes on.
    fs::write(&fifo, "").unwrap();
    test_env.run([]).exits(0).outcome("not_needed");
}

#[test]
fn gunicorn_that_boots_its_workers_after_a_reload_is_left_alone() {
    let Some(systemd) = start_systemd_for("gunicorn") else {
        return;
    };
    let network = PrivateNetwork::new(&systemd);
    let folder = tempfile::TempDir::new().unwrap();
    let import = folder.path().join("import");
    let variables = format!("SECONDS=0 IMPORT={}", import.display());
    network.start_gunicorn(UNIT, "--bind 127.0.0.1:8000", &variables);
    let started = Instant::now();
    let uptime = recovery(UNIT, json!({ "min_uptime_seconds": 6 }));
    let test_env = network.watch(UNIT, LOCAL).top("recovery", uptime);
    let limit = Duration::from_secs(20);
    let serves = || test_env.run([]).status.success();
    assert!(wait_until(limit, serves), "{UNIT} does not serve");
    assert!(wait_until(limit, || started.elapsed() > Duration::from_secs(6)));
    let worker = network.inside(|| {
        let answer = Client::connect("127.0.0.1:8000")
            .unwrap()
            .get("/pid")
            .read_for(Duration::from_secs(1));
        String::from_utf8(answer).unwrap()
    });
    let worker = worker.lines().last().unwrap().parse().unwrap();
    fs::write(import, "8").unwrap();
    systemd.systemctl(&["reload", UNIT]);
    // The next one imports the application first, and connections wait in the queue.
    assert!(
        wait_until(limit, || !systemd.is_alive(worker)),
        "the old worker serves"
    );
    is_spared(&systemd, UNIT, &test_env, "too_young");
    assert!(wait_until(limit, serves), "{UNIT} does not serve");
}

#[test]
fn a_backend_that_listens_no_more_is_left_alone() {
    let Some(systemd) = start_systemd() else {
        return;
    };
    let network = PrivateNetwork::new(&systemd);
    // Its end closes the parked request in the grace period.
    network.start(UNIT, &format!("{LISTEN} --leave 2.2"), RESTARTS);
    let test_env = network.watch(UNIT, LOCAL);
    is_spared(&systemd, UNIT, &test_env, "foreign_listener");
}

#[test]
fn a_healthy_unit_is_left_alone_where_another_one_has_the_port() {
    let Some(systemd) = start_systemd() else {
        return;
    };
    let network = PrivateNetwork::new(&systemd);
    network.start(UNIT, "--listen 127.0.0.1:8001", RESTARTS);
    network.start("other.service", LISTEN, RESTARTS);
    hang(&systemd, "other.service");
    let test_env = network.watch(UNIT, LOCAL);
    is_spared(&systemd, UNIT, &test_env, "foreign_listener").stdout_has("other.service");
}

#[test]
fn a_healthy_unit_is_left_alone_where_its_port_is_forwarded() {
    let Some(systemd) = start_systemd() else {
        return;
    };
    let network = PrivateNetwork::new(&systemd);
    network.start(UNIT, "--listen 127.0.0.1:8001", RESTARTS);
    network.start("other.service", "--listen 127.0.0.1:8002", RESTARTS);
    hang(&systemd, "other.service");
    let rules = "add table ip test; add chain ip test out { type nat hook output priority -100; }; \
                 add rule ip test out tcp dport 8000 redirect to :8002";
    if network.filter(rules).is_some() {
        is_spared(
            &systemd,
            UNIT,
            &network.watch(UNIT, LOCAL),
            "foreign_listener",
        );
    }
}

#[test]
fn a_healthy_unit_is_left_alone_where_another_one_has_the_other_address() {
    let Some(systemd) = start_systemd() else {
        return;
    };
    let network = PrivateNetwork::new(&systemd);
    network.start(UNIT, LISTEN, RESTARTS);
    network.start("other.service", "--listen [::1]:8000", RESTARTS);
    hang(&systemd, "other.service");
    let test_env = network.watch_localhost(UNIT);
    is_spared(&systemd, UNIT, &test_env, "foreign_listener").stdout_has("other.service");
}

#[test]
fn a_process_with_the_same_pid_in_another_namespace_is_left_alone() {
    // The last PID that was assigned in the writer's namespace: proc(5).
    const LAST: &str = "/proc/sys/kernel/ns_last_pid";
    if !has("dbus-daemon") {
        return;
    }
    let Some(systemd) = start_systemd() else {
        return;
    };
    let network = PrivateNetwork::new(&systemd);
    let service = network.backend(LISTEN, &format!("{READY}\n{RESTARTS}"));
    systemd.write_unit(UNIT, &format!("[Service]\n{service}\n"));
    let mut innocent = Command::new("sleep").arg("infinity").spawn().unwrap();
    let number = innocent.id();
    // systemctl gets the PID before it, the manager's next child gets this one.
    let start = format!(
        "systemctl --user stop {UNIT}; echo {} >{LAST}; exec systemctl --user start {UNIT}",
        number - 1
    );
    let same_number = wait_until(Duration::from_secs(10), || {
        network.shell(&start).unwrap();
        systemd.main_pid(UNIT) == number
    });
    hang(&systemd, UNIT);
    let test_env = network.watch_from_outside(UNIT, LOCAL);
    let run = test_env.run([]);
    let lives = innocent.try_wait().unwrap().is_none();
    let _over = innocent.kill();
    innocent.wait().unwrap();
    assert!(same_number, "the unit has another number");
    run.refused("main_pid");
    assert!(lives, "the innocent process was killed");
    assert!(systemd.is_alive(number));
}

#[test]
fn a_backend_without_cpu_time_is_left_alone() {
    let Some(systemd) = start_systemd() else {
        return;
    };
    let network = PrivateNetwork::new(&systemd);
    network.start(UNIT, &format!("{LISTEN} --compute 48"), RESTARTS);
    let Some(quota) = CpuQuota::set(&systemd, UNIT) else {
        return;
    };
    let test_env = network.watch(UNIT, LOCAL);
    let pid = systemd.main_pid(UNIT);
    let run = test_env.start([]).finish();
    run.refused("busy").stdout_has("overloaded, not hung");
    assert!(systemd.is_alive(pid), "{UNIT} was killed");
    drop(quota);
    let patient = test_env.default("timeout_seconds", 20);
    patient.run([]).exits(0).outcome("not_needed");
}

#[test]
fn a_unit_with_a_frozen_part_is_left_alone() {
    let Some(systemd) = start_systemd() else {
        return;
    };
    let network = PrivateNetwork::new(&systemd);
    let service = format!("{RESTARTS}\nDelegate=yes");
    network.start(UNIT, &format!("{LISTEN} --subgroup"), &service);
    let group = systemd.property(UNIT, "ControlGroup");
    let freeze = format!(
        "for root in /sys/fs/cgroup/unified /sys/fs/cgroup; do
            ! [ -e $root'{group}'/worker/cgroup.freeze ] || echo 1 >$root'{group}'/worker/cgroup.freeze
        done"
    );
    network.shell(&freeze).unwrap();
    is_spared(&systemd, UNIT, &network.watch(UNIT, LOCAL), "frozen");
}

/// A unit with these options and settings hangs and is left alone because of `guard`.
#[track_caller]
fn spares(options: &str, service: &str, guard: &str) {
    let Some(systemd) = start_systemd() else {
        return;
    };
    let network = PrivateNetwork::new(&systemd);
    network.start(UNIT, &format!("{LISTEN} {options}"), service);
    hang(&systemd, UNIT);
    is_spared(&systemd, UNIT, &network.watch(UNIT, LOCAL), guard);
}

#[test]
fn a_unit_that_waits_forever_before_a_restart_is_left_alone() {
    let never = "Restart=always\nRestartSec=infinity\nTimeoutStopSec=1";
    spares("", never, "no_restart");
}

/// A unit with these options and settings hangs and is recovered.
#[track_caller]
fn recovers(options: &str, service: &str) {
    let Some(systemd) = start_systemd() else {
        return;
    };
    let network = PrivateNetwork::new(&systemd);
    network.start(UNIT, &format!("{LISTEN} {options}"), service);
    hang(&systemd, UNIT);
    is_recovered(&systemd, UNIT, &network.watch(UNIT, LOCAL));
}

#[test]
fn a_main_process_with_a_living_supervisor_is_left_alone() {
    spares("--supervised", RESTARTS, "no_restart");
}

#[test]
fn a_main_process_of_a_pid_file_whose_parent_lives_is_left_alone() {
    let Some(systemd) = start_systemd() else {
        return;
    };
    let network = PrivateNetwork::new(&systemd);
    let folder = tempfile::TempDir::new().unwrap();
    let file = folder.path().join("pid");
    let file = file.to_str().unwrap();
    let options = format!("{LISTEN} --pid-file {file}");
    let service = format!("Type=forking\nPIDFile={file}\n{RESTARTS}");
    systemd.service(UNIT, &network.backend(&options, &service));
    hang(&systemd, UNIT);
    is_spared(&systemd, UNIT, &network.watch(UNIT, LOCAL), "no_restart");
}

#[test]
fn a_unit_whose_left_over_process_decides_the_restart_is_left_alone() {
    let service = "Restart=on-success\nSuccessExitStatus=SIGKILL\nTimeoutStopSec=1";
    spares("--deaf-child", service, "no_restart");
}

#[test]
fn a_unit_whose_left_over_process_is_never_killed_is_left_alone() {
    let service = format!("{RESTARTS}\nSendSIGKILL=no");
    spares("--deaf-child", &service, "no_restart");
}

#[test]
fn a_unit_whose_left_over_worker_keeps_the_socket_is_left_alone() {
    let service = format!("{RESTARTS}\nKillMode=process");
    spares("--workers 1", &service, "no_restart");
}

#[test]
fn a_unit_whose_left_over_process_is_waited_for_forever_is_left_alone() {
    let service = "Restart=always\nTimeoutStopSec=infinity";
    spares("--deaf-child", service, "no_restart");
}

#[test]
fn a_left_over_process_that_is_killed_in_time_is_no_obstacle() {
    recovers("--deaf-child", RESTARTS);
}

#[test]
fn a_left_over_process_that_is_killed_at_once_is_no_obstacle() {
    recovers(
        "--deaf-child",
        "Restart=always\nTimeoutStopSec=infinity\nKillMode=mixed",
    );
}

/// A debugger holds one thread of the hung unit; the script `thread` finds it from the main PID.
#[track_caller]
fn a_debugger_spares(options: &str, thread: &str) {
    let Some(systemd) = start_systemd() else {
        return;
    };
    let network = PrivateNetwork::new(&systemd);
    network.start(UNIT, &format!("{LISTEN} {options}"), RESTARTS);
    let pid = systemd.main_pid(UNIT);
    let thread = network
        .shell(&thread.replace("PID", &pid.to_string()))
        .unwrap();
    let trace = format!("{READY}\nExecStart={} --trace {thread}", python());
    hang(&systemd, UNIT);
    systemd.service("debugger.service", &trace);
    is_spared(&systemd, UNIT, &network.watch(UNIT, LOCAL), "traced");
}

#[test]
fn a_unit_with_a_debugged_worker_is_left_alone() {
    a_debugger_spares("--workers 2", "cut -d' ' -f1 /proc/PID/task/PID/children");
}

#[test]
fn a_unit_with_a_debugged_thread_is_left_alone() {
    a_debugger_spares("--idle-thread", "ls /proc/PID/task | grep -v '^PID$'");
}
