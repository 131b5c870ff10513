//! How a sweep probes its routes: order, retries, checks, headers, proxies and concurrency.

use std::time::Duration;

use nix::unistd::Uid;
use serde_json::json;

use crate::script::{answer, in_turn, ok, raw, silent, status};
use crate::server::{DeadPort, Server};
use crate::skip::skip_unless_ci;
use crate::test_env::{HOSTS, TestEnv};

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn rate_limited_routes_do_not_fail_the_run() {
    let mut test_env = TestEnv::new();
    for number in 0..21 {
        let path = format!("/page/{number}");
        let limited = number >= 9;
        test_env = test_env.route(
            &path,
            if limited { status(429) } else { ok() },
            json!({ "core": number < 3, "retries": 3 }),
        );
    }
    test_env
        .run([])
        .exits(0)
        .healthy(true)
        .tally([9, 0, 12, 0, 0])
        .outcome("not_configured");
    test_env
        .run_as_is([])
        .exits(0)
        .line("9 OK, 0 timeout/unreachable, 12 rate-limited, 0 HTTP error");
    assert_eq!(
        test_env.server().requests().len(),
        42,
        "a 429 is never retried"
    );
}

#[test]
fn unanswered_auxiliary_routes_are_soft() {
    let test_env = TestEnv::new()
        .core("/up", ok())
        .aux("/slow", silent())
        .aux("/gone", raw(""));
    test_env
        .run([])
        .exits(0)
        .healthy(true)
        .hung(false)
        .tally([1, 2, 0, 0, 0]);
    test_env
        .run_as_is([])
        .exits(0)
        .line("1 OK, 2 timeout/unreachable, 0 rate-limited, 0 HTTP error")
        .line_with("healthy", "2");
}

#[test]
fn an_http_error_anywhere_and_a_lost_core_fail_the_run() {
    let aux = TestEnv::new().core("/up", ok()).aux("/broken", status(500));
    aux.run([])
        .exits(1)
        .healthy(false)
        .hung(false)
        .down(false)
        .tally([1, 0, 0, 1, 0]);
    let core = TestEnv::new().core("/up", ok()).core("/slow", silent());
    core.run([])
        .exits(1)
        .healthy(false)
        .hung(false)
        .down(false)
        .tally([1, 1, 0, 0, 0]);
    let limited = TestEnv::new().core("/up", status(429));
    limited
        .run([])
        .exits(0)
        .healthy(true)
        .tally([0, 0, 1, 0, 0]);
}

#[test]
fn a_retry_may_succeed_after_a_failed_attempt() {
    let test_env = TestEnv::new()
        .default("retries", 2)
        .core("/busy", in_turn([status(503), ok()]))
        .core("/cut", in_turn([raw(""), raw("").reset(), ok()]))
        .core("/slow", in_turn([silent(), ok()]))
        .core("/wrong", in_turn([status(500), ok()]));
    test_env
        .run([])
        .exits(1)
        .class("/busy", "ok")
        .attempts("/busy", 2)
        .class("/cut", "ok")
        .attempts("/cut", 3)
        .class("/slow", "ok")
        .attempts("/slow", 2)
        .class("/wrong", "http_error")
        .attempts("/wrong", 1);
    let server = test_env.server();
    assert_eq!(server.count("/cut"), 3);
    assert_eq!(
        server.connections(),
        server.requests().len(),
        "a connection for each attempt"
    );
}

#[test]
fn retries_are_a_budget_and_their_pauses_double() {
    let run = TestEnv::new()
        .route(
            "/busy",
            status(503),
            json!({ "core": true, "retries": 3, "retry_backoff_seconds": 0.2 }),
        )
        .run([]);
    run.exits(1)
        .attempts("/busy", 4)
        .status("/busy", 503)
        .within(Duration::from_millis(2400));
    assert!(
        run.elapsed >= Duration::from_millis(1400),
        "0.2 + 0.4 + 0.8 s: {run:?}"
    );
}

#[test]
fn a_429_does_not_hide_an_earlier_http_error() {
    TestEnv::new()
        .default("retries", 1)
        .core("/busy", in_turn([status(503), status(429)]))
        .core("/slow", in_turn([silent(), status(429)]))
        .run([])
        .exits(1)
        .class("/busy", "http_error")
        .cause("/busy", "status")
        .status("/busy", 503)
        .attempts("/busy", 2)
        .class("/slow", "rate_limited");
    let test_env = TestEnv::new()
        .core("/up", ok())
        .aux("/broken", in_turn([status(500), status(500), status(429)]));
    let run = test_env.run(["--wait", "3"]);
    let attempts = test_env.server().count("/broken");
    assert!(attempts >= 3, "{run:?}");
    run.exits(1)
        .class("/broken", "http_error")
        .status("/broken", 500)
        .attempts("/broken", attempts.try_into().unwrap());
}

#[test]
fn bodies_are_compared_as_written() {
    let body = r#"{"status":"healthy","n":1,"deep":[{"a/b":null}],"text":"grüße"}"#;
    let page = || answer(200, &[], body);
    let wants = |json| json!({ "json": json });
    TestEnv::new()
        .core("/up", ok())
        .route(
            "/all",
            page(),
            wants(json!({ "/status": "healthy", "/n": 1, "/deep/0/a~1b": null })),
        )
        .route("/float", page(), wants(json!({ "/n": 1.0 })))
        .route("/string", page(), wants(json!({ "/n": "1" })))
        .route("/absent", page(), wants(json!({ "/m": null })))
        .route(
            "/no-json",
            answer(200, &[], "healthy"),
            wants(json!({ "/n": 1 })),
        )
        .route("/empty", answer(204, &[], ""), wants(json!({ "/n": 1 })))
        .route("/text", page(), json!({ "body_contains": "grüße" }))
        .route("/no-text", page(), json!({ "body_contains": "Grüße" }))
        .route(
            "/beyond",
            page(),
            json!({ "body_contains": "grüße", "max_body_bytes": 20 }),
        )
        .route(
            "/within",
            page(),
            json!({ "body_contains": "healthy", "max_body_bytes": 20 }),
        )
        .route(
            "/no-utf8",
            raw(b"HTTP/1.1 200 OK\r\n\r\n\xff\xfehealthy\xff"),
            json!({ "body_contains": "healthy" }),
        )
        .route(
            "/split",
            raw("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhea\r\n")
                .pause(SECOND / 20)
                .send("4\r\nlthy\r\n0\r\n\r\n"),
            json!({ "body_contains": "healthy" }),
        )
        .run([])
        .exits(1)
        .class("/all", "ok")
        .cause("/float", "body")
        .cause("/string", "body")
        .cause("/absent", "body")
        .cause("/no-json", "body")
        .cause("/empty", "body")
        .class("/text", "ok")
        .cause("/no-text", "body")
        .cause("/beyond", "body")
        .class("/within", "ok")
        .class("/no-utf8", "ok")
        .class("/split", "ok")
        .class("/float", "http_error")
        .status("/float", 200)
        .attempts("/float", 1);
}

#[test]
fn a_head_request_waits_for_no_body() {
    let test_env = TestEnv::new().route(
        "/up",
        raw("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n").stall(),
        json!({ "core": true, "method": "HEAD" }),
    );
    test_env.run([]).exits(0).class("/up", "ok");
    assert_eq!(test_env.server().requests()[0].method, "HEAD");
}

#[test]
fn requests_follow_the_manifest() {
    let test_env = TestEnv::new()
        .env("TOKEN", "s3cr3t")
        .default("headers", json!({ "X-A": "from defaults", "X-B": "kept", "Accept": "text/html" }))
        .route(
            "/search?q=test&limit=1",
            ok(),
            json!({ "core": true, "headers": { "x-a": "own", "Authorization": "Bearer ${TOKEN}", "Host": "example.org" } }),
        );
    test_env.run([]).exits(0);
    let requests = test_env.server().requests();
    let [request] = requests.as_slice() else {
        panic!("{requests:?}");
    };
    assert_eq!(
        (request.method.as_str(), request.path.as_str()),
        ("GET", "/search?q=test&limit=1")
    );
    let version = env!("CARGO_PKG_VERSION");
    for (name, value) in [
        (
            "user-agent",
            format!("scidex-route-health/{version}").as_str(),
        ),
        ("x-a", "own"),
        ("x-b", "kept"),
        ("accept", "text/html"),
        ("authorization", "Bearer s3cr3t"),
        ("host", "example.org"),
    ] {
        assert_eq!(request.header(name), Some(value), "{name} of {request:?}");
    }

    let named = TestEnv::new()
        .top("user_agent", "probe of the night/2")
        .core("/", ok());
    named.run([]).exits(0);
    let request = &named.server().requests()[0];
    assert_eq!(request.header("user-agent"), Some("probe of the night/2"));
    let host = named.server().address().to_string();
    assert_eq!(request.header("host"), Some(host.as_str()));
}

#[test]
fn the_base_urls_prefix_precedes_every_path() {
    let test_env = TestEnv::new().also("/api/v1/up", ok());
    let url = format!("{}/api/v1/", test_env.server().url());
    let test_env = test_env
        .route("/up", status(500), json!({ "core": true }))
        .top("base_url", url);
    test_env.run([]).exits(0).status("/up", 200);
}

#[test]
fn proxies_in_the_environment_change_nothing() {
    let test_env = TestEnv::new().core("/up", ok());
    let test_env = [
        "http_proxy",
        "https_proxy",
        "all_proxy",
        "HTTP_PROXY",
        "HTTPS_PROXY",
        "ALL_PROXY",
    ]
    .into_iter()
    .fold(test_env, |test_env, name| {
        test_env.env(name, "http://127.0.0.1:9")
    });
    test_env.run([]).exits(0).class("/up", "ok");
}

#[test]
fn proxies_are_used_if_the_manifest_says_so() {
    let dead = DeadPort::reserve();
    let test_env = TestEnv::new().core("/up", ok()).top("proxy", "env");
    test_env.run([]).exits(0);
    let test_env = test_env.env("http_proxy", dead.url());
    test_env
        .run([])
        .exits(1)
        .class("/up", "timeout_unreachable")
        .cause("/up", "network");
    let test_env = test_env.env("no_proxy", "127.0.0.1");
    test_env.run([]).exits(0);
}

#[test]
fn a_proxy_that_cannot_be_used_is_an_error_that_shows_no_password() {
    for proxy in [
        "socks5://me:secret@127.0.0.1:9",
        "https://me:secret@127.0.0.1:9",
    ] {
        let test_env = TestEnv::new().core("/up", ok()).top("proxy", "env");
        test_env.server().may_stay_unused();
        let run = test_env.env("ALL_PROXY", proxy).run_as_is([]);
        run.exits(2)
            .stderr_has("not an HTTP proxy")
            .stderr_has("http://HOST:PORT");
        assert!(!run.stderr.contains("secret"), "{}", run.stderr);
    }
}

#[test]
fn core_routes_come_first_and_reports_keep_the_order() {
    let test_env = TestEnv::new()
        .top("concurrency", 1)
        .aux("/a", ok())
        .core("/b", ok())
        .aux("/c", ok())
        .core("/d", ok());
    let run = test_env.run([]);
    let reported: Vec<_> = run.report["routes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|route| &route["path"])
        .collect();
    assert_eq!(reported, ["/a", "/b", "/c", "/d"]);
    let asked: Vec<_> = test_env
        .server()
        .requests()
        .into_iter()
        .map(|request| request.path)
        .collect();
    assert_eq!(asked, ["/b", "/d", "/a", "/c"]);
}

#[test]
fn concurrency_is_used_fully_and_not_exceeded() {
    let mut test_env = TestEnv::new().top("concurrency", 3);
    for number in 0..9 {
        let pausing = raw("")
            .pause(SECOND / 10)
            .send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
        test_env = test_env.core(&format!("/{number}"), pausing);
    }
    test_env.run([]).exits(0).tally([9, 0, 0, 0, 0]);
    assert_eq!(test_env.server().most_waiting(), 3);
}

#[test]
fn localhost_is_found_on_either_family() {
    if !Uid::effective().is_root() {
        return skip_unless_ci("a private hosts file needs root");
    }
    for server in [Server::start(), Server::on_ipv6()] {
        let url = server.url_by("localhost");
        let script = format!("{HOSTS} && exec \"$@\"");
        let test_env = TestEnv::with(server)
            .top("base_url", url)
            .through(["unshare", "--mount", "sh", "-c", &script, "sh"])
            .core("/up", ok());
        for hosts in [
            "::1 localhost\n127.0.0.1 localhost\n",
            "127.0.0.1 localhost\n::1 localhost\n",
        ] {
            std::fs::write(test_env.dir().join("hosts"), hosts).unwrap();
            test_env
                .run([])
                .exits(0)
                .class("/up", "ok")
                .attempts("/up", 1);
        }
    }
}
