//! Hung backends of every usual kind are recovered, whichever process created the listener: the guards that
//! prove the ownership of the socket must not refuse them.

use std::time::Duration;

use serde_json::json;

use crate::address::own_address;
use crate::network::{
    PrivateNetwork, READY, RESTARTS, hang, is_recovered, is_spared, python, start_systemd, watch,
};
use crate::systemd::recovery;
use crate::wait::wait_until;

const LOCAL: &str = "http://127.0.0.1:8000";

/// A unit with these options and settings hangs and is recovered.
#[track_caller]
fn recovers(options: &str, service: &str) {
    let Some(systemd) = start_systemd() else {
        return;
    };
    let network = PrivateNetwork::new(&systemd);
    network.start("own.service", options, &format!("{RESTARTS}\n{service}"));
    let test_env = network.watch("own.service", LOCAL);
    test_env.run([]).exits(0).outcome("not_needed");
    hang(&systemd, "own.service");
    is_recovered(&systemd, "own.service", &test_env);
}

#[test]
fn a_plain_service_is_recovered() {
    recovers("--listen 127.0.0.1:8000", "");
}

#[test]
fn prefork_workers_that_share_a_listener_are_recovered() {
    recovers("--listen 127.0.0.1:8000 --workers 2", "");
}

#[test]
fn workers_with_a_listener_each_are_recovered() {
    recovers("--listen 127.0.0.1:8000 --workers 3 --reuse-port", "");
}

#[test]
fn a_listener_of_multipath_tcp_is_recovered() {
    // Go programs listen so since Go 1.24.
    recovers("--listen 127.0.0.1:8000 --mptcp", "");
}

#[test]
fn a_listener_of_a_delegated_control_group_is_recovered() {
    recovers("--listen 127.0.0.1:8000 --subgroup", "Delegate=yes");
}

#[test]
fn a_listener_on_all_ipv4_addresses_is_recovered() {
    recovers("--listen 0.0.0.0:8000", "");
}

#[test]
fn a_listener_on_all_addresses_of_both_families_is_recovered() {
    recovers("--listen [::]:8000", "");
}

#[test]
fn a_listener_of_a_socket_unit_is_recovered() {
    let Some(systemd) = start_systemd() else {
        return;
    };
    // In the manager's network, because the manager creates the listener.
    let address = own_address().unwrap();
    systemd.write_unit("own.socket", &format!("[Socket]\nListenStream={address}\n"));
    systemd.write_unit(
        "own.service",
        &format!("[Service]\n{READY}\nExecStart={}\n{RESTARTS}\n", python()),
    );
    systemd.systemctl(&["start", "own.socket", "own.service"]);
    let test_env = watch(&systemd, "own.service").at(format!("http://{address}"));
    test_env.run([]).exits(0).outcome("not_needed");
    hang(&systemd, "own.service");
    is_recovered(&systemd, "own.service", &test_env);
}

#[test]
fn a_unix_socket_is_recovered_where_the_unit_owns_it() {
    let Some(systemd) = start_systemd() else {
        return;
    };
    let test_env = watch(&systemd, "own.service").at("http://backend.invalid");
    let path = test_env.dir().join("backend.sock");
    let path = path.to_str().unwrap();
    let test_env = test_env.top("unix_socket", path);
    let service = format!(
        "{READY}\nExecStart={} --listen {path}\n{RESTARTS}",
        python()
    );
    systemd.service("own.service", &service);
    systemd.sleeper("idle.service", RESTARTS);
    test_env.run([]).exits(0).outcome("not_needed");
    hang(&systemd, "own.service");
    let test_env = test_env.top("recovery", recovery("idle.service", json!({})));
    is_spared(&systemd, "idle.service", &test_env, "foreign_listener").stdout_has("own.service");
    let test_env = test_env.top("recovery", recovery("own.service", json!({})));
    is_recovered(&systemd, "own.service", &test_env);
}

#[test]
fn clients_that_give_up_waiting_are_not_progress() {
    let Some(systemd) = start_systemd() else {
        return;
    };
    let network = PrivateNetwork::new(&systemd);
    network.start("own.service", "--listen 127.0.0.1:8000", RESTARTS);
    let pid = systemd.main_pid("own.service");
    hang(&systemd, "own.service");
    let clients = network.clients(4, "127.0.0.1:8000");
    let test_env = network.watch("own.service", LOCAL);
    let running = test_env.start([]);
    let probed = || network.connections(8000) > clients.len();
    assert!(wait_until(Duration::from_secs(10), probed));
    drop(clients);
    running
        .finish()
        .exits(1)
        .hung(true)
        .outcome("recovered")
        .pid("pid", pid);
}
