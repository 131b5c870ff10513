//! Units whose settings or names look problematic but are not: they hang and are recovered. Settings that are
//! a problem cause a warning on healthy runs.

use crate::network::{PrivateNetwork, RESTARTS, hang, is_recovered, start_systemd};

/// Units with these settings, and no process beside the main one, hang and are recovered, one after the
/// other.
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
fn a_kill_mode_that_spares_other_processes_is_no_obstacle_without_any() {
    let process = format!("{RESTARTS}\nKillMode=process");
    let none = format!("{RESTARTS}\nKillMode=none");
    recovers(&[("process.service", &process), ("none.service", &none)]);
}

#[test]
fn settings_for_left_over_processes_are_no_obstacle_without_any() {
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
    // systemd puts an instance into its own slice, whose name escapes the dash: systemd.unit(5).
    recovers(&[
        ("scidex-api@blue.service", RESTARTS),
        (r"a\x2db.service", RESTARTS),
    ]);
}

#[test]
fn healthy_runs_warn_of_left_over_processes_that_would_prevent_a_restart() {
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
        // A stop would wait for the child that ignores SIGTERM, too.
        systemd.systemctl(&["kill", "--signal=KILL", unit]);
    }
}
