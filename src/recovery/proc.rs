//! Reads the kernel's own text about processes and sockets, proc(5). Pure: the text comes from
//! elsewhere, and what it means for a kill is decided elsewhere.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

/// Clock ticks a second in what the kernel tells user space (`USER_HZ`,
/// include/uapi/asm-generic/param.h); the same on every architecture that Rust runs on.
const TICKS: u64 = 100;

/// From `/proc/PID/stat`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Stat {
    /// The command name, at most 15 bytes, chosen by the process itself.
    pub(super) name: String,
    /// `R`, `S`, `D`, `T`, `t`, `Z`, …
    pub(super) state: char,
    /// CPU time used, in ticks.
    pub(super) ticks: u64,
    /// When it started, on `CLOCK_BOOTTIME`.
    pub(super) started: Duration,
}

/// Reads `/proc/PID/stat` or `/proc/PID/task/TID/stat`; none where it is not of that form.
pub(super) fn stat(text: &str) -> Option<Stat> {
    // The name may hold spaces and parentheses, so its end is the last one.
    let (head, tail) = text.rsplit_once(')')?;
    let (_, name) = head.split_once('(')?;
    let mut fields = tail.split_ascii_whitespace();
    let state = fields.next()?.chars().next()?;
    let mut number = |skip| fields.nth(skip)?.parse::<u64>().ok();
    let (user, system) = (number(10)?, number(0)?);
    let started = number(6)?;
    Some(Stat {
        name: name.to_owned(),
        state,
        ticks: user.saturating_add(system),
        started: Duration::from_millis(started.saturating_mul(1_000 / TICKS)),
    })
}

/// From `/proc/PID/status`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Status {
    /// The tracer's PID, 0 where there is none.
    pub(super) tracer: u32,
    /// Whether it is dumping core. A process that has given up its memory is not said to, and does
    /// not: proc_pid_status() of the kernel's fs/proc/array.c.
    pub(super) dumping: bool,
    /// Whether a SIGKILL has been sent and not yet obeyed.
    pub(super) kill_pending: bool,
    /// Resident memory in bytes; none for a process that has given up its memory.
    pub(super) resident: Option<u64>,
}

/// Reads `/proc/PID/status`; none where a needed field is missing.
pub(super) fn status(text: &str) -> Option<Status> {
    let field = |name| {
        text.lines()
            .filter_map(|line| line.split_once(':'))
            .find_map(|(key, value)| (key == name).then(|| value.trim()))
    };
    let mask = |name| u64::from_str_radix(field(name)?, 16).ok();
    let kill = 1 << (libc::SIGKILL - 1);
    Some(Status {
        tracer: field("TracerPid")?.parse().ok()?,
        dumping: field("CoreDumping").is_some_and(|value| value != "0"),
        kill_pending: (mask("SigPnd")? | mask("ShdPnd")?) & kill != 0,
        resident: field("VmRSS")
            .and_then(|value| value.strip_suffix(" kB"))
            .and_then(|value| value.trim().parse::<u64>().ok())
            .map(|kib| kib.saturating_mul(1_024)),
    })
}

/// A row of `/proc/net/tcp` or `/proc/net/tcp6`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Socket {
    /// Its own address; an IPv4 address in IPv6 form is told as IPv4.
    pub(super) local: SocketAddr,
    /// The other end's.
    pub(super) remote: SocketAddr,
    /// Whether it listens.
    pub(super) listens: bool,
    /// For a listening socket, the connections that wait to be accepted.
    pub(super) waiting: u64,
    /// 0 for a connection that nobody has accepted yet.
    pub(super) inode: u64,
}

/// Reads one row; none for the heading and whatever else is not of that form.
pub(super) fn socket(line: &str) -> Option<Socket> {
    const LISTEN: &str = "0A"; // TCP_LISTEN, include/net/tcp_states.h
    let mut fields = line.split_ascii_whitespace();
    let local = address(fields.nth(1)?)?;
    let remote = address(fields.next()?)?;
    let listens = fields.next()? == LISTEN;
    let (_, waiting) = fields.next()?.split_once(':')?;
    Some(Socket {
        local,
        remote,
        listens,
        waiting: u64::from_str_radix(waiting, 16).ok()?,
        inode: fields.nth(4)?.parse().ok()?,
    })
}

/// `ADDRESS:PORT` in hexadecimal: the address as words in this machine's byte order, the port as a
/// number.
fn address(text: &str) -> Option<SocketAddr> {
    let (address, port) = text.split_once(':')?;
    let mut bytes = Vec::with_capacity(16);
    for word in address.as_bytes().chunks(8) {
        let digits = std::str::from_utf8(word)
            .ok()
            .filter(|word| word.len() == 8)?;
        let word = u32::from_str_radix(digits, 16).ok()?;
        bytes.extend(word.to_ne_bytes());
    }
    let ip = match <[u8; 4]>::try_from(bytes.as_slice()) {
        Ok(four) => IpAddr::V4(Ipv4Addr::from(four)),
        Err(_) => IpAddr::V6(Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?)).to_canonical(),
    };
    Some(SocketAddr::new(ip, u16::from_str_radix(port, 16).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stat_reads_names_with_spaces_and_parentheses() {
        let tail = "S 19290 19290 4262 0 -1 4194304 101 0 0 0 17 5 0 0 20 0 1 0 290103 3133440 394";
        for name in ["cat", "a b", "evil) R 1 1", "(((", ")", ""] {
            let stat = stat(&format!("19299 ({name}) {tail}")).unwrap();
            assert_eq!(stat.name, name);
            assert_eq!(stat.state, 'S');
            assert_eq!(stat.ticks, 22);
            assert_eq!(stat.started, Duration::from_millis(2_901_030));
        }
    }

    #[test]
    fn stat_refuses_what_is_cut_short() {
        for text in [
            "",
            "19299",
            "1 (cat)",
            "1 (cat) S 1 2 3",
            "1 (cat S 1 2 3",
            "1 cat) S",
        ] {
            assert_eq!(stat(text), None, "{text}");
        }
    }

    const STATUS: &str = "Name:\tpython3\nState:\tS (sleeping)\nTracerPid:\t0\nVmRSS:\t    1844 kB\n\
        CoreDumping:\t0\nSigPnd:\t0000000000000000\nShdPnd:\t0000000000000000\nCapEff:\t0000000000000020\n";

    #[test]
    fn status_reads_what_a_guard_needs() {
        let calm = Status {
            tracer: 0,
            dumping: false,
            kill_pending: false,
            resident: Some(1_844 * 1_024),
        };
        assert_eq!(status(STATUS), Some(calm));
        for (from, to, expected) in [
            (
                "TracerPid:\t0",
                "TracerPid:\t77",
                Status { tracer: 77, ..calm },
            ),
            (
                "CoreDumping:\t0",
                "CoreDumping:\t1",
                Status {
                    dumping: true,
                    ..calm
                },
            ),
            ("CoreDumping:\t0\n", "", calm),
            (
                "ShdPnd:\t0000000000000000",
                "ShdPnd:\t0000000000000100",
                Status {
                    kill_pending: true,
                    ..calm
                },
            ),
            (
                "SigPnd:\t0000000000000000",
                "SigPnd:\t0000000000000100",
                Status {
                    kill_pending: true,
                    ..calm
                },
            ),
            (
                "ShdPnd:\t0000000000000000",
                "ShdPnd:\t0000000000000220",
                calm,
            ),
            (
                "VmRSS:\t    1844 kB\n",
                "",
                Status {
                    resident: None,
                    ..calm
                },
            ),
        ] {
            assert_eq!(status(&STATUS.replace(from, to)), Some(expected), "{to}");
        }
    }

    #[test]
    fn status_refuses_what_lacks_a_guards_field() {
        for line in ["TracerPid:\t0\n", "ShdPnd:\t0000000000000000\n"] {
            assert_eq!(status(&STATUS.replace(line, "")), None, "{line}");
        }
        assert_eq!(
            status(&STATUS.replace("TracerPid:\t0", "TracerPid:\t-")),
            None
        );
    }

    #[test]
    #[cfg(target_endian = "little")]
    fn socket_reads_both_families() {
        let row = socket("   0: 0100007F:1F40 00000000:0000 0A 00000000:00000081 00:00000000 00000000     0        0 632 1 0 100 0 0 10 0").unwrap();
        assert_eq!(row.local, "127.0.0.1:8000".parse().unwrap());
        assert_eq!((row.listens, row.waiting, row.inode), (true, 129, 632));

        let row = socket("  12: 00000000000000000000000001000000:1F40 00000000000000000000000001000000:C350 01 00000000:0000004E 00:00000000 00000000     0        0 0 1 0 20 0 0 10 -1").unwrap();
        assert_eq!(row.local, "[::1]:8000".parse().unwrap());
        assert_eq!(row.remote, "[::1]:50000".parse().unwrap());
        assert_eq!((row.listens, row.inode), (false, 0));

        let row = socket("   3: 0000000000000000FFFF00000100007F:1F40 0000000000000000FFFF00000100007F:C350 01 00000000:00000000 00:00000000 00000000     0        0 4711 1 0 20 0 0 10 -1").unwrap();
        assert_eq!(row.local, "127.0.0.1:8000".parse().unwrap());
    }

    #[test]
    fn socket_refuses_everything_else() {
        for line in [
            "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode",
            "",
            "0: 0100007F:1F40",
            "0: 0100:1F40 00000000:0000 0A 00000000:00000081 00:00000000 00000000 0 0 632",
            "0: zzzzzzzz:1F40 00000000:0000 0A 00000000:00000081 00:00000000 00000000 0 0 632",
            "0: ÄÄÄÄ:1F40 00000000:0000 0A 00000000:00000081 00:00000000 00000000 0 0 632",
        ] {
            assert_eq!(socket(line), None, "{line}");
        }
    }
}
