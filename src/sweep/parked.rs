//! Parked requests: core requests that timed out without a byte, kept open until the run has decided. If the
//! backend ever gets to one of them, a byte arrives.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nix::errno::Errno;
use rustix::process::{Resource, getrlimit};

use super::attempt::OpenSocket;
use super::connections::Connection;
use super::socket::Socket;
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

/// All parked requests of a sweep.
#[derive(Debug)]
pub(super) struct ParkedRequests {
    requests: Mutex<Vec<Parked>>,
    /// How many are kept.
    most: usize,
}

impl Default for ParkedRequests {
    fn default() -> Self {
        // Most descriptors are left to the requests that follow, and to `systemctl`.
        let limit = getrlimit(Resource::Nofile).current;
        let part = limit.and_then(|limit| usize::try_from(limit / 4).ok());
        Self {
            requests: Mutex::default(),
            most: part.unwrap_or(REQUESTS_MAX).min(REQUESTS_MAX),
        }
    }
}

#[derive(Debug)]
struct Parked {
    request: ParkedRequest,
    /// None if there is nothing to keep open: a full accept queue refuses connections to a UNIX socket.
    socket: Option<Arc<Socket>>,
}

impl ParkedRequests {
    /// Parks `request` with each socket of its attempt, several where connects to several addresses are
    /// pending. `request` is a template: its connection and reach are those of the sockets.
    pub(super) fn park(&self, request: &ParkedRequest, sockets: Vec<OpenSocket>) {
        let mut parked = self.lock();
        if sockets.is_empty() && parked.len() < self.most {
            parked.push(Parked {
                request: request.clone(),
                socket: None,
            });
        }
        for open in sockets {
            if parked.len() >= self.most {
                return;
            }
            let request = ParkedRequest {
                connection: open.connection,
                reach: open.reach(),
                ..request.clone()
            };
            let socket = Some(open.socket);
            parked.push(Parked { request, socket });
        }
    }

    /// Closes all of them.
    pub(super) fn close(&self) {
        self.lock().clear();
    }

    /// Forgets those that have been answered: they say nothing about the next round.
    pub(super) fn forget_answered(&self) {
        let mut parked = self.lock();
        parked.retain(|parked| parked.request.answered().is_none());
    }

    /// Checks each for a byte.
    pub(super) fn check(&self) {
        self.lock().iter_mut().for_each(Parked::check);
    }

    /// Each of them with its present state.
    pub(super) fn requests(&self) -> Vec<ParkedRequest> {
        let mut parked = self.lock();
        parked.iter_mut().for_each(Parked::check);
        parked.iter().map(|parked| parked.request.clone()).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Parked>> {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Parked {
    fn check(&mut self) {
        let (Some(socket), ParkedState::Waiting | ParkedState::ConnectedLate) =
            (&self.socket, self.request.state)
        else {
            return;
        };
        self.request.state = match socket.peek() {
            Ok(0) => ParkedState::Ended,
            Ok(_) => ParkedState::Answered(Monotonic::now().since(self.request.began)),
            Err(Errno::EAGAIN | Errno::EINTR) => {
                let late = self.request.reach == Reach::Unconnected && socket.is_connected();
                if !late {
                    return;
                }
                ParkedState::ConnectedLate
            }
            Err(_) => ParkedState::Ended,
        };
    }
}
