//! What all attempts of a run share.

use std::path::PathBuf;
use std::sync::Arc;

use rustls::ClientConfig;
use ureq::config::Config;

use super::connections::ConnectionLog;
use super::dns::DnsCache;
use super::parked::ParkedRequests;
use crate::manifest::BaseUrl;

/// The largest size of a response head.
pub(super) const HEAD_MAX: usize = 64 * 1024;

/// What all attempts of a run share.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) base_url: BaseUrl,
    /// Where to connect instead of the URL's host and port.
    pub(super) unix_socket: Option<PathBuf>,
    pub(super) user_agent: String,
    /// Built once, because ureq then reads the environment.
    pub(super) config: Config,
    /// With the trusted roots; none if the base URL is not `https`.
    pub(super) tls_config: Option<Arc<ClientConfig>>,
    pub(super) dns: DnsCache,
    pub(super) log: ConnectionLog,
    pub(super) parked: ParkedRequests,
}

impl Client {
    pub(super) fn new(base_url: BaseUrl, user_agent: &str, proxy: Option<ureq::Proxy>) -> Self {
        let config = Config::builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .max_response_header_size(HEAD_MAX)
            .max_idle_connections(0)
            .user_agent(user_agent)
            .proxy(proxy)
            .build();
        Self {
            base_url,
            unix_socket: None,
            user_agent: user_agent.to_owned(),
            config,
            tls_config: None,
            dns: DnsCache::default(),
            log: ConnectionLog::default(),
            parked: ParkedRequests::default(),
        }
    }

    /// Begins another sweep. Names are looked up again, because they may change between two sweeps, and
    /// the requests that the last one parked are closed.
    pub(super) fn begin_sweep(&self) {
        self.dns.forget();
        self.log.clear();
        self.parked.close();
    }
}
