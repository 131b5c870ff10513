//! Distributes routes to threads: the core in one or two rounds, then the others, unless the core proves the
//! backend hung or down.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;
use std::time::Duration;

use super::SweepEvents;
use super::attempt::ProbeConnection;
use super::history::merge_rounds;
use super::http::{Client, Setup};
use super::probe;
use crate::clock::Monotonic;
use crate::manifest::Route;
use crate::verdict::{self, BackendState, ProbeResult, SkipReason};

/// One sweep over some of the routes.
pub(super) struct Pool<'a> {
    pub(super) setup: &'a Setup,
    pub(super) concurrency: NonZeroUsize,
    /// The absolute end of the sweep.
    pub(super) deadline: Monotonic,
    /// The same for the core, which may have a little more time.
    pub(super) core_deadline: Monotonic,
    /// Whether routes have their own retry budgets; else one attempt each.
    pub(super) retries: bool,
    /// The time that a second round of the core may take, where one is made at all.
    pub(super) second_round: Option<Duration>,
    pub(super) events: &'a dyn SweepEvents,
    /// The core routes to probe, with their places in the manifest.
    pub(super) core: Vec<(usize, &'a Route)>,
    /// The other routes to probe.
    pub(super) others: Vec<(usize, &'a Route)>,
}

/// The results of the routes.
pub(super) struct Probed {
    /// Each route's place in the manifest and its result, the core routes first.
    pub(super) results: Vec<(usize, ProbeResult)>,
    /// Where core attempts of the last round were silent.
    pub(super) silent_at: BTreeSet<SocketAddr>,
}

/// Routes that are probed in parallel, and their results.
#[derive(Default)]
struct Batch {
    slots: Vec<OnceLock<ProbeResult>>,
    next: AtomicUsize,
    done: AtomicUsize,
}

/// The state that the threads share.
struct Work {
    first: Batch,
    second: Batch,
    others: Batch,
    /// Whether the core is probed a second time.
    again: Gate<bool>,
    /// Whether the other routes are probed, or why not.
    go_on: Gate<Result<(), SkipReason>>,
    probed: AtomicUsize,
    silent_at: Mutex<BTreeSet<SocketAddr>>,
}

/// Blocks threads until a decision is made.
struct Gate<T> {
    decision: Mutex<Option<T>>,
    decided: Condvar,
}

impl<T: Copy> Gate<T> {
    fn new() -> Self {
        Self {
            decision: Mutex::new(None),
            decided: Condvar::new(),
        }
    }

    fn open(&self, decision: T) {
        *self.decision() = Some(decision);
        self.decided.notify_all();
    }

    /// The decision; none where it is not made by `end`.
    fn wait(&self, end: Monotonic) -> Option<T> {
        let (left, open) = (end.remaining(), |decision: &mut Option<T>| {
            decision.is_none()
        });
        let waited = self.decided.wait_timeout_while(self.decision(), left, open);
        *waited.unwrap_or_else(PoisonError::into_inner).0
    }

    fn decision(&self) -> MutexGuard<'_, Option<T>> {
        self.decision.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Batch {
    fn of(count: usize) -> Self {
        Self {
            slots: (0..count).map(|_| OnceLock::new()).collect(),
            ..Self::default()
        }
    }

    /// The results of those that were probed.
    fn results(&self) -> impl Iterator<Item = &ProbeResult> {
        self.slots.iter().filter_map(OnceLock::get)
    }

    /// The result of each; none for those that were not probed.
    fn into_results(self) -> impl Iterator<Item = Option<ProbeResult>> {
        self.slots.into_iter().map(OnceLock::into_inner)
    }
}

impl Pool<'_> {
    /// Probes the routes.
    pub(super) fn probe(&self) -> Probed {
        let work = Work {
            first: Batch::of(self.core.len()),
            second: Batch::of(self.second_round.map_or(0, |_| self.core.len())),
            others: Batch::of(self.others.len()),
            again: Gate::new(),
            go_on: Gate::new(),
            probed: AtomicUsize::new(0),
            silent_at: Mutex::default(),
        };
        let routes = self.core.len() + self.others.len();
        let threads = self.concurrency.get().min(routes);
        thread::scope(|scope| {
            for _ in 1..threads {
                // Without some threads the others have more to do.
                let _ = thread::Builder::new().spawn_scoped(scope, || self.work(&work));
            }
            self.work(&work);
        });
        self.collect(work)
    }

    fn collect(&self, work: Work) -> Probed {
        let not_probed = || probe::skipped(SkipReason::Deadline);
        let seconds = work.second.into_results().chain(std::iter::repeat(None));
        let core = work.first.into_results().zip(seconds);
        let core = core.map(|(first, second)| {
            let first = first.unwrap_or_else(not_probed);
            match second {
                Some(second) => merge_rounds(&first, second),
                None => first,
            }
        });
        let reason = work.go_on.decision().and_then(Result::err);
        let others = work.others.into_results().map(|result| {
            result.unwrap_or_else(|| probe::skipped(reason.unwrap_or(SkipReason::Deadline)))
        });
        let places = self
            .core
            .iter()
            .chain(&self.others)
            .map(|(index, _)| *index);
        let silent_at = work.silent_at.into_inner();
        Probed {
            results: places.zip(core.chain(others)).collect(),
            silent_at: silent_at.unwrap_or_else(PoisonError::into_inner),
        }
    }

    /// Does one thread's share.
    fn work(&self, work: &Work) {
        let mut client = Client::new(self.setup);
        if self.probe_core(&mut client, work, &work.first) {
            let again = self.is_due_again(&work.first);
            if again {
                work.silent_at().clear();
            } else {
                self.end_core(work, &work.first);
            }
            work.again.open(again);
        }
        // Nothing outlasts the deadline, so that a thread that failed cannot hold up the others.
        let again = work.again.wait(self.core_deadline);
        if again == Some(true) && self.probe_core(&mut client, work, &work.second) {
            self.end_core(work, &work.second);
        }
        if work.go_on.wait(self.core_deadline) == Some(Ok(())) {
            let end = self.deadline;
            self.probe_batch(&mut client, work, &work.others, &self.others, end, &|_| {});
        }
    }

    /// Probes core routes until none is left, and says whether this thread ended the round.
    fn probe_core(&self, client: &mut Client, work: &Work, round: &Batch) -> bool {
        let end = self.core_deadline;
        self.probe_batch(client, work, round, &self.core, end, &|waited| {
            let addresses = waited.iter().map(|at| at.connection.remote);
            work.silent_at().extend(addresses);
        })
    }

    /// Probes one route of the batch after the other until none is left, and says whether this thread
    /// finished the last one.
    fn probe_batch(
        &self,
        client: &mut Client,
        work: &Work,
        batch: &Batch,
        routes: &[(usize, &Route)],
        end: Monotonic,
        waited: &dyn Fn(Vec<ProbeConnection>),
    ) -> bool {
        let mut last = false;
        loop {
            let turn = batch.next.fetch_add(1, Ordering::Relaxed);
            let (Some((_, route)), Some(slot)) = (routes.get(turn), batch.slots.get(turn)) else {
                return last;
            };
            let retries = match self.retries {
                true => route.options.retries,
                false => 0,
            };
            // Each turn is taken once, so the slot is empty.
            let _ = slot.set(probe::probe(client, route, retries, end, waited));
            let probed = work.probed.fetch_add(1, Ordering::Relaxed) + 1;
            let total = self.core.len() + self.others.len();
            self.events.progress(probed, total.max(probed));
            last = batch.done.fetch_add(1, Ordering::AcqRel) + 1 == routes.len();
        }
    }

    /// Whether a hang may have begun during this round of the core, and there is time for another.
    fn is_due_again(&self, round: &Batch) -> bool {
        let silent = round.results().filter(|result| result.proof.silent).count();
        let time = |length| Monotonic::now() + length <= self.deadline;
        silent > 0 && silent < self.core.len() && self.second_round.is_some_and(time)
    }

    /// Judges the core by its last round.
    fn end_core(&self, work: &Work, last: &Batch) {
        self.events.core_ends();
        work.go_on
            .open(match verdict::backend_state(last.results()) {
                BackendState::Up => Ok(()),
                BackendState::Hung => Err(SkipReason::BackendHung),
                BackendState::Down => Err(SkipReason::BackendDown),
            });
    }
}

impl Work {
    fn silent_at(&self) -> MutexGuard<'_, BTreeSet<SocketAddr>> {
        self.silent_at
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}
