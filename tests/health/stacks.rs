//! Stacks that the backend prints at `dump_signal` before it is killed.

use std::fs;

use serde_json::json;

use crate::network::{PrivateNetwork, RESTARTS, start_systemd};
use crate::run::Run;
use crate::systemd::recovery;

const UNIT: &str = "own.service";
const URL: &str = "http://127.0.0.1:8000";

/// A run with `dump_signal` against a backend with these options, which never answers: the run, whether its
/// main process lives, and what it wrote to stderr.
#[track_caller]
fn recover(options: &str) -> Option<(Run, bool, String)> {
    let systemd = start_systemd()?;
    let network = PrivateNetwork::new(&systemd);
    let folder = tempfile::TempDir::new().unwrap();
    let errors = folder.path().join("errors");
    let options = format!("--listen 127.0.0.1:8000 --silent /up {options}");
    let service = format!("{RESTARTS}\nStandardError=append:{}", errors.display());
    network.start(UNIT, &options, &service);
    let pid = systemd.main_pid(UNIT);
    let keys = json!({ "dump_signal": "SIGUSR1", "verify_seconds": 1 });
    let test_env = network
        .watch(UNIT, URL)
        .top("recovery", recovery(UNIT, keys));
    let run = test_env.run([]);
    let text = fs::read_to_string(errors).unwrap();
    Some((run, systemd.is_alive(pid), text))
}

#[test]
fn stacks_are_printed_before_the_kill() {
    let Some((run, alive, stacks)) = recover("--stacks") else {
        return;
    };
    run.exits(1).hung(true).outcome("not_recovered");
    assert!(!alive);
    assert!(stacks.contains("serve_one"), "{stacks}");
    let dumped = &run.report["recovery"]["dump"];
    let pid = run.report["recovery"]["pid"].to_string();
    assert!(dumped.to_string().contains(&pid), "{dumped}");
}

#[test]
fn a_process_that_does_not_catch_the_signal_does_not_get_it() {
    let Some((run, alive, stacks)) = recover("") else {
        return;
    };
    run.exits(1).hung(true).outcome("not_recovered");
    assert!(!alive);
    assert_eq!(stacks, "");
    let dumped = &run.report["recovery"]["dump"];
    let pid = run.report["recovery"]["pid"].to_string();
    assert!(!dumped.to_string().contains(&pid), "{dumped}");
}

#[test]
fn a_backend_that_answers_because_of_the_signal_is_left_alone() {
    let Some((run, alive, _)) = recover("--continues") else {
        return;
    };
    run.refused("answered");
    assert!(alive, "{UNIT} was killed");
}
