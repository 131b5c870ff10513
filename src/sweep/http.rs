//! One attempt over HTTP, including its redirects: the response, or why there is none. `probe` judges both.
//! Only this file and failure, transport, buffers, tls, dns and proxy use ureq.

use std::io::Read;
use std::net::SocketAddr;
use std::sync::Arc;

use ureq::config::Config;
use ureq::http::{self, Uri};
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{Connector, NextTimeout};
use ureq::{Agent, Body, Error};

use super::attempt::Attempt;
use super::client::Client;
use super::dns::bare_host;
use super::failure::Failure;
use super::proxy::ProxyConnector;
use super::tls::TlsConnector;
use super::transport::SocketConnector;
use crate::cause::ResponseError;
use crate::manifest::{BaseUrl, Method, Options, Scheme};

/// The capacity of ureq's list of addresses.
const ADDRESSES_MAX: usize = 16;
/// Bytes of a body that nobody checks are read in pieces of this size.
const PIECE: usize = 2 * 1024;

/// A response with any status.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Response {
    pub(super) status: u16,
    /// Empty unless it was to be kept.
    pub(super) body: Vec<u8>,
}

impl Attempt {
    /// Sends the request and follows its redirects, each on a fresh connection. Keeps the body only if
    /// `keep_body` is set.
    ///
    /// # Errors
    ///
    /// There was no complete response by the attempt's end, the response was not HTTP, or there were too many
    /// redirects.
    pub(super) fn send(
        self: &Arc<Self>,
        path: &str,
        options: &Options,
        keep_body: bool,
    ) -> Result<Response, Failure> {
        let base_url = &self.client.base_url;
        let mut url = base_url.url(path);
        let mut redirected = None;
        for _ in 0..=options.max_redirects {
            let agent = agent(self, longest_line(&self.client, &url, options));
            let response = agent.run(request(&url, options)?)?;
            let status = response.status().as_u16();
            if options.max_redirects > 0
                && let Some(next) = redirect(base_url, &url, &response)
            {
                url = next;
                redirected = Some(status);
                continue;
            }
            // Any other status is judged by the head alone, so its body is not read.
            let body = match options.expect.accepts(status) {
                true => read(response, options, keep_body).map_err(|error| Failure {
                    status: Some(status),
                    ..error.into()
                })?,
                false => Vec::new(),
            };
            return Ok(Response { status, body });
        }
        let detail = format!("more than {} redirects", options.max_redirects);
        Err(Failure {
            status: redirected,
            ..Failure::response(ResponseError::Redirects, detail)
        })
    }
}

/// The agent for one request of the attempt, whose lines have at most `longest_line` bytes.
fn agent(attempt: &Arc<Attempt>, longest_line: usize) -> Agent {
    let connector = ()
        .chain(ProxyConnector::default())
        .chain(SocketConnector {
            attempt: Arc::clone(attempt),
            longest_line,
        })
        .chain(TlsConnector {
            config: attempt.client.tls_config.clone(),
            attempt: Arc::clone(attempt),
            longest_line,
        });
    let config = attempt.client.config.clone();
    Agent::with_parts(config, connector, AttemptResolver(Arc::clone(attempt)))
}

/// Resolves names by the end of an attempt; resolves nothing if the backend listens on a UNIX socket.
#[derive(Debug)]
struct AttemptResolver(Arc<Attempt>);

impl Resolver for AttemptResolver {
    fn resolve(&self, uri: &Uri, _: &Config, _: NextTimeout) -> Result<ResolvedSocketAddrs, Error> {
        let Self(attempt) = self;
        let mut resolved = self.empty();
        if attempt.client.unix_socket.is_some() {
            return Ok(resolved);
        }
        let scheme = match uri.scheme_str() {
            Some("https") => Scheme::Https,
            Some(_) | None => Scheme::Http,
        };
        let port = uri.port_u16().unwrap_or(scheme.port());
        let addresses = attempt.resolve(bare_host(uri))?;
        for address in addresses.into_iter().take(ADDRESSES_MAX) {
            resolved.push(SocketAddr::new(address, port));
        }
        Ok(resolved)
    }
}

fn longest_line(client: &Client, url: &str, options: &Options) -> usize {
    let headers = options.headers.iter();
    let lines = headers.map(|header| header.name.len() + header.value.reveal().len());
    lines.fold(url.len().max(client.user_agent.len()), usize::max)
}

/// One request: the first one, or one after a redirect.
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

/// The target of a redirect, if it may be followed: it stays within the origin.
fn redirect(base_url: &BaseUrl, url: &str, response: &http::Response<Body>) -> Option<String> {
    if !matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308) {
        return None;
    }
    let location = response.headers().get(http::header::LOCATION)?;
    base_url.resolve(url, location.to_str().ok()?)
}

/// Reads the body up to the options' limit.
fn read(response: http::Response<Body>, options: &Options, keep: bool) -> Result<Vec<u8>, Error> {
    let body = response.into_body().into_reader();
    let mut body = body.take(options.max_body_bytes as u64);
    let mut kept = Vec::new();
    match keep {
        true => body.read_to_end(&mut kept).map(drop)?,
        false => while body.read(&mut [0; PIECE])? > 0 {},
    }
    Ok(kept)
}

#[cfg(test)]
pub(super) mod tests;
