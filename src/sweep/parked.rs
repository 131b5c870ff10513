//! Parked requests: core requests that timed out without a byte, kept open until the run has decided. If the
//! backend ever gets to one of them, a byte arrives.

use std::io::ErrorKind;
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Resource, getrlimit};

use super::attempt::Attempt;
use super::client::{Connection, SweepState};
use super::socket::unacknowledged;
use crate::clock::Monotonic;

/// How many are kept; the oldest ones, which a backend answers first.
const REQUESTS_MAX: usize = 256;

/// A core request that timed out without a byte.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParkedRequest {
    /// The route's index in the manifest.
    pub route: usize,
    /// The round of the sweep, counted from 1.
    pub round: u32,
    /// Whether it was the route's first attempt in that round.
    pub first_attempt: bool,
    /// When the attempt began.
    pub began: Monotonic,
    /// When it timed out.
    pub timed_out: Monotonic,
    /// Its two ends; none over a UNIX socket.
    pub connection: Option<Connection>,
    /// How far it had got when it timed out.
    pub reach: Reach,
    /// What has become of it since.
    pub state: ParkedState,
}

/// How far a request had got when its attempt timed out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// The connect was pending.
    Unconnected,
    /// Connected, but not all of the request was written and acknowledged.
    Connected,
    /// The other side's kernel has acknowledged all of it (over a UNIX socket: a connection stands).
    Acknowledged,
}

/// What has become of a parked request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParkedState {
    /// Nothing has happened.
    Waiting,
    /// A connect that was pending has succeeded.
    ConnectedLate,
    /// A byte has arrived, this long after the attempt began.
    Answered(Duration),
    /// It has ended without a byte.
    Ended,
}

impl ParkedRequest {
    /// The address to which it was sent; none over a UNIX socket.
    pub fn remote(&self) -> Option<SocketAddr> {
        self.connection.map(|connection| connection.remote)
    }

    /// How long after the attempt's begin a byte arrived, if one has.
    pub fn answered(&self) -> Option<Duration> {
        match self.state {
            ParkedState::Answered(after) => Some(after),
            ParkedState::Waiting | ParkedState::ConnectedLate | ParkedState::Ended => None,
        }
    }
}

/// A parked request and what is kept open.
#[derive(Debug)]
pub(super) struct Parked {
    request: ParkedRequest,
    /// None if there is nothing to keep open: a full accept queue refuses connections to a UNIX socket.
    socket: Option<Arc<TcpStream>>,
}

impl Attempt {
    /// Parks the request of this attempt, which has timed out; once for each socket, where several connects are pending.
    pub(super) fn park(&self, route: usize, round: u32, first_attempt: bool) {
        let timed_out = Monotonic::now();
        let mut state = self.state();
        let sockets: Vec<_> = match state.connected.take() {
            Some((socket, connection)) => {
                let acknowledged = || state.written && unacknowledged(&socket) == Ok(0);
                let reach = if connection.is_none() || acknowledged() {
                    Reach::Acknowledged
                } else {
                    Reach::Connected
                };
                vec![(Some(socket), connection, reach)]
            }
            None if state.connecting.is_empty() => vec![(None, None, Reach::Unconnected)],
            None => (state.connecting.drain(..))
                .map(|(socket, connection)| (Some(socket), Some(connection), Reach::Unconnected))
                .collect(),
        };
        drop(state);
        let request = |(socket, connection, reach)| Parked {
            socket,
            request: ParkedRequest {
                route,
                round,
                first_attempt,
                began: self.began,
                timed_out,
                connection,
                reach,
                state: ParkedState::Waiting,
            },
        };
        let parked = &mut self.client.sweep().parked;
        let free = requests_max().saturating_sub(parked.len());
        parked.extend(sockets.into_iter().map(request).take(free));
    }
}

/// How many requests are kept; most descriptors are left to those that follow, and to `systemctl`.
fn requests_max() -> usize {
    let limit = getrlimit(Resource::Nofile).current;
    let part = limit.and_then(|limit| usize::try_from(limit / 4).ok());
    part.map_or(REQUESTS_MAX, |part| part.min(REQUESTS_MAX))
}

impl SweepState {
    /// Checks each parked request for a byte.
    pub(super) fn check_parked(&mut self) {
        self.parked.iter_mut().for_each(Parked::check);
    }

    /// Each parked request with its present state.
    pub(super) fn parked_requests(&mut self) -> Vec<ParkedRequest> {
        self.check_parked();
        let requests = self.parked.iter().map(|parked| &parked.request);
        requests.cloned().collect()
    }

    /// Forgets the parked requests that have been answered: they say nothing about the next round.
    pub(super) fn forget_answered(&mut self) {
        (self.parked).retain(|parked| parked.request.answered().is_none());
    }
}

impl Parked {
    fn check(&mut self) {
        let (Some(socket), ParkedState::Waiting | ParkedState::ConnectedLate) =
            (&self.socket, self.request.state)
        else {
            return;
        };
        let request = &mut self.request;
        request.state = match socket.peek(&mut [0]).map_err(|error| error.kind()) {
            Ok(1..) => ParkedState::Answered(Monotonic::now().since(request.began)),
            Err(ErrorKind::WouldBlock | ErrorKind::Interrupted) => match request.reach {
                Reach::Unconnected if socket.peer_addr().is_ok() => ParkedState::ConnectedLate,
                _ => return,
            },
            Ok(0) | Err(_) => ParkedState::Ended,
        };
    }
}
