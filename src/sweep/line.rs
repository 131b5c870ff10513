//! The wire under one attempt: a TCP connection that ends at one absolute moment, and a record of
//! what happened on it, because ureq's own time limits and errors cannot tell a mute backend from
//! a slow one. Knows addresses and bytes, and nothing of HTTP or routes.

use std::io;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsFd, AsRawFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrStorage, connect, socket};
use nix::sys::time::TimeSpec;
use ureq::unversioned::transport::{
    Buffers as _, ConnectionDetails, Connector, Either, NextTimeout, Transport,
};
use ureq::{Error, Timeout};

use super::buffers::Buffers;
use crate::clock::Monotonic;
use crate::verdict::TransportError;

/// What happened on the wire since the attempt began. Shared by the connector and the transport,
/// which live inside ureq, and the client that judges them.
#[derive(Debug)]
pub(super) struct Line(Mutex<State>);

#[derive(Debug)]
struct State {
    end: Monotonic,
    longest_line: usize,
    heard: bool,
    failure: Option<Failure>,
    tunnelled: bool,
    connection: Option<(SocketAddr, SocketAddr)>,
    tap: Tap,
    /// The buffers of the connection before, so that not every one has to clear new memory.
    spare: Buffers,
}

/// A second descriptor of the connection, for somebody who must see bytes that nobody has read yet.
/// Only where one asks for it, because it would keep the connection open.
#[derive(Debug, Default)]
enum Tap {
    #[default]
    Unwanted,
    Wanted,
    On(TcpStream),
}

/// How the wire failed.
#[derive(Clone, Debug)]
pub(super) struct Failure {
    /// What was lost.
    pub(super) loss: TransportError,
    /// Whether the attempt's end cut it short, rather than the other side.
    pub(super) at_end: bool,
    /// What the system or the library says.
    pub(super) detail: String,
}

impl State {
    fn new(end: Monotonic, longest_line: usize) -> Self {
        Self {
            end,
            longest_line,
            heard: false,
            failure: None,
            tunnelled: false,
            connection: None,
            tap: Tap::Unwanted,
            spare: Buffers::default(),
        }
    }
}

impl Line {
    /// A line that has not begun an attempt.
    pub(super) fn new() -> Self {
        Self(Mutex::new(State::new(Monotonic::from_micros(0), 0)))
    }

    /// Begins an attempt that ends at `end` and whose requests have no line of more than
    /// `longest_line` bytes.
    pub(super) fn begin(&self, end: Monotonic, longest_line: usize) {
        let mut state = self.state();
        let spare = std::mem::take(&mut state.spare);
        let tap = match state.tap {
            Tap::Unwanted => Tap::Unwanted,
            Tap::Wanted | Tap::On(_) => Tap::Wanted,
        };
        *state = State {
            tap,
            spare,
            ..State::new(end, longest_line)
        };
    }

    /// Goes on with another connection, for an address of `bytes`.
    pub(super) fn follow(&self, bytes: usize) {
        let mut state = self.state();
        state.longest_line = state.longest_line.max(bytes);
        state.tunnelled = false;
    }

    /// When the attempt ends.
    pub(super) fn end(&self) -> Monotonic {
        self.state().end
    }

    /// The bytes of the longest line that the attempt sends.
    pub(super) fn longest_line(&self) -> usize {
        self.state().longest_line
    }

    /// Lets [`Line::heard`] see also what lies in the socket unread.
    pub(super) fn tap(&self) {
        self.state().tap = Tap::Wanted;
    }

    /// Whether a single byte came back during the attempt.
    pub(super) fn heard(&self) -> bool {
        let state = self.state();
        state.heard
            || matches!(&state.tap, Tap::On(stream) if stream.peek(&mut [0]).is_ok_and(|n| n > 0))
    }

    /// Whether the present connection is a tunnel through a proxy.
    pub(super) fn tunnelled(&self) -> bool {
        self.state().tunnelled
    }

    /// How the wire failed, if it did.
    pub(super) fn failure(&self) -> Option<Failure> {
        self.state().failure.clone()
    }

    /// The established connection's local and remote address.
    pub(super) fn connection(&self) -> Option<(SocketAddr, SocketAddr)> {
        self.state().connection
    }

    /// Records that the attempt failed with `loss`; the first failure stands.
    pub(super) fn fail(&self, loss: TransportError, at_end: bool, detail: impl Into<String>) {
        let failure = Failure {
            loss,
            at_end,
            detail: detail.into(),
        };
        self.state().failure.get_or_insert(failure);
    }

    fn opened(&self, stream: &TcpStream, address: SocketAddr) {
        let mut state = self.state();
        state.connection = stream.local_addr().ok().zip(Some(address));
        if let (Tap::Wanted, Ok(tap)) = (&state.tap, stream.try_clone()) {
            state.tap = Tap::On(tap);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn timed_out(&self, detail: &str) -> Error {
        self.fail(TransportError::Timeout, true, detail);
        Error::Timeout(Timeout::Global)
    }

    fn broken(&self, error: io::Error) -> Error {
        self.fail(transport_error(&error), false, error.to_string());
        Error::Io(error)
    }
}

/// What an error of the socket means.
fn transport_error(error: &io::Error) -> TransportError {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => TransportError::Refused,
        io::ErrorKind::ConnectionReset
        | io::ErrorKind::ConnectionAborted
        | io::ErrorKind::BrokenPipe
        | io::ErrorKind::UnexpectedEof => TransportError::Reset,
        _ => TransportError::Network,
    }
}

/// Waits until `fd` is ready for `events` or `end` has come; says which.
fn wait(fd: impl AsFd, events: PollFlags, end: Monotonic) -> io::Result<bool> {
    // The kernel may be late by 0.1 % of a long wait (`select_estimate_accuracy` in fs/select.c),
    // so the last second is waited for separately.
    const LAST: Duration = Duration::from_secs(1);
    loop {
        let left = end.remaining();
        let slice = match left > LAST * 2 {
            true => left.saturating_sub(LAST),
            false => left,
        };
        let mut fds = [PollFd::new(fd.as_fd(), events)];
        match ppoll(&mut fds, Some(TimeSpec::from_duration(slice)), None) {
            Ok(0) if end.has_passed() => return Ok(false),
            Ok(0) | Err(Errno::EINTR) => {}
            Ok(_) => return Ok(true),
            Err(error) => return Err(error.into()),
        }
    }
}

/// Opens the connection on which the line keeps its record.
#[derive(Debug)]
pub(super) struct LineConnector(pub(super) Arc<Line>);

impl<In: Transport> Connector<In> for LineConnector {
    type Out = Either<In, LineTransport>;

    fn connect(
        &self,
        details: &ConnectionDetails,
        chained: Option<In>,
    ) -> Result<Option<Self::Out>, Error> {
        // A tunnel through a proxy stands already; it rests on a connection made here.
        if let Some(tunnel) = chained {
            self.0.state().tunnelled = true;
            return Ok(Some(Either::A(tunnel)));
        }
        let stream = self.open(&details.addrs)?;
        if details.needs_tls() {
            // The handshake's small records must not wait for each other's acknowledgement.
            stream
                .set_nodelay(true)
                .map_err(|error| self.0.broken(error))?;
        }
        let spare = std::mem::take(&mut self.0.state().spare);
        let buffers = spare.prepare(self.0.longest_line());
        Ok(Some(Either::B(LineTransport {
            line: Arc::clone(&self.0),
            stream,
            buffers,
        })))
    }
}

impl LineConnector {
    /// Tries the addresses in order. Each gets an equal share of the time that is left, so the
    /// last one gets all of it. The last one's failure stands.
    pub(super) fn open(&self, addresses: &[SocketAddr]) -> Result<TcpStream, Error> {
        let line = &self.0;
        let mut last = None;
        for (tried, &address) in addresses.iter().enumerate() {
            let waiting = u32::try_from(addresses.len() - tried).unwrap_or(u32::MAX);
            let share = line.end().remaining() / waiting;
            let end = if waiting == 1 {
                line.end()
            } else {
                Monotonic::now() + share
            };
            last = match dial(address, end) {
                Ok(Some(stream)) => {
                    line.opened(&stream, address);
                    return Ok(stream);
                }
                Ok(None) => Some((
                    TransportError::Timeout,
                    true,
                    format!("connecting to {address}"),
                )),
                Err(error) => Some((
                    transport_error(&error),
                    false,
                    format!("{address}: {error}"),
                )),
            };
        }
        if let Some((loss, at_end, detail)) = last {
            line.fail(loss, at_end, detail);
        }
        Err(Error::ConnectionFailed)
    }
}

/// Connects to `address` by `end`; `None` when the time is over.
fn dial(address: SocketAddr, end: Monotonic) -> io::Result<Option<TcpStream>> {
    let family = if address.is_ipv4() {
        AddressFamily::Inet
    } else {
        AddressFamily::Inet6
    };
    loop {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let stream = TcpStream::from(socket(family, SockType::Stream, flags, None)?);
        match connect(stream.as_raw_fd(), &SockaddrStorage::from(address)) {
            Ok(()) => return Ok(Some(stream)),
            // Interrupted, the connection is still being established (connect(2)).
            Err(Errno::EINPROGRESS | Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
        if !wait(&stream, PollFlags::POLLOUT, end)? {
            return Ok(None);
        }
        match stream.take_error()? {
            None => return Ok(Some(stream)),
            // The kernel gave up its own retransmissions before our time was over.
            Some(error) if error.raw_os_error() == Some(Errno::ETIMEDOUT as i32) => {
                if end.has_passed() {
                    return Ok(None);
                }
            }
            Some(error) => return Err(error),
        }
    }
}

/// A connection that ends when its line does.
#[derive(Debug)]
pub(super) struct LineTransport {
    line: Arc<Line>,
    stream: TcpStream,
    buffers: Buffers,
}

impl Transport for LineTransport {
    fn buffers(&mut self) -> &mut dyn ureq::unversioned::transport::Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, amount: usize, _: NextTimeout) -> Result<(), Error> {
        let mut rest = self.buffers.filled_output(amount);
        while !rest.is_empty() {
            match self.stream.write(rest) {
                Ok(sent) => rest = rest.get(sent..).unwrap_or_default(),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    let end = self.line.end();
                    if !wait(&self.stream, PollFlags::POLLOUT, end)
                        .map_err(|error| self.line.broken(error))?
                    {
                        return Err(self.line.timed_out("sending the request"));
                    }
                }
                // An answer may have been sent before the connection was closed: reading tells.
                Err(error) if transport_error(&error) == TransportError::Reset => return Ok(()),
                Err(error) => return Err(self.line.broken(error)),
            }
        }
        Ok(())
    }

    fn await_input(&mut self, _: NextTimeout) -> Result<bool, Error> {
        let line = &self.line;
        loop {
            // Read before the clock is looked at: bytes that arrived while this process was kept
            // from running must count as heard.
            match self.stream.read(self.buffers.free_input()?) {
                Ok(0) => return Ok(false),
                Ok(count) => {
                    self.buffers.input_appended(count);
                    line.state().heard = true;
                    if line.end().has_passed() {
                        return Err(line.timed_out("receiving the response"));
                    }
                    return Ok(true);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if !wait(&self.stream, PollFlags::POLLIN, line.end())
                        .map_err(|error| line.broken(error))?
                    {
                        return Err(line.timed_out("waiting for the response"));
                    }
                }
                Err(error) => return Err(line.broken(error)),
            }
        }
    }

    fn is_open(&mut self) -> bool {
        // Asked only before a pooled connection is used again, and none is pooled.
        false
    }
}

impl Drop for LineTransport {
    fn drop(&mut self) {
        self.line.state().spare = std::mem::take(&mut self.buffers);
    }
}
