//! The routes to probe and the unit that may be killed. Every rule about input has been applied, so no
//! later code checks a value again. Nothing here uses the network.

mod headers;
mod json;
mod keys;
mod load;
mod proof;
#[cfg(any(test, fuzzing))]
pub(crate) mod properties;
mod reader;
mod routes;
mod rules;
mod syntax;
#[cfg(test)]
mod tests;
mod url;
mod variables;

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use nix::sys::signal::Signal;

pub use headers::Header;
pub(crate) use load::DEFAULT_PATHS;
pub use load::Source;
pub(crate) use proof::in_seconds;
pub use url::BaseUrl;
pub(crate) use url::default_port;
pub use variables::Variables;

/// The longest deadline of a sweep: a day.
pub const LONGEST_DEADLINE: Duration = Duration::from_secs(rules::DAY as u64);

/// A valid manifest: every value is within its limits.
#[derive(Debug)]
pub struct Manifest {
    /// Where it was read from.
    pub source: Source,
    /// The backend's name in reports.
    pub name: String,
    /// The address that every path is appended to.
    pub base_url: BaseUrl,
    /// The UNIX stream socket to connect to instead of the host and port of `base_url`, which is then
    /// `http://`; never with a proxy. An absolute path of at most 107 bytes, without NUL (unix(7)).
    pub unix_socket: Option<PathBuf>,
    /// The `User-Agent` of every probe: non-empty, visible ASCII and spaces.
    pub user_agent: String,
    /// The bound on one whole sweep, at most [`LONGEST_DEADLINE`].
    pub deadline: Duration,
    /// Probes in flight, at most 64.
    pub concurrency: NonZeroUsize,
    /// Whether `http_proxy`, `https_proxy`, `all_proxy` and `no_proxy` in the environment are used.
    pub uses_proxy: bool,
    /// The routes in the file's order: no two with the same method and path, at least one core.
    pub routes: Vec<Route>,
    /// What may be killed; nothing if absent.
    pub recovery: Option<RecoveryPlan>,
}

/// One route to probe.
#[derive(Debug)]
pub struct Route {
    /// Path and query as written.
    pub path: String,
    /// Whether this is a liveness route.
    pub core: bool,
    /// How it is probed.
    pub options: Options,
    /// What its body must contain; boxed because most routes have no checks.
    pub checks: Option<Box<BodyChecks>>,
}

/// How a route is probed.
#[derive(Clone, Debug, PartialEq)]
pub struct Options {
    /// `GET` or `HEAD`.
    pub method: Method,
    /// The acceptable statuses, each from 200 to 599; if empty, any 2xx or 3xx.
    pub expect: Vec<u16>,
    /// The bound on one attempt, from connect to the last body byte.
    pub timeout: Duration,
    /// Further attempts after the first, at most 10.
    pub retries: u32,
    /// The pause before the first retry; doubled for each further one.
    pub backoff: Duration,
    /// Redirects to follow, at most 20.
    pub max_redirects: u32,
    /// Request headers, names unique without regard to case.
    pub headers: Vec<Header>,
    /// Bytes of body that are read, at most 16 MiB.
    pub max_body_bytes: usize,
}

/// A request's method.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Method {
    /// `GET`
    Get,
    /// `HEAD`
    Head,
}

impl Method {
    /// The method as HTTP writes it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Head => "HEAD",
        }
    }
}

impl Options {
    /// Whether `status` is acceptable.
    pub fn accepts(&self, status: u16) -> bool {
        match self.expect.as_slice() {
            [] => (200..400).contains(&status),
            listed => listed.contains(&status),
        }
    }
}

/// What a body must contain; at least one of the two.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct BodyChecks {
    /// Text that must occur in the body.
    pub contains: Option<String>,
    /// JSON Pointers (RFC 6901) and the values that are expected there.
    pub json: Vec<(String, serde_json::Value)>,
}

/// What may be killed, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecoveryPlan {
    /// The `.service` unit that runs the backend: valid by systemd.unit(5), and not a template.
    pub unit: String,
    /// Which manager runs it.
    pub scope: Scope,
    /// The signal that ends the hung process.
    pub signal: KillSignal,
    /// The signal that asks the unit's processes for their stacks before the kill, if one is configured: `SIGUSR1`,
    /// `SIGUSR2` or `SIGQUIT`. Only processes that catch it get it.
    pub dump_signal: Option<Signal>,
    /// A main process younger than this is still starting.
    pub min_uptime: Duration,
    /// How long after the core's last silent attempt a parked request may still be answered before the
    /// backend counts as hung.
    pub grace: Duration,
    /// The time within which the core must answer after the restart.
    pub verify: Duration,
}

/// The signal that ends a hung main process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KillSignal {
    /// Ends it at once.
    Kill,
    /// Lets it dump core or print a traceback first.
    Abort,
}

impl KillSignal {
    /// The signal as signal(7) names it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Kill => "SIGKILL",
            Self::Abort => "SIGABRT",
        }
    }
}

/// Which service manager is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// The system manager.
    System,
    /// The caller's user manager (`systemctl --user`).
    User,
}
