//! How long it takes to prove a hang, and whether a sweep's deadline leaves that much time.

use std::num::NonZeroUsize;
use std::time::Duration;

use super::{LONGEST_DEADLINE, Manifest, Options, Route};

/// The keys that the proof time, or the room for it, depends on.
pub(super) const DEPENDS_ON: [&str; 7] = [
    "core",
    "timeout_seconds",
    "retries",
    "retry_backoff_seconds",
    "concurrency",
    "grace_seconds",
    "deadline_seconds",
];

impl Manifest {
    /// How long every core route has to stay silent until the backend counts as hung: their attempts and
    /// pauses, and the grace period.
    pub fn proof_time(&self) -> Duration {
        let grace = self.recovery.as_ref().map(|plan| plan.grace);
        self.silence_time()
            .saturating_add(grace.unwrap_or_default())
    }

    /// How long the core's attempts take if no route answers: the longest core route's attempts and pauses,
    /// once for each round of `concurrency` core routes.
    pub fn silence_time(&self) -> Duration {
        silence_time(&self.routes, self.concurrency)
    }
}

/// See [`Manifest::silence_time`].
fn silence_time(routes: &[Route], concurrency: NonZeroUsize) -> Duration {
    let core = routes.iter().filter(|route| route.core);
    let rounds = core.clone().count().div_ceil(concurrency.get());
    let longest = core.map(|route| whole_budget(&route.options)).max();
    let rounds = u32::try_from(rounds).unwrap_or(u32::MAX);
    longest.unwrap_or_default().saturating_mul(rounds)
}

/// Whether `deadline` leaves time for every core route to stay silent on all its attempts, and for the grace
/// period.
pub(super) fn check(
    routes: &[Route],
    concurrency: NonZeroUsize,
    grace: Duration,
    deadline: Duration,
) -> Result<(), String> {
    let needed = silence_time(routes, concurrency).saturating_add(grace);
    let core = routes.iter().filter(|route| route.core);
    let options = core.clone().map(|route| &route.options);
    let slowest = options.max_by_key(|options| whole_budget(options));
    let Some(slowest) = slowest.filter(|_| needed > deadline) else {
        return Ok(());
    };
    let why = format!(
        "core routes: {}, {concurrency} at a time, the slowest with {} attempts of {} s and pauses of {} s; \
         grace period: {} s",
        core.count(),
        slowest.retries + 1,
        in_seconds(slowest.timeout),
        in_seconds(pauses(slowest)),
        in_seconds(grace),
    );
    let remedy = if needed <= LONGEST_DEADLINE {
        format!("give at least {}", in_seconds(needed))
    } else {
        let (needed, most) = (in_seconds(needed), in_seconds(LONGEST_DEADLINE));
        format!(
            "{needed} would do, but {most} is the limit; have fewer core routes, timeouts or retries"
        )
    };
    let deadline = in_seconds(deadline);
    Err(format!(
        "{deadline} is too short to prove a hang; {remedy} ({why})"
    ))
}

/// The longest time that a route's attempts and pauses take.
fn whole_budget(options: &Options) -> Duration {
    options
        .timeout
        .saturating_mul(options.retries + 1)
        .saturating_add(pauses(options))
}

/// All pauses of a route: each is twice as long as the one before.
fn pauses(options: &Options) -> Duration {
    let units = 2_u32.saturating_pow(options.retries) - 1;
    options.backoff.saturating_mul(units)
}

/// A duration in seconds with exactly the digits that it needs: parsed again, it is the same duration.
pub(crate) fn in_seconds(length: Duration) -> String {
    let text = format!("{}.{:09}", length.as_secs(), length.subsec_nanos());
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}
