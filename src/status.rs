//! The exit statuses 0, 1 and 2.

use std::process::{ExitCode, Termination};

/// How a run ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// Every core route is OK or rate-limited, and no route gave an HTTP error.
    Healthy = 0,
    /// The probes found the backend unhealthy, even where this run then recovered it.
    Unhealthy = 1,
    /// The check itself could not run or report.
    Unusable = 2,
}

impl Status {
    /// The status of a run that probed: an unhealthy verdict outranks a report that was not written.
    pub const fn of(healthy: bool, reported: bool) -> Self {
        match (healthy, reported) {
            (false, _) => Self::Unhealthy,
            (true, true) => Self::Healthy,
            (true, false) => Self::Unusable,
        }
    }
}

impl Termination for Status {
    fn report(self) -> ExitCode {
        ExitCode::from(self as u8)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unhealthy_verdict_outranks_a_failed_report() {
        assert_eq!(Status::of(true, true), Status::Healthy);
        assert_eq!(Status::of(false, true), Status::Unhealthy);
        assert_eq!(Status::of(false, false), Status::Unhealthy);
        assert_eq!(Status::of(true, false), Status::Unusable);
    }
}
