//! One clock for every limit and age: `CLOCK_MONOTONIC`, because systemd states when a process
//! started on that clock, and `std::time::Instant` cannot be compared with such a number.

use std::ops::Add;
use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

/// A point on `CLOCK_MONOTONIC` (clock_gettime(2)), counted from the kernel's start, without the
/// time the machine was suspended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Monotonic(Duration);

impl Monotonic {
    /// The current time.
    pub fn now() -> Self {
        // The call cannot fail for this clock: clock_gettime(2) names only a bad clock or pointer.
        let time = clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(Duration::ZERO, Duration::from);
        Self(time)
    }

    /// The point `micros` microseconds after the clock's zero, as in systemd's `…Monotonic`
    /// properties (org.freedesktop.systemd1(5)).
    pub const fn from_micros(micros: u64) -> Self {
        Self(Duration::from_micros(micros))
    }

    /// The time since `earlier`; zero if that is in the future.
    pub fn since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }

    /// How much time is left until this point; zero once it has passed.
    pub fn remaining(self) -> Duration {
        self.since(Self::now())
    }

    /// Whether this point has passed.
    pub fn has_passed(self) -> bool {
        self.remaining().is_zero()
    }
}

impl Add<Duration> for Monotonic {
    type Output = Self;

    fn add(self, length: Duration) -> Self {
        Self(self.0.saturating_add(length))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn since_is_zero_for_a_point_ahead() {
        let early = Monotonic::from_micros(1_000);
        let late = early + Duration::from_micros(500);
        assert_eq!(late.since(early), Duration::from_micros(500));
        assert_eq!(early.since(late), Duration::ZERO);
    }

    #[test]
    fn now_never_goes_back_and_has_passed_at_once() {
        let before = Monotonic::now();
        let after = Monotonic::now();
        assert!(before <= after);
        assert!(before.has_passed());
        assert!(!(after + Duration::from_secs(60)).has_passed());
    }
}
