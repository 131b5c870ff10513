//! Properties of the parser of `systemctl show`, and of the guards that judge its result.

use std::time::Duration;

use super::Choices;
use crate::clock::Monotonic;
use crate::escape::deceives;
use crate::manifest::{KillSignal, Scope};
use crate::recovery::cgroup::ControlGroup;
use crate::recovery::guards;
use crate::recovery::observation::{
    GuardContext, Members, Observation, Parent, Process, Sockets, TcpFacts, Vitals,
};
use crate::recovery::unit::{PROPERTIES, Property, SocketUnit, UnitState, Unreadable};

/// Checks every property of this parser.
///
/// # Panics
///
/// A property does not hold.
pub fn show_property(data: &[u8]) {
    match UnitState::parse(data) {
        Err(why) => {
            assert!(!why.contains(deceives), "raw control: {why:?}");
            assert!(why.chars().count() < 1_500, "{} bytes", why.len());
        }
        Ok(state) => each_line_is_read_by_itself(data, &state),
    }
    survives_a_round_trip(&mut Choices(data.iter()));
    socket_unit_is_read_by_line(data);
}

/// A `.socket` unit's addresses are those of its lines, and its group is never the root group.
fn socket_unit_is_read_by_line(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let socket = SocketUnit::parse(data);
    if let Some(group) = &socket.group {
        assert!(text.contains(&format!("ControlGroup={}", group.as_str())));
    }
    let lines: Vec<&str> = (text.lines())
        .filter_map(|line| line.strip_prefix("Listen="))
        .collect();
    assert_eq!(lines.len(), socket.listens.len());
    for (line, address) in lines.iter().zip(&socket.listens) {
        assert!(line.starts_with(address.as_str()), "{line}: {address}");
    }
}

/// Each entry is read by itself, whatever the order and the other entries. A missing property is reported or
/// has a default, and no guard accepts it as valid.
fn each_line_is_read_by_itself(data: &[u8], state: &UnitState) {
    let text = String::from_utf8_lossy(data);
    let entries = entries(text.trim_end_matches('\n'));
    let lines: Vec<&str> = entries.iter().map(String::as_str).collect();
    let parse = |lines: &[&str]| UnitState::parse(lines.join("\n").as_bytes());
    let same = Ok(state.clone());
    assert_eq!(parse(&lines), same, "parsed twice");
    let mut others: Vec<&str> = lines.iter().rev().copied().collect();
    assert_eq!(parse(&others), same, "in the other order");
    others.rotate_left(lines.len() / 2);
    others.push("=a line of another systemd=");
    if !lines.iter().any(|line| line.starts_with('=')) {
        assert_eq!(parse(&others), same, "rotated, and with another line");
    }
    passes_only_if_all_is_well(&lines, state);
    for name in PROPERTIES {
        let (without_it, it): (Vec<&str>, Vec<&str>) =
            lines.iter().partition(|line| !sets(line, name));
        if without_it.is_empty() {
            assert!(parse(&without_it).is_err());
        } else if *name == "ExecStart" || ends_of(&it).is_empty() {
            let parsed = parse(&without_it);
            let mut expected = without(state.clone(), name);
            if let ("ExecStart", [_, ..], Ok(parsed)) = (*name, &ends_of(&without_it)[..], &parsed)
            {
                // Lines that only look like the end of a command.
                expected.ignores_failure = parsed.ignores_failure.clone();
            }
            assert_eq!(parsed, Ok(expected.clone()), "without {name}");
            passes_only_if_all_is_well(&without_it, &expected);
        }
    }
}

/// The lines, with all of a command's as one.
fn entries(text: &str) -> Vec<String> {
    let mut entries: Vec<String> = Vec::new();
    let mut open = false;
    for line in text.split('\n') {
        match entries.last_mut().filter(|_| open) {
            Some(entry) => *entry = format!("{entry}\n{line}"),
            None => entries.push(line.to_owned()),
        }
        open = (open || line.starts_with("ExecStart={ ")) && ends_of(&[line]).is_empty();
    }
    entries
}

/// For each line that ends a command, whether its failures are ignored.
fn ends_of(entries: &[&str]) -> Vec<bool> {
    const WORD: &str = " ; ignore_errors=";
    let lines = entries.iter().flat_map(|entry| entry.split('\n'));
    let ends = lines.filter_map(|line| {
        let end = &line[line.rfind(WORD)?..];
        let says = |word: &str| end.starts_with(&format!("{WORD}{word} ; start_time=["));
        (end.ends_with(" }") && (says("yes") || says("no"))).then(|| says("yes"))
    });
    ends.collect()
}

fn sets(line: &str, name: &str) -> bool {
    line.split_once('=').is_some_and(|(key, _)| key == name)
}

/// `state` as it would be if systemd had not printed `name`.
fn without(mut state: UnitState, name: &str) -> UnitState {
    fn missing<T>(name: &str) -> Property<T> {
        Err(Unreadable(format!("systemctl did not report {name}=")))
    }
    match name {
        "LoadState" => state.load = missing(name),
        "ActiveState" => state.active = missing(name),
        "SubState" => state.sub = missing(name),
        "Result" => state.result = missing(name),
        "MainPID" => state.main_pid = missing(name),
        "ControlGroup" => state.group = missing(name),
        "KillMode" => state.kill_mode = missing(name),
        "SendSIGKILL" => state.send_sigkill = missing(name),
        "InvocationID" => state.invocation = missing(name),
        "ExecMainStartTimestampMonotonic" => state.started = missing(name),
        "Restart" => state.restart = missing(name),
        "RemainAfterExit" => state.remains = Ok(false),
        "ExitType" => state.exits_as_group = Ok(false),
        "ExecStart" => state.ignores_failure = Ok(false),
        "SuccessExitStatus" => state.success = missing(name),
        "RestartPreventExitStatus" => state.prevent = missing(name),
        "RestartForceExitStatus" => state.force = missing(name),
        "Job" => state.job = missing(name),
        "FreezerState" => state.freezer = None,
        "TimeoutStopUSec" => {
            state.restart_takes = None;
            state.stops_forever = missing(name);
        }
        "RestartUSec" => {
            state.restart_takes = None;
            state.never_restarts = false;
        }
        "NeedDaemonReload" => state.stale = missing(name),
        "TriggeredBy" => state.triggered_by.clear(),
        _ => {}
    }
    state
}

/// The guards pass a unit only if each line that one of them needs is present and allows it.
fn passes_only_if_all_is_well(lines: &[&str], state: &UnitState) {
    for others in [0, 1] {
        if passes(state, others) {
            all_is_well(lines, others);
        }
    }
}

/// This program's own PID.
const OWN: u32 = 99;

/// Whether the guards pass `state` with `others` processes beside the main one, if all other facts are
/// good.
fn passes(state: &UnitState, others: usize) -> bool {
    let at = Monotonic::from_micros(u64::MAX);
    let context = GuardContext {
        unit: "demo.service",
        scope: Scope::System,
        signal: KillSignal::Abort,
        dump_signal: None,
        min_uptime: Duration::ZERO,
        verify: Duration::from_secs(60),
        dry_run: false,
        sweep_began: at,
        silent_at: vec![],
        starved: None,
        own_pid: OWN,
        user_manager: None,
        not_local: None,
        manifest_writable: None,
    };
    let group = state.group.as_ref().ok();
    let now = Observation {
        at,
        unit: state.clone(),
        process: Process::Alive(Vitals {
            state: 'S',
            dumping: false,
            kill_pending: false,
            age: Duration::MAX - Duration::from_secs(1),
            group: group.map(|group| group.as_str().to_owned()),
            parent: Parent {
                pid: 1,
                group: None,
            },
        }),
        members: Ok(Members {
            others,
            ..Members::default()
        }),
        sockets: Ok(Sockets::Tcp(TcpFacts::default())),
        probe: None,
    };
    let first = guards::judge(&context, &now, None);
    assert_eq!(
        first,
        guards::judge(&context, &now, Some(&now)),
        "nothing changed"
    );
    if let Err((_, why)) = &first {
        assert!(!why.contains(deceives), "raw control: {why:?}");
    }
    first.is_ok()
}

fn all_is_well(lines: &[&str], others: usize) {
    let printed = |name: &str| {
        lines
            .iter()
            .find_map(|line| line.strip_prefix(&format!("{name}=")[..]))
    };
    assert_eq!(printed("LoadState"), Some("loaded"));
    assert_eq!(printed("ActiveState"), Some("active"));
    let pid: u32 = printed("MainPID")
        .and_then(|pid| pid.parse().ok())
        .unwrap_or(0);
    assert!(pid > 1 && pid != OWN, "MainPID={pid}");
    assert!(printed("ControlGroup").is_some_and(|path| ControlGroup::parse(path).is_some()));
    if others > 0 {
        let mode = printed("KillMode");
        assert!(matches!(mode, Some("control-group" | "mixed")), "{mode:?}");
        assert_eq!(printed("SendSIGKILL"), Some("yes"));
        let stop = printed("TimeoutStopUSec");
        assert!(stop.is_some(), "without TimeoutStopUSec");
        assert!(mode == Some("mixed") || stop != Some("infinity"));
        assert_ne!(printed("Restart"), Some("on-success"));
    }
    assert_eq!(printed("InvocationID").map(str::len), Some(32));
    let started = printed("ExecMainStartTimestampMonotonic").unwrap_or("0");
    assert_ne!(started.trim_start_matches(['+', '0']), "");
    assert!(matches!(printed("Job"), Some("" | "0")));
    assert!(matches!(printed("FreezerState"), None | Some("running")));
    for list in [
        "SuccessExitStatus",
        "RestartPreventExitStatus",
        "RestartForceExitStatus",
    ] {
        assert!(printed(list).is_some(), "without {list}");
    }
    let names = |list: &str, signal: &str| {
        let printed = printed(list).unwrap_or_default();
        printed
            .split_whitespace()
            .any(|word| word == signal || word == format!("SIG{signal}"))
    };
    let restart = printed("Restart").unwrap_or("no");
    assert_ne!(printed("RestartUSec"), Some("infinity"));
    assert!(matches!(printed("ExitType"), None | Some("main")));
    let remains = printed("RemainAfterExit").unwrap_or("no");
    assert!(
        ["yes", "no"].contains(&remains),
        "RemainAfterExit={remains}"
    );
    let ignores = ends_of(lines);
    assert!(
        ignores.iter().all(|other| *other == ignores[0]),
        "{ignores:?}"
    );
    for signal in ["ABRT", "KILL"] {
        let success = names("SuccessExitStatus", signal) || ignores.contains(&true);
        assert!(remains == "no" || !success, "remains after {signal}");
        assert!(
            !names("RestartPreventExitStatus", signal),
            "prevented after {signal}"
        );
        let fails = ["on-failure", "on-abnormal", "on-abort"];
        assert!(
            names("RestartForceExitStatus", signal)
                || restart == "always"
                || restart == "on-success" && success
                || fails.contains(&restart) && !success,
            "Restart={restart} after {signal}"
        );
    }
}

/// A unit printed in systemd's format, in any order, is parsed back unchanged.
fn survives_a_round_trip(choices: &mut Choices<'_>) {
    let words = [
        "loaded",
        "active",
        "not-found",
        "running",
        "failed",
        "a b=c",
        "é",
    ];
    let restarts = [
        "no",
        "always",
        "on-success",
        "on-failure",
        "on-abnormal",
        "on-abort",
        "on-watchdog",
    ];
    let mut lines = Vec::new();
    let mut printed = |choices: &mut Choices<'_>, name: &str, value: String| {
        let there = choices.byte() % 8 != 7;
        if there {
            lines.insert(choices.below(lines.len() + 1), format!("{name}={value}"));
        }
        there.then_some(value)
    };
    let mut word = |choices: &mut Choices<'_>, name| {
        let word = choices.of(&words);
        printed(choices, name, word.to_owned())
    };
    let load = word(choices, "LoadState");
    let active = word(choices, "ActiveState");
    let sub = word(choices, "SubState");
    let result = word(choices, "Result");
    let freezer = word(choices, "FreezerState");
    let pid = u64::from(choices.number() as u32);
    let printed_pid = printed(choices, "MainPID", pid.to_string());
    let invocation = format!("{:016x}{:016x}", choices.number(), choices.number());
    let invocation = printed(choices, "InvocationID", invocation);
    let group = choices.of(&["/system.slice/demo.service", "/a b=c", "/"]);
    let group = printed(choices, "ControlGroup", group.to_owned());
    let kill_mode = choices.of(&["control-group", "mixed", "process", "none"]);
    let kill_mode = printed(choices, "KillMode", kill_mode.to_owned());
    let send_sigkill = choices.of(&["yes", "no"]);
    let send_sigkill = printed(choices, "SendSIGKILL", send_sigkill.to_owned());
    let started = choices.number().max(1);
    let printed_start = printed(
        choices,
        "ExecMainStartTimestampMonotonic",
        started.to_string(),
    );
    let restart = choices.of(&restarts);
    let restart = printed(choices, "Restart", restart.to_owned());
    let remains = choices.of(&["yes", "no"]);
    let remains = printed(choices, "RemainAfterExit", remains.to_owned());
    let exits_as = choices.of(&["main", "cgroup"]);
    let exits_as = printed(choices, "ExitType", exits_as.to_owned());
    let argv = choices.of(&["sh", "sh\nMainPID=1\n", "sh ; ignore_errors=no }\n\n{"]);
    let ignores = choices.of(&["yes", "no"]);
    let command = format!(
        "{{ path=sh ; argv[]={argv} ; ignore_errors={ignores} ; start_time=[n/a] ; status=0/0 }}"
    );
    let ignores = printed(choices, "ExecStart", command).map(|_| ignores);
    let mut lists = Vec::new();
    for name in [
        "SuccessExitStatus",
        "RestartPreventExitStatus",
        "RestartForceExitStatus",
    ] {
        let count = choices.below(4);
        let list: Vec<&str> = (0..count)
            .map(|_| choices.of(&["KILL", "ABRT", "TERM", "9", "0", "255"]))
            .collect();
        lists.push(printed(choices, name, list.join(" ")).map(|_| list));
    }
    let job = choices.of(&["", "0", "68"]);
    let job = printed(choices, "Job", job.to_owned());
    let mut span = |choices: &mut Choices<'_>, name| {
        let micros = choices.number();
        let finite = (micros != u64::MAX).then(|| Duration::from_micros(micros));
        printed(choices, name, span_as_systemd(micros)).map(|_| finite)
    };
    let stop = span(choices, "TimeoutStopUSec");
    let delay = span(choices, "RestartUSec");
    let next = span(choices, "RestartUSecNext");
    let stale = choices.of(&["yes", "no"]);
    let stale = printed(choices, "NeedDaemonReload", stale.to_owned());
    let triggered_by = choices.of(&["", "demo.timer", "demo.timer demo.socket"]);
    let triggered_by = printed(choices, "TriggeredBy", triggered_by.to_owned());

    if lines.is_empty() {
        return;
    }
    let text = format!("{}\n", lines.join("\n"));
    let state = UnitState::parse(text.as_bytes());
    let state = state.unwrap_or_else(|why| unreachable!("{why} in {text}"));
    assert_eq!(state.load.ok(), load, "{text}");
    assert_eq!(state.active.ok(), active, "{text}");
    assert_eq!(state.sub.ok(), sub, "{text}");
    assert_eq!(state.result.ok(), result, "{text}");
    assert_eq!(state.freezer, freezer, "{text}");
    assert_eq!(
        state.main_pid.ok().map(u64::from),
        printed_pid.map(|_| pid),
        "{text}"
    );
    assert_eq!(state.invocation.ok(), invocation, "{text}");
    let read = state.group.ok();
    assert_eq!(
        read.as_ref().map(ControlGroup::as_str),
        group.as_deref().filter(|path| *path != "/"),
        "{text}"
    );
    let read = state.kill_mode.ok().map(|mode| mode.as_str());
    assert_eq!(read, kill_mode.as_deref(), "{text}");
    assert_eq!(
        state.send_sigkill.ok(),
        send_sigkill.map(|sends| sends == "yes"),
        "{text}"
    );
    assert_eq!(
        state.stops_forever.ok(),
        stop.map(|stop| stop.is_none()),
        "{text}"
    );
    let started = printed_start.map(|_| Monotonic::from_micros(started));
    assert_eq!(state.started.ok(), started, "{text}");
    assert_eq!(
        state.restart.ok().map(|restart| restart.as_str()),
        restart.as_deref(),
        "{text}"
    );
    assert_eq!(
        state.remains.ok(),
        Some(remains.as_deref() == Some("yes")),
        "{text}"
    );
    assert_eq!(
        state.exits_as_group.ok(),
        Some(exits_as.as_deref() == Some("cgroup")),
        "{text}"
    );
    assert_eq!(
        state.ignores_failure.ok(),
        Some(ignores == Some("yes")),
        "{text}"
    );
    for (read, list) in [state.success, state.prevent, state.force]
        .into_iter()
        .zip(lists)
    {
        for signal in ["KILL", "ABRT", "TERM", "HUP"] {
            let expected = list.as_ref().map(|list| list.contains(&signal));
            assert_eq!(
                read.as_ref().ok().map(|read| read.names(signal)),
                expected,
                "{text}"
            );
        }
    }
    let job = job.map(|job| (job == "68").then_some(job));
    assert_eq!(state.job.ok(), job, "{text}");
    let takes = match (stop.flatten(), delay.flatten()) {
        (Some(stop), Some(delay)) => Some(stop + delay.max(next.flatten().unwrap_or_default())),
        _ => None,
    };
    assert_eq!(state.restart_takes, takes, "{text}");
    assert_eq!(
        state.stale.ok(),
        stale.map(|stale| stale == "yes"),
        "{text}"
    );
    assert_eq!(
        state.triggered_by.join(" "),
        triggered_by.unwrap_or_default(),
        "{text}"
    );
}

/// A span as format_timespan() of systemd's src/basic/time-util.c writes it.
fn span_as_systemd(micros: u64) -> String {
    const UNITS: [(&str, u64); 9] = [
        ("y", 31_557_600_000_000),
        ("month", 2_629_800_000_000),
        ("w", 604_800_000_000),
        ("d", 86_400_000_000),
        ("h", 3_600_000_000),
        ("min", 60_000_000),
        ("s", 1_000_000),
        ("ms", 1_000),
        ("us", 1),
    ];
    match micros {
        u64::MAX => return "infinity".to_owned(),
        0 => return "0".to_owned(),
        _ => {}
    }
    let mut left = micros;
    let mut words = Vec::new();
    for (name, length) in UNITS {
        if left >= length {
            words.push(format!("{}{name}", left / length));
            left %= length;
        }
    }
    words.join(" ")
}
