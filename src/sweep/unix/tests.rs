//! Connecting to a UNIX socket: a connection and its peer, or a failure with a remedy.

use std::io::Read;
use std::os::fd::AsRawFd;
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::thread;

use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, bind, listen, socket as new_socket,
};
use tempfile::TempDir;

use super::*;
use crate::cause::Class;
use crate::clock::Monotonic;
use crate::sweep::http::tests::settings;

/// How late a timeout may be.
const LATE: Duration = Duration::from_millis(20);

fn attempt(limit: Duration) -> Attempt {
    let client = settings("http://backend.example").into();
    Attempt::new(&client, Monotonic::now() + limit, limit)
}

/// A listener whose accept queue holds one connection.
fn short_queue(path: &Path) -> UnixListener {
    let fd = new_socket(
        AddressFamily::Unix,
        SockType::Stream,
        SockFlag::SOCK_CLOEXEC,
        None,
    )
    .unwrap();
    bind(fd.as_raw_fd(), &UnixAddr::new(path).unwrap()).unwrap();
    listen(&fd, Backlog::new(0).unwrap()).unwrap();
    UnixListener::from(fd)
}

#[test]
fn each_peer_is_recorded_once_per_sweep() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("it.sock");
    let _listener = UnixListener::bind(&path).unwrap();
    let attempt = attempt(Duration::from_secs(5));
    let _first = connect(&path, &attempt).unwrap();
    let _second = connect(&path, &attempt).unwrap();
    let peers = attempt.client.sweep().unix_peers.clone();
    let [peer] = peers.as_slice() else {
        panic!("{peers:?}");
    };
    assert_eq!(peer.pid, std::process::id());
    if let Some(pidfd) = &peer.pidfd {
        let info = format!("/proc/self/fdinfo/{}", pidfd.as_raw_fd());
        let info = fs::read_to_string(info).unwrap();
        let line = format!("Pid:\t{}\n", std::process::id());
        assert!(info.contains(&line), "{info}");
    }
    attempt.client.begin_sweep();
    assert!(attempt.client.sweep().unix_peers.is_empty());
}

#[test]
fn a_full_queue_is_waited_for_until_the_end_and_no_longer() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("it.sock");
    let _listener = short_queue(&path);
    let filling = attempt(Duration::from_secs(5));
    let _held = connect(&path, &filling).unwrap();
    // Long enough for SO_SNDTIMEO to be late.
    let limits = [50, 300, 5000].map(Duration::from_millis);
    let late = &|limit| {
        let attempt = attempt(limit);
        let failure = connect(&path, &attempt).unwrap_err();
        let late = Monotonic::now().since(attempt.end);
        assert!(attempt.end.has_passed());
        assert_eq!(
            (failure.class, failure.at_end),
            (Class::TimeoutUnreachable(TransportError::Timeout), true)
        );
        assert!(failure.detail.contains("queue is full"), "{failure}");
        assert!(attempt.client.sweep().unix_peers.is_empty());
        late
    };
    thread::scope(|scope| {
        for limit in limits {
            // A busy machine may delay one sample, but hardly all of them.
            let apart = [0, 70, 140].map(Duration::from_millis);
            let samples = apart.map(|more| scope.spawn(move || late(limit + more)));
            let least = samples
                .map(|sample| sample.join().unwrap())
                .into_iter()
                .min();
            let least = least.unwrap();
            assert!(least <= LATE, "{limit:?} was late by {least:?}");
        }
    });
}

#[test]
fn space_in_the_queue_is_used_at_once() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("it.sock");
    let listener = short_queue(&path);
    let waiting = attempt(Duration::from_secs(20));
    let _held = connect(&path, &waiting).unwrap();
    let connected = thread::scope(|scope| {
        let connecting = scope.spawn(|| connect(&path, &waiting));
        thread::sleep(Duration::from_millis(100));
        assert!(!connecting.is_finished());
        let freed = Monotonic::now();
        let _accepted = listener.accept().unwrap();
        let socket = connecting.join().unwrap().unwrap();
        assert!(Monotonic::now().since(freed) < Duration::from_secs(1));
        let read = (&*socket).read(&mut [0]).map_err(|error| error.kind());
        assert_eq!(read, Err(io::ErrorKind::WouldBlock), "it never blocks");
        socket
    });
    drop(connected);
}

#[test]
fn a_failure_has_a_remedy() {
    let dir = TempDir::new().unwrap();
    let at = |name: &str| dir.path().join(name);
    fs::write(at("file"), "").unwrap();
    drop(UnixListener::bind(at("left.sock")).unwrap());
    let _datagrams = UnixDatagram::bind(at("datagram.sock")).unwrap();
    for (name, part) in [
        ("missing.sock", "does not exist"),
        ("file/below.sock", "does not exist"),
        ("file", "is not a socket"),
        (".", "is not a socket"),
        ("left.sock", "no process listens there"),
        ("datagram.sock", "is not a stream socket"),
    ] {
        let attempt = attempt(Duration::from_secs(5));
        let failure = connect(&at(name), &attempt).unwrap_err();
        assert_eq!(
            (failure.class, failure.at_end),
            (Class::TimeoutUnreachable(TransportError::Refused), false)
        );
        assert!(failure.detail.contains(part), "{name}: {failure}");
        assert!(failure.detail.contains("; "), "{name}: {failure}");
    }
    let denied = failure(Path::new("/x"), &Errno::EACCES.into());
    assert_eq!(
        denied.class,
        Class::TimeoutUnreachable(TransportError::Network)
    );
    assert!(denied.detail.contains("permission"), "{denied}");
}
