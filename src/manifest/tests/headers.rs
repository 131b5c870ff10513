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
                "the environment variable LATIN1 is not valid UTF-8",
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
        manifest.routes[0].options.headers[0].reveal().to_owned()
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
    let variables = Variables::MayBeMissing;
    let problems =
        Manifest::parse(text.as_bytes(), Source::Stdin, None, variables).expect_err("X-B");
    assert_eq!(problems.to_string().lines().count(), 1);
    assert!(
        problems
            .to_string()
            .contains(": routes[0].headers[\"X-B\"]: has a \"${\"")
    );
}

#[test]
fn secrets_are_in_no_output() {
    let bad = r#"{ "base_url": "http://me:hunter2@h", "headers": {"A": "hunter2"}, "routes": [
        {"path": "/", "core": true, "headers": {"A": "hunter2 ${NONE}", "B": 1, "A": "hunter2",
         "C: hunter2": "", "Host": "hunter2\n", "TE": "hunter2", "D": "hunter2 ${"}},
        {"path": "/a", "headers": "hunter2"}, {"path": "/b", "headers": ["hunter2"], "Authorization": "hunter2"} ] }"#;
    let variables = Variables::MayBeMissing;
    let problems =
        Manifest::parse(bad.as_bytes(), Source::Stdin, None, variables).expect_err("bad");
    assert_eq!(problems.to_string().lines().count(), 11, "{problems}");
    assert!(
        !format!("{problems} {problems:?}").contains("hunter2"),
        "{problems}"
    );

    for text in [
        "hunter2",
        "'hunter2'",
        "hunter2\"",
        "Bearer hunter2",
        "\"hunter2",
        "\"\\hunter2\"",
        "[hunter2]",
    ] {
        let text = format!(
            "{{\"base_url\": \"http://h\", \"defaults\": {{\"headers\": {{\"A\": {text}}}}}}}"
        );
        let problem = &lines(&text)[0];
        assert!(!problem.contains("hunter2"), "{problem}");
    }

    let good = with("defaults.headers", r#"{"A": "hunter2", "B": "${TOKEN}"}"#);
    let manifest = parse(&good).expect("valid");
    assert_eq!(manifest.routes[0].options.headers.len(), 2);
    let shown = format!("{manifest:?} {manifest:#?}");
    assert!(
        shown.contains("***") && !shown.contains("hunter2"),
        "{shown}"
    );
}

/// The options of a route with these headers, where every variable has the value `token`.
fn options(headers: &Value, token: &str) -> Options {
    let environment = |_: &str| Some(OsString::from(token));
    let variables = Variables::Required(&environment);
    let text = with("routes[0].headers", &headers.to_string());
    let manifest = Manifest::parse(text.as_bytes(), Source::Stdin, None, variables).expect("valid");
    manifest.routes[0].options.clone()
}

#[test]
fn redact_finds_a_secret_in_every_spelling() {
    let token = "a\"b\\c-žluť'";
    let headers = json!({"Authorization": "Bearer ${TOKEN}", "X-Key": "abc", "X-Token": "  ", "Session": "abab"});
    let redacted = |text: &str| options(&headers, token).redact(text).into_owned();
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
}

#[test]
fn redact_hides_variables_and_credentials_only() {
    for (name, written, text, shown) in [
        // A server sends the host back in every URL.
        (
            "Host",
            "127.0.0.1",
            "http://127.0.0.1/x",
            "http://127.0.0.1/x",
        ),
        ("Accept", "text/html", "no text/html", "no text/html"),
        ("X-Tenant", "ten-${A}", "ten-s3cret", "ten-***"),
        ("Host", "${A}", "http://s3cret/", "http://***/"),
        (
            "Authorization",
            "Basic aHVudGVyMg==",
            "no aHVudGVyMg==, Basic",
            "no ***, Basic",
        ),
        ("X-API-KEY", "abcd", "<abcd>", "<***>"),
        ("x-auth-user", "jane", "<jane>", "<***>"),
        ("X-Csrf-Token", "abcd", "<abcd>", "<***>"),
        ("Client-Secret", "abcd", "<abcd>", "<***>"),
        ("My-Session-Id", "abcd", "<abcd>", "<***>"),
        (
            "Cookie",
            "id=4711; lang=en-gb",
            "id 4711 en-gb id",
            "id *** *** id",
        ),
    ] {
        let options = options(&json!({ name: written }), "s3cret");
        assert_eq!(options.redact(text), shown, "{name}");
    }
}

#[test]
fn a_variable_may_be_a_credential() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().to_owned();
    let write =
        |name: &str, content: &[u8]| std::fs::write(path.join(name), content).expect("written");
    write("API_TOKEN", b"from-file\n");
    write("WINDOWS", b"a\r\n");
    write("TWO", b"a\n\n");
    write("BINARY", b"\xff");
    let environment = |name: &str| match name {
        "CREDENTIALS_DIRECTORY" => Some(path.clone().into_os_string()),
        "BOTH" => Some(OsString::from("from-environment")),
        _ => None,
    };
    write("BOTH", b"from-file");
    let read = |written: &str| {
        let variables = Variables::Required(&environment);
        let mut manifest = minimal();
        manifest["routes"][0]["headers"] = json!({ "X": written });
        manifest["routes"][0]["body_contains"] = json!(written);
        let manifest = manifest.to_string();
        let manifest = Manifest::parse(manifest.as_bytes(), Source::Stdin, None, variables);
        let manifest = manifest.map_err(|problems| problems.to_string())?;
        let route = &manifest.routes[0];
        let contains = route
            .checks
            .as_ref()
            .and_then(|checks| checks.contains.clone());
        assert_eq!(contains.as_deref(), Some(route.options.headers[0].reveal()));
        Ok::<_, String>(contains.unwrap_or_default())
    };
    assert_eq!(read("a ${API_TOKEN}"), Ok("a from-file".to_owned()));
    assert_eq!(read("${BOTH}"), Ok("from-environment".to_owned()));
    assert_eq!(read("${WINDOWS}"), Ok("a".to_owned()));
    let problem = read("${TWO}").unwrap_err();
    assert!(
        problem.contains("the variable TWO contains the control character"),
        "{problem}"
    );
    let problem = read("${BINARY}").unwrap_err();
    assert!(
        problem.contains("BINARY\": stream did not contain valid UTF-8"),
        "{problem}"
    );
    let problem = read("${NONE}").unwrap_err();
    let expected = format!(
        "the environment variable NONE is not set, and there is no credential in \"{}/NONE\": no such file or directory; give one of the two",
        path.display()
    );
    assert!(problem.contains(&expected), "{problem}");
    // A FIFO in the folder does not block.
    nix::unistd::mkfifo(&path.join("FIFO"), nix::sys::stat::Mode::S_IRUSR).expect("a FIFO");
    let problem = read("${FIFO}").unwrap_err();
    assert!(
        problem.contains("FIFO\": is not a regular file"),
        "{problem}"
    );
}
