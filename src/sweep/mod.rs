//! Probes the routes: which ones, in which order, on how many threads, and until when. What the
//! core proves is asked of the verdict; nothing here decides about a recovery.

mod buffers;
mod http;
mod line;
mod names;
mod pool;
mod probe;
mod proxy;
mod tls;
mod wait;

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::Duration;

use anyhow::anyhow;

use self::http::{Client, End, Setup};
use self::line::Failure;
use self::names::Unresolved;
use self::pool::Pool;
use self::wait::Earlier;
use crate::clock::Monotonic;
use crate::manifest::{Manifest, Method, Options, Proxy, Route, Scheme};
use crate::verdict::{ProbeResult, Severity};

pub use self::wait::{Wait, until_healthy};

/// How long the last GET listens. A reader that keeps stderr waiting delays the signal for as long
/// as it likes, and a backend that wakes up meanwhile must be heard.
const KNOCK_LIMIT: Duration = Duration::from_secs(86_400);

/// How far beyond the deadline the core may be probed where a recovery depends on it. The manifest
/// grants the core just the time that its attempts take on paper; in truth each begins and ends some
/// milliseconds late, and a last attempt that is cut short proves nothing.
const GRACE: Duration = Duration::from_millis(500);

/// How far a sweep is: probes done, and probes to do.
pub type Progress<'a> = &'a (dyn Fn(usize, usize) + Sync);

/// Probes the routes of one manifest.
#[derive(Debug)]
pub struct Prober<'m> {
    manifest: &'m Manifest,
    setup: Setup,
}

/// What one sweep brought back.
#[derive(Debug)]
pub struct Sweep {
    /// When it began.
    pub began: Monotonic,
    /// What came of each route, in the manifest's order.
    pub outcomes: Vec<ProbeResult>,
}

impl<'m> Prober<'m> {
    /// Prepares to probe the routes of `manifest`: reads the trusted roots and chooses the proxy,
    /// where they are needed.
    ///
    /// # Errors
    ///
    /// Where `https` routes are to be probed and no root is trusted, or the environment names a
    /// proxy that is not supported.
    pub fn new(manifest: &'m Manifest) -> anyhow::Result<Self> {
        let trust = match manifest.base_url.scheme() {
            Scheme::Http => None,
            Scheme::Https => Some(tls::trust()?),
        };
        let proxy = match manifest.proxy {
            Proxy::None => None,
            Proxy::Env => proxy::choose(&manifest.base_url, |name| std::env::var(name).ok())
                .map_err(|problem| anyhow!(problem))?,
        };
        let setup = Setup {
            base_url: manifest.base_url.clone(),
            user_agent: manifest.user_agent.clone(),
            proxy,
            trust,
            names: Arc::default(),
        };
        Ok(Self { manifest, setup })
    }

    /// Probes the core routes, then the others, unless the core proves the backend hung or down.
    /// Only the routes that are due after the `earlier` sweeps of the same run are probed; the other
    /// outcomes stand.
    fn sweep(&self, earlier: &mut Earlier, progress: Progress) -> Sweep {
        let began = Monotonic::now();
        let due = |core| {
            let routes = self.routes(core);
            routes.filter(|(index, route)| earlier.due(*index, route))
        };
        let mut picked: Vec<_> = due(true).collect();
        let core = picked.len();
        picked.extend(due(false));
        let deadline = began + self.manifest.deadline;
        let pool = Pool {
            core_deadline: match self.manifest.recovery {
                Some(_) => deadline + GRACE,
                None => deadline,
            },
            progress,
            ..self.pool(deadline, picked, core)
        };
        let mut probed = pool.probe();
        probed.sort_unstable_by_key(|(index, _)| *index);
        Sweep {
            began,
            outcomes: earlier.with(probed),
        }
    }

    /// Probes every core route once, by `until` at the latest, and says whether all are as they
    /// should be or rate-limited.
    pub fn core_answers(&self, until: Monotonic) -> bool {
        let core: Vec<_> = self.routes(true).collect();
        let count = core.len();
        let pool = Pool {
            retries: false,
            ..self.pool(until, core, count)
        };
        let outcomes = pool.probe();
        outcomes
            .iter()
            .all(|(_, outcome)| outcome.class.severity(true) != Severity::Hard)
    }

    /// A pool that probes the `picked` routes, the first `core` of which are core, until
    /// `deadline`. Names are looked up anew, since they may change between two sweeps.
    fn pool<'p>(
        &'p self,
        deadline: Monotonic,
        picked: Vec<(usize, &'p Route)>,
        core: usize,
    ) -> Pool<'p> {
        self.setup.names.forget();
        Pool {
            setup: &self.setup,
            concurrency: self.manifest.concurrency,
            deadline,
            core_deadline: deadline,
            retries: true,
            progress: &|_, _| {},
            picked,
            core,
        }
    }

    /// Sends one GET to the first core route on a fresh connection, in a thread of its own that
    /// nobody needs to wait for, and to the addresses that the last sweep probed.
    ///
    /// # Errors
    ///
    /// Where the thread cannot be started.
    pub fn knock(&self) -> anyhow::Result<Knock> {
        let (_, route) = self
            .routes(true)
            .next()
            .ok_or_else(|| anyhow!("no core route"))?;
        let path = route.path.clone();
        let options = Options {
            method: Method::Get,
            ..Options::clone(&route.options)
        };
        let mut client = Client::new(&self.setup);
        let line = client.line();
        // Whoever asks after a pause of this whole process may be faster than the thread.
        line.tap();
        let end = Arc::new(OnceLock::new());
        let told = Arc::clone(&end);
        let limit = Monotonic::now() + KNOCK_LIMIT;
        thread::Builder::new()
            .name("knock".to_owned())
            .spawn(move || {
                let reply = client.attempt(&path, &options, false, limit);
                let text = match reply.end {
                    // Still mute.
                    End::Lost(failure) if failure.at_end => return,
                    End::Lost(Failure { detail, .. }) | End::Broken(detail) => detail,
                    End::Response(_) | End::TooManyRedirects => "answered".to_owned(),
                };
                // Set once, here.
                let _ = told.set(options.redact(&text).into_owned());
            })?;
        Ok(Knock { line, end })
    }

    /// A look-up of the addresses that the base URL leads to, for any thread at any time: those that
    /// the present or the last sweep probes, where there was one. It fails with a sentence where the
    /// name has no address or its resolver does not answer within 5 s.
    pub fn lookup(&self) -> impl Fn() -> Result<Vec<SocketAddr>, String> + Send + 'static {
        const PATIENCE: Duration = Duration::from_secs(5);
        let (names, url) = (Arc::clone(&self.setup.names), self.setup.base_url.clone());
        move || {
            let (host, port) = (url.host(), url.port());
            match names.resolve(host, Monotonic::now() + PATIENCE) {
                Ok(list) => Ok(list
                    .into_iter()
                    .map(|ip| SocketAddr::new(ip, port))
                    .collect()),
                Err(Unresolved::Late) => Err(format!("the resolver did not answer for {host:?}")),
                Err(Unresolved::Failed(text)) => {
                    Err(format!("{host:?} cannot be resolved: {text}"))
                }
            }
        }
    }

    /// The core routes, or all others, with their places in the manifest.
    fn routes(&self, core: bool) -> impl Iterator<Item = (usize, &'m Route)> {
        let all = self.manifest.routes.iter().enumerate();
        all.filter(move |(_, route)| route.core == core)
    }
}

/// The last GET, under way in the background.
#[derive(Debug)]
pub struct Knock {
    line: Arc<line::Line>,
    end: Arc<OnceLock<String>>,
}

impl Knock {
    /// Whether a single byte came back.
    pub fn heard(&self) -> bool {
        self.line.heard()
    }

    /// How the request ended, if it did.
    pub fn ended(&self) -> Option<&str> {
        self.end.get().map(String::as_str)
    }

    /// The connection's local and remote address, once it is established.
    pub fn connection(&self) -> Option<(SocketAddr, SocketAddr)> {
        self.line.connection()
    }
}

#[cfg(test)]
mod tests;
