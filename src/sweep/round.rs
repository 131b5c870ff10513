//! One round of probes: several routes in parallel, in the order given.

use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use super::client::Client;
use super::history::merge_rounds;
use super::parked::ParkedRequest;
use super::probe::{self, Plan};
use crate::cause::SkipReason;
use crate::clock::Monotonic;
use crate::manifest::Route;
use crate::verdict::{self, BackendState, ProbeResult};

/// Routes with their indices in the manifest.
pub(super) type Routes<'m> = Vec<(usize, &'m Route)>;

/// The results of one round: each route's index in the manifest and its result, ordered by index.
pub(super) struct Round {
    pub(super) results: Vec<(usize, ProbeResult)>,
}

impl Round {
    /// Whether a hang may have begun during this round: some routes were silent, but not all.
    pub(super) fn is_partly_silent(&self) -> bool {
        let silent = |(_, result): &(usize, ProbeResult)| result.proof.silent;
        self.results.iter().any(silent) && !self.results.iter().all(silent)
    }

    /// What the results prove about the backend, if they are those of the core routes.
    pub(super) fn backend(&self) -> BackendState {
        verdict::backend_state(self.results.iter().map(|(_, result)| result))
    }

    /// A route of which a parked request was answered after all is not silent.
    pub(super) fn apply_late_answers(&mut self, parked: &[ParkedRequest]) {
        for (index, result) in &mut self.results {
            let of_route = parked.iter().filter(|request| request.route == *index);
            if let Some(after) = of_route.filter_map(ParkedRequest::answered).min() {
                result.proof.silent = false;
                result.proof.received_any = true;
                // A route that has answered another attempt says enough.
                if !result.class.is_complete() {
                    result.detail =
                        Some(format!("answered after {:.1} s", after.as_secs_f64()).into());
                }
            }
        }
    }

    /// The results of two rounds over the same routes.
    pub(super) fn merge(self, second: Self) -> Vec<(usize, ProbeResult)> {
        let pairs = self.results.iter().zip(second.results);
        let merged =
            pairs.map(|((_, first), (index, second))| (index, merge_rounds(first, second)));
        merged.collect()
    }

    /// A round in which no route is probed.
    pub(super) fn skipped(routes: &Routes, reason: SkipReason) -> Self {
        let results = routes
            .iter()
            .map(|(index, _)| (*index, probe::skipped(reason)));
        Self {
            results: results.collect(),
        }
    }
}

/// Probes `routes` until `deadline`, `concurrency` at a time. Every probing thread calls `done` after each
/// route.
pub(super) fn probe_all(
    client: &Arc<Client>,
    routes: &Routes,
    concurrency: NonZeroUsize,
    plan: Plan,
    deadline: Monotonic,
    done: impl Fn() + Sync,
) -> Round {
    let next = AtomicUsize::new(0);
    let round = Mutex::new(Round {
        results: Vec::with_capacity(routes.len()),
    });
    let work = || {
        while let Some((index, route)) = routes.get(next.fetch_add(1, Ordering::Relaxed)) {
            let result = probe::probe(client, (*index, route), plan, deadline);
            let mut round = round.lock().unwrap_or_else(PoisonError::into_inner);
            round.results.push((*index, result));
            drop(round);
            done();
        }
    };
    thread::scope(|scope| {
        for _ in 1..concurrency.get().min(routes.len()) {
            // If a thread cannot be started, the others take over its routes.
            let _ = thread::Builder::new().spawn_scoped(scope, work);
        }
        work();
    });
    let mut round = round.into_inner().unwrap_or_else(PoisonError::into_inner);
    round.results.sort_unstable_by_key(|(index, _)| *index);
    round
}
