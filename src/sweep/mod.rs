//! Probes the routes: decides which ones, in which order, on how many threads, and until when. The verdict
//! judges what the core proves; nothing here decides about a recovery.

mod attempt;
mod checks;
mod client;
mod connect;
mod dns;
mod failure;
mod history;
mod http;
mod parked;
mod probe;
mod socket;
mod tls;
mod transport;
mod unix;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use self::attempt::Attempt;
use self::client::Client;
use self::history::SweepHistory;
use self::probe::{keep_http_error, probe, skipped};
use crate::cause::{Class, Severity, SkipReason};
use crate::clock::Monotonic;
use crate::manifest::{Manifest, RecoveryPlan, Route};
use crate::verdict::{self, BackendState, ProbeResult, Verdict};

pub use self::client::{Connection, UnixPeer};
pub use self::history::until_healthy;
pub use self::parked::{ParkedRequest, ParkedState, Reach};

/// How far beyond the deadline the core may be probed if a recovery depends on it. The shortest deadline that
/// a manifest may have is the nominal time of the core's attempts; in practice each begins and ends some
/// milliseconds late, and a last attempt that is cut short proves nothing.
const DEADLINE_SLACK: Duration = Duration::from_millis(500);
/// How often the parked requests are checked during the grace period.
const GRACE_STEP: Duration = Duration::from_millis(100);

/// Routes with their indices in the manifest.
type Routes<'m> = Vec<(usize, &'m Route)>;

/// Results with the indices of their routes, ordered by index.
type Results = Vec<(usize, ProbeResult)>;

/// What happens during the sweeps.
#[derive(Debug)]
pub enum Event<'a> {
    /// A sweep begins; no request has been sent yet.
    SweepBegins,
    /// Every core route was silent; the parked requests are given this grace period.
    GraceBegins(Duration),
    /// The last round of the sweep's core is over, the grace period included.
    CoreEnds,
    /// So many of all probes are done. Sent by every probing thread, the other events by the sweeping one.
    Progress(usize, usize),
    /// The sweep of this number was unhealthy, and another one follows within the remaining time.
    Unhealthy(usize, &'a Sweep, Duration),
}

/// Is called for each event.
pub type OnEvent<'a> = dyn Fn(Event<'_>) + Sync + 'a;

/// Probes the routes of one manifest.
#[derive(Debug)]
pub struct Prober<'m> {
    manifest: &'m Manifest,
    /// The recovery that may follow the proof of a hang.
    plan: Option<&'m RecoveryPlan>,
    client: Arc<Client>,
}

/// The results of one sweep.
#[derive(Debug)]
pub struct Sweep {
    /// When it began, just before [`Event::SweepBegins`].
    pub began: Monotonic,
    /// The result of each route, in the manifest's order.
    pub results: Vec<ProbeResult>,
    /// What they mean.
    pub verdict: Verdict,
}

impl<'m> Prober<'m> {
    /// Prepares to probe the routes of `manifest`: reads the trusted roots and chooses the proxy, if needed. Only if
    /// a recovery may follow are silent requests parked, and is a hang distinguished that has just begun.
    ///
    /// # Errors
    ///
    /// `https` routes are to be probed and no root is trusted, or the environment names a proxy that is not supported.
    pub fn new(manifest: &'m Manifest, may_recover: bool) -> anyhow::Result<Self> {
        Ok(Self {
            manifest,
            plan: manifest.recovery.as_ref().filter(|_| may_recover),
            client: Arc::new(Client::new(manifest)?),
        })
    }

    /// Probes the core routes, then the others, unless the core proves the backend hung or down. Probes only the routes
    /// that are due after the earlier sweeps of the same run; the other results are kept.
    fn sweep(&self, history: &mut SweepHistory, on_event: &OnEvent) -> Sweep {
        // Taken before the event, so that a process that starts in between is younger than both.
        let began = Monotonic::now();
        on_event(Event::SweepBegins);
        self.client.begin_sweep();
        let (core, others) = (self.routes(true, history), self.routes(false, history));
        let (total, done) = (core.len() + others.len(), AtomicUsize::new(0));
        let progress = || {
            let done = done.fetch_add(1, Ordering::Relaxed) + 1;
            on_event(Event::Progress(done, total.max(done)));
        };
        let round = Round {
            progress: &progress,
            ..self.round(Monotonic::now() + self.manifest.deadline)
        };
        let mut results = self.core_rounds(&core, round, on_event);
        on_event(Event::CoreEnds);
        let backend = backend_state(&results);
        let skip = |reason| -> Results {
            let others = others.iter();
            others.map(|(index, _)| (*index, skipped(reason))).collect()
        };
        results.extend(match backend {
            BackendState::Up => round.probe(&others),
            BackendState::Hung => skip(SkipReason::BackendHung),
            BackendState::Down => skip(SkipReason::BackendDown),
        });
        results.sort_unstable_by_key(|(index, _)| *index);
        let results = history.merge(results);
        let is_core = self.manifest.routes.iter().map(|route| route.core);
        Sweep {
            began,
            verdict: verdict::judge(is_core.zip(&results), backend),
            results,
        }
    }

    /// Probes the core routes, a second time if a hang may have begun meanwhile, and gives the parked requests
    /// their grace period if no route has answered. The results are those of the last round.
    fn core_rounds(&self, core: &Routes, round: Round, on_event: &OnEvent) -> Results {
        let slack = (self.manifest.recovery.as_ref()).map_or(Duration::ZERO, |_| DEADLINE_SLACK);
        let probe = |number| {
            let round = Round {
                deadline: round.deadline + slack,
                parks_as: self.plan.map(|_| number),
                ..round
            };
            let mut results = round.probe(core);
            apply_late_answers(&mut results, &self.parked());
            results
        };
        let mut results = probe(1);
        let in_time = Monotonic::now() + self.manifest.proof_time() <= round.deadline;
        let silent = results.iter().filter(|(_, result)| result.silent).count();
        // A hang may have begun during the round if some routes were silent, but not all.
        if self.plan.is_some() && in_time && (1..results.len()).contains(&silent) {
            self.client.sweep().forget_answered();
            let first = std::mem::replace(&mut results, probe(2));
            for ((_, first), (_, second)) in first.iter().zip(&mut results) {
                second.attempts += first.attempts;
                keep_http_error(second, first);
            }
        }
        let is_hung = backend_state(&results) == BackendState::Hung;
        if let Some(plan) = self.plan.filter(|_| is_hung) {
            on_event(Event::GraceBegins(plan.grace));
            self.await_late_answers(plan.grace);
            apply_late_answers(&mut results, &self.parked());
        }
        results
    }

    /// Waits for the first byte on a parked request, for at most `grace`. Counts its steps, not the clock: time in
    /// which this program did not run is no time in which the backend was silent.
    fn await_late_answers(&self, grace: Duration) {
        let mut left = grace;
        while !left.is_zero() && (self.parked().iter()).all(|request| request.answered().is_none())
        {
            let step = GRACE_STEP.min(left);
            thread::sleep(step);
            left -= step;
        }
    }

    /// Probes every core route once, by `until` at the latest, and returns whether all are OK or
    /// rate-limited. Closes the parked requests.
    pub fn core_answers(&self, until: Monotonic) -> bool {
        self.client.begin_sweep();
        let round = Round {
            once: true,
            ..self.round(until)
        };
        let results = round.probe(&self.routes(true, &SweepHistory::default()));
        let mut classes = results.iter().map(|(_, result)| result.class);
        classes.all(|class| class.severity(true) != Severity::Hard)
    }

    fn round(&self, deadline: Monotonic) -> Round<'_> {
        Round {
            prober: self,
            deadline,
            once: false,
            parks_as: None,
            progress: &|| {},
        }
    }

    /// The core requests of the last sweep that timed out without a byte, with their present state. They are
    /// open until the next sweep begins.
    pub fn parked(&self) -> Vec<ParkedRequest> {
        self.client.sweep().parked_requests()
    }

    /// Returns a function that lists the addresses to which the current or last sweep has sent requests so
    /// far, callable from any thread.
    pub fn remotes(&self) -> impl Fn() -> Vec<SocketAddr> + Send + 'static {
        let client = Arc::clone(&self.client);
        move || client.sweep().remotes.iter().copied().collect()
    }

    /// Returns a function that lists the processes at the other end of the current or last sweep's connections
    /// to the `unix_socket`, each once, callable from any thread.
    pub fn unix_peers(&self) -> impl Fn() -> Vec<UnixPeer> + Send + 'static {
        let client = Arc::clone(&self.client);
        move || client.sweep().unix_peers.clone()
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
            let attempt = Attempt::new(&client, Monotonic::now() + LIMIT, LIMIT);
            match attempt.resolve(host) {
                Ok(found) => Ok((found.into_iter().map(|ip| SocketAddr::new(ip, port))).collect()),
                Err(failure) => Err(format!("{host:?} cannot be resolved: {failure}")),
            }
        }
    }

    /// The core routes, or all others, that are due, with their indices in the manifest.
    fn routes(&self, core: bool, history: &SweepHistory) -> Routes<'m> {
        let all = self.manifest.routes.iter().enumerate();
        all.filter(|(index, route)| route.core == core && history.is_due(*index, route))
            .collect()
    }
}

/// How a round probes its routes.
#[derive(Clone, Copy)]
struct Round<'a> {
    prober: &'a Prober<'a>,
    /// No attempt ends after it.
    deadline: Monotonic,
    /// Without retries.
    once: bool,
    /// The number of this round in parked requests; without one, silent requests are not parked.
    parks_as: Option<u32>,
    /// Called by every probing thread after each route.
    progress: &'a (dyn Fn() + Sync),
}

impl Round<'_> {
    fn probe(&self, routes: &Routes) -> Results {
        let next = AtomicUsize::new(0);
        let results = Mutex::new(Vec::with_capacity(routes.len()));
        let work = || {
            while let Some(&(index, route)) = routes.get(next.fetch_add(1, Ordering::Relaxed)) {
                let result = probe(self, index, route);
                let mut results = results.lock().unwrap_or_else(PoisonError::into_inner);
                results.push((index, result));
                drop(results);
                (self.progress)();
            }
        };
        thread::scope(|scope| {
            for _ in 1..self.prober.manifest.concurrency.get().min(routes.len()) {
                // If a thread cannot be started, the others take over its routes.
                let _ = thread::Builder::new().spawn_scoped(scope, work);
            }
            work();
        });
        let mut results = results.into_inner().unwrap_or_else(PoisonError::into_inner);
        results.sort_unstable_by_key(|(index, _)| *index);
        results
    }
}

fn backend_state(core: &Results) -> BackendState {
    verdict::backend_state(core.iter().map(|(_, result)| result))
}

/// A route of which a parked request was answered after all is not silent.
fn apply_late_answers(results: &mut Results, parked: &[ParkedRequest]) {
    for (index, result) in results {
        let of_route = parked.iter().filter(|request| request.route == *index);
        let Some(after) = of_route.filter_map(ParkedRequest::answered).min() else {
            continue;
        };
        result.silent = false;
        result.received_any = true;
        // A route that has answered another attempt says enough.
        if let Class::TimeoutUnreachable(_) | Class::Skipped(_) = result.class {
            let detail = format!("answered after {:.1} s", after.as_secs_f64());
            result.detail = Some(detail.into());
        }
    }
}

#[cfg(test)]
mod tests;
