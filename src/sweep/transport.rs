//! The connection of one attempt, below ureq, with one absolute deadline, because
//! ureq's own time limits and errors cannot distinguish a silent backend from a slow one.

use std::fmt;
use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::fd::AsFd;
use std::sync::Arc;

use nix::poll::{PollFd, PollFlags};
use ureq::Error;
use ureq::unversioned::transport::{
    Buffers, ConnectProxyConnector, ConnectionDetails, Connector, LazyBuffers, NextTimeout,
    Transport,
};

use super::attempt::{Attempt, Received};
use super::connect::connect;
use super::failure::{Failure, transport_error};
use super::{tls, unix};
use crate::cause::{Class, ResponseError, TransportError};

/// The largest size of a response head.
pub(super) const HEAD_MAX: usize = 64 * 1024;

/// Enough for most responses in one read, and small with 64 probes in flight.
const INPUT: usize = 8 * 1024;

/// More than the longest head that is accepted, so that a head never fills it.
const INPUT_MAX: usize = HEAD_MAX + 1024;

/// Space for a request's lines other than those whose length a manifest or a redirect chooses.
pub(super) const OUTPUT: usize = 2 * 1024;

/// The network as one attempt uses it.
#[derive(Clone, Debug)]
pub(super) struct Network {
    pub(super) attempt: Arc<Attempt>,
    /// The length of the URL of the request. A connection through a proxy shows only the proxy's address.
    pub(super) url_length: usize,
}

impl Connector for Network {
    type Out = Box<dyn Transport>;

    fn connect(
        &self,
        details: &ConnectionDetails,
        _: Option<()>,
    ) -> Result<Option<Self::Out>, Error> {
        let attempt = &self.attempt;
        let tunnel = ConnectProxyConnector::default().connect(details, None::<()>);
        let transport: Self::Out = if let Some(tunnel) = tunnel.map_err(of_proxy)? {
            Box::new(tunnel)
        } else {
            let stream = Stream::connect(attempt, details)?;
            Box::new(StreamTransport::new(stream, false, self, details))
        };
        if !details.needs_tls() {
            return Ok(Some(transport));
        }
        let stream = tls::connect(transport, details, attempt.client.tls_config.as_ref())?;
        let transport = StreamTransport::new(stream, true, self, details);
        Ok(Some(Box::new(transport)))
    }
}

/// A failure of the proxy, which proves nothing about the backend.
fn of_proxy(error: Error) -> Failure {
    let mut failure = Failure::from(error);
    if failure.class != Class::TimeoutUnreachable(TransportError::Timeout) {
        failure.class = Class::TimeoutUnreachable(TransportError::Network);
    }
    failure
}

/// A connected socket whose calls end when its attempt does.
struct Stream {
    attempt: Arc<Attempt>,
    socket: Arc<TcpStream>,
}

impl Stream {
    fn connect(attempt: &Arc<Attempt>, details: &ConnectionDetails) -> Result<Self, Failure> {
        let socket = match &attempt.client.unix_socket {
            Some(path) => unix::connect(path.as_path(), attempt)?,
            None => connect(&details.addrs, attempt)?,
        };
        if details.needs_tls() {
            // The small records of the TLS handshake must not wait for each other's acknowledgement.
            socket.set_nodelay(true)?;
        }
        Ok(Self {
            attempt: Arc::clone(attempt),
            socket,
        })
    }

    /// Repeats `call`, which needs the socket to be ready for `event`, until it succeeds, fails, or the attempt ends.
    fn complete(
        &self,
        event: PollFlags,
        mut call: impl FnMut(&TcpStream) -> io::Result<usize>,
    ) -> io::Result<usize> {
        loop {
            // Before the clock is checked: bytes that arrived while this process could not run count as received.
            match call(&self.socket) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    let mut fds = [PollFd::new(self.socket.as_fd(), event)];
                    if self.attempt.wait(&mut fds, self.attempt.end)? {
                        continue;
                    }
                    let doing = match self.attempt.state().received {
                        _ if event == PollFlags::POLLOUT => "sending the request",
                        Received::Response => "receiving the response",
                        Received::Nothing | Received::Handshake => "waiting for the response",
                    };
                    return Err(Failure::timeout(doing).into());
                }
                done => return done.map_err(|error| Failure::from(error).into()),
            }
        }
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.complete(PollFlags::POLLIN, |mut socket| socket.read(buffer))
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.complete(PollFlags::POLLOUT, |mut socket| match socket.write(bytes) {
            // The response may have been sent before the connection was closed, so it is read.
            Err(error) if transport_error(&error) == TransportError::Reset => Ok(bytes.len()),
            written => written,
        })
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A connection of an attempt, in clear text or inside TLS, as ureq uses it.
struct StreamTransport<S> {
    stream: S,
    is_tls: bool,
    attempt: Arc<Attempt>,
    buffers: LazyBuffers,
}

impl<S> StreamTransport<S> {
    fn new(stream: S, is_tls: bool, network: &Network, details: &ConnectionDetails) -> Self {
        // The longest line must fit into the output: a header, for which the configuration has space, or the URL.
        let output = details.config.output_buffer_size() + network.url_length;
        Self {
            stream,
            is_tls,
            attempt: Arc::clone(&network.attempt),
            buffers: LazyBuffers::new(INPUT, output),
        }
    }
}

impl<S: Read + Write + Send + Sync + 'static> Transport for StreamTransport<S> {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, amount: usize, _: NextTimeout) -> Result<(), Error> {
        let output = self.buffers.output();
        (self.stream).write_all(output.get(..amount).unwrap_or_default())?;
        self.attempt.state().written = true;
        Ok(())
    }

    fn await_input(&mut self, _: NextTimeout) -> Result<bool, Error> {
        let read = self.stream.read(free_input(&mut self.buffers)?);
        let count = read.map_err(|error| match error.kind() {
            // Without close_notify, the end may be forged or a truncation (RFC 8446, section 6.1),
            // and ureq would treat it as the normal end of a body.
            ErrorKind::UnexpectedEof => {
                Failure::new(TransportError::Reset, "closed without a TLS close_notify").into()
            }
            _ => error,
        })?;
        self.buffers.input_appended(count);
        if count == 0 {
            return Ok(false);
        }
        // Once decrypted, it may be a response.
        let is_encrypted = !self.is_tls && self.attempt.client.base_url.is_https();
        let received = if is_encrypted {
            Received::Handshake
        } else {
            Received::Response
        };
        let mut state = self.attempt.state();
        state.received = state.received.max(received);
        drop(state);
        if self.attempt.end.has_passed() {
            return Err(Failure::timeout("receiving the response").into());
        }
        Ok(true)
    }

    fn is_open(&mut self) -> bool {
        // Called only before a pooled connection is reused, and none is pooled.
        false
    }

    fn is_tls(&self) -> bool {
        self.is_tls
    }
}

impl<S> fmt::Debug for StreamTransport<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StreamTransport").finish_non_exhaustive()
    }
}

/// The free part of the input, which grows if it is full: ureq takes out everything but unfinished heads and lines.
fn free_input(buffers: &mut LazyBuffers) -> Result<&mut [u8], Failure> {
    if buffers.input_append_buf().is_empty() {
        let held = buffers.input().to_vec();
        *buffers = LazyBuffers::new(INPUT_MAX, buffers.output().len());
        let copied = held.as_slice().read(buffers.input_append_buf());
        buffers.input_appended(copied.unwrap_or_default());
    }
    match buffers.input_append_buf() {
        [] => {
            let detail = "a chunk size line or a trailer of more than 64 KiB";
            Err(Failure::response(ResponseError::Protocol, detail))
        }
        free => Ok(free),
    }
}
