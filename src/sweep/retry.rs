//! Which results are retried, how often, and after which pause.

use std::time::Duration;

use crate::cause::{Class, ResponseError, TransportError};
use crate::clock::Monotonic;

/// The further attempts that a route has left.
#[derive(Debug)]
pub(super) struct RetryBudget {
    left: u32,
    /// The pause before the next one.
    pause: Duration,
}

impl RetryBudget {
    /// `retries` further attempts, the first after `backoff`.
    pub(super) fn new(retries: u32, backoff: Duration) -> Self {
        Self {
            left: retries,
            pause: backoff,
        }
    }

    /// Spends one attempt and returns the pause before it; none if no attempt is left, or the pause would end
    /// after `deadline`.
    pub(super) fn next_pause(&mut self, deadline: Monotonic) -> Option<Duration> {
        if Monotonic::now() + self.pause >= deadline {
            return None;
        }
        self.left = self.left.checked_sub(1)?;
        let pause = self.pause;
        self.pause *= 2;
        Some(pause)
    }

    /// Whether all attempts have been made.
    pub(super) fn is_spent(&self) -> bool {
        self.left == 0
    }
}

/// Whether another attempt may give a better result.
pub(super) fn is_retried(class: Class, status: Option<u16>) -> bool {
    use {ResponseError as Response, TransportError as Transport};
    match class {
        Class::TimeoutUnreachable(
            Transport::Timeout
            | Transport::Refused
            | Transport::Reset
            | Transport::Dns
            | Transport::Network,
        ) => true,
        Class::HttpError(Response::Status) => matches!(status, Some(502..=504)),
        Class::TimeoutUnreachable(Transport::Tls | Transport::Deadline)
        | Class::HttpError(Response::Body | Response::Protocol | Response::Redirects)
        | Class::Ok
        | Class::RateLimited
        | Class::Skipped(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_transient_errors_and_gateway_errors_are_retried() {
        for error in [
            TransportError::Timeout,
            TransportError::Refused,
            TransportError::Reset,
            TransportError::Dns,
            TransportError::Network,
        ] {
            assert!(
                is_retried(Class::TimeoutUnreachable(error), None),
                "{error:?}"
            );
        }
        for error in [TransportError::Tls, TransportError::Deadline] {
            assert!(
                !is_retried(Class::TimeoutUnreachable(error), None),
                "{error:?}"
            );
        }
        for status in [500, 501, 502, 503, 504, 505] {
            let expected = (502..=504).contains(&status);
            assert_eq!(
                is_retried(Class::HttpError(ResponseError::Status), Some(status)),
                expected,
                "{status}"
            );
        }
        assert!(!is_retried(Class::RateLimited, Some(429)));
        assert!(!is_retried(
            Class::HttpError(ResponseError::Body),
            Some(503)
        ));
        assert!(!is_retried(Class::Ok, Some(503)));
    }

    #[test]
    fn a_budget_doubles_its_pauses_until_it_is_spent() {
        let late = Monotonic::now() + Duration::from_secs(600);
        let mut budget = RetryBudget::new(2, Duration::from_secs(1));
        assert!(!budget.is_spent());
        assert_eq!(budget.next_pause(late), Some(Duration::from_secs(1)));
        assert_eq!(budget.next_pause(late), Some(Duration::from_secs(2)));
        assert!(budget.is_spent());
        assert_eq!(budget.next_pause(late), None);
    }

    #[test]
    fn no_attempt_is_spent_on_a_pause_beyond_the_deadline() {
        let soon = Monotonic::now() + Duration::from_secs(1);
        let mut budget = RetryBudget::new(1, Duration::from_secs(1));
        assert_eq!(budget.next_pause(soon), None);
        assert!(!budget.is_spent());
    }
}
