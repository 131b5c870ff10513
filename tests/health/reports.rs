//! Report files: what JUnit readers require, and paths that cannot work, which must not prevent a
//! recovery.

use std::fs::{self, Permissions};
use std::io::{PipeReader, PipeWriter, Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::process::Stdio;
use std::thread;
use std::time::Duration;

use nix::fcntl::{FcntlArg, fcntl};
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use roxmltree::{Document, Node};
use serde_json::{Value, json};

use crate::fake::Fake;
use crate::script::{answer, ok, raw, silent, status};
use crate::scripted::SILENT;
use crate::systemd::Systemd;
use crate::test_env::{TestEnv, healthy, unhealthy};
use crate::wait::wait_until;

/// What the schema of Jenkins' xUnit plugin (junit-10.xsd) allows in an element, as far as we write it:
/// required attributes, other attributes, children.
type Form = (
    &'static str,
    &'static [&'static str],
    &'static [&'static str],
    &'static [&'static str],
);
const FORMS: [Form; 7] = [
    (
        "testsuites",
        &[],
        &["name", "time", "tests", "failures", "errors"],
        &["testsuite"],
    ),
    (
        "testsuite",
        &["name", "tests", "failures", "errors"],
        &["time", "skipped", "timestamp"],
        &["testcase", "system-out", "system-err"],
    ),
    (
        "testcase",
        &["name"],
        &["time", "classname"],
        &["skipped", "failure"],
    ),
    ("failure", &[], &["type", "message"], &[]),
    ("skipped", &[], &["type", "message"], &[]),
    ("system-out", &[], &[], &[]),
    ("system-err", &[], &[], &[]),
];

#[track_caller]
fn is_formed(node: Node) {
    let name = node.tag_name().name();
    let form = FORMS.iter().find(|(known, ..)| *known == name);
    let (_, required, optional, children) = form.unwrap_or_else(|| panic!("<{name}>"));
    for attribute in *required {
        assert!(node.has_attribute(*attribute), "{attribute} of {node:?}");
    }
    for attribute in node.attributes() {
        let (key, value) = (attribute.name(), attribute.value());
        let known = required.iter().chain(*optional).any(|known| *known == key);
        assert!(known, "{key} of {node:?}");
        match key {
            "tests" | "failures" | "errors" | "skipped" => {
                value.parse::<u32>().unwrap();
            }
            // No sign and no exponent.
            "time" => assert!(
                value.parse::<f64>().is_ok()
                    && value.chars().all(|c| c.is_ascii_digit() || c == '.'),
                "{value}"
            ),
            _ => assert!(!value.is_empty(), "{key} of {node:?}"),
        }
    }
    for child in node.children().filter(Node::is_element) {
        assert!(
            children.contains(&child.tag_name().name()),
            "{child:?} in <{name}>"
        );
        is_formed(child);
    }
}

/// The cases that contain this element, by name; the counts of the suites must match.
fn cases<'a>(document: &'a Document, element: &str, attribute: &str) -> Vec<(&'a str, &'a str)> {
    let with = |case: &Node<'a, '_>| case.children().find(|child| child.has_tag_name(element));
    let all = document
        .descendants()
        .filter(|node| node.has_tag_name("testcase"));
    let found: Vec<_> = all
        .filter_map(|case| {
            let message = with(&case)?.attribute("message").unwrap_or("");
            assert!(
                !message.is_empty(),
                "{element} of {case:?} without a message"
            );
            Some((case.attribute("name").unwrap(), message))
        })
        .collect();
    let counts = document
        .descendants()
        .filter_map(|node| node.attribute(attribute));
    for count in counts {
        assert_eq!(count, found.len().to_string(), "{attribute}");
    }
    found
}

#[test]
fn junit_reports_follow_the_schema() {
    let body = "{\"status\":\"\\u0000\\u001b]]>&\\uffff\"}";
    let test_env = TestEnv::new()
        .route(
            "/up?a=1&b=<\">",
            answer(200, &[], body),
            json!({ "core": true, "json": { "/status": "healthy" } }),
        )
        .core("/limited", status(429))
        .core("/fine", ok())
        .aux("/slow", silent())
        .aux("/broken", raw("\x01\r\n\r\n"))
        .aux("/gone", status(404))
        .aux("/page", ok());
    let run = test_env.run(["--junit", "out.xml"]);
    run.exits(1).stderr_is_empty().tally([2, 1, 1, 3, 0]);
    let text = fs::read_to_string(test_env.dir().join("out.xml")).unwrap();
    let document = Document::parse(&text).unwrap();
    is_formed(document.root_element());

    let cases_of = |element, attribute| cases(&document, element, attribute);
    let names = |list: Vec<(&str, &str)>| {
        list.iter()
            .map(|(name, _)| (*name).to_owned())
            .collect::<Vec<_>>()
    };
    let failures = cases_of("failure", "failures");
    assert_eq!(
        names(failures),
        ["GET /up?a=1&b=<\">", "GET /broken", "GET /gone"]
    );
    assert_eq!(
        names(cases_of("skipped", "skipped")),
        ["GET /limited", "GET /slow"]
    );
    assert_eq!(names(cases_of("error", "errors")), [""; 0]);
    let all = document
        .descendants()
        .filter(|node| node.has_tag_name("testcase"));
    let tests = document
        .descendants()
        .filter_map(|node| node.attribute("tests"));
    assert_eq!(
        (all.count(), tests.collect::<Vec<_>>()),
        (7, vec!["7", "7"])
    );
    let message = document
        .descendants()
        .find(|node| node.has_tag_name("system-out"));
    let message = message.and_then(|node| node.text()).unwrap();
    assert!(
        message.starts_with("2 OK, 1 timeout/unreachable, 1 rate-limited, 3 HTTP error\nunhealthy"),
        "{message}"
    );
}

#[test]
fn a_hang_is_a_failure_of_its_core_and_skips_the_rest() {
    let test_env = TestEnv::new().core("/up", silent()).aux("/page", ok());
    test_env.run(["--junit", "out.xml"]).exits(1).hung(true);
    let text = fs::read_to_string(test_env.dir().join("out.xml")).unwrap();
    let document = Document::parse(&text).unwrap();
    is_formed(document.root_element());
    let failures = cases(&document, "failure", "failures");
    assert_eq!(failures[0].0, "GET /up");
    assert!(failures[0].1.contains("timeout"), "{failures:?}");
    let skipped = cases(&document, "skipped", "skipped");
    assert_eq!(skipped, [("GET /page", "skipped, the backend hung")]);
    assert!(text.contains("recovery: not_configured"), "{text}");
}

#[test]
fn reports_are_written_whatever_the_verdict_and_others_may_read_them() {
    for (test_env, code) in [(healthy(), 0), (unhealthy(), 1)] {
        let old = test_env.dir().join("out.xml");
        fs::write(&old, "old").unwrap();
        fs::set_permissions(&old, Permissions::from_mode(0o600)).unwrap();
        let run = test_env.run(["--junit", "out.xml", "--metrics", "out.prom"]);
        run.exits(code).stderr_is_empty();
        for (name, part) in [("out.xml", "</testsuites>"), ("out.prom", "_healthy{")] {
            let path = test_env.dir().join(name);
            assert!(fs::read_to_string(&path).unwrap().contains(part), "{name}");
            // The old file's mode does not count: node_exporter runs as another user.
            let umask = fs::metadata(test_env.dir().join("routes.json"))
                .unwrap()
                .mode();
            assert_eq!(path.metadata().unwrap().mode(), umask, "{name}");
        }
    }
}

/// A pipe that accepts no more until its reader reads.
fn full_pipe() -> (PipeReader, PipeWriter) {
    let (reader, mut writer) = std::io::pipe().unwrap();
    let size = fcntl(&writer, FcntlArg::F_GETPIPE_SZ).unwrap();
    writer
        .write_all(&vec![b' '; size.try_into().unwrap()])
        .unwrap();
    (reader, writer)
}

#[test]
fn a_path_that_cannot_work_is_reported_before_the_first_probe_and_does_not_prevent_a_recovery() {
    let Some(systemd) = Systemd::start() else {
        return;
    };
    let fake = Fake::new(&systemd);
    let (reader, writer) = full_pipe();
    let mut command =
        fake.test_env
            .command(["--format", "json", "--dry-run", "--metrics", "no/out"]);
    command.stdout(Stdio::piped()).stderr(writer);
    let child = command.spawn().unwrap();
    drop(command);

    // The pipe accepts no more, so the program waits at its first message, in a system call on
    // one descriptor (proc_pid_syscall(5)).
    let syscall = || {
        let program = systemd.find("no/out")?;
        fs::read_to_string(format!("/proc/{program}/syscall")).ok()
    };
    #[cfg(target_arch = "x86_64")]
    let poll = nix::libc::SYS_poll;
    #[cfg(not(target_arch = "x86_64"))]
    let poll = nix::libc::SYS_ppoll;
    assert!(wait_until(Duration::from_secs(5), || {
        let text = syscall().unwrap_or_default();
        let words: Vec<_> = text.split(' ').collect();
        words.first() == Some(&poll.to_string().as_str()) && words.get(2) == Some(&"0x1")
    }));
    assert_eq!(fake.backend.requests(), 0);

    let said = std::io::read_to_string(reader).unwrap();
    let complaint = r#"cannot write the metrics "no/out": no such file or directory; create its directory first"#;
    assert!(said.trim_start().starts_with(complaint), "{said}");
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["recovery"]["outcome"], "would_kill", "{report}");
}

#[test]
fn a_stderr_that_nobody_reads_prevents_neither_recovery_nor_report() {
    let Some(systemd) = Systemd::start() else {
        return;
    };
    let fake = Fake::with(&systemd, "backend.service", &["500", SILENT]);
    fake.change("NeedDaemonReload", Some("yes"));
    let (reader, writer) = full_pipe();
    let mut command = fake.test_env.command([
        "--dry-run",
        "--wait",
        "20",
        "--metrics",
        "no/out",
        "--junit",
        "out.xml",
    ]);
    command.stdout(Stdio::null()).stderr(writer);
    let mut child = command.spawn().unwrap();
    drop(command);

    let path = fake.test_env.dir().join("out.xml");
    let written = wait_until(Duration::from_secs(10), || path.exists());
    // The rest of its messages.
    let said = std::io::read_to_string(reader).unwrap();
    let said = said.trim_start();
    assert_eq!(child.wait().unwrap().code(), Some(1));
    assert!(written, "{said}");
    let junit = fs::read_to_string(path).unwrap();
    assert!(junit.contains("recovery: would_kill"), "{junit}");
    assert!(junit.contains("daemon-reload"), "{junit}");
    assert!(said.contains("warning: "), "{said}");
}

#[test]
fn a_report_that_cannot_be_written_is_exit_status_2_unless_the_backend_is_unhealthy() {
    for (test_env, code) in [(healthy(), 2), (unhealthy(), 1)] {
        let pipe = test_env.dir().join("pipe");
        mkfifo(&pipe, Mode::S_IRWXU).unwrap();
        for path in [".", "missing/out", "pipe", "routes.json/out", ""] {
            let run = test_env.run(["--metrics", path, "--junit", "out.xml"]);
            run.exits(code).stderr_has("cannot write the metrics");
            // The other report is still written.
            let junit = fs::read_to_string(test_env.dir().join("out.xml")).unwrap();
            assert!(junit.contains("</testsuites>"), "{path}: {junit}");
            fs::remove_file(test_env.dir().join("out.xml")).unwrap();
        }
        assert!(!pipe.metadata().unwrap().is_file());
    }
}

#[test]
fn two_reports_never_replace_each_other() {
    let test_env = healthy();
    test_env.server().may_stay_unused();
    symlink("out", test_env.dir().join("link")).unwrap();
    symlink(".", test_env.dir().join("folder")).unwrap();
    let here = test_env.dir().join("out");
    let names = ["out", "./out", "link", "folder/out", here.to_str().unwrap()];
    for there in [false, true] {
        for name in names {
            let run = test_env.run(["--junit", "out", "--metrics", name]);
            run.exits(2)
                .stdout_is_empty()
                .stderr_has("are the same file; give each");
        }
        assert_eq!(here.exists(), there);
        fs::write(&here, "old").unwrap();
    }
    let missing = test_env.run(["--junit", "missing/out", "--metrics", "missing/out"]);
    missing.exits(2).stdout_is_empty();
    assert_eq!(test_env.server().connections(), 0);
    test_env
        .run(["--junit", "out", "--metrics", "out2"])
        .exits(0);
}

#[test]
fn a_report_never_replaces_the_manifest() {
    let test_env = healthy();
    test_env.server().may_stay_unused();
    let manifest = test_env.write_manifest();
    symlink("routes.json", test_env.dir().join("link")).unwrap();
    fs::hard_link(&manifest, test_env.dir().join("hard")).unwrap();
    for option in ["--junit", "--metrics"] {
        for report in ["routes.json", "./routes.json", "link", "hard"] {
            for manifest in ["routes.json", "link"] {
                let run = test_env.run(["--manifest", manifest, option, report]);
                run.exits(2)
                    .stdout_is_empty()
                    .stderr_has("are the same file; give each");
            }
            // The default, and standard input.
            test_env.run([option, report]).exits(2);
            let mut command = test_env.command(["--manifest", "-", option, report]);
            command.stdin(fs::File::open(&manifest).unwrap());
            test_env.spawn(command).finish().exits(2).stdout_is_empty();
        }
    }
    assert_eq!(fs::read_to_string(&manifest).unwrap(), test_env.manifest());
    assert_eq!(test_env.server().connections(), 0);
}

#[test]
fn a_manifest_that_is_a_pipe_stays_unread_if_it_is_a_report_too() {
    let test_env = healthy();
    test_env.server().may_stay_unused();
    let pipe = test_env.dir().join("pipe");
    mkfifo(&pipe, Mode::S_IRWXU).unwrap();
    let run = test_env.run(["--manifest", "pipe", "--metrics", "pipe"]);
    run.exits(2).stderr_has("are the same file; give each");
    assert_eq!(test_env.server().connections(), 0);
}

#[test]
fn a_pipe_that_is_read_slowly_gets_the_whole_report() {
    // Reports of 200 KB, as a pipe holds 64 KiB.
    let mut test_env = healthy();
    for number in 0..300 {
        test_env = test_env.aux(&format!("/{number}-{}", "x".repeat(100)), ok());
    }
    let pipe = test_env.dir().join("pipe");
    mkfifo(&pipe, Mode::S_IRWXU).unwrap();
    let slow = thread::spawn(move || {
        let mut reader = fs::File::open(pipe).unwrap();
        let (mut all, mut part) = (vec![], [0; 4_096]);
        loop {
            match reader.read(&mut part).unwrap() {
                0 => return String::from_utf8(all).unwrap(),
                count => all.extend_from_slice(&part[..count]),
            }
            // 20 KB/s: longer than the limit in all.
            thread::sleep(Duration::from_millis(200));
        }
    });
    test_env
        .run(["--metrics", "pipe"])
        .exits(0)
        .stderr_is_empty();
    let text = slow.join().unwrap();
    assert!(text.len() > 150_000, "{}", text.len());
    let last = "\nscidex_route_health_last_run_duration_seconds{";
    assert!(text.contains(last) && text.ends_with('\n'), "{text}");
}

#[test]
fn a_standard_stream_may_be_a_report() {
    let test_env = healthy();
    let run = test_env.run_as_is(["--metrics", "/dev/stderr", "--junit", "/dev/stdout"]);
    run.exits(0)
        .stderr_has("scidex_route_health_healthy{")
        .stdout_has("</testsuites>");
    assert!(
        run.stdout.lines().last().unwrap().starts_with("healthy"),
        "{run:?}"
    );
}
