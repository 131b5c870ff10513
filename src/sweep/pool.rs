//! Hands routes out to threads and puts the outcomes back in order.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use super::Progress;
use super::http::{Client, Setup};
use super::probe;
use super::wait::Earlier;
use crate::clock::Monotonic;
use crate::manifest::Manifest;
use crate::verdict::{Outcome, Reason};

/// What the probes of one sweep have in common.
pub(super) struct Pool<'a> {
    pub(super) manifest: &'a Manifest,
    pub(super) setup: Setup,
    /// When the sweep ends, whatever the probes do.
    pub(super) deadline: Monotonic,
    /// Whether routes have their own retry budgets; else one attempt each.
    pub(super) retries: bool,
    pub(super) earlier: Option<&'a Earlier>,
    pub(super) progress: Progress<'a>,
    /// Probes done so far.
    pub(super) done: AtomicUsize,
    /// Probes in all.
    pub(super) total: usize,
}

impl Pool<'_> {
    /// Probes the routes that `picked` names by their index; the outcomes are in its order.
    pub(super) fn probe(&self, picked: &[usize]) -> Vec<Outcome> {
        let slots: Vec<OnceLock<Outcome>> = picked.iter().map(|_| OnceLock::new()).collect();
        let next = AtomicUsize::new(0);
        let work = || self.work(picked, &slots, &next);
        let threads = self.manifest.concurrency.get().min(picked.len());
        thread::scope(|scope| {
            for _ in 1..threads {
                // Fewer threads than wished for only make the sweep slower.
                let _ = thread::Builder::new()
                    .name("probe".to_owned())
                    .spawn_scoped(scope, work);
            }
            work();
        });
        let outcomes = slots.into_iter().map(OnceLock::into_inner);
        outcomes
            .map(|outcome| outcome.unwrap_or_else(|| probe::skipped(Reason::Deadline)))
            .collect()
    }

    fn work(&self, picked: &[usize], slots: &[OnceLock<Outcome>], next: &AtomicUsize) {
        let mut client = Client::new(self.setup.clone());
        loop {
            let turn = next.fetch_add(1, Ordering::Relaxed);
            let (Some(&index), Some(slot)) = (picked.get(turn), slots.get(turn)) else {
                return;
            };
            let Some(route) = self.manifest.routes.get(index) else {
                return;
            };
            let retries = if self.retries {
                route.options.retries
            } else {
                0
            };
            let error = self.earlier.and_then(|earlier| earlier.error(index));
            // Each turn is taken once, so the slot is empty.
            let _ = slot.set(probe::probe(
                &mut client,
                route,
                retries,
                self.deadline,
                error,
            ));
            let done = self.done.fetch_add(1, Ordering::Relaxed) + 1;
            (self.progress)(done, self.total);
        }
    }
}
