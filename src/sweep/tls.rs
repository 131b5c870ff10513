//! TLS over a connection, with the system's trusted roots, which are read once for all connections.

use std::fmt;
use std::io::{self, Read, Write};
use std::sync::Arc;

use anyhow::{Context, ensure};
use rustls::crypto::{CryptoProvider, KeyProvider};
use rustls::pki_types::{PrivateKeyDer, ServerName};
use rustls::sign::SigningKey;
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use ureq::Error;
use ureq::unversioned::transport::{
    Buffers as _, ConnectionDetails, Connector, Either, NextTimeout, Transport, TransportAdapter,
};

use super::attempt::{Attempt, Received};
use super::buffers::Buffers;
use super::dns::bare_host;
use super::failure::Failure;
use crate::cause::TransportError;

/// Reads the roots that this system trusts, or those of `SSL_CERT_FILE` and `SSL_CERT_DIR`.
///
/// # Errors
///
/// Not a single usable certificate was found.
pub(super) fn tls_config() -> anyhow::Result<Arc<ClientConfig>> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    let (usable, _) = roots.add_parsable_certificates(found.certs);
    let advice = "install ca-certificates, or set SSL_CERT_FILE or SSL_CERT_DIR";
    match found.errors.first() {
        Some(error) if usable == 0 => {
            anyhow::bail!("could not read any trusted root certificate: {error}; {advice}");
        }
        _ => ensure!(usable > 0, "no trusted root certificate found; {advice}"),
    }
    let provider = CryptoProvider {
        key_provider: &NoKeys,
        ..rustls::crypto::ring::default_provider()
    };
    let config = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_safe_default_protocol_versions()
        .context("could not set up TLS")?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}

/// Loads no private key. The prober never presents a certificate, so the code that signs with one is not
/// linked.
#[derive(Debug)]
struct NoKeys;

impl KeyProvider for NoKeys {
    fn load_private_key(
        &self,
        _: PrivateKeyDer<'static>,
    ) -> Result<Arc<dyn SigningKey>, rustls::Error> {
        Err(rustls::Error::General(
            "client certificates are not supported".to_owned(),
        ))
    }
}

/// Wraps connections to `https` addresses.
#[derive(Debug)]
pub(super) struct TlsConnector {
    pub(super) config: Option<Arc<ClientConfig>>,
    pub(super) attempt: Arc<Attempt>,
    /// The length of the longest line that is sent.
    pub(super) longest_line: usize,
}

impl<In: Transport> Connector<In> for TlsConnector {
    type Out = Either<In, TlsTransport>;

    fn connect(
        &self,
        details: &ConnectionDetails,
        chained: Option<In>,
    ) -> Result<Option<Self::Out>, Error> {
        let Some(transport) = chained else {
            return Ok(None);
        };
        if !details.needs_tls() || transport.is_tls() {
            return Ok(Some(Either::A(transport)));
        }
        let config = self.config.as_ref().ok_or_else(|| {
            Failure::new(TransportError::Tls, "no trusted root certificate was read")
        })?;
        let host = bare_host(details.uri).to_owned();
        let name = ServerName::try_from(host)
            .map_err(|error| Failure::new(TransportError::Tls, error.to_string()))?;
        let connection = ClientConnection::new(Arc::clone(config), name)
            .map_err(|error| Error::Io(io::Error::other(error)))?;
        let adapter = TransportAdapter::new(transport.boxed(), details.current_time.clone());
        let mut stream = StreamOwned::new(connection, adapter);
        stream.conn.complete_io(&mut stream.sock)?;
        Ok(Some(Either::B(TlsTransport {
            stream,
            attempt: Arc::clone(&self.attempt),
            buffers: Buffers::new(self.longest_line),
        })))
    }
}

/// A connection inside TLS.
pub(super) struct TlsTransport {
    stream: StreamOwned<ClientConnection, TransportAdapter>,
    attempt: Arc<Attempt>,
    buffers: Buffers,
}

impl Transport for TlsTransport {
    fn buffers(&mut self) -> &mut dyn ureq::unversioned::transport::Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, amount: usize, _: NextTimeout) -> Result<(), Error> {
        self.buffers.begin_response();
        self.stream.write_all(self.buffers.filled_output(amount))?;
        Ok(())
    }

    fn await_input(&mut self, _: NextTimeout) -> Result<bool, Error> {
        let read = self.stream.read(self.buffers.free_input()?);
        let count = read.map_err(|error| match error.kind() {
            // Without close_notify, the end may be forged or a truncation (RFC 8446, section 6.1),
            // and ureq would treat it as the normal end of a body.
            io::ErrorKind::UnexpectedEof => {
                Failure::new(TransportError::Reset, "closed without a TLS close_notify").into()
            }
            _ => Error::from(error),
        })?;
        if count > 0 {
            self.attempt.note_received(Received::Response);
        }
        self.buffers.input_appended(count);
        Ok(count > 0)
    }

    fn is_open(&mut self) -> bool {
        // Called only before a pooled connection is reused, and none is pooled.
        false
    }

    fn is_tls(&self) -> bool {
        true
    }
}

impl fmt::Debug for TlsTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsTransport").finish_non_exhaustive()
    }
}
