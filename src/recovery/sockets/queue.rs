//! Whether an accept queue moves: whether the backend has accepted a connection that had waited. A queue that
//! moves belongs to a backend that is overloaded, not hung. Pure.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::SocketAddr;
use std::time::Duration;

use super::reader::{Reading, TcpReading};
use super::table::{TcpSocket, canonical, listeners, reached};
use super::unix::UnixListener;
use crate::clock::Monotonic;

/// A connection that has waited for less than this may just be being accepted.
const WAITED: Duration = Duration::from_millis(200);

/// The accept queues at the addresses of a backend, over all readings of a sweep. Remembers only connections
/// that wait, so its size is bounded by the backlogs.
#[derive(Clone, Debug, Default)]
pub(crate) struct QueueHistory {
    readings: usize,
    tcp: HashMap<SocketAddr, TcpQueue>,
    unix: UnixQueue,
}

impl QueueHistory {
    /// Adds one reading; over TCP, for each of `addresses`.
    pub(crate) fn record(&mut self, addresses: &[SocketAddr], reading: &Reading) {
        self.readings = self.readings.saturating_add(1);
        match reading {
            Reading::Tcp(reading) => {
                for address in addresses {
                    let queue = self.tcp.entry(canonical(*address)).or_default();
                    queue.record(*address, reading);
                }
            }
            Reading::Unix { at, listeners } => self.unix.record(*at, listeners),
        }
    }

    /// Whether there are several readings, so that movement can be seen.
    pub(crate) const fn is_series(&self) -> bool {
        self.readings > 1
    }

    /// Whether the queue at one of `addresses`, or of the UNIX socket, has moved.
    pub(crate) fn has_moved(&self, addresses: &[SocketAddr]) -> bool {
        let mut queues = addresses.iter().filter_map(|address| self.tcp_at(*address));
        self.unix.moved || queues.any(|queue| queue.moved)
    }

    /// Whether a listener at `address` (none: of the UNIX socket) was full in the readings around `moment`.
    pub(crate) fn was_full(&self, address: Option<SocketAddr>, moment: Monotonic) -> bool {
        match address {
            Some(address) => {
                (self.tcp_at(address)).is_some_and(|queue| queue.full.contains(moment))
            }
            None => self.unix.full.contains(moment),
        }
    }

    fn tcp_at(&self, address: SocketAddr) -> Option<&TcpQueue> {
        self.tcp.get(&canonical(address))
    }
}

/// The accept queue at one TCP address, over several readings.
#[derive(Clone, Debug, Default)]
struct TcpQueue {
    /// The lengths of the queues in the last reading, before its connections were read, by listener.
    before: BTreeMap<u64, u32>,
    /// The connections that waited in the last reading, and since when.
    waiting: HashMap<u64, Monotonic>,
    full: FullTimes,
    /// Whether a connection waited long enough in the last reading, or the queue was full for that long.
    ripe: bool,
    moved: bool,
}

impl TcpQueue {
    fn record(&mut self, address: SocketAddr, reading: &TcpReading) {
        let at = reading.at;
        let lengths = |table: &[TcpSocket]| -> BTreeMap<u64, u32> {
            let listeners = listeners(table, address).into_iter();
            listeners
                .map(|listener| (listener.cookie, listener.receive_queue))
                .collect()
        };
        let server = reached(address);
        let connections = || reading.rows.iter().filter(|row| row.local == server);
        let waiting: BTreeSet<u64> = connections()
            .filter(|row| row.is_waiting())
            .map(|row| row.cookie)
            .collect();
        let before = lengths(&reading.rows);
        let after = lengths(&reading.listeners_after);

        let same_listeners = self.before.keys().eq(after.keys());
        if self.ripe && same_listeners {
            let arrived = waiting
                .iter()
                .filter(|row| !self.waiting.contains_key(row))
                .count() as u64;
            let total = |lengths: &BTreeMap<u64, u32>| -> u64 {
                lengths.values().map(|length| u64::from(*length)).sum()
            };
            // A client that resets removes its row but not its place, so places are counted.
            let places_left = total(&after) < total(&self.before) + arrived;
            let accepted = connections().any(|row| {
                row.is_open() && row.accepted() && self.waiting.contains_key(&row.cookie)
            });
            self.moved |= places_left || accepted;
        }

        let full = listeners(&reading.rows, address)
            .iter()
            .any(|listener| listener.is_full());
        self.full.record(at, full);
        let known = std::mem::take(&mut self.waiting);
        self.waiting = (waiting.into_iter())
            .map(|row| (row, known.get(&row).copied().unwrap_or(at)))
            .collect();
        self.before = before;
        self.ripe = self.full.last_for(WAITED)
            || self
                .waiting
                .values()
                .any(|since| at.since(*since) >= WAITED);
    }
}

/// The accept queue of a UNIX socket, over several readings.
#[derive(Clone, Debug, Default)]
struct UnixQueue {
    /// The socket that listened in the last reading.
    listener: u32,
    /// Its queue in the order of arrival.
    waiting: Vec<u32>,
    /// Since when each of them has waited.
    since: HashMap<u32, Monotonic>,
    full: FullTimes,
    ripe: bool,
    moved: bool,
}

impl UnixQueue {
    fn record(&mut self, at: Monotonic, listeners: &[UnixListener]) {
        // No socket, or several of the same name, show nothing.
        let [listener] = listeners else {
            *self = Self {
                moved: self.moved,
                ..Self::default()
            };
            return;
        };
        if self.ripe && self.listener == listener.inode {
            // The client's close turns an entry into 0 and keeps its place; an accept removes the first one.
            let kept = self.waiting.len() <= listener.waiting.len()
                && (self.waiting.iter().zip(&listener.waiting))
                    .all(|(was, is)| is == was || *is == 0);
            self.moved |= !kept;
        }
        self.full.record(at, listener.is_full());
        let known = std::mem::take(&mut self.since);
        let waiting = listener.waiting.iter().filter(|inode| **inode != 0);
        self.since = waiting
            .map(|inode| (*inode, known.get(inode).copied().unwrap_or(at)))
            .collect();
        self.listener = listener.inode;
        self.waiting.clone_from(&listener.waiting);
        self.ripe = self.full.last_for(WAITED)
            || self.since.values().any(|since| at.since(*since) >= WAITED);
    }
}

/// The times in which a queue was full at each reading: the first and the last of each series of readings.
#[derive(Clone, Debug, Default)]
struct FullTimes {
    times: Vec<(Monotonic, Monotonic)>,
    /// Whether the last reading belongs to the last of them.
    now: bool,
}

impl FullTimes {
    fn record(&mut self, at: Monotonic, full: bool) {
        match self.times.last_mut().filter(|_| self.now && full) {
            Some((_, last)) => *last = at,
            None if full => self.times.push((at, at)),
            None => {}
        }
        self.now = full;
    }

    fn contains(&self, moment: Monotonic) -> bool {
        (self.times.iter()).any(|(from, to)| *from <= moment && moment <= *to)
    }

    /// Whether the queue has been full for at least `length` by the last reading.
    fn last_for(&self, length: Duration) -> bool {
        let last = self.times.last().filter(|_| self.now);
        last.is_some_and(|(from, to)| to.since(*from) >= length)
    }
}

#[cfg(test)]
mod tests;
