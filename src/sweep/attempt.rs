//! The state that an attempt shares with the resolver, connectors and transports inside ureq: its end, its
//! sockets, what arrived on them, and whether this program was kept from running.

use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::time::TimeSpec;

use super::client::Client;
use super::connections::Connection;
use super::failure::Failure;
use super::parked::Reach;
use super::socket::Socket;
use crate::clock::Monotonic;

/// The longest time between two moments at which an attempt notes that this program runs.
const SLICE: Duration = Duration::from_millis(250);

/// If this program does not run for longer than this, timeouts of `timeout` prove nothing.
pub(super) fn starved_after(timeout: Duration) -> Duration {
    Duration::from_secs(1).min(timeout / 2)
}

/// One attempt.
#[derive(Debug)]
pub(super) struct Attempt {
    pub(super) client: Arc<Client>,
    /// When it ends.
    pub(super) end: Monotonic,
    /// After a longer gap this program was starved.
    starved_after: Duration,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    received: Received,
    /// The sockets whose connect is pending, or the one that is used.
    open: Vec<OpenSocket>,
    /// When the attempt last noted that this program runs.
    awake: Monotonic,
    /// The longest time between two such moments.
    longest_gap: Duration,
}

/// What an attempt has received so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Received {
    Nothing,
    /// Bytes of a TLS handshake, which are no response.
    Handshake,
    /// At least one byte of a response.
    Response,
}

/// A socket of an attempt.
#[derive(Clone, Debug)]
pub(super) struct OpenSocket {
    pub(super) socket: Arc<Socket>,
    /// Its two ends; none for a UNIX socket.
    pub(super) connection: Option<Connection>,
    /// Whether it is connected; otherwise the connect is pending.
    established: bool,
    /// Whether a request (over TLS: the first message of the handshake) has been written to it.
    sent: bool,
}

impl OpenSocket {
    /// How far the request has got.
    pub(super) fn reach(&self) -> Reach {
        let acknowledged = || match self.connection {
            Some(_) => self.sent && self.socket.unacknowledged() == Ok(0),
            None => true,
        };
        if !self.established {
            Reach::Unconnected
        } else if acknowledged() {
            Reach::Acknowledged
        } else {
            Reach::Connected
        }
    }
}

impl Attempt {
    /// An attempt that begins now and ends at `end`, for a route with this timeout.
    pub(super) fn new(client: &Arc<Client>, end: Monotonic, timeout: Duration) -> Self {
        Self {
            client: Arc::clone(client),
            end,
            starved_after: starved_after(timeout),
            state: Mutex::new(State {
                received: Received::Nothing,
                open: Vec::new(),
                awake: Monotonic::now(),
                longest_gap: Duration::ZERO,
            }),
        }
    }

    /// Records what was received.
    pub(super) fn note_received(&self, what: Received) {
        let mut state = self.state();
        state.received = state.received.max(what);
    }

    /// What the attempt has received so far.
    pub(super) fn received(&self) -> Received {
        self.state().received
    }

    /// Records that all of a message has been written to the connected socket.
    pub(super) fn note_sent(&self) {
        for open in &mut self.state().open {
            open.sent = true;
        }
    }

    /// The sockets whose connect is pending, or the connected one. They stay open as long as the result
    /// lives.
    pub(super) fn take_sockets(&self) -> Vec<OpenSocket> {
        std::mem::take(&mut self.state().open)
    }

    /// The sockets of [`Self::take_sockets`].
    #[cfg(test)]
    pub(super) fn sockets(&self) -> Vec<OpenSocket> {
        self.state().open.clone()
    }

    /// Records that `socket` has begun to connect to `remote`.
    pub(super) fn connecting(&self, socket: &Arc<Socket>, remote: SocketAddr) {
        let Some(local) = socket.local_address() else {
            return;
        };
        self.client.log.lock().remotes.insert(remote);
        self.state().open.push(OpenSocket {
            socket: Arc::clone(socket),
            connection: Some(Connection { local, remote }),
            established: false,
            sent: false,
        });
    }

    /// Records that the connect of `socket` has failed.
    pub(super) fn failed(&self, socket: &Arc<Socket>) {
        let mut state = self.state();
        state.open.retain(|open| !Arc::ptr_eq(&open.socket, socket));
    }

    /// Records that `socket`, a TCP socket, is connected and will be used instead of all others.
    pub(super) fn connected(&self, socket: &Arc<Socket>) {
        let mut state = self.state();
        state.open.retain(|open| Arc::ptr_eq(&open.socket, socket));
        for open in &mut state.open {
            open.established = true;
        }
    }

    /// Records that `socket`, a UNIX socket, is connected.
    pub(super) fn connected_unix(&self, socket: &Arc<Socket>) {
        self.state().open = vec![OpenSocket {
            socket: Arc::clone(socket),
            connection: None,
            established: true,
            sent: false,
        }];
    }

    /// The addresses of `host`, by the attempt's end.
    pub(super) fn resolve(&self, host: &str) -> Result<Vec<IpAddr>, Failure> {
        let lookup = self.client.dns.look_up(host)?;
        loop {
            let slice = self.begin_slice(self.end);
            match lookup.wait(slice) {
                Err(failure) if failure.at_end && !self.end.has_passed() => {}
                answer => {
                    self.note_awake();
                    return answer;
                }
            }
        }
    }

    /// Waits for `events` on `socket` until the attempt ends; returns whether it is ready.
    pub(super) fn wait_for(&self, socket: &Socket, events: PollFlags) -> Result<bool, Failure> {
        let mut fds = [PollFd::new(socket.as_fd(), events)];
        self.wait(&mut fds, self.end).map_err(Failure::of_socket)
    }

    /// Waits until one of `fds` is ready, `until` has passed or the attempt ends; returns whether one is
    /// ready.
    pub(super) fn wait(&self, fds: &mut [PollFd<'_>], until: Monotonic) -> Result<bool, Errno> {
        loop {
            let slice = self.begin_slice(until);
            let ready = ppoll(fds, Some(TimeSpec::from(slice.remaining())), None);
            self.note_awake();
            match ready {
                Ok(0) if until.min(self.end).has_passed() => return Ok(false),
                Ok(0) | Err(Errno::EINTR) => self.client.parked.check(),
                Ok(_) => return Ok(true),
                Err(error) => return Err(error),
            }
        }
    }

    /// Notes that this program runs, and returns when the caller must do so again: by `until` or the
    /// attempt's end at the latest.
    pub(super) fn begin_slice(&self, until: Monotonic) -> Monotonic {
        let length = SLICE.min(self.starved_after / 4);
        let now = self.note_awake();
        (now + length.max(Duration::from_millis(1)))
            .min(until)
            .min(self.end)
    }

    fn note_awake(&self) -> Monotonic {
        let now = Monotonic::now();
        let mut state = self.state();
        state.longest_gap = state.longest_gap.max(now.since(state.awake));
        state.awake = now;
        now
    }

    /// How long this program was kept from running during the attempt, if that was too long.
    pub(super) fn starved(&self) -> Option<Duration> {
        self.note_awake();
        Some(self.state().longest_gap).filter(|gap| *gap > self.starved_after)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::net::TcpListener;

    use super::super::connect::connect;
    use super::super::http::tests::settings;
    use super::super::parked::{ParkedRequest, ParkedRequests, ParkedState};
    use super::*;

    const TIMEOUT: Duration = Duration::from_millis(100);

    fn attempt() -> Attempt {
        let client = settings("http://backend.example").into();
        Attempt::new(&client, Monotonic::now() + TIMEOUT, TIMEOUT)
    }

    #[test]
    fn a_gap_of_half_a_timeout_or_a_second_is_starvation() {
        let client: Arc<Client> = settings("http://backend.example").into();
        for (timeout, gap, starved) in [
            (100, 50, false),
            (100, 51, true),
            (10_000, 1_000, false),
            (10_000, 1_001, true),
        ] {
            let timeout = Duration::from_millis(timeout);
            let attempt = Attempt::new(&client, Monotonic::now() + timeout, timeout);
            attempt.state().longest_gap = Duration::from_millis(gap);
            assert_eq!(attempt.starved().is_some(), starved, "{timeout:?} {gap}");
        }
    }

    #[test]
    fn a_pause_anywhere_in_an_attempt_is_noticed() {
        let attempt = attempt();
        let end = attempt.end;
        std::thread::sleep(TIMEOUT);
        assert!(attempt.wait(&mut [], end).is_ok());
        assert!(attempt.starved() >= Some(TIMEOUT));
    }

    #[test]
    fn a_parked_request_notices_a_byte_and_an_end() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let parked = ParkedRequests::default();
        let began = Monotonic::now();
        let template = |route| ParkedRequest {
            route,
            round: 1,
            first_attempt: true,
            began,
            timed_out: began,
            connection: None,
            reach: Reach::Unconnected,
            state: ParkedState::Waiting,
        };
        let mut servers = Vec::new();
        for route in 0..3 {
            let attempt = attempt();
            let socket = connect(&[listener.local_addr().unwrap()], &attempt).unwrap();
            socket.send(b"GET").unwrap();
            attempt.note_sent();
            drop(socket);
            parked.park(&template(route), attempt.take_sockets());
            servers.push(listener.accept().unwrap().0);
        }
        let states = || -> Vec<ParkedState> {
            let requests = parked.requests().into_iter();
            requests.map(|request| request.state).collect()
        };
        assert_eq!(states(), [ParkedState::Waiting; 3]);
        assert!(
            parked
                .requests()
                .iter()
                .all(|request| request.reach == Reach::Acknowledged)
        );
        servers[0].write_all(b"H").unwrap();
        // Closing with unread data resets the connection.
        drop(servers.pop());
        let until = Monotonic::now() + Duration::from_secs(20);
        while states()
            .iter()
            .filter(|state| **state == ParkedState::Waiting)
            .count()
            > 1
        {
            assert!(!until.has_passed(), "{:?}", states());
        }
        let [first, second, third] = states()[..] else {
            panic!("three requests")
        };
        assert!(matches!(first, ParkedState::Answered(_)), "{first:?}");
        assert_eq!((second, third), (ParkedState::Waiting, ParkedState::Ended));
        parked.close();
        assert!(parked.requests().is_empty());
    }

    #[test]
    fn a_wait_ends_with_the_attempt() {
        let attempt = attempt();
        let (reader, _writer) = std::io::pipe().unwrap();
        let mut fds = [PollFd::new(reader.as_fd(), PollFlags::POLLIN)];
        let later = Monotonic::now() + Duration::from_secs(60);
        assert_eq!(attempt.wait(&mut fds, later), Ok(false));
        assert!(attempt.end.has_passed());
    }
}
