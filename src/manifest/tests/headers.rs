//! Headers, and that their secrets never appear in output.

use super::*;

#[test]
fn headers_must_be_valid_http() {
    accepts(
        "routes[0].headers",
        &[
            "{}",
            r#"{"Host": "api.example.org", "X-1_a!": "", "Accept": "a\tb é $ $x }{"}"#,
            r#"{"Authorization": "Bearer ${TOKEN}"}"#,
        ],
    );
    rejects(
        "routes[0].headers",
        &[
            ("[]", "is a list; give an object"),
            ("\"hunter2\"", "is a string; give an object"),
            (
                r#"{"X-A": 4711}"#,
                "headers[\"X-A\"]: is a number; give a string",
            ),
            (r#"{"X-A": ["hunter2"]}"#, "headers[\"X-A\"]: is a list"),
            (
                r#"{"": "hunter2"}"#,
                "headers[\"\"]: the name is not a valid HTTP header name",
            ),
            (
                r#"{"X A: hunter2": ""}"#,
                "headers[\"X\"]: the name is not a valid HTTP header name",
            ),
            (
                r#"{"é": ""}"#,
                "headers[\"\"]: the name is not a valid HTTP header name",
            ),
            (
                r#"{"X-A": "", "x-a": "hunter2"}"#,
                "headers[\"x-a\"]: duplicate header",
            ),
            (
                r#"{"X-A": "hunter2\n"}"#,
                "headers[\"X-A\"]: the value contains the control character \"\\n\"",
            ),
            (r#"{"X-A": "hunter2\u007f"}"#, "control character"),
            (r#"{"X-A": "hunter2\u0080"}"#, "control character"),
            (
                r#"{"X-A": "${LINES}"}"#,
                "variable LINES contains the control character \"\\n\"",
            ),
            (
                r#"{"X-A": "${LATIN1}"}"#,
                "variable LATIN1 is not valid UTF-8",
            ),
            (
                r#"{"X-A": "a ${NONE} hunter2"}"#,
                "headers[\"X-A\"]: the environment variable NONE is not set",
            ),
            (r#"{"X-A": "hunter2 ${TOKEN"}"#, "has a \"${\""),
            (r#"{"X-A": "${}"}"#, "has a \"${\""),
            (r#"{"X-A": "${1A}"}"#, "has a \"${\""),
            (r#"{"X-A": "${A-B}"}"#, "has a \"${\""),
            (r#"{"X-A": "${${TOKEN}}"}"#, "has a \"${\""),
        ],
    );
    for name in [
        "Content-Length",
        "transfer-encoding",
        "Connection",
        "Keep-Alive",
        "Proxy-Connection",
        "TE",
        "Trailer",
        "Upgrade",
        "Expect",
    ] {
        rejects(
            "defaults.headers",
            &[(&json!({ name: "hunter2" }).to_string(), "remove it")],
        );
    }
    rejects(
        "defaults.headers",
        &[(
            r#"{"user-agent": "x"}"#,
            "the key \"user_agent\" at the top level",
        )],
    );

    let many = |count: usize| {
        let names = (0..count).map(|n| (format!("X-{n}"), json!("")));
        Value::Object(names.collect()).to_string()
    };
    accepts("defaults.headers", &[&many(128)]);
    rejects("defaults.headers", &[(&many(129), "129 headers")]);
    let long = |length: usize| json!({ "X": "v".repeat(length) }).to_string();
    accepts("defaults.headers", &[&long(65_535)]);
    rejects(
        "defaults.headers",
        &[(&long(65_536), "65537 bytes are too many")],
    );
}

#[test]
fn header_values_come_from_the_environment() {
    let value = |written: &str| {
        let headers = json!({ "X-A": written }).to_string();
        let manifest = parse(&with("routes[0].headers", &headers)).expect("valid");
        manifest.routes[0].options.headers[0]
            .value
            .reveal()
            .to_owned()
    };
    assert_eq!(value("Bearer ${TOKEN}"), "Bearer hunter2");
    assert_eq!(
        value("${TOKEN}-$TOKEN-${TOKEN}$"),
        "hunter2-$TOKEN-hunter2$"
    );
    assert_eq!(value(" \t a b \t"), "a b");
}

#[test]
fn missing_variables_are_allowed_where_nothing_is_sent() {
    let text = with(
        "routes[0].headers",
        r#"{"X-A": "${NONE}", "X-B": "${TOKEN"}"#,
    );
    let options = LoadOptions {
        base_url: None,
        variables: Variables::MayBeMissing,
    };
    let problems = Manifest::parse(text.as_bytes(), Source::Stdin, &options).expect_err("X-B");
    assert_eq!(problems.count(), 1);
    assert!(
        problems
            .to_string()
            .starts_with("routes[0].headers[\"X-B\"]: has a \"${\"")
    );
}

#[test]
fn secrets_are_in_no_output() {
    let bad = r#"{ "base_url": "http://me:hunter2@h", "headers": {"A": "hunter2"}, "routes": [
        {"path": "/", "core": true, "headers": {"A": "hunter2 ${NONE}", "B": 1, "A": "hunter2",
         "C: hunter2": "", "Host": "hunter2\n", "TE": "hunter2", "D": "hunter2 ${"}},
        {"path": "/a", "headers": "hunter2"}, {"path": "/b", "headers": ["hunter2"], "Authorization": "hunter2"} ] "#;
    let options = LoadOptions {
        base_url: None,
        variables: Variables::MayBeMissing,
    };
    let problems = Manifest::parse(bad.as_bytes(), Source::Stdin, &options).expect_err("bad");
    assert_eq!(problems.count(), 12, "{problems}");
    assert!(
        !format!("{problems} {problems:?}").contains("hunter2"),
        "{problems}"
    );

    let good = with("defaults.headers", r#"{"A": "hunter2", "B": "${TOKEN}"}"#);
    let manifest = parse(&good).expect("valid");
    assert_eq!(manifest.routes[0].options.headers.len(), 2);
    let shown = format!("{manifest:?} {manifest:#?}");
    assert!(
        shown.contains("***") && !shown.contains("hunter2"),
        "{shown}"
    );
}

#[test]
fn redact_finds_a_value_in_every_spelling() {
    let token = "a\"b\\c-žluť'";
    let environment = |_: &str| Some(OsString::from(token));
    let options = |headers: &str| {
        let variables = Variables::Required(&environment);
        let options = LoadOptions {
            base_url: None,
            variables,
        };
        let text = with("routes[0].headers", headers);
        let manifest = Manifest::parse(text.as_bytes(), Source::Stdin, &options).expect("valid");
        manifest.routes[0].options.clone()
    };
    let redacted = |text: &str| {
        let headers = r#"{"A": "Bearer ${TOKEN}", "B": "abc", "C": "  ", "D": "abab"}"#;
        options(headers).redact(text).into_owned()
    };
    let latin1: String = token.bytes().map(char::from).collect();
    for token in [
        token.to_owned(),
        json!(token).to_string(),
        format!("{token:?}"),
        latin1.clone(),
        json!(latin1).to_string(),
        format!("{latin1:?}"),
    ] {
        let bare = token.strip_prefix('"').and_then(|t| t.strip_suffix('"'));
        let bare = bare.unwrap_or(&token);
        assert_eq!(redacted(&format!("<{bare}>")), "<***>");
        assert_eq!(redacted(&format!("é Bearer {bare} é")), "é *** é");
        assert_eq!(redacted(&format!("{bare}{bare}")), "******");
    }
    // Two overlapping occurrences are both removed.
    assert_eq!(redacted("ababab"), "***");
    assert_eq!(redacted("abc aba a b"), "abc aba a b");
    // A literal's credentials are secret without their scheme, too.
    let basic = options(r#"{"A": "Basic aHVudGVyMg=="}"#);
    assert_eq!(basic.redact("no aHVudGVyMg==, Basic"), "no ***, Basic");
}
