//! The TCP sockets at one port, which the kernel shows (sock_diag(7), "IPv4 and IPv6 sockets").

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use nix::errno::Errno;

use super::netlink::{attributes, bytes_at, read_table, u32_at};
use crate::clock::Monotonic;
use crate::sweep::{Connection, ParkedRequest};

/// The state TCP_LISTEN, as a bit (include/net/tcp_states.h).
pub(crate) const LISTENING: u32 = 1 << 10;
/// All states up to TCP_CLOSING except TCP_TIME_WAIT, which no application holds any more. The kernel walks the table
/// of all connections, which takes milliseconds even if the table is empty.
pub(crate) const HELD: u32 = ((1 << 12) - 1) & !(1 << 6);

// include/uapi/linux/inet_diag.h.
const INET_DIAG_SKV6ONLY: u16 = 11;
const INET_DIAG_CGROUP_ID: u16 = 21;
/// Size of `struct inet_diag_msg`, which the attributes follow.
const INET_DIAG_MSG: usize = 72;
/// Size of `struct inet_diag_sockid` without the ports.
const REST_OF_ID: usize = 44;

/// The state of a TCP socket, as far as it matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TcpState {
    Listen,
    /// A connection that the application on this side has not closed.
    Open,
    /// A connection that it has closed or shut down, or left behind when it died.
    Closed,
    /// Not yet a connection, or no longer one.
    Other,
}

impl TcpState {
    /// The state with this number in include/net/tcp_states.h.
    pub(crate) const fn from_kernel(number: u8) -> Self {
        match number {
            // ESTABLISHED, CLOSE_WAIT
            1 | 8 => Self::Open,
            // FIN_WAIT1, FIN_WAIT2, TIME_WAIT, LAST_ACK, CLOSING
            4 | 5 | 6 | 9 | 11 => Self::Closed,
            10 => Self::Listen,
            _ => Self::Other,
        }
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
        let fin = u32::from(self.state == TcpState::Closed);
        self.send_queue.saturating_sub(fin)
    }

    /// Whether both ends of the connection, or at least this one, are open.
    pub(crate) fn is_open(&self) -> bool {
        self.state == TcpState::Open
    }

    /// Whether a process has accepted this connection. After a side has closed, the inode does not show it.
    pub(crate) const fn accepted(&self) -> bool {
        self.inode != 0
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
    table.iter().find(|socket| {
        matches!(socket.state, TcpState::Open | TcpState::Closed)
            && socket.local == server
            && socket.remote == client
    })
}

/// The server's ends of these requests, of those that have one.
pub(crate) fn server_sides<'a>(
    table: &'a [TcpSocket],
    parked: impl IntoIterator<Item = &'a ParkedRequest>,
) -> impl Iterator<Item = &'a TcpSocket> {
    let connections = parked.into_iter().filter_map(|request| request.connection);
    connections.filter_map(|connection| server_side(table, &connection))
}

/// The listeners in `table` among which the kernel could have chosen for a connection to `address`: those bound to it
/// or, if there are none, to the wildcard address (`compute_score` of the kernel's net/ipv4/inet_hashtables.c).
pub(crate) fn listeners(table: &[TcpSocket], address: SocketAddr) -> Vec<&TcpSocket> {
    let address = reached(address);
    let mut found: Vec<_> = (table.iter())
        .filter(|socket| socket.state == TcpState::Listen)
        .filter(|socket| socket.local.port() == address.port())
        .collect();
    let is_exact = |socket: &&TcpSocket| socket.local.ip() == address.ip();
    if found.iter().any(is_exact) {
        found.retain(is_exact);
    } else {
        found.retain(|socket| {
            let ip = socket.local.ip();
            let same_family = ip.is_ipv4() == address.is_ipv4();
            ip.is_unspecified() && (same_family || address.is_ipv4() && !socket.ipv6_only)
        });
    }
    found
}

/// An IPv4-mapped IPv6 address as IPv4; without scope and flow label.
pub(crate) fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// The address that a connection to `address` reaches: the unspecified one means this machine, ip(7).
pub(crate) fn reached(address: SocketAddr) -> SocketAddr {
    let (address, port) = (canonical(address), address.port());
    match address.ip() {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED) => (Ipv4Addr::LOCALHOST, port).into(),
        IpAddr::V6(Ipv6Addr::UNSPECIFIED) => (Ipv6Addr::LOCALHOST, port).into(),
        _ => address,
    }
}

/// The TCP sockets of both address families in these `states` whose local port is `port`, the listeners of each
/// family first. Errors are those of [`read_table`].
pub(crate) fn sockets_at(
    port: u16,
    states: u32,
    until: Monotonic,
) -> Result<Vec<TcpSocket>, Errno> {
    let read = |family| read_table(&question(family, port, states), until, socket_of);
    let mut sockets = read(libc::AF_INET)?;
    match read(libc::AF_INET6) {
        // A kernel without IPv6.
        Err(Errno::ENOENT) => {}
        more => sockets.extend(more?),
    }
    Ok(sockets)
}

/// A `struct inet_diag_req_v2` for a family, a local port and a set of states.
fn question(family: libc::c_int, port: u16, states: u32) -> Vec<u8> {
    [
        &[family as u8, libc::IPPROTO_TCP as u8, 0, 0][..],
        &states.to_ne_bytes(),
        &port.to_be_bytes(),
        &0_u16.to_be_bytes(),
        &[0; REST_OF_ID],
    ]
    .concat()
}

/// Reads a `struct inet_diag_msg` and its attributes.
pub(crate) fn socket_of(payload: &[u8]) -> Option<TcpSocket> {
    let family = i32::from(*payload.first()?);
    let address = |ip, port| {
        let ip = match family {
            libc::AF_INET => Ipv4Addr::from(bytes_at::<4>(payload, ip)?).into(),
            libc::AF_INET6 => IpAddr::from(Ipv6Addr::from(bytes_at::<16>(payload, ip)?)),
            _ => return None,
        };
        let port = bytes_at(payload, port).map(u16::from_be_bytes)?;
        Some(SocketAddr::new(ip.to_canonical(), port))
    };
    let mut socket = TcpSocket {
        state: TcpState::from_kernel(*payload.get(1)?),
        local: address(8, 4)?,
        remote: address(24, 6)?,
        cookie: u64::from_ne_bytes(bytes_at(payload, 44)?),
        receive_queue: u32_at(payload, 56)?,
        send_queue: u32_at(payload, 60)?,
        inode: u32_at(payload, 68)?,
        group: None,
        ipv6_only: false,
    };
    for (kind, value) in attributes(payload.get(INET_DIAG_MSG..)?) {
        match kind {
            INET_DIAG_CGROUP_ID => socket.group = bytes_at(value, 0).map(u64::from_ne_bytes),
            INET_DIAG_SKV6ONLY => socket.ipv6_only = value.first().is_some_and(|&only| only != 0),
            _ => {}
        }
    }
    Some(socket)
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::AsRawFd;
    use std::time::Duration;

    use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrIn, bind, socket};

    use super::*;
    use crate::recovery::samples::{self, listener, wildcard};

    fn soon() -> Monotonic {
        Monotonic::now() + Duration::from_secs(10)
    }

    fn at(port: u16) -> Vec<TcpSocket> {
        sockets_at(port, HELD, soon()).unwrap()
    }

    /// The socket at `port` that is connected to `remote`, once it is as `wanted`: a busy kernel handles
    /// a packet a moment after the call that sent it, and may report counters while they change.
    #[track_caller]
    fn once(port: u16, remote: SocketAddr, wanted: impl Fn(&TcpSocket) -> bool) -> TcpSocket {
        let end = soon();
        loop {
            let found = at(port);
            let connected = found.iter().find(|socket| socket.remote == remote);
            if let Some(socket) = connected.filter(|socket| wanted(socket)) {
                return *socket;
            }
            assert!(!end.has_passed(), "{found:?}");
            std::thread::yield_now();
        }
    }

    #[test]
    fn sockets_at_shows_a_listener_and_the_states_of_a_connection() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let port = address.port();
        // Other tests may use the port at other addresses.
        let own_listener = || at(port).into_iter().find(|socket| socket.local == address);
        let listening = own_listener().unwrap();
        assert_eq!(listening.state, TcpState::Listen);
        assert_eq!(listening.local, address);
        assert!(!listening.is_open() && !listening.is_full());

        let mut client = TcpStream::connect(address).unwrap();
        client.write_all(b"hello").unwrap();
        let own = client.local_addr().unwrap();
        let waiting = once(port, own, |socket| socket.receive_queue == 5);
        assert_eq!(waiting.state, TcpState::Open);
        assert!(!waiting.accepted());
        assert!(waiting.is_open() && waiting.unacknowledged() == 0);
        assert_eq!(own_listener().unwrap().receive_queue, 1);

        let (mut server, _) = listener.accept().unwrap();
        let served = once(port, own, |socket| socket.accepted());
        assert_eq!(served.cookie, waiting.cookie);
        // More than the client's window holds, so that some of it stays unacknowledged.
        server.set_nonblocking(true).unwrap();
        while server.write(&[0; 65_536]).is_ok() {}
        assert!(once(port, own, |socket| socket.send_queue > 0).unacknowledged() > 0);
    }

    #[test]
    fn sockets_at_leaves_out_a_socket_that_is_only_bound_to_another_port() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let flags = SockFlag::SOCK_CLOEXEC;
        let idle = socket(AddressFamily::Inet, SockType::Stream, flags, None).unwrap();
        bind(idle.as_raw_fd(), &SockaddrIn::new(127, 0, 0, 1, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let found = at(port);
        assert!(
            found.iter().all(|socket| socket.local.port() == port),
            "{found:?}"
        );
    }

    #[test]
    fn sockets_at_sees_ipv4_connections_of_a_dual_stack_listener() {
        let Ok(listener) = TcpListener::bind("[::]:0") else {
            return;
        };
        let port = listener.local_addr().unwrap().port();
        let client = TcpStream::connect(("127.0.0.1", port)).unwrap();
        let own = client.local_addr().unwrap();
        once(port, own, |_| true);
        let found = at(port);
        let listening = found.iter().find(|socket| socket.state == TcpState::Listen);
        assert!(!listening.unwrap().ipv6_only);
    }

    #[test]
    fn a_backlog_of_n_is_full_with_one_more() {
        let listener = nix::sys::socket::socket(
            AddressFamily::Inet,
            SockType::Stream,
            SockFlag::SOCK_CLOEXEC,
            None,
        )
        .unwrap();
        let any: nix::sys::socket::SockaddrIn = "127.0.0.1:0".parse().unwrap();
        nix::sys::socket::bind(listener.as_raw_fd(), &any).unwrap();
        nix::sys::socket::listen(&listener, nix::sys::socket::Backlog::new(1).unwrap()).unwrap();
        let bound: nix::sys::socket::SockaddrIn =
            nix::sys::socket::getsockname(listener.as_raw_fd()).unwrap();
        let connect = || TcpStream::connect(("127.0.0.1", bound.port())).unwrap();
        let listening = || {
            let found = at(bound.port()).into_iter();
            let mut found = found.filter(|socket| socket.state == TcpState::Listen);
            found.next().unwrap()
        };
        // A busy kernel queues a connection a moment after the client's end is connected.
        let queued = |count| {
            let end = soon();
            while listening().receive_queue != count {
                assert!(!end.has_passed(), "{:?}", listening());
            }
        };
        let _first = connect();
        queued(1);
        assert!(!listening().is_full());
        let _second = connect();
        queued(2);
        assert!(listening().is_full());
    }

    fn cookies(table: &[TcpSocket], address: &str) -> Vec<u64> {
        let found = listeners(table, address.parse().unwrap());
        found.iter().map(|socket| socket.cookie).collect()
    }

    #[test]
    fn from_kernel_knows_the_end_that_has_closed() {
        let number = |state| (0..=12).filter(move |number| TcpState::from_kernel(*number) == state);
        let numbers = |state| number(state).collect::<Vec<u8>>();
        assert_eq!(numbers(TcpState::Open), [1, 8]);
        assert_eq!(numbers(TcpState::Closed), [4, 5, 6, 9, 11]);
        assert_eq!(numbers(TcpState::Listen), [10]);
        assert_eq!(numbers(TcpState::Other), [0, 2, 3, 7, 12]);
    }

    #[test]
    fn server_side_is_the_other_end_of_that_very_connection() {
        let ours = samples::parked(50_000).connection.unwrap();
        let found = |socket: TcpSocket| server_side(&[socket], &ours).is_some();
        let row = samples::connection(1, 50_000);
        assert!(found(row));
        assert!(found(samples::in_state(row, TcpState::Closed)));
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
        // The unspecified address means this machine.
        assert_eq!(cookies(&table, "0.0.0.0:80"), [1, 2]);
        assert_eq!(reached("[::]:80".parse().unwrap()).to_string(), "[::1]:80");
        assert_eq!(cookies(&table, "127.0.0.2:80"), [3]);
        assert_eq!(cookies(&table, "[::1]:80"), [4]);
        assert_eq!(cookies(&table, "127.0.0.1:81"), [5]);
        assert_eq!(cookies(&table, "[::1]:81"), [5]);
        assert_eq!(cookies(&table, "127.0.0.1:82"), [] as [u64; 0]);
    }
}
