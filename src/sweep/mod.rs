//! Probes the routes: decides which ones, in which order, on how many threads, and until when. The verdict
//! judges what the core proves; nothing here decides about a recovery.

mod attempt;
mod checks;
mod client;
mod connect;
mod connections;
mod dns;
mod failure;
mod history;
mod http;
mod probe;
mod proxy;
mod retry;
mod round;
mod socket;
mod tls;
mod transport;
mod unix;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::Duration;

use anyhow::anyhow;

use self::attempt::Attempt;
use self::client::Client;
use self::history::SweepHistory;
use self::round::{Round, Routes, probe_all};
use crate::cause::{Class, Severity, SkipReason, TransportError};
use crate::clock::Monotonic;
use crate::manifest::{Manifest, Method, Options, Proxy, Route, Scheme};
use crate::verdict::{self, BackendState, ProbeResult, Verdict};

pub use self::connections::{Connection, ProbeConnection, UnixPeer};
pub use self::history::{SweepOptions, until_healthy};

/// How long the final probe waits. Blocked stderr can delay the signal indefinitely, and a backend
/// that wakes up meanwhile must be noticed.
const FINAL_PROBE_LIMIT: Duration = Duration::from_secs(24 * 3_600);

/// How far beyond the deadline the core may be probed if a recovery depends on it. The shortest deadline that
/// a manifest may have is the nominal time of the core's attempts; in practice each begins and ends some
/// milliseconds late, and a last attempt that is cut short proves nothing.
const GRACE: Duration = Duration::from_millis(500);

/// Callbacks for the events of the sweeps.
pub trait SweepEvents: Sync {
    /// A sweep begins; no request has been sent yet. Called by the sweeping thread.
    fn sweep_begins(&self) {}

    /// The last round of the sweep's core is over. Called by the sweeping thread.
    fn core_ends(&self) {}

    /// `done` of `total` probes are done. Called by every probing thread.
    fn progress(&self, _done: usize, _total: usize) {}

    /// This sweep was unhealthy, and another one follows within the remaining time. Called by the
    /// sweeping thread.
    fn unhealthy(&self, _sweep: &Sweep, _verdict: &Verdict, _left: Duration) {}
}

/// Ignores all events.
impl SweepEvents for () {}

/// Probes the routes of one manifest.
#[derive(Debug)]
pub struct Prober<'m> {
    manifest: &'m Manifest,
    client: Arc<Client>,
}

/// The results of one sweep.
#[derive(Debug)]
pub struct Sweep {
    /// When it began, just before [`SweepEvents::sweep_begins`].
    pub began: Monotonic,
    /// The result of each route, in the manifest's order.
    pub results: Vec<ProbeResult>,
    /// Every address at which a core attempt of the last round was silent, each once, in order:
    /// connected without a byte in return, or the connect still pending. Empty if the manifest has a
    /// `unix_socket`.
    pub silent_at: Vec<SocketAddr>,
}

impl<'m> Prober<'m> {
    /// Prepares to probe the routes of `manifest`: reads the trusted roots and chooses the proxy, if
    /// needed.
    ///
    /// # Errors
    ///
    /// `https` routes are to be probed and no root is trusted, or the environment names a proxy that is not
    /// supported.
    pub fn new(manifest: &'m Manifest) -> anyhow::Result<Self> {
        let tls_config = match manifest.base_url.scheme() {
            Scheme::Http => None,
            Scheme::Https => Some(tls::tls_config()?),
        };
        let proxy = match manifest.proxy {
            Proxy::None => None,
            Proxy::Env => proxy::from_environment()?,
        };
        let client = Client {
            unix_socket: manifest.unix_socket.clone(),
            tls_config,
            ..Client::new(manifest.base_url.clone(), &manifest.user_agent, proxy)
        };
        Ok(Self {
            manifest,
            client: Arc::new(client),
        })
    }

    /// Probes the core routes, then the others, unless the core proves the backend hung or down.
    /// Probes only the routes that are due after the earlier sweeps of the same run; the other results
    /// are kept.
    fn sweep(
        &self,
        history: &mut SweepHistory,
        may_recover: bool,
        events: &dyn SweepEvents,
    ) -> Sweep {
        // Taken before the event, so that a process that starts in between is younger than both.
        let began = Monotonic::now();
        events.sweep_begins();
        self.client.begin_sweep();
        let due = |core| -> Routes {
            let routes = self.routes(core).into_iter();
            let due = routes.filter(|(index, route)| history.due(*index, route));
            due.collect()
        };
        let (core, others) = (due(true), due(false));
        let deadline = Monotonic::now() + self.manifest.deadline;
        let core_deadline = match self.manifest.recovery {
            Some(_) => deadline + GRACE,
            None => deadline,
        };
        let (total, done) = (core.len() + others.len(), AtomicUsize::new(0));
        let progress = || {
            let done = done.fetch_add(1, Ordering::Relaxed) + 1;
            events.progress(done, total.max(done));
        };
        let probe = |routes, deadline| {
            let concurrency = self.manifest.concurrency;
            let retries = |route: &Route| route.options.retries;
            probe_all(
                &self.client,
                routes,
                concurrency,
                retries,
                deadline,
                progress,
            )
        };

        let first = probe(&core, core_deadline);
        let in_time = Monotonic::now() + self.manifest.proof_time() <= deadline;
        let again = may_recover && in_time && first.is_partly_silent();
        let second = again.then(|| probe(&core, core_deadline));
        events.core_ends();
        let last = second.as_ref().unwrap_or(&first);
        let rest = match verdict::backend_state(last.results.iter().map(|(_, result)| result)) {
            BackendState::Up => probe(&others, deadline),
            BackendState::Hung => Round::skipped(&others, SkipReason::BackendHung),
            BackendState::Down => Round::skipped(&others, SkipReason::BackendDown),
        };
        let silent_at = last.silent_at.iter().copied().collect();
        let mut results = match second {
            Some(second) => first.merge(second),
            None => first.results,
        };
        results.extend(rest.results);
        results.sort_unstable_by_key(|(index, _)| *index);
        Sweep {
            began,
            results: history.merge(results),
            silent_at,
        }
    }

    /// Probes every core route once, by `until` at the latest, and returns whether all are OK or
    /// rate-limited.
    pub fn core_answers(&self, until: Monotonic) -> bool {
        self.client.begin_sweep();
        let (core, concurrency) = (self.routes(true), self.manifest.concurrency);
        let round = probe_all(&self.client, &core, concurrency, |_| 0, until, || {});
        let mut results = round.results.iter();
        results.all(|(_, result)| result.class.severity(true) != Severity::Hard)
    }

    /// Every TCP connection of this run so far, the final probe's included, in order. Their
    /// traffic at the backend's socket is not a sign of progress.
    pub fn connections(&self) -> Vec<Connection> {
        self.client.log.lock().tcp.iter().copied().collect()
    }

    /// The processes at the other end of the current or last sweep's connections to the `unix_socket`,
    /// each once.
    pub fn unix_peers(&self) -> Vec<UnixPeer> {
        self.client.log.lock().unix_peers.clone()
    }

    /// Sends one GET to the first core route: on a fresh connection, to the addresses that the last sweep
    /// probed, in a detached thread.
    ///
    /// # Errors
    ///
    /// The thread cannot be started.
    pub fn final_probe(&self) -> anyhow::Result<FinalProbe> {
        let routes = self.routes(true);
        let (_, route) = routes.first().ok_or_else(|| anyhow!("no core route"))?;
        let path = route.path.clone();
        let options = Options {
            method: Method::Get,
            ..Options::clone(&route.options)
        };
        let limit = Monotonic::now() + FINAL_PROBE_LIMIT;
        let attempt = Arc::new(Attempt::new(&self.client, limit));
        let end = Arc::new(OnceLock::new());
        let probe = FinalProbe {
            attempt: Arc::clone(&attempt),
            end: Arc::clone(&end),
        };
        thread::Builder::new()
            .name("final-probe".to_owned())
            .spawn(move || {
                let status = match attempt.send(&path, &options, false) {
                    Ok(_) => ProbeStatus::Answered,
                    Err(failure) if failure.at_end => return,
                    Err(failure) => match failure.class {
                        Class::TimeoutUnreachable(error) => ProbeStatus::Ended {
                            error,
                            detail: options.redact(&failure.detail).into_owned(),
                        },
                        Class::HttpError(_)
                        | Class::Ok
                        | Class::RateLimited
                        | Class::Skipped(_) => ProbeStatus::Answered,
                    },
                };
                // Set once, here.
                let _ = end.set(status);
            })?;
        Ok(probe)
    }

    /// Returns a function that looks up the addresses of the base URL, callable from any thread at any time.
    /// They are those of the current or last sweep, if there was one; none with a `unix_socket`. Its error
    /// says that the name has no address, or that the resolver did not answer within 5 s.
    pub fn lookup(&self) -> impl Fn() -> Result<Vec<SocketAddr>, String> + Send + 'static {
        const LIMIT: Duration = Duration::from_secs(5);
        let client = Arc::clone(&self.client);
        move || {
            if client.unix_socket.is_some() {
                return Ok(Vec::new());
            }
            let (host, port) = (client.base_url.host(), client.base_url.port());
            let found = client.dns.resolve(host, Monotonic::now() + LIMIT);
            let addresses =
                found.map_err(|failure| format!("{host:?} cannot be resolved: {failure}"))?;
            let addresses = addresses.into_iter();
            Ok(addresses.map(|ip| SocketAddr::new(ip, port)).collect())
        }
    }

    /// The core routes, or all others, with their indices in the manifest.
    fn routes(&self, core: bool) -> Routes<'m> {
        let all = self.manifest.routes.iter().enumerate();
        all.filter(|(_, route)| route.core == core).collect()
    }
}

/// The final probe: the last GET before a signal, running in the background.
#[derive(Debug)]
pub struct FinalProbe {
    attempt: Arc<Attempt>,
    end: Arc<OnceLock<ProbeStatus>>,
}

/// The status of the final probe so far.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProbeStatus {
    /// Nothing yet.
    Silent,
    /// At least one byte.
    Answered,
    /// It ended before a single byte was received.
    Ended {
        /// How.
        error: TransportError,
        /// The message of the system or the library.
        detail: String,
    },
}

impl FinalProbe {
    /// Its status so far.
    pub fn status(&self) -> ProbeStatus {
        if self.attempt.received_any() {
            return ProbeStatus::Answered;
        }
        self.end.get().cloned().unwrap_or(ProbeStatus::Silent)
    }

    /// Its established or pending connections: exactly one once one is established, several while connects
    /// to several addresses are pending, none once it has been refused.
    pub fn connections(&self) -> Vec<ProbeConnection> {
        self.attempt.connections()
    }
}

#[cfg(test)]
mod tests;
