//! The state that an attempt shares with the resolver, connector and transports inside ureq: its end, its
//! sockets, what arrived on them, and whether this program was kept from running.

use std::io;
use std::net::TcpStream;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, ppoll};
use nix::sys::time::TimeSpec;

use super::client::{Client, Connection};
use super::failure::Failure;
use crate::clock::Monotonic;

/// The longest time between two moments at which an attempt notes that this program runs.
const SLICE: Duration = Duration::from_millis(250);

#[derive(Debug)]
pub(super) struct Attempt {
    pub(super) client: Arc<Client>,
    pub(super) began: Monotonic,
    pub(super) end: Monotonic,
    /// Its route's timeout, of which the deadline may leave only a part.
    timeout: Duration,
    state: Mutex<State>,
}

/// What has happened so far.
#[derive(Debug)]
pub(super) struct State {
    pub(super) received: Received,
    /// The status of the last response head, if one arrived.
    pub(super) status: Option<u16>,
    /// The TCP sockets whose connect is pending.
    pub(super) connecting: Vec<(Arc<TcpStream>, Connection)>,
    /// The socket that is connected, and its two ends; none for a UNIX socket.
    pub(super) connected: Option<(Arc<TcpStream>, Option<Connection>)>,
    /// Whether a request (over TLS: the first message of the handshake) has been written to it.
    pub(super) written: bool,
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

impl Attempt {
    /// An attempt that begins now, for a route with this timeout, and ends by `deadline`.
    pub(super) fn new(client: &Arc<Client>, deadline: Monotonic, timeout: Duration) -> Self {
        let began = Monotonic::now();
        Self {
            client: Arc::clone(client),
            began,
            end: deadline.min(began + timeout),
            timeout,
            state: Mutex::new(State {
                received: Received::Nothing,
                status: None,
                connecting: Vec::new(),
                connected: None,
                written: false,
                awake: began,
                longest_gap: Duration::ZERO,
            }),
        }
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether it has its full timeout, not only the rest of the deadline.
    pub(super) fn is_full(&self) -> bool {
        self.end == self.began + self.timeout
    }

    /// Waits until one of `fds` is ready, `until` has passed or the attempt ends; returns whether one is ready.
    pub(super) fn wait(&self, fds: &mut [PollFd<'_>], until: Monotonic) -> Result<bool, Failure> {
        loop {
            let slice = self.begin_slice(until);
            let ready = ppoll(fds, Some(TimeSpec::from(slice.remaining())), None);
            self.note_awake();
            match ready {
                Ok(0) if until.min(self.end).has_passed() => return Ok(false),
                Ok(0) | Err(Errno::EINTR) => self.client.sweep().check_parked(),
                Ok(_) => return Ok(true),
                Err(error) => return Err(io::Error::from(error).into()),
            }
        }
    }

    /// Notes that this program runs, and returns when the caller must do so again: by `until` or the
    /// attempt's end at the latest.
    pub(super) fn begin_slice(&self, until: Monotonic) -> Monotonic {
        let length = SLICE.min(self.starved_after() / 4);
        let now = self.note_awake();
        (now + length.max(Duration::from_millis(1)))
            .min(until)
            .min(self.end)
    }

    pub(super) fn note_awake(&self) -> Monotonic {
        let now = Monotonic::now();
        let mut state = self.state();
        state.longest_gap = state.longest_gap.max(now.since(state.awake));
        state.awake = now;
        now
    }

    /// This program should have begun the attempt at this time.
    pub(super) fn was_due(&self, due: Monotonic) {
        self.state().awake = due;
    }

    /// How long this program was kept from running, if that was too long: while the attempt was due or under way,
    /// or so that it ended after its timeout. Its timeout then proves nothing.
    pub(super) fn starved(&self) -> Option<Duration> {
        let overran = self.note_awake().since(self.began + self.timeout);
        let longest = self.state().longest_gap.max(overran);
        Some(longest).filter(|gap| *gap > self.starved_after())
    }

    fn starved_after(&self) -> Duration {
        Duration::from_secs(1).min(self.timeout / 2)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::net::TcpListener;
    use std::os::fd::AsFd;

    use nix::poll::PollFlags;

    use super::super::connect::connect;
    use super::super::http::tests::settings;
    use super::super::parked::{ParkedState, Reach};
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
        let client: Arc<Client> = settings("http://backend.example").into();
        let mut servers = Vec::new();
        for route in 0..3 {
            let attempt = Attempt::new(&client, Monotonic::now() + TIMEOUT, TIMEOUT);
            let socket = connect(&[listener.local_addr().unwrap()], &attempt).unwrap();
            (&*socket).write_all(b"GET").unwrap();
            attempt.state().written = true;
            drop(socket);
            attempt.park(route, 1, true);
            servers.push(listener.accept().unwrap().0);
        }
        let requests = || client.sweep().parked_requests();
        let states = || -> Vec<ParkedState> {
            let requests = requests().into_iter();
            requests.map(|request| request.state).collect()
        };
        assert_eq!(states(), [ParkedState::Waiting; 3]);
        assert!(
            requests()
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
        client.begin_sweep();
        assert!(requests().is_empty());
    }

    #[test]
    fn a_wait_ends_with_the_attempt() {
        let attempt = attempt();
        let (reader, _writer) = std::io::pipe().unwrap();
        let mut fds = [PollFd::new(reader.as_fd(), PollFlags::POLLIN)];
        let later = Monotonic::now() + Duration::from_secs(60);
        assert!(!attempt.wait(&mut fds, later).unwrap());
        assert!(attempt.end.has_passed());
    }
}
