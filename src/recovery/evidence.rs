//! Evidence of what a hung process was doing, for the reader of the report. Best effort: it delays the
//! signal only briefly, and does not influence whether it is sent.

mod summary;

use std::cmp::Reverse;
use std::fs;
use std::io::{self, ErrorKind};
use std::iter;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde::{Serialize, Serializer};

use super::facts::{Context, Facts, Group, Sockets};
use super::proc::{read, stat, status};
use super::sockets::Reading;
use super::sockets::owners::Owner;
use super::sockets::tcp::{listeners, server_sides};
use super::stacks;
use crate::clock::Monotonic;
use crate::privileges::{CAP_SYS_PTRACE, has_capability};
use crate::sweep::{ParkedRequest, Reach};

/// How many processes are read.
const PROCESSES: usize = 64;
/// The time between the two samples of the CPU ticks.
const SAMPLE: Duration = Duration::from_millis(100);
/// How many threads of the main process are read; the first ones are typical enough.
const THREADS: usize = 512;

/// Why there is no value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unread {
    /// This user may not read it.
    NotPermitted,
    /// There was no time, or nothing to read.
    Unknown,
}

impl From<io::Error> for Unread {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            ErrorKind::PermissionDenied => Self::NotPermitted,
            _ => Self::Unknown,
        }
    }
}

/// In JSON: the value itself, `"not permitted"`, or `null`.
fn serialize_reading<T: Serialize, S: Serializer>(
    value: &Result<T, Unread>,
    json: S,
) -> Result<S::Ok, S::Error> {
    match value {
        Ok(value) => value.serialize(json),
        Err(Unread::NotPermitted) => json.serialize_str("not permitted"),
        Err(Unread::Unknown) => json.serialize_none(),
    }
}

/// What was observed before the signal.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Evidence {
    /// The first of `processes`; in JSON its keys are beside those of the listener, for readers that need only one.
    #[serde(flatten)]
    pub(crate) main: Option<ProcessEvidence>,
    /// The socket at which the requests waited.
    #[serde(flatten)]
    pub(crate) listener: SocketEvidence,
    pub(crate) parked: ParkedCounts,
    /// The processes of the unit, the main one first; at most 64.
    pub(crate) processes: Vec<ProcessEvidence>,
}

/// What was observed of one process, in the order in which it is reported.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct ProcessEvidence {
    pub(crate) pid: u32,
    /// Its command name, at most 15 bytes, chosen by the process itself.
    #[serde(serialize_with = "serialize_reading")]
    pub(crate) name: Result<String, Unread>,
    /// Its state as one letter, proc(5).
    #[serde(serialize_with = "serialize_reading")]
    pub(crate) state: Result<char, Unread>,
    #[serde(serialize_with = "serialize_reading")]
    pub(crate) cpu: Result<Cpu, Unread>,
    /// More about the main process; none for the others.
    #[serde(flatten)]
    pub(crate) details: Option<ProcessDetails>,
}

/// What was observed of the main process alone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct ProcessDetails {
    /// Its threads, the largest group first.
    #[serde(serialize_with = "serialize_reading")]
    pub(crate) threads: Result<Vec<ThreadGroup>, Unread>,
    #[serde(serialize_with = "serialize_reading")]
    pub(crate) resident_bytes: Result<u64, Unread>,
    /// Whether it catches `dump_signal`; unknown if none is configured.
    #[serde(serialize_with = "serialize_reading")]
    pub(crate) catches_dump_signal: Result<bool, Unread>,
}

/// What was observed of the socket at which the requests waited, as far as that is known.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct SocketEvidence {
    /// Connections waiting in the accept queue.
    pub(crate) accept_queue: Option<u64>,
    /// The accept queue's limit; one more than this fills it.
    pub(crate) accept_queue_limit: Option<u64>,
    /// The unit, or the control group, that owns the socket.
    pub(crate) listener_owner: Option<String>,
}

/// How far the parked requests have got. Over a UNIX socket the kernel does not show which are accepted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct ParkedCounts {
    /// Those that a process has accepted.
    pub(crate) accepted: Option<usize>,
    /// Those that wait in the accept queue.
    pub(crate) unaccepted: Option<usize>,
    /// Those that are not even connected.
    pub(crate) unconnected: usize,
}

/// Threads in the same state and wait channel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct ThreadGroup {
    /// Their state as one letter, proc(5).
    pub(crate) state: char,
    /// The kernel function in which they sleep; `0` for threads that do not.
    #[serde(serialize_with = "serialize_reading")]
    pub(crate) wait_channel: Result<String, Unread>,
    pub(crate) count: usize,
}

/// CPU time used between two samples.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Cpu {
    /// In ticks of 10 ms, user and system together.
    pub(crate) ticks: u64,
    pub(crate) interval_ms: u64,
}

impl Evidence {
    /// The evidence of these processes and of the first observation.
    pub(super) fn new(processes: Vec<ProcessEvidence>, context: &Context, facts: &Facts) -> Self {
        let unconnected = |request: &&ParkedRequest| request.reach == Reach::Unconnected;
        let mut parked = ParkedCounts {
            unconnected: facts.parked.iter().filter(unconnected).count(),
            ..ParkedCounts::default()
        };
        let sockets = facts.sockets.as_ref().ok();
        if let Some(Reading::Tcp { rows, .. }) = sockets.map(|sockets| &sockets.reading) {
            let rows = server_sides(rows, &facts.parked).filter(|row| row.is_open());
            let rows: Vec<_> = rows.map(|row| row.accepted()).collect();
            parked.accepted = Some(rows.iter().filter(|accepted| **accepted).count());
            parked.unaccepted = Some(rows.iter().filter(|accepted| !**accepted).count());
        }
        let listener = sockets.map(|sockets| SocketEvidence::of(sockets, context));
        Self {
            main: processes.first().cloned(),
            listener: listener.unwrap_or_default(),
            parked,
            processes,
        }
    }
}

impl SocketEvidence {
    fn of(sockets: &Sockets, context: &Context) -> Self {
        let (mut queues, mut group) = (Vec::new(), None);
        match &sockets.reading {
            Reading::Tcp { rows, .. } => {
                let at = |address: &_| listeners(rows, *address);
                let mut found: Vec<_> = context.addresses.iter().flat_map(at).collect();
                found.sort_unstable_by_key(|socket| socket.cookie);
                found.dedup_by_key(|socket| socket.cookie);
                group = found.first().and_then(|first| first.group);
                queues.extend(found.iter().map(|it| (it.receive_queue, it.send_queue)));
            }
            Reading::Unix { listeners, .. } => {
                queues.extend(listeners.first().and_then(|listener| listener.queue));
            }
        }
        let sum = |part: fn(&(u32, u32)) -> u32| {
            let all = || queues.iter().map(part).map(u64::from).sum();
            (!queues.is_empty()).then(all)
        };
        let owner = match sockets.owners.get(&group) {
            Some(Owner::Unit) => Some(context.unit()),
            Some(Owner::SocketUnit(name)) => Some(name.as_str()),
            Some(Owner::Manager(_)) => Some("the service manager"),
            Some(Owner::Foreign(path)) => Some(path.as_str()),
            Some(Owner::Unknown(_)) | None => None,
        };
        Self {
            accept_queue: sum(|(length, _)| *length),
            accept_queue_limit: sum(|(_, limit)| *limit),
            listener_owner: owner.map(str::to_owned),
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
        .map(|pid| (pid, stat(pid).map_err(Unread::from)))
        .collect();
    let sampled = Monotonic::now();
    let mut details = Some(details(main, dump_signal, until));
    std::thread::sleep((began + SAMPLE).min(until).remaining());
    let cpu = |pid: u32, first: u64| {
        if until.has_passed() {
            return Err(Unread::Unknown);
        }
        let second = stat(pid)?.ticks;
        Ok(Cpu {
            ticks: second.saturating_sub(first),
            interval_ms: Monotonic::now().since(sampled).as_millis() as u64,
        })
    };
    let processes = first.into_iter().map(|(pid, first)| ProcessEvidence {
        pid,
        cpu: first.clone().and_then(|stat| cpu(pid, stat.ticks)),
        name: first.clone().map(|stat| stat.name),
        state: first.map(|stat| stat.state),
        // The main process comes first.
        details: details.take(),
    });
    processes.collect()
}

fn details(pid: u32, dump_signal: Option<Signal>, until: Monotonic) -> ProcessDetails {
    let status = status(pid).map_err(Unread::from);
    let catches = |signal| Ok(stacks::catches(status?.handled, signal));
    ProcessDetails {
        threads: threads(pid, until),
        resident_bytes: status.and_then(|status| status.resident.ok_or(Unread::Unknown)),
        catches_dump_signal: dump_signal.map_or(Err(Unread::Unknown), catches),
    }
}

/// The threads of a process, grouped.
fn threads(pid: u32, until: Monotonic) -> Result<Vec<ThreadGroup>, Unread> {
    // To others than who may list the descriptors, or may trace, the kernel reports every wait channel as `0`.
    let trusted = has_capability(CAP_SYS_PTRACE) == Some(true)
        || fs::read_dir(format!("/proc/{pid}/fd")).is_ok();
    let tasks = fs::read_dir(format!("/proc/{pid}/task"))?.flatten();
    let tasks = tasks.take(THREADS).take_while(|_| !until.has_passed());
    let groups = grouped(tasks.filter_map(|task| {
        let task = format!("{pid}/task/{}", task.file_name().display());
        let state = stat(&task).ok()?.state;
        let wait_channel = match read(&task, "wchan") {
            Ok(place) if !trusted && place == "0" => Err(Unread::NotPermitted),
            place => place.map_err(Unread::from),
        };
        Some((state, wait_channel))
    }));
    let any = !groups.is_empty();
    any.then_some(groups).ok_or(Unread::Unknown)
}

/// Groups threads by state and wait channel; groups of the same size stay in the order of their first threads.
fn grouped(threads: impl Iterator<Item = (char, Result<String, Unread>)>) -> Vec<ThreadGroup> {
    let mut groups: Vec<ThreadGroup> = Vec::new();
    for (state, wait_channel) in threads {
        let mut known = groups.iter_mut();
        match known.find(|group| group.state == state && group.wait_channel == wait_channel) {
            Some(group) => group.count += 1,
            None => groups.push(ThreadGroup {
                state,
                wait_channel,
                count: 1,
            }),
        }
    }
    groups.sort_by_key(|group| Reverse(group.count));
    groups
}

#[cfg(test)]
mod tests;
