//! The backend of the demo: serves the routes of `routes.json`, and becomes busy or hangs on request.

use std::io::{self, BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

/// How long a heavy page takes while the backend is busy: longer than the demo's timeouts.
const BUSY_PAGE: Duration = Duration::from_secs(5);

/// Serves on this address until the process ends.
///
/// # Errors
///
/// The address cannot be bound.
pub(crate) fn serve(address: SocketAddr) -> io::Result<()> {
    let listener = TcpListener::bind(address)?;
    let busy = Arc::new(AtomicBool::new(false));
    loop {
        let (stream, _) = listener.accept()?;
        let Ok(path) = requested(&stream) else {
            continue;
        };
        match path.as_str() {
            "/__hang" => {
                let _gone = send(&stream, 200, &json!("hanging from now on"));
                drop(stream);
                // The only loop is stuck; the kernel keeps accepting connections for the listener.
                loop {
                    thread::park();
                }
            }
            "/__busy" => {
                busy.store(true, Ordering::SeqCst);
                let _gone = send(&stream, 200, &json!("busy"));
            }
            _ => {
                let busy = busy.load(Ordering::SeqCst);
                thread::spawn(move || answer(&stream, &path, busy));
            }
        }
    }
}

/// Ends this process once the process `pid` is gone, even while the backend hangs, so that an interrupted
/// demo leaves nothing behind: systemd stops restarting a service that keeps exiting.
pub(crate) fn end_with(pid: u32) {
    thread::spawn(move || {
        while Path::new("/proc").join(pid.to_string()).exists() {
            thread::sleep(Duration::from_millis(200));
        }
        std::process::exit(0);
    });
}

/// Requests a path from the backend on this address.
///
/// # Errors
///
/// It does not answer.
pub(crate) fn request(address: SocketAddr, path: &str) -> io::Result<()> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n")?;
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line)?;
    if line.starts_with("HTTP/1.1 200") {
        Ok(())
    } else {
        Err(io::Error::other(format!("{path}: {line:?}")))
    }
}

/// Reads a request to the end of its head.
fn requested(stream: &TcpStream) -> io::Result<String> {
    // The backend must not hang on a client that sends nothing.
    stream.set_read_timeout(Some(Duration::from_secs(1)))?;
    let mut lines = BufReader::new(stream).lines();
    let first = lines.next().ok_or(io::ErrorKind::UnexpectedEof)??;
    for line in lines {
        if line?.is_empty() {
            break;
        }
    }
    let path = first.split(' ').nth(1).ok_or(io::ErrorKind::InvalidData)?;
    Ok(path.to_owned())
}

fn answer(stream: &TcpStream, path: &str, busy: bool) -> io::Result<()> {
    if path == "/api/health" {
        return send(stream, 200, &json!({ "status": "healthy" }));
    }
    // Paths of single items may be outdated: the application answers 404.
    if ["/hypothesis/", "/analysis/"]
        .iter()
        .any(|start| path.starts_with(start))
    {
        return send(stream, 404, &json!({ "detail": "Not Found" }));
    }
    match path {
        "/" | "/api/status" => {}
        "/senate" | "/papers" if busy => thread::sleep(BUSY_PAGE),
        _ if busy => return send(stream, 429, &json!({ "detail": "Too Many Requests" })),
        _ => {}
    }
    send(stream, 200, &json!({ "page": path }))
}

fn send(mut stream: &TcpStream, status: u16, body: &Value) -> io::Result<()> {
    let body = body.to_string();
    let length = body.len();
    let head = "Content-Type: application/json\r\nConnection: close";
    write!(
        stream,
        "HTTP/1.1 {status} \r\n{head}\r\nContent-Length: {length}\r\n\r\n{body}"
    )
}
