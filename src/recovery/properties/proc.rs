//! What reads `/proc`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use super::Choices;
use crate::manifest::Scope;
use crate::recovery::proc::{self, Socket, Stat, Status};
use crate::recovery::warnings::own_unit;

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
    own_unit_comes_back(&text, &mut Choices(data.iter()));
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
    };
    let name = name.replace('\n', "\\n");
    let text = status_as_linux(&name, &status, choices.number());
    assert_eq!(proc::status(&text), Some(status), "{text}");
    for needed in ["TracerPid:", "SigPnd:", "ShdPnd:"] {
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
         CapInh:\t0000000000000000\nCapPrm:\t000001ffffffffff\nCapEff:\t0000000000000020\nSeccomp:\t0\n",
        status.tracer,
        u8::from(status.dumping)
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

/// With any names, and with the hierarchies of cgroups(7), version 1, before and behind.
fn own_unit_comes_back(name: &str, choices: &mut Choices<'_>) {
    if let Some(unit) = own_unit(name) {
        assert!(unit.name.ends_with(".service") && !unit.name.contains(['/', '\n']));
        assert!(name.contains(&unit.name));
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
    assert_eq!(
        own_unit(&text).map(|unit| (unit.name, unit.scope)),
        expected,
        "{text}"
    );
}
