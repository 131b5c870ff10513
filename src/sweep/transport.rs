//! The connection of one attempt, below ureq, with one absolute deadline, because
//! ureq's own time limits and errors cannot distinguish a silent backend from a slow one.

use std::io::Read;
use std::sync::Arc;

use nix::errno::Errno;
use nix::poll::PollFlags;
use ureq::Error;
use ureq::unversioned::transport::{
    Buffers, ConnectionDetails, Connector, Either, LazyBuffers, NextTimeout, Transport,
};

use super::attempt::{Attempt, Received};
use super::client::HEAD_MAX;
use super::connect::connect;
use super::failure::{Failure, transport_error};
use super::socket::Socket;
use super::unix;
use crate::cause::{ResponseError, TransportError};
use crate::manifest::Scheme;

/// Enough for most responses in one read, and small with 64 probes in flight.
const INPUT: usize = 8 * 1024;

/// More than the longest head that is accepted, so that a head never fills it.
const INPUT_MAX: usize = HEAD_MAX + 1024;

/// Space for a request's lines other than the longest one.
const OUTPUT: usize = 2 * 1024;

/// The buffers between ureq and a connection, for requests whose lines have at most `longest_line` bytes.
pub(super) fn new_buffers(longest_line: usize) -> LazyBuffers {
    LazyBuffers::new(INPUT, OUTPUT + longest_line)
}

/// The free part of the input, which grows if it is full: ureq takes everything out of it but unfinished heads and lines.
pub(super) fn free_input(buffers: &mut LazyBuffers) -> Result<&mut [u8], Failure> {
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

/// Opens the attempt's connection.
#[derive(Debug)]
pub(super) struct SocketConnector {
    pub(super) attempt: Arc<Attempt>,
    /// The length of the longest line that is sent.
    pub(super) longest_line: usize,
}

impl<In: Transport> Connector<In> for SocketConnector {
    type Out = Either<In, SocketTransport>;

    fn connect(
        &self,
        details: &ConnectionDetails,
        chained: Option<In>,
    ) -> Result<Option<Self::Out>, Error> {
        // A tunnel through a proxy already exists, on a connection made here.
        if let Some(tunnel) = chained {
            return Ok(Some(Either::A(tunnel)));
        }
        let attempt = &self.attempt;
        let socket = match &attempt.client.unix_socket {
            Some(path) => unix::connect(path.as_path(), attempt)?,
            None => connect(&details.addrs, attempt)?,
        };
        if details.needs_tls() {
            // The small records of the TLS handshake must not wait for each other's acknowledgement.
            socket.send_at_once().map_err(Failure::of_socket)?;
        }
        Ok(Some(Either::B(SocketTransport {
            attempt: Arc::clone(attempt),
            socket,
            buffers: new_buffers(self.longest_line),
        })))
    }
}

/// A connection that ends when its attempt does.
#[derive(Debug)]
pub(super) struct SocketTransport {
    attempt: Arc<Attempt>,
    socket: Arc<Socket>,
    buffers: LazyBuffers,
}

impl Transport for SocketTransport {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, amount: usize, _: NextTimeout) -> Result<(), Error> {
        let output = self.buffers.output();
        let mut rest = output.get(..amount).unwrap_or_default();
        while !rest.is_empty() {
            match self.socket.send(rest) {
                Ok(sent) => rest = rest.get(sent..).unwrap_or_default(),
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => {
                    if !self.attempt.wait_for(&self.socket, PollFlags::POLLOUT)? {
                        return Err(Failure::timeout("sending the request").into());
                    }
                }
                // The response may have been sent before the connection was closed, so it is read.
                Err(error) if transport_error(error) == TransportError::Reset => return Ok(()),
                Err(error) => return Err(Failure::of_socket(error).into()),
            }
        }
        self.attempt.note_sent();
        Ok(())
    }

    fn await_input(&mut self, _: NextTimeout) -> Result<bool, Error> {
        loop {
            // Read before the clock is checked: bytes that arrived while this process was kept
            // from running count as received.
            match self.socket.receive(free_input(&mut self.buffers)?) {
                Ok(0) => return Ok(false),
                Ok(count) => {
                    self.buffers.input_appended(count);
                    self.attempt
                        .note_received(match self.attempt.client.base_url.scheme() {
                            Scheme::Http => Received::Response,
                            // Once decrypted, it may be a response.
                            Scheme::Https => Received::Handshake,
                        });
                    if self.attempt.end.has_passed() {
                        return Err(Failure::timeout("receiving the response").into());
                    }
                    return Ok(true);
                }
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => {
                    if !self.attempt.wait_for(&self.socket, PollFlags::POLLIN)? {
                        let doing = if self.attempt.received() == Received::Response {
                            "receiving the response"
                        } else {
                            "waiting for the response"
                        };
                        return Err(Failure::timeout(doing).into());
                    }
                }
                Err(error) => return Err(Failure::of_socket(error).into()),
            }
        }
    }

    fn is_open(&mut self) -> bool {
        // Called only before a pooled connection is reused, and none is pooled.
        false
    }
}
