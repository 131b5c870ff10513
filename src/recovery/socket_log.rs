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
mod tests {
    use std::time::Duration;

    use super::super::samples::{
        accepted, connection, established, in_state, listener, received, wildcard, written,
    };
    use super::*;
    use crate::clock::Monotonic;

    const CLIENT: u16 = 50_000;

    fn waiting() -> TcpSocket {
        connection(1, CLIENT)
    }

    fn served(socket: TcpSocket, bytes: u64) -> TcpSocket {
        written(accepted(socket), bytes)
    }

    /// The sign of progress after these reads of the listener's connections.
    fn sign(reads: &[Vec<TcpSocket>]) -> Option<Served> {
        let mut log = SocketLog::default();
        for table in reads {
            log.record(table);
        }
        let table = [listener("127.0.0.1:80", 9)];
        let sign = log.sign(&table, &["127.0.0.1:80".parse().unwrap()], &HashSet::new());
        sign.map(|sign| sign.what)
    }

    #[test]
    fn an_application_that_writes_makes_progress() {
        for (before, after, expected) in [
            (
                vec![waiting()],
                vec![served(waiting(), 5)],
                Some(Served::Wrote(5)),
            ),
            (
                vec![served(waiting(), 5)],
                vec![served(waiting(), 6)],
                Some(Served::Wrote(1)),
            ),
            (vec![served(waiting(), 5)], vec![served(waiting(), 5)], None),
            (vec![], vec![served(waiting(), 5)], Some(Served::Wrote(5))),
            (vec![], vec![accepted(waiting())], None),
            (vec![], vec![waiting()], None),
            (vec![waiting()], vec![accepted(waiting())], None),
        ] {
            let case = format!("{before:?} {after:?}");
            // The last reads of a connection must agree.
            let reads = [before, after.clone(), after.clone(), after];
            assert_eq!(sign(&reads), expected, "{case}");
        }
    }

    #[test]
    fn a_read_that_is_too_high_is_not_progress() {
        let at = |bytes| vec![served(waiting(), bytes)];
        assert_eq!(sign(&[at(100), at(124), at(100), at(100)]), None);
        assert_eq!(sign(&[at(124), at(100), at(100), at(100)]), None);
        assert_eq!(sign(&[at(100), at(100), at(124), at(100)]), None);
        assert_eq!(sign(&[at(100), at(100), at(100), at(124)]), None);
        // A first read that is too high does not hide what later reads show.
        assert_eq!(
            sign(&[at(124), at(100), at(130), at(130), at(130)]),
            Some(Served::Wrote(30))
        );
    }

    #[test]
    fn bytes_written_before_a_connection_vanished_count() {
        let reads = [vec![waiting()], vec![served(waiting(), 5)], vec![], vec![]];
        assert_eq!(sign(&reads), Some(Served::Wrote(5)));
    }

    #[test]
    fn a_backend_that_closes_a_waiting_or_new_connection_makes_progress() {
        for state in [
            TcpState::FinWait1,
            TcpState::FinWait2,
            TcpState::Closing,
            TcpState::LastAck,
            TcpState::TimeWait,
        ] {
            let closed = in_state(waiting(), state);
            assert_eq!(
                sign(&[vec![waiting()], vec![closed]]),
                Some(Served::Closed),
                "{state:?}"
            );
            assert_eq!(
                sign(&[vec![], vec![closed]]),
                Some(Served::Closed),
                "{state:?}"
            );
            // It was accepted before the sweep, and ends without a byte.
            assert_eq!(
                sign(&[vec![accepted(waiting())], vec![closed]]),
                None,
                "{state:?}"
            );
            // It had ended before the sweep began.
            assert_eq!(sign(&[vec![closed], vec![closed]]), None, "{state:?}");
        }
    }

    #[test]
    fn a_backend_that_ends_one_request_and_accepts_the_next_makes_progress() {
        let next = || connection(2, CLIENT + 1);
        let before = vec![accepted(waiting()), next()];
        for state in [TcpState::FinWait2, TcpState::TimeWait] {
            let ended = in_state(waiting(), state);
            let went_on = vec![ended, accepted(next())];
            assert_eq!(
                sign(&[before.clone(), went_on]),
                Some(Served::WentOn),
                "{state:?}"
            );
            // A worker that died.
            assert_eq!(
                sign(&[before.clone(), vec![ended, next()]]),
                None,
                "{state:?}"
            );
        }
        // It ended without a byte.
        let ended = vec![in_state(waiting(), TcpState::FinWait1), accepted(next())];
        assert_eq!(sign(&[before.clone(), ended]), None);
        assert_eq!(
            sign(&[before, vec![accepted(waiting()), accepted(next())]]),
            None
        );
    }

    #[test]
    fn an_exchange_that_was_over_before_the_sweep_is_not_progress() {
        for state in [TcpState::FinWait2, TcpState::TimeWait] {
            let ended = in_state(waiting(), state);
            let next = connection(2, CLIENT + 1);
            let reads = [vec![ended, next], vec![ended, accepted(next)]];
            assert_eq!(sign(&reads), None, "{state:?}");
        }
    }

    #[test]
    fn a_client_that_closed_its_end_may_still_be_served() {
        let half_closed = in_state(served(waiting(), 5), TcpState::CloseWait);
        assert_eq!(sign(&[vec![], vec![half_closed]]), Some(Served::Wrote(5)));
    }

    #[test]
    fn sign_names_what_was_written_rather_than_the_end() {
        let open = |bytes| vec![served(waiting(), bytes)];
        let closed = |bytes| vec![in_state(served(waiting(), bytes), TcpState::FinWait1)];
        let known = [vec![waiting()], closed(5), closed(5), closed(5)];
        assert_eq!(sign(&known), Some(Served::Wrote(5)));
        // For a connection that began after the first read, the close is the sign.
        let new = [vec![], open(5), closed(9), closed(9), closed(9)];
        assert_eq!(sign(&new), Some(Served::Closed));
        let all = [vec![], open(5), open(9), open(9), open(9)];
        assert_eq!(sign(&all), Some(Served::Wrote(9)));
    }

    #[test]
    fn a_connection_that_waited_and_was_accepted_and_has_gone_is_progress() {
        let waits = || vec![waiting()];
        let open = || vec![accepted(waiting())];
        assert_eq!(
            sign(&[waits(), waits(), open(), vec![]]),
            Some(Served::Closed)
        );
        assert_eq!(sign(&[waits(), waits(), open(), open()]), None);
        assert_eq!(sign(&[waits(), waits(), vec![]]), None);
        // It may have been accepted at once.
        assert_eq!(sign(&[waits(), open(), vec![]]), None);
    }

    #[test]
    fn clients_that_give_up_are_not_progress() {
        let gave_up = in_state(waiting(), TcpState::CloseWait);
        assert_eq!(sign(&[vec![waiting()], vec![gave_up]]), None);
        assert_eq!(sign(&[vec![], vec![gave_up]]), None);
        // Reset by the client.
        assert_eq!(sign(&[vec![waiting()], vec![]]), None);
        assert_eq!(
            sign(&[vec![waiting(), established(waiting())], vec![]]),
            None
        );
    }

    #[test]
    fn a_client_that_gives_up_and_is_closed_is_not_progress_unless_it_was_served() {
        // A different socket: the client's end.
        let ended = in_state(connection(2, CLIENT), TcpState::TimeWait);
        let open = accepted(waiting());
        assert_eq!(sign(&[vec![], vec![open], vec![ended]]), None);
        assert_eq!(sign(&[vec![open], vec![], vec![ended]]), None);
        // The client's machine has not acknowledged the backend's FIN yet.
        let late = in_state(open, TcpState::LastAck);
        assert_eq!(sign(&[vec![], vec![open], vec![late]]), None);
        assert_eq!(
            sign(&[
                vec![],
                vec![open],
                vec![in_state(served(open, 5), TcpState::LastAck)]
            ]),
            Some(Served::Closed)
        );
        assert_eq!(
            sign(&[vec![], vec![served(open, 5)], vec![ended]]),
            Some(Served::Wrote(5))
        );
        // It began and ended between two dumps.
        assert_eq!(sign(&[vec![], vec![ended]]), Some(Served::Closed));
        // It waited until the backend accepted and closed it.
        let waits = || vec![waiting()];
        assert_eq!(
            sign(&[vec![], waits(), waits(), vec![open], vec![ended]]),
            Some(Served::Closed)
        );
        assert_eq!(sign(&[vec![], waits(), vec![open], vec![ended]]), None);
    }

    #[test]
    fn was_reached_requires_an_own_request_without_an_answer_or_a_full_queue() {
        let idle = listener("127.0.0.1:80", 9);
        let apart = listener("127.0.0.2:80", 8);
        let mut full = idle;
        full.receive_queue = full.send_queue + 1;
        let request = received(waiting(), 100);
        let answered = written(request, 5);
        let mut elsewhere = request;
        elsewhere.local = apart.local;
        let other = received(connection(2, CLIENT + 1), 100);
        let (none, idle) = (vec![], vec![idle]);
        for (sweep, later, expected) in [
            (vec![], &idle, false),
            (vec![waiting()], &idle, false),
            (vec![request], &idle, true),
            (vec![request], &none, true),
            (vec![waiting()], &vec![request], false),
            (vec![request], &vec![answered], false),
            (vec![answered], &idle, false),
            (vec![elsewhere], &idle, false),
            (vec![other], &idle, false),
            (vec![full], &idle, true),
            (vec![], &vec![full], false),
        ] {
            let mut log = SocketLog::default();
            log.record(&sweep);
            log.end_sweep();
            log.record(later);
            let table = [idle[0], apart];
            let own = HashSet::from([request.remote]);
            let found = log.was_reached(&table, &["127.0.0.1:80".parse().unwrap()], &own);
            assert_eq!(found, expected, "{sweep:?} {later:?}");
        }
    }

    #[test]
    fn accepted_after_sweep_requires_a_connection_that_waited_at_its_end() {
        let waits = || vec![waiting()];
        let open = || vec![accepted(waiting())];
        for (sweep, later, expected) in [
            (vec![waits(), waits()], open(), true),
            (vec![waits(), waits()], waits(), false),
            (vec![waits(), waits()], vec![], false),
            (vec![waits(), waits(), open()], open(), false),
            (vec![waits(), waits(), vec![]], open(), false),
            // It may have been accepted at once.
            (vec![waits()], open(), false),
            (vec![vec![]], open(), false),
        ] {
            let mut log = SocketLog::default();
            for table in &sweep {
                log.record(table);
            }
            log.end_sweep();
            log.record(&later);
            for (address, at_it) in [("127.0.0.1:80", true), ("127.0.0.2:80", false)] {
                let table = [listener("127.0.0.1:80", 9), listener("127.0.0.2:80", 8)];
                let found = log.accepted_after_sweep(&table, &[address.parse().unwrap()]);
                assert_eq!(found.is_some(), expected && at_it, "{sweep:?} {later:?}");
            }
        }
    }

    #[test]
    fn a_log_of_many_connections_is_judged_quickly() {
        let connections = (0..30_000).map(|client| accepted(connection(client, CLIENT)));
        let table: Vec<_> = connections
            .chain([listener("127.0.0.1:80", 90_000)])
            .collect();
        let mut log = SocketLog::default();
        log.record(&table);
        let began = Monotonic::now();
        let at = ["127.0.0.1:80".parse().unwrap()];
        assert_eq!(log.sign(&table, &at, &HashSet::new()), None);
        assert!(!log.was_reached(&table, &at, &HashSet::new()));
        let took = Monotonic::now().since(began);
        assert!(took < Duration::from_secs(2), "{took:?}");
    }

    #[test]
    fn own_connections_and_other_listeners_do_not_count() {
        let mut log = SocketLog::default();
        log.record(&[]);
        log.record(&[served(waiting(), 5)]);
        let at = |address: &str| [address.parse().unwrap()];
        let own = HashSet::from([waiting().remote]);
        let own_listener = [listener("127.0.0.1:80", 9)];
        assert_eq!(log.sign(&own_listener, &at("127.0.0.1:80"), &own), None);
        let no_client = HashSet::new();
        let apart = [listener("127.0.0.1:80", 9), listener("127.0.0.2:80", 8)];
        assert!(log.sign(&apart, &at("127.0.0.1:80"), &no_client).is_some());
        assert_eq!(log.sign(&apart, &at("127.0.0.2:80"), &no_client), None);
        let all = [wildcard("[::]:80", 9)];
        assert!(log.sign(&all, &at("127.0.0.2:80"), &no_client).is_some());
    }
}
