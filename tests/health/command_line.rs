//! Arguments, sources of the manifest, streams that fail, signals, and waiting.

use std::fs::{self, File, OpenOptions, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;
use std::time::Duration;

use nix::sys::signal::Signal;
use nix::sys::stat::Mode;
use nix::unistd::{Uid, chown, mkfifo};
use serde_json::json;

use crate::script::{answer, in_turn, ok, silent, status};
use crate::server::NeverAccepts;
use crate::skip::skip_unless_ci;
use crate::test_env::{TestEnv, healthy, unhealthy};
use crate::wait::wait_until;

const HALF_A_SECOND: Duration = Duration::from_millis(500);

/// A test environment whose server must not receive a single connection.
fn unprobed(manifest: &str) -> TestEnv {
    let test_env = TestEnv::new();
    test_env.server().may_stay_unused();
    fs::write(test_env.dir().join("bad.json"), manifest).unwrap();
    test_env
}

#[test]
fn help_and_version_succeed() {
    let test_env = unprobed("");
    let help = test_env.run_as_is(["--help"]);
    help.exits(0).stderr_is_empty();
    for option in [
        "--manifest",
        "--base-url",
        "--no-recover",
        "--dry-run",
        "--core",
        "--wait",
        "--format",
        "--junit",
        "--metrics",
        "--validate",
        "--quiet",
        "--color",
    ] {
        help.stdout_has(option);
    }
    let version = concat!("scidex-route-health ", env!("CARGO_PKG_VERSION"));
    test_env.run_as_is(["--version"]).exits(0).line(version);
}

#[test]
fn bad_arguments_are_refused() {
    let test_env = healthy();
    test_env.server().may_stay_unused();
    test_env
        .run_as_is(["--no-recover", "--dry-run"])
        .exits(2)
        .stdout_is_empty();
    test_env
        .run_as_is(["--frobnicate"])
        .exits(2)
        .stderr_has("--frobnicate");
    test_env
        .run_as_is(["--wait", "soon"])
        .exits(2)
        .stderr_has("soon");
    test_env.run_as_is(["--wait", "-1"]).exits(2);
    test_env
        .run_as_is(["--format", "xml"])
        .exits(2)
        .stderr_has("xml");
    test_env
        .run_as_is(["--base-url", "ftp://x"])
        .exits(2)
        .stderr_has("ftp://x");
    for (argument, hint) in [
        ("--json", "--format json"),
        ("--timeout=5", "\"timeout_seconds\" in the manifest"),
        ("routes.json", "--manifest routes.json"),
    ] {
        test_env.run_as_is([argument]).exits(2).stderr_has(hint);
    }
    for option in [
        "--core",
        "--wait=1",
        "--format=json",
        "--metrics=a",
        "--junit=a",
    ] {
        test_env
            .run_as_is(["--validate", option])
            .exits(2)
            .stdout_is_empty()
            .stderr_has("cannot be used with");
    }
    assert_eq!(test_env.server().connections(), 0);
}

#[test]
fn a_manifest_is_found_named_or_piped() {
    let test_env = healthy();
    test_env.run_as_is([]).exits(0);
    fs::rename(test_env.write_manifest(), test_env.dir().join("other.json")).unwrap();
    let other = test_env.dir().join("other.json");
    let other = other.to_str().unwrap();
    test_env.run_as_is(["--manifest", other]).exits(0);
    test_env.run_as_is(["-m", other]).exits(0);
    let mut piped = test_env.command(["--manifest", "-"]);
    piped.stdin(File::open(other).unwrap());
    test_env.spawn(piped).finish().exits(0);
    test_env
        .run_as_is(["-m", "nowhere.json"])
        .exits(2)
        .stderr_has("nowhere.json")
        .stdout_is_empty();
    test_env.run_as_is(["-m", "."]).exits(2).stderr_has("\".\"");
}

#[test]
fn a_fifo_in_the_place_of_the_default_manifest_does_not_block() {
    let test_env = healthy();
    test_env.server().may_stay_unused();
    let folder = test_env.dir().join("planted");
    fs::create_dir(&folder).unwrap();
    let fifo = folder.join("routes.json");
    mkfifo(&fifo, Mode::S_IRUSR | Mode::S_IWUSR).unwrap();
    for option in ["--quiet", "--validate"] {
        let mut command = test_env.command([option]);
        command.current_dir(&folder);
        let run = test_env.spawn(command).finish();
        run.exits(2)
            .stdout_is_empty()
            .stderr_has("\"routes.json\": is not a regular file")
            .stderr_has("--manifest");
    }
    assert_eq!(test_env.server().connections(), 0);
    // A pipe that --manifest names is read.
    let mut command = test_env.command(["--validate", "-m", "routes.json"]);
    command.current_dir(&folder);
    let run = test_env.spawn(command);
    fs::write(fifo, test_env.manifest()).unwrap();
    run.finish().exits(0);
}

#[test]
fn a_privileged_run_takes_a_manifest_of_others_only_by_name() {
    let keys = json!({ "core": true, "headers": { "Authorization": "Bearer ${API_TOKEN}" } });
    let test_env = TestEnv::new()
        .default("timeout_seconds", 10)
        .env("API_TOKEN", "hunter2-of-root")
        .route("/up", ok(), keys);
    let path = test_env.write_manifest();
    let refused = |who: &str, remedy: &str| {
        test_env
            .run_as_is([])
            .exits(2)
            .stdout_is_empty()
            .stderr_has("\"routes.json\"")
            .stderr_has(who)
            .stderr_has(remedy)
            .stderr_has("--manifest");
        assert_eq!(test_env.server().connections(), 0);
        test_env
            .run_as_is(["--validate"])
            .exits(0)
            .stderr_is_empty();
    };
    if Uid::effective().is_root() {
        for mode in [0o666, 0o664, 0o602] {
            fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            refused("is writable by others", "chmod go-w routes.json");
        }
        fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        chown(&path, Some(Uid::from_raw(12_345)), None).unwrap();
        refused("belongs to user 12345", "chown 0 routes.json");
        test_env.run_as_is(["-m", "routes.json"]).exits(0);
        let mut piped = test_env.command(["-m", "-"]);
        piped.stdin(File::open(&path).unwrap());
        test_env.spawn(piped).finish().exits(0);
        chown(&path, Some(Uid::from_raw(0)), None).unwrap();
    } else {
        skip_unless_ci("a manifest of others needs root");
        fs::set_permissions(&path, Permissions::from_mode(0o666)).unwrap();
    }
    test_env.run_as_is([]).exits(0);
}

#[test]
fn five_mistakes_get_five_located_messages() {
    let test_env = unprobed(
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
    let run = test_env.run_as_is(["-m", "bad.json"]);
    run.exits(2).stdout_is_empty();
    for place in [
        "bad.json: base_url: ",
        "bad.json: concurrency: ",
        "bad.json: defaults.timeout_seconds: ",
        "bad.json: routes[1].retries: ",
        "bad.json: routes[2].path: ",
    ] {
        let lines = run
            .stderr
            .lines()
            .filter(|line| line.contains(place))
            .count();
        assert_eq!(lines, 1, "one line for {place:?}: {}", run.stderr);
    }
    assert_eq!(
        test_env
            .run_as_is(["-m", "bad.json", "--validate"])
            .exits(2)
            .stderr,
        run.stderr
    );
    assert_eq!(test_env.server().connections(), 0);
}

#[test]
fn a_syntax_error_names_line_and_column() {
    let test_env = unprobed("{\n  \"base_url\": \"http://127.0.0.1\",\n  \"routes\": [,]\n}");
    test_env
        .run_as_is(["-m", "bad.json"])
        .exits(2)
        .stderr_has("bad.json: line 3, column 14: expected a value; remove the comma");
    fs::write(test_env.dir().join("bad.json"), b"{\"\xff\": 1}").unwrap();
    test_env.run_as_is(["-m", "bad.json"]).exits(2);
    fs::write(test_env.dir().join("bad.json"), "").unwrap();
    test_env.run_as_is(["-m", "bad.json"]).exits(2);
    fs::write(test_env.dir().join("bad.json"), "[".repeat(100_000)).unwrap();
    test_env.run_as_is(["-m", "bad.json"]).exits(2);
}

#[test]
fn validating_probes_nothing_and_needs_no_secrets() {
    let keys = json!({ "core": true, "headers": { "Authorization": "Bearer ${NO_SUCH_TOKEN}" } });
    let test_env = TestEnv::new().route("/up", ok(), keys);
    test_env.server().may_stay_unused();
    let valid = test_env.run_as_is(["--validate"]);
    valid.exits(0);
    assert_eq!(valid.stdout.lines().count(), 1, "{valid:?}");
    test_env
        .run_as_is([])
        .exits(2)
        .stderr_has("NO_SUCH_TOKEN")
        .stderr_has("routes[0].headers")
        .stdout_is_empty();
    assert_eq!(test_env.server().connections(), 0);
}

#[test]
fn a_reader_that_closed_stdout_changes_nothing() {
    for (test_env, code) in [(healthy(), 0), (unhealthy(), 1)] {
        for format in ["human", "json"] {
            // A pipe whose reading end is already closed.
            let (reader, writer) = std::io::pipe().unwrap();
            drop(reader);
            let mut command = test_env.command(["--format", format]);
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
    for (test_env, code) in [(healthy(), 2), (unhealthy(), 1)] {
        for format in ["human", "json"] {
            let mut command = test_env.command(["--format", format]);
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
    let test_env = unprobed("{}");
    let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
    let mut command = test_env.command(["-m", "bad.json"]);
    command.stderr(full);
    assert_eq!(command.output().unwrap().status.code(), Some(2));
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut command = test_env.command(["-m", "bad.json"]);
    command.stderr(writer);
    assert_eq!(command.output().unwrap().status.code(), Some(2));
}

#[test]
fn signals_end_a_run_at_once_and_leave_nothing_half_written() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let never = NeverAccepts::start();
        let test_env = TestEnv::new()
            .at(never.url())
            .default("timeout_seconds", 20)
            // If a shell runs the tests in the background, they ignore SIGINT.
            .through(["env", "--default-signal=INT"])
            .core("/up", ok());
        let running = test_env.start([]);
        assert!(wait_until(Duration::from_secs(5), || has_a_socket(
            running.pid()
        )));
        let sent = std::time::Instant::now();
        running.signal(signal);
        let run = running.finish();
        run.dies_of(signal).stdout_is_empty();
        assert!(sent.elapsed() < HALF_A_SECOND, "{run:?}");
    }
}

#[test]
fn the_time_that_proves_a_hang_is_shown() {
    let test_env = TestEnv::new()
        .default("retries", 2)
        .default("retry_backoff_seconds", 0.5)
        .top("concurrency", 1)
        .core("/up", ok())
        .core("/db", ok());
    // Two routes, one after the other, each with three attempts of 0.4 s and pauses of 0.5 and 1 s; and the
    // grace period.
    let with = test_env.top(
        "recovery",
        json!({ "unit": "no-such.service", "grace_seconds": 2 }),
    );
    with.server().may_stay_unused();
    with.run_as_is(["--validate"])
        .exits(0)
        .stdout_has("recovery of no-such.service after 7.4 s of silence");
    let dry = |args: [&str; 2]| with.run_as_is(args);
    let line = "dry run: no-such.service would be recovered after 7.4 s of silence";
    dry(["--dry-run", "--quiet"]).stderr_has(line);
    let url = with.server().url();
    for args in [["--wait", "0"], ["--base-url", &url]] {
        assert!(!dry(args).stderr.contains("dry run"));
    }
}

#[test]
fn waiting_proves_that_the_new_version_is_live() {
    let version = |version: &str| answer(200, &[], &json!({ "version": version }).to_string());
    let keys = json!({
        "core": true, "json": { "/version": "${GIT_SHA}" }, "body_contains": "n\":\"${GIT_SHA}\"",
    });
    let test_env = TestEnv::new().default("timeout_seconds", 10).route(
        "/api/status",
        in_turn([version("0ld"), version("n3w")]),
        keys,
    );
    test_env.run_as_is(["--validate"]).exits(0);
    test_env
        .run_as_is([])
        .exits(2)
        .stderr_has("routes[0].json[\"/version\"]: the environment variable GIT_SHA is not set")
        .stderr_has("routes[0].body_contains: the environment variable GIT_SHA");
    assert_eq!(test_env.server().connections(), 0);
    let test_env = test_env.env("GIT_SHA", "n3w");
    let run = test_env.run(["--wait", "20"]);
    run.exits(0)
        .stderr_has("sweep 1: core /api/status: wrong body 200 after ")
        .stderr_has("does not contain");
    assert_eq!(test_env.server().connections(), 2);
}

#[test]
fn core_probes_and_reports_the_core_routes_only() {
    let test_env = TestEnv::new()
        .default("timeout_seconds", 10)
        .core("/up", ok())
        .aux("/broken", status(500))
        .core("/db", ok());
    test_env.run([]).exits(1);
    let before = test_env.server().connections();
    let run = test_env.run(["--core"]);
    run.exits(0).healthy(true).tally([2, 0, 0, 0, 0]);
    let paths: Vec<_> = run.report["routes"].as_array().unwrap().iter().collect();
    assert_eq!(paths.len(), 2, "{run:?}");
    assert_eq!(test_env.server().connections() - before, 2);
    // A route that it does not probe must still be valid.
    let test_env = test_env.route("/no", ok(), json!({ "retries": 11 }));
    test_env.server().may_stay_unused();
    test_env
        .run_as_is(["--core"])
        .exits(2)
        .stderr_has("routes[3]");
}

#[test]
fn a_credential_of_systemd_serves_as_a_variable() {
    let keys = json!({ "core": true, "body_contains": "v=${VERSION}" });
    let test_env = TestEnv::new().default("timeout_seconds", 10);
    let test_env = test_env.route("/up", answer(200, &[], "v=n3w"), keys);
    let folder = test_env.dir().join("credentials");
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("VERSION"), "n3w\n").unwrap();
    test_env
        .run_as_is([])
        .exits(2)
        .stderr_has("the environment variable VERSION is not set");
    let test_env = test_env.env("CREDENTIALS_DIRECTORY", &folder);
    test_env.run([]).exits(0).tally([1, 0, 0, 0, 0]);
    fs::remove_file(folder.join("VERSION")).unwrap();
    test_env
        .run_as_is([])
        .exits(2)
        .stderr_has("routes.json: routes[0].body_contains: ")
        .stderr_has("there is no credential");
}

/// Whether the process has begun to probe.
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
    let there = TestEnv::new().core("/up", silent());
    there.server().may_stay_unused();
    let url = here.server().url();
    let run = here
        .top("base_url", there.server().url())
        .run(["--base-url", &url]);
    run.exits(0).tally([2, 0, 0, 0, 0]);
    assert_eq!(run.report["base_url"], url);
    assert_eq!(there.server().connections(), 0);
}
