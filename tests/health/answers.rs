//! Complete responses that are wrong, odd, or redirects, and their results: one case per line.

use serde_json::{Value, json};

use crate::case::{CHUNKED, HEAD, ONCE, RETRIED, TEN, UNTIL_CLOSE, case, check, fine, lost, wrong};
use crate::script::{Script, answer, ok, raw, redirect, status};
use crate::test_env::TestEnv;

#[test]
fn a_response_that_is_not_http_is_a_protocol_error() {
    let long_line = format!("{HEAD}X: {}\r\n\r\n", "y".repeat(100_000));
    let too_many = format!("{HEAD}Content-Length: 0\r\n{}\r\n", "X: y\r\n".repeat(200));
    check(vec![
        case(
            "an SSH banner",
            raw("SSH-2.0-OpenSSH_9.2p1\r\n"),
            wrong("protocol", None),
        ),
        case(
            "an SSH banner, then silence",
            raw("SSH-2.0-OpenSSH_9.2p1\r\n").stall(),
            wrong("protocol", None),
        ),
        case("zeros", raw([0; 64]), wrong("protocol", None)),
        case(
            "a page without a head",
            raw("<html><body>hello</body></html>\r\n\r\n"),
            wrong("protocol", None),
        ),
        case(
            "garbage without end",
            raw("").flood([0xff, 0x00, 0x17]),
            wrong("protocol", None),
        ),
        case(
            "a status that is no number",
            raw("HTTP/1.1 abc OK\r\n\r\n"),
            wrong("protocol", None),
        ),
        case(
            "a status of two digits",
            raw("HTTP/1.1 20 OK\r\n\r\n"),
            wrong("protocol", None),
        ),
        case(
            "a header without a colon",
            raw(HEAD).send("nonsense\r\n\r\n"),
            wrong("protocol", None),
        ),
        case(
            "endless headers",
            raw(HEAD).flood("X-Header: value\r\n"),
            wrong("protocol", None),
        ),
        case("200 headers", raw(too_many), wrong("protocol", None)),
        case(
            "a header line of 100,000 bytes",
            raw(long_line),
            wrong("protocol", None),
        ),
        case(
            "a header line without end",
            raw(HEAD).send("X: ").flood("y"),
            wrong("protocol", None),
        ),
        case(
            "a status line without end",
            raw("HTTP/1.1 200 ").flood("y"),
            wrong("protocol", None),
        ),
        case(
            "Content-Length negative",
            raw("HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n").stall(),
            wrong("protocol", None),
        ),
        case(
            "Content-Length no number",
            raw("HTTP/1.1 200 OK\r\nContent-Length: ten\r\n\r\n").stall(),
            wrong("protocol", None),
        ),
        case(
            "Content-Length twice, differing",
            raw("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nab").stall(),
            wrong("protocol", None),
        ),
        case(
            "Content-Length beyond 64 bits",
            raw("HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999999\r\n\r\n").stall(),
            wrong("protocol", None),
        ),
        case(
            "a chunk of a bad size",
            raw(CHUNKED).send("zz\r\nab\r\n").stall(),
            wrong("protocol", Some(200)),
        ),
        case(
            "a chunk of a negative size",
            raw(CHUNKED).send("-1\r\nab\r\n").stall(),
            wrong("protocol", Some(200)),
        ),
        case(
            "a chunk size without end",
            raw(CHUNKED).flood("1"),
            wrong("protocol", Some(200)),
        ),
        case(
            "a chunk longer than its size",
            raw(CHUNKED).send("1\r\nabc\r\n0\r\n\r\n").stall(),
            wrong("protocol", Some(200)),
        ),
    ]);
}

/// HTTP allows these. ureq does not accept them, and no server behind this program is known to send them.
#[test]
fn forms_that_ureq_does_not_accept_are_protocol_errors() {
    let (long, zeros) = ("x".repeat(1000), "0".repeat(1000));
    check(vec![
        case(
            "a long chunk extension",
            raw(CHUNKED).send(format!("2;a={long}\r\nab\r\n0\r\n\r\n")),
            wrong("protocol", Some(200)),
        ),
        case(
            "chunk sizes with many zeros",
            raw(CHUNKED).send(format!("{zeros}2\r\nab\r\n{zeros}\r\n\r\n")),
            wrong("protocol", Some(200)),
        ),
        case(
            "100 Continue with headers first",
            raw("HTTP/1.1 100 Continue\r\nServer: x\r\n\r\n")
                .send(TEN)
                .send("0123456789"),
            wrong("protocol", None),
        ),
        case(
            "a folded header",
            raw(HEAD).send("X: y\r\n\tz\r\nContent-Length: 0\r\n\r\n"),
            wrong("protocol", None),
        ),
    ]);
}

#[test]
fn odd_but_complete_answers_are_judged_by_their_status() {
    let many = format!("{HEAD}Content-Length: 0\r\n{}\r\n", "X: y\r\n".repeat(127));
    let early = "HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n";
    check(vec![
        case("HTTP/1.0", raw("HTTP/1.0 200 OK\r\n\r\nhello"), fine(200)),
        case(
            "no reason phrase",
            raw("HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n"),
            fine(200),
        ),
        case("128 headers", raw(many), fine(200)),
        case(
            "100 Continue first",
            raw("HTTP/1.1 100 Continue\r\n\r\n")
                .send(TEN)
                .send("0123456789"),
            fine(200),
        ),
        case(
            "103 Early Hints first",
            raw(early).send(TEN).send("0123456789"),
            fine(200),
        ),
        case(
            "103 Early Hints twice",
            raw(early).send(early).send(TEN).send("0123456789"),
            fine(200),
        ),
        case(
            "a chunked body",
            raw(CHUNKED).send("2\r\nab\r\n0\r\n\r\n"),
            fine(200),
        ),
        case("an endless body", raw(UNTIL_CLOSE).flood("x"), fine(200)),
        case(
            "an endless chunked body",
            raw(CHUNKED).flood("1\r\nx\r\n"),
            fine(200),
        )
        .with(json!({ "max_body_bytes": 10_000 })),
        case(
            "204 without a body",
            raw("HTTP/1.1 204 No Content\r\n\r\n").stall(),
            fine(204),
        ),
        case(
            "304 without a body",
            raw("HTTP/1.1 304 Not Modified\r\n\r\n").stall(),
            fine(304),
        ),
        case("299", status(299), fine(299)),
        case("399", status(399), fine(399)),
        case("400", status(400), wrong("status", Some(400))),
        case("404", status(404), wrong("status", Some(404))),
        case("500", status(500), wrong("status", Some(500))),
        case(
            "500 whose body never comes",
            answer(500, &[], "").stall(),
            wrong("status", Some(500)),
        ),
        case("599", status(599), wrong("status", Some(599))),
        case("600", status(600), wrong("status", Some(600))),
        case("999", status(999), wrong("status", Some(999))),
        case(
            "502",
            status(502),
            ("http_error", Some("status"), Some(502), RETRIED),
        ),
        case(
            "503",
            status(503),
            ("http_error", Some("status"), Some(503), RETRIED),
        ),
        case(
            "504",
            status(504),
            ("http_error", Some("status"), Some(504), RETRIED),
        ),
        case("503 as expected", status(503), fine(503)).with(json!({ "expect": [503] })),
        case(
            "503 with a body that never ends",
            raw("HTTP/1.1 503 Busy\r\nContent-Length: 9\r\n\r\n").stall(),
            ("http_error", Some("status"), Some(503), RETRIED),
        ),
        case(
            "429",
            status(429),
            ("rate_limited", Some("status"), Some(429), ONCE),
        ),
        case("429 as expected", status(429), fine(429)).with(json!({ "expect": [429] })),
        case(
            "429 with a body that never ends",
            raw("HTTP/1.1 429 Slow down\r\nContent-Length: 9\r\n\r\n").stall(),
            ("rate_limited", Some("status"), Some(429), ONCE),
        ),
    ]);
}

#[test]
fn redirects_stay_within_their_origin_and_their_number() {
    let five = || json!({ "max_redirects": 5 });
    let only_200 = || json!({ "max_redirects": 5, "expect": [200] });
    check(vec![
        case(
            "not followed by default",
            redirect(302, "/other"),
            fine(302),
        ),
        case("followed", redirect(302, "/other"), fine(200)).with(five()),
        case(
            "followed to a relative address",
            redirect(301, "other"),
            fine(200),
        )
        .with(five()),
        case(
            "followed to a silent page",
            redirect(302, "/silent-target"),
            lost("timeout", None),
        )
        .with(five()),
        case(
            "followed to a missing page",
            redirect(302, "/nowhere"),
            wrong("status", Some(404)),
        )
        .with(five()),
        case(
            "a loop",
            redirect(302, "/it"),
            wrong("redirects", Some(302)),
        )
        .with(five()),
        case(
            "a loop of two",
            redirect(302, "/back"),
            wrong("redirects", Some(302)),
        )
        .with(five()),
        case(
            "to a dead port",
            redirect(302, "http://127.0.0.1:9/"),
            fine(302),
        )
        .with(five()),
        case(
            "off host",
            redirect(302, "http://example.invalid/"),
            fine(302),
        )
        .with(five()),
        case(
            "off host, unexpected",
            redirect(302, "//example.invalid/"),
            wrong("status", Some(302)),
        )
        .with(only_200()),
        case(
            "to another scheme",
            redirect(302, "https://127.0.0.1/"),
            fine(302),
        )
        .with(five()),
        case(
            "to a scheme of another kind",
            redirect(302, "file:///etc/passwd"),
            fine(302),
        )
        .with(five()),
        case(
            "without a location",
            answer(302, &[], ""),
            wrong("status", Some(302)),
        )
        .with(only_200()),
        case(
            "to something that is no address",
            redirect(302, "http://[::"),
            fine(302),
        )
        .with(five()),
        case(
            "a redirect whose body never ends",
            raw("HTTP/1.1 302 F\r\nLocation: /other\r\nContent-Length: 9\r\n\r\n").stall(),
            fine(200),
        )
        .with(five()),
    ]);
}

#[test]
fn a_detail_names_what_came_what_was_expected_and_what_to_do() {
    let deep = format!(
        "{{\"a\": {}1{}, \"b\": 1e999, \"up\": true}}",
        "[".repeat(500),
        "]".repeat(500)
    );
    let long = format!("{{\"pad\": \"{}\", \"up\": true}}", "x".repeat(5_000));
    let page = |body: &str| answer(200, &[], body);
    let up = || json!({ "json": { "/up": true } });
    let two = json!({ "json": { "/a": 1, "/b/c": "x", "/ok": 1 } });
    let cut = json!({ "json": { "/up": true }, "max_body_bytes": 1000 });
    let cut_text = json!({ "body_contains": "\"up\"", "max_body_bytes": 1000 });
    let brotli = answer(200, &[("Content-Encoding", "br")], "\u{1}\u{2}\u{3}");
    let login = "https://login.example/?next=%2F";
    let cases: Vec<(Script, Value, &str)> = vec![
        (status(404), json!({}), ""),
        (status(200), json!({ "expect": [201] }), "expected 201"),
        (
            status(500),
            json!({ "expect": [200, 301, 302] }),
            "expected 200, 301 or 302",
        ),
        (
            redirect(302, login),
            json!({ "expect": [200] }),
            "expected 200; leads to https://login.example/?next=%2F",
        ),
        (status(429), json!({ "expect": [200] }), ""),
        (
            page("{\"a\": 2, \"ok\": 1}"),
            two,
            "\"/a\" is 2, not 1; no value at \"/b/c\"; expected \"x\"",
        ),
        (page(&deep), up(), ""),
        (
            page(&long),
            cut,
            "the JSON does not end within the first 1000 bytes; raise \"max_body_bytes\"",
        ),
        (
            page(&long),
            cut_text,
            "the first 1000 bytes of the body do not contain \"\\\"up\\\"\"; raise \"max_body_bytes\" to search more",
        ),
        (
            brotli,
            up(),
            "the body is compressed (Content-Encoding: br); body checks need it uncompressed",
        ),
        (
            raw("SSH-2.0-OpenSSH_9.2p1\r\n"),
            json!({}),
            "not a valid HTTP/1.1 response: invalid HTTP version",
        ),
        (
            raw(CHUNKED).flood("1"),
            json!({}),
            "a chunk size line or a trailer of more than 64 KiB",
        ),
        (raw(UNTIL_CLOSE).drip("x"), json!({}), "receiving the body"),
        (
            raw(HEAD).drip("X: y\r\n"),
            json!({}),
            "receiving the response",
        ),
        (raw("").stall(), json!({}), "waiting for the response"),
    ];
    let mut test_env = TestEnv::new().core("/up", ok());
    for (number, (script, keys, _)) in cases.iter().enumerate() {
        let mut keys = keys.clone();
        keys["retries"] = 0.into();
        test_env = test_env.route(&format!("/{number}"), script.clone(), keys);
    }
    let run = test_env.run([]);
    for (number, (_, keys, expected)) in cases.iter().enumerate() {
        let detail = run.route(&format!("/{number}"))["detail"].as_str();
        assert_eq!(detail.unwrap_or_default(), *expected, "{number}: {keys}");
    }
}

#[test]
fn a_detail_that_is_shortened_shows_no_part_of_a_secret() {
    let secret = "secret-token-0123456789";
    let location = format!("/login?next={}{secret}", "x".repeat(60));
    let body = format!("{{\"a\": \"{}{secret}\"}}", "x".repeat(70));
    let with = |mut keys: Value| {
        keys["headers"] = json!({ "X-Api-Key": secret });
        keys
    };
    let run = TestEnv::new()
        .core("/up", ok())
        .route(
            "/moved",
            redirect(302, &location),
            with(json!({ "expect": [200] })),
        )
        .route(
            "/body",
            answer(200, &[], &body),
            with(json!({ "json": { "/a": 1 } })),
        )
        .run([]);
    for path in ["/moved", "/body"] {
        let detail = run.route(path)["detail"].as_str().unwrap_or_default();
        assert!(
            detail.contains("***") && !detail.contains("sec"),
            "{detail}"
        );
    }
}
