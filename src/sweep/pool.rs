//! Hands routes out to threads and puts the outcomes back in order. The core routes come first, and
//! a gate keeps the others back until it is known whether probing them still makes sense.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, OnceLock, PoisonError};
use std::thread;
use std::time::Duration;

use super::Progress;
use super::http::{Client, Setup};
use super::probe;
use super::wait::Earlier;
use crate::clock::Monotonic;
use crate::manifest::Manifest;
use crate::verdict::{self, Backend, Outcome, Reason};

/// How far beyond the deadline the core may be probed where a recovery depends on it. The manifest
/// grants the core just the time that its attempts take on paper; in truth each begins and ends some
/// milliseconds late, and a last attempt that is cut short proves nothing.
const GRACE: Duration = Duration::from_millis(500);

/// One sweep over some of the routes.
pub(super) struct Pool<'a> {
    pub(super) manifest: &'a Manifest,
    pub(super) setup: Setup,
    /// When the sweep ends, whatever the probes do; but see [`GRACE`].
    pub(super) deadline: Monotonic,
    /// Whether routes have their own retry budgets; else one attempt each.
    pub(super) retries: bool,
    pub(super) earlier: Option<&'a Earlier>,
    pub(super) progress: Progress<'a>,
    /// The routes to probe, by their index; the first `core` of them are core.
    pub(super) picked: Vec<usize>,
    pub(super) core: usize,
}

/// What the threads share.
#[derive(Default)]
struct Work {
    slots: Vec<OnceLock<Outcome>>,
    next: AtomicUsize,
    done: AtomicUsize,
    core_done: AtomicUsize,
    gate: Gate,
}

/// Closed until all core routes are done.
#[derive(Default)]
struct Gate {
    /// Once open: why the other routes are not probed, if they are not.
    open: Mutex<Option<Option<Reason>>>,
    opened: Condvar,
}

impl Gate {
    fn open(&self, reason: Option<Reason>) {
        *self.open.lock().unwrap_or_else(PoisonError::into_inner) = Some(reason);
        self.opened.notify_all();
    }

    /// Waits until the gate is open, or the sweep's time is over.
    fn pass(&self, deadline: Monotonic) -> Option<Reason> {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let closed = |open: &mut Option<_>| open.is_none();
        let waited = self
            .opened
            .wait_timeout_while(open, deadline.remaining(), closed);
        waited
            .unwrap_or_else(PoisonError::into_inner)
            .0
            .unwrap_or(Some(Reason::Deadline))
    }
}

impl Pool<'_> {
    /// Probes the picked routes; the outcomes are in their order.
    pub(super) fn probe(&self) -> Vec<Outcome> {
        let slots = self.picked.iter().map(|_| OnceLock::new()).collect();
        let work = Work {
            slots,
            ..Work::default()
        };
        let threads = self.manifest.concurrency.get().min(self.picked.len());
        thread::scope(|scope| {
            for _ in 1..threads {
                let thread = thread::Builder::new().name("probe".to_owned());
                // Fewer threads than wished for only make the sweep slower.
                let _ = thread.spawn_scoped(scope, || self.work(&work));
            }
            self.work(&work);
        });
        let outcomes = work.slots.into_iter().map(OnceLock::into_inner);
        outcomes
            .map(|outcome| outcome.unwrap_or_else(|| probe::skipped(Reason::Deadline)))
            .collect()
    }

    /// Takes one route after the other until none is left.
    fn work(&self, work: &Work) {
        let mut client = Client::new(self.setup.clone());
        loop {
            let turn = work.next.fetch_add(1, Ordering::Relaxed);
            let (Some(index), Some(slot)) = (self.picked.get(turn), work.slots.get(turn)) else {
                return;
            };
            let core = turn < self.core;
            let (deadline, skipped) = match core {
                true => (self.core_deadline(), None),
                false => (self.deadline, work.gate.pass(self.core_deadline())),
            };
            let outcome = match skipped {
                Some(reason) => probe::skipped(reason),
                None => self.probe_one(&mut client, *index, deadline),
            };
            // Each turn is taken once, so the slot is empty.
            let _ = slot.set(outcome);
            (self.progress)(
                work.done.fetch_add(1, Ordering::Relaxed) + 1,
                self.picked.len(),
            );
            if core && work.core_done.fetch_add(1, Ordering::AcqRel) + 1 == self.core {
                let outcomes = work.slots.iter().take(self.core).filter_map(OnceLock::get);
                work.gate.open(match verdict::backend(outcomes) {
                    Backend::Up => None,
                    Backend::Hung => Some(Reason::BackendHung),
                    Backend::Down => Some(Reason::BackendDown),
                });
            }
        }
    }

    /// When the core's probes end, whatever they do.
    fn core_deadline(&self) -> Monotonic {
        if self.retries && self.manifest.recovery.is_some() {
            self.deadline + GRACE
        } else {
            self.deadline
        }
    }

    fn probe_one(&self, client: &mut Client, index: usize, deadline: Monotonic) -> Outcome {
        let Some(route) = self.manifest.routes.get(index) else {
            return probe::skipped(Reason::Deadline);
        };
        let retries = if self.retries {
            route.options.retries
        } else {
            0
        };
        let error = self.earlier.and_then(|earlier| earlier.error(index));
        probe::probe(client, route, retries, deadline, error)
    }
}
