//! What the machine records of a watchdog: its observations, and the reasons against a signal.

use std::collections::HashMap;
use std::time::Duration;

use nix::sys::signal::Signal;

use super::network::Stage;
use super::watchdog::Request;
use super::world::World;
use crate::clock::Monotonic;

/// Where a watchdog reads facts.
#[derive(Clone, Copy, Debug)]
pub(super) enum Source {
    Manager,
    Neighbours,
    Process,
    Group,
    Sockets,
    Parked,
    Sweep,
}

/// What one watchdog has observed and done, recorded by the machine.
#[derive(Clone, Debug, Default)]
pub(super) struct Record {
    pub(super) began: Duration,
    pub(super) min_uptime: Duration,
    pub(super) requests: Vec<Request>,
    /// The accept queue, as this watchdog could see it.
    pub(super) queue_seen: QueueSeen,
    /// Main process and invocation at its first observation.
    pub(super) first: Option<(Option<u32>, u64)>,
    pub(super) first_stuck: Option<bool>,
    pub(super) first_group: Option<Duration>,
    pub(super) observations: usize,
    /// How many observations it had made when it opened the process.
    pub(super) observations_when_opened: usize,
    /// When the manager had answered for the last observation, and how old that answer was when the watchdog next read
    /// the clock.
    pub(super) shown: Option<Monotonic>,
    pub(super) age: Option<Duration>,
    /// Whether the last answer had one of [`super::faults::WITH_WORKERS`].
    pub(super) needs_no_workers: bool,
    /// The reason of each source against a signal, as of its last read.
    pub(super) against: [Option<&'static str>; 7],
    /// The processes that were asked for their stacks; the main process, if it was among them.
    pub(super) asked: Vec<u32>,
    pub(super) asked_main: Option<u64>,
    pub(super) signals: Vec<Signal>,
    pub(super) victim: Option<u64>,
    pub(super) log_lines: Vec<String>,
}

impl Record {
    /// Why a first signal is wrong now, if it is.
    pub(super) fn objection(&self) -> Option<String> {
        if self.observations <= self.observations_when_opened {
            return Some("it did not observe again".to_owned());
        }
        if self.age.is_none_or(|age| age > Duration::from_secs(1)) {
            return Some(format!("its last observation is stale: {:?}", self.age));
        }
        self.against
            .iter()
            .flatten()
            .next()
            .map(ToString::to_string)
    }

    /// What it knows from these sources counts no longer.
    pub(super) fn forget(&mut self, sources: &[Source]) {
        for source in sources {
            self.against[*source as usize] = Some("not observed again");
        }
    }

    /// The watchdog reads the clock.
    pub(super) fn clock_read(&mut self, now: Monotonic) {
        match self.shown {
            None => (self.shown, self.age) = (Some(now), None),
            Some(shown) => {
                self.age.get_or_insert(now.since(shown));
            }
        }
    }
}

/// What readings of the accept queue show: whether one that had waited for a while was accepted.
#[derive(Clone, Debug, Default)]
pub(super) struct QueueSeen {
    listener: u64,
    places: Vec<u64>,
    /// How many clients had given up.
    resets: u64,
    /// Since when connections have waited.
    since: HashMap<u64, Duration>,
    /// Whether one of them had waited for a while.
    ripe: bool,
    pub(super) moved: bool,
}

impl QueueSeen {
    pub(super) fn record(&mut self, world: &World) {
        let network = &world.network;
        let places: Vec<u64> = network.queue.iter().copied().collect();
        // A client that comes and gives up between two readings may hide an accept.
        let comparable =
            self.ripe && self.listener == network.listener && self.resets == network.resets;
        self.moved |= comparable && self.places.iter().any(|place| !places.contains(place));
        let waits = |place: &&u64| {
            let connection = network.connections.get(*place);
            connection.is_some_and(|connection| connection.stage == Stage::Waiting)
        };
        let since = places.iter().filter(waits);
        self.since = since
            .map(|place| (*place, *self.since.get(place).unwrap_or(&world.now)))
            .collect();
        let long = Duration::from_millis(200);
        self.ripe = (self.since.values()).any(|since| *since + long <= world.now);
        (self.listener, self.resets, self.places) = (network.listener, network.resets, places);
    }
}
