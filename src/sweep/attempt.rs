//! The state that an attempt shares with the resolver, connectors and transports inside ureq: its end, and
//! what happened on its connections.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use super::client::Client;
use super::connections::{Connection, ProbeConnection};
use super::socket::Socket;
use crate::clock::Monotonic;

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

    /// Records that a byte was received.
    pub(super) fn note_received(&self) {
        self.seen().received_any = true;
    }

    /// Whether the attempt received at least one byte, read or still in the socket: after a pause of this
    /// whole process, the caller may run before the thread that reads.
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

    /// Records that `socket` is connected (to `remote`, if that is an IP address) and will be used instead
    /// of all others.
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
