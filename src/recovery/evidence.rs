//! Evidence of what a hung process was doing, for the reader of the report. Best effort: it delays the
//! signal only briefly, and does not influence whether it is sent.

mod summary;

use std::collections::BTreeMap;
use std::fs::{self, File, ReadDir};
use std::io::Read;
use std::iter;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use serde::{Serialize, Serializer};

use super::cgroup::{ControlGroup, Hierarchy};
use super::observation::{Owner, TcpFacts, UnixFacts};
use super::tcp_table::{TcpSocket, listeners, server_side};
use super::{dump, proc, unix_diag};
use crate::clock::Monotonic;
use crate::manifest::DumpSignal;
use crate::privileges::{CAP_SYS_PTRACE, has_capability};
use crate::sweep::ProbeConnection;

/// How many processes are read.
const PROCESSES: usize = 64;
/// The time between the two samples of the CPU ticks.
const SAMPLE: Duration = Duration::from_millis(100);
/// How long a dump of the UNIX sockets may take.
const UNIX_DUMP: Duration = Duration::from_millis(100);
/// How many threads of a process are read; the first ones are typical enough.
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

/// What was observed before the signal.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Evidence {
    /// The processes of the unit, the main one first; at most 64.
    pub processes: Vec<ProcessEvidence>,
    /// The socket at which the probes waited.
    pub listener: Listener,
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
    /// Its threads, the largest group first.
    pub threads: Reading<Vec<ThreadGroup>>,
    /// CPU time used between two samples.
    pub cpu: Reading<Cpu>,
    /// Resident memory in bytes.
    pub resident_bytes: Reading<u64>,
    /// Open descriptors.
    pub open_descriptors: Reading<usize>,
    /// Whether it catches `dump_signal`; unknown if none is configured.
    pub catches_dump_signal: Reading<bool>,
}

/// What was observed of the socket at which the probes waited.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Listener {
    /// Connections waiting in the accept queue.
    pub accept_queue: Reading<u64>,
    /// The accept queue's limit; one more than this fills it.
    pub accept_queue_limit: Reading<u64>,
    /// The unit, or the control group, that owns the socket.
    pub listener_owner: Reading<String>,
    /// Whether a process accepted the final probe's connection.
    pub accepted: Reading<bool>,
}

impl Default for Listener {
    fn default() -> Self {
        Self {
            accept_queue: Reading::Unknown,
            accept_queue_limit: Reading::Unknown,
            listener_owner: Reading::Unknown,
            accepted: Reading::Unknown,
        }
    }
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
            processes: &'a [ProcessEvidence],
        }
        let flat = Flat {
            main: self.processes.first(),
            listener: &self.listener,
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

/// Reads the processes of `group`, process `main` first, until `until` at the latest. The caller fills in
/// the listener.
pub(super) fn processes(
    main: u32,
    group: Option<&ControlGroup>,
    dump_signal: Option<DumpSignal>,
    until: Monotonic,
) -> Evidence {
    let began = Monotonic::now();
    let members = group.and_then(|group| Hierarchy::find().ok()?.processes(group).ok());
    let others = members.unwrap_or_default().into_iter();
    let others = others.filter(|&pid| pid != main && pid != 0);
    // First the CPU time of all of them, because everything else takes longer.
    let first: Vec<_> = iter::once(main)
        .chain(others)
        .take(PROCESSES)
        .map(|pid| (pid, stat(&format!("/proc/{pid}"))))
        .collect();
    let sampled = Monotonic::now();
    let may_trace = has_capability(CAP_SYS_PTRACE) == Some(true);
    let mut processes: Vec<_> = first
        .iter()
        .take_while(|(pid, _)| *pid == main || !until.has_passed())
        .map(|(pid, stat)| inspect(*pid, stat.clone(), dump_signal, may_trace, until))
        .collect();

    // Meanwhile the final probe connects.
    let wait = SAMPLE.saturating_sub(Monotonic::now().since(began));
    std::thread::sleep(wait.min(until.remaining()));
    for (process, (pid, first)) in processes.iter_mut().zip(first) {
        process.cpu = first.and_then(|first| {
            stat(&format!("/proc/{pid}")).map(|second| Cpu {
                ticks: second.ticks.saturating_sub(first.ticks),
                interval_ms: u64::try_from(Monotonic::now().since(sampled).as_millis())
                    .unwrap_or(u64::MAX),
            })
        });
    }
    Evidence {
        processes,
        listener: Listener::default(),
    }
}

/// Everything about a process that one read shows, and its CPU time between two samples.
fn inspect(
    pid: u32,
    stat: Reading<proc::Stat>,
    dump_signal: Option<DumpSignal>,
    may_trace: bool,
    until: Monotonic,
) -> ProcessEvidence {
    let folder = format!("/proc/{pid}");
    let status = read(&format!("{folder}/status"));
    let status = status.and_then(|text| proc::status(&text).into());
    let descriptors = Reading::from(fs::read_dir(format!("{folder}/fd")))
        .map(|entries| entries.take_while(|_| !until.has_passed()).count());
    let open_descriptors = match descriptors {
        // The count is complete only if there was time left.
        Reading::Known(_) if until.has_passed() => Reading::Unknown,
        descriptors => descriptors,
    };
    let trusted = open_descriptors.known().is_some() || may_trace;
    let threads = Reading::from(fs::read_dir(format!("{folder}/task")))
        .and_then(|tasks| threads(tasks, trusted, until));
    ProcessEvidence {
        pid,
        name: stat.clone().map(|stat| stat.name),
        state: stat.map(|stat| stat.state),
        threads,
        cpu: Reading::Unknown,
        resident_bytes: status.clone().and_then(|status| status.resident.into()),
        open_descriptors,
        catches_dump_signal: match dump_signal {
            Some(signal) => status.map(|status| dump::catches(&status, signal)),
            None => Reading::Unknown,
        },
    }
}

/// What `facts` and the table of a moment later show about the listeners at `addresses`. `connections` are
/// those of the final probe.
pub(super) fn listener(
    facts: &TcpFacts,
    addresses: &[SocketAddr],
    unit: &str,
    connections: &[ProbeConnection],
    later: &[TcpSocket],
) -> Listener {
    let listeners: BTreeMap<u64, &TcpSocket> = (addresses.iter())
        .flat_map(|&address| listeners(&facts.table, address))
        .map(|listener| (listener.cookie, listener))
        .collect();
    let sum = |queue: fn(&TcpSocket) -> u32| match listeners.is_empty() {
        true => Reading::Unknown,
        false => Reading::Known(
            listeners
                .values()
                .map(|socket| u64::from(queue(socket)))
                .sum(),
        ),
    };
    let owner = (listeners.values().next()).and_then(|listener| facts.owners.get(&listener.group?));
    let accepted = (connections.iter())
        .filter(|probe| probe.established)
        .find_map(|probe| server_side(later, &probe.connection));
    Listener {
        accept_queue: sum(|socket| socket.receive_queue),
        accept_queue_limit: sum(|socket| socket.send_queue),
        listener_owner: owner.and_then(|owner| owner_name(owner, unit)).into(),
        accepted: accepted.map(TcpSocket::accepted).into(),
    }
}

/// The same for a UNIX socket. The kernel does not show which of its connections have been accepted.
pub(super) fn unix_listener(facts: &UnixFacts, unit: &str) -> Listener {
    let mut queue = None;
    let until = Monotonic::now() + UNIX_DUMP;
    // Best effort: without an answer the queue is unknown.
    let _ = unix_diag::listeners(Path::new(&facts.path), until, |listener| {
        queue = listener.queue;
    });
    Listener {
        accept_queue: queue.map(|(waiting, _)| u64::from(waiting)).into(),
        accept_queue_limit: queue.map(|(_, limit)| u64::from(limit)).into(),
        listener_owner: owner_name(&facts.owner, unit).into(),
        accepted: Reading::Unknown,
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
