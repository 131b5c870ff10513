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
mod parked;
mod probe;
mod proxy;
mod retry;
mod round;
mod socket;
mod tls;
mod transport;
mod unix;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use self::client::Client;
use self::history::SweepHistory;
use self::probe::Plan;
use self::round::{Round, Routes, probe_all};
use crate::cause::{Severity, SkipReason};
use crate::clock::Monotonic;
use crate::manifest::{Manifest, Proxy, Scheme};
use crate::verdict::{BackendState, ProbeResult, Verdict};

pub use self::connections::{Connection, UnixPeer};
pub use self::history::{SweepOptions, until_healthy};
pub use self::parked::{ParkedRequest, ParkedState, Reach};

/// How far beyond the deadline the core may be probed if a recovery depends on it. The shortest deadline that
/// a manifest may have is the nominal time of the core's attempts; in practice each begins and ends some
/// milliseconds late, and a last attempt that is cut short proves nothing.
const DEADLINE_SLACK: Duration = Duration::from_millis(500);
/// How often the parked requests are checked during the grace period.
const GRACE_STEP: Duration = Duration::from_millis(100);

/// Callbacks for the events of the sweeps.
pub trait SweepEvents: Sync {
    /// A sweep begins; no request has been sent yet. Called by the sweeping thread.
    fn sweep_begins(&self) {}

    /// Every core route was silent; the parked requests are given this grace period. Called by the sweeping
    /// thread.
    fn grace_begins(&self, _grace: Duration) {}

    /// The last round of the sweep's core is over, the grace period included. Called by the sweeping thread.
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
    /// What the core's last round proves about the backend.
    pub backend: BackendState,
}

/// What the core's rounds brought.
struct CoreRounds {
    /// Each route's index in the manifest and its result.
    results: Vec<(usize, ProbeResult)>,
    /// What the last round proves.
    backend: BackendState,
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
            Some(_) => deadline + DEADLINE_SLACK,
            None => deadline,
        };
        let (total, done) = (core.len() + others.len(), AtomicUsize::new(0));
        let progress = || {
            let done = done.fetch_add(1, Ordering::Relaxed) + 1;
            events.progress(done, total.max(done));
        };
        let probe = |routes: &Routes<'_>, park_in_round, deadline| {
            let concurrency = self.manifest.concurrency;
            let plan = Plan {
                once: false,
                park_in_round,
            };
            probe_all(&self.client, routes, concurrency, plan, deadline, progress)
        };

        let probe_core = |round| probe(&core, may_recover.then_some(round), core_deadline);
        let core = self.core_rounds(may_recover, deadline, probe_core, events);
        events.core_ends();
        let rest = match core.backend {
            BackendState::Up => probe(&others, None, deadline),
            BackendState::Hung => Round::skipped(&others, SkipReason::BackendHung),
            BackendState::Down => Round::skipped(&others, SkipReason::BackendDown),
        };
        let mut results = rest.results;
        results.extend(core.results);
        results.sort_unstable_by_key(|(index, _)| *index);
        Sweep {
            began,
            results: history.merge(results),
            backend: core.backend,
        }
    }

    /// Probes the core routes, a second time if a hang may have begun meanwhile, and gives the parked requests
    /// their grace period if no route has answered.
    fn core_rounds(
        &self,
        may_recover: bool,
        deadline: Monotonic,
        probe: impl Fn(u32) -> Round,
        events: &dyn SweepEvents,
    ) -> CoreRounds {
        let probe = |round| {
            let mut results = probe(round);
            results.apply_late_answers(&self.client.parked.requests());
            results
        };
        let mut last = probe(1);
        let mut earlier = None;
        let in_time = Monotonic::now() + self.manifest.proof_time() <= deadline;
        if may_recover && in_time && last.is_partly_silent() {
            self.client.parked.forget_answered();
            earlier = Some(std::mem::replace(&mut last, probe(2)));
        }
        if let (true, Some(plan), BackendState::Hung) =
            (may_recover, &self.manifest.recovery, last.backend())
        {
            events.grace_begins(plan.grace);
            self.await_late_answers(plan.grace);
            last.apply_late_answers(&self.client.parked.requests());
        }
        CoreRounds {
            backend: last.backend(),
            results: match earlier {
                Some(earlier) => earlier.merge(last),
                None => last.results,
            },
        }
    }

    /// Waits for the first byte on a parked request, for at most `grace`. Time in which this program did not
    /// run does not count.
    fn await_late_answers(&self, grace: Duration) {
        let mut left = grace;
        let mut now = Monotonic::now();
        while !left.is_zero() {
            let parked = self.client.parked.requests();
            if parked.iter().any(|request| request.answered().is_some()) {
                return;
            }
            thread::sleep(GRACE_STEP.min(left));
            let before = std::mem::replace(&mut now, Monotonic::now());
            left = left.saturating_sub(counted(now.since(before)));
        }
    }

    /// Probes every core route once, by `until` at the latest, and returns whether all are OK or
    /// rate-limited. Closes the parked requests.
    pub fn core_answers(&self, until: Monotonic) -> bool {
        self.client.begin_sweep();
        let (core, concurrency) = (self.routes(true), self.manifest.concurrency);
        let plan = Plan {
            once: true,
            park_in_round: None,
        };
        let round = probe_all(&self.client, &core, concurrency, plan, until, || {});
        let mut results = round.results.iter();
        results.all(|(_, result)| result.class.severity(true) != Severity::Hard)
    }

    /// The core requests of the last sweep that timed out without a byte, with their present state. They are
    /// open until the next sweep begins.
    pub fn parked(&self) -> Vec<ParkedRequest> {
        self.client.parked.requests()
    }

    /// Returns a function that lists the addresses to which the current or last sweep has sent requests so
    /// far, callable from any thread.
    pub fn remotes(&self) -> impl Fn() -> Vec<SocketAddr> + Send + 'static {
        let client = Arc::clone(&self.client);
        move || client.log.lock().remotes.iter().copied().collect()
    }

    /// Returns a function that lists the processes at the other end of the current or last sweep's connections
    /// to the `unix_socket`, each once, callable from any thread.
    pub fn unix_peers(&self) -> impl Fn() -> Vec<UnixPeer> + Send + 'static {
        let client = Arc::clone(&self.client);
        move || client.log.lock().unix_peers.clone()
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

/// How much of one step of the grace period counts. After a stop, the step alone does, so that the period ends
/// even if this program is stopped in each of them.
fn counted(passed: Duration) -> Duration {
    const STOPPED: Duration = Duration::from_secs(1);
    if passed > STOPPED { GRACE_STEP } else { passed }
}

#[cfg(test)]
mod tests;
