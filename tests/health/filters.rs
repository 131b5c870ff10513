//! Packets that a filter drops, and a backend that goes on at the last moment: the silence of the core has another
//! reason than a hang, and the backend is left alone.

use crate::calls::{Counted, own_path};
use crate::network::{PrivateNetwork, RESTARTS, hang, is_recovered, is_spared, start_systemd};
use crate::run::Run;
use crate::systemd::Systemd;
use crate::test_env::TestEnv;

const UNIT: &str = "own.service";
const LOCAL: &str = "http://127.0.0.1:8000";
const LISTEN: &str = "--listen 127.0.0.1:8000";

/// Whether an answer exists, or nothing proves that the request arrived: the backend is not killed.
#[track_caller]
fn is_left_alone(systemd: &Systemd, pid: u32, run: &Run) {
    run.exits(1);
    let guard = &run.report["recovery"]["guard"];
    if run.report["hung"] == true {
        assert!(
            guard == "not_reached" || guard == "answered",
            "guard {guard}: {run:?}"
        );
        run.outcome("refused");
    } else {
        run.outcome("not_needed");
    }
    assert!(systemd.is_alive(pid), "{UNIT} was killed");
}

/// A healthy unit behind a filter is left alone, whether or not the filter is lifted before the decision.
#[track_caller]
fn a_filter_spares(rule: &str, guard: &str) {
    let Some(systemd) = start_systemd() else {
        return;
    };
    let network = PrivateNetwork::new(&systemd);
    network.start(UNIT, LISTEN, RESTARTS);
    if network.filter(&filter(rule)).is_none() {
        return;
    }
    let pid = systemd.main_pid(UNIT);
    is_spared(&systemd, UNIT, &network.watch(UNIT, LOCAL), guard);
    let test_env = with_own_path(network.watch(UNIT, LOCAL));
    let counted = Counted::new(&test_env, UNIT, "systemctl");
    let filtered = || {
        network.filter("add table ip test; delete table ip test");
        network.filter(&filter(rule)).unwrap();
    };
    let run = counted.run(filtered, "nft delete table ip test");
    is_left_alone(&systemd, pid, &run);
    network.watch(UNIT, LOCAL).run([]).exits(0);
}

fn with_own_path(test_env: TestEnv) -> TestEnv {
    let [env, path] = own_path(&test_env);
    test_env.through([&env, &path])
}

/// Drops what this rule matches on its way in, to the backend and from it.
fn filter(rule: &str) -> String {
    format!(
        "add table ip test; add chain ip test in {{ type filter hook input priority 0; }}; \
         add rule ip test in tcp {rule} drop"
    )
}

const CONNECTS: &str = "dport 8000 tcp flags syn";
const ACCEPTED_CONNECTS: &str = "sport 8000 tcp flags & (syn | ack) == (syn | ack)";
const REQUESTS: &str = "dport 8000 tcp flags & psh == psh";
/// Packets from the backend with more than a few bytes.
const ANSWERS: &str = "sport 8000 meta length > 90";
const ANSWERS_AND_ACKNOWLEDGEMENTS: &str = "sport 8000 tcp flags & syn == 0";

#[test]
fn a_backend_behind_a_filter_that_drops_connects_is_left_alone() {
    a_filter_spares(CONNECTS, "not_reached");
}

#[test]
fn a_backend_behind_a_filter_that_drops_its_side_of_connects_is_left_alone() {
    a_filter_spares(ACCEPTED_CONNECTS, "not_reached");
}

#[test]
fn a_backend_behind_a_filter_that_drops_requests_is_left_alone() {
    a_filter_spares(REQUESTS, "not_reached");
}

#[test]
fn a_backend_behind_a_filter_that_drops_answers_is_left_alone() {
    a_filter_spares(ANSWERS, "answered");
}

#[test]
fn a_backend_behind_a_filter_that_drops_all_that_it_sends_is_left_alone() {
    a_filter_spares(ANSWERS_AND_ACKNOWLEDGEMENTS, "answered");
}

#[test]
fn a_filter_that_drops_answers_does_not_hide_a_hang() {
    let Some(systemd) = start_systemd() else {
        return;
    };
    let network = PrivateNetwork::new(&systemd);
    network.start(UNIT, LISTEN, RESTARTS);
    if network.filter(&filter(ANSWERS)).is_some() {
        hang(&systemd, UNIT);
        let run = network.watch(UNIT, LOCAL).run(["--dry-run"]);
        run.exits(1).hung(true).outcome("would_kill");
    }
}

#[test]
fn a_backend_that_continues_a_moment_before_the_signal_is_left_alone() {
    let Some(systemd) = start_systemd() else {
        return;
    };
    let network = PrivateNetwork::new(&systemd);
    network.start(UNIT, LISTEN, RESTARTS);
    let pid = systemd.main_pid(UNIT);
    let test_env = with_own_path(network.watch(UNIT, LOCAL));
    let counted = Counted::new(&test_env, UNIT, "systemctl");
    let wake_up = format!("kill -CONT {pid}; sleep 0.1");
    let run = counted.run(|| hang(&systemd, UNIT), &wake_up);
    run.refused("answered");
    assert!(systemd.is_alive(pid), "{UNIT} was killed");
    // The control: without the wake-up.
    hang(&systemd, UNIT);
    is_recovered(&systemd, UNIT, &network.watch(UNIT, LOCAL));
}
