use super::super::facts::Vitals;
use super::*;

const NAME: &str = "demo.service";

/// A healthy unit's properties, changed as `changes` say; `Key` alone leaves the property out.
fn unit(changes: &[&str]) -> UnitState {
    let mut lines: Vec<String> = "\
LoadState=loaded
ActiveState=active
SubState=running
Result=success
MainPID=4711
InvocationID=fe5921ce7fb248c7935c4f07c95f822f
ExecMainStartTimestampMonotonic=1000000000
Restart=always
SuccessExitStatus=
RestartPreventExitStatus=
RestartForceExitStatus=
Job=
FreezerState=running
TimeoutStopUSec=1min 30s
RestartUSec=100ms
NeedDaemonReload=no
TriggeredBy="
        .lines()
        .map(str::to_owned)
        .collect();
    for change in changes {
        let key = change.split('=').next().unwrap();
        lines.retain(|line| line.split('=').next().unwrap() != key);
        if change.contains('=') {
            lines.push((*change).to_owned());
        }
    }
    UnitState::parse(lines.join("\n").as_bytes()).unwrap()
}

/// The main process started at 1000 s, the sweep began at 1500 s, and now it is 1600 s.
fn at(seconds: u64) -> Monotonic {
    Monotonic::from_micros(seconds * 1_000_000)
}

fn standing() -> Standing<'static> {
    Standing {
        unit: NAME,
        scope: Scope::System,
        signal: KillSignal::Kill,
        min_uptime: Duration::from_secs(120),
        sweep_began: at(1_500),
        starved: false,
        own_pid: 99,
        not_local: None,
        manifest_writable: None,
    }
}

const CALM: Vitals = Vitals {
    state: 'S',
    tracer: 0,
    dumping: false,
    kill_pending: false,
    age: Duration::from_secs(600),
};

/// A look at which all is well, given what systemd says now and said before.
fn look<'a>(unit: &'a UnitState, before: Option<&'a UnitState>) -> Look<'a> {
    Look {
        at: at(1_600),
        unit,
        before,
        process: Process::Alive(CALM),
        heard: Heard::Nothing,
    }
}

fn guard(standing: &Standing<'_>, look: &Look<'_>) -> Option<Guard> {
    judge(standing, look).err().map(|(guard, _)| guard)
}

fn sentence(standing: &Standing<'_>, look: &Look<'_>) -> String {
    judge(standing, look).unwrap_err().1
}

#[test]
fn judge_lets_a_plain_hang_pass() {
    let unit = unit(&[]);
    assert_eq!(judge(&standing(), &look(&unit, None)), Ok(()));
    assert_eq!(judge(&standing(), &look(&unit, Some(&unit))), Ok(()));
}

#[test]
fn judge_reads_the_unit() {
    for (changes, expected) in [
        (&["LoadState=not-found"][..], Some(Guard::NotLoaded)),
        (&["LoadState=masked"], Some(Guard::NotLoaded)),
        (&["LoadState=bad-setting"], Some(Guard::NotLoaded)),
        (&["LoadState"], Some(Guard::Unreadable)),
        (&["ActiveState=activating"], Some(Guard::NotActive)),
        (&["ActiveState=reloading"], Some(Guard::NotActive)),
        (&["ActiveState=deactivating"], Some(Guard::NotActive)),
        (&["ActiveState=failed"], Some(Guard::NotActive)),
        (&["ActiveState"], Some(Guard::Unreadable)),
        (&["MainPID=0"], Some(Guard::MainPid)),
        (&["MainPID=1"], Some(Guard::MainPid)),
        (&["MainPID=99"], Some(Guard::MainPid)),
        (&["MainPID=abc"], Some(Guard::Unreadable)),
        (&["MainPID"], Some(Guard::Unreadable)),
        (&["InvocationID="], Some(Guard::Unreadable)),
        (
            &["ExecMainStartTimestampMonotonic=0"],
            Some(Guard::Unreadable),
        ),
        (
            &["ExecMainStartTimestampMonotonic"],
            Some(Guard::Unreadable),
        ),
        (&["ExecMainStartTimestampMonotonic=1480000000"], None),
        (
            &["ExecMainStartTimestampMonotonic=1480000001"],
            Some(Guard::TooYoung),
        ),
        (&["Job=68"], Some(Guard::JobQueued)),
        (&["Job"], Some(Guard::Unreadable)),
        (&["FreezerState"], None),
        (&["FreezerState=frozen"], Some(Guard::Frozen)),
        (&["FreezerState=freezing"], Some(Guard::Frozen)),
        (&["FreezerState=thawing"], Some(Guard::Frozen)),
        (&["FreezerState="], Some(Guard::Frozen)),
        (&["Restart"], Some(Guard::Unreadable)),
        (&["SuccessExitStatus"], Some(Guard::Unreadable)),
        (&["RestartPreventExitStatus"], Some(Guard::Unreadable)),
        (&["RestartForceExitStatus"], Some(Guard::Unreadable)),
        (
            &[
                "TimeoutStopUSec",
                "RestartUSec",
                "SubState",
                "NeedDaemonReload",
            ],
            None,
        ),
    ] {
        let unit = unit(changes);
        assert_eq!(
            guard(&standing(), &look(&unit, None)),
            expected,
            "{changes:?}"
        );
    }
}

#[test]
fn judge_tells_what_is_the_matter_with_the_unit() {
    for (change, part) in [
        ("LoadState=not-found", "does not exist"),
        ("LoadState=masked", "is masked"),
        ("LoadState=bad-setting", "LoadState=bad-setting"),
        ("MainPID=0", "has no main process"),
        ("MainPID=1", "process 1, which is never signalled"),
        ("MainPID=99", "this very program (99)"),
    ] {
        let unit = unit(&[change]);
        let told = sentence(&standing(), &look(&unit, None));
        assert!(told.contains(part), "{change}: {told}");
    }
}

#[test]
fn judge_reads_the_process() {
    let unit = unit(&[]);
    for (process, expected) in [
        (Process::Gone("it has died"), Some(Guard::Gone)),
        (Process::Hidden, Some(Guard::Unreadable)),
        (Process::Alive(Vitals { state: 'D', ..CALM }), None),
        (Process::Alive(Vitals { state: 'T', ..CALM }), None),
        (Process::Alive(Vitals { state: 'R', ..CALM }), None),
        (
            Process::Alive(Vitals { state: 't', ..CALM }),
            Some(Guard::Traced),
        ),
        (
            Process::Alive(Vitals { tracer: 5, ..CALM }),
            Some(Guard::Traced),
        ),
        (
            Process::Alive(Vitals {
                dumping: true,
                ..CALM
            }),
            Some(Guard::Traced),
        ),
        (
            Process::Alive(Vitals {
                kill_pending: true,
                ..CALM
            }),
            Some(Guard::Gone),
        ),
        (
            Process::Alive(Vitals {
                age: Duration::from_secs(599),
                ..CALM
            }),
            None,
        ),
        (
            Process::Alive(Vitals {
                age: Duration::from_secs(598),
                ..CALM
            }),
            Some(Guard::Gone),
        ),
        (
            Process::Alive(Vitals {
                age: Duration::from_secs(90_000),
                ..CALM
            }),
            None,
        ),
    ] {
        let look = Look {
            process: process.clone(),
            ..look(&unit, None)
        };
        assert_eq!(guard(&standing(), &look), expected, "{process:?}");
    }
}

#[test]
fn judge_compares_the_two_looks() {
    let before = unit(&[]);
    for (changes, expected) in [
        (&["MainPID=4712"][..], Some(Guard::Changed)),
        (
            &["InvocationID=00000000000000000000000000000001"],
            Some(Guard::Changed),
        ),
        (
            &["MainPID=4712", "ExecMainStartTimestampMonotonic=1590000000"],
            Some(Guard::Changed),
        ),
        (&["InvocationID="], Some(Guard::Unreadable)),
        (&["MainPID=0"], Some(Guard::MainPid)),
        (&["Job=1"], Some(Guard::JobQueued)),
        (&["ActiveState=deactivating"], Some(Guard::NotActive)),
    ] {
        let now = unit(changes);
        assert_eq!(
            guard(&standing(), &look(&now, Some(&before))),
            expected,
            "{changes:?}"
        );
    }
    for (heard, expected) in [
        (Heard::Byte, Guard::Answered),
        (Heard::Ended("reset".to_owned()), Guard::Answered),
    ] {
        let look = Look {
            heard,
            ..look(&before, Some(&before))
        };
        assert_eq!(guard(&standing(), &look), Some(expected));
    }
}

#[test]
fn judge_reads_what_is_known_beforehand() {
    let unit = unit(&["ExecMainStartTimestampMonotonic=1000000000"]);
    let why = || Some("why".to_owned());
    for (changed, expected) in [
        (
            Standing {
                starved: true,
                ..standing()
            },
            Guard::Starved,
        ),
        (
            Standing {
                not_local: why(),
                ..standing()
            },
            Guard::NotLocal,
        ),
        (
            Standing {
                manifest_writable: why(),
                ..standing()
            },
            Guard::ManifestWritable,
        ),
        (
            Standing {
                sweep_began: at(999),
                ..standing()
            },
            Guard::Restarted,
        ),
        (
            Standing {
                own_pid: 4_711,
                ..standing()
            },
            Guard::MainPid,
        ),
        (
            Standing {
                min_uptime: Duration::from_secs(601),
                ..standing()
            },
            Guard::TooYoung,
        ),
    ] {
        assert_eq!(
            guard(&changed, &look(&unit, None)),
            Some(expected),
            "{changed:?}"
        );
    }
    let brave = Standing {
        min_uptime: Duration::ZERO,
        ..standing()
    };
    assert_eq!(guard(&brave, &look(&unit, None)), None);
}

/// Takes one objection away after the other: what is left must be named in the
/// README's order.
#[test]
fn judge_names_the_first_guard_of_the_list() {
    let before = unit(&["MainPID=4700", "ExecMainStartTimestampMonotonic=1590000000"]);
    let mut changes = vec![
        "LoadState=masked",
        "ActiveState=failed",
        "MainPID=1",
        "ExecMainStartTimestampMonotonic=1590000000",
        "Restart=no",
        "Job=1",
        "FreezerState=frozen",
        "RestartForceExitStatus",
    ];
    let mut standing = Standing {
        starved: true,
        not_local: Some("far".to_owned()),
        manifest_writable: Some("open".to_owned()),
        ..standing()
    };
    let mut process = Process::Gone("it has died");
    let mut heard = Heard::Byte;
    let mut before = Some(before);
    let mut named = Vec::new();
    while named.len() < 20 {
        let now = unit(&changes);
        let look = Look {
            process: process.clone(),
            heard: heard.clone(),
            ..look(&now, before.as_ref())
        };
        let Err((guard, _)) = judge(&standing, &look) else {
            break;
        };
        named.push(guard.name());
        let mut drop = |key: &str| changes.retain(|change| !change.starts_with(key));
        match guard {
            Guard::NotLoaded => drop("LoadState"),
            Guard::NotActive => drop("ActiveState"),
            Guard::MainPid => drop("MainPID"),
            Guard::TooYoung => standing.min_uptime = Duration::ZERO,
            Guard::Restarted => {
                drop("ExecMainStartTimestampMonotonic");
                drop("RestartForceExitStatus");
                before = Some(unit(&["MainPID=4700"]));
            }
            Guard::Changed => before = None,
            Guard::Gone => process = Process::Alive(Vitals { state: 't', ..CALM }),
            Guard::Answered => heard = Heard::Nothing,
            Guard::NoRestart => drop("Restart"),
            Guard::JobQueued => {
                drop("Job");
                changes.push("SuccessExitStatus");
            }
            Guard::Traced => process = Process::Alive(CALM),
            Guard::Frozen => drop("FreezerState"),
            Guard::Starved => standing.starved = false,
            Guard::NotLocal => standing.not_local = None,
            Guard::ManifestWritable => standing.manifest_writable = None,
            Guard::Unreadable => drop("SuccessExitStatus"),
        }
    }
    assert_eq!(
        named,
        [
            "not_loaded",
            "not_active",
            "main_pid",
            "too_young",
            "restarted",
            "changed",
            "gone",
            "answered",
            "no_restart",
            "job_queued",
            "traced",
            "frozen",
            "starved",
            "not_local",
            "manifest_writable",
            "unreadable",
        ]
    );
}

#[test]
fn restarts_follows_systemd() {
    let signal = |unit: &UnitState, signal| restarts(unit, NAME, Scope::System, signal).is_ok();
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
            let unit = unit(&[&restart, list]);
            assert_eq!(
                signal(&unit, KillSignal::Kill),
                expected,
                "{restart} {list}"
            );
        }
        let both = unit(&[
            &restart,
            "RestartPreventExitStatus=KILL",
            "RestartForceExitStatus=KILL",
        ]);
        assert!(!signal(&both, KillSignal::Kill), "prevention wins");
    }
}

#[test]
fn restarts_knows_what_systemd_takes_for_a_success() {
    const DASH: &str = "ExecStart={ path=sh ; argv[]=sh ; ignore_errors=yes ; start_time=[n/a] }";
    const FORCED: &str = "RestartForceExitStatus=KILL ABRT";
    const CLEAN: &str = "SuccessExitStatus=KILL ABRT";
    const REMAINS: &str = "RemainAfterExit=yes";
    for (changes, refused) in [
        (&[DASH][..], None),
        (&[DASH, "Restart=on-success"], None),
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
        (&["ExitType=main"], None),
        (&["ExitType=cgroup"], Some("ExitType=cgroup")),
        (&["ExitType=cgroup", FORCED], Some("ExitType=cgroup")),
        (&["ExitType=unheard-of"], Some("makes no sense")),
        (&["RemainAfterExit="], Some("makes no sense")),
        (&["ExecStart=sh"], Some("makes no sense")),
    ] {
        let unit = unit(changes);
        for signal in [KillSignal::Kill, KillSignal::Abort] {
            let told = restarts(&unit, NAME, Scope::System, signal).err();
            let why = told.map(|(_, why)| why).unwrap_or_default();
            assert_eq!(why.is_empty(), refused.is_none(), "{changes:?}: {why}");
            assert!(
                why.contains(refused.unwrap_or_default()),
                "{changes:?}: {why}"
            );
        }
    }
    // The core dump that may come instead of a clean death fails, but a `-` covers that, too.
    let dash = unit(&[DASH, "Restart=on-success"]);
    assert!(restarts(&dash, NAME, Scope::System, KillSignal::Abort).is_ok());
}

#[test]
fn restarts_after_an_abort_asks_for_both_signals() {
    for (list, expected) in [
        ("RestartPreventExitStatus=", true),
        ("RestartPreventExitStatus=ABRT", false),
        ("RestartPreventExitStatus=KILL", false),
    ] {
        let unit = unit(&[list]);
        let passed = restarts(&unit, NAME, Scope::System, KillSignal::Abort).is_ok();
        assert_eq!(passed, expected, "{list}");
    }
    let prevented = unit(&["RestartPreventExitStatus=ABRT"]);
    assert!(restarts(&prevented, NAME, Scope::System, KillSignal::Kill).is_ok());

    let clean = unit(&["Restart=on-success", "SuccessExitStatus=ABRT KILL"]);
    assert!(restarts(&clean, NAME, Scope::System, KillSignal::Kill).is_ok());
    assert!(
        restarts(&clean, NAME, Scope::System, KillSignal::Abort).is_err(),
        "a core dump is no success"
    );
}

#[test]
fn sentences_say_what_why_and_what_to_do() {
    let young = unit(&["ExecMainStartTimestampMonotonic=1563000000"]);
    assert_eq!(
        sentence(&standing(), &look(&young, None)),
        "the main process 4711 is 37 s old, younger than min_uptime_seconds (120): it is still starting"
    );
    let typo = unit(&["LoadState=not-found"]);
    let user = Standing {
        scope: Scope::User,
        ..standing()
    };
    assert!(sentence(&user, &look(&typo, None)).contains("\"systemctl --user list-units"));
    let stubborn = unit(&["Restart=on-failure", "SuccessExitStatus=KILL"]);
    assert!(
        sentence(&standing(), &look(&stubborn, None))
            .contains("after SIGKILL (Restart=on-failure, and SuccessExitStatus= names SIGKILL)")
    );
    let odd = unit(&["ActiveState=\u{1b}[31m"]);
    assert!(sentence(&standing(), &look(&odd, None)).contains("ActiveState=\\u{1b}[31m"));
}
