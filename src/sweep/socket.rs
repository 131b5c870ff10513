//! Non-blocking stream sockets. `TcpStream` stands for a UNIX socket as well: std passes the calls that are made
//! on it here to the kernel unchanged.
#![allow(unsafe_code)]

use std::io;
use std::net::TcpStream;
use std::os::fd::AsRawFd;

use nix::errno::Errno;
use nix::sys::socket::{self, SockFlag, SockType, SockaddrLike};

/// A socket for connecting to `address`.
pub(super) fn open(address: &dyn SockaddrLike) -> io::Result<TcpStream> {
    let family = address.family().ok_or(Errno::EAFNOSUPPORT)?;
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    Ok(socket::socket(family, SockType::Stream, flags, None)?.into())
}

/// Begins to connect (connect(2)): `EINPROGRESS` or `EINTR` if that takes time.
pub(super) fn connect(socket: &TcpStream, address: &dyn SockaddrLike) -> Result<(), Errno> {
    socket::connect(socket.as_raw_fd(), address)
}

/// Bytes of a TCP socket that were written and that the other side's kernel has not acknowledged (`SIOCOUTQ`,
/// tcp(7)); 0 also while a connect is pending.
pub(super) fn unacknowledged(socket: &TcpStream) -> Result<i32, Errno> {
    let mut bytes = 0;
    // SAFETY: the descriptor is open, and the call writes one int through the pointer, which is valid for the
    // whole call.
    unsafe { outq(socket.as_raw_fd(), &raw mut bytes) }?;
    Ok(bytes)
}

// nix and rustix wrap it in no safe function. SIOCOUTQ is the same number as TIOCOUTQ (ioctl_tty(2)).
nix::ioctl_read_bad!(outq, libc::TIOCOUTQ, libc::c_int);
