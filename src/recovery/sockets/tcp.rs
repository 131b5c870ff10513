//! Reads the TCP sockets at one port from the kernel (sock_diag(7), "IPv4 and IPv6 sockets").

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use nix::errno::Errno;

use super::netlink::{Fault, SockDiag, attributes, bytes, u32_at, u64_at};
use super::table::{TcpSocket, TcpState};
use crate::clock::Monotonic;

/// The largest number of sockets kept from one reading; no accept queue is that long.
const SOCKETS_MAX: usize = 200_000;

// include/uapi/linux/inet_diag.h.
const INET_DIAG_SKV6ONLY: u16 = 11;
const INET_DIAG_CGROUP_ID: u16 = 21;
/// TCP_LISTEN of include/net/tcp_states.h, as a bit.
const LISTEN: u32 = 1 << 10;
/// All states up to TCP_CLOSING except TCP_TIME_WAIT, which no application holds any more.
const HELD: u32 = ((1 << 12) - 1) & !(1 << 6);
/// Size of `struct inet_diag_msg`, which the attributes follow.
const INET_DIAG_MSG: usize = 72;
/// Size of `struct inet_diag_sockid` without the ports.
const REST_OF_ID: usize = 44;

/// Which sockets are requested. For [`States::All`] the kernel walks the table of all connections, which takes
/// milliseconds even if the table is empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum States {
    All,
    Listening,
}

/// The TCP sockets of both address families whose local port is `port`, the listeners of each family first.
///
/// # Errors
///
/// A message, if the kernel refuses or does not finish by `until`.
pub(crate) fn sockets_at(
    sock_diag: &mut SockDiag,
    port: u16,
    states: States,
    until: Monotonic,
) -> Result<Vec<TcpSocket>, String> {
    let mut found = Vec::new();
    let states = match states {
        States::All => HELD,
        States::Listening => LISTEN,
    };
    for family in [libc::AF_INET, libc::AF_INET6] {
        let read = sock_diag.read_table(&question(family as u8, port, states), until, |message| {
            let socket = socket_of(message)?;
            if found.len() < SOCKETS_MAX {
                found.push(socket);
            }
            Some(())
        });
        match read {
            // A kernel without IPv6.
            Err(Fault::Refused(Errno::ENOENT)) if family == libc::AF_INET6 => {}
            read => read.map_err(|fault| fault.to_string())?,
        }
    }
    if found.len() < SOCKETS_MAX {
        Ok(found)
    } else {
        Err(Fault::TooMuch.to_string())
    }
}

/// A `struct inet_diag_req_v2` for a family, a local port and a set of states.
fn question(family: u8, port: u16, states: u32) -> Vec<u8> {
    [
        &[family, libc::IPPROTO_TCP as u8, 0, 0][..],
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
    };
    for (kind, value) in attributes(payload.get(INET_DIAG_MSG..)?) {
        match kind {
            INET_DIAG_CGROUP_ID => socket.group = u64_at(value, 0),
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

    fn soon() -> Monotonic {
        Monotonic::now() + Duration::from_secs(10)
    }

    fn at(port: u16) -> Vec<TcpSocket> {
        sockets_at(&mut SockDiag::open().unwrap(), port, States::All, soon()).unwrap()
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
        assert!(!listening.is_connection() && !listening.is_full());

        let mut client = TcpStream::connect(address).unwrap();
        client.write_all(b"hello").unwrap();
        let own = client.local_addr().unwrap();
        let waiting = once(port, own, |socket| socket.receive_queue == 5);
        assert_eq!(waiting.state, TcpState::Established);
        assert!(!waiting.accepted());
        assert!(waiting.is_waiting() && waiting.unacknowledged() == 0);
        assert_eq!(own_listener().unwrap().receive_queue, 1);

        let (mut server, _) = listener.accept().unwrap();
        once(port, own, |socket| socket.accepted());
        let served = once(port, own, |socket| !socket.is_waiting());
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
}
