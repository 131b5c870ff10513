//! Resolves names within an attempt's time. getaddrinfo(3) has no timeout, so each lookup has its own
//! thread. A name that was found is not looked up again during a sweep, and numeric addresses never.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, ToSocketAddrs};
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use ureq::http::Uri;

use super::failure::Failure;
use crate::cause::TransportError;
use crate::clock::Monotonic;

type Addresses = HashMap<String, Vec<IpAddr>>;

/// The names that were found during one sweep, and their addresses.
#[derive(Clone, Debug, Default)]
pub(super) struct DnsCache(Arc<Mutex<Addresses>>);

impl DnsCache {
    /// Forgets all names.
    pub(super) fn forget(&self) {
        self.addresses().clear();
    }

    /// Uses `address` as the result of a lookup of `host`.
    #[cfg(test)]
    pub(super) fn plant(&self, host: &str, address: IpAddr) {
        self.addresses().insert(host.to_owned(), vec![address]);
    }

    /// The addresses of `host`, a name or a number without brackets, by `end`.
    pub(super) fn resolve(&self, host: &str, end: Monotonic) -> Result<Vec<IpAddr>, Failure> {
        self.look_up(host)?.wait(end)
    }

    /// Begins to look up `host`.
    pub(super) fn look_up(&self, host: &str) -> Result<Lookup, Failure> {
        if let Ok(number) = host.parse() {
            return Ok(Lookup::Known(vec![number]));
        }
        if let Some(known) = self.addresses().get(host) {
            return Ok(Lookup::Known(known.clone()));
        }
        let (sender, receiver) = mpsc::channel();
        let (cache, name) = (self.clone(), host.to_owned());
        let look_up = move || {
            let found = (name.as_str(), 0).to_socket_addrs();
            let found = found.map(|list| list.map(|at| at.ip()).collect::<Vec<IpAddr>>());
            if let Ok(list) = &found
                && !list.is_empty()
            {
                // Even if this is too late for the attempt that asked: the next one finds it.
                cache.addresses().insert(name, list.clone());
            }
            let _ = sender.send(found);
        };
        let thread = thread::Builder::new().name("resolve".to_owned());
        match thread.spawn(look_up) {
            Ok(_) => Ok(Lookup::Running(receiver)),
            Err(error) => Err(failed(format!("could not start a thread: {error}"))),
        }
    }

    fn addresses(&self) -> MutexGuard<'_, Addresses> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A lookup of one name.
#[derive(Debug)]
pub(super) enum Lookup {
    Known(Vec<IpAddr>),
    /// In its own thread.
    Running(Receiver<io::Result<Vec<IpAddr>>>),
}

impl Lookup {
    /// The addresses, by `end`. After an error with `at_end`, it can be waited for again.
    pub(super) fn wait(&self, end: Monotonic) -> Result<Vec<IpAddr>, Failure> {
        let receiver = match self {
            Self::Known(addresses) => return Ok(addresses.clone()),
            Self::Running(receiver) => receiver,
        };
        match receiver.recv_timeout(end.remaining()) {
            Ok(Ok(list)) if list.is_empty() => Err(failed("the name has no address".to_owned())),
            Ok(found) => found.map_err(|error| failed(error.to_string())),
            Err(_) => Err(Failure {
                at_end: true,
                ..failed("the resolver did not answer".to_owned())
            }),
        }
    }
}

fn failed(detail: String) -> Failure {
    Failure::new(TransportError::Dns, detail)
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

    use super::*;

    fn soon() -> Monotonic {
        Monotonic::now() + Duration::from_secs(5)
    }

    #[test]
    fn numbers_need_no_lookup() {
        let cache = DnsCache::default();
        let found = cache.resolve("::1", soon()).unwrap();
        assert_eq!(found, ["::1".parse::<IpAddr>().unwrap()]);
        assert!(cache.addresses().is_empty());
    }

    #[test]
    fn a_name_that_was_found_is_kept_until_it_is_forgotten() {
        let cache = DnsCache::default();
        // Read as a number by every resolver (inet_aton(3)), so that no hosts file is needed.
        let name = "0x7f000001";
        assert_eq!(cache.resolve(name, soon()).unwrap(), [Ipv4Addr::LOCALHOST]);
        let planted: IpAddr = "192.0.2.1".parse().unwrap();
        cache.plant(name, planted);
        assert_eq!(cache.resolve(name, soon()).unwrap(), [planted]);
        cache.forget();
        assert_eq!(cache.resolve(name, soon()).unwrap(), [Ipv4Addr::LOCALHOST]);
    }

    #[test]
    fn an_answer_that_is_too_late_serves_the_next_attempt() {
        let cache = DnsCache::default();
        let name = "0x7f000001";
        let failure = cache
            .resolve(name, Monotonic::now())
            .map_err(|failure| failure.at_end);
        // The resolver may be faster than the check of the clock.
        assert!(failure.is_ok() || failure == Err(true));
        let end = soon();
        while cache.addresses().is_empty() {
            assert!(!end.has_passed(), "never found");
            thread::yield_now();
        }
    }
}
