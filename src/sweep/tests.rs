use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, TcpListener};

use super::*;
use crate::manifest::{LoadOptions, Source, Variables};

/// A manifest with one core route, at `localhost` and the listener's port.
fn manifest(listener: &TcpListener, method: &str) -> Manifest {
    let port = listener.local_addr().unwrap().port();
    let text = format!(
        r#"{{"base_url": "http://localhost:{port}",
            "routes": [{{"path": "/", "core": true, "method": "{method}"}}]}}"#
    );
    let options = LoadOptions {
        base_url: None,
        variables: Variables::MayBeMissing,
    };
    Manifest::parse(text.as_bytes(), Source::Stdin, &options).unwrap()
}

/// Takes one request and answers it; gives the request's first word.
fn answer(listener: &TcpListener) -> String {
    let (mut stream, _) = listener.accept().unwrap();
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        request.extend(byte);
    }
    let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
    stream.write_all(answer).unwrap();
    let text = String::from_utf8(request).unwrap();
    text.split(' ').next().unwrap().to_owned()
}

#[test]
fn a_guard_judges_the_addresses_that_the_last_sweep_probed() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let manifest = manifest(&listener, "GET");
    let prober = Prober::new(&manifest).unwrap();
    let elsewhere = IpAddr::from([192, 0, 2, 1]);
    prober.setup.names.plant("localhost", elsewhere);
    assert_eq!(prober.lookup()().unwrap()[0].ip(), elsewhere);

    let soon = Monotonic::now() + Duration::from_secs(10);
    let healthy = thread::scope(|scope| {
        scope.spawn(|| answer(&listener));
        prober.core_answers(soon)
    });
    assert!(healthy, "the sweep asks anew");
    let addresses = prober.lookup()().unwrap();
    assert!(
        addresses.iter().all(|address| address.ip().is_loopback()),
        "{addresses:?}"
    );
}

#[test]
fn a_knock_is_a_get_also_where_the_core_is_probed_by_head() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let manifest = manifest(&listener, "HEAD");
    let prober = Prober::new(&manifest).unwrap();
    let _knock = prober.knock().unwrap();
    assert_eq!(answer(&listener), "GET");
}
