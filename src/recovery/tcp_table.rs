//! The TCP sockets at one port: facts that `tcp_diag` reads from the kernel and the guards judge.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::sweep::Connection;

/// The state of a TCP socket, include/net/tcp_states.h.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TcpState {
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
    pub(super) const fn from_kernel(number: u8) -> Self {
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
    pub(super) const fn closed_here(self) -> bool {
        matches!(
            self,
            Self::FinWait1 | Self::FinWait2 | Self::TimeWait | Self::Closing | Self::LastAck
        )
    }
}

/// A TCP socket of this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TcpSocket {
    pub(super) state: TcpState,
    /// Its own address; an IPv4-mapped IPv6 address is given as IPv4.
    pub(super) local: SocketAddr,
    /// The other end's address.
    pub(super) remote: SocketAddr,
    /// The kernel's unique number for it, from the handshake to TIME_WAIT.
    pub(super) cookie: u64,
    /// 0 if no process has a descriptor for it; see [`Self::accepted`].
    pub(super) inode: u32,
    /// If listening: connections in the accept queue. Otherwise: bytes that the application has not read.
    pub(super) receive_queue: u32,
    /// If listening: the accept queue's limit. Otherwise: bytes not acknowledged or not sent.
    pub(super) send_queue: u32,
    /// The control group of the process that created the socket, as its cgroup2 id; an accepted
    /// connection has its listener's. None in TIME_WAIT and FIN_WAIT2.
    pub(super) group: Option<u64>,
    /// Whether an IPv6 listener does not accept IPv4 connections.
    pub(super) ipv6_only: bool,
    /// Bytes acknowledged by the other end and bytes received from it, if the kernel counts them.
    pub(super) traffic: Option<Traffic>,
}

/// From `struct tcp_info`, tcp(7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Traffic {
    pub(super) acknowledged: u64,
    pub(super) received: u64,
}

impl TcpSocket {
    /// Bytes that the application has written so far. A read may be too high for a moment while a
    /// send buffer drains (the kernel reads the two numbers one after the other), never too low.
    pub(super) fn written(&self) -> Option<u64> {
        let traffic = self.traffic?;
        // A FIN occupies one sequence number.
        let fin = u64::from(self.state.closed_here());
        let sum = traffic
            .acknowledged
            .saturating_add(u64::from(self.send_queue));
        Some(sum.saturating_sub(fin))
    }

    /// Whether a process has accepted this connection. After a side has closed, the inode does not show
    /// it.
    pub(super) const fn accepted(&self) -> bool {
        self.inode != 0
    }

    /// Whether this is a server's end of a connection (or was one).
    pub(super) const fn is_connection(&self) -> bool {
        !matches!(self.state, TcpState::Listen | TcpState::Other)
    }

    /// A client's end as the server's, if the client is local: the kernel gives such a client the server's own
    /// address, or one of the loopback network.
    pub(super) fn seen_from_the_server(self) -> Option<Self> {
        let here = self.local.ip() == self.remote.ip() || self.remote.ip().is_loopback();
        here.then_some(Self {
            local: self.remote,
            remote: self.local,
            ..self
        })
    }

    /// Whether it is a listener with more waiting connections than its limit, so that the kernel drops further
    /// ones: a backlog of N holds N+1.
    pub(super) const fn is_full(&self) -> bool {
        self.receive_queue > self.send_queue
    }
}

/// The server's end of this program's `connection`.
pub(super) fn server_side<'a>(
    table: &'a [TcpSocket],
    connection: &Connection,
) -> Option<&'a TcpSocket> {
    let (client, server) = (canonical(connection.local), reached(connection.remote));
    let mut connections = table.iter().filter(|socket| socket.is_connection());
    connections.find(|socket| socket.local == server && socket.remote == client)
}

/// The listeners in `table` among which the kernel could have chosen for a connection to `address`: those
/// bound to it or, if there are none, to the wildcard address (`compute_score` of the kernel's
/// net/ipv4/inet_hashtables.c).
pub(super) fn listeners(table: &[TcpSocket], address: SocketAddr) -> Vec<&TcpSocket> {
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
pub(super) fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// The address that a connection to `address` reaches: the unspecified one means this machine, ip(7).
fn reached(address: SocketAddr) -> SocketAddr {
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
        let [asked] = &samples::probe(true).connections[..] else {
            panic!("one connection");
        };
        let found = |socket: TcpSocket| server_side(&[socket], &asked.connection).is_some();
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

    #[test]
    fn a_client_of_another_machine_is_not_seen_from_the_server() {
        let seen = |local: &str, remote: &str| {
            let socket = TcpSocket {
                local: local.parse().unwrap(),
                remote: remote.parse().unwrap(),
                ..listener("127.0.0.1:1", 1)
            };
            socket.seen_from_the_server().is_some()
        };
        assert!(seen("127.0.0.1:50000", "127.0.0.1:80"));
        assert!(seen("192.0.2.1:50000", "192.0.2.1:80"));
        assert!(seen("127.0.0.1:50000", "127.0.0.2:80"));
        assert!(!seen("192.0.2.1:50000", "192.0.2.2:80"));
    }
}
