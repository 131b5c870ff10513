//! Evidence of what a hung process was doing, for the reader of the report. Best effort: it delays the
//! signal only briefly, and does not influence whether it is sent.

mod summary;

use std::collections::BTreeMap;
use std::fs::{self, File, ReadDir};
use std::io::Read;
use std::iter;
use std::net::SocketAddr;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde::{Serialize, Serializer};

use super::facts::{Context, Facts, Group, Sockets, TcpFacts, UnixFacts};
use super::sockets::owners::Owner;
use super::sockets::table::{TcpSocket, listeners, server_sides};
use super::{proc, stacks};
use crate::clock::Monotonic;
use crate::privileges::{CAP_SYS_PTRACE, has_capability};
use crate::sweep::{ParkedRequest, Reach};

/// How many processes are read.
const PROCESSES: usize = 64;
/// The time between the two samples of the CPU ticks.
const SAMPLE: Duration = Duration::from_millis(100);
/// How many threads of the main process are read; the first ones are typical enough.
const THREADS: usize = 512;
/// How many bytes of a file about one process are read.
const FILE: u64 = 64 * 1_024;

/// A value, or why there is none. In JSON: the value itself, `"not permitted"`, or `null`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reading<T> {
    /// What was read.
    Known(T),
    /// This user may not read it.
    NotPermitted,
    /// Not read: there was no time, or nothing to read.
    Unknown,
}

impl<T> Reading<T> {
    /// The value.
    pub const fn known(&self) -> Option<&T> {
        match self {
            Self::Known(value) => Some(value),
            Self::NotPermitted | Self::Unknown => None,
        }
    }

    fn map<U>(self, change: impl FnOnce(T) -> U) -> Reading<U> {
        self.and_then(|value| Reading::Known(change(value)))
    }

    fn and_then<U>(self, next: impl FnOnce(T) -> Reading<U>) -> Reading<U> {
        match self {
            Self::Known(value) => next(value),
            Self::NotPermitted => Reading::NotPermitted,
            Self::Unknown => Reading::Unknown,
        }
    }
}

impl<T> From<Option<T>> for Reading<T> {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Unknown, Self::Known)
    }
}

impl<T> From<std::io::Result<T>> for Reading<T> {
    fn from(result: std::io::Result<T>) -> Self {
        match result {
            Ok(value) => Self::Known(value),
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
            Self::Known(value) => value.serialize(serializer),
            Self::NotPermitted => serializer.serialize_str("not permitted"),
            Self::Unknown => serializer.serialize_none(),
        }
    }
}

/// What was observed before the signal.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Evidence {
    /// The processes of the unit, the main one first; at most 64.
    pub processes: Vec<ProcessEvidence>,
    /// The socket at which the requests waited.
    pub listener: Listener,
    /// The parked requests.
    pub parked: ParkedCounts,
}

/// What was observed of one process, in the order in which it is reported.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ProcessEvidence {
    /// Its PID.
    pub pid: u32,
    /// Its command name, at most 15 bytes, chosen by the process itself.
    pub name: Reading<String>,
    /// Its state as one letter, proc(5).
    pub state: Reading<char>,
    /// CPU time used between two samples.
    pub cpu: Reading<Cpu>,
    /// More about the main process; none for the others.
    #[serde(flatten)]
    pub details: Option<ProcessDetails>,
}

/// What was observed of the main process alone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ProcessDetails {
    /// Its threads, the largest group first.
    pub threads: Reading<Vec<ThreadGroup>>,
    /// Resident memory in bytes.
    pub resident_bytes: Reading<u64>,
    /// Whether it catches `dump_signal`; unknown if none is configured.
    pub catches_dump_signal: Reading<bool>,
}

/// What was observed of the socket at which the requests waited.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Listener {
    /// Connections waiting in the accept queue.
    pub accept_queue: Reading<u64>,
    /// The accept queue's limit; one more than this fills it.
    pub accept_queue_limit: Reading<u64>,
    /// The unit, or the control group, that owns the socket.
    pub listener_owner: Reading<String>,
}

impl Default for Listener {
    fn default() -> Self {
        Self {
            accept_queue: Reading::Unknown,
            accept_queue_limit: Reading::Unknown,
            listener_owner: Reading::Unknown,
        }
    }
}

/// How far the parked requests have got. Over a UNIX socket the kernel does not show which are accepted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ParkedCounts {
    /// Those that a process has accepted.
    pub accepted: Option<usize>,
    /// Those that wait in the accept queue.
    pub unaccepted: Option<usize>,
    /// Those that are not even connected.
    pub unconnected: usize,
}

/// The keys of the main process are repeated beside those of the listener, for readers that need only one
/// process.
impl Serialize for Evidence {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Flat<'a> {
            #[serde(flatten)]
            main: Option<&'a ProcessEvidence>,
            #[serde(flatten)]
            listener: &'a Listener,
            parked: &'a ParkedCounts,
            processes: &'a [ProcessEvidence],
        }
        let flat = Flat {
            main: self.processes.first(),
            listener: &self.listener,
            parked: &self.parked,
            processes: &self.processes,
        };
        flat.serialize(serializer)
    }
}

/// Threads in the same state and wait channel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ThreadGroup {
    /// Their state as one letter, proc(5).
    pub state: char,
    /// The kernel function in which they sleep; `0` for threads that do not.
    pub wait_channel: Reading<String>,
    /// How many threads.
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
    /// The evidence of these processes and of the first observation.
    pub(super) fn new(processes: Vec<ProcessEvidence>, context: &Context, facts: &Facts) -> Self {
        let (listener, rows) = match &facts.sockets {
            Ok(Sockets::Tcp(tcp)) => (
                tcp_listener(tcp, &context.addresses, context.unit()),
                Some(&tcp.rows[..]),
            ),
            Ok(Sockets::Unix(unix)) => (unix_listener(unix, context.unit()), None),
            Err(_) => (Listener::default(), None),
        };
        Self {
            processes,
            listener,
            parked: ParkedCounts::of(&facts.parked, rows),
        }
    }
}

impl ParkedCounts {
    fn of(parked: &[ParkedRequest], rows: Option<&[TcpSocket]>) -> Self {
        let unconnected = |request: &&ParkedRequest| request.reach == Reach::Unconnected;
        let count = |accepted: bool| {
            rows.map(|rows| {
                server_sides(rows, parked)
                    .filter(|row| row.is_open() && row.accepted() == accepted)
                    .count()
            })
        };
        Self {
            accepted: count(true),
            unaccepted: count(false),
            unconnected: parked.iter().filter(unconnected).count(),
        }
    }
}

/// Reads process `main` and the others of `group` until `until` at the latest.
pub(super) fn processes(
    main: u32,
    group: &Group,
    dump_signal: Option<Signal>,
    until: Monotonic,
) -> Vec<ProcessEvidence> {
    let began = Monotonic::now();
    let others = group.members.iter().map(|member| member.pid);
    // First the CPU time of all of them, because everything else takes longer.
    let first: Vec<_> = iter::once(main)
        .chain(others.filter(|&pid| pid != main))
        .take(PROCESSES)
        .take_while(|pid| *pid == main || !until.has_passed())
        .map(|pid| (pid, stat(&format!("/proc/{pid}"))))
        .collect();
    let sampled = Monotonic::now();
    let details = details(main, dump_signal, until);
    let wait = SAMPLE.saturating_sub(Monotonic::now().since(began));
    std::thread::sleep(wait.min(until.remaining()));
    let processes = first.into_iter().map(|(pid, first)| {
        let used = |first: &proc::Stat| {
            if until.has_passed() {
                return Reading::Unknown;
            }
            stat(&format!("/proc/{pid}")).map(|second| Cpu {
                ticks: second.ticks.saturating_sub(first.ticks),
                interval_ms: u64::try_from(Monotonic::now().since(sampled).as_millis())
                    .unwrap_or(u64::MAX),
            })
        };
        ProcessEvidence {
            pid,
            cpu: first.known().map_or(Reading::Unknown, used),
            name: first.clone().map(|stat| stat.name),
            state: first.map(|stat| stat.state),
            details: (pid == main).then(|| details.clone()),
        }
    });
    processes.collect()
}

fn details(pid: u32, dump_signal: Option<Signal>, until: Monotonic) -> ProcessDetails {
    let folder = format!("/proc/{pid}");
    let status = read(&format!("{folder}/status"));
    let status = status.and_then(|text| proc::status(&text).into());
    // Only who may list the descriptors, or may trace, is shown wait channels.
    let trusted = has_capability(CAP_SYS_PTRACE) == Some(true)
        || fs::read_dir(format!("{folder}/fd")).is_ok();
    ProcessDetails {
        threads: Reading::from(fs::read_dir(format!("{folder}/task")))
            .and_then(|tasks| threads(tasks, trusted, until)),
        resident_bytes: status.clone().and_then(|status| status.resident.into()),
        catches_dump_signal: match dump_signal {
            Some(signal) => status.map(|status| stacks::catches(status.signals, signal)),
            None => Reading::Unknown,
        },
    }
}

/// What `facts` show about the listeners at `addresses`.
fn tcp_listener(facts: &TcpFacts, addresses: &[SocketAddr], unit: &str) -> Listener {
    let listeners: BTreeMap<u64, &TcpSocket> = (addresses.iter())
        .flat_map(|&address| listeners(&facts.rows, address))
        .map(|listener| (listener.cookie, listener))
        .collect();
    let Some(first) = listeners.values().next() else {
        return Listener::default();
    };
    let sum = |queue: fn(&TcpSocket) -> u32| {
        let queues = listeners.values().map(|socket| u64::from(queue(socket)));
        Reading::Known(queues.sum())
    };
    let owner = first.group.and_then(|group| facts.owners.get(&group));
    Listener {
        accept_queue: sum(|socket| socket.receive_queue),
        accept_queue_limit: sum(|socket| socket.send_queue),
        listener_owner: owner.and_then(|owner| owner_name(owner, unit)).into(),
    }
}

fn unix_listener(facts: &UnixFacts, unit: &str) -> Listener {
    let queue = facts.listeners.first().and_then(|listener| listener.queue);
    Listener {
        accept_queue: queue.map(|(waiting, _)| u64::from(waiting)).into(),
        accept_queue_limit: queue.map(|(_, limit)| u64::from(limit)).into(),
        listener_owner: owner_name(&facts.owner, unit).into(),
    }
}

fn owner_name(owner: &Owner, unit: &str) -> Option<String> {
    match owner {
        Owner::Unit => Some(unit.to_owned()),
        Owner::SocketUnit(name) => Some(name.clone()),
        Owner::Manager(_) => Some("the service manager".to_owned()),
        Owner::Foreign(path) => Some(path.clone()),
        Owner::Removed | Owner::Unknown(_) => None,
    }
}

/// The threads, grouped. Without permission (not `trusted`), the kernel reports every wait channel as `0`
/// instead of an error.
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

fn stat(folder: &str) -> Reading<proc::Stat> {
    read(&format!("{folder}/stat")).and_then(|text| proc::stat(&text).into())
}

/// The beginning of a file; a process name in it may not be UTF-8.
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
