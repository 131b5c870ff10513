//! Addresses for servers in other processes. The tests include this file, too.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::atomic::{AtomicU32, Ordering};

/// An address that is kept from others while nobody listens on it: what asks the kernel for a free
/// port asks on 127.0.0.1, and each call has a loopback address of its own.
///
/// # Errors
///
/// Where no port can be had.
pub(crate) fn own_address() -> io::Result<SocketAddr> {
    static CALLS: AtomicU32 = AtomicU32::new(1);
    // Of the 24 bits, the last seven count the calls; the others distinguish processes.
    let call = CALLS.fetch_add(1, Ordering::Relaxed) % 128;
    let own = (std::process::id() << 7 | call) % (1 << 24);
    let host = Ipv4Addr::from_bits(Ipv4Addr::new(127, 0, 0, 0).to_bits() | own);
    TcpListener::bind((host, 0))?.local_addr()
}
