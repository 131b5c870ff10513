//! Connects to one of several addresses (RFC 8305, section 5): in order, each 250 ms after the previous one
//! or as soon as one fails, while earlier connects stay pending. All share the attempt's time.

use std::collections::VecDeque;
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags};
use nix::sys::socket::SockaddrStorage;

use super::attempt::Attempt;
use super::client::Connection;
use super::failure::{Failure, transport_error};
use super::socket;
use crate::cause::TransportError;
use crate::clock::Monotonic;

/// The "Connection Attempt Delay" (RFC 8305, section 5).
const DELAY: Duration = Duration::from_millis(250);

/// Opens a connection to the first of `addresses` that accepts one before the attempt ends. Fails with `timeout` if a
/// connect was still pending at the end, otherwise with the last failure.
pub(super) fn connect(
    addresses: &[SocketAddr],
    attempt: &Attempt,
) -> Result<Arc<TcpStream>, Failure> {
    let mut waiting: VecDeque<SocketAddr> = addresses.iter().copied().collect();
    let mut failure = Failure::new(TransportError::Network, "no address to connect to");
    let failed = |address, error: &io::Error| {
        Failure::new(transport_error(error), format!("{address}: {error}"))
    };
    loop {
        match waiting.pop_front() {
            Some(address) => {
                if let Err(error) = begin(address, attempt) {
                    failure = failed(address, &error);
                    continue;
                }
            }
            None if attempt.state().connecting.is_empty() => return Err(failure),
            None => {}
        }
        let until = if waiting.is_empty() {
            attempt.end
        } else {
            attempt.end.min(Monotonic::now() + DELAY)
        };
        match take_ready(attempt, until)? {
            Some((socket, connection)) => match socket.take_error().unwrap_or_else(Some) {
                None => {
                    let mut state = attempt.state();
                    state.connecting.clear();
                    state.connected = Some((Arc::clone(&socket), Some(connection)));
                    return Ok(socket);
                }
                // The kernel stopped retransmitting before the attempt's end.
                Some(error) if error.kind() == io::ErrorKind::TimedOut => {
                    waiting.push_front(connection.remote);
                }
                Some(error) => failure = failed(connection.remote, &error),
            },
            None if attempt.end.has_passed() => {
                let pending = &attempt.state().connecting;
                let to = pending.iter().map(|(_, at)| at.remote.to_string());
                let to = to.collect::<Vec<_>>().join(" and ");
                return Err(Failure::timeout(format!("connecting to {to}")));
            }
            None => {}
        }
    }
}

fn begin(address: SocketAddr, attempt: &Attempt) -> io::Result<()> {
    let remote = SockaddrStorage::from(address);
    let socket = socket::open(&remote)?;
    match socket::connect(&socket, &remote) {
        // After an interruption, the connection is still being established (connect(2)).
        Ok(()) | Err(Errno::EINPROGRESS | Errno::EINTR) => {}
        Err(error) => return Err(error.into()),
    }
    let connection = Connection {
        local: socket.local_addr()?,
        remote: address,
    };
    attempt.client.sweep().remotes.insert(address);
    (attempt.state().connecting).push((Arc::new(socket), connection));
    Ok(())
}

/// Waits until a pending connect succeeds or fails, and takes it out of the attempt; none if `until` passes first.
fn take_ready(
    attempt: &Attempt,
    until: Monotonic,
) -> Result<Option<(Arc<TcpStream>, Connection)>, Failure> {
    let pending = attempt.state().connecting.clone();
    let mut fds: Vec<PollFd> = (pending.iter())
        .map(|(socket, _)| PollFd::new(socket.as_fd(), PollFlags::POLLOUT))
        .collect();
    if !attempt.wait(&mut fds, until)? {
        return Ok(None);
    }
    let ready = fds.iter().position(|fd| fd.any().unwrap_or(true));
    let ready = ready.unwrap_or_default();
    Ok(Some(attempt.state().connecting.remove(ready)))
}

#[cfg(test)]
pub(super) mod tests;
