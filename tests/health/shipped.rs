//! Tests of the files that operators copy: the manifest, the units, and the demo.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::LazyLock;

use tempfile::TempDir;

use crate::build::build;
use crate::skip::skip_unless_ci;
use crate::systemd::Systemd;
use crate::test_env::{BINARY, TestEnv};

const SERVICE: &str = "scidex-route-health.service";
const TIMER: &str = "scidex-route-health.timer";
const CORE_SERVICE: &str = "contrib/systemd/scidex-route-health-core.service";
const CORE_TIMER: &str = "contrib/systemd/scidex-route-health-core.timer";
/// For several backends on one host.
const TEMPLATES: [&str; 4] = [
    "contrib/systemd/scidex-route-health@.service",
    "contrib/systemd/scidex-route-health@.timer",
    "contrib/systemd/scidex-route-health-core@.service",
    "contrib/systemd/scidex-route-health-core@.timer",
];

fn shipped(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

fn read(name: &str) -> String {
    fs::read_to_string(shipped(name)).unwrap()
}

/// Its whole output, for a failing assertion.
fn said(output: &Output) -> String {
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    format!(
        "{}\n{}{}",
        output.status,
        text(&output.stdout),
        text(&output.stderr)
    )
}

/// Runs `systemd-analyze`; `None` if it cannot be used, see [`skip_unless_ci`].
fn analyze(args: &[&str]) -> Option<Output> {
    let why = match Command::new("systemd-analyze").args(args).output() {
        Err(_) => "no systemd-analyze",
        Ok(output) if said(&output).contains("create directory '/run/systemd/'") => {
            "systemd-analyze needs root where no systemd has run"
        }
        Ok(output) => return Some(output),
    };
    skip_unless_ci(why);
    None
}

#[test]
fn the_shipped_manifest_is_valid() {
    let test_env = TestEnv::new();
    test_env.server().may_stay_unused();
    let path = shipped("routes.json");
    let run = test_env.run_as_is(["--validate", "--manifest", path.to_str().unwrap()]);
    run.exits(0)
        .stderr_is_empty()
        .stdout_has("17 routes")
        .stdout_has("3 core");
}

#[test]
fn the_shipped_units_are_valid() {
    let dir = TempDir::new().unwrap();
    let plain = [SERVICE, TIMER, CORE_SERVICE, CORE_TIMER];
    let units: Vec<String> = plain
        .into_iter()
        .chain(TEMPLATES)
        .map(|name| {
            let path = dir.path().join(Path::new(name).file_name().unwrap());
            // The program is not installed here, so its path is replaced.
            let unit = read(name).replace("/usr/bin/scidex-route-health ", &format!("{BINARY} "));
            assert_eq!(unit.contains(BINARY), name.ends_with(".service"), "{name}");
            fs::write(&path, unit).unwrap();
            path.to_str().unwrap().to_owned()
        })
        .collect();
    let mut args = vec!["verify", "--man=no"];
    args.extend(units.iter().map(String::as_str));
    let Some(output) = analyze(&args) else {
        return;
    };
    let silent = output.stdout.is_empty() && output.stderr.is_empty();
    assert!(output.status.success() && silent, "{}", said(&output));
}

#[test]
fn the_shipped_services_have_few_privileges() {
    for name in [SERVICE, CORE_SERVICE] {
        let path = shipped(name);
        let path = path.to_str().unwrap();
        let args = [
            "security",
            "--offline=true",
            "--threshold=15",
            "--no-pager",
            path,
        ];
        let Some(output) = analyze(&args) else { return };
        assert!(output.status.success(), "{name}: {}", said(&output));
    }
}

#[test]
fn the_services_differ_only_in_their_command_and_the_templates_in_their_instance() {
    let settings = |name: &str| -> Vec<String> {
        let unit = read(name);
        let lines = unit
            .lines()
            .filter(|line| !line.is_empty() && !line.starts_with('#'));
        lines
            .filter(|line| !line.starts_with("Description="))
            .map(|line| line.replace(" --core", ""))
            .collect()
    };
    assert!(read(CORE_SERVICE).contains(" --core "));
    assert_eq!(settings(SERVICE), settings(CORE_SERVICE));

    let [all, all_timer, core, core_timer] = TEMPLATES;
    for (plain, template) in [
        (SERVICE, all),
        (TIMER, all_timer),
        (CORE_SERVICE, core),
        (CORE_TIMER, core_timer),
    ] {
        assert_eq!(
            read(plain).contains(" --core "),
            read(template).contains(" --core ")
        );
        let instance: Vec<String> = settings(plain)
            .iter()
            .map(|line| line.replace("/routes.json", "/%i.json"))
            .map(|line| line.replace("/environment", "/%i.environment"))
            .map(|line| line.replace("/%N.prom", "/%i/%N.prom"))
            // Its own, because instances may have different users.
            .map(|line| {
                line.replace(
                    "Directory=scidex-route-health",
                    "Directory=scidex-route-health/%i",
                )
            })
            .collect();
        assert_eq!(settings(template), instance, "{template}");
    }
}

#[test]
fn the_timers_elapse_at_the_documented_times() {
    for (name, times) in [
        (
            TIMER,
            [":00:00 ", ":15:00 ", ":30:00 ", ":45:00 "].as_slice(),
        ),
        // Never at the same time as the other one.
        (CORE_TIMER, &[":30 "]),
    ] {
        let timer = read(name);
        let calendar = timer
            .lines()
            .find_map(|line| line.strip_prefix("OnCalendar="))
            .unwrap();
        let Some(output) = analyze(&["calendar", "--iterations=4", calendar]) else {
            return;
        };
        let text = said(&output);
        for time in times {
            assert!(text.contains(time), "{name}: {time} in {text}");
        }
    }
}

#[test]
fn the_demo_shows_a_recovery_without_a_systemd() {
    // A PATH without systemctl, and without unshare for the demo's own systemd.
    let bin = TempDir::new().unwrap();
    symlink("/bin/sh", bin.path().join("sh")).unwrap();
    let alone = Command::new(demo())
        .env_clear()
        .env("PATH", bin.path())
        .output()
        .unwrap();
    let text = said(&alone);
    assert!(alone.status.success(), "{text}");
    assert!(text.contains("STAND-IN, not systemd"), "{text}");
    if text.contains("not recovered: this environment cannot prove") {
        return skip_unless_ci("the demo cannot create a control group");
    }
    assert!(text.contains("recovery: recovered"), "{text}");
}

#[test]
fn the_demo_shows_every_step_and_cleans_up() {
    let Some(systemd) = Systemd::start() else {
        return;
    };
    let words = systemd.enter(Path::new("/"));
    let mut command = Command::new(&words[0]);
    command.args(&words[1..]).arg(demo());
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

/// The demo, built here because cargo does not build it when only some tests are requested.
fn demo() -> &'static Path {
    static PROGRAM: LazyLock<PathBuf> = LazyLock::new(|| {
        let folder = Path::new(BINARY).parent().unwrap();
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        build(cargo, folder, ["--example", "demo"]).unwrap();
        folder.join("examples/demo")
    });
    &PROGRAM
}
