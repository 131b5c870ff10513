//! Resolves names within an attempt's time. getaddrinfo(3) has no timeout, so each lookup has its own
//! thread. A name that was found is not looked up again during a sweep, and numeric addresses never.

use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;

use ureq::Error;
use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::NextTimeout;

use super::attempt::Attempt;
use super::failure::Failure;
use super::transport::Network;
use crate::cause::TransportError;
use crate::manifest::default_port;

/// The capacity of ureq's list of addresses.
const ADDRESSES_MAX: usize = 16;

impl Attempt {
    /// The addresses of `host`, a name or a number without brackets, by the attempt's end.
    pub(super) fn resolve(&self, host: &str) -> Result<Vec<IpAddr>, Failure> {
        if let Ok(number) = host.parse() {
            return Ok(vec![number]);
        }
        if let Some(known) = self.client.sweep().names.get(host) {
            return Ok(known.clone());
        }
        let failed = |detail: String| Failure::new(TransportError::Dns, detail);
        let (sender, receiver) = mpsc::channel();
        let (client, name) = (Arc::clone(&self.client), host.to_owned());
        let look_up = move || {
            let found = (name.as_str(), 0).to_socket_addrs();
            let found = found.map(|list| list.map(|at| at.ip()).collect::<Vec<IpAddr>>());
            if let Ok(list) = &found
                && !list.is_empty()
            {
                // Even if this is too late for the attempt that asked: the next one finds it.
                client.sweep().names.insert(name, list.clone());
            }
            let _ = sender.send(found);
        };
        let thread = thread::Builder::new().name("resolve".to_owned());
        let started = thread.spawn(look_up);
        started.map_err(|error| failed(format!("could not start a thread: {error}")))?;
        loop {
            let slice = self.begin_slice(self.end);
            let found = receiver.recv_timeout(slice.remaining());
            self.note_awake();
            return match found {
                Err(RecvTimeoutError::Timeout) if !self.end.has_passed() => continue,
                Err(_) => Err(Failure {
                    at_end: true,
                    ..failed("the resolver did not answer".to_owned())
                }),
                Ok(Ok(list)) if list.is_empty() => {
                    Err(failed("the name has no address".to_owned()))
                }
                Ok(found) => found.map_err(|error| failed(error.to_string())),
            };
        }
    }
}

/// Resolves names by the end of the attempt; resolves nothing if the backend listens on a UNIX socket.
impl Resolver for Network {
    fn resolve(&self, uri: &Uri, _: &Config, _: NextTimeout) -> Result<ResolvedSocketAddrs, Error> {
        let attempt = &self.attempt;
        let mut resolved = self.empty();
        if attempt.client.unix_socket.is_some() {
            return Ok(resolved);
        }
        let is_https = uri.scheme_str() == Some("https");
        let port = uri.port_u16().unwrap_or(default_port(is_https));
        let addresses = attempt.resolve(bare_host(uri))?;
        for address in addresses.into_iter().take(ADDRESSES_MAX) {
            resolved.push(SocketAddr::new(address, port));
        }
        Ok(resolved)
    }
}

/// The host of `uri`: a name, or a number without brackets.
pub(super) fn bare_host(uri: &Uri) -> &str {
    let host = uri.host().unwrap_or_default();
    host.trim_start_matches('[').trim_end_matches(']')
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::time::Duration;

    use super::super::client::Client;
    use super::super::http::tests::settings;
    use super::*;
    use crate::clock::Monotonic;

    /// Read as a number by every resolver (inet_aton(3)), so that no hosts file is needed.
    const NAME: &str = "0x7f000001";

    fn client() -> Arc<Client> {
        settings("http://backend.example").into()
    }

    fn attempt(client: &Arc<Client>) -> Attempt {
        let limit = Duration::from_secs(5);
        Attempt::new(client, Monotonic::now() + limit, limit)
    }

    #[test]
    fn numbers_need_no_lookup() {
        let client = client();
        let found = attempt(&client).resolve("::1").unwrap();
        assert_eq!(found, ["::1".parse::<IpAddr>().unwrap()]);
        assert!(client.sweep().names.is_empty());
    }

    #[test]
    fn a_name_that_was_found_is_kept_until_it_is_forgotten() {
        let client = client();
        let resolve = || attempt(&client).resolve(NAME).unwrap();
        assert_eq!(resolve(), [Ipv4Addr::LOCALHOST]);
        let planted: IpAddr = "192.0.2.1".parse().unwrap();
        (client.sweep().names).insert(NAME.to_owned(), vec![planted]);
        assert_eq!(resolve(), [planted]);
        client.begin_sweep();
        assert_eq!(resolve(), [Ipv4Addr::LOCALHOST]);
    }

    #[test]
    fn an_answer_that_is_too_late_serves_the_next_attempt() {
        let client = client();
        let late = Attempt::new(&client, Monotonic::now(), Duration::from_secs(5));
        let failure = late.resolve(NAME).map_err(|failure| failure.at_end);
        // The resolver may be faster than the check of the clock.
        assert!(failure.is_ok() || failure == Err(true));
        let end = Monotonic::now() + Duration::from_secs(5);
        while client.sweep().names.is_empty() {
            assert!(!end.has_passed(), "never found");
            thread::yield_now();
        }
    }
}
