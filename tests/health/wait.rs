//! Waiting for a condition.

use std::thread;
use std::time::{Duration, Instant};

/// Waits for the condition, for at most `limit`; returns whether it became true.
pub(crate) fn wait_until(limit: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let start = Instant::now();
    loop {
        if condition() {
            return true;
        }
        if start.elapsed() > limit {
            return false;
        }
        thread::sleep(Duration::from_millis(5));
    }
}
