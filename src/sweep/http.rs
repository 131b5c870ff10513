//! One attempt over HTTP, including its redirects: the response or the error. `probe` judges both. Outside this module, those below it (attempt, transport, buffers, tls, dns) and the choice
//! of a proxy, no other file uses ureq.

use std::io::{self, Read};
use std::sync::Arc;

use rustls::ClientConfig;
use ureq::config::Config;
use ureq::unversioned::transport::{ConnectProxyConnector, Connector};
use ureq::{Agent, Body, Error, http};

use super::attempt::{Attempt, ConnectionLog, Failure, ProbeConnection};
use super::dns::{AttemptResolver, DnsCache};
use super::tls::TlsConnector;
use super::transport::SocketConnector;
use crate::clock::Monotonic;
use crate::manifest::{BaseUrl, Method, Options, Scheme, SocketPath};
use crate::verdict::TransportError;

/// A response head may have this many bytes.
const HEAD_MAX: usize = 64 * 1024;

/// The message for a connection that the other side closed too early.
const INCOMPLETE: &str = "closed before the response was complete";

/// A body is read in pieces of this many bytes.
const CHUNK: usize = 8 * 1024;

/// The settings that all clients of a sweep share.
#[derive(Debug)]
pub(super) struct Setup {
    pub(super) base_url: BaseUrl,
    /// Where to connect instead of the URL's host and port.
    pub(super) unix_socket: Option<SocketPath>,
    pub(super) user_agent: String,
    pub(super) proxy: Option<ureq::Proxy>,
    pub(super) tls_config: Option<Arc<ClientConfig>>,
    pub(super) dns: Arc<DnsCache>,
    /// Where connections are recorded, if they are.
    pub(super) log: Option<Arc<ConnectionLog>>,
}

/// Makes attempts, one at a time, each on a fresh connection.
#[derive(Debug)]
pub(super) struct Client {
    agent: Agent,
    attempt: Arc<Attempt>,
    base_url: BaseUrl,
    /// The User-Agent's length.
    agent_bytes: usize,
    proxied: bool,
    chunk: Vec<u8>,
}

/// A response with any status.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Response {
    pub(super) status: u16,
    /// As far as it was asked for.
    pub(super) body: Vec<u8>,
}

/// Why an attempt brought no response.
#[derive(Debug)]
pub(super) struct AttemptError {
    pub(super) kind: ErrorKind,
    /// The last response head's status, where one came.
    pub(super) status: Option<u16>,
    /// Whether a single byte came back.
    pub(super) received_any: bool,
}

/// The kinds of [`AttemptError`].
#[derive(Debug)]
pub(super) enum ErrorKind {
    /// No complete response came.
    Transport(Failure),
    /// What came is not HTTP; why.
    Protocol(String),
    /// One more redirect than allowed.
    TooManyRedirects,
}

impl Client {
    /// A client of the given setup.
    pub(super) fn new(setup: &Setup) -> Self {
        let attempt = Arc::new(Attempt::new(setup.log.clone()));
        let config = Config::builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .max_response_header_size(HEAD_MAX)
            .max_idle_connections(0)
            .user_agent(&setup.user_agent)
            .proxy(setup.proxy.clone())
            .build();
        let connector = ()
            .chain(ConnectProxyConnector::default())
            .chain(SocketConnector {
                attempt: Arc::clone(&attempt),
                unix_socket: setup.unix_socket.clone(),
                is_http: setup.base_url.scheme() == Scheme::Http,
            })
            .chain(TlsConnector {
                attempt: Arc::clone(&attempt),
                config: setup.tls_config.clone(),
            });
        let resolver = AttemptResolver {
            attempt: Arc::clone(&attempt),
            dns: match setup.unix_socket {
                Some(_) => None,
                None => Some(Arc::clone(&setup.dns)),
            },
        };
        let agent = Agent::with_parts(config, connector, resolver);
        Self {
            agent,
            attempt,
            base_url: setup.base_url.clone(),
            agent_bytes: setup.user_agent.len(),
            proxied: setup.proxy.is_some(),
            chunk: vec![0; CHUNK],
        }
    }

    /// The state of the current attempt, for other threads.
    pub(super) fn state(&self) -> Arc<Attempt> {
        Arc::clone(&self.attempt)
    }

    /// The connections of the last attempt that are established or still pending.
    pub(super) fn connections(&self) -> Vec<ProbeConnection> {
        self.attempt.connections()
    }

    /// Makes one attempt that ends at `end`. The body is kept only where `keep_body` says so.
    ///
    /// # Errors
    ///
    /// Where there was no complete response by then, nothing that is HTTP, or too many redirects.
    pub(super) fn attempt(
        &mut self,
        path: &str,
        options: &Options,
        keep_body: bool,
        end: Monotonic,
    ) -> Result<Response, AttemptError> {
        let url = self.base_url.url(path);
        let headers = options.headers.iter();
        let lines = headers.map(|header| header.name.len() + header.value.reveal().len());
        let longest = lines.fold(url.len().max(self.agent_bytes), usize::max);
        self.attempt.begin(end, longest);
        let mut status = None;
        self.follow(url, options, keep_body, &mut status)
            .map_err(|kind| AttemptError {
                kind,
                status,
                received_any: self.attempt.received_any(),
            })
    }

    /// Sends the request and follows redirects; `status` is that of the last response head.
    fn follow(
        &mut self,
        mut url: String,
        options: &Options,
        keep_body: bool,
        status: &mut Option<u16>,
    ) -> Result<Response, ErrorKind> {
        let mut followed = 0;
        loop {
            let request = request(&url, options).map_err(|error| self.kind(error))?;
            let response = self.agent.run(request).map_err(|error| self.kind(error))?;
            let code = response.status().as_u16();
            *status = Some(code);
            let next = match options.max_redirects {
                0 => None,
                _ => self.redirect(&url, &response),
            };
            if let Some(next) = next {
                if followed == options.max_redirects {
                    return Err(ErrorKind::TooManyRedirects);
                }
                followed += 1;
                self.attempt.follow(next.len());
                url = next;
                *status = None;
                continue;
            }
            // Any other status is judged at the head, so its body is not waited for.
            let body = match options.expect.accepts(code) {
                true => self
                    .body(response, options, keep_body)
                    .map_err(|error| self.kind(error))?,
                false => Vec::new(),
            };
            return Ok(Response { status: code, body });
        }
    }

    /// Where a redirect leads, if it is one that may be followed: it stays within the origin.
    fn redirect(&self, url: &str, response: &http::Response<Body>) -> Option<String> {
        if !matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308) {
            return None;
        }
        let location = response.headers().get(http::header::LOCATION)?;
        self.base_url.resolve(url, location.to_str().ok()?)
    }

    /// Reads the body up to the options' limit.
    fn body(
        &mut self,
        response: http::Response<Body>,
        options: &Options,
        keep: bool,
    ) -> Result<Vec<u8>, Error> {
        let mut reader = response.into_body().into_reader();
        let mut kept = Vec::new();
        let mut left = options.max_body_bytes;
        while left > 0 {
            let wanted = left.min(self.chunk.len());
            let count = match reader.read(self.chunk.get_mut(..wanted).unwrap_or_default()) {
                Ok(0) => break,
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error.into()),
            };
            if keep {
                kept.extend_from_slice(self.chunk.get(..count).unwrap_or_default());
            }
            left -= count;
        }
        Ok(kept)
    }

    /// What an error means.
    fn kind(&self, error: Error) -> ErrorKind {
        let kind = kind(error);
        if self.proxied && !self.attempt.tunnelled() {
            of_proxy(kind)
        } else {
            kind
        }
    }
}

fn kind(error: Error) -> ErrorKind {
    let transport = |error, detail| ErrorKind::Transport(Failure::new(error, detail));
    match error {
        Error::Io(error) => {
            let inner = error.get_ref();
            let tls = inner.and_then(|inner| inner.downcast_ref::<rustls::Error>());
            match (inner.and_then(|inner| inner.downcast_ref()), tls) {
                (Some(failure), _) => ErrorKind::Transport(Failure::clone(failure)),
                (None, Some(tls)) => transport(TransportError::Tls, tls.to_string()),
                (None, None) if error.kind() == io::ErrorKind::UnexpectedEof => {
                    transport(TransportError::Reset, INCOMPLETE.to_owned())
                }
                (None, None) => transport(TransportError::Network, error.to_string()),
            }
        }
        // Closed in the middle of a chunk size line or a trailer.
        Error::BodyStalled => transport(TransportError::Reset, INCOMPLETE.to_owned()),
        Error::Protocol(_) | Error::Http(_) | Error::BadUri(_) => {
            ErrorKind::Protocol(error.to_string())
        }
        Error::LargeResponseHeader(..) => {
            ErrorKind::Protocol("more than 64 KiB of headers".to_owned())
        }
        Error::Tls(text) => transport(TransportError::Tls, text.to_owned()),
        other => transport(TransportError::Network, other.to_string()),
    }
}

/// How an attempt failed that never came past its proxy: what a proxy does says nothing of the
/// backend behind it.
fn of_proxy(kind: ErrorKind) -> ErrorKind {
    match kind {
        ErrorKind::Transport(Failure {
            error: TransportError::Timeout,
            ..
        })
        | ErrorKind::TooManyRedirects => kind,
        ErrorKind::Transport(failure) => ErrorKind::Transport(Failure {
            error: TransportError::Network,
            ..failure
        }),
        ErrorKind::Protocol(detail) => {
            ErrorKind::Transport(Failure::new(TransportError::Network, detail))
        }
    }
}

/// The request for one hop.
fn request(url: &str, options: &Options) -> Result<http::Request<()>, Error> {
    let method = match options.method {
        Method::Get => http::Method::GET,
        Method::Head => http::Method::HEAD,
    };
    let mut request = http::Request::builder().method(method).uri(url);
    for header in &options.headers {
        request = request.header(&header.name, header.value.reveal().as_bytes());
    }
    Ok(request.header(http::header::CONNECTION, "close").body(())?)
}

#[cfg(test)]
mod tests;
