//! Why an attempt got no complete response: the conversion into ureq's errors and back.

use std::fmt;
use std::io::{self, ErrorKind};

use ureq::Error;

use super::tls;
use crate::cause::{Class, ResponseError, TransportError};

/// The message for a connection that the other side closed too early.
const INCOMPLETE: &str = "closed before the response was complete";

#[derive(Clone, Debug)]
pub(super) struct Failure {
    /// [`Class::TimeoutUnreachable`] or [`Class::HttpError`].
    pub(super) class: Class,
    /// Whether the attempt's end cut it short, rather than the other side.
    pub(super) at_end: bool,
    /// The message of the system or the library.
    pub(super) detail: String,
}

impl Failure {
    /// The other side or the network failed.
    pub(super) fn new(error: TransportError, detail: impl Into<String>) -> Self {
        Self {
            class: Class::TimeoutUnreachable(error),
            at_end: false,
            detail: detail.into(),
        }
    }

    /// The received bytes are not acceptable as a response.
    pub(super) fn response(error: ResponseError, detail: impl Into<String>) -> Self {
        Self {
            class: Class::HttpError(error),
            ..Self::new(TransportError::Network, detail)
        }
    }

    /// The attempt ended while it was `doing` something.
    pub(super) fn timeout(doing: impl Into<String>) -> Self {
        Self {
            at_end: true,
            ..Self::new(TransportError::Timeout, doing)
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.detail)
    }
}

impl std::error::Error for Failure {}

/// An error of a kind that ureq passes on unchanged; it would treat `ConnectionReset` as the normal end of a body.
impl From<Failure> for io::Error {
    fn from(failure: Failure) -> Self {
        Self::other(failure)
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        Self::Io(failure.into())
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        match error {
            Error::Io(error) => error.into(),
            // The connection was closed in the middle of a chunk size line or a trailer.
            Error::BodyStalled => Self::new(TransportError::Reset, INCOMPLETE),
            Error::Protocol(error) => {
                let text = error.to_string();
                let text = text.strip_prefix("http parse fail: ").unwrap_or(&text);
                let detail = format!("not a valid HTTP/1.1 response: {text}");
                Self::response(ResponseError::Protocol, detail)
            }
            Error::Http(_) | Error::BadUri(_) => {
                Self::response(ResponseError::Protocol, error.to_string())
            }
            Error::LargeResponseHeader(..) => {
                Self::response(ResponseError::Protocol, "more than 64 KiB of headers")
            }
            other => Self::new(TransportError::Network, other.to_string()),
        }
    }
}

/// An error of a socket, of rustls, or one that was a [`Failure`] before ureq passed it on.
impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        let error = match error.downcast() {
            Ok(failure) => return failure,
            Err(error) => error,
        };
        match error.downcast::<rustls::Error>() {
            Ok(tls) => Self::new(TransportError::Tls, tls::explain(&tls)),
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => {
                Self::new(TransportError::Reset, INCOMPLETE)
            }
            Err(error) => Self::new(transport_error(&error), error.to_string()),
        }
    }
}

/// The cause for an error of a socket.
pub(super) fn transport_error(error: &io::Error) -> TransportError {
    match error.kind() {
        ErrorKind::ConnectionRefused => TransportError::Refused,
        ErrorKind::ConnectionReset | ErrorKind::ConnectionAborted | ErrorKind::BrokenPipe => {
            TransportError::Reset
        }
        _ => TransportError::Network,
    }
}
