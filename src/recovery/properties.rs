//! What holds for the parsers of systemd's and the kernel's text whatever they are given, stated
//! once for proptest and the fuzzer. Texts for the round trips are made of the same bytes.

#![expect(
    clippy::indexing_slicing,
    reason = "a property that does not hold panics in any case"
)]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use super::Heard;
use super::guards::{self, Look, Process, Standing, Vitals};
use super::proc::{self, Socket, Stat, Status};
use super::unit::{PROPERTIES, Property, UnitState, Unreadable};
use crate::clock::Monotonic;
use crate::manifest::{KillSignal, Scope};
use crate::text::deceives;

/// Bytes as a source of choices; when it is dry, each choice is the first.
struct Choices<'a>(std::slice::Iter<'a, u8>);

impl Choices<'_> {
    fn byte(&mut self) -> u8 {
        self.0.next().copied().unwrap_or(0)
    }

    fn number(&mut self) -> u64 {
        let length = usize::from(self.byte() % 9);
        (0..length).fold(0, |number, _| number << 8 | u64::from(self.byte()))
    }

    fn below(&mut self, end: usize) -> usize {
        usize::from(self.byte()) % end
    }

    fn of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())]
    }
}

/// Every property of what reads `systemctl show`.
///
/// # Panics
///
/// Where one does not hold.
pub fn show_property(data: &[u8]) {
    match UnitState::parse(data) {
        Err(why) => {
            assert!(!why.contains(deceives), "raw control: {why:?}");
            assert!(why.chars().count() < 1_500, "{} bytes", why.len());
        }
        Ok(state) => stands_line_by_line(data, &state),
    }
    comes_back(&mut Choices(data.iter()));
}

/// Each line stands for itself: their order, lines of others, and what else is missing change
/// nothing; and what is missing is told, and no guard takes it for good.
fn stands_line_by_line(data: &[u8], state: &UnitState) {
    let text = String::from_utf8_lossy(data);
    let lines: Vec<&str> = text.trim_end_matches('\n').split('\n').collect();
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
        let left: Vec<&str> = lines
            .iter()
            .filter(|line| !sets(line, name))
            .copied()
            .collect();
        if left.is_empty() {
            assert!(parse(&left).is_err());
        } else {
            let expected = without(state.clone(), name);
            assert_eq!(parse(&left), Ok(expected.clone()), "without {name}");
            passes_only_if_all_is_well(&left, &expected);
        }
    }
}

fn sets(line: &str, name: &str) -> bool {
    line.split_once('=').is_some_and(|(key, _)| key == name)
}

/// `state`, had systemd not told `name`.
fn without(mut state: UnitState, name: &str) -> UnitState {
    fn missing<T>(name: &str) -> Property<T> {
        Err(Unreadable(format!("systemctl did not tell {name}=")))
    }
    match name {
        "LoadState" => state.load = missing(name),
        "ActiveState" => state.active = missing(name),
        "SubState" => state.sub = missing(name),
        "Result" => state.result = missing(name),
        "MainPID" => state.main_pid = missing(name),
        "InvocationID" => state.invocation = missing(name),
        "ExecMainStartTimestampMonotonic" => state.started = missing(name),
        "Restart" => state.restart = missing(name),
        "SuccessExitStatus" => state.success = missing(name),
        "RestartPreventExitStatus" => state.prevent = missing(name),
        "RestartForceExitStatus" => state.force = missing(name),
        "Job" => state.job = missing(name),
        "FreezerState" => state.freezer = None,
        "TimeoutStopUSec" | "RestartUSec" => state.restart_takes = None,
        "NeedDaemonReload" => state.stale = missing(name),
        "TriggeredBy" => state.triggered_by.clear(),
        _ => {}
    }
    state
}

/// The guards let a unit pass only if each line that one of them needs is there, and says so.
fn passes_only_if_all_is_well(lines: &[&str], state: &UnitState) {
    const OWN: u32 = 99;
    let at = Monotonic::from_micros(u64::MAX);
    let standing = Standing {
        unit: "demo.service",
        scope: Scope::System,
        signal: KillSignal::Abort,
        min_uptime: Duration::ZERO,
        sweep_began: at,
        starved: false,
        own_pid: OWN,
        not_local: None,
        manifest_writable: None,
    };
    let look = |before| Look {
        at,
        unit: state,
        before,
        process: Process::Alive(Vitals {
            state: 'S',
            tracer: 0,
            dumping: false,
            kill_pending: false,
            age: Duration::MAX - Duration::from_secs(1),
        }),
        heard: Heard::Nothing,
    };
    let first = guards::judge(&standing, &look(None));
    assert_eq!(
        first,
        guards::judge(&standing, &look(Some(state))),
        "nothing changed"
    );
    if let Err((_, why)) = first {
        assert!(!why.contains(deceives), "raw control: {why:?}");
        return;
    }
    let told = |name: &str| {
        lines
            .iter()
            .find_map(|line| line.strip_prefix(&format!("{name}=")[..]))
    };
    assert_eq!(told("LoadState"), Some("loaded"));
    assert_eq!(told("ActiveState"), Some("active"));
    let pid: u32 = told("MainPID")
        .and_then(|pid| pid.parse().ok())
        .unwrap_or(0);
    assert!(pid > 1 && pid != OWN, "MainPID={pid}");
    assert_eq!(told("InvocationID").map(str::len), Some(32));
    let started = told("ExecMainStartTimestampMonotonic").unwrap_or("0");
    assert_ne!(started.trim_start_matches(['+', '0']), "");
    assert!(matches!(told("Job"), Some("" | "0")));
    assert!(matches!(told("FreezerState"), None | Some("running")));
    for list in [
        "SuccessExitStatus",
        "RestartPreventExitStatus",
        "RestartForceExitStatus",
    ] {
        assert!(told(list).is_some(), "without {list}");
    }
    let names = |list: &str, signal: &str| {
        let told = told(list).unwrap_or_default();
        told.split_whitespace()
            .any(|word| word == signal || word == format!("SIG{signal}"))
    };
    let restart = told("Restart").unwrap_or("no");
    for signal in ["ABRT", "KILL"] {
        assert!(
            !names("RestartPreventExitStatus", signal),
            "prevented after {signal}"
        );
        let fails = ["on-failure", "on-abnormal", "on-abort"];
        assert!(
            names("RestartForceExitStatus", signal)
                || restart == "always"
                || restart == "on-success" && names("SuccessExitStatus", signal)
                || fails.contains(&restart) && !names("SuccessExitStatus", signal),
            "Restart={restart} after {signal}"
        );
    }
}

/// A unit as systemd could tell it, written in systemd's way and in any order, is read as it was.
fn comes_back(choices: &mut Choices<'_>) {
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
    let mut told = |choices: &mut Choices<'_>, name: &str, value: String| {
        let there = choices.byte() % 8 != 7;
        if there {
            lines.insert(choices.below(lines.len() + 1), format!("{name}={value}"));
        }
        there.then_some(value)
    };
    let mut word = |choices: &mut Choices<'_>, name| {
        let word = choices.of(&words);
        told(choices, name, word.to_owned())
    };
    let load = word(choices, "LoadState");
    let active = word(choices, "ActiveState");
    let sub = word(choices, "SubState");
    let result = word(choices, "Result");
    let freezer = word(choices, "FreezerState");
    let pid = u64::from(choices.number() as u32);
    let pid_told = told(choices, "MainPID", pid.to_string());
    let invocation = format!("{:016x}{:016x}", choices.number(), choices.number());
    let invocation = told(choices, "InvocationID", invocation);
    let started = choices.number().max(1);
    let started_told = told(
        choices,
        "ExecMainStartTimestampMonotonic",
        started.to_string(),
    );
    let restart = choices.of(&restarts);
    let restart = told(choices, "Restart", restart.to_owned());
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
        lists.push(told(choices, name, list.join(" ")).map(|_| list));
    }
    let job = choices.of(&["", "0", "68"]);
    let job = told(choices, "Job", job.to_owned());
    let mut span = |choices: &mut Choices<'_>, name| {
        let micros = choices.number();
        let finite = (micros != u64::MAX).then(|| Duration::from_micros(micros));
        told(choices, name, span_as_systemd(micros)).map(|_| finite)
    };
    let stop = span(choices, "TimeoutStopUSec");
    let delay = span(choices, "RestartUSec");
    let next = span(choices, "RestartUSecNext");
    let stale = choices.of(&["yes", "no"]);
    let stale = told(choices, "NeedDaemonReload", stale.to_owned());
    let triggered_by = choices.of(&["", "demo.timer", "demo.timer demo.socket"]);
    let triggered_by = told(choices, "TriggeredBy", triggered_by.to_owned());

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
        pid_told.map(|_| pid),
        "{text}"
    );
    assert_eq!(state.invocation.ok(), invocation, "{text}");
    let started = started_told.map(|_| Monotonic::from_micros(started));
    assert_eq!(state.started.ok(), started, "{text}");
    assert_eq!(
        state.restart.ok().map(|restart| restart.as_str()),
        restart.as_deref(),
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

/// Every property of what reads `/proc`.
///
/// # Panics
///
/// Where one does not hold.
pub fn proc_property(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    // Whatever is read comes back, once it is written in the kernel's way; but a number that no
    // kernel tells may have been cut to the largest.
    if let Some(read) = proc::stat(&text)
        && read.started < Duration::from_secs(1 << 50)
    {
        assert_eq!(
            proc::stat(&stat_as_linux(&read, read.ticks, &[])),
            Some(read)
        );
    }
    if let Some(read) = proc::status(&text)
        && read.resident != Some(u64::MAX)
    {
        assert_eq!(proc::status(&status_as_linux("", &read, 0)), Some(read));
    }
    for line in text.lines() {
        if let Some(read) = proc::socket(line) {
            assert_eq!(
                proc::socket(&socket_as_linux(&read, false)),
                Some(read),
                "{line}"
            );
        }
    }
    stat_comes_back(&text, &mut Choices(data.iter()));
    status_comes_back(&text, &mut Choices(data.iter()));
    socket_comes_back(&mut Choices(data.iter()));
}

/// With any name, and with any fields behind those that are read.
fn stat_comes_back(name: &str, choices: &mut Choices<'_>) {
    let (user, system) = (choices.number(), choices.number());
    let stat = Stat {
        name: name.to_owned(),
        state: choices.of(&['R', 'S', 'D', 'T', 't', 'Z', 'X', 'I']),
        ticks: user.saturating_add(system),
        started: Duration::from_millis(choices.number() / 1_000 * 10),
    };
    let more: Vec<u64> = (0..choices.below(31)).map(|_| choices.number()).collect();
    let text = if user.checked_add(system).is_some() {
        stat_as_linux(&stat, user, &more)
    } else {
        stat_as_linux(&stat, u64::MAX, &more)
    };
    assert_eq!(proc::stat(&text), Some(stat), "{text}");
    // Cut off before the start, it tells nothing rather than something else.
    let fields = text.len() - text.rfind(')').unwrap_or(0);
    let tail = &text[text.len() - fields..];
    let ends: Vec<usize> = tail.match_indices(' ').map(|(at, _)| at).collect();
    if let Some(end) = ends.get(choices.below(20)) {
        let cut = &text[..text.len() - fields + end];
        assert_eq!(proc::stat(cut), None, "{cut}");
    }
}

/// `/proc/PID/stat` as do_task_stat() of fs/proc/array.c writes it, with `user` of the ticks.
fn stat_as_linux(stat: &Stat, user: u64, more: &[u64]) -> String {
    let Stat {
        name,
        state,
        ticks,
        started,
    } = stat;
    let (system, start) = (ticks - user, started.as_millis() / 10);
    let more: String = more.iter().map(|field| format!(" {field}")).collect();
    format!(
        "4711 ({name}) {state} 1 4711 4711 0 -1 4194560 101 0 3 0 {user} {system} 0 0 20 0 1 0 {start}{more}\n"
    )
}

/// With any name, which the kernel keeps on its line.
fn status_comes_back(name: &str, choices: &mut Choices<'_>) {
    let status = Status {
        tracer: choices.number() as u32,
        dumping: choices.byte() % 2 == 1,
        kill_pending: choices.byte() % 2 == 1,
        resident: (choices.byte() % 4 != 3).then(|| choices.number() >> 10 << 10),
        capabilities: choices.number(),
    };
    let name = name.replace('\n', "\\n");
    let text = status_as_linux(&name, &status, choices.number());
    assert_eq!(proc::status(&text), Some(status), "{text}");
    for needed in ["TracerPid:", "SigPnd:", "ShdPnd:", "CapEff:"] {
        let left = text.replace(&format!("\n{needed}"), "\nElse:");
        assert_eq!(proc::status(&left), None, "without {needed}");
    }
}

/// `/proc/PID/status` as proc_pid_status() of fs/proc/array.c writes it; `pending` are signals
/// that are no SIGKILL.
fn status_as_linux(name: &str, status: &Status, pending: u64) -> String {
    let kill = 1 << 8;
    let resident = status.resident.map_or(String::new(), |bytes| {
        format!("VmRSS:\t{:>8} kB\n", bytes >> 10)
    });
    let pending = (pending & !kill) | (u64::from(status.kill_pending) * kill);
    // To the process as a whole, or to its main thread.
    let (thread, whole) = if pending.is_multiple_of(2) {
        (pending, 0)
    } else {
        (0, pending)
    };
    format!(
        "Name:\t{name}\nUmask:\t0022\nState:\tS (sleeping)\nPid:\t4711\nTracerPid:\t{}\nUid:\t0\t0\t0\t0\n\
         VmHWM:\t    9999 kB\n{resident}CoreDumping:\t{}\nThreads:\t1\nSigPnd:\t{thread:016x}\nShdPnd:\t{whole:016x}\n\
         CapInh:\t0000000000000000\nCapPrm:\t000001ffffffffff\nCapEff:\t{:016x}\nSeccomp:\t0\n",
        status.tracer,
        u8::from(status.dumping),
        status.capabilities
    )
}

fn socket_comes_back(choices: &mut Choices<'_>) {
    let mut end = |v4: bool| {
        let number = choices.number();
        let ip = if v4 {
            IpAddr::V4(Ipv4Addr::from_bits(number as u32))
        } else {
            let low = choices.number();
            IpAddr::V6(Ipv6Addr::from_bits(
                u128::from(number) << 64 | u128::from(low),
            ))
            .to_canonical()
        };
        SocketAddr::new(ip, choices.number() as u16)
    };
    let v4 = end(true).port().is_multiple_of(2);
    let socket = Socket {
        local: end(v4),
        remote: end(v4),
        listens: choices.byte() % 2 == 1,
        waiting: u64::from(choices.number() as u32),
        inode: choices.number(),
    };
    for mapped in [false, true] {
        let row = socket_as_linux(&socket, mapped);
        assert_eq!(proc::socket(&row), Some(socket), "{row}");
    }
}

/// A row as get_tcp4_sock() and get_tcp6_sock() of net/ipv4/tcp_ipv4.c and net/ipv6/tcp_ipv6.c
/// write it; `mapped` has IPv4 addresses in IPv6 form.
fn socket_as_linux(socket: &Socket, mapped: bool) -> String {
    let end = |end: SocketAddr| {
        let bytes = match end.ip() {
            IpAddr::V4(ip) if mapped => ip.to_ipv6_mapped().octets().to_vec(),
            IpAddr::V4(ip) => ip.octets().to_vec(),
            IpAddr::V6(ip) => ip.octets().to_vec(),
        };
        let words = bytes.chunks_exact(4).map(|word| {
            let word = <[u8; 4]>::try_from(word).unwrap_or_default();
            format!("{:08X}", u32::from_ne_bytes(word))
        });
        format!("{}:{:04X}", words.collect::<String>(), end.port())
    };
    format!(
        "   7: {} {} {} 00000000:{:08X} 00:00000000 00000000  1000        0 {} 1 0000000000000000 20 4 30 10 -1",
        end(socket.local),
        end(socket.remote),
        if socket.listens { "0A" } else { "01" },
        socket.waiting,
        socket.inode
    )
}
