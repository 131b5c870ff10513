//! What all attempts of a run share.

use std::collections::{BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::ensure;
use rustls::ClientConfig;
use ureq::ProxyProtocol;
use ureq::config::Config;

use super::parked::Parked;
use super::tls::tls_config;
use super::transport::{HEAD_MAX, OUTPUT};
use crate::manifest::{BaseUrl, Header, Manifest};

/// What all attempts of a run share.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) base_url: BaseUrl,
    /// Where to connect instead of the URL's host and port.
    pub(super) unix_socket: Option<PathBuf>,
    /// Built once, because ureq then reads the environment.
    pub(super) config: Config,
    /// With the trusted roots; none if the base URL is not `https`.
    pub(super) tls_config: Option<Arc<ClientConfig>>,
    sweep: Mutex<SweepState>,
}

/// What the attempts of one sweep have found.
#[derive(Debug, Default)]
pub(super) struct SweepState {
    /// The names that were found, and their addresses.
    pub(super) names: HashMap<String, Vec<IpAddr>>,
    /// The addresses to which connections were made, or tried.
    pub(super) remotes: BTreeSet<SocketAddr>,
    /// The peers of the connections to the UNIX socket, each once.
    pub(super) unix_peers: Vec<UnixPeer>,
    pub(super) parked: Vec<Parked>,
}

/// One TCP connection that this run made or tried to make.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Connection {
    /// This program's end.
    pub local: SocketAddr,
    /// The other end.
    pub remote: SocketAddr,
}

/// The process at the other end of connections to a UNIX socket: the one that called listen(2) last
/// (`SO_PEERCRED`, unix(7)).
#[derive(Clone, Debug)]
pub struct UnixPeer {
    /// Its PID; 0 if it is in a PID namespace that is not visible from here.
    pub pid: u32,
    /// A pidfd of that process, if the kernel provides one (`SO_PEERPIDFD`, Linux 6.5).
    pub pidfd: Option<Arc<OwnedFd>>,
}

impl Client {
    /// Reads the trusted roots and chooses the proxy, if needed (see [`Prober::new`](super::Prober::new)).
    pub(super) fn new(manifest: &Manifest) -> anyhow::Result<Self> {
        let proxy = manifest.uses_proxy.then(ureq::Proxy::try_from_env);
        let proxy = proxy.flatten();
        // ureq would connect directly instead of through a SOCKS proxy.
        ensure!(
            (proxy.as_ref()).is_none_or(|proxy| proxy.protocol() == ProxyProtocol::Http),
            "the environment names a proxy that is not an HTTP proxy; set ALL_PROXY, HTTPS_PROXY or HTTP_PROXY \
             (the first of them counts) to http://HOST:PORT"
        );
        Ok(Self {
            base_url: manifest.base_url.clone(),
            unix_socket: manifest.unix_socket.clone(),
            config: config(manifest, proxy),
            tls_config: manifest.base_url.is_https().then(tls_config).transpose()?,
            sweep: Mutex::default(),
        })
    }

    /// Begins another sweep. Names are looked up again, because they may change between two sweeps, and
    /// the requests that the last one parked are closed.
    pub(super) fn begin_sweep(&self) {
        *self.sweep() = SweepState::default();
    }

    /// What the current or last sweep has found; to be held only for a moment, because every attempt needs it.
    pub(super) fn sweep(&self) -> MutexGuard<'_, SweepState> {
        self.sweep.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(super) fn config(manifest: &Manifest, proxy: Option<ureq::Proxy>) -> Config {
    let headers = (manifest.routes.iter()).flat_map(|route| &route.options.headers);
    let lengths = headers.map(Header::bytes);
    let longest_header = lengths.fold(manifest.user_agent.len(), usize::max);
    Config::builder()
        .http_status_as_error(false)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .max_response_header_size(HEAD_MAX)
        .output_buffer_size(OUTPUT + longest_header)
        .max_idle_connections(0)
        .user_agent(&manifest.user_agent)
        .proxy(proxy)
        .build()
}
