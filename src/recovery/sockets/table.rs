//! The TCP sockets at one port: rows that `tcp` reads from the kernel. Pure.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::sweep::{Connection, ParkedRequest};

/// The state of a TCP socket, include/net/tcp_states.h.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TcpState {
    Established,
    FinWait1,
    FinWait2,
    TimeWait,
    CloseWait,
    LastAck,
    Listen,
    Closing,
    /// Not yet a connection, or no longer one.
    Other,
}

impl TcpState {
    pub(crate) const fn from_kernel(number: u8) -> Self {
        match number {
            1 => Self::Established,
            4 => Self::FinWait1,
            5 => Self::FinWait2,
            6 => Self::TimeWait,
            8 => Self::CloseWait,
            9 => Self::LastAck,
            10 => Self::Listen,
            11 => Self::Closing,
            _ => Self::Other,
        }
    }

    /// Whether the application on this side has closed or shut down its end, or died.
    pub(crate) const fn closed_here(self) -> bool {
        matches!(
            self,
            Self::FinWait1 | Self::FinWait2 | Self::TimeWait | Self::Closing | Self::LastAck
        )
    }
}

/// A TCP socket of this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TcpSocket {
    pub(crate) state: TcpState,
    /// Its own address; an IPv4-mapped IPv6 address is given as IPv4.
    pub(crate) local: SocketAddr,
    /// The other end's address.
    pub(crate) remote: SocketAddr,
    /// The kernel's unique number for it, from the handshake to TIME_WAIT.
    pub(crate) cookie: u64,
    /// 0 if no process has a descriptor for it; see [`Self::accepted`].
    pub(crate) inode: u32,
    /// If listening: connections in the accept queue. Otherwise: bytes that the application has not read.
    pub(crate) receive_queue: u32,
    /// If listening: the accept queue's limit. Otherwise: bytes not acknowledged or not sent.
    pub(crate) send_queue: u32,
    /// The control group of the process that created the socket, as its cgroup2 id; an accepted
    /// connection has its listener's. None in TIME_WAIT and FIN_WAIT2.
    pub(crate) group: Option<u64>,
    /// Whether an IPv6 listener does not accept IPv4 connections.
    pub(crate) ipv6_only: bool,
}

impl TcpSocket {
    /// Bytes that the application has written and the other end has not acknowledged.
    pub(crate) fn unacknowledged(&self) -> u32 {
        // A FIN occupies one sequence number.
        let fin = u32::from(self.state.closed_here());
        self.send_queue.saturating_sub(fin)
    }

    /// Whether both ends of the connection, or at least this one, are open.
    pub(crate) const fn is_open(&self) -> bool {
        matches!(self.state, TcpState::Established | TcpState::CloseWait)
    }

    /// Whether it is a connection that waits to be accepted.
    pub(crate) const fn is_waiting(&self) -> bool {
        self.is_open() && self.inode == 0
    }

    /// Whether a process has accepted this connection. After a side has closed, the inode does not show
    /// it.
    pub(crate) const fn accepted(&self) -> bool {
        self.inode != 0
    }

    /// Whether this is a server's end of a connection (or was one).
    pub(crate) const fn is_connection(&self) -> bool {
        !matches!(self.state, TcpState::Listen | TcpState::Other)
    }

    /// Whether it is a listener with more waiting connections than its limit, so that the kernel drops further
    /// ones: a backlog of N holds N+1.
    pub(crate) const fn is_full(&self) -> bool {
        self.receive_queue > self.send_queue
    }
}

/// The server's end of this program's `connection`.
pub(crate) fn server_side<'a>(
    table: &'a [TcpSocket],
    connection: &Connection,
) -> Option<&'a TcpSocket> {
    let (client, server) = (canonical(connection.local), reached(connection.remote));
    let mut connections = table.iter().filter(|socket| socket.is_connection());
    connections.find(|socket| socket.local == server && socket.remote == client)
}

/// The server's ends of these requests, of those that have one.
pub(crate) fn server_sides<'a>(
    table: &'a [TcpSocket],
    parked: impl IntoIterator<Item = &'a ParkedRequest>,
) -> impl Iterator<Item = &'a TcpSocket> {
    let connections = parked.into_iter().filter_map(|request| request.connection);
    connections.filter_map(|connection| server_side(table, &connection))
}

/// The listeners in `table` among which the kernel could have chosen for a connection to `address`: those
/// bound to it or, if there are none, to the wildcard address (`compute_score` of the kernel's
/// net/ipv4/inet_hashtables.c).
pub(crate) fn listeners(table: &[TcpSocket], address: SocketAddr) -> Vec<&TcpSocket> {
    let address = reached(address);
    let at_port = || {
        let listening = table
            .iter()
            .filter(|socket| socket.state == TcpState::Listen);
        listening.filter(|socket| socket.local.port() == address.port())
    };
    let exact: Vec<_> = at_port()
        .filter(|socket| socket.local.ip() == address.ip())
        .collect();
    if !exact.is_empty() {
        return exact;
    }
    at_port()
        .filter(|socket| {
            let wildcard = socket.local.ip();
            wildcard.is_unspecified()
                && (wildcard.is_ipv4() == address.is_ipv4()
                    || address.is_ipv4() && !socket.ipv6_only)
        })
        .collect()
}

/// An IPv4-mapped IPv6 address as IPv4; without scope and flow label.
pub(crate) fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// The address that a connection to `address` reaches: the unspecified one means this machine, ip(7).
pub(crate) fn reached(address: SocketAddr) -> SocketAddr {
    match canonical(address) {
        SocketAddr::V4(any) if any.ip().is_unspecified() => {
            SocketAddr::new(Ipv4Addr::LOCALHOST.into(), any.port())
        }
        SocketAddr::V6(any) if any.ip().is_unspecified() => {
            SocketAddr::new(Ipv6Addr::LOCALHOST.into(), any.port())
        }
        address => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recovery::samples::{self, listener, wildcard};

    fn cookies(table: &[TcpSocket], address: &str) -> Vec<u64> {
        let found = listeners(table, address.parse().unwrap());
        found.iter().map(|socket| socket.cookie).collect()
    }

    #[test]
    fn server_side_is_the_other_end_of_that_very_connection() {
        let ours = samples::parked(50_000).connection.unwrap();
        let found = |socket: TcpSocket| server_side(&[socket], &ours).is_some();
        let row = samples::connection(1, 50_000);
        assert!(found(row));
        assert!(found(samples::in_state(row, TcpState::TimeWait)));
        // SYN_RECV
        assert!(!found(samples::in_state(row, TcpState::Other)));
        assert!(!found(samples::connection(1, 50_001)));
        assert!(!found(TcpSocket {
            local: "127.0.0.2:80".parse().unwrap(),
            ..row
        }));
    }

    #[test]
    fn listeners_prefer_the_exact_address_to_the_wildcard() {
        let mut only = wildcard("[::]:80", 4);
        only.ipv6_only = true;
        let table = [
            listener("127.0.0.1:80", 1),
            listener("127.0.0.1:80", 2),
            wildcard("0.0.0.0:80", 3),
            only,
            wildcard("[::]:81", 5),
        ];
        assert_eq!(cookies(&table, "127.0.0.1:80"), [1, 2]);
        assert_eq!(cookies(&table, "[::ffff:127.0.0.1]:80"), [1, 2]);
        assert_eq!(cookies(&table, "127.0.0.2:80"), [3]);
        assert_eq!(cookies(&table, "[::1]:80"), [4]);
        assert_eq!(cookies(&table, "127.0.0.1:81"), [5]);
        assert_eq!(cookies(&table, "[::1]:81"), [5]);
        assert_eq!(cookies(&table, "127.0.0.1:82"), [] as [u64; 0]);
    }
}
