//! How long it takes to prove a hang, and whether a sweep's deadline leaves that much time.

use std::num::NonZeroUsize;
use std::time::Duration;

use super::reader::Object;
use super::{LONGEST_DEADLINE, Manifest, Options, Route};

/// The keys that the proof time, or the room for it, depends on.
const DEPENDS_ON: &str =
    "core timeout_seconds retries retry_backoff_seconds concurrency grace_seconds deadline_seconds";

impl Manifest {
    /// How long every core route has to stay silent until the backend counts as hung: their attempts and
    /// pauses, and the grace period.
    pub fn proof_time(&self) -> Duration {
        let grace = self.recovery.as_ref().map(|plan| plan.grace);
        let silence = silence_time(&self.routes, self.concurrency);
        silence.saturating_add(grace.unwrap_or_default())
    }
}

/// How long the core's attempts take if no route answers: the longest core route's attempts and pauses, once for
/// each round of `concurrency` core routes.
fn silence_time(routes: &[Route], concurrency: NonZeroUsize) -> Duration {
    let core = routes.iter().filter(|route| route.core);
    let rounds = core.clone().count().div_ceil(concurrency.get());
    let longest = core.map(|route| whole_budget(&route.options)).max();
    let rounds = u32::try_from(rounds).unwrap_or(u32::MAX);
    longest.unwrap_or_default().saturating_mul(rounds)
}

/// The longest time that a route's attempts and pauses take. Each pause is twice as long as the one before.
fn whole_budget(options: &Options) -> Duration {
    let attempts = options.timeout.saturating_mul(options.retries + 1);
    let pauses = 2_u32.saturating_pow(options.retries) - 1;
    attempts.saturating_add(options.backoff.saturating_mul(pauses))
}

/// Notes a deadline that leaves no time for every core route to stay silent on all its attempts and for the grace
/// period, unless a value that this depends on is invalid: the figure would mislead.
pub(super) fn check_deadline(
    keys: &Object<'_, '_>,
    routes: &[Route],
    concurrency: NonZeroUsize,
    grace: Duration,
    deadline: Duration,
) {
    let silence = silence_time(routes, concurrency);
    let needed = silence.saturating_add(grace);
    let invalid = keys.node.context.invalid.borrow();
    if needed <= deadline || DEPENDS_ON.split(' ').any(|key| invalid.contains(key)) {
        return;
    }
    let is_default = !keys.has("deadline_seconds");
    let default = if is_default { "the default " } else { "" };
    let is_possible = needed <= LONGEST_DEADLINE;
    let beyond = ", which is beyond the limit of 86400";
    let limit = if is_possible { "" } else { beyond };
    let [needed, deadline, silence, grace] = [needed, deadline, silence, grace].map(in_seconds);
    let message = format!(
        "{default}{deadline} is too short to prove a hang; give at least {needed}{limit}, or have fewer core routes, shorter \
         timeouts or fewer retries (all attempts and pauses of the core routes: {silence} s; grace period: {grace} s)"
    );
    keys.note("deadline_seconds", message);
}

/// A duration in seconds with exactly the digits that it needs: parsed again, it is the same duration.
pub(crate) fn in_seconds(length: Duration) -> String {
    let text = format!("{}.{:09}", length.as_secs(), length.subsec_nanos());
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}
