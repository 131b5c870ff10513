use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, TcpListener};

use super::*;
use crate::manifest::{LoadOptions, Source, Variables};
use crate::verdict::{Class, SkipReason};

/// A manifest with one core route, at `localhost` and the listener's port.
fn manifest(listener: &TcpListener, method: &str) -> Manifest {
    manifest_with(
        listener,
        &format!(r#""routes": [{{"path": "/", "core": true, "method": "{method}"}}]"#),
    )
}

fn manifest_with(listener: &TcpListener, keys: &str) -> Manifest {
    let port = listener.local_addr().unwrap().port();
    let text = format!(r#"{{"base_url": "http://localhost:{port}", {keys}}}"#);
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
    prober.setup.dns.plant("localhost", elsewhere);
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
fn the_final_probe_is_a_get_also_where_the_core_is_probed_by_head() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let manifest = manifest(&listener, "HEAD");
    let prober = Prober::new(&manifest).unwrap();
    let _probe = prober.final_probe().unwrap();
    assert_eq!(answer(&listener), "GET");
}

#[test]
fn the_shortest_deadline_that_a_manifest_may_have_proves_a_hang() {
    let mute = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let options = r#""timeout_seconds": 0.2, "retries": 1, "retry_backoff_seconds": 0.05"#;
    let keys = |deadline: &str, recovery: &str| {
        format!(
            r#""deadline_seconds": {deadline}, "defaults": {{{options}}}, {recovery}
               "routes": [{{"path": "/", "core": true}}, {{"path": "/papers"}}]"#
        )
    };
    let recovery = r#""recovery": {"unit": "demo.service"},"#;
    for (recovery, proved) in [(recovery, true), ("", false)] {
        let manifest = manifest_with(&mute, &keys("0.45", recovery));
        let prober = Prober::new(&manifest).unwrap();
        let sweep = prober.sweep(&mut SweepHistory::default(), &|_, _| {});
        let silent = sweep.results[0].proof.silent;
        assert_eq!(silent, proved, "{:?}", sweep.results);
        let reason = match proved {
            true => SkipReason::BackendHung,
            false => SkipReason::Deadline,
        };
        assert_eq!(sweep.results[1].class, Class::Skipped(reason));
    }
}
