//! The connections of a sweep, recorded for recovery.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// One TCP connection that this run made or tried to make.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Connection {
    /// This program's end.
    pub local: SocketAddr,
    /// The other end.
    pub remote: SocketAddr,
}

/// The process at the other end of connections to a UNIX socket: the one that called listen(2) last
/// (`SO_PEERCRED`, unix(7)).
#[derive(Clone, Debug)]
pub struct UnixPeer {
    /// Its PID; 0 if it is in a PID namespace that is not visible from here.
    pub pid: u32,
    /// A pidfd of that process, if the kernel provides one (`SO_PEERPIDFD`, Linux 6.5).
    pub pidfd: Option<Arc<OwnedFd>>,
}

/// The other ends of a sweep's connections.
#[derive(Debug, Default)]
pub(super) struct ConnectionLog(Mutex<LogState>);

#[derive(Debug, Default)]
pub(super) struct LogState {
    /// The addresses to which connections were made, or tried.
    pub(super) remotes: BTreeSet<SocketAddr>,
    /// The peers of the connections to the UNIX socket, each once.
    pub(super) unix_peers: Vec<UnixPeer>,
}

impl ConnectionLog {
    /// Records the peer of a connection to the UNIX socket.
    pub(super) fn record_peer(&self, peer: UnixPeer) {
        let peers = &mut self.lock().unix_peers;
        // The pidfd of the first one shows whether that PID has been reused.
        if peers.iter().all(|known| known.pid != peer.pid) {
            peers.push(peer);
        }
    }

    /// Forgets everything.
    pub(super) fn clear(&self) {
        *self.lock() = LogState::default();
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, LogState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
