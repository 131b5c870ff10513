//! The TCP sockets at one port, as the kernel shows them (sock_diag(7), "IPv4 and IPv6 sockets"). It
//! reports facts; what they prove is judged in `proofs`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use nix::errno::Errno;

use super::sock_diag::{Fault, SockDiag, attributes, bytes, u32_at, u64_at};
use crate::clock::Monotonic;

/// Sockets kept of one dump. More than this on one port is beyond any accept queue.
const SOCKETS_MAX: usize = 200_000;

// include/uapi/linux/inet_diag.h.
const INET_DIAG_INFO: u16 = 2;
const INET_DIAG_SKV6ONLY: u16 = 11;
const INET_DIAG_CGROUP_ID: u16 = 21;
/// TCP_LISTEN of include/net/tcp_states.h, as a bit.
const LISTEN: u32 = 1 << 10;
/// TCP_TIME_WAIT, likewise.
const TIME_WAIT: u32 = 1 << 6;
/// All states but TCP_BOUND_INACTIVE of Linux 6.8, whose sockets the kernel shows whatever their port.
const EVERY_STATE: u32 = (1 << 13) - 1;
/// Size of `struct inet_diag_msg`, which the attributes follow.
const INET_DIAG_MSG: usize = 72;
/// Size of `struct inet_diag_sockid` without the ports.
const REST_OF_ID: usize = 44;

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
    const fn from_kernel(number: u8) -> Self {
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
    /// The other end's.
    pub(super) remote: SocketAddr,
    /// The kernel's own number for it, from the handshake to TIME_WAIT.
    pub(super) cookie: u64,
    /// 0 where no process has a descriptor for it; see [`Self::accepted`].
    pub(super) inode: u32,
    /// Listening: connections in the accept queue. Else: bytes that the application has not read.
    pub(super) receive_queue: u32,
    /// Listening: the accept queue's limit. Else: bytes not acknowledged or not sent.
    pub(super) send_queue: u32,
    /// The control group of the process that created the socket, as its cgroup2 id; an accepted
    /// connection has its listener's. None in TIME_WAIT and FIN_WAIT2.
    pub(super) group: Option<u64>,
    /// Whether an IPv6 listener takes no IPv4 connections.
    pub(super) ipv6_only: bool,
    /// Bytes acknowledged by the other end and bytes received from it, where the kernel counts.
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
        // A FIN occupies one place in the sequence.
        let fin = u64::from(self.state.closed_here());
        let sum = traffic
            .acknowledged
            .saturating_add(u64::from(self.send_queue));
        Some(sum.saturating_sub(fin))
    }

    /// Whether a process has accepted this connection. Once a side has closed, the inode no longer
    /// tells.
    pub(super) const fn accepted(&self) -> bool {
        self.inode != 0
    }

    /// Whether this is a server's end of a connection (or was one).
    pub(super) const fn is_connection(&self) -> bool {
        !matches!(self.state, TcpState::Listen | TcpState::Other)
    }

    /// A client's end as the server's, where the server is this machine: the kernel gives a client the
    /// server's own address, or one of the loopback network.
    fn seen_from_the_server(self) -> Option<Self> {
        let here = self.local.ip() == self.remote.ip() || self.remote.ip().is_loopback();
        here.then_some(Self {
            local: self.remote,
            remote: self.local,
            ..self
        })
    }

    /// Whether it is a listener with more connections waiting than its limit, so that the kernel
    /// drops further ones: a backlog of N takes N+1.
    pub(super) const fn is_full(&self) -> bool {
        self.receive_queue > self.send_queue
    }
}

/// Which sockets are asked for. The kernel walks the table of all connections for
/// [`States::All`], which takes milliseconds whatever is in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum States {
    All,
    Listening,
}

/// The TCP sockets of both address families whose own port is `port`.
///
/// With [`States::All`], an exchange with a local client that closed first is among them, too: once the
/// server has closed as well, only the client's end is left, for a minute in TIME_WAIT. It is given as
/// the server's end, whose TIME_WAIT says the same. A client that gave up stays in FIN_WAIT2.
///
/// # Errors
///
/// A message, where the kernel refuses, or is not done by `until`.
pub(super) fn sockets_at(
    sock_diag: &mut SockDiag,
    port: u16,
    states: States,
    until: Monotonic,
) -> Result<Vec<TcpSocket>, String> {
    let mut found = Vec::new();
    let mut add = |family: i32, ports: Ports, states: u32| {
        let question = question(family as u8, ports, states);
        let dump = sock_diag.dump(&question, until, |message| {
            let socket = socket_of(message)?;
            let wanted = match ports {
                Ports::Own(_) => Some(socket),
                Ports::Other(_) => socket.seen_from_the_server(),
            };
            if found.len() < SOCKETS_MAX {
                found.extend(wanted);
            }
            Some(())
        });
        match dump {
            // A kernel without IPv6.
            Err(Fault::Refused(Errno::ENOENT)) if family == libc::AF_INET6 => Ok(()),
            dump => dump.map_err(|fault| fault.to_string()),
        }
    };
    for family in [libc::AF_INET, libc::AF_INET6] {
        match states {
            States::Listening => add(family, Ports::Own(port), LISTEN)?,
            States::All => {
                add(family, Ports::Own(port), EVERY_STATE)?;
                add(family, Ports::Other(port), TIME_WAIT)?;
            }
        }
    }
    match found.len() < SOCKETS_MAX {
        true => Ok(found),
        false => Err(Fault::TooMuch.to_string()),
    }
}

/// Whose port is given.
#[derive(Clone, Copy)]
enum Ports {
    Own(u16),
    Other(u16),
}

/// A `struct inet_diag_req_v2` for a family, at one port, and a set of states.
fn question(family: u8, ports: Ports, states: u32) -> Vec<u8> {
    let (own, other) = match ports {
        Ports::Own(port) => (port, 0),
        Ports::Other(port) => (0, port),
    };
    let extensions = 1 << (INET_DIAG_INFO - 1);
    [
        &[family, libc::IPPROTO_TCP as u8, extensions, 0][..],
        &states.to_ne_bytes(),
        &own.to_be_bytes(),
        &other.to_be_bytes(),
        &[0; REST_OF_ID],
    ]
    .concat()
}

/// Reads a `struct inet_diag_msg` and its attributes.
pub(super) fn socket_of(payload: &[u8]) -> Option<TcpSocket> {
    let family = i32::from(*payload.first()?);
    let address = |offset| {
        let ip = match family {
            libc::AF_INET => IpAddr::V4(Ipv4Addr::from(
                <[u8; 4]>::try_from(bytes(payload, offset, 4)?).ok()?,
            )),
            libc::AF_INET6 => {
                let ip = <[u8; 16]>::try_from(bytes(payload, offset, 16)?).ok()?;
                IpAddr::V6(Ipv6Addr::from(ip)).to_canonical()
            }
            _ => return None,
        };
        Some(ip)
    };
    let port = |offset| {
        Some(u16::from_be_bytes(
            bytes(payload, offset, 2)?.try_into().ok()?,
        ))
    };
    let mut socket = TcpSocket {
        state: TcpState::from_kernel(*payload.get(1)?),
        local: SocketAddr::new(address(8)?, port(4)?),
        remote: SocketAddr::new(address(24)?, port(6)?),
        cookie: u64_at(payload, 44)?,
        receive_queue: u32_at(payload, 56)?,
        send_queue: u32_at(payload, 60)?,
        inode: u32_at(payload, 68)?,
        group: None,
        ipv6_only: false,
        traffic: None,
    };
    for (kind, value) in attributes(payload.get(INET_DIAG_MSG..)?) {
        match kind {
            INET_DIAG_CGROUP_ID => socket.group = u64_at(value, 0),
            INET_DIAG_SKV6ONLY => socket.ipv6_only = value.first().is_some_and(|&only| only != 0),
            // The counters stand at 120 and 128 of `struct tcp_info` since Linux 4.1.
            INET_DIAG_INFO => {
                socket.traffic =
                    u64_at(value, 120)
                        .zip(u64_at(value, 128))
                        .map(|(acknowledged, received)| Traffic {
                            acknowledged,
                            received,
                        });
            }
            _ => {}
        }
    }
    Some(socket)
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::AsRawFd;
    use std::time::Duration;

    use nix::sys::socket::{AddressFamily, SockFlag, SockType};

    use super::*;

    fn soon() -> Monotonic {
        Monotonic::now() + Duration::from_secs(10)
    }

    fn at(port: u16) -> Vec<TcpSocket> {
        sockets_at(&mut SockDiag::open().unwrap(), port, States::All, soon()).unwrap()
    }

    #[test]
    fn sockets_at_shows_a_listener_and_what_becomes_of_a_connection() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let port = address.port();
        let [listening] = at(port)[..] else {
            panic!("{:?}", at(port));
        };
        assert_eq!(listening.state, TcpState::Listen);
        assert_eq!(listening.local, address);
        assert!(!listening.is_connection() && !listening.is_full());

        let mut client = TcpStream::connect(address).unwrap();
        client.write_all(b"hello").unwrap();
        let own = client.local_addr().unwrap();
        let of_client = || *at(port).iter().find(|socket| socket.remote == own).unwrap();
        let waiting = of_client();
        assert_eq!(waiting.state, TcpState::Established);
        assert!(!waiting.accepted());
        assert_eq!(waiting.written(), Some(0));
        assert_eq!(waiting.traffic.unwrap().received, 5);
        assert_eq!(
            at(port)
                .iter()
                .find(|s| s.state == TcpState::Listen)
                .unwrap()
                .receive_queue,
            1
        );

        let (mut server, _) = listener.accept().unwrap();
        assert!(of_client().accepted());
        server.write_all(b"answer").unwrap();
        client.read_exact(&mut [0; 6]).unwrap();
        let served = of_client();
        assert_eq!(served.written(), Some(6));
        assert_eq!(served.cookie, waiting.cookie);
        server.shutdown(std::net::Shutdown::Write).unwrap();
        let closed = of_client();
        assert!(closed.state.closed_here());
        // In FIN_WAIT2 the kernel still counts for a socket that a process holds.
        assert_eq!(closed.written(), Some(6));
    }

    #[test]
    fn sockets_at_sees_ipv4_connections_of_a_dual_stack_listener() {
        let Ok(listener) = TcpListener::bind("[::]:0") else {
            return;
        };
        let port = listener.local_addr().unwrap().port();
        let client = TcpStream::connect(("127.0.0.1", port)).unwrap();
        let own = client.local_addr().unwrap();
        let found = at(port);
        assert!(found.iter().any(|socket| socket.remote == own), "{found:?}");
        let listening = found.iter().find(|socket| socket.state == TcpState::Listen);
        assert!(!listening.unwrap().ipv6_only);
    }

    #[test]
    fn sockets_at_shows_an_exchange_that_a_local_client_ended() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let client = TcpStream::connect(address).unwrap();
        let own = client.local_addr().unwrap();
        let (mut server, _) = listener.accept().unwrap();
        let of_client = || {
            let mut found = at(address.port()).into_iter();
            found.find(|socket| socket.remote == own).unwrap()
        };
        drop(client);
        // The client has given up; the server has not closed yet.
        assert_eq!(of_client().state, TcpState::CloseWait);
        assert_eq!(server.read(&mut [0]).unwrap(), 0);
        drop(server);
        let ended = of_client();
        assert_eq!(ended.state, TcpState::TimeWait);
        assert_eq!(ended.local, address);
    }

    #[test]
    fn a_client_of_another_machine_is_not_seen_from_the_server() {
        let seen = |local: &str, remote: &str| {
            let socket = TcpSocket {
                local: local.parse().unwrap(),
                remote: remote.parse().unwrap(),
                ..crate::recovery::proofs::samples::listener("127.0.0.1:1", 1)
            };
            socket.seen_from_the_server().is_some()
        };
        assert!(seen("127.0.0.1:50000", "127.0.0.1:80"));
        assert!(seen("192.0.2.1:50000", "192.0.2.1:80"));
        assert!(seen("127.0.0.1:50000", "127.0.0.2:80"));
        assert!(!seen("192.0.2.1:50000", "192.0.2.2:80"));
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
        let full = || {
            let found = at(bound.port());
            found
                .iter()
                .any(|socket| socket.state == TcpState::Listen && socket.is_full())
        };
        let _first = connect();
        assert!(!full());
        let _second = connect();
        assert!(full());
    }
}
