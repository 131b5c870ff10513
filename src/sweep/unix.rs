//! Connects to a UNIX socket and records the listening process. If the accept queue is full, connect(2)
//! returns `EAGAIN` instead of `EINPROGRESS`, and poll(2) then reports the socket as ready at once.

use std::fs;
use std::io;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, UnixAddr};

use super::attempt::Attempt;
use super::connections::UnixPeer;
use super::failure::{Failure, transport_error};
use super::socket::Socket;
use crate::cause::TransportError;

/// Opens a connection to the socket at `path` before the attempt ends.
///
/// # Errors
///
/// `timeout` if the queue was full until then; `refused` if no process listens there; `network` for any
/// other error.
pub(super) fn connect(path: &Path, attempt: &Attempt) -> Result<Arc<Socket>, Failure> {
    let failure = |error| failure(path, error);
    let address = UnixAddr::new(path).map_err(failure)?;
    let socket = Arc::new(Socket::new(AddressFamily::Unix).map_err(failure)?);
    match socket.connect(&address) {
        Ok(()) => {}
        Err(Errno::EAGAIN) => {
            if !wait_in_queue(&socket, &address, attempt).map_err(failure)? {
                return Err(Failure::timeout(format!(
                    "connecting to {}: its accept queue is full",
                    path.display()
                )));
            }
        }
        Err(error) => return Err(failure(error)),
    }
    if let Some(peer) = peer(&socket) {
        attempt.client.log.record_peer(peer);
    }
    attempt.connected_unix(&socket);
    Ok(socket)
}

/// Waits for space in the accept queue until the attempt ends; returns whether there was any.
fn wait_in_queue(socket: &Socket, address: &UnixAddr, attempt: &Attempt) -> Result<bool, Errno> {
    socket.set_blocking(true)?;
    while !attempt.end.has_passed() {
        // SO_SNDTIMEO may fire an eighth of its time late (the kernel's timer wheel), so the wait is split
        // into steps.
        let step = attempt.begin_slice(attempt.end).remaining().mul_f64(0.85);
        socket.set_send_timeout(step.max(Duration::from_millis(1)))?;
        match socket.connect(address) {
            Ok(()) => {
                socket.set_blocking(false)?;
                return Ok(true);
            }
            Err(Errno::EAGAIN | Errno::EINTR) => attempt.client.parked.check(),
            Err(error) => return Err(error),
        }
    }
    Ok(false)
}

fn peer(socket: &Socket) -> Option<UnixPeer> {
    let pid = socket.peer_pid().ok()?;
    Some(UnixPeer {
        pid: u32::try_from(pid).unwrap_or_default(),
        pidfd: socket.peer_pidfd().ok().map(Arc::new),
    })
}

/// The cause for an error of connecting to `path`, and a message with a remedy.
fn failure(path: &Path, error: Errno) -> Failure {
    let is_socket = || fs::metadata(path).is_ok_and(|found| found.file_type().is_socket());
    let (meaning, advice) = match error {
        Errno::ENOENT | Errno::ENOTDIR => (
            TransportError::Refused,
            "does not exist; start the backend, or correct \"unix_socket\"",
        ),
        // Also returned for a path that is not a socket (`unix_find_bsd` in net/unix/af_unix.c).
        Errno::ECONNREFUSED if !is_socket() => (
            TransportError::Refused,
            "is not a socket; correct \"unix_socket\"",
        ),
        Errno::ECONNREFUSED => (
            TransportError::Refused,
            "no process listens there; start the backend",
        ),
        Errno::EPROTOTYPE => (
            TransportError::Refused,
            "is not a stream socket; correct \"unix_socket\"",
        ),
        Errno::EACCES | Errno::EPERM => (
            TransportError::Network,
            "permission denied; connecting needs write permission on the socket and search permission \
             on its directories",
        ),
        error => {
            let detail = format!("{}: {}", path.display(), io::Error::from(error));
            return Failure::new(transport_error(error), detail);
        }
    };
    Failure::new(meaning, format!("{}: {advice}", path.display()))
}

#[cfg(test)]
mod tests;
