//! When a backend counts as hung, when as down, and when as neither: only complete silence of every
//! core route is a hang.

use std::time::Duration;

use nix::unistd::Uid;
use serde_json::json;

use crate::run::Run;
use crate::script::{Script, answer, in_turn, ok, raw, silent, status};
use crate::server::{DeadPort, FullQueue, NeverAccepts};
use crate::skip::skip_unless_ci;
use crate::test_env::{HOSTS, TestEnv};

/// Two core routes with one retry, and an auxiliary one, which is skipped if the core hangs.
fn test_env(first: Script, second: Script) -> TestEnv {
    TestEnv::new()
        .default("retries", 1)
        .core("/first", first)
        .core("/second", second)
        .aux("/page", ok())
}

#[track_caller]
fn is_hung(run: &Run) {
    run.exits(1)
        .healthy(false)
        .hung(true)
        .down(false)
        .cause("/first", "timeout")
        .attempts("/first", 2)
        .status("/first", None)
        .cause("/second", "timeout")
        .class("/page", "skipped")
        .cause("/page", "backend_hung")
        .attempts("/page", 0)
        .tally([0, 2, 0, 0, 1])
        .outcome("not_configured")
        .within(Duration::from_millis(2800));
}

#[track_caller]
fn is_up(run: &Run) {
    run.exits(1)
        .healthy(false)
        .hung(false)
        .down(false)
        .class("/page", "ok");
}

#[test]
fn a_core_that_accepts_but_never_answers_is_hung() {
    let test_env = test_env(silent(), silent());
    is_hung(&test_env.run([]));
    assert_eq!(test_env.server().count("/page"), 0);
    let message = test_env.run_as_is([]);
    message
        .exits(1)
        .line("0 OK, 2 timeout/unreachable, 0 rate-limited, 0 HTTP error, 1 skipped")
        .line_with("unhealthy", "hung")
        .line_with("recovery: ", "not_configured");
}

#[test]
fn a_listener_that_never_accepts_is_hung() {
    let never = NeverAccepts::start();
    is_hung(&test_env(ok(), ok()).at(never.url()).run([]));
}

#[test]
fn a_listener_with_a_full_accept_queue_is_hung() {
    let full = FullQueue::start();
    is_hung(&test_env(ok(), ok()).at(full.url()).run([]));
}

#[test]
fn a_full_accept_queue_at_one_address_is_not_hidden_by_another_that_refuses() {
    if !Uid::effective().is_root() {
        return skip_unless_ci("a private hosts file needs root");
    }
    let full = FullQueue::on_ipv6();
    let script = format!("{HOSTS} && exec \"$@\"");
    let test_env = test_env(ok(), ok())
        .at(format!("http://localhost:{}", full.port()))
        .through(["unshare", "--mount", "sh", "-c", &script, "sh"]);
    for hosts in [
        "::1 localhost\n127.0.0.1 localhost\n",
        "127.0.0.1 localhost\n::1 localhost\n",
    ] {
        std::fs::write(test_env.dir().join("hosts"), hosts).unwrap();
        is_hung(&test_env.run([]));
    }
}

#[test]
fn a_tls_handshake_that_never_begins_is_a_hang() {
    let never = NeverAccepts::start();
    let url = never.url().replace("http:", "https:");
    let test_env = test_env(ok(), ok()).at(url);
    // The machine may have no trusted roots.
    let roots = test_env.dir().join("roots.pem");
    let root = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    std::fs::write(&roots, root.cert.pem()).unwrap();
    is_hung(&test_env.env("SSL_CERT_FILE", roots).run([]));
}

#[test]
fn a_single_byte_from_any_core_route_forbids_the_verdict() {
    is_up(&test_env(silent(), status(503)).run([]));
    is_up(&test_env(silent(), in_turn([status(503), silent()])).run([]));
    is_up(&test_env(silent(), in_turn([raw("H").stall(), silent()])).run([]));
    is_up(&test_env(silent(), in_turn([silent(), raw("H").stall()])).run([]));
    is_up(&test_env(silent(), answer(200, &[], "").send("surplus")).run([]));
}

#[test]
fn a_head_without_its_body_is_an_answer() {
    let half = || raw("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n").stall();
    let run = test_env(half(), half()).run([]);
    is_up(&run);
    run.cause("/first", "timeout").status("/first", 200);
}

#[test]
fn a_rate_limit_or_a_garbled_answer_is_an_answer() {
    is_up(&test_env(silent(), status(429)).run([]));
    is_up(&test_env(silent(), raw("SSH-2.0-x\r\n")).run([]));
}

#[test]
fn a_core_that_answers_the_retry_is_healthy() {
    let run = test_env(in_turn([silent(), ok()]), in_turn([silent(), ok()])).run([]);
    run.exits(0)
        .healthy(true)
        .hung(false)
        .tally([3, 0, 0, 0, 0]);
}

#[test]
fn one_refused_or_reset_attempt_is_not_silence() {
    let run = test_env(silent(), in_turn([silent(), raw("").reset()])).run([]);
    run.exits(1)
        .hung(false)
        .down(true)
        .cause("/page", "backend_down");
    let run = test_env(in_turn([raw(""), silent()]), silent()).run([]);
    run.exits(1).hung(false).down(true);
}

#[test]
fn a_backend_without_a_listener_is_down() {
    let dead = DeadPort::reserve();
    let run = test_env(ok(), ok()).at(dead.url()).run([]);
    run.exits(1)
        .hung(false)
        .down(true)
        .cause("/first", "refused")
        .attempts("/first", 2)
        .class("/page", "skipped")
        .cause("/page", "backend_down")
        .within(Duration::from_secs(1));
}

#[test]
fn a_backend_that_closes_at_once_is_down() {
    let run = test_env(raw(""), raw("").reset()).run([]);
    run.exits(1)
        .hung(false)
        .down(true)
        .cause("/first", "reset")
        .cause("/second", "reset");
}

#[test]
fn a_hang_does_not_end_the_waiting_where_nothing_can_be_recovered() {
    let test_env = TestEnv::new().core("/up", in_turn([silent(), ok()]));
    test_env.run(["--wait", "10"]).exits(0).healthy(true);
}

#[test]
fn a_body_check_that_fails_everywhere_is_not_a_hang() {
    let page = || answer(200, &[], r#"{"status":"degraded"}"#);
    let keys = json!({ "core": true, "json": { "/status": "healthy" } });
    let run = TestEnv::new().route("/up", page(), keys).run([]);
    run.exits(1)
        .hung(false)
        .down(false)
        .class("/up", "http_error")
        .cause("/up", "body");
}

/// A core of two routes that are probed one after the other, and a unit that could be killed.
fn one_by_one(first: Script, second: Script) -> TestEnv {
    test_env(first, second).top("concurrency", 1).top(
        "recovery",
        json!({ "unit": "no-such-unit.service", "grace_seconds": 0.1 }),
    )
}

#[test]
fn a_hang_that_begins_in_the_middle_of_a_sweep_is_a_hang() {
    let stopping = || one_by_one(in_turn([ok(), silent()]), silent());
    let test_env = stopping();
    test_env
        .run(["--dry-run"])
        .exits(1)
        .hung(true)
        .cause("/first", "timeout")
        .attempts("/first", 3)
        .attempts("/second", 4)
        .cause("/page", "backend_hung")
        .tally([0, 2, 0, 0, 1]);
    assert_eq!(test_env.server().count("/page"), 0);
    let test_env = stopping();
    test_env
        .run(["--no-recover"])
        .exits(1)
        .hung(false)
        .class("/first", "ok")
        .class("/page", "ok");
    assert_eq!(test_env.server().count("/first"), 1, "nothing could follow");
}

#[test]
fn a_second_round_of_the_core_finds_a_backend_that_woke_up() {
    let test_env = one_by_one(ok(), in_turn([silent(), silent(), ok()]));
    test_env
        .run(["--dry-run"])
        .exits(0)
        .hung(false)
        .attempts("/first", 2)
        .class("/second", "ok")
        .attempts("/second", 3)
        .class("/page", "ok")
        .outcome("not_needed");
    let asked = test_env.server().requests();
    let asked: Vec<_> = asked.iter().map(|request| request.path.as_str()).collect();
    assert_eq!(
        asked,
        ["/first", "/second", "/second", "/first", "/second", "/page"],
        "auxiliary routes come after both rounds"
    );
}

#[test]
fn a_rate_limit_in_the_second_round_does_not_mask_an_error_of_the_first() {
    let first = in_turn([status(500), status(429)]);
    let test_env = one_by_one(first, in_turn([silent(), silent(), ok()]));
    test_env
        .run(["--dry-run"])
        .exits(1)
        .class("/first", "http_error")
        .status("/first", 500)
        .attempts("/first", 2);
}

#[test]
fn the_second_round_of_the_core_is_omitted_if_the_deadline_would_cut_it() {
    // 2 routes, each with 2 attempts of 0.4 s and a pause of 0.05 s, and the grace period.
    let test_env = one_by_one(in_turn([ok(), silent()]), silent()).top("deadline_seconds", 1.9);
    test_env
        .run(["--dry-run"])
        .exits(1)
        .hung(false)
        .class("/first", "ok")
        .attempts("/second", 2);
}

#[test]
fn the_core_is_probed_once_if_all_or_none_of_its_routes_are_silent() {
    let hung = one_by_one(silent(), silent());
    let run = hung.run(["--dry-run"]);
    run.hung(true).attempts("/first", 2).attempts("/second", 2);
    let failing = one_by_one(status(500), ok());
    let run = failing.run(["--dry-run"]);
    run.hung(false).attempts("/first", 1).attempts("/second", 1);
}
