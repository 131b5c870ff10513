//! Addresses for servers in other processes. Also used by the tests.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::atomic::{AtomicU32, Ordering};

/// An address that no other process takes before its server listens: each call returns its own loopback
/// address, and programs that ask the kernel for a free port do so on 127.0.0.1.
///
/// # Errors
///
/// No port is available.
pub(crate) fn own_address() -> io::Result<SocketAddr> {
    static CALLS: AtomicU32 = AtomicU32::new(1);
    // Of the 24 bits, the last seven count the calls; the others distinguish processes.
    let call = CALLS.fetch_add(1, Ordering::Relaxed) % 128;
    let own = (std::process::id() << 7 | call) % (1 << 24);
    let host = Ipv4Addr::from_bits(Ipv4Addr::new(127, 0, 0, 0).to_bits() | own);
    TcpListener::bind((host, 0))?.local_addr()
}
