//! TLS over a connection, with the system's trusted roots, which are read once for all connections.

use std::io;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use anyhow::{Context, bail};
use rustls::crypto::{CryptoProvider, KeyProvider};
use rustls::pki_types::{PrivateKeyDer, ServerName, UnixTime};
use rustls::sign::SigningKey;
use rustls::{
    AlertDescription, CertificateError, ClientConfig, ClientConnection, RootCertStore, StreamOwned,
};
use ureq::Error;
use ureq::unversioned::transport::{ConnectionDetails, Transport, TransportAdapter};

use super::dns::bare_host;
use super::failure::Failure;
use crate::cause::{Class, TransportError};

/// Reads the roots that this system trusts, or those of `SSL_CERT_FILE` and `SSL_CERT_DIR`; at least one.
pub(super) fn tls_config() -> anyhow::Result<Arc<ClientConfig>> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    let (usable, _) = roots.add_parsable_certificates(found.certs);
    let advice = "install ca-certificates, or set SSL_CERT_FILE or SSL_CERT_DIR";
    if usable == 0 {
        let error = (found.errors.first()).map_or(String::new(), |error| format!(": {error}"));
        bail!("no trusted root certificate found{error}; {advice}");
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

/// Loads no private key: the prober never presents a certificate, so the code that signs with one is not linked.
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

/// Makes the TLS handshake over `transport`.
pub(super) fn connect(
    transport: Box<dyn Transport>,
    details: &ConnectionDetails,
    config: Option<&Arc<ClientConfig>>,
) -> Result<StreamOwned<ClientConnection, TransportAdapter>, Failure> {
    let failed = |detail: String| Failure::new(TransportError::Tls, detail);
    let config = config.ok_or_else(|| failed("no trusted root certificate was read".to_owned()))?;
    let name = ServerName::try_from(bare_host(details.uri).to_owned())
        .map_err(|error| failed(error.to_string()))?;
    let connection =
        ClientConnection::new(Arc::clone(config), name).map_err(|error| failed(explain(&error)))?;
    let adapter = TransportAdapter::new(transport, Arc::clone(&details.current_time));
    let mut stream = StreamOwned::new(connection, adapter);
    let handshake = stream.conn.complete_io(&mut stream.sock);
    handshake.map_err(of_handshake)?;
    Ok(stream)
}

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
    use rustls::Error::{AlertReceived, InvalidCertificate, InvalidMessage, PeerIncompatible};
    let date = |time: &UnixTime| {
        let time = UNIX_EPOCH + Duration::from_secs(time.as_secs());
        humantime::format_rfc3339_seconds(time)
    };
    match error {
        InvalidMessage(rustls::InvalidMessage::InvalidContentType) => {
            format!("the server does not speak TLS; {IS_IT_HTTP}")
        }
        AlertReceived(AlertDescription::CertificateRequired) => {
            "the server requires a client certificate, which this program cannot present".to_owned()
        }
        PeerIncompatible(rustls::PeerIncompatible::ServerDoesNotSupportTls12Or13) => {
            "the server supports neither TLS 1.2 nor TLS 1.3".to_owned()
        }
        // The signature is bad if another authority of the same name is trusted.
        InvalidCertificate(CertificateError::UnknownIssuer | CertificateError::BadSignature) => {
            "the certificate is signed by an authority that is not trusted here; for a private one, set \
             SSL_CERT_FILE to the PEM file of its certificate"
                .to_owned()
        }
        InvalidCertificate(CertificateError::ExpiredContext { not_after, .. }) => {
            format!("the certificate expired on {}; renew it", date(not_after))
        }
        InvalidCertificate(CertificateError::NotValidYetContext { not_before, .. }) => format!(
            "the certificate is not valid before {}; check the clock of this machine",
            date(not_before)
        ),
        InvalidCertificate(CertificateError::NotValidForNameContext {
            expected,
            presented,
        }) => {
            // Each is a text such as `DnsName("localhost")`.
            let bare = |name: &String| name.split('"').nth(1).unwrap_or(name).to_owned();
            let names = presented.iter().map(bare).collect::<Vec<_>>().join(", ");
            let names = if names.is_empty() { "no name" } else { &names };
            let expected = expected.to_str();
            format!("the certificate is for {names}, not for {expected}; give base_url with a name of the certificate")
        }
        // webpki's error, a type that rustls does not export.
        InvalidCertificate(CertificateError::Other(error))
            if error.to_string() == "CaUsedAsEndEntity" =>
        {
            "the server's certificate is that of an authority itself, which no client of TLS may accept from a \
             server; issue one with basicConstraints=CA:FALSE"
                .to_owned()
        }
        InvalidCertificate(error) => format!("the certificate is not acceptable: {error}"),
        other => other.to_string(),
    }
}
