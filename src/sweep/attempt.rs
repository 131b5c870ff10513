//! What an attempt shares with the resolver, connectors and transports inside ureq: its end, and what was
//! observed on its connections.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use super::http::Client;
use super::socket::Socket;
use super::unix::UnixPeer;
use crate::clock::Monotonic;

/// One TCP connection that this run made or tried to make.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Connection {
    /// This program's end.
    pub local: SocketAddr,
    /// The other end.
    pub remote: SocketAddr,
}

/// A connection of an attempt that is under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProbeConnection {
    /// Its two ends.
    pub connection: Connection,
    /// Whether it is established; else the connect is still pending.
    pub established: bool,
}

/// The connections of a run, recorded for recovery.
#[derive(Debug, Default)]
pub(super) struct ConnectionLog(Mutex<LogState>);

#[derive(Debug, Default)]
pub(super) struct LogState {
    /// Every TCP connection of the run. The system has some 28,000 local ports for one remote address
    /// (`ip_local_port_range`, ip(7)), so there are not many, however long the run.
    pub(super) tcp: BTreeSet<Connection>,
    /// The peers of the present sweep's connections to the UNIX socket, each once.
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

/// One attempt.
#[derive(Debug)]
pub(super) struct Attempt {
    pub(super) client: Arc<Client>,
    /// When it ends.
    pub(super) end: Monotonic,
    seen: Mutex<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    received_any: bool,
    /// The connections that are pending or established.
    live: Vec<ProbeConnection>,
    /// The last one that was established, while it is open.
    socket: Weak<Socket>,
}

impl Attempt {
    /// An attempt that ends at `end`.
    pub(super) fn new(client: &Arc<Client>, end: Monotonic) -> Self {
        Self {
            client: Arc::clone(client),
            end,
            seen: Mutex::default(),
        }
    }

    /// Records that a byte has come back.
    pub(super) fn note_received(&self) {
        self.seen().received_any = true;
    }

    /// Whether a single byte came back during the attempt, read or still in the socket: after a pause of
    /// this whole process, the caller may be faster than the thread that reads.
    pub(super) fn received_any(&self) -> bool {
        let seen = self.seen();
        seen.received_any
            || seen
                .socket
                .upgrade()
                .is_some_and(|socket| socket.has_unread_byte())
    }

    /// The connections that are established or still pending.
    pub(super) fn connections(&self) -> Vec<ProbeConnection> {
        self.seen().live.clone()
    }

    /// Records that `socket` has begun to connect to `remote`.
    pub(super) fn connecting(&self, socket: &Socket, remote: SocketAddr) {
        let Some(local) = socket.local_address() else {
            return;
        };
        let connection = Connection { local, remote };
        self.client.log.lock().tcp.insert(connection);
        self.seen().live.push(ProbeConnection {
            connection,
            established: false,
        });
    }

    /// Records that the connect to `remote` has failed.
    pub(super) fn failed(&self, remote: SocketAddr) {
        let mut seen = self.seen();
        seen.live.retain(|live| live.connection.remote != remote);
    }

    /// Records that `socket` is connected to `remote`, if that is an IP address, and is used from
    /// now on instead of all others.
    pub(super) fn connected(&self, socket: Socket, remote: Option<SocketAddr>) -> Arc<Socket> {
        let socket = Arc::new(socket);
        let mut seen = self.seen();
        seen.live
            .retain(|live| Some(live.connection.remote) == remote);
        for live in &mut seen.live {
            live.established = true;
        }
        seen.socket = Arc::downgrade(&socket);
        socket
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
