//! The state that one attempt shares with the resolver, connectors and transports inside ureq: its end,
//! and what was observed on its connections. Failures are returned in ureq's own errors.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nix::errno::Errno;

use super::buffers::Buffers;
use super::socket::Socket;
use super::unix::UnixPeer;
use crate::clock::Monotonic;
use crate::verdict::TransportError;

/// Why an attempt brought no complete response.
#[derive(Clone, Debug)]
pub(super) struct Failure {
    pub(super) error: TransportError,
    /// Whether the attempt's end cut it short, rather than the other side.
    pub(super) at_end: bool,
    /// What the system or the library says.
    pub(super) detail: String,
}

impl Failure {
    /// The other side, or the way to it, failed.
    pub(super) fn new(error: TransportError, detail: impl Into<String>) -> Self {
        Self {
            error,
            at_end: false,
            detail: detail.into(),
        }
    }

    /// The attempt's end came while it was `doing` something.
    pub(super) fn timeout(doing: impl Into<String>) -> Self {
        Self {
            error: TransportError::Timeout,
            at_end: true,
            detail: doing.into(),
        }
    }

    /// A system call on a connection failed.
    pub(super) fn of_socket(error: Errno) -> Self {
        Self::new(transport_error(error), io::Error::from(error).to_string())
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.detail)
    }
}

impl std::error::Error for Failure {}

/// Of a kind that ureq passes on untouched; a `ConnectionReset` it would take for a body's normal
/// end.
impl From<Failure> for ureq::Error {
    fn from(failure: Failure) -> Self {
        Self::Io(io::Error::other(failure))
    }
}

/// The cause for an error of a socket.
pub(super) fn transport_error(error: Errno) -> TransportError {
    match error {
        Errno::ECONNREFUSED => TransportError::Refused,
        Errno::ECONNRESET | Errno::ECONNABORTED | Errno::EPIPE => TransportError::Reset,
        _ => TransportError::Network,
    }
}

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
pub(super) struct ConnectionLog {
    /// The TCP connections of the run; see [`ConnectionLog::note`].
    tcp: Mutex<Vec<Connection>>,
    unix: Mutex<UnixLog>,
}

/// The peers at the UNIX socket in the current sweep.
#[derive(Debug, Default)]
struct UnixLog {
    /// The peers of all connections, each once.
    peers: Vec<UnixPeer>,
    /// Whether an attempt ended because the accept queue was full.
    queue_was_full: bool,
}

impl ConnectionLog {
    /// Begins another sweep.
    pub(super) fn begin_sweep(&self) {
        *self.unix() = UnixLog::default();
    }

    /// Adds a TCP connection. The system has some 28,000 local ports for one remote address
    /// (`ip_local_port_range`, ip(7)), so without repetitions there are not many, however long the run.
    fn note(&self, connection: Connection) {
        const FEW: usize = 4096;
        let mut all = self.tcp();
        if all.len() == all.capacity() && all.len() >= FEW {
            all.sort_unstable();
            all.dedup();
            let more = all.len();
            all.reserve(more);
        }
        all.push(connection);
    }

    /// Every TCP connection of the run, each once, in order.
    pub(super) fn connections(&self) -> Vec<Connection> {
        let mut all = self.tcp().clone();
        all.sort_unstable();
        all.dedup();
        all
    }

    /// The peers of all connections of the present sweep to the UNIX socket.
    pub(super) fn unix_peers(&self) -> Vec<UnixPeer> {
        self.unix().peers.clone()
    }

    /// Whether an attempt of the present sweep ended because the UNIX socket's queue was full.
    pub(super) fn unix_queue_was_full(&self) -> bool {
        self.unix().queue_was_full
    }

    fn tcp(&self) -> MutexGuard<'_, Vec<Connection>> {
        self.tcp.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn unix(&self) -> MutexGuard<'_, UnixLog> {
        self.unix.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The state of the current attempt.
#[derive(Debug)]
pub(super) struct Attempt {
    state: Mutex<State>,
    /// Where connections are recorded, if they are.
    log: Option<Arc<ConnectionLog>>,
}

#[derive(Debug)]
struct State {
    end: Monotonic,
    longest_line: usize,
    received_any: bool,
    tunnelled: bool,
    /// The connections that are pending or established; only where they are recorded.
    live: Vec<ProbeConnection>,
    peek: PeekHandle,
    /// The buffers of the previous connection, to avoid clearing new memory for each one.
    spare: Buffers,
}

/// A second descriptor of the connection, to check for bytes that have not been read yet. Created only on
/// request, because it keeps the connection open.
#[derive(Debug, Default)]
enum PeekHandle {
    #[default]
    Unwanted,
    Wanted,
    Open(Socket),
}

impl Attempt {
    /// The state before the first attempt.
    pub(super) fn new(log: Option<Arc<ConnectionLog>>) -> Self {
        let state = Mutex::new(State {
            end: Monotonic::from_micros(0),
            longest_line: 0,
            received_any: false,
            tunnelled: false,
            live: Vec::new(),
            peek: PeekHandle::Unwanted,
            spare: Buffers::default(),
        });
        Self { state, log }
    }

    /// Begins an attempt that ends at `end` and whose requests have no line of more than
    /// `longest_line` bytes.
    pub(super) fn begin(&self, end: Monotonic, longest_line: usize) {
        let mut state = self.state();
        state.end = end;
        state.longest_line = longest_line;
        state.received_any = false;
        state.tunnelled = false;
        state.live.clear();
        if let PeekHandle::Open(_) = state.peek {
            state.peek = PeekHandle::Wanted;
        }
    }

    /// Continues with another connection, for an address of `bytes`.
    pub(super) fn follow(&self, bytes: usize) {
        let mut state = self.state();
        state.longest_line = state.longest_line.max(bytes);
        state.tunnelled = false;
        state.live.clear();
    }

    /// When the attempt ends.
    pub(super) fn end(&self) -> Monotonic {
        self.state().end
    }

    /// The bytes of the longest line that the attempt sends.
    pub(super) fn longest_line(&self) -> usize {
        self.state().longest_line
    }

    /// Makes [`Attempt::received_any`] also check for unread bytes in the socket.
    pub(super) fn peek(&self) {
        self.state().peek = PeekHandle::Wanted;
    }

    /// Records that a byte has come back.
    pub(super) fn note_received(&self) {
        self.state().received_any = true;
    }

    /// Whether a single byte came back during the attempt.
    pub(super) fn received_any(&self) -> bool {
        let state = self.state();
        state.received_any
            || matches!(&state.peek, PeekHandle::Open(socket) if socket.has_unread_byte())
    }

    /// Records that the present connection is a tunnel through a proxy.
    pub(super) fn enter_tunnel(&self) {
        self.state().tunnelled = true;
    }

    /// Whether the present connection is a tunnel through a proxy.
    pub(super) fn tunnelled(&self) -> bool {
        self.state().tunnelled
    }

    /// The connections that are established or still pending, where they are recorded.
    pub(super) fn connections(&self) -> Vec<ProbeConnection> {
        self.state().live.clone()
    }

    /// Records that `socket` has begun to connect to `remote`.
    pub(super) fn connecting(&self, socket: &Socket, remote: SocketAddr) {
        let Some(log) = &self.log else { return };
        let Some(local) = socket.local_address() else {
            return;
        };
        let connection = Connection { local, remote };
        log.note(connection);
        self.state().live.push(ProbeConnection {
            connection,
            established: false,
        });
    }

    /// Records that the connect to `remote` has failed.
    pub(super) fn failed(&self, remote: SocketAddr) {
        let mut state = self.state();
        state.live.retain(|live| live.connection.remote != remote);
    }

    /// Records that `socket` is connected to `remote`, if that is an IP address, and is used from
    /// now on instead of all others.
    pub(super) fn connected(&self, socket: &Socket, remote: Option<SocketAddr>) {
        let mut state = self.state();
        state
            .live
            .retain(|live| Some(live.connection.remote) == remote);
        for live in &mut state.live {
            live.established = true;
        }
        if let (PeekHandle::Wanted, Some(second)) = (&state.peek, socket.duplicate()) {
            state.peek = PeekHandle::Open(second);
        }
    }

    /// Records the peer of a connection to a UNIX socket, if anything is recorded.
    pub(super) fn note_peer(&self, peer: impl FnOnce() -> Option<UnixPeer>) {
        let Some(log) = &self.log else { return };
        let Some(peer) = peer() else { return };
        let peers = &mut log.unix().peers;
        // The pidfd of the first one shows whether that PID has been reused.
        if peers.iter().all(|known| known.pid != peer.pid) {
            peers.push(peer);
        }
    }

    /// Records that the attempt ended because the UNIX socket's queue was full.
    pub(super) fn queue_was_full(&self) {
        if let Some(log) = &self.log {
            log.unix().queue_was_full = true;
        }
    }

    /// Buffers for a new connection.
    pub(super) fn take_buffers(&self) -> Buffers {
        let mut state = self.state();
        let longest_line = state.longest_line;
        std::mem::take(&mut state.spare).prepare(longest_line)
    }

    /// Keeps the buffers of a connection that has ended for the next one.
    pub(super) fn return_buffers(&self, buffers: Buffers) {
        self.state().spare = buffers;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[test]
    fn a_log_holds_each_connection_once_however_often_it_was_made() {
        let log = ConnectionLog::default();
        let at = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        for _ in 0..20 {
            for port in (1..=3000).rev() {
                log.note(Connection {
                    local: at(port),
                    remote: at(8000),
                });
            }
        }
        let ports: Vec<u16> = log
            .connections()
            .iter()
            .map(|one| one.local.port())
            .collect();
        assert_eq!(ports, (1..=3000).collect::<Vec<_>>());
        assert!(log.tcp().capacity() <= 16_384, "{}", log.tcp().capacity());
    }
}
