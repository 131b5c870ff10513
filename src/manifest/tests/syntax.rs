//! Syntax errors, unknown keys, and how problems are reported.

use super::*;

#[test]
fn a_name_of_any_length_is_shown_in_a_short_line() {
    let name = "x".repeat(100_000);
    let key = lines(&with(&format!("defaults.{name}"), "1"));
    let cut = format!("\"{}…\"", "x".repeat(80));
    assert!(key[0].starts_with(&format!("defaults[{cut}]: unknown key")));
    let variable = with("routes[0].headers", &format!("{{\"X\":\"${{{name}}}\"}}"));
    let reported = format!("routes[0].headers[\"X\"]: the environment variable {cut} is not set");
    assert!(lines(&variable)[0].starts_with(&reported));
    for line in [&key[0], &lines(&variable)[0]] {
        assert!(line.len() < 400, "{} bytes", line.len());
    }
}

#[test]
fn unknown_and_repeated_keys_are_reported_with_their_location() {
    let text = r#"{"base_url":"http://h","base_url":"ftp://h","defaults":{"retrys":1,"path":"/","timeout":3},
        "routes":[{"path":"/","core":true,"core":false,"Path":"/"}],"a b\u001b":{"x":[1]},"x":1,
        "recovery":{"unit":"a.service","unit":"b.service","retries":1}}"#;
    assert_eq!(
        lines(text),
        [
            "base_url: duplicate key; keep one of the two",
            "defaults.retrys: unknown key; did you mean \"retries\"?",
            "defaults.path: unknown key; known keys are method, expect, timeout_seconds, retries, \
             retry_backoff_seconds, max_redirects, headers, max_body_bytes",
            "defaults.timeout: unknown key; did you mean \"timeout_seconds\"?",
            "routes[0].core: duplicate key; keep one of the two",
            "routes[0].Path: unknown key; did you mean \"path\"?",
            "recovery.unit: duplicate key; keep one of the two",
            "recovery.retries: unknown key; known keys are unit, scope, signal, dump_signal, min_uptime_seconds, \
             grace_seconds, verify_seconds",
            "manifest[\"a b\\u{1b}\"]: unknown key; known keys are $schema, name, base_url, unix_socket, user_agent, \
             deadline_seconds, concurrency, proxy, defaults, routes, recovery",
            "x: unknown key; known keys are $schema, name, base_url, unix_socket, user_agent, \
             deadline_seconds, concurrency, proxy, defaults, routes, recovery",
        ]
    );
    assert_eq!(
        lines("{}"),
        [
            "base_url: missing; this key is required",
            "routes: missing; this key is required"
        ]
    );
}

#[test]
fn five_mistakes_are_five_lines() {
    let text = r#"{"base_url":"http://h?x","concurrency":0,"routes":[{"path":"/","core":true},
        {"path":"b"},{"path":"/c","retries":"3"},{"path":"/"}]}"#;
    let reported = lines(text);
    let places = [
        "base_url: ",
        "concurrency: ",
        "routes[1].path: ",
        "routes[2].retries: ",
        "routes[3]: ",
    ];
    assert_eq!(reported.len(), places.len(), "{reported:?}");
    for (line, place) in reported.iter().zip(places) {
        assert!(line.starts_with(place), "{line}");
    }
}

#[test]
fn a_key_is_proposed_for_one_that_differs_by_at_most_two_letters() {
    for (key, proposed) in [
        ("retrixx", true),
        ("retriesxx", true),
        ("retxxxs", false),
        ("retriesxxx", false),
    ] {
        let reported = lines(&with(&format!("defaults.{key}"), "1"));
        let advice = reported[0].contains("did you mean \"retries\"?");
        assert_eq!(advice, proposed, "{reported:?}");
    }
}

#[test]
fn a_long_list_of_problems_is_shortened() {
    let routes: Vec<String> = (0..250)
        .map(|n| format!("{{\"path\":\"{n}\",\"core\":true}}"))
        .collect();
    let text = format!(
        r#"{{"base_url":"http://h","routes":[{}],}}"#,
        routes.join(",")
    );
    assert_eq!(parse(&text).expect_err("bad").count(), 251);
    let reported = lines(&text);
    assert_eq!(reported.len(), 102);
    assert_eq!(reported[100], "and 150 more problems");
    assert!(reported[101].starts_with("line 1, column "), "{reported:?}");
}

#[test]
fn syntax_errors_have_line_and_column() {
    for (text, reported) in [
        (
            "{\"base_url\": \"http://h\",\n  \"routes\": [}",
            "line 2, column 14: expected value",
        ),
        ("{\"é\": 1, }", "line 1, column 10: trailing comma"),
        ("{\n", "line 2, column 1: EOF while parsing"),
        ("{} x", "line 1, column 4: trailing characters"),
        (
            "{\"deadline_seconds\": 1e400}",
            "line 1, column 26: number out of range",
        ),
        (
            "{\"deadline_seconds\": NaN}",
            "line 1, column 22: expected value",
        ),
        ("{\"user_agent\": \"\\ud800\"}", "line 1, column "),
        ("// no\n{}", "line 1, column 1: expected value"),
    ] {
        let lines = lines(text);
        let last = lines.last().expect("a problem");
        assert!(last.starts_with(reported), "{text:?}: {last}");
    }
    let deep = "[".repeat(200);
    let text = format!("{{\"routes\":[{{\"json\":{{\"\":{deep}");
    assert!(lines(&text)[0].contains("recursion limit exceeded"));
    // Earlier problems are reported, too, but no key that may be missing only because of the error.
    for (text, reported) in [
        ("{\"concurrency\": 0, \"routes\": [", "concurrency: 0 is"),
        ("{\"concurrency\": 0, \"defaults\": {", "concurrency: 0 is"),
        (
            "{\"routes\": [{\"core\": false, \"path\": 1, ",
            "routes[0].path: 1 is",
        ),
        ("{\"routes\": [{\"core\": 1, ", "routes[0].core: 1 is"),
        (
            "{\"routes\": [{\"core\": 1, \"path\"",
            "routes[0].core: 1 is",
        ),
        (
            "{\"routes\": [{\"core\": 1, \"json\": {",
            "routes[0].core: 1 is",
        ),
        (
            "{\"defaults\": {\"retries\": 11, \"headers\": {",
            "defaults.retries: 11 is",
        ),
        (
            "{\"defaults\": {\"headers\": {\"\": \"\", \"a\": ",
            "defaults.headers[\"\"]: the name",
        ),
        (
            "{\"defaults\": {\"retries\": 11, \"expect\": [",
            "defaults.retries: 11 is",
        ),
        (
            "{\"defaults\": {\"retries\": 11, \"expect\": [200, tru",
            "defaults.retries: 11 is",
        ),
        ("{\"recovery\": {\"scope\": 1, ", "recovery.scope: 1 is"),
    ] {
        let lines = lines(text);
        assert_eq!(lines.len(), 2, "{text}: {lines:?}");
        assert!(lines[0].starts_with(reported), "{text}: {lines:?}");
        assert!(lines[1].starts_with("line 1, column "), "{text}: {lines:?}");
    }
    let reported = lines("{\"concurrency\": 0,\n\"proxy\" \"none\"}");
    assert_eq!(reported.len(), 2);
    assert!(
        reported[0].starts_with("concurrency: 0 is")
            && reported[1].starts_with("line 2, column 9: "),
        "{reported:?}"
    );
}

#[test]
fn input_that_is_not_json_text_is_reported() {
    let options = LoadOptions {
        base_url: None,
        variables: Variables::MayBeMissing,
    };
    let reported = |bytes: &[u8]| {
        Manifest::parse(bytes, Source::Stdin, &options)
            .expect_err("bad")
            .to_string()
    };
    assert!(
        reported("\u{feff}{}".as_bytes())
            .starts_with("line 1, column 1: starts with a byte order mark")
    );
    assert!(reported(b"{\n\"\xc3\xa9\xff\"}").starts_with("line 2, column 3: is not UTF-8"));
    assert!(reported(b"").starts_with("manifest: is empty"));
    assert!(reported(b" \n").starts_with("manifest: is empty"));
    assert_eq!(reported(b"[]"), "manifest: is a list; give an object");
    let spaces = |count: usize| {
        let mut text = minimal().to_string().into_bytes();
        text.resize(count, b' ');
        Manifest::parse(&text, Source::Stdin, &options)
    };
    assert!(spaces(8 * 1024 * 1024).is_ok());
    let problems = spaces(8 * 1024 * 1024 + 1).expect_err("too long");
    assert!(
        problems
            .to_string()
            .starts_with("manifest: exceeds the 8 MiB limit")
    );
}
