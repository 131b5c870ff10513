//! Whether an accept queue moves: whether the backend has accepted a connection that had waited. A queue that
//! moves belongs to a backend that is overloaded, not hung. Pure.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::SocketAddr;
use std::time::Duration;

use super::Reading;
use super::tcp::{TcpSocket, canonical, listeners, reached};
use super::unix::UnixListener;
use crate::clock::Monotonic;

/// A connection that has waited for less than this may just be being accepted.
const WAITED: Duration = Duration::from_millis(200);

/// The accept queues at the addresses of a backend, over all readings of a sweep.
#[derive(Clone, Debug, Default)]
pub(crate) struct QueueHistory {
    /// By address; none is the UNIX socket.
    queues: HashMap<Option<SocketAddr>, AcceptQueue>,
}

impl QueueHistory {
    /// Adds one reading; over TCP, for each of `addresses`.
    pub(crate) fn record(&mut self, addresses: &[SocketAddr], reading: &Reading) {
        let mut record = |place, at, now| self.queues.entry(place).or_default().record(at, now);
        match reading {
            Reading::Tcp {
                at,
                rows,
                listeners_after,
            } => {
                for address in addresses {
                    let now = QueueState::of_tcp(*address, rows, listeners_after);
                    record(Some(canonical(*address)), *at, now);
                }
            }
            Reading::Unix { at, listeners, .. } => {
                record(None, *at, QueueState::of_unix(listeners));
            }
        }
    }

    /// Whether there are several readings of a queue, so that movement can be seen.
    pub(crate) fn is_series(&self) -> bool {
        self.queues.values().any(|queue| queue.full.len() > 1)
    }

    /// Whether the queue at one of `addresses`, or of the UNIX socket, has moved.
    pub(crate) fn has_moved(&self, addresses: &[SocketAddr]) -> bool {
        let mut places = addresses.iter().copied().map(Some).chain([None]);
        places.any(|place| self.at(place).is_some_and(|queue| queue.moved))
    }

    /// Whether a listener at `address` (none: of the UNIX socket) was full in the last reading. With SO_REUSEPORT the
    /// kernel may have chosen any of them.
    pub(crate) fn is_full(&self, address: Option<SocketAddr>) -> bool {
        let last = self.at(address).and_then(|queue| queue.full.last());
        matches!(last, Some((_, true)))
    }

    /// Whether one was full in the readings around `moment`.
    pub(crate) fn was_full(&self, address: Option<SocketAddr>, moment: Monotonic) -> bool {
        let readings = || self.at(address).into_iter().flat_map(|queue| &queue.full);
        let before = readings().rfind(|(at, _)| *at <= moment);
        let after = readings().find(|(at, _)| *at >= moment);
        matches!((before, after), (Some((_, true)), Some((_, true))))
    }

    fn at(&self, address: Option<SocketAddr>) -> Option<&AcceptQueue> {
        self.queues.get(&address.map(canonical))
    }
}

/// An accept queue in one reading.
#[derive(Clone, Debug, Default)]
struct QueueState {
    /// How many connections each listener has in its queue, before the connections were read, and after that.
    before: BTreeMap<u64, u64>,
    after: BTreeMap<u64, u64>,
    is_full: bool,
    /// The connections that wait, and those that have been accepted.
    waiting: BTreeSet<u64>,
    accepted: BTreeSet<u64>,
    /// Over a UNIX socket: those that wait, in the order of their arrival; 0 for one that its client has closed.
    order: Vec<u32>,
}

impl QueueState {
    fn of_tcp(address: SocketAddr, rows: &[TcpSocket], listeners_after: &[TcpSocket]) -> Self {
        let length = |row: &TcpSocket| (row.cookie, row.receive_queue.into());
        let lengths = |table| listeners(table, address).into_iter().map(length).collect();
        let server = reached(address);
        let connections = |accepted: bool| {
            let rows = rows.iter().filter(move |row| row.local == server);
            rows.filter(move |row| row.is_open() && row.accepted() == accepted)
                .map(|row| row.cookie)
                .collect()
        };
        Self {
            before: lengths(rows),
            after: lengths(listeners_after),
            is_full: (listeners(rows, address).iter()).any(|listener| listener.is_full()),
            waiting: connections(false),
            accepted: connections(true),
            order: Vec::new(),
        }
    }

    /// No socket, or several of the same name, show nothing.
    fn of_unix(listeners: &[UnixListener]) -> Self {
        let [listener] = listeners else {
            return Self::default();
        };
        let length = BTreeMap::from([(listener.inode.into(), listener.waiting.len() as u64)]);
        let waiting = listener.waiting.iter().filter(|inode| **inode != 0);
        Self {
            before: length.clone(),
            after: length,
            is_full: listener.is_full(),
            waiting: waiting.map(|inode| (*inode).into()).collect(),
            accepted: BTreeSet::new(),
            order: listener.waiting.clone(),
        }
    }

    /// Whether an accept shows between an earlier reading and this one.
    fn shows_accept_since(&self, earlier: &Self) -> bool {
        let total = |lengths: &BTreeMap<u64, u64>| lengths.values().sum::<u64>();
        let arrived = self.waiting.difference(&earlier.waiting).count() as u64;
        // A client that resets removes its row but not its place, so places are counted.
        let places_left = total(&self.after) < total(&earlier.before) + arrived;
        let accepted = !self.accepted.is_disjoint(&earlier.waiting);
        // Without an accept, each entry keeps its position until its client closes.
        let mut positions = earlier.order.iter().zip(&self.order);
        let shifted = positions.any(|(was, is)| is != was && *is != 0);
        // Another listener has another queue.
        earlier.before.keys().eq(self.after.keys()) && (places_left || accepted || shifted)
    }
}

/// One accept queue, over several readings.
#[derive(Clone, Debug, Default)]
struct AcceptQueue {
    /// In the last reading.
    last: QueueState,
    /// Since when its connections have waited.
    since: HashMap<u64, Monotonic>,
    /// Since when it has been full.
    full_since: Option<Monotonic>,
    /// Whether it was full, for each reading.
    full: Vec<(Monotonic, bool)>,
    /// Whether a connection waited long enough in the last reading, or the queue was full for that long.
    ripe: bool,
    moved: bool,
}

impl AcceptQueue {
    fn record(&mut self, at: Monotonic, now: QueueState) {
        self.moved |= self.ripe && now.shows_accept_since(&self.last);
        let since = |id: &u64| (*id, self.since.get(id).copied().unwrap_or(at));
        self.since = now.waiting.iter().map(since).collect();
        self.full_since = now.is_full.then(|| self.full_since.unwrap_or(at));
        self.full.push((at, now.is_full));
        let mut since = self.since.values().chain(&self.full_since);
        self.ripe = since.any(|since| at.since(*since) >= WAITED);
        self.last = now;
    }
}

#[cfg(test)]
mod tests;
