//! Connects to a UNIX socket and records the listening process. If the accept queue is full, connect(2)
//! returns `EAGAIN` instead of `EINPROGRESS`, and poll(2) then reports the socket as ready at once.

use std::fs;
use std::io;
use std::net::TcpStream;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::sockopt::{PeerCredentials, PeerPidfd};
use nix::sys::socket::{UnixAddr, getsockopt};

use super::attempt::Attempt;
use super::client::UnixPeer;
use super::failure::{Failure, transport_error};
use super::socket;
use crate::cause::TransportError;

/// Opens a connection to the socket at `path` before the attempt ends; `timeout` if the queue was full until then.
pub(super) fn connect(path: &Path, attempt: &Attempt) -> Result<Arc<TcpStream>, Failure> {
    let failure = |error: io::Error| failure(path, &error);
    let address = UnixAddr::new(path).map_err(|error| failure(error.into()))?;
    let socket = socket::open(&address).map_err(failure)?;
    socket.set_nonblocking(false).map_err(failure)?;
    loop {
        // SO_SNDTIMEO may fire an eighth of its time late (the kernel's timer wheel), so the wait for space in the
        // queue is split into steps.
        let step = attempt.begin_slice(attempt.end).remaining().mul_f64(0.85);
        let step = step.max(Duration::from_millis(1));
        socket.set_write_timeout(Some(step)).map_err(failure)?;
        match socket::connect(&socket, &address) {
            Ok(()) => break,
            Err(Errno::EAGAIN | Errno::EINTR) if attempt.end.has_passed() => {
                let path = path.display();
                let doing = format!("connecting to {path}: its accept queue is full");
                return Err(Failure::timeout(doing));
            }
            Err(Errno::EAGAIN | Errno::EINTR) => attempt.client.sweep().check_parked(),
            Err(error) => return Err(failure(error.into())),
        }
    }
    socket.set_nonblocking(true).map_err(failure)?;
    let socket = Arc::new(socket);
    if let Ok(peer) = getsockopt(&socket, PeerCredentials) {
        let pid = u32::try_from(peer.pid()).unwrap_or_default();
        let peers = &mut attempt.client.sweep().unix_peers;
        // The pidfd of the first one shows whether that PID has been reused.
        if peers.iter().all(|known| known.pid != pid) {
            let pidfd = getsockopt(&socket, PeerPidfd).ok().map(Arc::new);
            peers.push(UnixPeer { pid, pidfd });
        }
    }
    attempt.state().connected = Some((Arc::clone(&socket), None));
    Ok(socket)
}

/// The cause for an error of connecting to `path`, and a message with a remedy.
fn failure(path: &Path, error: &io::Error) -> Failure {
    let is_socket = || fs::metadata(path).is_ok_and(|found| found.file_type().is_socket());
    let errno = Errno::from_raw(error.raw_os_error().unwrap_or_default());
    let cause = match errno {
        Errno::ENOENT | Errno::ENOTDIR | Errno::EPROTOTYPE => TransportError::Refused,
        _ => transport_error(error),
    };
    let shown = error.to_string();
    let advice = match errno {
        Errno::ENOENT | Errno::ENOTDIR => {
            "does not exist; start the backend, or correct \"unix_socket\""
        }
        // Also returned for a path that is not a socket (`unix_find_bsd` in net/unix/af_unix.c).
        Errno::ECONNREFUSED if !is_socket() => "is not a socket; correct \"unix_socket\"",
        Errno::ECONNREFUSED => "no process listens there; start the backend",
        Errno::EPROTOTYPE => "is not a stream socket; correct \"unix_socket\"",
        Errno::EACCES | Errno::EPERM => {
            "permission denied; connecting needs write permission on the socket and search permission on its directories"
        }
        _ => &shown,
    };
    Failure::new(cause, format!("{}: {advice}", path.display()))
}

#[cfg(test)]
mod tests;
