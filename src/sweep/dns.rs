//! Resolves names within an attempt's time. getaddrinfo(3) has no timeout, so each lookup has its own
//! thread. A name is looked up once per sweep, and numeric addresses never.

use std::collections::HashMap;
use std::net::{IpAddr, ToSocketAddrs};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use ureq::http::Uri;

use super::failure::Failure;
use crate::cause::TransportError;
use crate::clock::Monotonic;

/// The names that were looked up during one sweep.
#[derive(Debug, Default)]
pub(super) struct DnsCache(Mutex<HashMap<String, Arc<Lookup>>>);

/// One lookup, perhaps still running.
#[derive(Debug, Default)]
struct Lookup {
    answer: Mutex<Option<Result<Vec<IpAddr>, String>>>,
    done: Condvar,
}

impl DnsCache {
    /// Forgets all lookups, so that every name is looked up again.
    pub(super) fn forget(&self) {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clear();
    }

    /// Uses `address` as the result of a lookup of `host`.
    #[cfg(test)]
    pub(super) fn plant(&self, host: &str, address: IpAddr) {
        let lookup = Arc::new(Lookup::default());
        lookup.finish(Ok(vec![address]));
        self.0.lock().unwrap().insert(host.to_owned(), lookup);
    }

    /// The addresses of `host`, a name or a number without brackets, by `end`.
    pub(super) fn resolve(&self, host: &str, end: Monotonic) -> Result<Vec<IpAddr>, Failure> {
        if let Ok(number) = host.parse() {
            return Ok(vec![number]);
        }
        self.lookup(host).wait(end)
    }

    /// The lookup of `host` that is running or succeeded, or a new one. A failed one is not
    /// kept: the next attempt looks the name up again.
    fn lookup(&self, host: &str) -> Arc<Lookup> {
        let mut lookups = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(lookup) = lookups.get(host)
            && !matches!(*lookup.answer(), Some(Err(_)))
        {
            return Arc::clone(lookup);
        }
        let lookup = Arc::new(Lookup::default());
        lookups.insert(host.to_owned(), Arc::clone(&lookup));
        let (asked, name) = (Arc::clone(&lookup), host.to_owned());
        let started = thread::Builder::new()
            .name("resolve".to_owned())
            .spawn(move || {
                let found = (name.as_str(), 0).to_socket_addrs();
                asked.finish(
                    found
                        .map(|list| list.map(|address| address.ip()).collect())
                        .map_err(|e| e.to_string()),
                );
            });
        if let Err(error) = started {
            lookup.finish(Err(format!("could not start a thread: {error}")));
        }
        lookup
    }
}

impl Lookup {
    fn answer(&self) -> MutexGuard<'_, Option<Result<Vec<IpAddr>, String>>> {
        self.answer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn finish(&self, answer: Result<Vec<IpAddr>, String>) {
        *self.answer() = Some(answer);
        self.done.notify_all();
    }

    fn wait(&self, end: Monotonic) -> Result<Vec<IpAddr>, Failure> {
        let waited = self
            .done
            .wait_timeout_while(self.answer(), end.remaining(), |a| a.is_none());
        let (answer, _) = waited.unwrap_or_else(PoisonError::into_inner);
        let failed = |detail: &str| Failure::new(TransportError::Dns, detail);
        match answer.as_ref() {
            None => Err(Failure {
                at_end: true,
                ..failed("the resolver did not answer")
            }),
            Some(Err(text)) => Err(failed(text)),
            Some(Ok(list)) if list.is_empty() => Err(failed("the name has no address")),
            Some(Ok(list)) => Ok(list.clone()),
        }
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

    use super::*;

    fn soon() -> Monotonic {
        Monotonic::now() + Duration::from_secs(5)
    }

    #[test]
    fn numbers_need_no_lookup() {
        let cache = DnsCache::default();
        let found = cache.resolve("::1", soon()).unwrap();
        assert_eq!(found, ["::1".parse::<IpAddr>().unwrap()]);
        assert!(cache.0.lock().unwrap().is_empty());
    }

    #[test]
    fn a_name_is_looked_up_once_if_that_succeeds() {
        let cache = DnsCache::default();
        // Read as a number by every resolver (inet_aton(3)), so that no hosts file is needed.
        let name = "0x7f000001";
        let found = cache.resolve(name, soon()).unwrap();
        assert_eq!(found, [Ipv4Addr::LOCALHOST]);
        let first = cache.lookup(name);
        assert!(Arc::ptr_eq(&first, &cache.lookup(name)));
    }

    #[test]
    fn a_failed_name_is_looked_up_again() {
        let cache = DnsCache::default();
        cache.lookup("x").finish(Err("no such name".to_owned()));
        let before = Arc::clone(&cache.0.lock().unwrap()["x"]);
        assert!(!Arc::ptr_eq(&before, &cache.lookup("x")));
    }

    #[test]
    fn a_late_answer_is_distinguished_from_a_failure() {
        let lookup = Lookup::default();
        assert!(lookup.wait(Monotonic::now()).unwrap_err().at_end);
        lookup.finish(Ok(vec![]));
        assert!(!lookup.wait(soon()).unwrap_err().at_end);
    }
}
