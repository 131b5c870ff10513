//! Hands routes out to threads and puts the outcomes back in order. The core routes come first, and
//! a gate keeps the others back until it is known whether probing them still makes sense.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, OnceLock, PoisonError};
use std::thread;

use super::Progress;
use super::attempt::ProbeConnection;
use super::http::{Client, Setup};
use super::probe;
use crate::clock::Monotonic;
use crate::manifest::Route;
use crate::verdict::{self, BackendState, ProbeResult, SkipReason};

/// One sweep over some of the routes.
pub(super) struct Pool<'a> {
    pub(super) setup: &'a Setup,
    pub(super) concurrency: NonZeroUsize,
    /// When the sweep ends, whatever the probes do.
    pub(super) deadline: Monotonic,
    /// The same for the core, which may have a little more time.
    pub(super) core_deadline: Monotonic,
    /// Whether routes have their own retry budgets; else one attempt each.
    pub(super) retries: bool,
    pub(super) progress: Progress<'a>,
    /// The routes to probe, with their places in the manifest; the first `core` of them are core.
    pub(super) picked: Vec<(usize, &'a Route)>,
    pub(super) core: usize,
}

/// What the threads share.
#[derive(Default)]
struct Work {
    slots: Vec<OnceLock<ProbeResult>>,
    next: AtomicUsize,
    done: AtomicUsize,
    core_done: AtomicUsize,
    gate: Gate,
    /// Where core attempts were silent.
    silent_at: Mutex<BTreeSet<SocketAddr>>,
}

/// Closed until all core routes are done.
#[derive(Default)]
struct Gate {
    /// Once the core is judged: whether the other routes are probed, or why not.
    leave: Mutex<Option<Result<(), SkipReason>>>,
    judged: Condvar,
}

impl Gate {
    fn open(&self, leave: Result<(), SkipReason>) {
        *self.leave.lock().unwrap_or_else(PoisonError::into_inner) = Some(leave);
        self.judged.notify_all();
    }

    /// Waits until the core is judged, or the sweep's time is over.
    fn pass(&self, deadline: Monotonic) -> Result<(), SkipReason> {
        let leave = self.leave.lock().unwrap_or_else(PoisonError::into_inner);
        let closed = |leave: &mut Option<_>| leave.is_none();
        let waited = self
            .judged
            .wait_timeout_while(leave, deadline.remaining(), closed);
        waited
            .unwrap_or_else(PoisonError::into_inner)
            .0
            .unwrap_or(Err(SkipReason::Deadline))
    }
}

impl Work {
    fn note_silence(&self, waited: &[ProbeConnection]) {
        let mut silent_at = self
            .silent_at
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        silent_at.extend(waited.iter().map(|at| at.connection.remote));
    }
}

impl Pool<'_> {
    /// Probes the picked routes; what came of each stands beside its place in the manifest.
    pub(super) fn probe(&self) -> (Vec<(usize, ProbeResult)>, Vec<SocketAddr>) {
        let slots = self.picked.iter().map(|_| OnceLock::new()).collect();
        let work = Work {
            slots,
            ..Work::default()
        };
        let threads = self.concurrency.get().min(self.picked.len());
        thread::scope(|scope| {
            for _ in 1..threads {
                let thread = thread::Builder::new().name("probe".to_owned());
                // Fewer threads than wished for only make the sweep slower.
                let _ = thread.spawn_scoped(scope, || self.work(&work));
            }
            self.work(&work);
        });
        let outcomes = work.slots.into_iter().map(|slot| {
            let outcome = slot.into_inner();
            outcome.unwrap_or_else(|| probe::skipped(SkipReason::Deadline))
        });
        let places = self.picked.iter().map(|(index, _)| *index);
        let silent_at = work
            .silent_at
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner);
        (
            places.zip(outcomes).collect(),
            silent_at.into_iter().collect(),
        )
    }

    /// Takes one route after the other until none is left.
    fn work(&self, work: &Work) {
        let mut client = Client::new(self.setup);
        loop {
            let turn = work.next.fetch_add(1, Ordering::Relaxed);
            let (Some((_, route)), Some(slot)) = (self.picked.get(turn), work.slots.get(turn))
            else {
                return;
            };
            let core = turn < self.core;
            let (deadline, leave) = match core {
                true => (self.core_deadline, Ok(())),
                false => (self.deadline, work.gate.pass(self.core_deadline)),
            };
            let retries = match self.retries {
                true => route.options.retries,
                false => 0,
            };
            let outcome = match leave {
                Ok(()) => probe::probe(&mut client, route, retries, deadline, &|waited| {
                    if core {
                        work.note_silence(&waited);
                    }
                }),
                Err(reason) => probe::skipped(reason),
            };
            // Each turn is taken once, so the slot is empty.
            let _ = slot.set(outcome);
            (self.progress)(
                work.done.fetch_add(1, Ordering::Relaxed) + 1,
                self.picked.len(),
            );
            if core && work.core_done.fetch_add(1, Ordering::AcqRel) + 1 == self.core {
                let outcomes = work.slots.iter().take(self.core).filter_map(OnceLock::get);
                work.gate.open(match verdict::backend_state(outcomes) {
                    BackendState::Up => Ok(()),
                    BackendState::Hung => Err(SkipReason::BackendHung),
                    BackendState::Down => Err(SkipReason::BackendDown),
                });
            }
        }
    }
}
