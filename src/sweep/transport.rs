//! The connection of one attempt, below ureq, with one absolute deadline, because
//! ureq's own time limits and errors cannot distinguish a silent backend from a slow one.

use std::os::fd::AsFd;
use std::sync::Arc;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags};
use ureq::Error;
use ureq::unversioned::transport::{
    Buffers as _, ConnectionDetails, Connector, Either, NextTimeout, Transport,
};

use super::attempt::{Attempt, Received};
use super::buffers::Buffers;
use super::connect::connect;
use super::failure::{Failure, transport_error};
use super::socket::Socket;
use super::unix;
use crate::cause::TransportError;
use crate::manifest::Scheme;

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
        let client = &self.attempt.client;
        let socket = match &client.unix_socket {
            Some(path) => unix::connect(path.as_path(), &self.attempt)?,
            None => connect(&details.addrs, &self.attempt)?,
        };
        if details.needs_tls() {
            // The small records of the TLS handshake must not wait for each other's acknowledgement.
            socket.send_at_once().map_err(Failure::of_socket)?;
        }
        Ok(Some(Either::B(SocketTransport {
            attempt: Arc::clone(&self.attempt),
            socket,
            buffers: client.take_buffers(self.longest_line),
            is_http: client.base_url.scheme() == Scheme::Http,
        })))
    }
}

/// A connection that ends when its attempt does.
#[derive(Debug)]
pub(super) struct SocketTransport {
    attempt: Arc<Attempt>,
    socket: Arc<Socket>,
    buffers: Buffers,
    /// Whether it carries plain HTTP rather than TLS.
    is_http: bool,
}

impl Drop for SocketTransport {
    fn drop(&mut self) {
        let buffers = std::mem::take(&mut self.buffers);
        self.attempt.client.return_buffers(buffers);
    }
}

impl SocketTransport {
    /// Waits for `events` until the attempt ends; returns whether the socket is ready.
    fn wait_for(&self, events: PollFlags) -> Result<bool, Failure> {
        let mut fds = [PollFd::new(self.socket.as_fd(), events)];
        let ready = self.attempt.wait(&mut fds, self.attempt.end);
        ready.map_err(Failure::of_socket)
    }
}

impl Transport for SocketTransport {
    fn buffers(&mut self) -> &mut dyn ureq::unversioned::transport::Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, amount: usize, _: NextTimeout) -> Result<(), Error> {
        if self.is_http {
            self.buffers.begin_response();
        }
        let mut rest = self.buffers.filled_output(amount);
        while !rest.is_empty() {
            match self.socket.send(rest) {
                Ok(sent) => rest = rest.get(sent..).unwrap_or_default(),
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => {
                    if !self.wait_for(PollFlags::POLLOUT)? {
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
            match self.socket.receive(self.buffers.free_input()?) {
                Ok(0) => return Ok(false),
                Ok(count) => {
                    self.buffers.input_appended(count);
                    self.attempt.note_received(if self.is_http {
                        Received::Response
                    } else {
                        Received::Handshake
                    });
                    if self.attempt.end.has_passed() {
                        return Err(Failure::timeout("receiving the response").into());
                    }
                    return Ok(true);
                }
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => {
                    if !self.wait_for(PollFlags::POLLIN)? {
                        return Err(Failure::timeout("waiting for the response").into());
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
