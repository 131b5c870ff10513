//! Reads the UNIX sockets that listen at a path from the kernel (sock_diag(7), "UNIX domain sockets").

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::sys::stat::{major, minor};

use super::sock_diag::{SockDiag, attributes, u32_at};
use crate::clock::Monotonic;

// include/uapi/linux/unix_diag.h, and TCP_LISTEN, which UNIX sockets share.
const UDIAG_SHOW_NAME: u32 = 1;
const UDIAG_SHOW_VFS: u32 = 2;
const UDIAG_SHOW_RQLEN: u32 = 0x10;
const UNIX_DIAG_NAME: u16 = 0;
const UNIX_DIAG_VFS: u16 = 1;
const UNIX_DIAG_RQLEN: u16 = 4;
const LISTEN: u32 = 1 << 10;
/// Size of `struct unix_diag_msg`, which the attributes follow.
const UNIX_DIAG_MSG: usize = 16;

/// A socket that listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct UnixListener<'a> {
    /// Its number in `/proc/PID/fd`.
    pub(super) inode: u32,
    /// The path to which it is bound, or an abstract address, which begins with a NUL (unix(7)).
    pub(super) name: Option<&'a [u8]>,
    /// The inode and the device of that path's file.
    pub(super) file: Option<(u32, u32)>,
    /// Connections in the accept queue, and its limit; one more than this fills it.
    pub(super) queue: Option<(u32, u32)>,
}

/// Visits the sockets that listen at `path`: bound to exactly that name, or to the file that it names.
///
/// # Errors
///
/// A message, if the kernel refuses or does not finish by `until`.
pub(super) fn listeners(
    path: &Path,
    until: Monotonic,
    mut visit: impl FnMut(UnixListener<'_>),
) -> Result<(), String> {
    // The kernel's internal format of a device number (MKDEV of include/linux/kdev_t.h).
    let device = |number| (major(number) << 20) | minor(number);
    let file = fs::metadata(path).ok();
    let file = file.map(|file| (file.ino() as u32, device(file.dev()) as u32));
    let name = path.as_os_str().as_encoded_bytes();
    let dump = SockDiag::open()?.dump(&question(), until, |message| {
        let listener = listener_of(message)?;
        if listener.name == Some(name) || file.is_some() && listener.file == file {
            visit(listener);
        }
        Some(())
    });
    dump.map_err(|fault| fault.to_string())
}

/// Reads a `struct unix_diag_msg` and its attributes.
pub(super) fn listener_of(message: &[u8]) -> Option<UnixListener<'_>> {
    let mut listener = UnixListener {
        inode: u32_at(message, 4)?,
        name: None,
        file: None,
        queue: None,
    };
    for (kind, value) in attributes(message.get(UNIX_DIAG_MSG..)?) {
        let pair = || u32_at(value, 0).zip(u32_at(value, 4));
        match kind {
            UNIX_DIAG_NAME => listener.name = Some(value.strip_suffix(&[0]).unwrap_or(value)),
            UNIX_DIAG_VFS => listener.file = pair(),
            UNIX_DIAG_RQLEN => listener.queue = pair(),
            _ => {}
        }
    }
    Some(listener)
}

/// A `struct unix_diag_req` for all listening sockets.
fn question() -> Vec<u8> {
    [
        &[libc::AF_UNIX as u8, 0, 0, 0][..],
        &LISTEN.to_ne_bytes(),
        &0_u32.to_ne_bytes(),
        &(UDIAG_SHOW_NAME | UDIAG_SHOW_VFS | UDIAG_SHOW_RQLEN).to_ne_bytes(),
        &[0; 8],
    ]
    .concat()
}

#[cfg(test)]
mod tests {
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::net::{self, SocketAddr, UnixStream};
    use std::time::Duration;

    use super::*;

    #[test]
    fn listeners_finds_the_socket_of_a_path_and_its_queue() {
        let folder = tempfile::TempDir::new().unwrap();
        let path = folder.path().join("a b.sock");
        let at = |path: &Path| {
            let mut found = Vec::new();
            let soon = Monotonic::now() + Duration::from_secs(10);
            let dump = listeners(path, soon, |it| found.push((it.inode, it.queue)));
            dump.unwrap();
            found
        };
        assert_eq!(at(&path), []);
        let _listener = net::UnixListener::bind(&path).unwrap();
        // Abstract addresses are not paths, unix(7).
        let abstract_name = [b"\xff /", path.as_os_str().as_encoded_bytes()].concat();
        let other = SocketAddr::from_abstract_name(abstract_name).unwrap();
        let _other = net::UnixListener::bind_addr(&other).unwrap();
        let _clients = [(); 3].map(|()| UnixStream::connect(&path).unwrap());
        let [found @ (inode, Some((waiting, limit)))] = at(&path)[..] else {
            panic!("{:?}", at(&path))
        };
        assert_eq!(waiting, 3);
        assert!(limit >= 3 && inode > 0);
        // By the file, whatever its name, and by the name, whatever file is there.
        let other_name = folder
            .path()
            .join("..")
            .join(folder.path().file_name().unwrap());
        assert_eq!(at(&other_name.join("a b.sock")), [found]);
        fs::remove_file(&path).unwrap();
        assert_eq!(at(&path), [found]);
    }
}
