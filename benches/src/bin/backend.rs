//! The backend of all measurements: cheap, and the same for every contestant. It listens on free loopback
//! ports, prints `HTTP-PORT HTTPS-PORT`, writes the CA's certificate to the given file, and exits when its
//! standard input is closed.
//!
//! `/delay/MS/…` answers after that many milliseconds, `/silent/…` never; anything else at once.

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

const BODY: &str = "{\"status\":\"healthy\"}";
/// Enough that no measured client waits to be accepted.
const ACCEPTORS: usize = 4;

fn main() -> io::Result<()> {
    let ca_file = std::env::args()
        .nth(1)
        .ok_or_else(|| io::Error::other("usage: backend CA-FILE"))?;
    let tls = tls(&ca_file).map_err(io::Error::other)?;
    let plain = TcpListener::bind("127.0.0.1:0")?;
    let secure = TcpListener::bind("127.0.0.1:0")?;
    println!(
        "{} {}",
        plain.local_addr()?.port(),
        secure.local_addr()?.port()
    );
    for _ in 0..ACCEPTORS {
        let (plain, secure) = (plain.try_clone()?, secure.try_clone()?);
        let tls = Arc::clone(&tls);
        thread::spawn(move || plain.incoming().flatten().for_each(serve_plain));
        thread::spawn(move || {
            secure
                .incoming()
                .flatten()
                .for_each(|stream| serve_tls(stream, &tls));
        });
    }
    io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}

/// Answers at once in the acceptor's thread; only a delayed answer gets its own thread.
fn serve_plain(mut stream: TcpStream) {
    let Some(path) = request(&mut stream) else {
        return;
    };
    let mut parts = path.split('/').skip(1);
    match (parts.next(), parts.next().and_then(|ms| ms.parse().ok())) {
        (Some("silent"), _) => {
            thread::spawn(move || stream.read_to_end(&mut Vec::new()));
        }
        (Some("delay"), Some(ms)) => {
            thread::spawn(move || {
                thread::sleep(Duration::from_millis(ms));
                answer(&mut stream);
            });
        }
        _ => answer(&mut stream),
    }
}

fn serve_tls(mut stream: TcpStream, tls: &Arc<rustls::ServerConfig>) {
    let Ok(mut connection) = rustls::ServerConnection::new(Arc::clone(tls)) else {
        return;
    };
    let _ = stream.set_nodelay(true);
    let mut secure = rustls::Stream::new(&mut connection, &mut stream);
    if request(&mut secure).is_some() {
        answer(&mut secure);
        connection.send_close_notify();
        let _ = connection.complete_io(&mut stream);
    }
}

/// The path of a request, once its head has arrived.
fn request(stream: &mut impl Read) -> Option<String> {
    let (mut head, mut filled) = ([0; 4096], 0);
    loop {
        filled += stream
            .read(&mut head[filled..])
            .ok()
            .filter(|count| *count > 0)?;
        if head[..filled].ends_with(b"\r\n\r\n") {
            return String::from_utf8_lossy(&head[..filled])
                .split(' ')
                .nth(1)
                .map(str::to_owned);
        }
    }
}

fn answer(stream: &mut impl Write) {
    let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n";
    let _ = write!(stream, "{head}Content-Length: {}\r\n\r\n{BODY}", BODY.len());
    let _ = stream.flush();
}

fn tls(
    ca_file: &str,
) -> Result<Arc<rustls::ServerConfig>, Box<dyn std::error::Error + Send + Sync>> {
    let ca_key = rcgen::KeyPair::generate()?;
    let mut ca = rcgen::CertificateParams::new(Vec::new())?;
    // Different from the name of the leaf, which would otherwise look self-signed.
    ca.distinguished_name
        .push(rcgen::DnType::CommonName, "bench CA");
    ca.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    std::fs::write(ca_file, ca.self_signed(&ca_key)?.pem())?;
    let key = rcgen::KeyPair::generate()?;
    let issuer = rcgen::Issuer::new(ca, ca_key);
    let leaf = rcgen::CertificateParams::new(vec!["127.0.0.1".to_owned(), "localhost".to_owned()])?;
    let certificate = leaf.signed_by(&key, &issuer)?;
    let private = rustls::pki_types::PrivateKeyDer::try_from(key.serialize_der())?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], private)?;
    Ok(Arc::new(config))
}
