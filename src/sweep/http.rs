//! One attempt over HTTP, its redirects included: what came back, told without an opinion. Outside
//! this room, those below it (line, buffers, tls, names) and the choice of a proxy, nobody knows ureq.

use std::io::{self, Read};
use std::sync::Arc;

use rustls::ClientConfig;
use ureq::config::Config;
use ureq::unversioned::transport::{ConnectProxyConnector, Connector};
use ureq::{Agent, Body, Error, http};

use super::line::{Failure, Line, LineConnector};
use super::names::{LineResolver, Names};
use super::tls::TlsConnector;
use crate::clock::Monotonic;
use crate::manifest::{BaseUrl, Method, Options};
use crate::verdict::TransportError;

/// A response head may have this many bytes.
const HEAD_MAX: usize = 64 * 1024;

/// A body is read in pieces of this many bytes.
const CHUNK: usize = 8 * 1024;

/// What every client of a sweep shares.
#[derive(Debug)]
pub(super) struct Setup {
    pub(super) base_url: BaseUrl,
    pub(super) user_agent: String,
    pub(super) proxy: Option<ureq::Proxy>,
    pub(super) trust: Option<Arc<ClientConfig>>,
    pub(super) names: Arc<Names>,
}

/// Makes attempts, one at a time, each on a fresh connection.
#[derive(Debug)]
pub(super) struct Client {
    agent: Agent,
    line: Arc<Line>,
    base_url: BaseUrl,
    /// The User-Agent's length.
    agent_bytes: usize,
    proxied: bool,
    chunk: Vec<u8>,
}

/// What one attempt brought back.
#[derive(Debug)]
pub(super) struct Reply {
    /// The last response head's status.
    pub(super) status: Option<u16>,
    /// Whether a single byte came back.
    pub(super) heard: bool,
    /// How the attempt ended.
    pub(super) end: End,
}

/// How an attempt ended.
#[derive(Debug)]
pub(super) enum End {
    /// With a response; its body, as far as it was asked for.
    Response(Vec<u8>),
    /// Without a complete response.
    Lost(Failure),
    /// With something that is no HTTP response.
    Broken(String),
    /// With one more redirect than allowed.
    TooManyRedirects,
}

impl Client {
    /// A client of the given setup.
    pub(super) fn new(setup: &Setup) -> Self {
        let line = Arc::new(Line::new());
        let config = Config::builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .max_response_header_size(HEAD_MAX)
            .max_idle_connections(0)
            .user_agent(&setup.user_agent)
            .proxy(setup.proxy.clone())
            .build();
        let connector =
            ().chain(ConnectProxyConnector::default())
                .chain(LineConnector(Arc::clone(&line)))
                .chain(TlsConnector {
                    line: Arc::clone(&line),
                    trust: setup.trust.clone(),
                });
        let resolver = LineResolver {
            line: Arc::clone(&line),
            names: Arc::clone(&setup.names),
        };
        let agent = Agent::with_parts(config, connector, resolver);
        Self {
            agent,
            line,
            base_url: setup.base_url.clone(),
            agent_bytes: setup.user_agent.len(),
            proxied: setup.proxy.is_some(),
            chunk: vec![0; CHUNK],
        }
    }

    /// The record of the present attempt's wire, for somebody who watches from outside.
    pub(super) fn line(&self) -> Arc<Line> {
        Arc::clone(&self.line)
    }

    /// Makes one attempt that ends at `end`. The body is kept only where `keep_body` says so.
    pub(super) fn attempt(
        &mut self,
        path: &str,
        options: &Options,
        keep_body: bool,
        end: Monotonic,
    ) -> Reply {
        let mut url = self.base_url.url(path);
        let headers = options.headers.iter();
        let lines = headers.map(|header| header.name.len() + header.value.reveal().len());
        let longest = lines.fold(url.len().max(self.agent_bytes), usize::max);
        self.line.begin(end, longest);
        let mut status = None;
        let end = self
            .follow(&mut url, options, keep_body, &mut status)
            .unwrap_or_else(|error| self.diagnose(error));
        Reply {
            status,
            heard: self.line.heard(),
            end,
        }
    }

    fn follow(
        &mut self,
        url: &mut String,
        options: &Options,
        keep_body: bool,
        status: &mut Option<u16>,
    ) -> Result<End, Error> {
        let mut followed = 0;
        loop {
            let response = self.agent.run(request(url, options)?)?;
            let code = response.status().as_u16();
            *status = Some(code);
            let next = if options.max_redirects > 0 {
                self.redirect(url, &response)
            } else {
                None
            };
            match next {
                Some(_) if followed == options.max_redirects => return Ok(End::TooManyRedirects),
                Some(next) => {
                    self.line.follow(next.len());
                    *url = next;
                    *status = None;
                }
                // Any other status is judged at the head, so its body is not waited for.
                None if options.expect.accepts(code) => {
                    return Ok(End::Response(self.body(response, options, keep_body)?));
                }
                None => return Ok(End::Response(Vec::new())),
            }
            followed += 1;
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
        match self.line.failure() {
            // ureq takes a reset for the normal end of a body without a length.
            Some(failure) if left > 0 => Err(io::Error::other(failure.detail).into()),
            _ => Ok(kept),
        }
    }

    /// What an error means.
    fn diagnose(&self, error: Error) -> End {
        // The line's own record comes first: it saw the wire itself.
        let end = match self.line.failure() {
            Some(failure) => End::Lost(failure),
            None => meaning(error),
        };
        if self.proxied && !self.line.tunnelled() {
            by_proxy(end)
        } else {
            end
        }
    }
}

/// What an error means of which the line knows nothing.
fn meaning(error: Error) -> End {
    let lost = |loss, detail| {
        End::Lost(Failure {
            loss,
            at_end: false,
            detail,
        })
    };
    match error {
        Error::Protocol(_) | Error::Http(_) | Error::BadUri(_) | Error::BodyStalled => {
            End::Broken(error.to_string())
        }
        Error::LargeResponseHeader(..) => End::Broken("more than 64 KiB of headers".to_owned()),
        Error::Tls(text) => lost(TransportError::Tls, text.to_owned()),
        Error::Io(error) => match error.get_ref().and_then(|e| e.downcast_ref()) {
            Some::<&rustls::Error>(tls) => lost(TransportError::Tls, tls.to_string()),
            None if error.kind() == io::ErrorKind::UnexpectedEof => lost(
                TransportError::Reset,
                "closed before the response was complete".to_owned(),
            ),
            None => lost(TransportError::Network, error.to_string()),
        },
        other => lost(TransportError::Network, other.to_string()),
    }
}

/// How an attempt ended that never came past its proxy: what a proxy does says nothing of the
/// backend behind it.
fn by_proxy(end: End) -> End {
    let (at_end, detail) = match end {
        End::Lost(failure) => match failure.loss {
            TransportError::Timeout => return End::Lost(failure),
            TransportError::Refused
            | TransportError::Reset
            | TransportError::Dns
            | TransportError::Tls
            | TransportError::Network
            | TransportError::Deadline => (failure.at_end, failure.detail),
        },
        End::Broken(detail) => (false, detail),
        End::Response(_) | End::TooManyRedirects => return end,
    };
    End::Lost(Failure {
        loss: TransportError::Network,
        at_end,
        detail,
    })
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
