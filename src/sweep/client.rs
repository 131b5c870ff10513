//! What all attempts of a run share.

use std::sync::Arc;

use rustls::ClientConfig;

use super::connections::ConnectionLog;
use super::dns::DnsCache;
use crate::manifest::{BaseUrl, SocketPath};

/// What all attempts of a run share.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) base_url: BaseUrl,
    /// Where to connect instead of the URL's host and port.
    pub(super) unix_socket: Option<SocketPath>,
    pub(super) user_agent: String,
    pub(super) proxy: Option<ureq::Proxy>,
    /// With the trusted roots; none if the base URL is not `https`.
    pub(super) tls_config: Option<Arc<ClientConfig>>,
    pub(super) dns: DnsCache,
    pub(super) log: ConnectionLog,
}

impl Client {
    /// Begins another sweep. Names are looked up again, because they may change between two sweeps.
    pub(super) fn begin_sweep(&self) {
        self.dns.forget();
        self.log.lock().unix_peers.clear();
    }
}
