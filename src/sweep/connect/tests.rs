//! Which of several addresses is used, when the others are tried, and how failures are reported.

use std::io::Read;
use std::net::TcpListener;
use std::os::fd::AsRawFd;

use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, bind, listen, socket as new_socket,
};

use super::*;
use crate::cause::Class;
use crate::sweep::http::tests::settings;

const LIMIT: Duration = Duration::from_millis(900);

fn attempt(limit: Duration) -> Attempt {
    let client = settings("http://backend.example").into();
    Attempt::new(&client, Monotonic::now() + limit, limit)
}

/// The addresses that were tried.
fn tried(attempt: &Attempt) -> Vec<SocketAddr> {
    attempt.client.sweep().remotes.iter().copied().collect()
}

fn listener(address: &str) -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind(address).unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// A listener whose accept queue is full, so that further connects stay pending.
pub(in crate::sweep) struct FullQueue {
    listener: TcpListener,
    pub(in crate::sweep) address: SocketAddr,
    waiting: Vec<TcpStream>,
}

impl FullQueue {
    pub(in crate::sweep) fn on(address: &str) -> Self {
        let address: SocketAddr = address.parse().unwrap();
        let family = match address {
            SocketAddr::V4(_) => AddressFamily::Inet,
            SocketAddr::V6(_) => AddressFamily::Inet6,
        };
        let fd = new_socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).unwrap();
        bind(fd.as_raw_fd(), &SockaddrStorage::from(address)).unwrap();
        listen(&fd, Backlog::new(0).unwrap()).unwrap();
        let listener = TcpListener::from(fd);
        let address = listener.local_addr().unwrap();
        let mut waiting = Vec::new();
        while let Ok(stream) = TcpStream::connect_timeout(&address, Duration::from_millis(200)) {
            waiting.push(stream);
            assert!(
                waiting.len() < 16,
                "this kernel's accept queue does not fill"
            );
        }
        Self {
            listener,
            address,
            waiting,
        }
    }
}

/// An address that refuses connections, reserved until the socket is dropped.
pub(in crate::sweep) fn refusing(address: &str) -> (std::os::fd::OwnedFd, SocketAddr) {
    let (listener, address) = listener(address);
    drop(listener);
    let family = match address {
        SocketAddr::V4(_) => AddressFamily::Inet,
        SocketAddr::V6(_) => AddressFamily::Inet6,
    };
    let fd = new_socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).unwrap();
    bind(fd.as_raw_fd(), &SockaddrStorage::from(address)).unwrap();
    (fd, address)
}

/// The attempt's connections, and whether they are connected.
fn open(attempt: &Attempt) -> Vec<(Connection, bool)> {
    let state = attempt.state();
    let connecting = state.connecting.iter().map(|(_, ends)| (*ends, false));
    let connected = state.connected.iter();
    connecting
        .chain(connected.map(|(_, ends)| (ends.unwrap(), true)))
        .collect()
}

/// The addresses of the attempt's connections, and whether they are connected.
fn open_to(attempt: &Attempt) -> Vec<(SocketAddr, bool)> {
    let open = open(attempt).into_iter();
    open.map(|(ends, connected)| (ends.remote, connected))
        .collect()
}

#[test]
fn a_pending_connect_outweighs_a_refusal() {
    let full = FullQueue::on("[::1]:0");
    let (_kept, refused) = refusing("127.0.0.1:0");
    for addresses in [[full.address, refused], [refused, full.address]] {
        let attempt = attempt(LIMIT);
        let start = Monotonic::now();
        let failure = connect(&addresses, &attempt).unwrap_err();
        assert_eq!(
            (failure.class, failure.at_end),
            (Class::TimeoutUnreachable(TransportError::Timeout), true)
        );
        assert_eq!(failure.detail, format!("connecting to {}", full.address));
        assert_eq!(open_to(&attempt), [(full.address, false)]);
        assert!(Monotonic::now().since(start) >= LIMIT);
        assert!(tried(&attempt).contains(&full.address));
        let local = open(&attempt)[0].0.local;
        assert!(local.ip().is_loopback() && local.port() != 0, "{local}");
    }
    drop((full.listener, full.waiting));
}

#[test]
fn the_next_address_is_tried_beside_a_pending_one() {
    let full = FullQueue::on("127.0.0.1:0");
    let (accepting, address) = listener("[::1]:0");
    let attempt = attempt(LIMIT);
    let start = Monotonic::now();
    let socket = connect(&[full.address, address], &attempt).unwrap();
    let took = Monotonic::now().since(start);
    assert!(took >= DELAY && took < DELAY * 2, "{took:?}");
    let (accepted, from) = accepting.accept().unwrap();
    assert_eq!(open_to(&attempt), [(address, true)]);
    assert_eq!(open(&attempt)[0].0.local, from);
    assert_eq!(tried(&attempt).len(), 2, "the pending one as well");
    drop((socket, accepted));
}

#[test]
fn the_first_established_connection_is_used_even_if_it_began_earlier() {
    let mut full = FullQueue::on("127.0.0.1:0");
    let other = FullQueue::on("[::1]:0");
    let attempt = attempt(Duration::from_secs(5));
    let socket = std::thread::scope(|scope| {
        let connecting = scope.spawn(|| connect(&[full.address, other.address], &attempt));
        let end = attempt.end;
        while open(&attempt).len() < 2 {
            assert!(!end.has_passed(), "both were never pending");
            std::thread::yield_now();
        }
        // Accepts what is queued, so that the connect that has waited longest gets a place; the kernel retransmits its SYN 1 s after
        // it began.
        while full.listener.set_nonblocking(true).is_ok() && full.listener.accept().is_ok() {}
        connecting.join().unwrap()
    });
    drop(socket.unwrap());
    assert_eq!(open_to(&attempt), [(full.address, true)]);
    full.waiting.clear();
}

#[test]
fn a_refusal_lets_the_next_address_begin_at_once() {
    let (_kept, refused) = refusing("[::1]:0");
    let (accepting, address) = listener("127.0.0.1:0");
    let attempt = attempt(LIMIT);
    let start = Monotonic::now();
    let socket = connect(&[refused, address], &attempt).unwrap();
    assert!(Monotonic::now().since(start) < DELAY / 2);
    drop((socket, attempt));
    let (mut accepted, _) = accepting.accept().unwrap();
    assert_eq!(accepted.read(&mut [0]).unwrap(), 0);
}

#[test]
fn the_last_failure_is_reported_if_all_fail() {
    let (_first, first) = refusing("[::1]:0");
    let (_second, second) = refusing("127.0.0.1:0");
    let attempt = attempt(LIMIT);
    let failure = connect(&[first, second], &attempt).unwrap_err();
    assert_eq!(
        (failure.class, failure.at_end),
        (Class::TimeoutUnreachable(TransportError::Refused), false)
    );
    assert!(failure.detail.starts_with(&second.to_string()), "{failure}");
    assert_eq!(open_to(&attempt), []);
}

#[test]
fn a_refusal_lets_the_next_address_begin_at_once_beside_a_pending_one() {
    let full = FullQueue::on("127.0.0.1:0");
    let (_kept, refused) = refusing("[::1]:0");
    let (_accepting, address) = listener("127.0.0.1:0");
    // A busy machine may delay one sample, but hardly all of them.
    let took = (0..3).map(|_| {
        let attempt = attempt(LIMIT);
        let start = Monotonic::now();
        connect(&[full.address, refused, address], &attempt).unwrap();
        Monotonic::now().since(start)
    });
    let least = took.min().unwrap();
    assert!(least >= DELAY && least < DELAY * 2, "{least:?}");
}

#[test]
fn an_address_that_cannot_even_be_tried_lets_the_next_one_begin_at_once() {
    // TCP has no broadcast, so connect(2) fails at once.
    let broadcast: SocketAddr = "255.255.255.255:9".parse().unwrap();
    let (_accepting, address) = listener("127.0.0.1:0");
    let attempt = attempt(LIMIT);
    let start = Monotonic::now();
    let failure = connect(&[broadcast], &attempt).unwrap_err();
    assert_eq!(
        (failure.class, failure.at_end),
        (Class::TimeoutUnreachable(TransportError::Network), false)
    );
    connect(&[broadcast, address], &attempt).unwrap();
    assert!(Monotonic::now().since(start) < DELAY / 2);
}
