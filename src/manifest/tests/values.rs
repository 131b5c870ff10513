//! The rule for each single value.

use super::*;

#[test]
fn numbers_have_a_lower_and_an_upper_limit() {
    for (key, good, bad) in [
        (
            "timeout_seconds",
            &["0.001", "1e-12", "3600", "3600.0"][..],
            &[
                ("0", "0 is too small; give more than 0 and at most 3600"),
                ("-1", "-1 is too small"),
                ("3600.001", "3600.001 is too large"),
                ("1e300", "1e+300 is too large"),
            ][..],
        ),
        (
            "retries",
            &["0", "10", "2.0"],
            &[
                ("-1", "-1 is too small; give a whole number from 0 to 10"),
                ("11", "11 is too large"),
                ("2.5", "2.5 is not whole"),
                ("1e300", "1e+300 is too large"),
                ("18446744073709551615", "18446744073709551615 is too large"),
            ],
        ),
        (
            "retry_backoff_seconds",
            &["0", "-0.0", "0.25", "60"],
            &[
                ("-0.1", "give a number from 0 to 60"),
                ("60.5", "60.5 is too large"),
            ],
        ),
        (
            "max_redirects",
            &["0", "20"],
            &[("-1", "from 0 to 20"), ("21", "21 is too large")],
        ),
        (
            "max_body_bytes",
            &["1", "16777216"],
            &[("0", "from 1 to 16777216"), ("16777217", "too large")],
        ),
    ] {
        for table in ["defaults", "routes[0]"] {
            let place = format!("{table}.{key}");
            accepts(&place, good);
            rejects(&place, bad);
            rejects(
                &place,
                &[
                    ("\"2\"", "\"2\" is a string; give "),
                    ("null", "is null; give "),
                    ("true", "true is a boolean; give "),
                    ("[[1], {}]", "is a list; give "),
                    ("{\"a\": [1]}", "is an object; give "),
                ],
            );
        }
    }
    accepts("deadline_seconds", &["0.5", "86400"]);
    rejects(
        "deadline_seconds",
        &[("0", "more than 0"), ("86401", "at most 86400")],
    );
    accepts("concurrency", &["1", "64", "4.0"]);
    rejects(
        "concurrency",
        &[
            ("0", "from 1 to 64"),
            ("65", "too large"),
            ("1.5", "not whole"),
        ],
    );
    accepts("recovery.min_uptime_seconds", &["0", "0.5", "86400"]);
    rejects(
        "recovery.min_uptime_seconds",
        &[("-1", "from 0 to 86400"), ("86400.5", "too large")],
    );
    accepts("recovery.verify_seconds", &["1", "3600"]);
    rejects(
        "recovery.verify_seconds",
        &[("0.9", "from 1 to 3600"), ("3601", "too large")],
    );
}

#[test]
fn a_positive_duration_never_becomes_zero() {
    let manifest = parse(&with("routes[0].timeout_seconds", "1e-12")).expect("valid");
    assert_eq!(manifest.routes[0].options.timeout, Duration::from_nanos(1));
}

#[test]
fn words_and_texts_follow_their_rules() {
    for table in ["defaults", "routes[0]"] {
        accepts(&format!("{table}.method"), &["\"GET\"", "\"HEAD\""]);
        rejects(
            &format!("{table}.method"),
            &[
                ("\"get\"", "\"get\" is not known; give \"GET\" or \"HEAD\""),
                ("\"POST\"", "give \"GET\" or \"HEAD\""),
                ("1", "1 is a number; give"),
            ],
        );
        let expect = format!("{table}.expect");
        accepts(&expect, &["[200]", "[599, 200, 200]", "[301.0]"]);
        rejects(
            &expect,
            &[
                ("[]", "is empty; give at least one status"),
                ("200", "200 is a number; give a list"),
                (
                    "[200, 199]",
                    "expect[1]: 199 is too small; give a whole number from 200 to 599",
                ),
                ("[600]", "expect[0]: 600 is too large"),
                ("[\"200\"]", "expect[0]: \"200\" is a string"),
                ("[[200]]", "expect[0]: is a list"),
            ],
        );
    }
    accepts("$schema", &["\"./routes.schema.json\""]);
    rejects("$schema", &[("1", "give a string")]);
    accepts("user_agent", &["\"probe (a; b) ~\""]);
    rejects(
        "user_agent",
        &[
            ("\"\"", "is empty"),
            ("\" \"", "blank"),
            ("\"a\\tb\"", "contains \"\\t\""),
            ("\"é\"", "visible ASCII"),
            ("7", "7 is a number"),
        ],
    );
    accepts("proxy", &["\"none\"", "\"env\""]);
    rejects(
        "proxy",
        &[
            ("\"off\"", "give \"none\" or \"env\""),
            ("false", "false is a boolean"),
        ],
    );
    rejects(
        "routes[0].core",
        &[
            ("\"yes\"", "\"yes\" is a string; give true or false"),
            ("1", "1 is"),
        ],
    );
    accepts("routes[0].body_contains", &["\"ok\"", "\" \""]);
    rejects(
        "routes[0].body_contains",
        &[("\"\"", "is empty"), ("1", "give a string")],
    );
    accepts("recovery.scope", &["\"system\"", "\"user\""]);
    rejects(
        "recovery.scope",
        &[("\"System\"", "give \"system\" or \"user\"")],
    );
    accepts("recovery.signal", &["\"SIGKILL\"", "\"SIGABRT\""]);
    let dump = ["\"SIGUSR1\"", "\"SIGUSR2\"", "\"SIGQUIT\""];
    accepts("recovery.dump_signal", &dump);
    rejects(
        "recovery.dump_signal",
        &[
            (
                "\"SIGTERM\"",
                "give \"SIGUSR1\" or \"SIGUSR2\" or \"SIGQUIT\"",
            ),
            ("10", "is a number"),
        ],
    );
    rejects(
        "recovery.signal",
        &[
            ("\"SIGTERM\"", "give \"SIGKILL\" or \"SIGABRT\""),
            ("9", "9 is"),
        ],
    );
    rejects(
        "defaults",
        &[
            ("[]", "is a list; give an object"),
            ("\"hunter2\"", "is a string; give"),
        ],
    );
    rejects(
        "recovery",
        &[
            ("null", "is null; give an object"),
            ("{}", "recovery.unit: missing"),
        ],
    );
}

#[test]
fn a_status_counts_once() {
    let manifest = parse(&with("routes[0].expect", "[301, 200, 301, 200]")).expect("valid");
    let expect = &manifest.routes[0].options.expect;
    assert_eq!(*expect, [301, 200]);
}

#[test]
fn paths_contain_nothing_that_cannot_be_sent() {
    accepts(
        "routes[0].path",
        &[
            "\"/\"",
            "\"/a?b=c&d=[1]\"",
            "\"/caf\u{e9}%20x\"",
            "\"//x/../y\"",
            "\"/100%\"",
        ],
    );
    rejects(
        "routes[0].path",
        &[
            ("\"\"", "does not begin with \"/\""),
            ("\"api\"", "\"api\" does not begin with \"/\""),
            ("\"http://h/x\"", "give the path alone"),
            ("\"/a#b\"", "fragment"),
            ("\"/a b\"", "contains \" \""),
            ("\"/a\\u00a0b\"", "percent-encoded"),
            ("\"/a\\u2028b\"", "contains \"\\u{2028}\""),
            ("\"/a\\nb\"", "\"/a\\nb\" contains \"\\n\""),
            ("\"/a\\u0007b\"", "contains \"\\u{7}\""),
            ("\"/a\\u0085b\"", "contains \"\\u{85}\""),
            ("1", "1 is a number"),
        ],
    );
}

#[test]
fn json_checks_take_pointers_and_any_value() {
    let manifest = parse(&with(
        "routes[0].json",
        r#"{ "": {"a": [1, 1.0, "1", null, true]}, "/a~0b~1c/0": 12 }"#,
    ))
    .expect("valid");
    let checks = manifest.routes[0].checks.as_ref().expect("checks");
    assert_eq!(checks.contains, None);
    assert_eq!(
        checks.json[0].1.to_string(),
        r#"{"a":[1,1.0,"1",null,true]}"#
    );
    assert_eq!(checks.json[1], ("/a~0b~1c/0".to_owned(), json!(12)));
    rejects(
        "routes[0].json",
        &[
            ("{}", "is empty"),
            ("[]", "is a list; give an object, JSON Pointer"),
            ("\"/status\"", "\"/status\" is a string"),
            (
                "{\"status\": 1}",
                "json[\"status\"]: is not a JSON Pointer; begin it with \"/\"",
            ),
            (
                "{\"/a~2\": 1}",
                "json[\"/a~2\"]: is not a JSON Pointer; write \"~0\"",
            ),
            ("{\"/a~\": 1}", "is not a JSON Pointer"),
        ],
    );
    let twice = r#"{"base_url":"http://h","routes":[{"path":"/","core":true,"json":{"/a":{"b":[{"c":1,"c":2}]},"/a":1}}]}"#;
    assert_eq!(
        lines(twice),
        [
            r#"routes[0].json["/a"]["b"][0]["c"]: duplicate key; keep one of the two (route "/")"#,
            r#"routes[0].json["/a"]: duplicate key; keep one of the two (route "/")"#,
        ]
    );
}

#[test]
fn unit_names_are_those_of_systemd() {
    accepts(
        "recovery.unit",
        &[
            "\"scidex-api.service\"",
            "\"a:b_c.d-e.service\"",
            "\"a\\\\x2db.service\"",
            "\"api@8000.service\"",
            "\"api@@.service\"",
            "\"-.service\"",
            &format!("\"{}.service\"", "x".repeat(247)),
        ],
    );
    rejects(
        "recovery.unit",
        &[
            (
                "\"scidex-api\"",
                "does not end in \".service\"; give the full name of a service, such as \"scidex-api.service\"",
            ),
            ("\"\"", "give the full name"),
            ("\"api.timer\"", "does not end in \".service\""),
            ("\"api.service.d\"", "does not end in \".service\""),
            ("\".service\"", "has no name before its suffix"),
            ("\"@.service\"", "has no name before its suffix"),
            ("\"@1.service\"", "has no name before its suffix"),
            (
                "\"api@.service\"",
                "is a template, which has no process of its own; name an instance, such as \"api@1.service\"",
            ),
            ("\"a b.service\"", "contains \" \""),
            ("\"a*.service\"", "contains \"*\""),
            ("\"a/b.service\"", "contains \"/\""),
            ("\"é.service\"", "contains \"é\""),
            (
                "\"a\\u202e.service\"",
                "\"a\\u{202e}.service\" contains \"\\u{202e}\"",
            ),
            (
                &format!("\"{}.service\"", "x".repeat(248)),
                "is too long; a unit's name has at most 255 characters",
            ),
            ("1", "give a string"),
        ],
    );
}

#[test]
fn unix_socket() {
    let of_bytes = |count: usize| format!("\"/{}\"", "a".repeat(count - 1));
    accepts("unix_socket", &["\"/run/a.sock\"", &of_bytes(107)]);
    rejects(
        "unix_socket",
        &[
            ("\"run/a.sock\"", "is not an absolute path"),
            ("\"\"", "is not an absolute path"),
            ("\"/a\\u0000b\"", "leave out NUL characters"),
            (&of_bytes(108), "has 108 bytes"),
            (
                "\"/éééééééééééééééééééééééééééééééééééééééééééééééééééééé\"",
                "has 109 bytes",
            ),
            ("1", "give a string"),
        ],
    );
}

#[test]
fn body_checks_may_contain_variables() {
    accepts("routes[0].body_contains", &["\"v=${TOKEN};\"", "\"$ } {\""]);
    accepts("routes[0].json", &[r#"{"/${": ["${TOKEN}", {"${": 1}]}"#]);
    let unclosed = "has a \"${\" without a variable name";
    rejects(
        "routes[0].body_contains",
        &[
            ("\"${NONE}\"", "the environment variable NONE is not set"),
            ("\"${LATIN1}\"", "LATIN1 is not valid UTF-8"),
            ("\"${EMPTY}\"", "has only empty variables"),
            ("\"${TOKEN\"", unclosed),
        ],
    );
    rejects(
        "routes[0].json",
        &[
            (
                r#"{"/a": [1, {"b": "${NONE}"}]}"#,
                "routes[0].json[\"/a\"][1][\"b\"]: the environment variable NONE is not set",
            ),
            (r#"{"/a": "${"}"#, unclosed),
        ],
    );
    let mut manifest = minimal();
    manifest["routes"][0]["body_contains"] = json!("v=${TOKEN}");
    manifest["routes"][0]["json"] = json!({ "/a": ["${TOKEN}", 1] });
    let text = manifest.to_string();
    let parsed = parse(&text).expect("valid");
    let checks = parsed.routes[0].checks.as_ref().expect("checks");
    assert_eq!(checks.contains.as_deref(), Some("v=hunter2"));
    assert_eq!(checks.json, [("/a".to_owned(), json!(["hunter2", 1]))]);
    // Nothing is sent, so no variable needs to be set.
    let variables = Variables::MayBeMissing;
    assert!(Manifest::parse(text.as_bytes(), Source::Stdin, None, variables).is_ok());
    let text = with("routes[0].body_contains", "\"${NONE}\"");
    assert!(Manifest::parse(text.as_bytes(), Source::Stdin, None, variables).is_ok());
    let text = with("routes[0].body_contains", "\"\"");
    assert!(Manifest::parse(text.as_bytes(), Source::Stdin, None, variables).is_err());
}
