//! The output formats: JSON for scripts, text for people, lines for the journal.

use std::fs::{self, File};
use std::os::linux::fs::MetadataExt;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::script::{answer, ok, raw, silent, status};
use crate::skip::skip_unless_ci;
use crate::test_env::{BINARY, TestEnv, healthy, unhealthy};

#[test]
fn header_values_are_never_shown() {
    let keys = json!({ "core": true, "headers": { "Authorization": "Bearer ${TOKEN}" } });
    let echo = answer(500, &[("X-Echo", "s3cr3t")], "no s3cr3t");
    let test_env = TestEnv::new()
        .env("TOKEN", "s3cr3t")
        .route("/up", echo, keys.clone());
    for args in [
        ["--format", "json"],
        ["--format", "human"],
        ["--color", "always"],
    ] {
        let run = test_env.run_as_is(args);
        run.exits(1);
        assert!(
            !format!("{}{}", run.stdout, run.stderr).contains("s3cr3t"),
            "{run:?}"
        );
    }
    // An invalid value is reported without being shown.
    let test_env = TestEnv::new()
        .env("TOKEN", "s3cr3t\nX-Evil: 1")
        .route("/up", ok(), keys);
    test_env.server().may_stay_unused();
    let run = test_env.run_as_is([]);
    run.exits(2);
    assert!(
        !format!("{}{}", run.stdout, run.stderr).contains("s3cr3t"),
        "{run:?}"
    );
}

#[test]
fn header_values_that_a_server_sends_back_are_shown_as_asterisks() {
    const TOKEN: &str = "prefix-\"quoted\"-\\-žluť🦀-suffix";
    let json = |value: Value| answer(200, &[], &json!({ "a": value }).to_string());
    let latin1: String = TOKEN.bytes().map(char::from).collect();
    let line = |line: String| raw(format!("HTTP/1.1 {line}\r\nContent-Length: 0\r\n\r\n"));
    let scripts = [
        json(json!(format!("Bearer {TOKEN}"))),
        // The token alone, inside other text, where the text is shortened, as a key, and decoded as Latin-1.
        json(json!(TOKEN)),
        json(json!([{ TOKEN: [format!("<{TOKEN}{TOKEN}>")] }])),
        json(json!(format!("{}{TOKEN}", "x".repeat(60)))),
        json(json!(latin1)),
        line(format!("20 {TOKEN}")),
        line(format!("200 {TOKEN}\r\n{TOKEN}")),
        line(format!("302 Found\r\nLocation: http://[{TOKEN}")),
        line(format!("200 OK\r\nTransfer-Encoding: {TOKEN}")),
        raw(TOKEN),
    ];
    let mut test_env = TestEnv::new()
        .env("TOKEN", TOKEN)
        .default("timeout_seconds", 10);
    for (number, script) in scripts.into_iter().enumerate() {
        let keys = json!({
            "core": true, "headers": { "X-Key": "Bearer ${TOKEN}" }, "max_redirects": 1,
            "json": { "/a": "b" },
        });
        test_env = test_env.route(&format!("/{number}"), script, keys);
    }
    for format in ["json", "human"] {
        let run = test_env.run_as_is([
            "--format",
            format,
            "--junit",
            "junit.xml",
            "--metrics",
            "metrics.prom",
        ]);
        run.exits(1);
        let mut all = format!("{}{}", run.stdout, run.stderr);
        for file in ["junit.xml", "metrics.prom"] {
            all += &fs::read_to_string(test_env.dir().join(file)).unwrap();
        }
        for part in ["prefix", "quoted", "žluť", "\u{c5}", "🦀", "suffix"] {
            assert!(!all.contains(part), "{part} in {all}");
        }
        assert!(all.matches("***").count() >= 2 * 5, "{all}");
    }
}

#[test]
fn github_gets_annotations_and_json_none() {
    let path = "/p%41:a,b";
    let test_env = TestEnv::new()
        .default("timeout_seconds", 10)
        .env("GITHUB_ACTIONS", "true")
        .core("/up", ok())
        .aux(path, status(500))
        .aux("/limited", status(429));
    let run = test_env.run_as_is([]);
    let commands: Vec<&str> = run.stdout.lines().filter(|l| l.starts_with("::")).collect();
    assert_eq!(commands.len(), 2, "{run:?}");
    let error = "::error title=/p%2541%3Aa%2Cb::/p%2541:a,b: HTTP error 500 after ";
    assert!(commands[0].starts_with(error), "{run:?}");
    let warning = "::warning title=/limited::/limited: rate-limited 429 after ";
    assert!(commands[1].starts_with(warning), "{run:?}");
    assert!(!run.stdout.lines().last().unwrap().starts_with("::"));
    assert!(
        !test_env
            .run_as_is(["--format", "json"])
            .stdout
            .contains("::")
    );
    let test_env = test_env.env("GITHUB_ACTIONS", "false");
    assert!(!test_env.run_as_is([]).stdout.contains("::"));
    let test_env = healthy().env("GITHUB_ACTIONS", "true");
    assert!(!test_env.run_as_is([]).stdout.contains("::"));
    test_env.run_as_is(["--quiet"]).stdout_is_empty();
}

#[test]
fn the_json_report_has_every_key() {
    let test_env = unhealthy();
    let run = test_env.run([]);
    let keys = |value: &Value| -> Vec<String> {
        value
            .as_object()
            .into_iter()
            .flatten()
            .map(|(key, _)| key.clone())
            .collect()
    };
    let has = |value: &Value, wanted: &[&str]| {
        let keys = keys(value);
        let missing: Vec<_> = wanted
            .iter()
            .filter(|key| !keys.iter().any(|have| have == *key))
            .collect();
        assert!(missing.is_empty(), "{missing:?} in {value}");
    };
    run.exits(1).stderr_is_empty();
    has(
        &run.report,
        &[
            "schema_version",
            "version",
            "started_at",
            "elapsed_seconds",
            "base_url",
            "healthy",
            "hung",
            "down",
            "tally",
            "routes",
            "recovery",
            "warnings",
        ],
    );
    has(
        run.route("/page"),
        &[
            "path",
            "method",
            "core",
            "class",
            "cause",
            "status",
            "detail",
            "attempts",
            "elapsed_seconds",
        ],
    );
    has(
        &run.report["recovery"],
        &[
            "outcome",
            "unit",
            "pid",
            "new_pid",
            "guard",
            "detail",
            "evidence",
            "elapsed_seconds",
        ],
    );
    assert_eq!(run.report["schema_version"], 1);
    assert_eq!(run.report["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(run.report["base_url"], test_env.server().url());
    assert_eq!(run.report["warnings"], json!([]));
    assert_eq!(run.report["recovery"]["unit"], Value::Null);
    let started = run.report["started_at"].as_str().unwrap();
    let shape: String = started
        .chars()
        .map(|c| if c.is_ascii_digit() { '9' } else { c })
        .collect();
    assert_eq!(shape, "9999-99-99T99:99:99.999Z", "{started}");
}

#[test]
fn the_human_report_ends_with_a_tally_and_a_verdict() {
    let run = healthy().run_as_is([]);
    run.exits(0).stderr_is_empty();
    let lines: Vec<_> = run.stdout.lines().collect();
    let [.., tally, verdict] = lines.as_slice() else {
        panic!("{run:?}");
    };
    assert_eq!(
        *tally,
        "2 OK, 0 timeout/unreachable, 0 rate-limited, 0 HTTP error"
    );
    assert!(verdict.starts_with("healthy"), "{verdict}");
    assert!(!run.stdout.contains('\x1b'), "no color in a file: {run:?}");
    unhealthy()
        .run_as_is([])
        .exits(1)
        .line_with("unhealthy", "1 other route gave an HTTP error (/page: 500)");
}

#[test]
fn quiet_shows_only_what_is_wrong() {
    healthy()
        .run_as_is(["--quiet"])
        .exits(0)
        .stdout_is_empty()
        .stderr_is_empty();
    let run = unhealthy().run_as_is(["-q"]);
    run.exits(1)
        .stdout_has("/page")
        .line("1 OK, 0 timeout/unreachable, 0 rate-limited, 1 HTTP error");
    assert!(!run.stdout.contains("/up"), "{run:?}");
}

#[test]
fn color_follows_the_option_and_the_environment() {
    let test_env = unhealthy();
    assert!(
        test_env
            .run_as_is(["--color", "always"])
            .stdout
            .contains('\x1b')
    );
    assert!(
        !test_env
            .run_as_is(["--color", "never"])
            .stdout
            .contains('\x1b')
    );
    let forced = unhealthy().env("CLICOLOR_FORCE", "1");
    assert!(forced.run_as_is([]).stdout.contains('\x1b'));
    assert!(
        !forced
            .run_as_is(["--color", "never"])
            .stdout
            .contains('\x1b')
    );
    let plain = unhealthy().env("NO_COLOR", "1");
    assert!(!plain.run_as_is([]).stdout.contains('\x1b'));
}

#[test]
fn text_from_servers_is_printed_with_its_controls_escaped() {
    let body = "{\"status\":\"\\u001b[31mred\\u202e\\u0007\"}";
    let test_env = TestEnv::new()
        .route(
            "/up",
            answer(200, &[], body),
            json!({ "core": true, "json": { "/status": "healthy" } }),
        )
        .aux("/raw", raw("\x1b]0;title\x07\u{202e}\r\n\r\n"));
    // JSON escapes the backslashes of the quoted value once more, and the rest in its own way.
    for (format, shown) in [
        ("human", r#""\u001b[31mred\u{202e}\u0007""#),
        ("json", r#"\"\\u001b[31mred\u202e\\u0007\""#),
    ] {
        let run = test_env.run_as_is(["--format", format]);
        run.exits(1).stdout_has(shown);
        let text = format!("{}{}", run.stdout, run.stderr);
        let raw = text
            .chars()
            .find(|c| (c.is_control() && *c != '\n') || *c == '\u{202e}');
        assert_eq!(raw, None, "{run:?}");
    }
}

#[test]
fn lines_for_the_journal_carry_their_priority() {
    let test_env = unhealthy().core("/limited", status(429));
    for (format, journal) in [("human", true), ("json", true), ("human", false)] {
        let path = test_env.dir().join("stream");
        let stream = File::create(&path).unwrap();
        let facts = stream.metadata().unwrap();
        // systemd.exec(5): the device and inode of the stream, in decimal.
        let inode = facts.st_ino() + u64::from(!journal);
        let mut command = test_env.command(["--format", format]);
        command
            .env("JOURNAL_STREAM", format!("{}:{inode}", facts.st_dev()))
            .stdout(stream);
        assert_eq!(command.status().unwrap().code(), Some(1));
        let text = fs::read_to_string(path).unwrap();
        let prefixed = |line: &str| {
            ["<3>", "<4>", "<6>"]
                .iter()
                .any(|priority| line.starts_with(priority))
        };
        if format == "human" && journal {
            assert!(text.lines().all(prefixed), "{text}");
            let of = |part: &str| text.lines().find(|line| line.contains(part)).unwrap_or("");
            assert!(of("/page").starts_with("<3>"), "{text}");
            assert!(of("/limited").starts_with("<4>"), "{text}");
            assert!(of("1 OK, ").starts_with("<6>"), "{text}");
            assert_eq!(of("/up"), "", "only what is not OK: {text}");
            assert!(of("unhealthy").starts_with("<3>"), "{text}");
        } else {
            assert!(!text.lines().any(prefixed), "{text}");
        }
    }
}

#[test]
fn warnings_of_healthy_runs_are_not_mailed_with_quiet() {
    let recovery = json!({ "unit": "no-such.service", "grace_seconds": 0 });
    for (test_env, code) in [(healthy(), 0), (unhealthy(), 1)] {
        // Without systemctl, there is a warning on every run.
        let test_env = test_env.top("recovery", recovery.clone()).env("PATH", "");
        let warned = |args: &[&str]| {
            let mut command = test_env.command([]);
            command.args(args);
            let run = test_env.spawn(command).finish();
            run.exits(code);
            run.stderr.contains("warning: ")
        };
        assert!(warned(&[]));
        assert_eq!(warned(&["--quiet"]), code == 1);
        let run = test_env.run(["--quiet"]);
        assert_ne!(run.report["warnings"], json!([]), "{run:?}");
    }
    // The journal keeps them.
    let test_env = healthy().top("recovery", recovery).env("PATH", "");
    let path = test_env.dir().join("stream");
    let stream = File::create(&path).unwrap();
    let facts = stream.metadata().unwrap();
    let name = format!("{}:{}", facts.st_dev(), facts.st_ino());
    let mut command = test_env.command(["--quiet"]);
    command.env("JOURNAL_STREAM", name).stderr(stream);
    assert_eq!(command.status().unwrap().code(), Some(0));
    let text = fs::read_to_string(path).unwrap();
    assert!(text.starts_with("<4>warning: "), "{text}");
}

#[test]
fn reports_name_the_backend_and_its_socket() {
    let run = healthy().top("name", "api.blue").run_as_is([]);
    run.exits(0).stdout_has("api.blue at http://127.0.0.1:");
    let run = healthy()
        .top("name", "api.blue")
        .run(["--junit", "out.xml"]);
    run.exits(0);
    assert_eq!(run.report["name"], "api.blue");
    assert_eq!(run.report["unix_socket"], Value::Null);
    assert_eq!(run.report["unit"], Value::Null);
    let gone = TestEnv::new()
        .core("/up", ok())
        .at("http://localhost")
        .top("unix_socket", "/no/such.sock");
    gone.run_as_is([])
        .exits(1)
        .stdout_has("http://localhost over /no/such.sock, 1 route of ")
        .line("unhealthy: the backend is down: 1 of 1 core routes did not answer (/up: refused)");
    let run = gone.run([]);
    assert_eq!(run.report["unix_socket"], "/no/such.sock");
}

#[test]
fn progress_says_what_is_pending_and_is_erased() {
    let test_env = TestEnv::new()
        .core("/up", silent())
        .core("/", silent())
        .aux("/page", ok());
    test_env.write_manifest();
    // script(1) gives it a terminal.
    let output = Command::new("script")
        .args(["-qec", BINARY, "/dev/null"])
        .current_dir(test_env.dir())
        .env("TERM", "xterm")
        .stdin(Stdio::null())
        .output();
    let Ok(output) = output else {
        return skip_unless_ci("no script");
    };
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{text}");
    let begun = "\r\u{1b}[Kwaiting for 2 core routes...\r\u{1b}[K";
    assert!(text.starts_with(begun), "{text:?}");
    let (progress, report) = text.rsplit_once("\r\u{1b}[K").unwrap();
    assert!(
        !progress.contains('\n') && report.contains("the backend hung"),
        "{text:?}"
    );
}
