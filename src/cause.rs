//! The class of a route's result, its cause, and how much it weighs.

/// Why an attempt brought no complete HTTP response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TransportError {
    /// Not done within the attempt's own timeout.
    Timeout,
    /// Nobody listens.
    Refused,
    /// Closed or reset before the response was complete.
    Reset,
    /// The name was not resolved, in time or at all.
    Dns,
    /// The TLS handshake or a record failed.
    Tls,
    /// Any other failure of the transport, a failing proxy included.
    Network,
    /// Cut short by the sweep's deadline.
    Deadline,
}

impl TransportError {
    /// The error as reports name it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Timeout => "timeout",
            Self::Refused => "refused",
            Self::Reset => "reset",
            Self::Dns => "dns",
            Self::Tls => "tls",
            Self::Network => "network",
            Self::Deadline => "deadline",
        }
    }
}

/// What is wrong with a complete HTTP answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResponseError {
    /// A status that is not expected.
    Status,
    /// A body check that does not hold.
    Body,
    /// Not HTTP, or HTTP with broken framing or an oversized head.
    Protocol,
    /// More redirects than allowed.
    Redirects,
}

/// Why a route was not probed at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SkipReason {
    /// The core proved the backend hung.
    BackendHung,
    /// The core proved the backend down.
    BackendDown,
    /// The sweep's time was over.
    Deadline,
}

/// What is said about a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// The status is expected, the body arrived, and every check holds.
    Ok,
    /// The last attempt brought no complete HTTP response.
    TimeoutUnreachable(TransportError),
    /// 429, unless it is expected.
    RateLimited,
    /// Any other answer.
    HttpError(ResponseError),
    /// No attempt was made.
    Skipped(SkipReason),
}

impl Class {
    /// The class as machine-readable reports name it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::TimeoutUnreachable(_) => "timeout_unreachable",
            Self::RateLimited => "rate_limited",
            Self::HttpError(_) => "http_error",
            Self::Skipped(_) => "skipped",
        }
    }

    /// Why, as machine-readable reports name it; none for [`Class::Ok`].
    pub const fn cause(self) -> Option<&'static str> {
        Some(match self {
            Self::Ok => return None,
            Self::RateLimited | Self::HttpError(ResponseError::Status) => "status",
            Self::HttpError(ResponseError::Body) => "body",
            Self::HttpError(ResponseError::Protocol) => "protocol",
            Self::HttpError(ResponseError::Redirects) => "redirects",
            Self::TimeoutUnreachable(error) => error.name(),
            Self::Skipped(SkipReason::Deadline) => "deadline",
            Self::Skipped(SkipReason::BackendHung) => "backend_hung",
            Self::Skipped(SkipReason::BackendDown) => "backend_down",
        })
    }

    /// How much this class weighs for a core (`core`) or auxiliary route.
    pub const fn severity(self, core: bool) -> Severity {
        match self {
            Self::Ok => Severity::Fine,
            Self::RateLimited => Severity::Soft,
            Self::HttpError(_) => Severity::Hard,
            Self::TimeoutUnreachable(_) | Self::Skipped(_) => {
                if core {
                    Severity::Hard
                } else {
                    Severity::Soft
                }
            }
        }
    }
}

/// How much a route's result weighs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// As it should be.
    Fine,
    /// Reported, but no reason to fail the run.
    Soft,
    /// Fails the run.
    Hard,
}
