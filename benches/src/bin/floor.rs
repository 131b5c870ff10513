//! The minimal client: blocking threads and prepared requests. No timeouts, no report, no parsing beyond the
//! status line.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

fn main() {
    let mut args = std::env::args()
        .skip(1)
        .map(|arg| arg.parse().expect("a number"));
    let mut next = || args.next().expect("usage: floor PORT REQUESTS THREADS");
    let (port, requests, threads): (usize, usize, usize) = (next(), next(), next());
    let port = u16::try_from(port).expect("a port");
    let prepared: Vec<String> = (0..requests)
        .map(|n| {
            format!("GET /r/{n} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n\r\n")
        })
        .collect();
    let (turn, good) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let work = || {
        let mut buffer = [0; 4096];
        while let Some(request) = prepared.get(turn.fetch_add(1, Ordering::Relaxed)) {
            let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)) else {
                continue;
            };
            let _ = stream.write_all(request.as_bytes());
            let mut filled = 0;
            while let Ok(count @ 1..) = stream.read(&mut buffer[filled..]) {
                filled += count;
            }
            if buffer[..filled].starts_with(b"HTTP/1.1 200") {
                good.fetch_add(1, Ordering::Relaxed);
            }
        }
    };
    thread::scope(|scope| {
        for _ in 1..threads.min(requests) {
            scope.spawn(work);
        }
        work();
    });
    println!("{} OK", good.into_inner());
}
