//! TLS over a connection, with the system's trusted roots, which are read once for all connections.

use std::fmt;
use std::io::{self, Read, Write};
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use anyhow::{Context, ensure};
use rustls::crypto::{CryptoProvider, KeyProvider};
use rustls::pki_types::{PrivateKeyDer, ServerName, UnixTime};
use rustls::sign::SigningKey;
use rustls::{
    AlertDescription, CertificateError, ClientConfig, ClientConnection, InvalidMessage,
    PeerIncompatible, RootCertStore, StreamOwned,
};
use ureq::Error;
use ureq::unversioned::transport::{
    Buffers, ConnectionDetails, Connector, Either, LazyBuffers, NextTimeout, Transport,
    TransportAdapter,
};

use super::attempt::{Attempt, Received};
use super::dns::bare_host;
use super::failure::Failure;
use super::transport::{free_input, new_buffers};
use crate::cause::{Class, TransportError};

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
        let handshake = stream.conn.complete_io(&mut stream.sock);
        handshake.map_err(of_handshake)?;
        Ok(Some(Either::B(TlsTransport {
            stream,
            attempt: Arc::clone(&self.attempt),
            buffers: new_buffers(self.longest_line),
        })))
    }
}

/// The failure of a handshake.
fn of_handshake(error: io::Error) -> Failure {
    let mut failure = Failure::from(Error::from(error));
    if failure.at_end {
        return Failure::timeout("waiting for the TLS handshake");
    }
    if failure.class == Class::TimeoutUnreachable(TransportError::Reset) {
        failure.detail = format!("closed during the TLS handshake; {IS_IT_HTTP}");
    }
    failure
}

const IS_IT_HTTP: &str = "if this port serves plain HTTP, give base_url with http://";

/// What an error of TLS means, and what to do about it.
pub(super) fn explain(error: &rustls::Error) -> String {
    match error {
        rustls::Error::InvalidCertificate(error) => explain_certificate(error),
        rustls::Error::InvalidMessage(InvalidMessage::InvalidContentType) => {
            format!("the server does not speak TLS; {IS_IT_HTTP}")
        }
        rustls::Error::AlertReceived(AlertDescription::CertificateRequired) => {
            "the server requires a client certificate, which this program cannot present".to_owned()
        }
        rustls::Error::PeerIncompatible(PeerIncompatible::ServerDoesNotSupportTls12Or13) => {
            "the server supports neither TLS 1.2 nor TLS 1.3".to_owned()
        }
        other => other.to_string(),
    }
}

fn explain_certificate(error: &CertificateError) -> String {
    let date = |time: &UnixTime| {
        let time = UNIX_EPOCH + Duration::from_secs(time.as_secs());
        humantime::format_rfc3339_seconds(time)
    };
    match error {
        // The signature is bad if another authority of the same name is trusted.
        CertificateError::UnknownIssuer | CertificateError::BadSignature => {
            "the certificate is signed by an authority that is not trusted here; for a private one, set \
             SSL_CERT_FILE to the PEM file of its certificate"
                .to_owned()
        }
        CertificateError::ExpiredContext { not_after, .. } => {
            format!("the certificate expired on {}; renew it", date(not_after))
        }
        CertificateError::NotValidYetContext { not_before, .. } => format!(
            "the certificate is not valid before {}; check the clock of this machine",
            date(not_before)
        ),
        CertificateError::NotValidForNameContext {
            expected,
            presented,
        } => {
            // Each is a text such as `DnsName("localhost")`.
            let bare = |name: &String| name.split('"').nth(1).unwrap_or(name).to_owned();
            let names = presented.iter().map(bare).collect::<Vec<_>>().join(", ");
            let names = if names.is_empty() { "no name" } else { &names };
            let expected = expected.to_str();
            format!("the certificate is for {names}, not for {expected}; give base_url with a name of the certificate")
        }
        // webpki's error, a type that rustls does not export.
        CertificateError::Other(error) if error.to_string() == "CaUsedAsEndEntity" => {
            "the server's certificate is that of an authority itself, which no client of TLS may accept from a \
             server; issue one with basicConstraints=CA:FALSE"
                .to_owned()
        }
        other => format!("the certificate is not acceptable: {other}"),
    }
}

/// A connection inside TLS.
pub(super) struct TlsTransport {
    stream: StreamOwned<ClientConnection, TransportAdapter>,
    attempt: Arc<Attempt>,
    buffers: LazyBuffers,
}

impl Transport for TlsTransport {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, amount: usize, _: NextTimeout) -> Result<(), Error> {
        let output = self.buffers.output();
        self.stream
            .write_all(output.get(..amount).unwrap_or_default())?;
        Ok(())
    }

    fn await_input(&mut self, _: NextTimeout) -> Result<bool, Error> {
        let read = self.stream.read(free_input(&mut self.buffers)?);
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
