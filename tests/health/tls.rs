//! HTTPS: certificates that must not be trusted, a private authority that may be, and ports that do not
//! speak TLS.

use std::net::ToSocketAddrs;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, date_time_ymd};
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;

use crate::script::{Script, answer, ok, raw, silent};
use crate::server::Server;
use crate::skip::skip_unless_ci;
use crate::test_env::TestEnv;

const NAME: &str = "localhost";

fn params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
    params.distinguished_name.push(DnType::CommonName, name);
    params
}

/// A private authority, whose certificate `SSL_CERT_FILE` names.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Authority {
    /// `None` if [`NAME`] does not resolve, see [`skip_unless_ci`].
    fn new() -> Option<Self> {
        if (NAME, 0).to_socket_addrs().is_err() {
            skip_unless_ci("no hosts file has localhost");
            return None;
        }
        let key = KeyPair::generate().unwrap();
        let mut params = params("an authority of the test");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let pem = params.self_signed(&key).unwrap().pem();
        let issuer = Issuer::new(params, key);
        Some(Self { issuer, pem })
    }

    /// A server with a certificate with these parameters, signed by the authority.
    fn server(&self, params: &CertificateParams) -> Server {
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        serve(&certificate, &key)
    }

    /// A test environment that trusts the authority and probes by name.
    fn test_env(&self, server: Server, script: Script) -> TestEnv {
        let url = server.url_by(NAME);
        let test_env = TestEnv::with(server)
            .top("base_url", url)
            .default("retries", 1)
            .core("/up", script);
        let file = test_env.dir().join("authority.pem");
        std::fs::write(&file, &self.pem).unwrap();
        test_env.env("SSL_CERT_FILE", file)
    }
}

fn serve(certificate: &rcgen::Certificate, key: &KeyPair) -> Server {
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let config =
        ServerConfig::builder_with_provider(rustls::crypto::ring::default_provider().into())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key)
            .unwrap();
    Server::tls(config)
}

/// The attempt fails because of TLS, and its detail contains each of these.
#[track_caller]
fn is_distrusted<const N: usize>(test_env: &TestEnv, parts: [&str; N]) {
    let run = test_env.run([]);
    let detail = run.route("/up")["detail"].as_str().unwrap_or_default();
    for part in parts {
        assert!(detail.contains(part), "{detail:?} lacks {part:?}");
    }
    run.exits(1)
        .class("/up", "timeout_unreachable")
        .cause("/up", "tls")
        .attempts("/up", 1)
        .status("/up", None)
        .hung(false);
}

#[test]
fn a_private_authority_is_trusted_if_the_environment_says_so() {
    let Some(authority) = Authority::new() else {
        return;
    };
    let test_env = authority.test_env(authority.server(&params(NAME)), ok());
    test_env.run([]).exits(0).class("/up", "ok");
    let other = test_env.dir().join("other.pem");
    std::fs::write(&other, Authority::new().unwrap().pem).unwrap();
    is_distrusted(
        &test_env.env("SSL_CERT_FILE", other),
        ["an authority that is not trusted here", "SSL_CERT_FILE"],
    );
}

#[test]
fn a_self_signed_certificate_is_distrusted() {
    let Some(authority) = Authority::new() else {
        return;
    };
    let key = KeyPair::generate().unwrap();
    let certificate = params(NAME).self_signed(&key).unwrap();
    let test_env = authority.test_env(serve(&certificate, &key), ok());
    is_distrusted(&test_env, ["not trusted here", "SSL_CERT_FILE"]);
    // The advice works.
    let file = test_env.dir().join("self-signed.pem");
    std::fs::write(&file, certificate.pem()).unwrap();
    test_env.env("SSL_CERT_FILE", file).run([]).exits(0);
}

#[test]
fn a_self_signed_certificate_of_an_authority_is_distrusted() {
    let Some(authority) = Authority::new() else {
        return;
    };
    let key = KeyPair::generate().unwrap();
    let mut both = params(NAME);
    both.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let certificate = both.self_signed(&key).unwrap();
    let test_env = authority.test_env(serve(&certificate, &key), ok());
    let file = test_env.dir().join("self-signed.pem");
    std::fs::write(&file, certificate.pem()).unwrap();
    is_distrusted(
        &test_env.env("SSL_CERT_FILE", file),
        ["is that of an authority itself", "CA:FALSE"],
    );
}

#[test]
fn a_certificate_is_distrusted_outside_its_dates() {
    let Some(authority) = Authority::new() else {
        return;
    };
    let mut expired = params(NAME);
    expired.not_before = date_time_ymd(2020, 1, 1);
    expired.not_after = date_time_ymd(2020, 2, 1);
    is_distrusted(
        &authority.test_env(authority.server(&expired), ok()),
        ["the certificate expired on 2020-02-01", "renew it"],
    );
    let mut early = params(NAME);
    early.not_before = date_time_ymd(2999, 1, 1);
    early.not_after = date_time_ymd(3000, 1, 1);
    is_distrusted(
        &authority.test_env(authority.server(&early), ok()),
        ["not valid before 2999-01-01", "clock"],
    );
}

#[test]
fn a_certificate_for_another_name_is_distrusted() {
    let Some(authority) = Authority::new() else {
        return;
    };
    let server = authority.server(&params("elsewhere.example"));
    is_distrusted(
        &authority.test_env(server, ok()),
        ["is for elsewhere.example, not for localhost", "base_url"],
    );
}

#[test]
fn plain_text_on_the_tls_port_is_a_tls_failure() {
    let server = Server::start();
    // What uvicorn and nginx answer to a TLS handshake, which they read as a request.
    server.set("", answer(400, &[], "Bad Request"));
    let url = server.url().replace("http:", "https:");
    is_distrusted(
        &TestEnv::with(server)
            .top("base_url", url)
            .default("retries", 1)
            .core("/up", ok()),
        ["the server does not speak TLS", "http://"],
    );
}

#[test]
fn a_handshake_that_is_not_answered_is_named() {
    for (script, cause, expected) in [
        (raw(""), "reset", "closed during the TLS handshake; if"),
        (
            raw("").reset(),
            "reset",
            "closed during the TLS handshake; if",
        ),
        (silent(), "timeout", "waiting for the TLS handshake"),
    ] {
        let server = Server::start();
        server.set("", script);
        let url = server.url().replace("http:", "https:");
        let test_env = TestEnv::with(server)
            .top("base_url", url)
            .default("retries", 0)
            .core("/up", ok());
        let run = test_env.run([]);
        run.exits(1).cause("/up", cause);
        let detail = run.route("/up")["detail"].as_str().unwrap_or_default();
        assert!(detail.starts_with(expected), "{detail}");
    }
}

#[test]
fn a_handshake_is_no_answer_to_a_core_request() {
    let Some(authority) = Authority::new() else {
        return;
    };
    let run = authority
        .test_env(authority.server(&params(NAME)), silent())
        .run([]);
    run.exits(1)
        .cause("/up", "timeout")
        .attempts("/up", 2)
        .hung(true)
        .down(false);
}

#[test]
fn a_backend_that_closes_after_a_good_handshake_is_not_down() {
    let Some(authority) = Authority::new() else {
        return;
    };
    let run = authority
        .test_env(authority.server(&params(NAME)), raw(""))
        .run([]);
    run.exits(1).cause("/up", "reset").hung(false).down(false);
}
