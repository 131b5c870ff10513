//! Arguments, manifests from everywhere, streams that fail, signals, and the shape of the output.

use std::fs::{self, File, OpenOptions};
use std::os::linux::fs::MetadataExt;
use std::process::Stdio;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::scene::Scene;
use crate::server::{NeverAccepts, answer, ok, raw, silent, status};
use crate::systemd::within;

const HALF_A_SECOND: Duration = Duration::from_millis(500);

fn healthy() -> Scene {
    Scene::new().core("/up", ok()).aux("/page", ok())
}

fn unhealthy() -> Scene {
    Scene::new().core("/up", ok()).aux("/page", status(500))
}

/// A scene whose manifest must not lead to a single connection.
fn unprobed(manifest: &str) -> Scene {
    let scene = Scene::new();
    scene.server().may_stay_unused();
    fs::write(scene.dir().join("bad.json"), manifest).unwrap();
    scene
}

#[test]
fn help_and_version_are_no_failures() {
    let scene = unprobed("");
    let help = scene.run_as_is(["--help"]);
    help.exits(0).stderr_is_empty();
    for option in [
        "--manifest",
        "--base-url",
        "--no-recover",
        "--dry-run",
        "--wait",
        "--format",
        "--validate",
        "--quiet",
        "--color",
    ] {
        help.stdout_has(option);
    }
    let version = concat!("scidex-route-health ", env!("CARGO_PKG_VERSION"));
    scene.run_as_is(["--version"]).exits(0).line(version);
}

#[test]
fn bad_arguments_are_refused() {
    let scene = healthy();
    scene.server().may_stay_unused();
    scene
        .run_as_is(["--no-recover", "--dry-run"])
        .exits(2)
        .stdout_is_empty();
    scene
        .run_as_is(["--frobnicate"])
        .exits(2)
        .stderr_has("--frobnicate");
    scene
        .run_as_is(["--wait", "soon"])
        .exits(2)
        .stderr_has("soon");
    scene.run_as_is(["--wait", "-1"]).exits(2);
    scene
        .run_as_is(["--format", "xml"])
        .exits(2)
        .stderr_has("xml");
    scene
        .run_as_is(["--base-url", "ftp://x"])
        .exits(2)
        .stderr_has("ftp://x");
    assert_eq!(scene.server().connections(), 0);
}

#[test]
fn a_manifest_is_found_named_or_piped() {
    let scene = healthy();
    scene.run_as_is([]).exits(0);
    fs::rename(scene.write_manifest(), scene.dir().join("other.json")).unwrap();
    let other = scene.dir().join("other.json");
    let other = other.to_str().unwrap();
    scene.run_as_is(["--manifest", other]).exits(0);
    scene.run_as_is(["-m", other]).exits(0);
    let mut piped = scene.command(["--manifest", "-"]);
    piped.stdin(File::open(other).unwrap());
    scene.spawn(piped).finish().exits(0);
    scene
        .run_as_is(["-m", "nowhere.json"])
        .exits(2)
        .stderr_has("nowhere.json")
        .stdout_is_empty();
    scene.run_as_is(["-m", "."]).exits(2).stderr_has("\".\"");
}

#[test]
fn five_mistakes_get_five_located_messages() {
    let scene = unprobed(
        r#"{
  "base_url": "ftp://127.0.0.1",
  "concurrency": 65,
  "defaults": { "timeout_seconds": 0 },
  "routes": [
    { "path": "/up", "core": true },
    { "path": "/a", "retries": 11 },
    { "path": "no slash" }
  ]
}"#,
    );
    let run = scene.run_as_is(["-m", "bad.json"]);
    run.exits(2).stdout_is_empty();
    for place in [
        "base_url: ",
        "concurrency: ",
        "defaults.timeout_seconds: ",
        "routes[1].retries: ",
        "routes[2].path: ",
    ] {
        let lines = run
            .stderr
            .lines()
            .filter(|line| line.contains(place))
            .count();
        assert_eq!(lines, 1, "one line for {place:?}: {}", run.stderr);
    }
    assert_eq!(
        scene
            .run_as_is(["-m", "bad.json", "--validate"])
            .exits(2)
            .stderr,
        run.stderr
    );
    assert_eq!(scene.server().connections(), 0);
}

#[test]
fn a_syntax_error_names_line_and_column() {
    let scene = unprobed("{\n  \"base_url\": \"http://127.0.0.1\",\n  \"routes\": [,]\n}");
    scene
        .run_as_is(["-m", "bad.json"])
        .exits(2)
        .stderr_has("line 3")
        .stderr_has("column 14");
    fs::write(scene.dir().join("bad.json"), b"{\"\xff\": 1}").unwrap();
    scene.run_as_is(["-m", "bad.json"]).exits(2);
    fs::write(scene.dir().join("bad.json"), "").unwrap();
    scene.run_as_is(["-m", "bad.json"]).exits(2);
    fs::write(scene.dir().join("bad.json"), "[".repeat(100_000)).unwrap();
    scene.run_as_is(["-m", "bad.json"]).exits(2);
}

#[test]
fn validating_probes_nothing_and_needs_no_secrets() {
    let keys = json!({ "core": true, "headers": { "Authorization": "Bearer ${NO_SUCH_TOKEN}" } });
    let scene = Scene::new().route("/up", ok(), keys);
    scene.server().may_stay_unused();
    let valid = scene.run_as_is(["--validate"]);
    valid.exits(0);
    assert_eq!(valid.stdout.lines().count(), 1, "{valid:?}");
    scene
        .run_as_is([])
        .exits(2)
        .stderr_has("NO_SUCH_TOKEN")
        .stderr_has("routes[0].headers")
        .stdout_is_empty();
    assert_eq!(scene.server().connections(), 0);
}

#[test]
fn header_values_never_show() {
    let keys = json!({ "core": true, "headers": { "Authorization": "Bearer ${TOKEN}" } });
    let echo = answer(500, &[("X-Echo", "s3cr3t")], "no s3cr3t");
    let scene = Scene::new()
        .env("TOKEN", "s3cr3t")
        .route("/up", echo, keys.clone());
    for args in [
        ["--format", "json"],
        ["--format", "human"],
        ["--color", "always"],
    ] {
        let run = scene.run_as_is(args);
        run.exits(1);
        assert!(
            !format!("{}{}", run.stdout, run.stderr).contains("s3cr3t"),
            "{run:?}"
        );
    }
    // A value that no header can hold is complained of without being shown.
    let scene = Scene::new()
        .env("TOKEN", "s3cr3t\nX-Evil: 1")
        .route("/up", ok(), keys);
    scene.server().may_stay_unused();
    let run = scene.run_as_is([]);
    run.exits(2);
    assert!(
        !format!("{}{}", run.stdout, run.stderr).contains("s3cr3t"),
        "{run:?}"
    );
}

#[test]
fn the_json_report_has_every_key() {
    let scene = unhealthy();
    let run = scene.run([]);
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
    assert_eq!(run.report["base_url"], scene.server().url());
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
fn people_get_a_tally_and_a_verdict() {
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
    assert!(!run.stdout.contains('\x1b'), "no colour in a file: {run:?}");
    let run = unhealthy().run_as_is([]);
    assert!(
        run.exits(1)
            .stdout
            .lines()
            .any(|line| line.starts_with("unhealthy")),
        "{run:?}"
    );
}

#[test]
fn quiet_says_only_what_is_wrong() {
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
fn colour_is_asked_for_or_left_out() {
    let scene = unhealthy();
    assert!(
        scene
            .run_as_is(["--color", "always"])
            .stdout
            .contains('\x1b')
    );
    assert!(
        !scene
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
    let scene = Scene::new()
        .route(
            "/up",
            answer(200, &[], body),
            json!({ "core": true, "json": { "/status": "healthy" } }),
        )
        .aux("/raw", raw("\x1b]0;title\x07\u{202e}\r\n\r\n"));
    for args in [["--format", "human"], ["--format", "json"]] {
        let run = scene.run_as_is(args);
        run.exits(1);
        let text = format!("{}{}", run.stdout, run.stderr);
        let raw = text
            .chars()
            .find(|c| (c.is_control() && *c != '\n') || *c == '\u{202e}');
        assert_eq!(raw, None, "{run:?}");
    }
}

#[test]
fn a_reader_that_closed_stdout_changes_nothing() {
    for (scene, code) in [(healthy(), 0), (unhealthy(), 1)] {
        for format in ["human", "json"] {
            // A pipe whose reading end is gone already.
            let (reader, writer) = std::io::pipe().unwrap();
            drop(reader);
            let mut command = scene.command(["--format", format]);
            command.stdout(writer).stderr(Stdio::piped());
            let output = command.output().unwrap();
            assert_eq!(output.status.code(), Some(code), "{output:?}");
            assert!(output.stderr.is_empty(), "{output:?}");
        }
    }
}

#[test]
fn a_full_disk_behind_stdout_is_reported() {
    let full = || OpenOptions::new().write(true).open("/dev/full").unwrap();
    for (scene, code) in [(healthy(), 2), (unhealthy(), 1)] {
        for format in ["human", "json"] {
            let mut command = scene.command(["--format", format]);
            command.stdout(full()).stderr(Stdio::piped());
            let output = command.output().unwrap();
            assert_eq!(output.status.code(), Some(code), "{output:?}");
            let said = String::from_utf8(output.stderr).unwrap();
            assert!(
                said.contains("standard output") || said.contains("stdout"),
                "{said}"
            );
            assert_eq!(said.lines().count(), 1, "{said}");
        }
    }
}

#[test]
fn a_stderr_that_cannot_be_written_changes_nothing() {
    let scene = unprobed("{}");
    let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
    let mut command = scene.command(["-m", "bad.json"]);
    command.stderr(full);
    assert_eq!(command.output().unwrap().status.code(), Some(2));
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut command = scene.command(["-m", "bad.json"]);
    command.stderr(writer);
    assert_eq!(command.output().unwrap().status.code(), Some(2));
}

#[test]
fn lines_for_the_journal_carry_their_priority() {
    let scene = unhealthy().core("/limited", status(429));
    for (format, journal) in [("human", true), ("json", true), ("human", false)] {
        let path = scene.dir().join("stream");
        let stream = File::create(&path).unwrap();
        let facts = stream.metadata().unwrap();
        // systemd.exec(5): the device and inode of the stream, in decimal.
        let inode = facts.st_ino() + u64::from(!journal);
        let mut command = scene.command(["--format", format]);
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
            assert!(of("/up").starts_with("<6>"), "{text}");
            assert!(of("unhealthy").starts_with("<3>"), "{text}");
        } else {
            assert!(!text.lines().any(prefixed), "{text}");
        }
    }
}

#[test]
fn signals_end_a_run_at_once_and_leave_nothing_half_written() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let never = NeverAccepts::start();
        let scene = Scene::new()
            .at(never.url())
            .default("timeout_seconds", 20)
            .core("/up", ok());
        let running = scene.start([]);
        assert!(within(Duration::from_secs(5), || has_a_socket(
            running.pid()
        )));
        let sent = std::time::Instant::now();
        running.signal(signal);
        let run = running.finish();
        run.dies_of(signal).stdout_is_empty();
        assert!(sent.elapsed() < HALF_A_SECOND, "{run:?}");
    }
}

/// Whether the process is probing by now.
fn has_a_socket(pid: nix::unistd::Pid) -> bool {
    let open = fs::read_dir(format!("/proc/{pid}/fd"))
        .into_iter()
        .flatten()
        .flatten();
    open.filter_map(|entry| fs::read_link(entry.path()).ok())
        .any(|target| target.to_string_lossy().starts_with("socket:"))
}

#[test]
fn another_base_url_points_the_same_manifest_elsewhere() {
    let here = healthy();
    let there = Scene::new().core("/up", silent());
    there.server().may_stay_unused();
    let url = here.server().url();
    let run = here
        .top("base_url", there.server().url())
        .run(["--base-url", &url]);
    run.exits(0).tally([2, 0, 0, 0, 0]);
    assert_eq!(run.report["base_url"], url);
    assert_eq!(there.server().connections(), 0);
}
