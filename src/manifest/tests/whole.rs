//! The rules that compare several values.

use super::*;

#[test]
fn body_checks_cannot_be_used_with_head() {
    let problems = "cannot be used with HEAD";
    let text = r#"{"base_url":"http://h","routes":[
        {"path":"/","core":true,"body_contains":"x","json":{"":1}},
        {"path":"/a","method":"GET","body_contains":"x"}],"defaults":{"method":"HEAD"}}"#;
    let lines = lines(text);
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert!(lines[0].starts_with("routes[0].body_contains: ") && lines[0].contains(problems));
    assert!(lines[1].starts_with("routes[0].json: ") && lines[1].contains(problems));
}

#[test]
fn recovery_needs_a_direct_connection() {
    let text = r#"{"base_url":"http://h","routes":[{"path":"/","core":true}],"proxy":"env",
        "recovery":{"unit":"a.service"}}"#;
    let lines = lines(text);
    assert_eq!(lines.len(), 1);
    assert!(
        lines[0].starts_with("recovery: cannot be used with \"proxy\": \"env\""),
        "{lines:?}"
    );
}

#[test]
fn the_deadline_leaves_time_to_prove_a_hang() {
    let text = |deadline: &str, grace: &str| {
        format!(
            r#"{{"base_url":"http://h","concurrency":2,"recovery":{{"unit":"a.service"{grace}}},{deadline}
            "routes":[{{"path":"/a","core":true,"retries":3}},{{"path":"/b","core":true}},
                      {{"path":"/c","core":true,"timeout_seconds":0.1}},{{"path":"/d","timeout_seconds":3600}}],
            "defaults":{{"timeout_seconds":4.1,"retry_backoff_seconds":0.7,"retries":1}}}}"#
        )
    };
    // Two rounds of 4 × 4.1 + (0.7 + 1.4 + 2.8), and the grace period.
    let grace = r#","grace_seconds":7.5"#;
    assert_eq!(
        lines(&text("\"deadline_seconds\": 50.099999999,", grace)),
        [
            "deadline_seconds: 50.099999999 is too short to prove a hang; give at least 50.1, or have fewer core routes, \
             shorter timeouts or fewer retries (all attempts and pauses of the core routes: 42.6 s; grace period: 7.5 s)"
        ]
    );
    let none = Vec::<String>::new();
    assert_eq!(lines(&text("\"deadline_seconds\": 50.1,", grace)), none);
    assert_eq!(lines(&text("\"deadline_seconds\": 72.6,", "")), none);
    assert_eq!(lines(&text("\"deadline_seconds\": 72.5,", "")).len(), 1);
    assert_eq!(lines(&text("", "")), none);

    let slow =
        with("recovery.scope", "\"user\"").replace("\"core\"", "\"timeout_seconds\":40.1,\"core\"");
    let problems = lines(&slow);
    assert!(
        problems[0].starts_with("deadline_seconds: the default 120 is too short"),
        "{problems:?}"
    );
    assert!(
        problems[0].contains("give at least 151.8, or have fewer"),
        "{problems:?}"
    );
    let endless = slow.replace("40.1", "3600,\"retries\":10,\"retry_backoff_seconds\":60");
    let endless = endless.replace("{\"base_url\"", "{\"concurrency\":1,\"base_url\"");
    let problems = lines(&endless);
    assert!(
        problems[0]
            .contains("give at least 101010, which is beyond the limit of 86400, or have fewer"),
        "{problems:?}"
    );
    // Another problem does not hide it, unless the figure depends on it.
    assert_eq!(lines(&slow.replace("\"http:", "\"ftp:")).len(), 2);
    assert_eq!(lines(&slow.replace("scidex-api.service", "x")).len(), 2);
    assert_eq!(lines(&slow.replace("40.1", "4000")).len(), 1);
    assert_eq!(lines(&slow.replace("true", "\"true\"")).len(), 1);
    assert_eq!(
        lines(&slow.replace("\"scope\":", "\"grace_seconds\":-1,\"scope\":")).len(),
        1
    );
}

#[test]
fn the_proposed_deadline_is_accepted() {
    for (timeout, backoff, retries) in [
        ("0.1", "0.3", 7),
        ("33.333333333", "0.1", 2),
        ("1e-9", "0", 0),
        ("0.7", "59.9", 10),
    ] {
        let text = |deadline: &str| {
            format!(
                r#"{{"base_url":"http://h","deadline_seconds":{deadline},"recovery":{{"unit":"a.service","grace_seconds":0}},"routes":[{{"path":"/",
                "core":true,"timeout_seconds":{timeout},"retry_backoff_seconds":{backoff},"retries":{retries}}}]}}"#
            )
        };
        let problems = lines(&text("1e-10"));
        if timeout == "1e-9" {
            assert_eq!(problems, Vec::<String>::new());
            continue;
        }
        let figure = problems[0]
            .split("at least ")
            .nth(1)
            .and_then(|t| t.split(',').next());
        assert_eq!(
            lines(&text(figure.expect("a figure"))),
            Vec::<String>::new()
        );
    }
}

#[test]
fn routes_must_include_a_core_route_and_be_distinct() {
    rejects(
        "routes",
        &[
            ("[]", "routes: no core route; give at least one"),
            ("{}", "routes: is an object; give a list"),
            (
                "[{\"path\":\"/\"}]",
                "routes: no core route; give at least one with \"core\": true",
            ),
            (
                "[{\"path\":\"/\",\"core\":true},\"/x\"]",
                "routes[1]: is a string; give an object",
            ),
            ("[{\"core\":true}]", "routes[0].path: missing"),
            // It is unknown whether one of them is core.
            ("[\"/x\"]", "routes[0]: is a string"),
            (
                "[{\"path\":\"/\",\"core\":1}]",
                "routes[0].core: 1 is a number",
            ),
        ],
    );
    let twice = r#"{"base_url":"http://h","defaults":{"method":"HEAD"},"routes":[{"path":"/x","core":true,
        "method":"GET"},{"path":"/x"},{"path":"/y"},{"path":"/x","method":"GET","retries":0},{"path":"/x","method":"got"}]}"#;
    let problems = lines(twice);
    assert_eq!(problems.len(), 2, "{problems:?}");
    assert!(problems[1].starts_with("routes[4].method: \"got\""));
    assert_eq!(
        problems[0],
        "routes[3]: same method and path as routes[0]; keep one of the two (route \"/x\")"
    );
}

#[test]
fn there_are_at_most_10_000_routes() {
    let text = |count: usize| {
        let routes: Vec<String> = (0..count)
            .map(|n| format!(r#"{{"path":"/{n}","core":true}}"#))
            .collect();
        format!(
            r#"{{"base_url":"http://h","routes":[{}]}}"#,
            routes.join(",")
        )
    };
    assert_eq!(parse(&text(10_000)).expect("valid").routes.len(), 10_000);
    // A figure for the deadline would cover only a part of the routes.
    let recovers = text(10_001).replace(
        "\"base_url\"",
        "\"recovery\":{\"unit\":\"a.service\"},\"base_url\"",
    );
    assert_eq!(
        lines(&recovers),
        ["routes: 10001 routes are too many; give at most 10000"]
    );
}

#[test]
fn defaults_apply_wherever_they_are_written() {
    let routes = r#""routes":[{"path":"/a","core":true},{"path":"/b","retries":0,"headers":{"x-one":"own","X-3":"c"}},{"path":"/c"}]"#;
    let defaults = r#""defaults":{"retries":7,"expect":[204],"max_redirects":3,"max_body_bytes":9,"timeout_seconds":1.5,
        "retry_backoff_seconds":0,"headers":{"X-One":"a","X-Two":"b"}}"#;
    for text in [
        format!(r#"{{"base_url":"http://h",{routes},{defaults}}}"#),
        format!(r#"{{{defaults},{routes},"base_url":"http://h"}}"#),
    ] {
        let manifest = parse(&text).expect("valid");
        let [a, b, c] = &manifest.routes[..] else {
            panic!("three routes")
        };
        assert_eq!(a.options, c.options);
        assert!(a.core && !b.core);
        assert_eq!((a.options.retries, b.options.retries), (7, 0));
        assert_eq!(b.options.expect, [204]);
        assert_eq!(b.options.max_redirects, 3);
        assert_eq!(b.options.max_body_bytes, 9);
        assert_eq!(b.options.timeout, Duration::from_millis(1500));
        assert_eq!(b.options.backoff, Duration::ZERO);
        let headers = |route: &Route| -> Vec<String> {
            let each = route.options.headers.iter();
            each.map(|h| format!("{}={}", h.name, h.reveal())).collect()
        };
        assert_eq!(headers(a), ["X-One=a", "X-Two=b"]);
        assert_eq!(headers(b), ["X-Two=b", "x-one=own", "X-3=c"]);
    }
}

#[test]
fn absent_keys_have_their_defaults() {
    let manifest = parse(&minimal().to_string()).expect("valid");
    assert_eq!(
        manifest.user_agent,
        concat!("scidex-route-health/", env!("CARGO_PKG_VERSION"))
    );
    assert_eq!(manifest.deadline, Duration::from_secs(120));
    assert_eq!(manifest.concurrency.get(), 4);
    assert!(!manifest.uses_proxy);
    assert_eq!(manifest.unix_socket, None);
    assert_eq!(manifest.recovery, None);
    let route = &manifest.routes[0];
    assert!(route.checks.is_none());
    let defaults = Options {
        method: Method::Get,
        expect: Vec::new(),
        timeout: Duration::from_secs(10),
        retries: 2,
        backoff: Duration::from_millis(500),
        max_redirects: 0,
        headers: Vec::new(),
        max_body_bytes: 1_048_576,
    };
    assert_eq!(route.options, defaults);

    let plan = parse(&with("recovery.unit", "\"a.service\""))
        .expect("valid")
        .recovery
        .expect("a plan");
    let defaults = RecoveryPlan {
        unit: "a.service".to_owned(),
        scope: Scope::System,
        signal: KillSignal::Kill,
        dump_signal: None,
        min_uptime: Duration::from_secs(120),
        grace: Duration::from_secs(30),
        verify: Duration::from_secs(60),
    };
    assert_eq!(plan, defaults);
}

#[test]
fn another_base_url_replaces_the_manifest_s_own() {
    let manifest =
        parse_with(&minimal().to_string(), Some("https://new.example/v2")).expect("valid");
    assert_eq!(manifest.base_url.to_string(), "https://new.example/v2");
    let problems =
        parse_with(&with("base_url", "\"ftp://h\""), Some("https://new")).expect_err("bad");
    assert_eq!(problems.to_string().lines().count(), 1);
}

#[test]
fn another_base_url_clears_the_socket_which_must_still_be_valid() {
    let text = with("unix_socket", "\"/run/a.sock\"");
    let manifest = parse(&text).expect("valid");
    let socket = manifest.unix_socket.expect("a socket");
    assert_eq!(socket.as_path().to_str(), Some("/run/a.sock"));
    let manifest = parse_with(&text, Some("https://new")).expect("valid");
    assert_eq!(manifest.unix_socket, None);

    let mut manifest = minimal();
    manifest["unix_socket"] = json!("/run/a.sock");
    manifest["base_url"] = json!("https://h");
    manifest["proxy"] = json!("env");
    for base_url in [None, Some("http://new")] {
        let problems = parse_with(&manifest.to_string(), base_url).expect_err("bad");
        let lines = problems.to_string();
        assert_eq!(lines.lines().count(), 2, "{lines}");
        assert!(lines.contains("unix_socket: cannot be used with an https:// base_url"));
        assert!(lines.contains("unix_socket: cannot be used with \"proxy\": \"env\""));
    }
    // An invalid path counts as a socket, too.
    manifest["unix_socket"] = json!("a.sock");
    assert_eq!(lines(&manifest.to_string()).len(), 3);
}

#[test]
fn duplicate_routes_are_reported_beside_invalid_options() {
    let route = |more: &str| format!(r#"{{"path":"/","core":true{more}}}"#);
    let text = |defaults: &str, first: &str, second: &str| {
        let (first, second) = (route(first), route(second));
        format!(r#"{{"base_url":"http://h","defaults":{defaults},"routes":[{first},{second}]}}"#)
    };
    let duplicate = |text: &str| {
        lines(text)
            .iter()
            .any(|line| line.starts_with("routes[1]: same method and path as routes[0];"))
    };
    for defaults in ["{}", r#"{"retries":11}"#, r#"{"method":"PUT"}"#, "[]", "1"] {
        assert!(duplicate(&text(defaults, "", "")), "{defaults}");
        assert!(duplicate(&text(defaults, r#","retries":-1"#, "")));
        let (get, head) = (r#","method":"GET""#, r#","method":"HEAD""#);
        assert!(duplicate(&text(defaults, head, head)), "{defaults}");
        assert!(!duplicate(&text(defaults, head, get)), "{defaults}");
        // The intended method of a route whose own is invalid is unknown.
        let put = r#","method":"PUT""#;
        assert!(!duplicate(&text(defaults, put, put)), "{defaults}");
    }
}

#[test]
fn proof_time_counts_rounds_of_the_longest_core_route() {
    let text = r#"{"base_url":"http://h","concurrency":2,"routes":[
        {"path":"/a","core":true,"timeout_seconds":3,"retries":2,"retry_backoff_seconds":0.5},
        {"path":"/b","core":true,"timeout_seconds":1,"retries":0},
        {"path":"/c","core":true},{"path":"/d","timeout_seconds":100}]}"#;
    let manifest = parse(text).expect("valid");
    // Two rounds of 10 + 0.5 + 10 + 1 + 10 seconds.
    assert_eq!(manifest.proof_time(), Duration::from_secs(63));
}

#[test]
fn the_documented_examples_are_valid() {
    let manual = include_str!("../../../docs/manifest.md");
    let blocks = manual.split("```json\n").skip(1);
    let examples: Vec<_> = blocks
        .filter_map(|block| block.split("```").next())
        .collect();
    let variables = Variables::MayBeMissing;
    let mut proof_times = Vec::new();
    for example in examples {
        let manifest = Manifest::parse(example.as_bytes(), Source::Stdin, None, variables);
        let manifest = manifest.unwrap_or_else(|problems| panic!("{problems}"));
        proof_times.push(manifest.proof_time().as_secs_f64());
    }
    assert_eq!(proof_times, [61.5, 61.5]);
}
