//! One round of probes: several routes in parallel, in the order given.

use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use super::client::Client;
use super::parked::ParkedRequest;
use super::probe::{keep_http_error, probe};
use crate::cause::Class;
use crate::clock::Monotonic;
use crate::manifest::Route;
use crate::verdict::ProbeResult;

/// Routes with their indices in the manifest.
pub(super) type Routes<'m> = Vec<(usize, &'m Route)>;

/// Results with the indices of their routes, ordered by index.
pub(super) type Results = Vec<(usize, ProbeResult)>;

/// How a round probes its routes.
#[derive(Clone, Copy)]
pub(super) struct Round<'a> {
    pub(super) client: &'a Arc<Client>,
    pub(super) concurrency: NonZeroUsize,
    /// No attempt ends after it.
    pub(super) deadline: Monotonic,
    /// Without retries.
    pub(super) once: bool,
    /// The number of this round in parked requests; without one, silent requests are not parked.
    pub(super) parks_as: Option<u32>,
    /// Called by every probing thread after each route.
    pub(super) progress: &'a (dyn Fn() + Sync),
}

impl Round<'_> {
    pub(super) fn probe(&self, routes: &Routes) -> Results {
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
            for _ in 1..self.concurrency.get().min(routes.len()) {
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

/// Whether a hang may have begun during a round: some routes were silent, but not all.
pub(super) fn is_partly_silent(results: &Results) -> bool {
    let silent = |(_, result): &(usize, ProbeResult)| result.proof.silent;
    results.iter().any(silent) && !results.iter().all(silent)
}

/// A route of which a parked request was answered after all is not silent.
pub(super) fn apply_late_answers(results: &mut Results, parked: &[ParkedRequest]) {
    for (index, result) in results {
        let of_route = parked.iter().filter(|request| request.route == *index);
        let Some(after) = of_route.filter_map(ParkedRequest::answered).min() else {
            continue;
        };
        result.proof.silent = false;
        result.proof.received_any = true;
        // A route that has answered another attempt says enough.
        if let Class::TimeoutUnreachable(_) | Class::Skipped(_) = result.class {
            let detail = format!("answered after {:.1} s", after.as_secs_f64());
            result.detail = Some(detail.into());
        }
    }
}

/// Adds to the results of a second round what the first one over the same routes found.
pub(super) fn merge(first: &Results, second: &mut Results) {
    for ((_, first), (_, second)) in first.iter().zip(second) {
        second.attempts += first.attempts;
        keep_http_error(second, first);
    }
}
