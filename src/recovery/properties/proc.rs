//! Properties of the parsers of `/proc`.

use std::time::Duration;

use super::Choices;
use crate::manifest::Scope;
use crate::recovery::cgroup::{self, ControlGroup};
use crate::recovery::proc::{self, Stat, Status};
use crate::recovery::warnings::service_of;

/// Checks every property of these parsers.
///
/// # Panics
///
/// A property does not hold.
pub fn proc_property(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    // Whatever is read survives a round trip in the kernel's format, except a number beyond the
    // kernel's range, which saturates.
    if let Some(read) = proc::parse_stat(&text)
        && read.started < Duration::from_secs(1 << 50)
    {
        assert_eq!(
            proc::parse_stat(&stat_as_linux(&read, read.ticks, &[])),
            Some(read)
        );
    }
    if let Some(read) = proc::parse_status(&text)
        && read.resident != Some(u64::MAX)
    {
        assert_eq!(
            proc::parse_status(&status_as_linux("", &read, 0)),
            Some(read)
        );
    }
    stat_survives_a_round_trip(&text, &mut Choices(data.iter()));
    status_survives_a_round_trip(&text, &mut Choices(data.iter()));
    service_of_survives_a_round_trip(&text, &mut Choices(data.iter()));
    group_is_absolute(&text);
}

/// From any text, a control group is never the root group, and it contains itself.
fn group_is_absolute(text: &str) {
    if let Some(path) = cgroup::path_of(text) {
        assert!(text.contains(&format!("0::{path}")) && !path.contains('\n'));
    }
    let Some(group) = ControlGroup::parse(text) else {
        return;
    };
    assert_eq!(group.as_str(), text);
    assert!(text.len() > 1 && text.starts_with('/') && !text.split('/').any(|part| part == ".."));
    assert!(group.contains(text) && group.contains(&format!("{text}/below")));
    assert!(!group.contains(&format!("{text}x")) && !group.contains("/"));
}

/// With any name, and with any fields after those that are read.
fn stat_survives_a_round_trip(name: &str, choices: &mut Choices<'_>) {
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
    assert_eq!(proc::parse_stat(&text), Some(stat), "{text}");
    // Truncated before the start time, it gives nothing rather than something else.
    let fields = text.len() - text.rfind(')').unwrap_or(0);
    let tail = &text[text.len() - fields..];
    let ends: Vec<usize> = tail.match_indices(' ').map(|(at, _)| at).collect();
    if let Some(end) = ends.get(choices.below(20)) {
        let cut = &text[..text.len() - fields + end];
        assert_eq!(proc::parse_stat(cut), None, "{cut}");
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

/// With any name, which the kernel keeps on one line.
fn status_survives_a_round_trip(name: &str, choices: &mut Choices<'_>) {
    let status = Status {
        parent: choices.number() as u32,
        tracer: choices.number() as u32,
        state: choices.of(&['R', 'S', 'D', 'T', 't', 'Z', 'X', 'I']),
        dumping: choices.byte() % 2 == 1,
        kill_pending: choices.byte() % 2 == 1,
        resident: (choices.byte() % 4 != 3).then(|| choices.number() >> 10 << 10),
        handled: choices.number(),
    };
    let name = name.replace('\n', "\\n");
    let text = status_as_linux(&name, &status, choices.number());
    assert_eq!(proc::parse_status(&text), Some(status), "{text}");
    for needed in [
        "State:",
        "PPid:",
        "TracerPid:",
        "SigPnd:",
        "ShdPnd:",
        "SigBlk:",
        "SigCgt:",
    ] {
        let left = text.replace(&format!("\n{needed}"), "\nElse:");
        assert_eq!(proc::parse_status(&left), None, "without {needed}");
    }
}

/// `/proc/PID/status` as proc_pid_status() of fs/proc/array.c writes it; `pending` are signals
/// other than SIGKILL.
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
        "Name:\t{name}\nUmask:\t0022\nState:\t{} (in words)\nPid:\t4711\nPPid:\t{}\nTracerPid:\t{}\nUid:\t0\t0\t0\t0\n\
         VmHWM:\t    9999 kB\n{resident}CoreDumping:\t{}\nThreads:\t1\nSigPnd:\t{thread:016x}\nShdPnd:\t{whole:016x}\nSigBlk:\t{:016x}\nSigCgt:\t{:016x}\n\
         CapInh:\t0000000000000000\nCapPrm:\t000001ffffffffff\nCapEff:\t0000000000000020\nSeccomp:\t0\n",
        status.state,
        status.parent,
        status.tracer,
        u8::from(status.dumping),
        // Those that it catches and blocks are not handled.
        pending & !status.handled,
        pending | status.handled
    )
}

/// With any names, and with cgroup v1 hierarchies, cgroups(7), before and after it.
fn service_of_survives_a_round_trip(name: &str, choices: &mut Choices<'_>) {
    if let Some((unit, _)) = service_of(name) {
        assert!(unit.ends_with(".service") && !unit.contains(['/', '\n']));
        assert!(name.contains(&unit));
    }
    let name = name.replace(['/', '\n', '\r'], "_");
    let end = choices.of(&[".service", ".scope", ".service.d"]);
    let (above, scope) = choices.of(&[
        ("/system.slice", Scope::System),
        ("", Scope::System),
        (
            "/user.slice/user-1.slice/user@1.service/app.slice",
            Scope::User,
        ),
    ]);
    let old = choices.of(&[
        "",
        "3:cpu,cpuacct:/x/0::/y.service\n1:name=systemd:/z.service\n",
    ]);
    let text = format!("{old}0::{above}/{name}{end}\n{old}");
    let expected = (end == ".service").then(|| (format!("{name}{end}"), scope));
    assert_eq!(service_of(&text), expected, "{text}");
}
