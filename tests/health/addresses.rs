//! Hangs at unusual addresses and with unusual times.

use std::time::Duration;

use serde_json::json;

use crate::network::{PrivateNetwork, RESTARTS, hang, is_spared, start_systemd, start_systemd_for};
use crate::run::Run;
use crate::systemd::recovery;
use crate::test_env::{HOSTS, TestEnv};
use crate::wait::wait_until;

const UNIT: &str = "own.service";

/// What a dry run says of a hung backend that listens at `listen`.
#[track_caller]
fn hung_at(
    listen: &str,
    full: bool,
    more: impl FnOnce(&PrivateNetwork<'_>) -> TestEnv,
) -> Option<Run> {
    let systemd = start_systemd()?;
    let network = PrivateNetwork::new(&systemd);
    network.start(UNIT, &format!("--listen {listen} --backlog 3"), RESTARTS);
    hang(&systemd, UNIT);
    let _waiting = full.then(|| network.fill("127.0.0.1:8000"));
    Some(more(&network).run(["--dry-run"]))
}

#[track_caller]
fn is_recovered_at(base_url: &str, listen: &str) {
    for full in [false, true] {
        if let Some(run) = hung_at(listen, full, |network| network.watch(UNIT, base_url)) {
            run.exits(1).hung(true).outcome("would_kill");
        }
    }
}

#[test]
fn a_hang_at_the_unspecified_address_is_proved() {
    is_recovered_at("http://0.0.0.0:8000", "127.0.0.1:8000");
}

#[test]
fn a_hang_at_the_unspecified_ipv6_address_is_proved() {
    is_recovered_at("http://[::]:8000", "[::]:8000");
}

#[test]
fn a_hang_at_a_mapped_address_is_proved() {
    is_recovered_at("http://[::ffff:127.0.0.1]:8000", "127.0.0.1:8000");
    is_recovered_at("http://[::ffff:127.0.0.1]:8000", "[::]:8000");
}

#[test]
fn a_hang_at_twenty_addresses_is_proved() {
    for full in [false, true] {
        let many = |network: &PrivateNetwork<'_>| {
            let script = format!(
                r#"for n in $(seq 20); do echo "127.0.0.$n many"; done >hosts && {HOSTS} && exec "$@""#
            );
            network
                .watch(UNIT, "http://many:8000")
                .through(["unshare", "--mount", "sh", "-c", &script, "sh"])
        };
        if let Some(run) = hung_at("0.0.0.0:8000", full, many) {
            run.exits(1).hung(true).outcome("would_kill");
        }
    }
}

#[test]
fn a_full_queue_is_seen_with_a_short_timeout() {
    let short = |network: &PrivateNetwork<'_>| {
        network
            .watch(UNIT, "http://127.0.0.1:8000")
            .default("timeout_seconds", 0.15)
    };
    if let Some(run) = hung_at("127.0.0.1:8000", true, short) {
        run.exits(1).hung(true).outcome("would_kill");
    }
}

#[test]
fn a_healthy_backend_is_spared_whatever_the_times() {
    let Some(systemd) = start_systemd() else {
        return;
    };
    let network = PrivateNetwork::new(&systemd);
    network.start(UNIT, "--listen 127.0.0.1:8000", RESTARTS);
    for timeout in [0.001, 0.002, 0.005, 0.01] {
        let test_env = network
            .watch(UNIT, "http://127.0.0.1:8000")
            .top("recovery", recovery(UNIT, json!({ "grace_seconds": 0 })))
            .default("timeout_seconds", timeout);
        for _ in 0..3 {
            let run = test_env.start(["--dry-run"]).finish();
            let outcome = &run.report["recovery"]["outcome"];
            assert!(
                outcome == "not_needed" || outcome == "refused",
                "{}",
                run.report
            );
        }
    }
}

#[test]
fn a_server_of_plain_http_is_spared_where_base_url_says_https() {
    let Some(systemd) = start_systemd_for("gunicorn") else {
        return;
    };
    let network = PrivateNetwork::new(&systemd);
    let options = "--worker-class gthread --threads 4 --bind 127.0.0.1:8000";
    network.start_gunicorn(UNIT, options, "SECONDS=0");
    // It waits for the end of a request's head.
    let test_env = network.watch(UNIT, "https://127.0.0.1:8000");
    let asked = || {
        network
            .watch(UNIT, "http://127.0.0.1:8000")
            .run([])
            .status
            .success()
    };
    assert!(wait_until(Duration::from_secs(20), asked));
    is_spared(&systemd, UNIT, &test_env, "not_reached").stdout_has("http://");
}
