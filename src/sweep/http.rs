//! One attempt over HTTP, including its redirects: the response, or why there is none. `probe` judges both.
//! Only this file and failure, transport, tls, dns and client use ureq.

use std::io::{self, Read, Write, sink};
use std::sync::Arc;

use ureq::http;
use ureq::{Agent, Body, Error};

use super::attempt::Attempt;
use super::failure::Failure;
use super::transport::Network;
use crate::cause::ResponseError;
use crate::manifest::{BaseUrl, Options, Route};

/// A response with any status.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Response {
    pub(super) status: u16,
    /// Where a redirect leads.
    pub(super) location: Option<String>,
    /// How the body is compressed, if it is.
    pub(super) encoding: Option<String>,
    /// Empty unless it was to be kept.
    pub(super) body: Vec<u8>,
}

impl Attempt {
    /// Sends the request and follows its redirects, each on a fresh connection, until the attempt's end. Keeps the body
    /// only for the route's checks.
    pub(super) fn send(self: &Arc<Self>, route: &Route) -> Result<Response, Failure> {
        let (base_url, options) = (&self.client.base_url, &route.options);
        let mut url = base_url.url(&route.path);
        for _ in 0..=options.max_redirects {
            self.state().status = None;
            let network = Network {
                attempt: Arc::clone(self),
                url_length: url.len(),
            };
            let agent = Agent::with_parts(self.client.config.clone(), network.clone(), network);
            let response = agent.run(request(&url, options)?)?;
            self.state().status = Some(response.status().as_u16());
            match redirect(base_url, &url, &response) {
                Some(next) if options.max_redirects > 0 => url = next,
                _ => return complete(response, route),
            }
        }
        let detail = format!("more than {} redirects", options.max_redirects);
        Err(Failure::response(ResponseError::Redirects, detail))
    }
}

/// One request: the first one, or one after a redirect.
fn request(url: &str, options: &Options) -> Result<http::Request<()>, Error> {
    let mut request = (http::Request::builder().method(options.method.as_str())).uri(url);
    for header in &options.headers {
        request = request.header(&header.name, header.reveal().as_bytes());
    }
    Ok(request.header(http::header::CONNECTION, "close").body(())?)
}

fn is_redirect(status: u16) -> bool {
    matches!(status, 301 | 302 | 303 | 307 | 308)
}

/// The target of a redirect, if it may be followed: it stays within the origin.
fn redirect(base_url: &BaseUrl, url: &str, response: &http::Response<Body>) -> Option<String> {
    if !is_redirect(response.status().as_u16()) {
        return None;
    }
    let location = response.headers().get(http::header::LOCATION)?;
    base_url.resolve(url, location.to_str().ok()?)
}

/// The response with its body, which is read only if the status is expected: any other one is judged by the head.
fn complete(response: http::Response<Body>, route: &Route) -> Result<Response, Failure> {
    let status = response.status().as_u16();
    let field = |name| {
        let value = response.headers().get(name)?.as_bytes();
        Some(String::from_utf8_lossy(value).into_owned())
    };
    let location = field(http::header::LOCATION).filter(|_| is_redirect(status));
    let encoding = field(http::header::CONTENT_ENCODING).filter(|name| name != "identity");
    let mut body = Vec::new();
    if route.options.accepts(status) {
        let reader = response.into_body().into_reader();
        let mut reader = reader.take(route.options.max_body_bytes as u64);
        let is_kept = route.checks.is_some();
        let kept: &mut dyn Write = if is_kept { &mut body } else { &mut sink() };
        io::copy(&mut reader, kept).map_err(|error| {
            let mut failure = Failure::from(Error::from(error));
            if failure.at_end {
                "receiving the body".clone_into(&mut failure.detail);
            }
            failure
        })?;
    }
    Ok(Response {
        status,
        location,
        encoding,
        body,
    })
}

#[cfg(test)]
pub(super) mod tests;
