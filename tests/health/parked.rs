//! Core requests that timed out are kept open until the decision: what they bring spares the backend, and only
//! their silence proves a hang.

use std::thread;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use serde_json::json;

use crate::crowd::Crowd;
use crate::network::{PrivateNetwork, RESTARTS, hang, is_recovered, start_systemd};
use crate::run::Run;
use crate::script::{ok, silent};
use crate::systemd::recovery;
use crate::test_env::TestEnv;
use crate::wait::wait_until;

const UNIT: &str = "own.service";
const ADDRESS: &str = "127.0.0.1:8000";
const URL: &str = "http://127.0.0.1:8000";
const LISTEN: &str = "--listen 127.0.0.1:8000";

/// Longer than any run.
const LONG: Duration = Duration::from_secs(60);

/// A grace period of this many seconds.
fn with_grace(test_env: TestEnv, seconds: f64) -> TestEnv {
    test_env.top(
        "recovery",
        recovery(UNIT, json!({ "grace_seconds": seconds })),
    )
}

/// What a dry run says of a backend with these options. The timeout is 2 s, and the proof takes 4 s without a retry.
#[track_caller]
fn probe(options: &str, more: impl FnOnce(TestEnv) -> TestEnv) -> Option<Run> {
    let systemd = start_systemd()?;
    let network = PrivateNetwork::new(&systemd);
    network.start(UNIT, &format!("{LISTEN} {options}"), RESTARTS);
    let test_env = more(with_grace(network.watch(UNIT, URL), 2.0));
    Some(test_env.run(["--dry-run"]))
}

#[track_caller]
fn is_answered_late(run: &Run) {
    run.class("/up", "timeout_unreachable")
        .cause("/up", "timeout")
        .detail_has("/up", "answered after");
    is_alive(run);
}

/// An answer came in time: on a busy machine perhaps only after the grace period.
#[track_caller]
fn is_alive(run: &Run) {
    run.exits(1).down(false);
    if run.report["hung"] == true {
        run.refused("answered");
    } else {
        run.outcome("not_needed");
    }
}

#[track_caller]
fn is_hung(run: &Run) {
    run.exits(1)
        .hung(true)
        .outcome("would_kill")
        .class("/up", "timeout_unreachable")
        .cause("/up", "timeout");
}

#[test]
fn a_backend_that_answers_after_1_3_timeouts_is_not_hung() {
    if let Some(run) = probe("--late 2.6", |test_env| test_env) {
        is_answered_late(&run);
    }
}

#[test]
fn a_backend_that_answers_after_2_5_timeouts_is_not_hung() {
    let retried = |test_env: TestEnv| test_env.default("retries", 1);
    if let Some(run) = probe("--late 5", retried) {
        is_answered_late(&run);
    }
}

#[test]
fn a_backend_that_answers_after_the_proof_time_is_hung() {
    if let Some(run) = probe("--late 20", |test_env| test_env) {
        is_hung(&run);
    }
}

#[test]
fn a_queue_in_the_program_within_the_grace_period_is_not_a_hang() {
    with_queue_in_the_program(0.4, 6.0, |run| is_answered_late(run));
}

#[test]
fn a_queue_in_the_program_beyond_the_grace_period_is_a_hang() {
    with_queue_in_the_program(1.5, 0.2, |run| is_hung(run));
}

/// The backend has accepted 14 requests and needs so many seconds for each, one after the other.
#[track_caller]
fn with_queue_in_the_program(slow: f64, grace: f64, check: impl FnOnce(&Run)) {
    let Some(systemd) = start_systemd() else {
        return;
    };
    let network = PrivateNetwork::new(&systemd);
    let options = format!("{LISTEN} --slow {slow} --accept-all");
    network.start(UNIT, &options, RESTARTS);
    let _clients = Crowd::start(&network, ADDRESS, 14, |client| {
        client.get("/").read_for(LONG);
    });
    let test_env = with_grace(network.watch(UNIT, URL), grace);
    check(&test_env.run(["--dry-run"]));
}

/// The core route `/up` gets no answer, but its connection ends in the grace period; another one stays open.
fn ending(options: &str) -> Option<Run> {
    let options = format!("--ends /up --late 2.8 --silent /other {options}");
    probe(&options, |test_env| test_env.core("/other", ok()))
}

#[test]
fn a_parked_connection_that_is_closed_is_no_answer() {
    if let Some(run) = ending("") {
        is_hung(&run);
    }
}

#[test]
fn a_parked_connection_that_is_reset_is_no_answer() {
    if let Some(run) = ending("--reset") {
        is_hung(&run);
    }
}

#[test]
fn a_parked_connection_that_is_closed_after_a_byte_is_an_answer() {
    if let Some(run) = ending("--last-byte") {
        is_answered_late(&run);
    }
}

/// A backend behind TLS and a client that trusts it.
fn probe_tls(options: &str) -> Option<Run> {
    let folder = tempfile::TempDir::new().unwrap();
    let files = ["served", "trusted"].map(|name| folder.path().join(name));
    let own = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let certificate = own.cert.pem();
    let served = format!("{certificate}{}", own.signing_key.serialize_pem());
    std::fs::write(&files[0], served).unwrap();
    std::fs::write(&files[1], certificate).unwrap();
    let options = format!("--tls {} {options}", files[0].display());
    probe(&options, |test_env| {
        test_env
            .top("base_url", URL.replace("http:", "https:"))
            .env("SSL_CERT_FILE", &files[1])
    })
}

#[test]
fn a_tls_handshake_without_an_answer_is_a_hang() {
    if let Some(run) = probe_tls("--silent /up") {
        is_hung(&run);
    }
}

#[test]
fn a_late_answer_over_tls_is_an_answer() {
    if let Some(run) = probe_tls("--late 2.8") {
        is_answered_late(&run);
    }
}

#[test]
fn a_tls_backend_that_answers_is_healthy() {
    if let Some(run) = probe_tls("") {
        run.exits(0).class("/up", "ok");
    }
}

/// What a dry run says of a backend with these options behind a UNIX socket.
#[track_caller]
fn probe_unix(options: &str) -> Option<Run> {
    let systemd = start_systemd()?;
    let network = PrivateNetwork::new(&systemd);
    let test_env = with_grace(network.watch(UNIT, "http://backend.invalid"), 2.0);
    let path = test_env.dir().join("backend.sock");
    let path = path.to_str().unwrap();
    network.start(UNIT, &format!("--listen {path} {options}"), RESTARTS);
    // A page that is answered all the time.
    let _clients = Crowd::start(&network, path, 1, |client| {
        client.get("/page").read_for(Duration::from_millis(100));
    });
    Some(test_env.top("unix_socket", path).run(["--dry-run"]))
}

#[test]
fn a_request_over_a_unix_socket_that_stays_unanswered_is_a_hang() {
    if let Some(run) = probe_unix("--silent /up") {
        is_hung(&run);
    }
}

#[test]
fn a_late_answer_over_a_unix_socket_is_an_answer() {
    if let Some(run) = probe_unix("--late 2.8") {
        is_answered_late(&run);
    }
}

#[test]
fn a_backend_that_stalls_for_most_of_the_proof_time_is_not_hung() {
    let Some(systemd) = start_systemd() else {
        return;
    };
    let network = PrivateNetwork::new(&systemd);
    network.start(UNIT, LISTEN, RESTARTS);
    let process = systemd.host_pid(systemd.main_pid(UNIT));
    hang(&systemd, UNIT);
    let test_env = with_grace(network.watch(UNIT, URL), 4.0);
    let running = test_env.start([]);
    let asked = || network.connections(8000) > 0;
    assert!(wait_until(Duration::from_secs(10), asked));
    // Most of two and four seconds.
    thread::sleep(Duration::from_millis(4500));
    kill(process, Signal::SIGCONT).unwrap();
    is_alive(&running.finish());
}

/// A core of 256 routes, 64 of which are probed at the same time.
fn with_256_routes(network: &PrivateNetwork<'_>, grace: f64) -> TestEnv {
    let mut test_env = with_grace(network.watch(UNIT, URL), grace).top("concurrency", 64);
    for number in 1..256 {
        test_env = test_env.core(&format!("/{number}"), ok());
    }
    test_env
}

#[test]
fn a_core_of_256_routes_is_proved_hung() {
    let Some(systemd) = start_systemd() else {
        return;
    };
    let network = PrivateNetwork::new(&systemd);
    network.start(UNIT, &format!("{LISTEN} --backlog 1024"), RESTARTS);
    hang(&systemd, UNIT);
    let test_env = with_256_routes(&network, 0.2);
    is_hung(&test_env.run(["--dry-run"]));
}

#[test]
fn a_core_of_256_routes_in_front_of_a_full_queue_is_proved_hung() {
    let Some(systemd) = start_systemd() else {
        return;
    };
    let network = PrivateNetwork::new(&systemd);
    network.start(UNIT, &format!("{LISTEN} --backlog 16"), RESTARTS);
    hang(&systemd, UNIT);
    let test_env = with_256_routes(&network, 0.2);
    is_hung(&test_env.run(["--dry-run"]));
}

#[test]
fn late_answers_to_more_requests_than_are_kept_open_are_answers() {
    let Some(systemd) = start_systemd() else {
        return;
    };
    let network = PrivateNetwork::new(&systemd);
    // Longer than four times two attempts.
    let options = format!("{LISTEN} --backlog 1024 --late 9");
    network.start(UNIT, &options, RESTARTS);
    let test_env = with_256_routes(&network, 3.0)
        .default("timeout_seconds", 1)
        .default("retries", 1);
    let run = test_env.run(["--dry-run"]);
    is_alive(&run);
    // The first byte ends the grace period, whichever route it belongs to.
    run.stdout_has("answered after");
}

#[test]
fn a_hang_at_both_addresses_of_a_name_is_recovered() {
    let Some(systemd) = start_systemd() else {
        return;
    };
    let network = PrivateNetwork::new(&systemd);
    let options = "--listen [::1]:8000 --listen 127.0.0.1:8000 --backlog 1";
    network.start(UNIT, options, RESTARTS);
    hang(&systemd, UNIT);
    // One address is pending, the other one connects.
    let _waiting = network.fill("[::1]:8000");
    is_recovered(&systemd, UNIT, &network.watch_localhost(UNIT));
}

#[test]
fn a_late_answer_at_the_second_address_of_a_name_is_an_answer() {
    let Some(systemd) = start_systemd() else {
        return;
    };
    let network = PrivateNetwork::new(&systemd);
    network.start(UNIT, &format!("{LISTEN} --late 2.8"), RESTARTS);
    // No listener that answers at the first one.
    let drop = "add table ip6 test; add chain ip6 test in { type filter hook input priority 0; }; \
                add rule ip6 test in tcp dport 8000 drop";
    if network.filter(drop).is_some() {
        let test_env = with_grace(network.watch_localhost(UNIT), 2.0);
        is_answered_late(&test_env.run([]));
    }
}

#[test]
fn a_new_sweep_closes_what_an_earlier_one_parked() {
    // Two rounds in each sweep, since one core route is silent and the other one is not.
    let test_env = TestEnv::new()
        .core("/up", silent())
        .core("/other", ok())
        .top(
            "recovery",
            json!({ "unit": "no-such.service", "grace_seconds": 0.1 }),
        );
    let mut running = test_env.start(["--wait", "6", "--dry-run"]);
    let mut most = 0;
    while !running.is_over() {
        most = most.max(test_env.server().open());
        thread::sleep(Duration::from_millis(10));
    }
    running.finish().exits(1).hung(false);
    let sweeps = test_env.server().count("/up") / 2;
    assert!(sweeps >= 3, "only {sweeps} sweeps");
    // Two requests are parked in each.
    assert!(
        most < 2 * sweeps,
        "{most} connections were open at the same time in {sweeps} sweeps"
    );
}
