//! The connections of a run, recorded for recovery.

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

/// A connection of a running attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProbeConnection {
    /// Its two ends.
    pub connection: Connection,
    /// Whether it is established; otherwise the connect is pending.
    pub established: bool,
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

/// The connections of a run, recorded for recovery.
#[derive(Debug, Default)]
pub(super) struct ConnectionLog(Mutex<LogState>);

#[derive(Debug, Default)]
pub(super) struct LogState {
    /// Every TCP connection of the run. There are some 28,000 local ports for one remote address
    /// (`ip_local_port_range`, ip(7)), which bounds their number.
    pub(super) tcp: BTreeSet<Connection>,
    /// The peers of the current sweep's connections to the UNIX socket, each once.
    pub(super) unix_peers: Vec<UnixPeer>,
}

impl ConnectionLog {
    /// Records the peer of a connection to the UNIX socket.
    pub(super) fn note_peer(&self, peer: UnixPeer) {
        let peers = &mut self.lock().unix_peers;
        // The pidfd of the first one shows whether that PID has been reused.
        if peers.iter().all(|known| known.pid != peer.pid) {
            peers.push(peer);
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, LogState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
