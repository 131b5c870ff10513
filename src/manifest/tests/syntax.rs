//! Syntax errors, unknown keys, and how problems are reported.

use super::*;

#[test]
fn a_name_of_any_length_is_shown_in_a_short_line() {
    let name = "x".repeat(100_000);
    let key = lines(&with(&format!("defaults.{name}"), "1"));
    let cut = format!("{}…", "x".repeat(80));
    assert!(key[0].starts_with(&format!("defaults.{cut}: unknown key")));
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
            "routes[0].core: duplicate key; keep one of the two (route \"/\")",
            "routes[0].Path: unknown key; did you mean \"path\"? (route \"/\")",
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
        r#"{{"base_url":"http://h","routes":[{}]}}"#,
        routes.join(",")
    );
    let reported = lines(&text);
    assert_eq!(reported.len(), 101);
    assert_eq!(reported[100], "and 150 more problems");
}

#[test]
fn a_problem_names_the_file_and_the_route() {
    let text = r#"{"base_url":"http://h","concurrency":0,"routes":[{"path":"/","core":true},
        {"path":"/papers","retrys":1,"timeout_seconds":"10s","headers":{"TE":""},"expect":[1]},{"path":1,"retries":-1}]}"#;
    let source = Source::File {
        path: "etc/routes.json".into(),
        owner: 0,
        mode: 0o100_644,
    };
    let variables = Variables::MayBeMissing;
    let problems = Manifest::parse(text.as_bytes(), source, None, variables).expect_err("bad");
    let problems = problems.to_string();
    let problems: Vec<_> = problems.lines().collect();
    assert_eq!(
        problems,
        [
            "etc/routes.json: concurrency: 0 is too small; give a whole number from 1 to 64",
            "etc/routes.json: routes[1].expect[0]: 1 is too small; give a whole number from 200 to 599 (route \"/papers\")",
            "etc/routes.json: routes[1].timeout_seconds: \"10s\" is a string; give more than 0 and at most 3600, \
             without quotes or a unit (route \"/papers\")",
            "etc/routes.json: routes[1].headers[\"TE\"]: frames the message or manages the connection, so this program \
             sets it; remove it (route \"/papers\")",
            "etc/routes.json: routes[1].retrys: unknown key; did you mean \"retries\"? (route \"/papers\")",
            "etc/routes.json: routes[2].path: 1 is a number; give a string",
            "etc/routes.json: routes[2].retries: -1 is too small; give a whole number from 0 to 10",
        ]
    );
}

#[test]
fn syntax_errors_have_a_place_and_a_guess() {
    for (text, reported) in [
        (
            "{\"a\": 1,\n  \"routes\": [}",
            "line 2, column 14: expected a value; the \"[\" of line 2, column 13 is never closed",
        ),
        (
            "{\"routes\": [\n{\"path\": \"/\"}\n}",
            "line 3, column 1: expected `,` or `]`; the \"[\" of line 1, column 12 is never closed",
        ),
        (
            "{\"a\": {\"b\": 1]}",
            "line 1, column 14: expected `,` or `}`; the \"{\" of line 1, column 7 is never closed",
        ),
        (
            "{\n",
            "line 2, column 1: expected more, but the file ends; the \"{\" of line 1, column 1 is never closed",
        ),
        (
            "{\"a\": [1, {\"b\": \"c",
            "line 1, column 18: expected more, but the file ends; the string of line 1, column 17 is never closed",
        ),
        (
            "{\"a\": \"b,\n\"c\": 1}",
            "line 2, column 1: expected no control character in a string; the string of \
             line 1, column 7 is never closed",
        ),
        (
            "{\"é\": 1, }",
            "line 1, column 10: expected another entry after the comma; remove the comma before it",
        ),
        (
            "{\"a\": [1, ]}",
            "line 1, column 11: expected another entry after the comma; remove the comma before it",
        ),
        (
            "{} x",
            "line 1, column 4: expected nothing after the end of the object; put keys and strings into double quotes (\")",
        ),
        (
            "{\"a\": 1}}",
            "line 1, column 9: expected nothing after the end of the object; it closes nothing; remove it",
        ),
        (
            "{\"deadline_seconds\": 1e400}",
            "line 1, column 26: expected a number of at most 1.8e308; correct the JSON there",
        ),
        (
            "{\"deadline_seconds\": NaN}",
            "line 1, column 22: expected a value; JSON has no such number",
        ),
        (
            "{\"timeout_seconds\": 10s}",
            "line 1, column 23: expected `,` or `}`; a number has no unit; write the number alone",
        ),
        (
            "{\"core\": True}",
            "line 1, column 10: expected a value; write true, in lower case",
        ),
        (
            "{\"core\": yes}",
            "line 1, column 10: expected a value; write true, in lower case",
        ),
        (
            "{\"core\": none}",
            "line 1, column 10: expected a value; leave out a key that has no value",
        ),
        (
            "{'a': 1}",
            "line 1, column 2: expected a key in double quotes; put keys and strings into double quotes (\")",
        ),
        (
            "{\"a\": 'b'}",
            "line 1, column 7: expected a value; put keys and strings into double quotes (\")",
        ),
        (
            "{base_url: 1}",
            "line 1, column 2: expected a key in double quotes; put keys and strings into double quotes (\")",
        ),
        (
            "{\"a\": 1\n\"b\": 2}",
            "line 2, column 1: expected `,` or `}`; put a comma before it",
        ),
        (
            "{\"routes\": [1, \"recovery\": {}}",
            "line 1, column 26: expected `,` or `]`; the \"[\" of line 1, column 12 is never closed",
        ),
        (
            "{\"path\": /papers}",
            "line 1, column 10: expected a value; put keys and strings into double quotes (\")",
        ),
        (
            "{\"a\": 1, /* no */ \"b\": 2}",
            "line 1, column 10: expected a key in double quotes; JSON has no comments; remove it",
        ),
        (
            "{\"a\": [{}\n{}]}",
            "line 2, column 1: expected `,` or `]`; put a comma before it",
        ),
        (
            "{\"a\" = 1}",
            "line 1, column 6: expected `:`; write \":\" between a key and its value",
        ),
        (
            "// no\n{}",
            "line 1, column 1: expected a value; JSON has no comments; remove it",
        ),
        (
            "{ # no\n}",
            "line 1, column 3: expected a key in double quotes; JSON has no comments; remove it",
        ),
        (
            "# routes\n\nbase_url: http://h\nroutes:\n- path: /\n",
            "line 1, column 1: expected a value; this looks like YAML; write JSON, as in routes.json",
        ),
        (
            "---\na: 1",
            "line 1, column 2: invalid number; this looks like YAML",
        ),
        (
            "{\"user_agent\": \"\\ud800\"}",
            "line 1, column 23: unexpected end of hex escape; correct the JSON there",
        ),
        (
            "{\"a\": \"C:\\d\"}",
            "line 1, column 11: invalid escape; write \"\\\\\" for a backslash",
        ),
    ] {
        let lines = lines(text);
        assert_eq!(lines.len(), 1, "{text}: {lines:?}");
        assert!(
            lines[0].starts_with(reported),
            "{text}\n{}\n{reported}",
            lines[0]
        );
    }
    let deep = "[".repeat(200);
    let text = format!("{{\"routes\":[{{\"json\":{{\"\":{deep}");
    assert!(lines(&text)[0].contains("expected at most 127 brackets in each other"));
}

#[test]
fn input_that_is_not_json_text_is_reported() {
    let variables = Variables::MayBeMissing;
    let reported = |bytes: &[u8]| {
        Manifest::parse(bytes, Source::Stdin, None, variables)
            .expect_err("bad")
            .to_string()
    };
    let file = "standard input: ";
    for (bytes, problem) in [
        (
            "\u{feff}{}".as_bytes(),
            "line 1, column 1: expected a value; this is a byte order mark",
        ),
        (b"{\n\"\xc3\xa9\xff\"}", "line 2, column 3: is not UTF-8"),
        (b"", "line 1, column 1: expected more, but the file ends"),
        (b" \n", "line 2, column 1: expected more, but the file ends"),
        (b"[]", "manifest: is a list; give an object"),
    ] {
        let reported = reported(bytes);
        assert!(
            reported.starts_with(&format!("{file}{problem}")),
            "{reported}"
        );
    }
    let spaces = |count: usize| {
        let mut text = minimal().to_string().into_bytes();
        text.resize(count, b' ');
        Manifest::parse(&text, Source::Stdin, None, variables)
    };
    assert!(spaces(8 * 1024 * 1024).is_ok());
    let problems = spaces(8 * 1024 * 1024 + 1).expect_err("too long");
    assert!(
        problems
            .to_string()
            .contains("manifest: exceeds the 8 MiB limit")
    );
}
