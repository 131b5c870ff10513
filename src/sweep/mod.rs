//! Probes the routes: which ones, in which order, on how many threads, and until when. What the
//! core proves is asked of the verdict; nothing here decides about a recovery.

mod attempt;
mod buffers;
mod connect;
mod dns;
mod framing;
mod history;
mod http;
mod pool;
mod probe;
mod proxy;
mod socket;
mod tls;
mod transport;
mod unix;

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::Duration;

use anyhow::anyhow;

use self::attempt::{Attempt, ConnectionLog};
use self::dns::Unresolved;
use self::history::SweepHistory;
use self::http::{Client, ErrorKind, Setup};
use self::pool::{Pool, Probed};
use crate::clock::Monotonic;
use crate::manifest::{Manifest, Method, Options, Proxy, Route, Scheme};
use crate::verdict::{ProbeResult, Severity, TransportError, Verdict};

pub use self::attempt::{Connection, ProbeConnection};
pub use self::history::{SweepOptions, until_healthy};
pub use self::unix::UnixPeer;

/// How long the final probe waits. Blocked stderr can delay the signal indefinitely, and a backend
/// that wakes up meanwhile must be noticed.
const FINAL_PROBE_LIMIT: Duration = Duration::from_secs(86_400);

/// How far beyond the deadline the core may be probed where a recovery depends on it. The manifest
/// grants the core just the time that its attempts take on paper; in truth each begins and ends some
/// milliseconds late, and a last attempt that is cut short proves nothing.
const GRACE: Duration = Duration::from_millis(500);

/// Callbacks for the events of the sweeps.
pub trait SweepEvents: Sync {
    /// A sweep begins, and nothing of it has been sent yet. Called by the thread that sweeps.
    fn sweep_begins(&self) {}

    /// The last round of the sweep's core is over. Called by whichever probing thread ended it,
    /// while the others wait.
    fn core_ends(&self) {}

    /// `done` of `total` probes are done. Called by every probing thread.
    fn progress(&self, _done: usize, _total: usize) {}

    /// This sweep was unhealthy, and another one follows within the time that is left. Called by the
    /// thread that sweeps.
    fn unhealthy(&self, _sweep: &Sweep, _verdict: &Verdict, _left: Duration) {}
}

/// Ignores all events.
impl SweepEvents for () {}

/// Probes the routes of one manifest.
#[derive(Debug)]
pub struct Prober<'m> {
    manifest: &'m Manifest,
    setup: Setup,
}

/// The results of one sweep.
#[derive(Debug)]
pub struct Sweep {
    /// When it began, just before [`SweepEvents::sweep_begins`].
    pub began: Monotonic,
    /// The result of each route, in the manifest's order.
    pub results: Vec<ProbeResult>,
    /// Every address at which a core attempt of the last round was silent, each once, in order:
    /// connected and then nothing, or the connect still pending. Empty where the manifest has no
    /// `recovery`, or a `unix_socket`.
    pub silent_at: Vec<SocketAddr>,
}

impl<'m> Prober<'m> {
    /// Prepares to probe the routes of `manifest`: reads the trusted roots and chooses the proxy,
    /// where they are needed.
    ///
    /// # Errors
    ///
    /// Where `https` routes are to be probed and no root is trusted, or the environment names a
    /// proxy that is not supported.
    pub fn new(manifest: &'m Manifest) -> anyhow::Result<Self> {
        let tls_config = match manifest.base_url.scheme() {
            Scheme::Http => None,
            Scheme::Https => Some(tls::tls_config()?),
        };
        let proxy = match manifest.proxy {
            Proxy::None => None,
            Proxy::Env => proxy::choose(&manifest.base_url, |name| std::env::var(name).ok())
                .map_err(|problem| anyhow!(problem))?,
        };
        let setup = Setup {
            base_url: manifest.base_url.clone(),
            unix_socket: manifest.unix_socket.clone(),
            user_agent: manifest.user_agent.clone(),
            proxy,
            tls_config,
            dns: Arc::default(),
            log: manifest.recovery.is_some().then(Arc::default),
        };
        Ok(Self { manifest, setup })
    }

    /// Probes the core routes, then the others, unless the core proves the backend hung or down.
    /// Only the routes that are due after the earlier sweeps of the same run are probed; the other
    /// results stand.
    fn sweep(
        &self,
        history: &mut SweepHistory,
        may_recover: bool,
        events: &dyn SweepEvents,
    ) -> Sweep {
        // Taken before the event, so that a process that starts in between is younger than both.
        let began = Monotonic::now();
        events.sweep_begins();
        let due = |core| {
            let routes = self.routes(core);
            let due = routes.filter(|(index, route)| history.due(*index, route));
            due.collect()
        };
        let deadline = Monotonic::now() + self.manifest.deadline;
        let pool = Pool {
            core_deadline: match self.manifest.recovery {
                Some(_) => deadline + GRACE,
                None => deadline,
            },
            others: due(false),
            second_round: may_recover.then(|| self.manifest.proof_time()),
            events,
            ..self.pool(deadline, due(true))
        };
        let Probed {
            results: mut probed,
            silent_at,
        } = pool.probe();
        probed.sort_unstable_by_key(|(index, _)| *index);
        Sweep {
            began,
            results: history.merge(probed),
            silent_at: silent_at.into_iter().collect(),
        }
    }

    /// Probes every core route once, by `until` at the latest, and returns whether all are OK or
    /// rate-limited.
    pub fn core_answers(&self, until: Monotonic) -> bool {
        let pool = Pool {
            retries: false,
            ..self.pool(until, self.routes(true).collect())
        };
        let results = pool.probe().results;
        results
            .iter()
            .all(|(_, result)| result.class.severity(true) != Severity::Hard)
    }

    /// A pool that probes these `core` routes until `deadline`. Names are looked up again, because they
    /// may change between two sweeps.
    fn pool<'p>(&'p self, deadline: Monotonic, core: Vec<(usize, &'p Route)>) -> Pool<'p> {
        self.setup.dns.forget();
        if let Some(log) = &self.setup.log {
            log.begin_sweep();
        }
        Pool {
            setup: &self.setup,
            concurrency: self.manifest.concurrency,
            deadline,
            core_deadline: deadline,
            retries: true,
            second_round: None,
            events: &(),
            core,
            others: Vec::new(),
        }
    }

    /// Every connection of this run so far, the final probe's included, in order. Their
    /// traffic at the backend's socket is not a sign of progress. Empty where the manifest has no `recovery`.
    pub fn connections(&self) -> Vec<Connection> {
        let log = self.setup.log.as_deref();
        log.map(ConnectionLog::connections).unwrap_or_default()
    }

    /// The processes at the other end of the present or last sweep's connections to the `unix_socket`,
    /// each once. Empty where the manifest has no `recovery`.
    pub fn unix_peers(&self) -> Vec<UnixPeer> {
        let log = self.setup.log.as_deref();
        log.map(ConnectionLog::unix_peers).unwrap_or_default()
    }

    /// Whether an attempt of the present or last sweep, or the final probe, ended because the accept
    /// queue of the `unix_socket` was full. False where the manifest has no `recovery`.
    pub fn unix_queue_was_full(&self) -> bool {
        let log = self.setup.log.as_deref();
        log.is_some_and(ConnectionLog::unix_queue_was_full)
    }

    /// Sends one GET to the first core route on a fresh connection, in a separate,
    /// detached thread, and to the addresses that the last sweep probed.
    ///
    /// # Errors
    ///
    /// Where the thread cannot be started.
    pub fn final_probe(&self) -> anyhow::Result<FinalProbe> {
        let (_, route) = self
            .routes(true)
            .next()
            .ok_or_else(|| anyhow!("no core route"))?;
        let path = route.path.clone();
        let options = Options {
            method: Method::Get,
            ..Options::clone(&route.options)
        };
        let mut client = Client::new(&self.setup);
        let attempt = client.state();
        // After a pause of this whole process, the caller may be faster than the thread.
        attempt.peek();
        let end = Arc::new(OnceLock::new());
        let ended = Arc::clone(&end);
        let limit = Monotonic::now() + FINAL_PROBE_LIMIT;
        thread::Builder::new()
            .name("final-probe".to_owned())
            .spawn(move || {
                let result = client.attempt(&path, &options, false, limit);
                let status = match result.map_err(|error| error.kind) {
                    Err(ErrorKind::Transport(failure)) if failure.at_end => return,
                    Err(ErrorKind::Transport(failure)) => ProbeStatus::Ended {
                        error: failure.error,
                        detail: options.redact(&failure.detail).into_owned(),
                    },
                    Err(ErrorKind::Protocol(_) | ErrorKind::TooManyRedirects) | Ok(_) => {
                        ProbeStatus::Answered
                    }
                };
                // Set once, here.
                let _ = ended.set(status);
            })?;
        Ok(FinalProbe { attempt, end })
    }

    /// A lookup of the addresses that the base URL leads to, for any thread at any time: those that
    /// the present or the last sweep probes, where there was one; none with a `unix_socket`. Its error
    /// says that the name has no address, or that its resolver does not answer within 5 s.
    pub fn lookup(&self) -> impl Fn() -> Result<Vec<SocketAddr>, String> + Send + 'static {
        const LIMIT: Duration = Duration::from_secs(5);
        let (dns, url) = (Arc::clone(&self.setup.dns), self.setup.base_url.clone());
        let has_address = self.setup.unix_socket.is_none();
        move || {
            if !has_address {
                return Ok(Vec::new());
            }
            let (host, port) = (url.host(), url.port());
            let found = dns.resolve(host, Monotonic::now() + LIMIT);
            let addresses = found.map_err(|unresolved| match unresolved {
                Unresolved::Late => format!("the resolver did not answer for {host:?}"),
                Unresolved::Failed(text) => format!("{host:?} cannot be resolved: {text}"),
            })?;
            let addresses = addresses.into_iter();
            Ok(addresses.map(|ip| SocketAddr::new(ip, port)).collect())
        }
    }

    /// The core routes, or all others, with their places in the manifest.
    fn routes(&self, core: bool) -> impl Iterator<Item = (usize, &'m Route)> {
        let all = self.manifest.routes.iter().enumerate();
        all.filter(move |(_, route)| route.core == core)
    }
}

/// The last GET before a signal, running in the background.
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
    /// It ended before a single byte had come back.
    Ended {
        /// How.
        error: TransportError,
        /// What the system or the library says.
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

    /// Its connections that are established or pending: one once one is established, several while
    /// the connects to several addresses are pending, none once it has been refused or where the
    /// manifest has no `recovery`.
    pub fn connections(&self) -> Vec<ProbeConnection> {
        self.attempt.connections()
    }
}

#[cfg(test)]
mod tests;
