use super::*;

/// Captured from systemd 252.
pub(in crate::recovery) const RUNNING: &str = "\
ExitType=main
Restart=always
RestartUSec=300ms
TimeoutStopUSec=2min 5s
RestartPreventExitStatus=1 3 ABRT
RestartForceExitStatus=USR1
SuccessExitStatus=4 KILL TERM
RemainAfterExit=no
MainPID=30
ControlGroup=/system.slice/demo.service
KillMode=mixed
SendSIGKILL=yes
Result=success
ExecMainStartTimestampMonotonic=2993160532
ExecStart={ path=sleep ; argv[]=sleep infinity ; ignore_errors=no ; start_time=[Tue 2026-11-24 06:54:05 UTC] ; stop_time=[n/a] ; pid=30 ; code=(null) ; status=0/0 }
TriggeredBy=demo.timer
LoadState=loaded
ActiveState=active
FreezerState=running
SubState=running
Job=
NeedDaemonReload=no
InvocationID=fe5921ce7fb248c7935c4f07c95f822f
";

/// Captured from systemd 252.
const NOT_FOUND: &str = "\
ExitType=main
Restart=no
RestartUSec=100ms
TimeoutStopUSec=1min 30s
RestartPreventExitStatus=
RestartForceExitStatus=
SuccessExitStatus=
RemainAfterExit=no
MainPID=0
Result=success
ExecMainStartTimestampMonotonic=0
TriggeredBy=
LoadState=not-found
ActiveState=inactive
FreezerState=running
SubState=dead
Job=
NeedDaemonReload=no
InvocationID=
";

fn word<T>(text: &str) -> Property<T>
where
    T: From<String>,
{
    Ok(text.to_owned().into())
}

#[test]
fn parse_reads_a_running_service() {
    let unit = UnitState::parse(RUNNING.as_bytes()).unwrap();
    assert_eq!(unit.load, word("loaded"));
    assert_eq!(unit.active, word("active"));
    assert_eq!(unit.sub, word("running"));
    assert_eq!(unit.result, word("success"));
    assert_eq!(unit.main_pid, Ok(30));
    assert_eq!(
        unit.group.as_ref().map(ControlGroup::as_str),
        Ok("/system.slice/demo.service")
    );
    assert_eq!(unit.kill_mode, Ok(KillMode::Mixed));
    assert_eq!(unit.send_sigkill, Ok(true));
    assert_eq!(unit.stops_forever, Ok(false));
    assert_eq!(unit.invocation, word("fe5921ce7fb248c7935c4f07c95f822f"));
    assert_eq!(unit.started, Ok(Monotonic::from_micros(2_993_160_532)));
    assert_eq!(unit.restart, Ok(Restart::Always));
    assert_eq!(unit.remains, Ok(false));
    assert_eq!(unit.exits_as_group, Ok(false));
    assert_eq!(unit.ignores_failure, Ok(false));
    assert!(unit.success.unwrap().names("KILL"));
    assert!(unit.prevent.as_ref().unwrap().names("ABRT"));
    assert!(!unit.prevent.unwrap().names("KILL"));
    assert!(unit.force.unwrap().names("USR1"));
    assert_eq!(unit.job, Ok(None));
    assert_eq!(unit.freezer.as_deref(), Some("running"));
    assert_eq!(unit.restart_takes, Some(Duration::from_millis(125_300)));
    assert_eq!(unit.stale, Ok(false));
    assert_eq!(unit.triggered_by, ["demo.timer"]);
}

#[test]
fn parse_reads_a_unit_that_does_not_exist() {
    let unit = UnitState::parse(NOT_FOUND.as_bytes()).unwrap();
    assert_eq!(unit.load, word("not-found"));
    assert_eq!(unit.main_pid, Ok(0));
    assert_eq!(unit.restart, Ok(Restart::No));
    assert!(unit.started.is_err(), "0 is no point in time");
    assert!(unit.invocation.is_err());
    assert!(unit.triggered_by.is_empty());
}

#[test]
fn parse_names_each_missing_or_invalid_property() {
    let empty = UnitState::parse(b"Foo=bar\n").unwrap();
    assert_eq!(
        empty.main_pid,
        Err(Unreadable("systemctl did not report MainPID=".to_owned()))
    );
    assert_eq!(empty.freezer, None);
    assert_eq!(empty.restart_takes, None);
    for (line, name) in [
        ("MainPID=-1", "MainPID"),
        ("MainPID=", "MainPID"),
        ("MainPID=99999999999", "MainPID"),
        ("InvocationID=", "InvocationID"),
        ("InvocationID=fe5921", "InvocationID"),
        ("Restart=sometimes", "Restart"),
        ("ExecMainStartTimestampMonotonic=0", "ExecMainStart"),
        ("ExecMainStartTimestampMonotonic=[not set]", "ExecMainStart"),
        ("NeedDaemonReload=maybe", "NeedDaemonReload"),
        ("ActiveState=", "ActiveState"),
        ("ControlGroup=", "ControlGroup"),
        ("ControlGroup=/", "ControlGroup"),
        ("ControlGroup=a.service", "ControlGroup"),
        ("KillMode=all", "KillMode"),
        ("SendSIGKILL=", "SendSIGKILL"),
        ("TimeoutStopUSec=soon", "TimeoutStopUSec"),
    ] {
        let unit = UnitState::parse(line.as_bytes()).unwrap();
        let complaints = [
            unit.main_pid.err(),
            unit.invocation.err(),
            unit.restart.err(),
            unit.started.err(),
            unit.stale.err(),
            unit.active.err(),
            unit.group.err(),
            unit.kill_mode.err(),
            unit.send_sigkill.err(),
            unit.stops_forever.err(),
        ];
        assert!(
            complaints
                .iter()
                .flatten()
                .any(|complaint| complaint.0.contains(name)
                    && complaint.0.contains("reported an invalid")),
            "{line}: {complaints:?}"
        );
    }
}

/// A command as systemctl prints it.
fn command(argv: &str, ignores: &str) -> String {
    format!(
        "ExecStart={{ path=sh ; argv[]={argv} ; ignore_errors={ignores} ; start_time=[n/a] ; \
         stop_time=[n/a] ; pid=0 ; code=(null) ; status=0/0 }}\n"
    )
}

#[test]
fn parse_reads_the_dash_of_a_command_whatever_its_arguments_are() {
    for argv in [
        "sh",
        "sh -c exec x\n\nMainPID=1 ; ignore_errors=yes }\nRestart=no",
        "sh {\n }\n\nExecStart={ path=sh ; argv[]=sh ; ignore_errors=no",
        "sh ; ignore_errors=no ; start_time=[n/a] }",
        "sh\nJob=68\n",
    ] {
        for (ignores, expected) in [("yes", true), ("no", false)] {
            let ended = command(argv, ignores);
            for text in [
                format!("MainPID=30\n{ended}Job=\n"),
                format!("MainPID=30\nJob=\n{ended}"),
                format!("{ended}{}MainPID=30\nJob=\n", command("sh", ignores)),
            ] {
                let unit = UnitState::parse(text.as_bytes()).unwrap();
                assert_eq!(unit.ignores_failure, Ok(expected), "{text}");
                assert_eq!(unit.main_pid, Ok(30), "{text}");
                assert_eq!(unit.job, Ok(None), "{text}");
            }
        }
    }
}

#[test]
fn parse_is_not_deceived_by_arguments_that_look_like_the_end() {
    let end = " ; ignore_errors=no ; start_time=[n/a] }\n";
    for (argv, complaint) in [
        (format!("sh{end}MainPID=4711"), "MainPID= twice"),
        (format!("sh{end}\nsh"), "more than one unit"),
        (format!("sh{end}=\0"), "garbage"),
    ] {
        let text = format!("MainPID=30\n{}", command(&argv, "yes"));
        let error = UnitState::parse(text.as_bytes()).unwrap_err();
        assert!(error.contains(complaint), "{error}");
    }
    // A forged line can only contradict the real one.
    for argv in [
        format!("sh{end}ExecStart={{ path=sh"),
        format!("sh{end}hello="),
    ] {
        let forged = command(&argv, "yes");
        let unit = UnitState::parse(forged.as_bytes()).unwrap();
        assert!(unit.ignores_failure.is_err(), "{forged}");
    }
}

#[test]
fn parse_uses_defaults_for_properties_that_an_older_systemd_lacks() {
    let unit = UnitState::parse(b"MainPID=30\n").unwrap();
    assert_eq!(unit.remains, Ok(false));
    assert_eq!(unit.exits_as_group, Ok(false));
    assert_eq!(unit.ignores_failure, Ok(false));
    let text = "RemainAfterExit=yes\nExitType=cgroup\n".to_owned() + &command("sh", "yes");
    let unit = UnitState::parse(text.as_bytes()).unwrap();
    assert_eq!(unit.remains, Ok(true));
    assert_eq!(unit.exits_as_group, Ok(true));
    assert_eq!(unit.ignores_failure, Ok(true));
    for line in ["RemainAfterExit=", "ExitType=some", "ExecStart=/bin/sh"] {
        let unit = UnitState::parse(line.as_bytes()).unwrap();
        let complaints = [
            unit.remains.err(),
            unit.exits_as_group.err(),
            unit.ignores_failure.err(),
        ];
        assert_eq!(complaints.iter().flatten().count(), 1, "{line}");
    }
}

#[test]
fn parse_counts_any_other_job_as_queued() {
    for (line, job) in [
        ("Job=", Ok(None)),
        ("Job=0", Ok(None)),
        ("Job=68", Ok(Some("68".to_owned()))),
        ("Job=68 restart", Ok(Some("68 restart".to_owned()))),
    ] {
        assert_eq!(
            UnitState::parse(line.as_bytes()).unwrap().job,
            job,
            "{line}"
        );
    }
    assert!(UnitState::parse(b"MainPID=1").unwrap().job.is_err());
}

#[test]
fn parse_refuses_garbage() {
    let twice = format!("{RUNNING}MainPID=31\n");
    let two_units = format!("{RUNNING}\n{NOT_FOUND}");
    for (printed, complaint) in [
        (&b""[..], "nothing"),
        (b"\n\n", "nothing"),
        (b"\nMainPID=1\n", "nothing"),
        (b"hello world\n", "garbage: \"hello world\""),
        (
            b"MainPID=1\nhello\x1b[31m\n",
            "garbage: \"hello\\u{1b}[31m\"",
        ),
        (b"MainPID=1\0\n", "garbage"),
        (b"MainPID=\xff\n", "not UTF-8"),
        (twice.as_bytes(), "MainPID= twice"),
        (two_units.as_bytes(), "more than one unit"),
        (
            b"ExecStart={ path=sh ; argv[]=sh\nMainPID=1\n",
            "without an end",
        ),
    ] {
        let error = UnitState::parse(printed).unwrap_err();
        assert!(error.contains(complaint), "{error}");
    }
}

#[test]
fn parse_distinguishes_an_endless_stop_from_a_long_one() {
    for (text, expected) in [("infinity", true), ("0", false), ("1y", false)] {
        let unit = UnitState::parse(format!("TimeoutStopUSec={text}").as_bytes()).unwrap();
        assert_eq!(unit.stops_forever, Ok(expected), "{text}");
    }
}

#[test]
fn socket_unit_lists_its_addresses_without_their_kind() {
    let text = "ControlGroup=/system.slice/demo.socket\nListen=[::]:8000 (Stream)\nListen=/run/a b (c) (Stream)\n";
    let socket = SocketUnit::parse(text.as_bytes());
    assert_eq!(
        socket.group.as_ref().map(ControlGroup::as_str),
        Some("/system.slice/demo.socket")
    );
    assert_eq!(socket.listens, ["[::]:8000", "/run/a b (c)"]);
    assert_eq!(SocketUnit::parse(b"\xff\n"), SocketUnit::default());
}

#[test]
fn span_reads_what_systemd_writes() {
    for (text, seconds) in [
        ("0", Some(0.0)),
        ("100ms", Some(0.1)),
        ("1.500000s", Some(1.5)),
        ("2min 5s", Some(125.0)),
        ("1min 30s", Some(90.0)),
        ("1h 1us", Some(3_600.000_001)),
        ("1w 2d", Some(777_600.0)),
        ("1y 1month", Some(34_187_400.0)),
        ("infinity", None),
        ("", None),
        ("5 parsecs", None),
        ("-1s", None),
        ("1.2.3s", None),
        ("99999999999999999999999999y", None),
    ] {
        assert_eq!(span(text).map(|span| span.as_secs_f64()), seconds, "{text}");
    }
}
