//! A log of the connections at the backend's port, built from reads of the kernel's socket table since the
//! sweep began.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;

use super::tcp_table::{TcpSocket, TcpState, canonical, listeners};

/// How many of a connection's last reads are compared for the final number of bytes written: a single read
/// may be too high ([`TcpSocket::written`]).
const READS: usize = 3;

/// A sign that the backend served a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Sign {
    /// The client.
    pub(super) client: SocketAddr,
    pub(super) what: Served,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Served {
    /// It wrote bytes.
    Wrote(u64),
    /// It closed the connection.
    Closed,
    /// It closed this connection, and has accepted another one since.
    WentOn,
}

impl std::fmt::Display for Sign {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.what {
            Served::Wrote(bytes) => write!(f, "{bytes} bytes written to {}", self.client),
            Served::Closed => write!(f, "the connection from {} closed", self.client),
            Served::WentOn => write!(
                f,
                "the connection from {} closed, and another one accepted",
                self.client
            ),
        }
    }
}

/// The history of each connection at the backend's port since the sweep began.
#[derive(Clone, Debug, Default)]
pub(super) struct SocketLog {
    connections: HashMap<u64, History>,
    /// The listeners whose accept queue was full at a read during the sweep.
    full: HashSet<u64>,
    reads: u64,
    sweep_is_over: bool,
}

#[derive(Clone, Debug)]
struct History {
    server: SocketAddr,
    client: SocketAddr,
    /// Whether it was accepted when the sweep began; none if it did not exist then.
    first: Option<Accepted>,
    /// Whether the backend's end was still open at the first read.
    began_open: bool,
    /// In how many reads it was waiting to be accepted.
    waits: u64,
    /// Whether it was still waiting when the sweep ended.
    waited_at_end: bool,
    /// Whether a read has shown it as accepted.
    accepted: bool,
    /// Whether the backend has closed its end.
    closed: bool,
    /// Whether the number of bytes written could be read after that: not in FIN_WAIT2 and TIME_WAIT.
    read_when_closed: bool,
    /// The smallest number of bytes written in any read: that of the first read, as no read is too low.
    least: Option<u64>,
    /// The bytes written in the last reads, newest first.
    latest: [Option<u64>; READS],
    /// Whether anything had been received from the client by the end of the sweep.
    received: bool,
    /// The last read that contained it.
    seen: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Accepted {
    Yes,
    No,
}

impl SocketLog {
    /// Adds one read of the socket table.
    pub(super) fn record(&mut self, table: &[TcpSocket]) {
        let begins = self.reads == 0;
        self.reads += 1;
        let full = table
            .iter()
            .filter(|socket| socket.state == TcpState::Listen && socket.is_full());
        if !self.sweep_is_over {
            self.full.extend(full.map(|listener| listener.cookie));
        }
        for socket in table.iter().filter(|socket| socket.is_connection()) {
            let history = (self.connections.entry(socket.cookie)).or_insert_with(|| History {
                server: socket.local,
                client: socket.remote,
                first: begins.then_some(match socket.accepted() || socket.state.closed_here() {
                    true => Accepted::Yes,
                    false => Accepted::No,
                }),
                began_open: !socket.state.closed_here(),
                waits: 0,
                waited_at_end: false,
                accepted: false,
                closed: false,
                read_when_closed: false,
                least: None,
                latest: [None; READS],
                received: false,
                seen: 0,
            });
            history.seen = self.reads;
            history.closed |= socket.state.closed_here() && !history.gave_up(socket);
            // After an end is closed, the inode does not show whether the connection was accepted.
            if matches!(socket.state, TcpState::Established | TcpState::CloseWait) {
                history.accepted |= socket.accepted();
                history.waits += u64::from(!socket.accepted());
            }
            // The client's kernel keeps retransmitting an abandoned request for a while, so data that
            // arrives after the sweep proves nothing.
            history.received |=
                !self.sweep_is_over && socket.traffic.is_some_and(|traffic| traffic.received > 0);
            if let Some(written) = socket.written() {
                history.read_when_closed |= socket.state.closed_here();
                history.least = Some(history.least.map_or(written, |least| least.min(written)));
                history.latest.rotate_right(1);
                if let Some(last) = history.latest.first_mut() {
                    *last = Some(written);
                }
            }
        }
    }

    /// Ends the sweep.
    pub(super) fn end_sweep(&mut self) {
        self.sweep_is_over = true;
        for history in self.connections.values_mut() {
            history.waited_at_end =
                history.waited() && !history.accepted && history.seen == self.reads;
        }
    }

    /// The first sign of progress on a connection to one of `addresses`, whose listeners are in
    /// `table`; connections of the `own` local addresses do not count.
    pub(super) fn sign(
        &self,
        table: &[TcpSocket],
        addresses: &[SocketAddr],
        own: &HashSet<SocketAddr>,
    ) -> Option<Sign> {
        let ours = Listeners::at(table, addresses);
        // After a client has closed first, only the client's end is left, a different socket with fewer
        // facts. The server's end has already shown, while it was open, whether the client was served or gave
        // up. The exception is one that waited to be accepted: the backend has accepted and closed it since.
        let open: HashSet<(SocketAddr, SocketAddr)> = (self.connections.values())
            .filter(|history| history.began_open && !history.waited())
            .map(|history| (history.server, history.client))
            .collect();
        let shown = |history: &History| {
            !history.began_open && open.contains(&(history.server, history.client))
        };
        let others: Vec<&History> = (self.connections.values())
            .filter(|history| !own.contains(&canonical(history.client)) && !shown(history))
            .filter(|history| ours.take(history.server))
            .collect();
        let sign = |history: &History, what| Sign {
            client: history.client,
            what,
        };
        let served = |history: &&History| Some(sign(history, history.served(self.reads)?));
        others.iter().find_map(served).or_else(|| {
            // A worker that dies closes its connections, too, but does not accept another one.
            let went_on = others.iter().any(|history| history.newly_accepted());
            let ended = others.iter().find(|history| history.may_have_been_served());
            ended
                .filter(|_| went_on)
                .map(|history| sign(history, Served::WentOn))
        })
    }

    /// A client at one of `addresses` that waited to be accepted when the sweep ended, and has been accepted
    /// since. This program's own connections count, too.
    pub(super) fn accepted_after_sweep(
        &self,
        table: &[TcpSocket],
        addresses: &[SocketAddr],
    ) -> Option<SocketAddr> {
        let ours = Listeners::at(table, addresses);
        let accepted = self
            .connections
            .values()
            .find(|history| history.waited_at_end && history.accepted && ours.take(history.server));
        accepted.map(|history| history.client)
    }

    /// Whether a request of the sweep, which came from one of the `own` addresses, reached a listener at one
    /// of `addresses` and got no byte in return, or may have found its accept queue full.
    pub(super) fn was_reached(
        &self,
        table: &[TcpSocket],
        addresses: &[SocketAddr],
        own: &HashSet<SocketAddr>,
    ) -> bool {
        let ours = Listeners::at(table, addresses);
        let mut connections = self.connections.values();
        !self.full.is_disjoint(&ours.cookies)
            || connections.any(|history| {
                own.contains(&canonical(history.client))
                    && history.received
                    && history.latest.first() == Some(&Some(0))
                    && ours.take(history.server)
            })
    }
}

/// The listeners at the given addresses, and all others at the port.
struct Listeners {
    /// All listeners at the port: few, in contrast to the connections.
    all: Vec<TcpSocket>,
    cookies: HashSet<u64>,
}

impl Listeners {
    fn at(table: &[TcpSocket], addresses: &[SocketAddr]) -> Self {
        let listening = |socket: &&TcpSocket| socket.state == TcpState::Listen;
        let all: Vec<TcpSocket> = table.iter().filter(listening).copied().collect();
        let chosen = addresses
            .iter()
            .flat_map(|address| listeners(&all, *address));
        let cookies = chosen.map(|listener| listener.cookie).collect();
        Self { all, cookies }
    }

    /// Whether a connection to `server` could belong to a listener at the given addresses.
    fn take(&self, server: SocketAddr) -> bool {
        let listeners = listeners(&self.all, server);
        let mut listeners = listeners.iter();
        listeners.any(|listener| self.cookies.contains(&listener.cookie))
    }
}

impl History {
    /// Whether the backend accepted the connection at once, and the client closed it first without having
    /// received a byte.
    fn gave_up(&self, socket: &TcpSocket) -> bool {
        let closed_second = socket.state == TcpState::LastAck;
        closed_second && socket.written() == Some(0) && self.accepted && !self.waited()
    }

    /// Whether it waited to be accepted. A connection that is accepted at once may still be waiting in a
    /// single read.
    fn waited(&self) -> bool {
        self.waits > 1
    }

    fn newly_accepted(&self) -> bool {
        self.accepted && self.first != Some(Accepted::Yes)
    }

    /// Whether the backend closed it between two reads, perhaps after writing.
    fn may_have_been_served(&self) -> bool {
        self.first == Some(Accepted::Yes)
            && self.closed
            && self.began_open
            && !self.read_when_closed
    }

    /// What the backend did for this client, as of read number `now`.
    fn served(&self, now: u64) -> Option<Served> {
        // A connection that is gone has no further reads to compare with.
        let reads = if self.seen == now { READS } else { 1 };
        let in_total = self.latest.iter().take(reads).flatten().min();
        let in_total = in_total.copied().unwrap_or(0);
        let wrote = in_total.saturating_sub(self.least.unwrap_or(0));
        let known = self.first.is_some();
        let closed = self.closed && self.first != Some(Accepted::Yes);
        // It was accepted after waiting and ended between two reads: it was answered, or the client reset it.
        let gone = self.waited() && self.accepted && self.seen < now;
        if gone || closed && (wrote == 0 || !known) {
            Some(Served::Closed)
        } else if known && wrote > 0 {
            Some(Served::Wrote(wrote))
        } else if !known && self.accepted && in_total > 0 {
            Some(Served::Wrote(in_total))
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests;
