//! What operators copy, tried out: the manifest, the units, and the story that the README promises.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tempfile::TempDir;

use crate::lacking::lacking;
use crate::scene::{BINARY, Scene};
use crate::systemd::Systemd;

const SERVICE: &str = "scidex-route-health.service";
const TIMER: &str = "scidex-route-health.timer";

fn shipped(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

/// Everything it said, for a failing assertion.
fn said(output: &Output) -> String {
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    format!(
        "{}\n{}{}",
        output.status,
        text(&output.stdout),
        text(&output.stderr)
    )
}

/// `systemd-analyze`, or `None` where there is none.
fn analyze(args: &[&str]) -> Option<Output> {
    let output = Command::new("systemd-analyze").args(args).output();
    if output.is_err() {
        lacking("no systemd-analyze");
    }
    output.ok()
}

#[test]
fn the_shipped_manifest_is_valid() {
    let scene = Scene::new();
    scene.server().may_stay_unused();
    let path = shipped("routes.json");
    let run = scene.run_as_is(["--validate", "--manifest", path.to_str().unwrap()]);
    run.exits(0)
        .stderr_is_empty()
        .stdout_has("17 routes")
        .stdout_has("3 core");
}

#[test]
fn the_shipped_units_are_valid() {
    let dir = TempDir::new().unwrap();
    // The program is not installed here; only its path is exchanged.
    let service = fs::read_to_string(shipped(SERVICE)).unwrap();
    assert!(service.contains("ExecStart=/usr/bin/scidex-route-health "));
    let service = service.replace("/usr/bin/scidex-route-health", BINARY);
    fs::write(dir.path().join(SERVICE), service).unwrap();
    fs::copy(shipped(TIMER), dir.path().join(TIMER)).unwrap();
    let units = [SERVICE, TIMER].map(|name| dir.path().join(name));
    let [service, timer] = units.each_ref().map(|path| path.to_str().unwrap());
    let Some(output) = analyze(&["verify", "--man=no", service, timer]) else {
        return;
    };
    let silent = output.stdout.is_empty() && output.stderr.is_empty();
    assert!(output.status.success() && silent, "{}", said(&output));
}

#[test]
fn the_shipped_service_has_few_privileges() {
    let path = shipped(SERVICE);
    let path = path.to_str().unwrap();
    let args = [
        "security",
        "--offline=true",
        "--threshold=15",
        "--no-pager",
        path,
    ];
    let Some(output) = analyze(&args) else { return };
    assert!(output.status.success(), "{}", said(&output));
}

#[test]
fn the_timer_runs_four_times_an_hour() {
    let timer = fs::read_to_string(shipped(TIMER)).unwrap();
    let calendar = timer
        .lines()
        .find_map(|line| line.strip_prefix("OnCalendar="))
        .unwrap();
    let Some(output) = analyze(&["calendar", "--iterations=4", calendar]) else {
        return;
    };
    let text = said(&output);
    for minute in [":00:00", ":15:00", ":30:00", ":45:00"] {
        assert!(text.contains(minute), "{minute} in {text}");
    }
}

#[test]
fn the_demo_ends_well_without_a_systemd() {
    let alone = Command::new(crate::backend::backend_program())
        .env_clear()
        .env("PATH", "/nonexistent")
        .output()
        .unwrap();
    let text = said(&alone);
    assert!(alone.status.success(), "{text}");
    assert!(text.contains("Nothing can be recovered here"), "{text}");
    assert!(text.contains("recovery: failed"), "{text}");
}

#[test]
fn the_demo_tells_the_whole_story_and_cleans_up() {
    let Some(systemd) = Systemd::start() else {
        return;
    };
    let words = systemd.enter(Path::new("/"));
    let mut command = Command::new(&words[0]);
    command
        .args(&words[1..])
        .arg(crate::backend::backend_program());
    command.envs(systemd.environment()).env_remove("CARGO");
    let output = command.output().unwrap();
    let text = said(&output);
    assert!(output.status.success(), "{text}");
    assert!(
        text.contains("17 OK, 0 timeout/unreachable, 0 rate-limited, 0 HTTP error"),
        "{text}"
    );
    assert!(text.contains("recovery: recovered"), "{text}");
    let left = systemd.try_systemctl(&["list-units", "--all", "--no-legend", "scidex-*"]);
    assert_eq!(left.trim(), "", "units left behind");
}
