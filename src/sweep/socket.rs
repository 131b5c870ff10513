//! A non-blocking stream socket.
#![allow(unsafe_code)]

use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::socket::{
    self, AddressFamily, MsgFlags, SockFlag, SockType, SockaddrLike, SockaddrStorage, sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike};

/// A non-blocking stream socket of any address family.
#[derive(Debug)]
pub(super) struct Socket(OwnedFd);

impl Socket {
    /// A socket that is not connected yet.
    pub(super) fn new(family: AddressFamily) -> Result<Self, Errno> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        socket::socket(family, SockType::Stream, flags, None).map(Self)
    }

    /// Begins to connect (connect(2)): `EINPROGRESS` or `EINTR` if that takes time.
    pub(super) fn connect(&self, address: &dyn SockaddrLike) -> Result<(), Errno> {
        socket::connect(self.0.as_raw_fd(), address)
    }

    /// Returns and clears the pending error (`SO_ERROR`, socket(7)).
    pub(super) fn take_error(&self) -> Result<(), Errno> {
        match socket::getsockopt(self, sockopt::SocketError)? {
            0 => Ok(()),
            error => Err(Errno::from_raw(error)),
        }
    }

    /// The local address of a TCP socket, once it has begun to connect.
    pub(super) fn local_address(&self) -> Option<SocketAddr> {
        let address: SockaddrStorage = socket::getsockname(self.0.as_raw_fd()).ok()?;
        let v4 = address
            .as_sockaddr_in()
            .map(|v4| SocketAddr::V4((*v4).into()));
        v4.or_else(|| {
            address
                .as_sockaddr_in6()
                .map(|v6| SocketAddr::V6((*v6).into()))
        })
    }

    /// Makes calls blocking or non-blocking.
    pub(super) fn set_blocking(&self, blocking: bool) -> Result<(), Errno> {
        let flags = match blocking {
            true => OFlag::empty(),
            false => OFlag::O_NONBLOCK,
        };
        fcntl(self, FcntlArg::F_SETFL(flags)).map(drop)
    }

    /// How long a blocking call that sends or connects may wait (`SO_SNDTIMEO`, socket(7)).
    pub(super) fn set_send_timeout(&self, limit: Duration) -> Result<(), Errno> {
        let limit = TimeVal::microseconds(limit.as_micros().try_into().unwrap_or(i64::MAX));
        socket::setsockopt(self, sockopt::SendTimeout, &limit)
    }

    /// The PID of a UNIX socket's peer (`SO_PEERCRED`).
    pub(super) fn peer_pid(&self) -> Result<i32, Errno> {
        socket::getsockopt(self, sockopt::PeerCredentials).map(|peer| peer.pid())
    }

    /// A pidfd of a UNIX socket's peer (`SO_PEERPIDFD`).
    pub(super) fn peer_pidfd(&self) -> Result<OwnedFd, Errno> {
        socket::getsockopt(self, sockopt::PeerPidfd)
    }

    /// Sends small pieces without waiting for acknowledgements (`TCP_NODELAY`, tcp(7)).
    pub(super) fn send_at_once(&self) -> Result<(), Errno> {
        socket::setsockopt(self, sockopt::TcpNoDelay, &true)
    }

    /// Sends without raising SIGPIPE.
    pub(super) fn send(&self, bytes: &[u8]) -> Result<usize, Errno> {
        socket::send(self.0.as_raw_fd(), bytes, MsgFlags::MSG_NOSIGNAL)
    }

    /// Receives; 0 bytes mean that the other side has closed.
    pub(super) fn receive(&self, buffer: &mut [u8]) -> Result<usize, Errno> {
        socket::recv(self.0.as_raw_fd(), buffer, MsgFlags::empty())
    }

    /// How many bytes have arrived that nobody has read, at most 1; 0 at the end of the connection, `EAGAIN`
    /// before a byte.
    pub(super) fn peek(&self) -> Result<usize, Errno> {
        socket::recv(self.0.as_raw_fd(), &mut [0], MsgFlags::MSG_PEEK)
    }

    /// Whether the socket is connected.
    pub(super) fn is_connected(&self) -> bool {
        socket::getpeername::<SockaddrStorage>(self.0.as_raw_fd()).is_ok()
    }

    /// Bytes of a TCP socket that were written and that the other side's kernel has not acknowledged
    /// (`SIOCOUTQ`, tcp(7)); 0 also while a connect is pending.
    pub(super) fn unacknowledged(&self) -> Result<i32, Errno> {
        let mut bytes = 0;
        // SAFETY: the descriptor is open, and the call writes one int through the pointer, which is valid
        // for the whole call.
        unsafe { outq(self.0.as_raw_fd(), &raw mut bytes) }?;
        Ok(bytes)
    }
}

// nix and rustix wrap it in no safe function. SIOCOUTQ is the same number as TIOCOUTQ (ioctl_tty(2)).
nix::ioctl_read_bad!(outq, libc::TIOCOUTQ, libc::c_int);

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
