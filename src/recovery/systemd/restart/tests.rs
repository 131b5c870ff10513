use std::time::Duration;

use super::*;
use crate::recovery::samples::context;
use crate::recovery::systemd::samples::{demo, message_of, neighbours};

/// What `no_restart` says about `unit`; empty if it says nothing, the error if a property is missing.
fn judge(unit: &Unit, signal: KillSignal, others: usize) -> String {
    let neighbours = neighbours("worker.service", &["ActiveState=inactive"]);
    let plan = RecoveryPlan {
        signal,
        ..context().plan
    };
    let facts = RestartFacts {
        plan: &plan,
        unit,
        others,
        neighbours: &neighbours,
        now: unit
            .moment("ExecMainStartTimestampMonotonic")
            .unwrap_or(Monotonic::from_micros(0))
            + Duration::from_secs(600),
    };
    message_of(facts.no_restart())
}

/// Each change, with its message; none if the unit restarts.
#[track_caller]
fn expect(signal: KillSignal, others: usize, cases: &[(&[&str], Option<&str>)]) {
    for (changes, refused) in cases {
        let why = judge(&demo(changes), signal, others);
        assert_eq!(why.is_empty(), refused.is_none(), "{changes:?}: {why}");
        assert!(
            why.contains(refused.unwrap_or_default()),
            "{changes:?}: {why}"
        );
    }
}

const DASH: &str =
    "ExecStart={ path=/bin/sh ; argv[]=sh ; ignore_errors=yes ; start_time=[n/a] ; pid=0 }";
const STOP_POST: &str =
    "ExecStopPost={ path=/bin/sh ; argv[]=sh ; ignore_errors=no ; start_time=[n/a] ; pid=0 }";

#[test]
fn no_restart_follows_systemd() {
    let restarts = |changes: &[&str]| judge(&demo(changes), KillSignal::Kill, 0).is_empty();
    // Restart=, then whether systemd restarts after a signal that is plain, listed in
    // SuccessExitStatus=, RestartPreventExitStatus=, RestartForceExitStatus=.
    for (restart, plain, clean, prevented, forced) in [
        ("no", false, false, false, true),
        ("always", true, true, false, true),
        ("on-success", false, true, false, true),
        ("on-failure", true, false, false, true),
        ("on-abnormal", true, false, false, true),
        ("on-abort", true, false, false, true),
        ("on-watchdog", false, false, false, true),
    ] {
        let restart = format!("Restart={restart}");
        for (list, expected) in [
            ("SuccessExitStatus=", plain),
            ("SuccessExitStatus=9 TERM", plain),
            ("SuccessExitStatus=4 KILL TERM", clean),
            ("SuccessExitStatus=SIGKILL", clean),
            ("RestartPreventExitStatus=1 KILL", prevented),
            ("RestartForceExitStatus=KILL", forced),
        ] {
            assert_eq!(restarts(&[&restart, list]), expected, "{restart} {list}");
        }
        let prevented = "RestartPreventExitStatus=KILL";
        assert!(!restarts(&[
            &restart,
            prevented,
            "RestartForceExitStatus=KILL"
        ]));
    }
}

#[test]
fn no_restart_knows_what_systemd_counts_as_success() {
    const FORCED: &str = "RestartForceExitStatus=KILL ABRT";
    const CLEAN: &str = "SuccessExitStatus=KILL ABRT";
    const REMAINS: &str = "RemainAfterExit=yes";
    for signal in [KillSignal::Kill, KillSignal::Abort] {
        expect(
            signal,
            0,
            &[
                (&[DASH], None),
                (&[DASH, "Restart=on-success"], None),
                (
                    &[DASH, "Restart=on-success", STOP_POST],
                    Some("the way ExecStopPost= exits"),
                ),
                (&[DASH, "Restart=on-failure", FORCED], None),
                (
                    &[DASH, "Restart=on-failure"],
                    Some("Restart=on-failure, and the \"-\""),
                ),
                (
                    &[DASH, "Restart=on-abort"],
                    Some("Restart=on-abort, and the \"-\""),
                ),
                (&[REMAINS], None),
                (&[REMAINS, "Restart=on-failure"], None),
                (
                    &[REMAINS, CLEAN],
                    Some("RemainAfterExit=yes, and SuccessExitStatus= names"),
                ),
                (
                    &[REMAINS, CLEAN, FORCED],
                    Some("RemainAfterExit=yes, and SuccessExit"),
                ),
                (
                    &[REMAINS, DASH, FORCED],
                    Some("RemainAfterExit=yes, and the \"-\""),
                ),
                (&["RemainAfterExit"], None),
                (&["ExitType"], None),
                (&["ExitType=cgroup"], Some("ExitType=cgroup")),
                (&["ExitType=cgroup", FORCED], Some("ExitType=cgroup")),
                (&["ExitType=unheard-of"], Some("reported an invalid")),
                (&["RemainAfterExit="], Some("reported an invalid")),
                (&["ExecStart=sh"], Some("reported an invalid")),
                (&["Restart=sometimes"], Some("reported an invalid")),
                (&["Restart=sometimes", FORCED], Some("reported an invalid")),
                (
                    &["RestartForceExitStatus=[unprintable]"],
                    Some("reported an invalid"),
                ),
                (
                    &["SuccessExitStatus"],
                    Some("did not report SuccessExitStatus="),
                ),
                (
                    &["RestartUSec=infinity"],
                    Some("RestartSec=infinity never ends"),
                ),
                (
                    &["RestartUSec=infinity", FORCED],
                    Some("RestartSec=infinity never ends"),
                ),
            ],
        );
    }
    let both = format!(
        "{}{DASH}\n{}",
        crate::recovery::systemd::samples::DEMO,
        &DASH.replace("yes", "no")
    );
    let why = judge(&Unit::parse(both.as_bytes()).unwrap(), KillSignal::Kill, 0);
    assert!(why.contains("both with and without"), "{why}");
}

#[test]
fn no_restart_after_an_abort_considers_every_end() {
    expect(
        KillSignal::Abort,
        0,
        &[
            (&["RestartPreventExitStatus="], None),
            (&["RestartPreventExitStatus=ABRT"], Some("after SIGABRT")),
            (&["RestartPreventExitStatus=KILL"], Some("after SIGKILL")),
            // A core dump is no success.
            (
                &["Restart=on-success", "SuccessExitStatus=ABRT KILL"],
                Some("after SIGABRT"),
            ),
        ],
    );
    expect(
        KillSignal::Kill,
        0,
        &[
            (&["RestartPreventExitStatus=ABRT"], None),
            (&["Restart=on-success", "SuccessExitStatus=ABRT KILL"], None),
        ],
    );
}

#[test]
fn no_restart_considers_the_processes_that_are_left() {
    let cases: &[(&[&str], _)] = &[
        (&[], None),
        (&["KillMode=mixed"], None),
        (&["KillMode=process"], Some("KillMode=process leaves")),
        (&["KillMode=none"], Some("KillMode=none leaves")),
        (&["SendSIGKILL=no"], Some("SendSIGKILL=no waits")),
        (
            &["SendSIGKILL=no", "KillMode=mixed"],
            Some("SendSIGKILL=no waits"),
        ),
        (
            &["TimeoutStopUSec=infinity"],
            Some("TimeoutStopSec=infinity waits"),
        ),
        (&["TimeoutStopUSec=infinity", "KillMode=mixed"], None),
        (
            &["Restart=on-success", "SuccessExitStatus=KILL"],
            Some("with Restart=on-success the way they exit decides"),
        ),
        (
            &["KillMode=process", "RestartForceExitStatus=KILL"],
            Some("KillMode=process leaves"),
        ),
        (&["KillMode"], Some("did not report KillMode=")),
        (&["KillMode=all"], Some("reported an invalid KillMode=")),
        (&["SendSIGKILL"], Some("did not report SendSIGKILL=")),
        (
            &["TimeoutStopUSec"],
            Some("did not report TimeoutStopUSec="),
        ),
    ];
    expect(KillSignal::Kill, 1, cases);
    for (changes, _) in cases {
        assert_eq!(
            judge(&demo(changes), KillSignal::Kill, 0),
            "",
            "{changes:?}"
        );
    }
    let why = judge(&demo(&["KillMode=process"]), KillSignal::Kill, 3);
    assert!(
        why.contains("3 other processes of the unit are left"),
        "{why}"
    );
    assert!(why.contains("\"systemctl edit demo.service\""), "{why}");
}

#[test]
fn no_restart_knows_what_the_failure_itself_does() {
    const CLEAN: &str = "SuccessExitStatus=KILL";
    let machine = |action| format!("FailureAction={action}");
    for (action, effect) in [
        ("reboot", "reboot the machine"),
        ("reboot-force", "reboot the machine"),
        ("kexec", "reboot the machine"),
        ("poweroff-immediate", "switch the machine off"),
        ("halt", "switch the machine off"),
        ("soft-reboot", "restart all of user space"),
        ("exit", "end the service manager"),
        ("unheard-of", "act on the whole machine"),
    ] {
        expect(KillSignal::Kill, 0, &[(&[&machine(action)], Some(effect))]);
    }
    let failure: &str = &machine("reboot");
    let success = "SuccessAction=exit";
    let isolate = ["OnFailure=rescue.target", "OnFailureJobMode=isolate"];
    let on_success = ["OnSuccess=done.target", "OnSuccessJobMode=isolate"];
    let (normal, direct) = ("RestartMode=normal", "RestartMode=direct");
    expect(
        KillSignal::Kill,
        0,
        &[
            (&[failure, direct], None),
            (&[failure, CLEAN], None),
            (&[failure, CLEAN, STOP_POST], Some("FailureAction=reboot")),
            (
                &[success],
                Some("SuccessAction=exit of demo.service would end the service manager"),
            ),
            (&[success, normal], None),
            (&[success, normal, CLEAN], Some("SuccessAction=exit")),
            (&[success, direct, CLEAN], None),
            (&["FailureAction"], Some("did not report FailureAction=")),
            (&[isolate[0]], None),
            (&[isolate[1]], None),
            (
                &isolate,
                Some("start rescue.target (OnFailure=) and stop everything else"),
            ),
            (&[isolate[0], isolate[1], direct], None),
            (&[isolate[0], isolate[1], CLEAN], None),
            (&on_success, None),
            (
                &[on_success[0], on_success[1], CLEAN],
                Some("start done.target (OnSuccess=)"),
            ),
        ],
    );
    expect(
        KillSignal::Kill,
        1,
        &[(&[failure, CLEAN], Some("FailureAction=reboot"))],
    );
}

#[test]
fn no_restart_knows_a_start_limit_that_is_certain() {
    // The start was 10 minutes ago.
    expect(
        KillSignal::Kill,
        0,
        &[
            (
                &["StartLimitBurst=1", "StartLimitIntervalUSec=1h"],
                Some("StartLimitIntervalSec=1h, and the last start was 600 s ago"),
            ),
            (
                &["StartLimitBurst=1", "StartLimitIntervalUSec=infinity"],
                Some("StartLimitBurst=1 in"),
            ),
            (&["StartLimitBurst=1", "StartLimitIntervalUSec=10min"], None),
            (&["StartLimitBurst=1", "StartLimitIntervalUSec=0"], None),
            (&["StartLimitBurst=0", "StartLimitIntervalUSec=1h"], None),
            (&["StartLimitBurst=2", "StartLimitIntervalUSec=1h"], None),
            (
                &["StartLimitBurst"],
                Some("did not report StartLimitBurst="),
            ),
            (
                &["StartLimitIntervalUSec=soon"],
                Some("reported an invalid"),
            ),
            (
                &[
                    "StartLimitBurst=1",
                    "ExecMainStartTimestampMonotonic=0",
                    "StartLimitIntervalUSec=1h",
                ],
                Some("reported an invalid"),
            ),
        ],
    );
}

#[test]
fn restart_warnings_name_what_nobody_can_foresee() {
    let neighbours = neighbours("worker.service", &["ActiveState=inactive"]);
    for (change, expected) in [
        ("StartLimitAction=none", None),
        (
            "StartLimitAction=reboot",
            Some("StartLimitAction=reboot of demo.service would reboot the machine, once"),
        ),
        (
            "ExecCondition={ path=/bin/true ; argv[]=true ; ignore_errors=no ; start_time=[n/a] }",
            Some("checks ExecCondition= of demo.service again"),
        ),
    ] {
        let unit = demo(&[change]);
        let facts = RestartFacts {
            plan: &context().plan,
            unit: &unit,
            others: 0,
            neighbours: &neighbours,
            now: Monotonic::now(),
        };
        let warnings = facts.restart_warnings();
        assert_eq!(
            warnings.len(),
            usize::from(expected.is_some()),
            "{warnings:?}"
        );
        assert!(
            warnings.concat().contains(expected.unwrap_or_default()),
            "{warnings:?}"
        );
    }
}

#[test]
fn units_to_reset_are_the_unit_and_its_sockets() {
    let unit = demo(&["TriggeredBy=demo.socket demo.timer demo.path"]);
    assert_eq!(
        units_to_reset(&unit, "demo.service"),
        ["demo.service", "demo.socket"]
    );
}

#[test]
fn longest_restart_adds_up_what_systemd_waits_for() {
    for (changes, seconds) in [
        (&[][..], Some(90.3)),
        (&["RestartUSecNext=7s"], Some(97.0)),
        (&["RestartUSecNext=100ms"], Some(90.3)),
        (&["RestartRandomizedDelayUSec=5s"], Some(95.3)),
        (&["RestartUSec"], None),
        (&["RestartUSec=infinity"], None),
        (&["RestartUSecNext=infinity"], None),
        (&["TimeoutStopUSec=infinity"], None),
        (&["TimeoutStopUSec=soon"], None),
        (&["RestartRandomizedDelayUSec=infinity"], None),
    ] {
        let expected = seconds.map_or(Duration::MAX, Duration::from_secs_f64);
        assert_eq!(longest_restart(&demo(changes)), expected, "{changes:?}");
    }
}

#[test]
fn runs_start_command_while_one_runs() {
    for (active, sub, expected) in [
        ("activating", "start-pre", true),
        ("activating", "condition", true),
        ("activating", "start", true),
        ("activating", "auto-restart", false),
        ("active", "running", false),
    ] {
        let (active, sub) = (format!("ActiveState={active}"), format!("SubState={sub}"));
        assert_eq!(
            runs_start_command(&demo(&[&active, &sub])),
            expected,
            "{sub}"
        );
    }
}
