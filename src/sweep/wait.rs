//! Repeats the sweep until the backend is healthy or the waiting is over, and remembers between
//! two sweeps what a later one must not hide.

use std::collections::HashMap;
use std::thread;
use std::time::Duration;

use super::{Prober, Progress, Sweep};
use crate::clock::Monotonic;
use crate::manifest::{Manifest, Route};
use crate::verdict::{self, Class, Outcome, Severity, Verdict};

/// The pause between two sweeps.
const PAUSE: Duration = Duration::from_secs(1);

/// How long to wait for a healthy sweep.
#[derive(Clone, Copy, Debug)]
pub struct Wait {
    /// No sweep begins after this much time; zero for a single sweep.
    pub limit: Duration,
    /// Whether a proof of a hang ends the waiting, because a recovery follows.
    pub ends_at_hang: bool,
}

/// What the sweeps before brought back.
#[derive(Debug, Default)]
pub(super) struct Earlier {
    outcomes: Vec<Outcome>,
    errors: HashMap<usize, Outcome>,
}

/// Judges the outcomes of all routes of `manifest`.
fn judge(manifest: &Manifest, outcomes: &[Outcome]) -> Verdict {
    verdict::judge(manifest.routes.iter().map(|route| route.core).zip(outcomes))
}

/// Sweeps until a sweep is healthy or `wait` is over, and returns the last sweep. `unhealthy` is
/// told of each sweep that another one follows, with the time that is left.
pub fn until_healthy(
    prober: &Prober,
    wait: Wait,
    progress: Progress,
    unhealthy: &dyn Fn(&Sweep, &Verdict, Duration),
) -> (Sweep, Verdict) {
    let end = Monotonic::now() + wait.limit;
    let mut earlier = Earlier::default();
    let mut sweep = prober.sweep(None, progress);
    loop {
        let verdict = judge(prober.manifest, &sweep.outcomes);
        let over = Monotonic::now() + PAUSE > end;
        if verdict.healthy || over || (wait.ends_at_hang && verdict.hung()) {
            return (sweep, verdict);
        }
        unhealthy(&sweep, &verdict, end.remaining());
        thread::sleep(PAUSE);
        earlier.remember(sweep.outcomes);
        sweep = prober.sweep(Some(&earlier), progress);
    }
}

impl Earlier {
    /// Whether a later sweep probes this route again: a core one, or one that failed hard or was
    /// skipped. Probing all of them every second would provoke rate limits.
    pub(super) fn due(&self, index: usize, route: &Route) -> bool {
        route.core
            || self.outcomes.get(index).is_none_or(|outcome| {
                matches!(outcome.class, Class::Skipped(_))
                    || outcome.class.severity(route.core) == Severity::Hard
            })
    }

    /// The HTTP error that the route gave before, unless it has been as it should be since.
    pub(super) fn error(&self, index: usize) -> Option<&Outcome> {
        self.errors.get(&index)
    }

    /// All outcomes, with `probed` in their routes' places.
    pub(super) fn with(&self, probed: Vec<(usize, Outcome)>) -> Vec<Outcome> {
        let mut outcomes = self.outcomes.clone();
        for (index, outcome) in probed {
            if let Some(place) = outcomes.get_mut(index) {
                *place = outcome;
            }
        }
        outcomes
    }

    fn remember(&mut self, outcomes: Vec<Outcome>) {
        for (index, outcome) in outcomes.iter().enumerate() {
            match outcome.class {
                Class::HttpError(_) => drop(self.errors.insert(index, outcome.clone())),
                Class::Ok => drop(self.errors.remove(&index)),
                Class::TimeoutUnreachable(_) | Class::RateLimited | Class::Skipped(_) => {}
            }
        }
        self.outcomes = outcomes;
    }
}
