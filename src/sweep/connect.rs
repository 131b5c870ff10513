//! Connects to one of several addresses (RFC 8305, section 5): in order, each 250 ms after the previous one
//! or as soon as one fails, while earlier connects stay pending. All share the attempt's time.

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags};
use nix::sys::socket::{AddressFamily, SockaddrStorage};

use super::attempt::Attempt;
use super::failure::{Failure, transport_error};
use super::socket::Socket;
use crate::cause::TransportError;
use crate::clock::Monotonic;

/// The "Connection Attempt Delay" (RFC 8305, section 5).
const DELAY: Duration = Duration::from_millis(250);

/// Opens a connection to the first of `addresses` that accepts one before the attempt ends.
///
/// # Errors
///
/// `timeout` if a connect was still pending at the end, otherwise the last failure.
pub(super) fn connect(addresses: &[SocketAddr], attempt: &Attempt) -> Result<Arc<Socket>, Failure> {
    let mut race = Race {
        attempt,
        pending: Vec::new(),
        failure: Failure::new(TransportError::Network, "no address to connect to"),
    };
    let end = attempt.end;
    for (index, &address) in addresses.iter().enumerate() {
        race.start(address);
        let last = index + 1 == addresses.len();
        let next = match last {
            true => end,
            false => end.min(Monotonic::now() + DELAY),
        };
        if let Some(socket) = race.wait(next, last)? {
            return Ok(socket);
        }
        if end.has_passed() {
            break;
        }
    }
    Err(race.failure())
}

/// Connects that run in parallel.
struct Race<'a> {
    attempt: &'a Attempt,
    pending: Vec<(Arc<Socket>, SocketAddr)>,
    /// The last failure.
    failure: Failure,
}

impl Race<'_> {
    /// Begins to connect to `address`.
    fn start(&mut self, address: SocketAddr) {
        let family = match address {
            SocketAddr::V4(_) => AddressFamily::Inet,
            SocketAddr::V6(_) => AddressFamily::Inet6,
        };
        let begun = Socket::new(family).and_then(|socket| {
            match socket.connect(&SockaddrStorage::from(address)) {
                // After an interruption, the connection is still being established (connect(2)).
                Ok(()) | Err(Errno::EINPROGRESS | Errno::EINTR) => Ok(socket),
                Err(error) => Err(error),
            }
        });
        match begun {
            Ok(socket) => {
                let socket = Arc::new(socket);
                self.attempt.connecting(&socket, address);
                self.pending.push((socket, address));
            }
            Err(error) => self.record_failure(address, error),
        }
    }

    /// Waits until a connect succeeds, `until` has passed, no connect is pending any more or, unless
    /// these are the `last` ones, one fails.
    fn wait(&mut self, until: Monotonic, last: bool) -> Result<Option<Arc<Socket>>, Failure> {
        while !self.pending.is_empty() {
            let mut fds: Vec<PollFd> = self
                .pending
                .iter()
                .map(|(socket, _)| PollFd::new(socket.as_fd(), PollFlags::POLLOUT))
                .collect();
            if !self
                .attempt
                .wait(&mut fds, until)
                .map_err(Failure::of_socket)?
            {
                return Ok(None);
            }
            let ready = fds.iter().position(|fd| fd.any().unwrap_or(true));
            let (socket, address) = self.pending.remove(ready.unwrap_or_default());
            match socket.take_error() {
                Ok(()) => {
                    self.attempt.connected(&socket);
                    return Ok(Some(socket));
                }
                // The kernel stopped retransmitting before the attempt's end.
                Err(Errno::ETIMEDOUT) => {
                    self.attempt.failed(&socket);
                    self.start(address);
                }
                Err(error) => {
                    self.attempt.failed(&socket);
                    self.record_failure(address, error);
                    if !last {
                        return Ok(None);
                    }
                }
            }
        }
        Ok(None)
    }

    fn record_failure(&mut self, address: SocketAddr, error: Errno) {
        let detail = format!("{address}: {}", io::Error::from(error));
        self.failure = Failure::new(transport_error(error), detail);
    }

    /// Why there is no connection.
    fn failure(self) -> Failure {
        if self.pending.is_empty() {
            return self.failure;
        }
        let addresses: Vec<String> = self.pending.iter().map(|(_, to)| to.to_string()).collect();
        Failure::timeout(format!("connecting to {}", addresses.join(" and ")))
    }
}

#[cfg(test)]
pub(super) mod tests;
