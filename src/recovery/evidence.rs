//! What a hung process was seen doing, for the person who reads the report in the morning. Best
//! effort: it must neither delay the signal nor influence whether it is sent.

use std::collections::BTreeMap;
use std::fs::{self, File, ReadDir};
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::time::Duration;

use serde::{Serialize, Serializer};

use super::Knock;
use super::proc::{self, Socket};
use crate::clock::Monotonic;
use crate::privileges::{CAP_SYS_PTRACE, has_capability};
use crate::text::escape;

/// The time between the two samples of the CPU ticks.
const SAMPLE: Duration = Duration::from_millis(100);
/// Threads looked at; of more, the first ones are typical enough.
const THREADS: usize = 512;
/// Bytes read of any file about one process.
const FILE: u64 = 64 * 1_024;

/// A datum, or why there is none. In JSON the datum itself, `"not permitted"`, or `null`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reading<T> {
    /// What was read.
    Known(T),
    /// The kernel does not tell it to this user.
    NotPermitted,
    /// Not read: there was no time, or nothing to read.
    Unknown,
}

impl<T> Reading<T> {
    /// The datum.
    pub const fn known(&self) -> Option<&T> {
        match self {
            Self::Known(datum) => Some(datum),
            Self::NotPermitted | Self::Unknown => None,
        }
    }

    fn map<U>(self, change: impl FnOnce(T) -> U) -> Reading<U> {
        self.and_then(|datum| Reading::Known(change(datum)))
    }

    fn and_then<U>(self, next: impl FnOnce(T) -> Reading<U>) -> Reading<U> {
        match self {
            Self::Known(datum) => next(datum),
            Self::NotPermitted => Reading::NotPermitted,
            Self::Unknown => Reading::Unknown,
        }
    }
}

impl<T> From<Option<T>> for Reading<T> {
    fn from(datum: Option<T>) -> Self {
        datum.map_or(Self::Unknown, Self::Known)
    }
}

impl<T> From<std::io::Result<T>> for Reading<T> {
    fn from(result: std::io::Result<T>) -> Self {
        match result {
            Ok(datum) => Self::Known(datum),
            Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
                Self::NotPermitted
            }
            Err(_) => Self::Unknown,
        }
    }
}

impl<T: Serialize> Serialize for Reading<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Known(datum) => datum.serialize(serializer),
            Self::NotPermitted => serializer.serialize_str("not permitted"),
            Self::Unknown => serializer.serialize_none(),
        }
    }
}

/// What was seen of a hung process, in the order in which it is reported.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Evidence {
    /// Its command name, at most 15 bytes, chosen by the process itself.
    pub name: Reading<String>,
    /// Its state as one letter, proc(5).
    pub state: Reading<char>,
    /// Its threads, the largest group first.
    pub threads: Reading<Vec<ThreadGroup>>,
    /// CPU time used between two samples.
    pub cpu: Reading<Cpu>,
    /// Resident memory in bytes.
    pub resident_bytes: Reading<u64>,
    /// Open descriptors.
    pub open_descriptors: Reading<usize>,
    /// Connections that wait in the listening socket's accept queue.
    pub accept_queue: Reading<u64>,
    /// Whether the process accepted the last GET's connection.
    pub accepted: Reading<bool>,
}

/// Threads in the same state at the same place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ThreadGroup {
    /// Their state as one letter, proc(5).
    pub state: char,
    /// The kernel function in which they sleep; `0` for threads that do not.
    pub wait_channel: Reading<String>,
    /// How many they are.
    pub count: usize,
}

/// CPU time used between two samples.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Cpu {
    /// In ticks of 10 ms, user and system together.
    pub ticks: u64,
    /// The time between the two samples, in milliseconds.
    pub interval_ms: u64,
}

impl Evidence {
    /// One line for people.
    pub fn summary(&self) -> String {
        let queue = self.accept_queue.known().map(|&waiting| {
            let verb = match self.accepted.known() {
                Some(true) => ", but the newest one was accepted",
                Some(false) if waiting > 0 => ", none accepted",
                Some(false) | None => "",
            };
            format!("{} waiting{verb}", count(waiting, "connection"))
        });
        let threads = self.threads.known().and_then(|groups| {
            let shown: Vec<_> = groups.iter().take(3).map(ThreadGroup::summary).collect();
            let more = if groups.len() > 3 { ", …" } else { "" };
            (!shown.is_empty()).then(|| shown.join(", ") + more)
        });
        let cpu = self
            .cpu
            .known()
            .map(|cpu| format!("{} in {} ms", count(cpu.ticks, "CPU tick"), cpu.interval_ms));
        let parts: Vec<_> = [queue, threads, cpu].into_iter().flatten().collect();
        if parts.is_empty() {
            return "nothing could be seen of the process".to_owned();
        }
        parts.join("; ")
    }
}

impl ThreadGroup {
    fn summary(&self) -> String {
        let state = match self.state {
            'R' => "running",
            'S' => "sleeping",
            'D' => "in uninterruptible sleep",
            'T' => "stopped",
            't' => "held by a tracer",
            'Z' | 'X' => "dead",
            _ => "in an unknown state",
        };
        let threads = count(self.count as u64, "thread");
        match self.wait_channel.known() {
            Some(place) if place != "0" => format!("{threads} {state} in {}", escape(place)),
            _ => format!("{threads} {state}"),
        }
    }
}

fn count(number: u64, what: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {what}{plural}")
}

/// Looks at process `pid`, whose last GET is `knock`, until the moment `until` at the latest.
pub(super) fn gather(
    pid: u32,
    knock: &dyn Knock,
    addresses: &[SocketAddr],
    until: Monotonic,
) -> Evidence {
    let folder = format!("/proc/{pid}");
    let began = Monotonic::now();
    let first = stat(&folder);
    let status = read(&format!("{folder}/status"));
    let descriptors = Reading::from(fs::read_dir(format!("{folder}/fd")))
        .map(|entries| entries.take_while(|_| !until.has_passed()).count());
    let open_descriptors = match descriptors {
        // Counted to the end only if there was time left.
        Reading::Known(_) if until.has_passed() => Reading::Unknown,
        descriptors => descriptors,
    };
    let may_trace = || has_capability(CAP_SYS_PTRACE) == Some(true);
    let trusted = open_descriptors.known().is_some() || may_trace();
    let threads = Reading::from(fs::read_dir(format!("{folder}/task")))
        .and_then(|tasks| threads(tasks, trusted, until));

    // The last GET uses the time to connect.
    let wait = SAMPLE.saturating_sub(Monotonic::now().since(began));
    std::thread::sleep(wait.min(until.remaining()));
    let cpu = first.clone().and_then(|first| {
        stat(&folder).map(|second| Cpu {
            ticks: second.ticks.saturating_sub(first.ticks),
            interval_ms: u64::try_from(Monotonic::now().since(began).as_millis())
                .unwrap_or(u64::MAX),
        })
    });
    let (accept_queue, accepted) = queue(&sockets(until), addresses, knock.connection());
    Evidence {
        name: first.clone().map(|stat| stat.name),
        state: first.map(|stat| stat.state),
        threads,
        cpu,
        resident_bytes: status.and_then(|text| {
            let status = proc::status(&text);
            status.and_then(|status| status.resident).into()
        }),
        open_descriptors,
        accept_queue,
        accepted,
    }
}

/// The threads, grouped. Without permission (`trusted`) the kernel gives every wait channel as
/// `0`, and calls that a success.
fn threads(tasks: ReadDir, trusted: bool, until: Monotonic) -> Reading<Vec<ThreadGroup>> {
    let mut groups: BTreeMap<(char, Reading<String>), usize> = BTreeMap::new();
    for task in tasks.flatten().take(THREADS) {
        if until.has_passed() {
            break;
        }
        let task = task.path();
        let task = task.to_string_lossy();
        let Reading::Known(stat) = stat(&task) else {
            continue;
        };
        let place = match read(&format!("{task}/wchan")) {
            Reading::Known(place) if !trusted && place == "0" => Reading::NotPermitted,
            place => place,
        };
        *groups.entry((stat.state, place)).or_default() += 1;
    }
    if groups.is_empty() {
        return Reading::Unknown;
    }
    let mut groups: Vec<_> = groups
        .into_iter()
        .map(|((state, wait_channel), count)| ThreadGroup {
            state,
            wait_channel,
            count,
        })
        .collect();
    groups.sort_by_key(|group| std::cmp::Reverse(group.count));
    Reading::Known(groups)
}

/// This machine's TCP sockets, or none where they could not all be read in time.
///
/// Below `/proc/self`, because `/proc/net` is hidden by ProcSubset=pid (systemd.exec(5)).
fn sockets(until: Monotonic) -> Reading<Vec<Socket>> {
    let mut sockets = Vec::new();
    for table in ["/proc/self/net/tcp", "/proc/self/net/tcp6"] {
        let file = match File::open(table) {
            Ok(file) => file,
            // No IPv6, then.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            Err(error) => return Reading::from(Err(error)),
        };
        for line in BufReader::new(file).lines() {
            let Ok(line) = line else {
                return Reading::Unknown;
            };
            if until.has_passed() {
                return Reading::Unknown;
            }
            sockets.extend(proc::socket(&line));
        }
    }
    Reading::Known(sockets)
}

/// The connections that wait for the backend at `addresses`, and whether `connection` (its local
/// and its remote address) is accepted.
fn queue(
    sockets: &Reading<Vec<Socket>>,
    addresses: &[SocketAddr],
    connection: Option<(SocketAddr, SocketAddr)>,
) -> (Reading<u64>, Reading<bool>) {
    let sockets = match sockets {
        Reading::Known(sockets) => sockets,
        Reading::NotPermitted => return (Reading::NotPermitted, Reading::NotPermitted),
        Reading::Unknown => return (Reading::Unknown, Reading::Unknown),
    };
    let canonical =
        |address: &SocketAddr| SocketAddr::new(address.ip().to_canonical(), address.port());
    let serves = |socket: &Socket| {
        addresses.iter().map(canonical).any(|address| {
            socket.local == address
                || socket.local.ip().is_unspecified() && socket.local.port() == address.port()
        })
    };
    let mut listening = sockets
        .iter()
        .filter(|socket| socket.listens && serves(socket))
        .peekable();
    let waiting = match listening.peek() {
        Some(_) => Reading::Known(listening.map(|socket| socket.waiting).sum()),
        None => Reading::Unknown,
    };
    let accepted = connection.and_then(|(ours, theirs)| {
        sockets
            .iter()
            .find(|socket| {
                !socket.listens
                    && socket.local == canonical(&theirs)
                    && socket.remote == canonical(&ours)
            })
            .map(|socket| socket.inode != 0)
    });
    (waiting, accepted.into())
}

fn stat(folder: &str) -> Reading<proc::Stat> {
    read(&format!("{folder}/stat")).and_then(|text| proc::stat(&text).into())
}

/// The beginning of a file; a process name in it need not be UTF-8.
fn read(path: &str) -> Reading<String> {
    let read = || {
        let mut bytes = Vec::new();
        File::open(path)?.take(FILE).read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    Reading::from(read())
}

#[cfg(test)]
mod tests;
