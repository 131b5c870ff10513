//! The backend's socket with its accept queue, the connections of clients and watchdogs, and a packet filter. The
//! kernel's table is made from these.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::super::samples::{self, in_group, in_state, listener};
use super::super::sockets::Reading;
use super::super::sockets::tcp::{TcpSocket, TcpState};
use super::super::sockets::unix::UnixListener;
use super::world::{Mode, monotonic};

/// The backend's address, to which [`samples::connection`] leads, too.
pub(super) const ADDRESS: &str = "127.0.0.1:80";

/// How long an event loop that lives takes to accept a connection.
const ACCEPT_TIME: Duration = Duration::from_millis(50);

/// What a packet filter drops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Filter {
    Connects,
    Requests,
    Answers,
}

/// How far a connection has got.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Stage {
    #[default]
    Connecting,
    /// In the accept queue.
    Waiting,
    Accepted,
    Ended,
}

/// A connection from its client's first packet on.
#[derive(Clone, Debug, Default)]
pub(super) struct Connection {
    began: Duration,
    pub(super) stage: Stage,
    /// Whether it belongs to a watchdog, and whether that has parked it.
    pub(super) ours: bool,
    pub(super) parked: bool,
    /// Whether it was connected only after it had been parked. Such a connection carries no request.
    pub(super) late: bool,
    /// Whether its request has been dropped.
    pub(super) lost: bool,
    /// Whether its client has closed its end.
    closed: bool,
    /// Whether an answer has been written that has not arrived.
    pub(super) withheld: bool,
    /// When the answer arrived.
    pub(super) answered: Option<Duration>,
}

#[derive(Debug, Default)]
pub(super) struct Network {
    /// Whether the socket is a UNIX socket, which no packet filter concerns.
    pub(super) unix: bool,
    pub(super) filter: Option<Filter>,
    /// The backlog.
    pub(super) limit: u32,
    /// The socket that listens; 0 for none.
    pub(super) listener: u64,
    /// The accept queue. A client that gives up keeps its place.
    pub(super) queue: VecDeque<u64>,
    pub(super) connections: BTreeMap<u64, Connection>,
    /// How many clients have given up.
    pub(super) resets: u64,
    /// What a one-at-a-time backend works on, and until when.
    working_on: Option<(u64, Duration)>,
    next: u64,
}

impl Network {
    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    pub(super) fn listen(&mut self) {
        self.end();
        self.listener = self.number();
    }

    /// The listener and all connections end with the backend's processes.
    pub(super) fn end(&mut self) {
        self.listener = 0;
        self.queue.clear();
        self.working_on = None;
        for connection in self.connections.values_mut() {
            connection.stage = Stage::Ended;
        }
    }

    pub(super) fn is_full(&self) -> bool {
        self.queue.len() > self.limit as usize
    }

    pub(super) fn drops(&self, what: Filter) -> bool {
        !self.unix && self.filter == Some(what)
    }

    /// A client sends a request; none if nobody listens.
    pub(super) fn connect(&mut self, ours: bool, now: Duration) -> Option<u64> {
        if self.listener == 0 {
            return None;
        }
        let cookie = self.number();
        let connection = Connection {
            began: now,
            ours,
            lost: self.drops(Filter::Requests),
            ..Connection::default()
        };
        self.connections.insert(cookie, connection);
        self.finish_connects();
        Some(cookie)
    }

    /// Puts whoever is connecting into the accept queue, as far as that has room. A full UNIX socket refuses at once, so
    /// that only an attempt that is not over tries again.
    fn finish_connects(&mut self) {
        let may_connect = !self.drops(Filter::Connects);
        for (cookie, connection) in &mut self.connections {
            let waits = connection.stage == Stage::Connecting && !(self.unix && connection.parked);
            if waits && may_connect && self.queue.len() <= self.limit as usize {
                connection.stage = Stage::Waiting;
                connection.late = connection.parked;
                self.queue.push_back(*cookie);
            }
        }
    }

    /// Another client than a watchdog gives up, by a reset or by closing its end.
    pub(super) fn give_up(&mut self, number: u64, resets: bool) {
        let mut clients: Vec<_> = (self.connections.values_mut())
            .filter(|connection| !connection.ours && connection.stage != Stage::Ended)
            .collect();
        let index = number as usize % clients.len().max(1);
        if let Some(client) = clients.get_mut(index) {
            if resets || self.unix {
                client.stage = Stage::Ended;
                self.resets += 1;
            } else {
                client.closed = true;
            }
        }
    }

    /// What the backend has done by `now`, and what the kernel sends again.
    pub(super) fn serve(&mut self, mode: Option<Mode>, now: Duration) {
        self.finish_connects();
        let (keep_lost, withhold) = (self.drops(Filter::Requests), self.drops(Filter::Answers));
        for connection in self.connections.values_mut() {
            connection.lost &= keep_lost;
            if connection.withheld && !withhold {
                connection.withheld = false;
                connection.answered = Some(now);
            }
        }
        match mode {
            None | Some(Mode::Hangs { accepts: false }) => {}
            Some(Mode::Hangs { accepts: true }) => {
                while self.has_waited(now) && self.accept().is_some() {}
            }
            Some(Mode::Serves) => {
                while self.accept().is_some() {}
                let all: Vec<u64> = self.connections.keys().copied().collect();
                all.into_iter().for_each(|cookie| self.answer(cookie, now));
            }
            Some(Mode::Overloaded(millis)) => loop {
                match self.working_on {
                    Some((_, until)) if until > now => break,
                    Some((cookie, until)) => {
                        self.answer(cookie, until);
                        let next = self.accept();
                        self.working_on =
                            next.map(|next| (next, until + Duration::from_millis(millis)));
                    }
                    None => {
                        let Some(next) = self.accept() else { break };
                        self.working_on = Some((next, now + Duration::from_millis(millis)));
                    }
                }
            },
        }
        self.connections.retain(|_, connection| {
            connection.ours || connection.stage != Stage::Ended || connection.withheld
        });
    }

    /// Whether the first one waits for longer than an event loop takes to accept it.
    fn has_waited(&self, now: Duration) -> bool {
        let first = self.queue.front();
        let first = first.and_then(|cookie| self.connections.get(cookie));
        first.is_none_or(|first| first.began + ACCEPT_TIME <= now)
    }

    fn accept(&mut self) -> Option<u64> {
        while let Some(cookie) = self.queue.pop_front() {
            if let Some(connection) = self.connections.get_mut(&cookie)
                && connection.stage == Stage::Waiting
            {
                connection.stage = Stage::Accepted;
                return Some(cookie);
            }
        }
        None
    }

    fn answer(&mut self, cookie: u64, now: Duration) {
        let withhold = self.drops(Filter::Answers);
        let Some(connection) = self.connections.get_mut(&cookie) else {
            return;
        };
        let has_request = !connection.lost && !connection.late && connection.answered.is_none();
        if connection.stage != Stage::Accepted || !has_request {
            return;
        }
        if withhold {
            connection.withheld = true;
        } else {
            connection.answered = Some(now);
            if !connection.ours {
                connection.stage = Stage::Ended;
            }
        }
    }

    /// What the kernel shows; `group` created the listener.
    pub(super) fn reading(&self, group: u64, now: Duration) -> Reading {
        let at = monotonic(now);
        let length = u32::try_from(self.queue.len()).unwrap();
        if self.unix {
            let shown = |cookie: &u64| {
                let waits = self.connections.contains_key(cookie)
                    && self.connections[cookie].stage == Stage::Waiting;
                if waits { *cookie as u32 } else { 0 }
            };
            let listener = UnixListener {
                inode: self.listener as u32,
                queue: Some((length, self.limit)),
                waiting: self.queue.iter().map(shown).collect(),
                ..UnixListener::default()
            };
            let listeners = (self.listener != 0).then_some(listener);
            return Reading::Unix {
                at,
                path: "/run/demo.sock".into(),
                listeners: listeners.into_iter().collect(),
            };
        }
        let listening = TcpSocket {
            receive_queue: length,
            send_queue: self.limit,
            ..in_group(listener(ADDRESS, self.listener), group)
        };
        let listeners_after: Vec<_> = (self.listener != 0)
            .then_some(listening)
            .into_iter()
            .collect();
        let mut rows = listeners_after.clone();
        let shown = |(cookie, connection): (&u64, &Connection)| {
            let row = in_group(samples::connection(*cookie, port(*cookie)), group);
            let row = match connection.stage {
                Stage::Waiting => row,
                Stage::Accepted => samples::accepted(row),
                Stage::Connecting | Stage::Ended => return None,
            };
            let row = TcpSocket {
                send_queue: u32::from(connection.withheld) * 200,
                ..row
            };
            Some(if connection.closed {
                in_state(row, TcpState::Open)
            } else {
                row
            })
        };
        rows.extend(self.connections.iter().filter_map(shown));
        Reading::Tcp {
            at,
            rows,
            listeners_after,
        }
    }
}

/// The client's port of a connection.
pub(super) fn port(cookie: u64) -> u16 {
    20_000 + u16::try_from(cookie).unwrap()
}
