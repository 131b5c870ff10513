//! The bounds of a run: its deadline, the waiting, dead name servers, and memory.

use std::time::Duration;

use nix::unistd::Uid;
use serde_json::json;

use crate::run::has;
use crate::script::{in_turn, ok, raw, silent, status};
use crate::server::NeverAccepts;
use crate::skip::skip_unless_ci;
use crate::test_env::TestEnv;

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn the_deadline_cuts_running_attempts_and_skips_the_rest() {
    let test_env = TestEnv::new()
        .top("deadline_seconds", 1)
        .top("concurrency", 1)
        .default("timeout_seconds", 20)
        .default("retries", 2)
        .core("/up", ok())
        .aux("/slow", raw("HTTP/1.1 200 OK\r\n").drip("X: y\r\n"))
        .aux("/later", ok());
    test_env
        .run([])
        .exits(0)
        .within(SECOND * 2)
        .class("/slow", "timeout_unreachable")
        .cause("/slow", "deadline")
        .attempts("/slow", 1)
        .class("/later", "skipped")
        .cause("/later", "deadline")
        .attempts("/later", 0)
        .tally([1, 1, 0, 0, 1]);
    test_env
        .run_as_is([])
        .line("1 OK, 1 timeout/unreachable, 0 rate-limited, 0 HTTP error, 1 skipped");
}

#[test]
fn a_core_route_cut_by_the_deadline_proves_nothing() {
    let never = NeverAccepts::start();
    TestEnv::new()
        .at(never.url())
        .top("deadline_seconds", 0.5)
        .top("concurrency", 1)
        .default("timeout_seconds", 20)
        .core("/up", ok())
        .core("/later", ok())
        .run([])
        .exits(1)
        .within(SECOND * 3 / 2)
        .hung(false)
        .down(false)
        .cause("/up", "deadline")
        .class("/later", "skipped")
        .cause("/later", "deadline");
}

#[test]
fn a_retry_that_would_begin_after_the_deadline_is_not_made() {
    TestEnv::new()
        .top("deadline_seconds", 2)
        .route(
            "/busy",
            status(503),
            json!({ "core": true, "retries": 5, "retry_backoff_seconds": 30 }),
        )
        .run([])
        .exits(1)
        .within(SECOND)
        .cause("/busy", "status")
        .status("/busy", 503)
        .attempts("/busy", 1);
}

#[test]
fn a_name_that_does_not_exist_is_a_dns_failure() {
    TestEnv::new()
        .at("http://no-such-host.invalid:8000")
        .default("retries", 1)
        .core("/up", ok())
        .aux("/page", ok())
        .run([])
        .exits(1)
        .within(SECOND * 3)
        .class("/up", "timeout_unreachable")
        .cause("/up", "dns")
        .attempts("/up", 2)
        .down(true)
        .hung(false)
        .cause("/page", "backend_down");
}

#[test]
fn a_name_server_that_never_answers_does_not_stall_the_run() {
    if !Uid::effective().is_root() {
        return skip_unless_ci("a private network and resolv.conf need root");
    }
    if !has("ip") {
        return;
    }
    // RFC 5737: an address that no machine has. The kernel drops packets for other machines.
    let script = "ip link set lo up && ip route add 192.0.2.0/24 dev lo && \
                  mount --bind resolv.conf /etc/resolv.conf && exec \"$@\"";
    let test_env = TestEnv::new()
        .at("http://silent.example:8000")
        .default("timeout_seconds", 0.5)
        .default("retries", 1)
        .through(["unshare", "--mount", "--net", "sh", "-c", script, "sh"])
        .core("/up", ok());
    std::fs::write(
        test_env.dir().join("resolv.conf"),
        "nameserver 192.0.2.53\n",
    )
    .unwrap();
    let timed_out = test_env.run([]);
    timed_out
        .exits(1)
        .cause("/up", "dns")
        .attempts("/up", 2)
        .down(true)
        .within(SECOND * 5 / 2);

    let test_env = test_env
        .top("deadline_seconds", 2)
        .default("timeout_seconds", 20);
    let cut = test_env.start([]);
    std::thread::sleep(SECOND * 3 / 2);
    let threads = std::fs::read_dir(format!("/proc/{}/task", cut.pid())).unwrap();
    let threads = threads.count();
    assert!(
        threads <= 2,
        "{threads} threads: one lookup for one attempt"
    );
    cut.finish()
        .exits(1)
        .cause("/up", "deadline")
        .down(false)
        .hung(false)
        .within(SECOND * 3);
}

#[test]
fn waiting_ends_once_the_backend_is_healthy() {
    let test_env = TestEnv::new()
        .core("/up", in_turn([raw(""), status(500), ok()]))
        .aux("/fine", ok())
        .aux("/slow", silent())
        .aux("/limited", status(429))
        .aux("/broken", in_turn([status(500), ok()]));
    let run = test_env.run(["--wait", "20"]);
    run.exits(0)
        .healthy(true)
        .tally([3, 1, 1, 0, 0])
        .within(SECOND * 6);
    let server = test_env.server();
    assert_eq!(server.count("/up"), 3, "core routes in every sweep");
    // The first sweep found the backend down and skipped them; the second probed them.
    assert_eq!(
        server.count("/fine"),
        1,
        "a route that is OK is not probed again"
    );
    assert_eq!(
        server.count("/slow"),
        1,
        "a soft result is not probed again"
    );
    assert_eq!(
        server.count("/limited"),
        1,
        "a soft result is not probed again"
    );
    assert_eq!(server.count("/broken"), 2, "a hard failure is probed again");
}

#[test]
fn waiting_ends_when_its_time_is_over() {
    let test_env = TestEnv::new().core("/up", status(500));
    let run = test_env.run(["--wait", "2.5"]);
    run.exits(1).within(SECOND * 4);
    let sweeps = test_env.server().count("/up");
    assert!((2..=4).contains(&sweeps), "{sweeps} sweeps in 2.5 s");

    let once = TestEnv::new().core("/up", status(500));
    once.run(["--wait", "0"]).exits(1).within(SECOND);
    assert_eq!(once.server().count("/up"), 1);
}

#[test]
fn endless_answers_stay_within_64_mib() {
    let mut test_env = TestEnv::new()
        .top("concurrency", 64)
        .default("timeout_seconds", 2)
        .default("max_body_bytes", 16 * 1024 * 1024)
        .core("/up", ok());
    for number in 0..32 {
        let body = raw("HTTP/1.1 200 OK\r\n\r\n").flood("x");
        let dripped = raw("HTTP/1.1 200 OK\r\n\r\n")
            .send("x".repeat(100_000))
            .drip("x");
        let head = raw("HTTP/1.1 200 OK\r\n")
            .send("X: yyyyyy\r\n".repeat(100))
            .drip("y");
        test_env = test_env.aux(
            &format!("/body/{number}"),
            if number % 2 == 0 { body } else { dripped },
        );
        test_env = test_env.aux(&format!("/head/{number}"), head);
    }
    let mut running = test_env.start([]);
    let status = format!("/proc/{}/status", running.pid());
    let mut peak = 0;
    while !running.is_over() {
        let now = std::fs::read_to_string(&status).unwrap_or_default();
        let line = now.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse().ok());
        peak = peak.max(kib.unwrap_or(0));
        std::thread::sleep(Duration::from_millis(5));
    }
    println!("peak resident memory: {peak} KiB");
    running.finish().within(SECOND * 5);
    assert_eq!(test_env.server().connections(), 65);
    assert!((1024..64 * 1024).contains(&peak), "{peak} KiB");
}

#[test]
fn parked_requests_leave_descriptors_for_those_that_follow() {
    let mut test_env = TestEnv::new()
        .top("concurrency", 16)
        .default("retries", 2)
        .top(
            "recovery",
            json!({ "unit": "no-such.service", "grace_seconds": 0 }),
        )
        .through(["sh", "-c", "ulimit -n 100 && exec \"$@\"", "sh"]);
    for number in 0..60 {
        test_env = test_env.core(&format!("/{number}"), silent());
    }
    test_env.run(["--dry-run"]).exits(1).hung(true).down(false);
}
