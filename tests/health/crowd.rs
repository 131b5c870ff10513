//! Clients that come to a backend again and again while a test runs the program.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::libc;
use nix::sys::socket::{setsockopt, sockopt};

use crate::network::PrivateNetwork;
use crate::wait::wait_until;

/// How long a client waits for a connection, so that it notices the end of its test.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);

/// The pause between two connections of a client.
const PAUSE: Duration = Duration::from_millis(100);

/// Clients that each connect, act and connect again; they stop on drop.
pub(crate) struct Crowd {
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    stopping: AtomicBool,
    connected: AtomicUsize,
    answered: AtomicUsize,
}

impl Crowd {
    /// Starts `count` clients of `address` (`HOST:PORT`, or the path of a UNIX socket), and returns once half of
    /// them are connected: a full accept queue lets the others wait.
    pub(crate) fn start(
        network: &PrivateNetwork<'_>,
        address: &str,
        count: usize,
        act: impl Fn(&mut Client) + Clone + Send + 'static,
    ) -> Self {
        let state = Arc::<State>::default();
        let (for_all, address) = (state.clone(), address.to_owned());
        network.inside(move || {
            for _ in 0..count {
                let (state, address, act) = (for_all.clone(), address.clone(), act.clone());
                // A thread stays in the network of the thread that starts it. It is not waited for: it ends
                // with its connection.
                thread::spawn(move || come_again(&state, &address, act));
            }
        });
        let half = || state.connected.load(Ordering::SeqCst) >= count.div_ceil(2);
        assert!(wait_until(CONNECT_LIMIT * 2, half), "no clients");
        Self { state }
    }

    /// How often a client has received at least a byte.
    pub(crate) fn answered(&self) -> usize {
        self.state.answered.load(Ordering::SeqCst)
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        self.state.stopping.store(true, Ordering::SeqCst);
    }
}

fn come_again(state: &State, address: &str, act: impl Fn(&mut Client)) {
    while !state.stopping.load(Ordering::SeqCst) {
        // Refused while the backend restarts.
        if let Ok(mut client) = Client::connect(address) {
            state.connected.fetch_add(1, Ordering::SeqCst);
            act(&mut client);
            state
                .answered
                .fetch_add(usize::from(client.answered), Ordering::SeqCst);
        }
        thread::sleep(PAUSE);
    }
}

/// One connection. What it sends and receives may be lost, since the backend may be killed at any moment.
pub(crate) struct Client {
    stream: Stream,
    answered: bool,
}

enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Client {
    pub(crate) fn connect(address: &str) -> io::Result<Self> {
        let stream = match address.parse::<SocketAddr>() {
            Ok(address) => Stream::Tcp(TcpStream::connect_timeout(&address, CONNECT_LIMIT)?),
            Err(_) => Stream::Unix(UnixStream::connect(address)?),
        };
        Ok(Self {
            stream,
            answered: false,
        })
    }

    pub(crate) fn get(&mut self, path: &str) -> &mut Self {
        self.send(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").as_bytes())
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) -> &mut Self {
        let _gone = match &mut self.stream {
            Stream::Tcp(stream) => stream.write_all(bytes),
            Stream::Unix(stream) => stream.write_all(bytes),
        };
        self
    }

    /// Reads until the backend closes, for at most `limit`.
    pub(crate) fn read_for(&mut self, limit: Duration) -> Vec<u8> {
        let end = Instant::now() + limit;
        let mut answer = Vec::new();
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let mut piece = [0; 4096];
            match self.read_within(left, &mut piece) {
                Ok(length @ 1..) => answer.extend_from_slice(&piece[..length]),
                Ok(0) | Err(_) => break,
            }
        }
        self.answered |= !answer.is_empty();
        answer
    }

    fn read_within(&mut self, limit: Duration, piece: &mut [u8]) -> io::Result<usize> {
        let limit = Some(limit.max(Duration::from_millis(1)));
        match &mut self.stream {
            Stream::Tcp(stream) => {
                stream.set_read_timeout(limit)?;
                stream.read(piece)
            }
            Stream::Unix(stream) => {
                stream.set_read_timeout(limit)?;
                stream.read(piece)
            }
        }
    }

    /// From now on, the end of the connection is a reset.
    pub(crate) fn end_by_reset(&self) {
        let at_once = libc::linger {
            l_onoff: 1,
            l_linger: 0,
        };
        if let Stream::Tcp(stream) = &self.stream {
            setsockopt(stream, sockopt::Linger, &at_once).unwrap();
        }
    }
}
