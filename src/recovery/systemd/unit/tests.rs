use super::*;
use crate::recovery::systemd::samples::{DEMO, NEIGHBOURS};

#[test]
fn parse_reads_a_running_service() {
    let unit = Unit::parse(DEMO.as_bytes()).unwrap();
    assert_eq!(unit.id(), Some("demo.service"));
    assert_eq!(unit.text("LoadState"), Ok("loaded"));
    assert_eq!(unit.text("ActiveState"), Ok("active"));
    assert_eq!(unit.text("SubState"), Ok("running"));
    assert_eq!(unit.text("Result"), Ok("success"));
    assert_eq!(unit.main_pid(), Ok(152));
    assert_eq!(
        unit.control_group().as_ref().map(ControlGroup::as_str),
        Ok("/system.slice/demo.service")
    );
    assert_eq!(unit.invocation(), Ok("461583f6b7404f0aad540c48a8c09c4d"));
    assert_eq!(
        unit.moment("ExecMainStartTimestampMonotonic"),
        Ok(Monotonic::from_micros(2_070_920_720))
    );
    assert_eq!(
        unit.moment("StateChangeTimestampMonotonic"),
        Ok(Monotonic::from_micros(2_070_920_876))
    );
    assert_eq!(unit.job(), Ok(None));
    assert_eq!(unit.value("FreezerState"), Some("running"));
    assert_eq!(unit.flag("NeedDaemonReload"), Ok(false));
    assert_eq!(unit.value("NRestarts"), Some("2"));
    let triggers: Vec<_> = unit.list("TriggeredBy").collect();
    assert_eq!(triggers, ["demo.socket"]);
    assert!(unit.triggered_by(".socket").eq(triggers));
    assert_eq!(unit.triggered_by(".timer").count(), 0);
    assert_eq!(unit.list("BoundBy").collect::<Vec<_>>(), ["worker.service"]);
    assert_eq!(
        (unit.value("PartOf"), unit.list("PartOf").count()),
        (Some(""), 0)
    );
    assert_eq!(unit.span("TimeoutStopUSec"), Ok(Duration::from_secs(90)));
}

#[test]
fn names_with_a_backslash_are_unquoted_in_lists() {
    let printed = br#"Id=app-a\x2db.slice
Requires="app-a\\x2db.slice" basic.target
"#;
    let unit = Unit::parse(printed).unwrap();
    let required: Vec<_> = unit.list("Requires").collect();
    assert_eq!(required, [unit.id().unwrap(), "basic.target"]);
}

#[test]
fn parse_reads_a_unit_that_does_not_exist() {
    let lines = b"MainPID=0\nInvocationID=\nExecMainStartTimestampMonotonic=0\nTriggeredBy=\nControlGroup=\n";
    let unit = Unit::parse(lines).unwrap();
    assert_eq!(unit.main_pid(), Ok(0));
    assert!(
        unit.moment("ExecMainStartTimestampMonotonic").is_err(),
        "0 is no point in time"
    );
    assert!(unit.invocation().is_err());
    assert!(unit.control_group().is_err());
    assert_eq!(unit.list("TriggeredBy").count(), 0);
}

#[test]
fn parse_names_each_missing_or_invalid_property() {
    let empty = Unit::parse(b"Foo=bar\n").unwrap();
    assert_eq!(
        empty.main_pid(),
        Err("systemctl did not report MainPID=".to_owned())
    );
    assert_eq!(empty.value("FreezerState"), None);
    for (line, name) in [
        ("MainPID=-1", "MainPID"),
        ("MainPID=", "MainPID"),
        ("MainPID=99999999999", "MainPID"),
        ("InvocationID=", "InvocationID"),
        ("InvocationID=fe5921", "InvocationID"),
        ("ExecMainStartTimestampMonotonic=0", "ExecMainStart"),
        ("ExecMainStartTimestampMonotonic=[not set]", "ExecMainStart"),
        ("StateChangeTimestampMonotonic=", "StateChange"),
        ("NeedDaemonReload=maybe", "NeedDaemonReload"),
        ("ActiveState=", "ActiveState"),
        ("ControlGroup=a.service", "ControlGroup"),
        ("TimeoutStopUSec=soon", "TimeoutStopUSec"),
    ] {
        let unit = Unit::parse(line.as_bytes()).unwrap();
        let complaints = [
            unit.main_pid().err(),
            unit.invocation().err(),
            unit.moment("ExecMainStartTimestampMonotonic").err(),
            unit.moment("StateChangeTimestampMonotonic").err(),
            unit.flag("NeedDaemonReload").err(),
            unit.text("ActiveState").err(),
            unit.control_group().err(),
            unit.span("TimeoutStopUSec").err(),
        ];
        assert!(
            complaints
                .iter()
                .flatten()
                .any(|complaint| complaint.contains(name)
                    && complaint.contains("reported an invalid")),
            "{line}: {complaints:?}"
        );
    }
}

#[test]
fn control_group_says_why_there_is_none() {
    for (line, why) in [
        (
            "ControlGroup=\nId=demo.service",
            "demo.service has no control group",
        ),
        ("ControlGroup=/", "the unit runs in the root control group"),
    ] {
        let unit = Unit::parse(line.as_bytes()).unwrap();
        let error = unit.control_group().unwrap_err();
        assert!(error.contains(why), "{error}");
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
fn parse_reads_a_command_whatever_its_arguments_are() {
    for argv in [
        "sh",
        "sh -c exec x\n\nMainPID=1 ; ignore_errors=yes }\nRestart=no",
        "sh {\n }\n\nExecStart={ path=sh ; argv[]=sh ; ignore_errors=no",
        "sh ; ignore_errors=no ; start_time=[n/a] }",
        "sh\nJob=68\n",
    ] {
        for ignores in ["yes", "no"] {
            let ended = command(argv, ignores);
            for text in [
                format!("MainPID=30\n{ended}Job=\n"),
                format!("MainPID=30\nJob=\n{ended}"),
                format!("{ended}{}MainPID=30\nJob=\n", command("sh", ignores)),
            ] {
                let unit = Unit::parse(text.as_bytes()).unwrap();
                let printed = format!("ExecStart={}\n", unit.value("ExecStart").unwrap());
                assert_eq!(printed, ended);
                assert_eq!(unit.main_pid(), Ok(30), "{text}");
                assert_eq!(unit.job(), Ok(None), "{text}");
            }
        }
    }
}

#[test]
fn parse_is_not_deceived_by_arguments_that_look_like_the_end() {
    let end = " ; ignore_errors=no ; start_time=[n/a] }\n";
    for (argv, complaint) in [
        (format!("sh{end}MainPID=4711"), "garbage"),
        (format!("sh{end}MainPID=4711\nsh"), "MainPID= twice"),
        (format!("sh{end}\nsh"), "garbage"),
        (format!("sh{end}\nA=b\nsh"), "garbage"),
        (format!("sh{end}=\0"), "garbage"),
        (format!("sh{end}hello="), "garbage"),
    ] {
        let text = format!("MainPID=30\n{}", command(&argv, "yes"));
        let error = Unit::parse(text.as_bytes()).unwrap_err();
        assert!(error.contains(complaint), "{error}");
    }
    // A forged line can only contradict the real one.
    let forged = command(&format!("sh{end}ExecStart={{ path=sh"), "yes");
    let unit = Unit::parse(forged.as_bytes()).unwrap();
    assert_eq!(unit.values("ExecStart").len(), 2);
}

#[test]
fn parse_counts_any_other_job_as_queued() {
    for (line, job) in [
        ("Job=", Ok(None)),
        ("Job=0", Ok(None)),
        ("Job=68", Ok(Some("68"))),
        ("Job=68 restart", Ok(Some("68 restart"))),
    ] {
        let unit = Unit::parse(line.as_bytes()).unwrap();
        assert_eq!(unit.job(), job, "{line}");
    }
    assert!(Unit::parse(b"MainPID=1").unwrap().job().is_err());
}

#[test]
fn parse_refuses_garbage() {
    let twice = format!("{DEMO}MainPID=31\n");
    let two_units = format!("{DEMO}\n{NEIGHBOURS}");
    for (printed, complaint) in [
        (&b""[..], "nothing"),
        (b"\n\n", "nothing"),
        (b"\nMainPID=1\n", "nothing"),
        (b"MainPID=1\n\n\nMainPID=1", "nothing"),
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
            "ExecStart= without an end",
        ),
    ] {
        let error = Unit::parse(printed).unwrap_err();
        assert!(error.contains(complaint), "{error}");
    }
}

#[test]
fn parse_all_reads_several_units() {
    let units = Unit::parse_all(NEIGHBOURS.as_bytes()).unwrap();
    let ids: Vec<_> = units.iter().filter_map(Unit::id).collect();
    let expected = [
        "db.service",
        "worker.service",
        "demo.socket",
        "sysinit.target",
    ];
    assert_eq!(ids, expected);
    assert_eq!(units[2].listens(), ["127.0.0.1:8123", "/run/b c.sock"]);
    assert!(units[0].listens().is_empty());
    let error = Unit::parse_all(b"Id=a.service\n\nActiveState=active\n").unwrap_err();
    assert!(error.contains("did not report Id="), "{error}");
}

#[test]
fn listens_leaves_out_the_kind_alone() {
    let unit = Unit::parse(b"Listen=[::]:8000 (Stream)\nListen=/run/a b (c) (Stream)\n").unwrap();
    assert_eq!(unit.listens(), ["[::]:8000", "/run/a b (c)"]);
}

#[test]
fn span_reads_what_systemd_writes() {
    for (text, seconds) in [
        ("0", Some(0.0)),
        ("100ms", Some(0.1)),
        ("1.500000s", Some(1.5)),
        ("2min 5s", Some(125.0)),
        ("1min 30s", Some(90.0)),
        ("1min 30.5s", Some(90.5)),
        ("1h 1us", Some(3_600.000_001)),
        ("1w 2d", Some(777_600.0)),
        ("1y 1month", Some(34_187_616.0)),
        ("", None),
        ("5 parsecs", None),
        ("-1s", None),
        ("1.2.3s", None),
        ("99999999999999999999999999y", None),
    ] {
        assert_eq!(span(text).map(|span| span.as_secs_f64()), seconds, "{text}");
    }
    assert_eq!(span("infinity"), Some(Duration::MAX));
}
