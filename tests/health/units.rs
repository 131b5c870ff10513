//! Units whose settings or names look dangerous and are not: they hang and are recovered. And settings
//! that are dangerous cause a warning on healthy runs.

use crate::network::{PrivateNetwork, RESTARTS, hang, is_recovered, start_systemd};

/// Each unit hangs and is recovered, one after the other, with these settings and no process beside its
/// main one.
#[track_caller]
fn recovers(units: &[(&str, &str)]) {
    let Some(systemd) = start_systemd() else {
        return;
    };
    let network = PrivateNetwork::new(&systemd);
    for (port, (unit, service)) in (8000..).zip(units) {
        network.start(unit, &format!("--listen 127.0.0.1:{port}"), service);
        let scene = network.watch(unit, &format!("http://127.0.0.1:{port}"));
        let healthy = scene.run([]);
        healthy.exits(0).outcome("not_needed");
        assert_eq!(healthy.report["warnings"], serde_json::json!([]), "{unit}");
        hang(&systemd, unit);
        is_recovered(&systemd, unit, &scene);
    }
}

#[test]
fn a_kill_mode_that_leaves_processes_alone_hinders_nothing_where_there_are_none() {
    let process = format!("{RESTARTS}\nKillMode=process");
    let none = format!("{RESTARTS}\nKillMode=none");
    recovers(&[("process.service", &process), ("none.service", &none)]);
}

#[test]
fn settings_for_left_over_processes_hinder_nothing_where_there_are_none() {
    let no_sigkill = format!("{RESTARTS}\nSendSIGKILL=no");
    recovers(&[
        ("no-sigkill.service", &no_sigkill),
        (
            "infinity.service",
            "Restart=always\nRestartSec=1ms\nTimeoutStopSec=infinity",
        ),
        (
            "on-success.service",
            "Restart=on-success\nRestartSec=1ms\nSuccessExitStatus=SIGKILL",
        ),
    ]);
}

#[test]
fn units_with_unusual_names_are_recovered() {
    // systemd.unit(5) puts an instance into a slice of its own, whose name escapes the dash.
    recovers(&[
        ("scidex-api@blue.service", RESTARTS),
        (r"a\x2db.service", RESTARTS),
    ]);
}

#[test]
fn left_over_processes_that_would_keep_systemd_from_a_restart_are_told_of_on_healthy_runs() {
    let Some(systemd) = start_systemd() else {
        return;
    };
    let network = PrivateNetwork::new(&systemd);
    for (port, unit, setting, options) in [
        (8000, "process.service", "KillMode=process", "--workers 1"),
        (8001, "sigkill.service", "SendSIGKILL=no", "--deaf-child"),
        (
            8002,
            "infinity.service",
            "TimeoutStopSec=infinity",
            "--deaf-child",
        ),
    ] {
        let options = format!("--listen 127.0.0.1:{port} {options}");
        network.start(unit, &options, &format!("Restart=always\n{setting}"));
        let scene = network.watch(unit, &format!("http://127.0.0.1:{port}"));
        let run = scene.run([]);
        run.exits(0).outcome("not_needed");
        let warnings = run.report["warnings"].to_string();
        assert!(
            warnings.contains(unit) && warnings.contains(setting),
            "{run:?}"
        );
        // A stop would wait for the deaf child, too.
        systemd.systemctl(&["kill", "--signal=KILL", unit]);
    }
}
