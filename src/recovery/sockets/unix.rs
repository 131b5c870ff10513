//! Reads the UNIX sockets that listen at a path from the kernel (sock_diag(7), "UNIX domain sockets").

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::errno::Errno;
use nix::sys::stat::{major, minor};

use super::netlink::{attributes, read_table, u32_at};
use crate::clock::Monotonic;

// include/uapi/linux/unix_diag.h, and TCP_LISTEN, which UNIX sockets share.
const UNIX_DIAG_NAME: u16 = 0;
const UNIX_DIAG_VFS: u16 = 1;
const UNIX_DIAG_ICONS: u16 = 3;
const UNIX_DIAG_RQLEN: u16 = 4;
const LISTEN: u32 = 1 << 10;
/// Size of `struct unix_diag_msg`, which the attributes follow.
const UNIX_DIAG_MSG: usize = 16;

/// A socket that listens.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct UnixListener {
    /// The path to which it is bound, or an abstract address, which begins with a NUL (unix(7)).
    pub(crate) name: Vec<u8>,
    /// The inode and the device of that path's file.
    pub(crate) file: Option<(u32, u32)>,
    /// Its number in `/proc/PID/fd`.
    pub(crate) inode: u32,
    /// Connections in the accept queue, and its limit; one more than this fills it.
    pub(crate) queue: Option<(u32, u32)>,
    /// The inodes of the sockets in the accept queue in the order of their arrival; 0 for one that its client
    /// has closed.
    pub(crate) waiting: Vec<u32>,
}

impl UnixListener {
    /// Whether the kernel refuses further connections: a backlog of N holds N+1.
    pub(crate) fn is_full(&self) -> bool {
        self.queue.is_some_and(|(length, limit)| length > limit)
    }
}

/// The sockets that listen at `path`: bound to the file that it names or, if there is none, to exactly that
/// name. Errors are those of [`read_table`].
pub(crate) fn listeners(path: &Path, until: Monotonic) -> Result<Vec<UnixListener>, Errno> {
    // The kernel's internal format of a device number (MKDEV of include/linux/kdev_t.h).
    let device = |number| (major(number) << 20) | minor(number);
    let file = fs::metadata(path).ok();
    let file = file.map(|file| (file.ino() as u32, device(file.dev()) as u32));
    let mut found = read_table(&question(), until, listener_of)?;
    let has_file = |listener: &UnixListener| file.is_some() && listener.file == file;
    if found.iter().any(has_file) {
        found.retain(has_file);
    } else {
        found.retain(|listener| listener.name == path.as_os_str().as_encoded_bytes());
    }
    Ok(found)
}

/// Reads a `struct unix_diag_msg` and its attributes.
pub(crate) fn listener_of(message: &[u8]) -> Option<UnixListener> {
    let mut listener = UnixListener {
        inode: u32_at(message, 4)?,
        ..UnixListener::default()
    };
    for (kind, value) in attributes(message.get(UNIX_DIAG_MSG..)?) {
        let pair = || u32_at(value, 0).zip(u32_at(value, 4));
        match kind {
            UNIX_DIAG_NAME => listener.name = value.strip_suffix(&[0]).unwrap_or(value).into(),
            UNIX_DIAG_VFS => listener.file = pair(),
            UNIX_DIAG_ICONS => {
                let inodes = value.chunks_exact(4);
                listener.waiting = inodes.filter_map(|inode| u32_at(inode, 0)).collect();
            }
            UNIX_DIAG_RQLEN => listener.queue = pair(),
            _ => {}
        }
    }
    Some(listener)
}

/// A `struct unix_diag_req` for all listening sockets.
fn question() -> Vec<u8> {
    // The bits UDIAG_SHOW_NAME, _VFS, _ICONS and _RQLEN.
    let wanted =
        1_u32 << UNIX_DIAG_NAME | 1 << UNIX_DIAG_VFS | 1 << UNIX_DIAG_ICONS | 1 << UNIX_DIAG_RQLEN;
    [
        &[libc::AF_UNIX as u8, 0, 0, 0][..],
        &LISTEN.to_ne_bytes(),
        &0_u32.to_ne_bytes(),
        &wanted.to_ne_bytes(),
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
        let at = |path: &Path| listeners(path, Monotonic::now() + Duration::from_secs(10)).unwrap();
        assert_eq!(at(&path), []);
        let _listener = net::UnixListener::bind(&path).unwrap();
        // Abstract addresses are not paths, unix(7).
        let abstract_name = [b"\xff /", path.as_os_str().as_encoded_bytes()].concat();
        let other = SocketAddr::from_abstract_name(abstract_name).unwrap();
        let _other = net::UnixListener::bind_addr(&other).unwrap();
        let _clients = [(); 3].map(|()| UnixStream::connect(&path).unwrap());
        let [found] = &at(&path)[..] else {
            panic!("{:?}", at(&path))
        };
        let (waiting, limit) = found.queue.unwrap();
        assert_eq!((waiting, found.waiting.len()), (3, 3));
        assert!(limit >= 3 && found.inode > 0 && !found.waiting.contains(&0));
        let found = found.clone();
        // By the file, whatever its name, and by the name if there is no file.
        let other_name = folder
            .path()
            .join("..")
            .join(folder.path().file_name().unwrap());
        assert_eq!(at(&other_name.join("a b.sock")), at(&path));
        fs::remove_file(&path).unwrap();
        assert_eq!(at(&path), [found]);
        // The one whose file has been replaced has the same name.
        let _new = net::UnixListener::bind(&path).unwrap();
        let [new] = &at(&path)[..] else {
            panic!("{:?}", at(&path))
        };
        assert!(new.waiting.is_empty());
    }
}
