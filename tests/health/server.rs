//! A backend on loopback that misbehaves on demand: it has a script for each path. Independent of the program
//! under test.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use nix::libc;
use nix::sys::socket::{
    self, AddressFamily, Backlog, SockFlag, SockType, SockaddrIn, SockaddrStorage, sockopt,
};

use crate::script::{Script, Step, status};

/// A request as it was received; header names in lower case.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) headers: Vec<(String, String)>,
}

impl Request {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut found = self.headers.iter().filter(|(have, _)| have == name);
        let value = found.next().map(|(_, value)| value.as_str());
        assert!(found.next().is_none(), "header {name} twice: {self:?}");
        value
    }
}

struct Shared {
    scripts: Mutex<HashMap<String, Script>>,
    requests: Mutex<Vec<Request>>,
    /// Requests that wait for the last step of their script, and the largest number of them so far.
    waiting: AtomicUsize,
    most_waiting: AtomicUsize,
    connections: AtomicUsize,
    open: AtomicUsize,
    stopping: AtomicBool,
    tls: Option<Arc<rustls::ServerConfig>>,
}

/// A listening server. Ends on drop, and panics then if nothing ever connected.
pub(crate) struct Server {
    shared: Arc<Shared>,
    address: SocketAddr,
    accepting: Option<JoinHandle<()>>,
    may_stay_unused: AtomicBool,
}

impl Server {
    pub(crate) fn start() -> Self {
        Self::on("127.0.0.1:0", None)
    }

    pub(crate) fn on_ipv6() -> Self {
        Self::on("[::1]:0", None)
    }

    pub(crate) fn tls(config: rustls::ServerConfig) -> Self {
        Self::on("127.0.0.1:0", Some(Arc::new(config)))
    }

    fn on(address: &str, tls: Option<Arc<rustls::ServerConfig>>) -> Self {
        let listener = TcpListener::bind(address).expect("bind a free loopback port");
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            scripts: Mutex::default(),
            requests: Mutex::default(),
            waiting: AtomicUsize::new(0),
            most_waiting: AtomicUsize::new(0),
            connections: AtomicUsize::new(0),
            open: AtomicUsize::new(0),
            stopping: AtomicBool::new(false),
            tls,
        });
        let accepting = thread::spawn({
            let shared = Arc::clone(&shared);
            move || accept(&listener, &shared)
        });
        Self {
            shared,
            address,
            accepting: Some(accepting),
            may_stay_unused: AtomicBool::new(false),
        }
    }

    /// Sets or replaces the script of this path (with its query); an unknown path gets a 404.
    pub(crate) fn set(&self, path: &str, script: Script) {
        let mut scripts = self.shared.scripts.lock().unwrap();
        scripts.insert(path.to_owned(), script);
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn port(&self) -> u16 {
        self.address.port()
    }

    /// The base URL by address.
    pub(crate) fn url(&self) -> String {
        let scheme = if self.shared.tls.is_some() {
            "https"
        } else {
            "http"
        };
        format!("{scheme}://{}", self.address)
    }

    /// The base URL by a name.
    pub(crate) fn url_by(&self, name: &str) -> String {
        let url = self.url();
        url.replace(
            &self.address.to_string(),
            &format!("{name}:{}", self.port()),
        )
    }

    /// Every request so far, in the order of arrival.
    pub(crate) fn requests(&self) -> Vec<Request> {
        self.shared.requests.lock().unwrap().clone()
    }

    /// How often this path was requested.
    pub(crate) fn count(&self, path: &str) -> usize {
        let requests = self.shared.requests.lock().unwrap();
        requests
            .iter()
            .filter(|request| request.path == path)
            .count()
    }

    /// Connections so far, with or without a request on them.
    pub(crate) fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }

    /// Connections that neither side has closed.
    pub(crate) fn open(&self) -> usize {
        self.shared.open.load(Ordering::SeqCst)
    }

    /// The largest number of requests that waited for their answers at the same time.
    pub(crate) fn most_waiting(&self) -> usize {
        self.shared.most_waiting.load(Ordering::SeqCst)
    }

    /// Allows a test without connections. To forbid connections, check [`Server::connections`].
    pub(crate) fn may_stay_unused(&self) {
        self.may_stay_unused.store(true, Ordering::SeqCst);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let connections = self.connections();
        self.shared.stopping.store(true, Ordering::SeqCst);
        // Wakes accept(); if this fails, accept() has failed already.
        drop(TcpStream::connect(self.address));
        if let Some(accepting) = self.accepting.take() {
            let ended = accepting.join();
            assert!(thread::panicking() || ended.is_ok(), "the server panicked");
        }
        let excused = thread::panicking() || self.may_stay_unused.load(Ordering::SeqCst);
        assert!(
            excused || connections > 0,
            "nothing connected to this server"
        );
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    while let Ok((stream, _)) = listener.accept() {
        if shared.stopping.load(Ordering::SeqCst) {
            return;
        }
        shared.connections.fetch_add(1, Ordering::SeqCst);
        shared.open.fetch_add(1, Ordering::SeqCst);
        let shared = Arc::clone(shared);
        // These threads end with their clients: each step fails or returns once the client is gone.
        thread::spawn(move || {
            let raw = stream.try_clone().expect("duplicate a socket");
            let _gone = match shared.tls.clone() {
                None => serve(stream, &raw, &shared),
                Some(config) => rustls::ServerConnection::new(config)
                    .map_err(io::Error::other)
                    .and_then(|tls| serve(rustls::StreamOwned::new(tls, stream), &raw, &shared)),
            };
            shared.open.fetch_sub(1, Ordering::SeqCst);
        });
    }
}

trait Wire: Read + Write {
    /// Closes the connection as its protocol specifies.
    fn end(&mut self);
}

impl Wire for TcpStream {
    fn end(&mut self) {
        let _gone = self.shutdown(Shutdown::Write);
        drain(self);
    }
}

impl Wire for rustls::StreamOwned<rustls::ServerConnection, TcpStream> {
    fn end(&mut self) {
        self.conn.send_close_notify();
        let _gone = self.flush();
        let _gone = self.sock.shutdown(Shutdown::Write);
        drain(&mut self.sock);
    }
}

/// Reads until the client closes: unread bytes would turn our orderly close into a reset.
fn drain(stream: &mut TcpStream) {
    while stream.read(&mut [0; 4096]).is_ok_and(|length| length > 0) {}
}

fn serve(mut wire: impl Wire, socket: &TcpStream, shared: &Shared) -> io::Result<()> {
    let request = read_request(&mut wire)?;
    let turn = {
        let mut requests = shared.requests.lock().unwrap();
        let same = |old: &&Request| old.path == request.path;
        let turn = requests.iter().filter(same).count();
        requests.push(request.clone());
        turn
    };
    let script = shared.scripts.lock().unwrap().get(&request.path).cloned();
    let mut script = script.unwrap_or_else(|| status(404));
    let mut turn = turn;
    let steps = loop {
        match script {
            Script::Steps(steps) => break steps,
            Script::InTurn(mut scripts) => {
                script = scripts.swap_remove(turn.min(scripts.len() - 1));
                turn = 0;
            }
        }
    };
    let waiting = shared.waiting.fetch_add(1, Ordering::SeqCst) + 1;
    shared.most_waiting.fetch_max(waiting, Ordering::SeqCst);
    let last = steps.len().saturating_sub(1);
    for (number, step) in steps.into_iter().enumerate() {
        if number == last {
            // Counted before its answer is complete, because after that the client may send the next one.
            shared.waiting.fetch_sub(1, Ordering::SeqCst);
        }
        match step {
            Step::Send(bytes) => {
                wire.write_all(&bytes)?;
                wire.flush()?;
            }
            Step::Forever(bytes, pause) => loop {
                wire.write_all(&bytes)?;
                wire.flush()?;
                thread::sleep(pause);
            },
            Step::Pause(length) => thread::sleep(length),
            Step::Stall => while wire.read(&mut [0; 512])? > 0 {},
            Step::Reset => {
                let abort = libc::linger {
                    l_onoff: 1,
                    l_linger: 0,
                };
                return Ok(socket::setsockopt(socket, sockopt::Linger, &abort)?);
            }
        }
    }
    wire.end();
    Ok(())
}

/// Reads a request head. Anything else (such as TLS) counts as a request for "".
fn read_request(wire: &mut impl Read) -> io::Result<Request> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        if wire.read(&mut byte)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        head.push(byte[0]);
        if !head[0].is_ascii_uppercase() {
            break;
        }
    }
    let head = String::from_utf8_lossy(&head);
    let mut lines = head.lines();
    let mut words = lines.next().unwrap_or_default().split(' ');
    Ok(Request {
        method: words.next().unwrap_or_default().to_owned(),
        path: words.next().unwrap_or_default().to_owned(),
        headers: lines
            .filter_map(|line| line.split_once(": "))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
            .collect(),
    })
}

/// A listener that accepts nothing and whose accept queue is full: connects to it time out, as with a
/// backend that has hung for a while.
pub(crate) struct FullQueue {
    address: SocketAddr,
    _listener: TcpListener,
    _waiting: Vec<TcpStream>,
}

impl FullQueue {
    pub(crate) fn start() -> Self {
        Self::on("127.0.0.1:0".parse().unwrap(), AddressFamily::Inet)
    }

    pub(crate) fn on_ipv6() -> Self {
        Self::on("[::1]:0".parse().unwrap(), AddressFamily::Inet6)
    }

    fn on(address: SocketAddr, family: AddressFamily) -> Self {
        let listener =
            socket::socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).unwrap();
        socket::bind(listener.as_raw_fd(), &SockaddrStorage::from(address)).unwrap();
        socket::listen(&listener, Backlog::new(0).unwrap()).unwrap();
        let listener = TcpListener::from(listener);
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
            address,
            _listener: listener,
            _waiting: waiting,
        }
    }

    pub(crate) fn port(&self) -> u16 {
        self.address.port()
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

/// A listener that accepts nothing, but whose accept queue still has space: the beginning of a hang.
pub(crate) struct NeverAccepts(TcpListener);

impl NeverAccepts {
    pub(crate) fn start() -> Self {
        Self(TcpListener::bind("127.0.0.1:0").unwrap())
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.0.local_addr().unwrap())
    }
}

/// A reserved port without a listener.
pub(crate) struct DeadPort(std::os::fd::OwnedFd, u16);

impl DeadPort {
    pub(crate) fn reserve() -> Self {
        let fd = socket::socket(
            AddressFamily::Inet,
            SockType::Stream,
            SockFlag::SOCK_CLOEXEC,
            None,
        )
        .unwrap();
        // Bound but not listening: connections to it are refused.
        socket::bind(fd.as_raw_fd(), &SockaddrIn::new(127, 0, 0, 1, 0)).unwrap();
        let bound: SockaddrIn = socket::getsockname(fd.as_raw_fd()).unwrap();
        Self(fd, bound.port())
    }

    pub(crate) fn url(&self) -> String {
        let Self(_held, port) = self;
        format!("http://127.0.0.1:{port}")
    }
}
