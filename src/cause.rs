//! The class of a route's result, its cause and its severity.

/// Why an attempt got no complete HTTP response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TransportError {
    /// Not finished within the attempt's own timeout.
    Timeout,
    /// The connection was refused: nothing listens there.
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

/// Why a response is not acceptable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResponseError {
    /// An unexpected status.
    Status,
    /// A failed body check.
    Body,
    /// Not HTTP, or HTTP with broken framing or an oversized head.
    Protocol,
    /// More redirects than allowed.
    Redirects,
}

/// Why a route was not probed at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SkipReason {
    /// The core routes prove that the backend hangs.
    BackendHung,
    /// The core routes prove that the backend is down.
    BackendDown,
    /// The sweep's deadline had passed.
    Deadline,
}

/// The class of a route's result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// The status is expected, the body arrived, and every check passed.
    Ok,
    /// The last attempt got no complete HTTP response.
    TimeoutUnreachable(TransportError),
    /// 429, unless it is expected.
    RateLimited,
    /// Any other response.
    HttpError(ResponseError),
    /// No attempt was made.
    Skipped(SkipReason),
}

impl Class {
    /// The name of every class, in the order of the tally.
    pub const NAMES: [&'static str; 5] = [
        "ok",
        "timeout_unreachable",
        "rate_limited",
        "http_error",
        "skipped",
    ];

    /// The class as machine-readable reports name it.
    pub const fn name(self) -> &'static str {
        let [ok, timeout_unreachable, rate_limited, http_error, skipped] = Self::NAMES;
        match self {
            Self::Ok => ok,
            Self::TimeoutUnreachable(_) => timeout_unreachable,
            Self::RateLimited => rate_limited,
            Self::HttpError(_) => http_error,
            Self::Skipped(_) => skipped,
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
            Self::TimeoutUnreachable(TransportError::Timeout) => "timeout",
            Self::TimeoutUnreachable(TransportError::Refused) => "refused",
            Self::TimeoutUnreachable(TransportError::Reset) => "reset",
            Self::TimeoutUnreachable(TransportError::Dns) => "dns",
            Self::TimeoutUnreachable(TransportError::Tls) => "tls",
            Self::TimeoutUnreachable(TransportError::Network) => "network",
            Self::TimeoutUnreachable(TransportError::Deadline)
            | Self::Skipped(SkipReason::Deadline) => "deadline",
            Self::Skipped(SkipReason::BackendHung) => "backend_hung",
            Self::Skipped(SkipReason::BackendDown) => "backend_down",
        })
    }

    /// The severity of this class for a core (`core`) or auxiliary route.
    pub const fn severity(self, core: bool) -> Severity {
        match self {
            Self::Ok => Severity::Fine,
            Self::HttpError(_) => Severity::Hard,
            Self::TimeoutUnreachable(_) | Self::Skipped(_) if core => Severity::Hard,
            Self::RateLimited | Self::TimeoutUnreachable(_) | Self::Skipped(_) => Severity::Soft,
        }
    }
}

/// How severe a route's result or a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// No problem.
    Fine,
    /// Reported, but no reason to fail the run.
    Soft,
    /// Fails the run.
    Hard,
}
