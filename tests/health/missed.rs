//! Hangs that are hard to detect but found, and facts that the program cannot read, which it reports
//! instead of guessing.

use std::os::unix::net::UnixStream;
use std::time::Duration;

use crate::network::{PrivateNetwork, RESTARTS, hang, is_recovered, is_spared, start_systemd};
use crate::script::ok;
use crate::test_env::TestEnv;
use crate::wait::wait_until;
use nix::sys::signal::Signal;

const UNIT: &str = "own.service";
const LOCAL: &str = "http://127.0.0.1:8000";
const LISTEN: &str = "--listen 127.0.0.1:8000";

#[test]
fn a_hang_that_begins_in_the_middle_of_a_sweep_is_recovered_by_it() {
    let Some(systemd) = start_systemd() else {
        return;
    };
    let network = PrivateNetwork::new(&systemd);
    let test_env = network
        .watch(UNIT, LOCAL)
        .core("/later", ok())
        .top("concurrency", 1);
    let once = test_env.dir().join("hung");
    let options = format!("{LISTEN} --hang-once {}", once.display());
    network.start(UNIT, &options, RESTARTS);
    is_recovered(&systemd, UNIT, &test_env);
    assert!(once.exists());
}

#[test]
fn a_full_queue_is_a_hang_although_another_address_refuses() {
    let Some(systemd) = start_systemd() else {
        return;
    };
    let network = PrivateNetwork::new(&systemd);
    network.start(UNIT, "--listen [::1]:8000 --backlog 1", RESTARTS);
    hang(&systemd, UNIT);
    let _waiting = network.fill("[::1]:8000");
    is_recovered(&systemd, UNIT, &network.watch_localhost(UNIT));
}

#[test]
fn a_caller_that_ignores_sigchld_changes_nothing() {
    let Some(systemd) = start_systemd() else {
        return;
    };
    let network = PrivateNetwork::new(&systemd);
    network.start(UNIT, LISTEN, RESTARTS);
    hang(&systemd, UNIT);
    // An ignored signal stays ignored in the program: execve(2).
    let ignore = ["env", "--ignore-signal=CHLD"];
    let test_env = network.watch(UNIT, LOCAL).through(ignore);
    is_recovered(&systemd, UNIT, &test_env);
}

#[test]
fn a_listener_from_a_removed_control_group_is_named_as_such() {
    let Some(systemd) = start_systemd() else {
        return;
    };
    let network = PrivateNetwork::new(&systemd);
    let options = format!("{LISTEN} --store");
    network.start(
        UNIT,
        &options,
        &format!("{RESTARTS}\nFileDescriptorStoreMax=1"),
    );
    let old = systemd.main_pid(UNIT);
    systemd.signal(UNIT, Signal::SIGKILL);
    let restarted = || {
        ![0, old].contains(&systemd.main_pid(UNIT))
            && systemd.property(UNIT, "ActiveState") == "active"
    };
    assert!(wait_until(Duration::from_secs(10), restarted));
    hang(&systemd, UNIT);
    let run = is_spared(&systemd, UNIT, &network.watch(UNIT, LOCAL), "unreadable");
    run.stdout_has("no longer exists");
}

#[test]
fn a_sandbox_without_netlink_is_reported_with_the_remedy() {
    let Some(systemd) = start_systemd() else {
        return;
    };
    let network = PrivateNetwork::new(&systemd);
    network.start(UNIT, LISTEN, RESTARTS);
    let families = "RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6";
    let test_env = network.watch_sandboxed(UNIT, LOCAL, families);
    healthy_run_warns(&test_env, "RestrictAddressFamilies");
    hang(&systemd, UNIT);
    is_spared(&systemd, UNIT, &test_env, "unreadable").stdout_has("RestrictAddressFamilies");
}

#[test]
fn a_healthy_run_warns_where_another_unit_has_the_port() {
    let Some(systemd) = start_systemd() else {
        return;
    };
    let network = PrivateNetwork::new(&systemd);
    network.start(UNIT, "--listen 127.0.0.1:8001", RESTARTS);
    network.start("other.service", LISTEN, RESTARTS);
    healthy_run_warns(&network.watch(UNIT, LOCAL), "other.service");
}

/// A healthy run gives a warning with `part`. It does not wait long for one, so on a busy machine perhaps
/// only a later run.
#[track_caller]
fn healthy_run_warns(test_env: &TestEnv, part: &str) {
    let mut warnings = String::new();
    let warns = wait_until(Duration::from_secs(20), || {
        let run = test_env.run([]);
        run.exits(0).outcome("not_needed");
        warnings = run.report["warnings"].to_string();
        !warnings.contains("in time")
    });
    assert!(warns && warnings.contains(part), "{warnings}");
}

#[test]
fn a_healthy_run_warns_where_another_unit_has_the_unix_socket() {
    let Some(systemd) = start_systemd() else {
        return;
    };
    let network = PrivateNetwork::new(&systemd);
    network.start(UNIT, "--listen 127.0.0.1:8001", RESTARTS);
    let test_env = network.watch(UNIT, "http://backend.invalid");
    let path = test_env.dir().join("other.sock");
    let options = format!("--listen {}", path.display());
    network.start("other.service", &options, RESTARTS);
    let connects = || UnixStream::connect(&path).is_ok();
    assert!(wait_until(Duration::from_secs(10), connects));
    let test_env = test_env.top("unix_socket", path.to_str().unwrap());
    healthy_run_warns(&test_env, "other.service");
}
