//! The proxy for a run, as ureq reads the environment.

use anyhow::bail;
use ureq::unversioned::transport::{
    ConnectProxyConnector, ConnectionDetails, Connector, Transport,
};
use ureq::{Error, Proxy, ProxyProtocol};

use super::failure::Failure;
use crate::cause::{Class, TransportError};

/// The proxy that the environment names, if it names one.
///
/// # Errors
///
/// It is not an HTTP proxy. ureq would connect directly instead of through a SOCKS proxy.
pub(super) fn from_environment() -> anyhow::Result<Option<Proxy>> {
    match Proxy::try_from_env() {
        Some(proxy) if proxy.protocol() != ProxyProtocol::Http => bail!(
            "the environment names a proxy that is not an HTTP proxy; set ALL_PROXY, HTTPS_PROXY or HTTP_PROXY \
             (the first of them counts) to http://HOST:PORT"
        ),
        proxy => Ok(proxy),
    }
}

/// Connects through the proxy, if there is one. A failure of the proxy proves nothing about the backend.
#[derive(Debug, Default)]
pub(super) struct ProxyConnector(ConnectProxyConnector);

impl<In: Transport> Connector<In> for ProxyConnector {
    type Out = <ConnectProxyConnector as Connector<In>>::Out;

    fn connect(
        &self,
        details: &ConnectionDetails,
        chained: Option<In>,
    ) -> Result<Option<Self::Out>, Error> {
        self.0.connect(details, chained).map_err(|error| {
            let mut failure = Failure::from(error);
            if failure.class != Class::TimeoutUnreachable(TransportError::Timeout) {
                failure.class = Class::TimeoutUnreachable(TransportError::Network);
            }
            failure.into()
        })
    }
}
