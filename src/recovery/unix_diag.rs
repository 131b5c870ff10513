//! The accept queue of a listening UNIX socket, as the kernel shows it (sock_diag(7), "UNIX domain
//! sockets"): for the evidence.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use nix::sys::stat::{major, minor};

use super::sock_diag::{SockDiag, attributes, u32_at};
use crate::clock::Monotonic;

/// How long a dump may take.
const LIMIT: Duration = Duration::from_millis(100);

// include/uapi/linux/unix_diag.h, and TCP_LISTEN, which UNIX sockets share.
const UDIAG_SHOW_VFS: u32 = 2;
const UDIAG_SHOW_RQLEN: u32 = 0x10;
const UNIX_DIAG_VFS: u16 = 1;
const UNIX_DIAG_RQLEN: u16 = 4;
const LISTEN: u32 = 1 << 10;
/// Size of `struct unix_diag_msg`, which the attributes follow.
const UNIX_DIAG_MSG: usize = 16;

/// An accept queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Queue {
    /// Connections that wait.
    pub(super) waiting: u32,
    /// The limit; one more than this fills it.
    pub(super) limit: u32,
}

/// The queue of the socket that listens at `path`; none where it cannot be seen.
pub(super) fn queue(path: &Path) -> Option<Queue> {
    let file = fs::metadata(path).ok()?;
    // The kernel's own form of a device number (MKDEV of include/linux/kdev_t.h).
    let device = (major(file.dev()) << 20) | minor(file.dev());
    let wanted = (file.ino() as u32, device as u32);
    let mut found = None;
    let until = Monotonic::now() + LIMIT;
    let dump = SockDiag::open().ok()?.dump(&question(), until, |message| {
        let (mut vfs, mut queue) = (None, None);
        for (kind, value) in attributes(message.get(UNIX_DIAG_MSG..)?) {
            let pair = u32_at(value, 0).zip(u32_at(value, 4));
            match kind {
                UNIX_DIAG_VFS => vfs = pair,
                UNIX_DIAG_RQLEN => queue = pair,
                _ => {}
            }
        }
        if vfs == Some(wanted) {
            found = queue.map(|(waiting, limit)| Queue { waiting, limit });
        }
        Some(())
    });
    dump.ok()?;
    found
}

/// A `struct unix_diag_req` for all listening sockets.
fn question() -> Vec<u8> {
    [
        &[libc::AF_UNIX as u8, 0, 0, 0][..],
        &LISTEN.to_ne_bytes(),
        &0_u32.to_ne_bytes(),
        &(UDIAG_SHOW_VFS | UDIAG_SHOW_RQLEN).to_ne_bytes(),
        &[0; 8],
    ]
    .concat()
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::{UnixListener, UnixStream};

    use super::*;

    #[test]
    fn queue_counts_the_connections_that_wait() {
        let folder = tempfile::TempDir::new().unwrap();
        let path = folder.path().join("a.sock");
        assert_eq!(queue(&path), None);
        let _listener = UnixListener::bind(&path).unwrap();
        let _clients = [(); 3].map(|()| UnixStream::connect(&path).unwrap());
        let queue = queue(&path).unwrap();
        assert_eq!(queue.waiting, 3);
        assert!(queue.limit >= 3);
    }
}
