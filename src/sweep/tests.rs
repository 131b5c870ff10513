use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, TcpListener};
use std::sync::Mutex;

use nix::sys::socket::{setsockopt, sockopt::ReceiveTimeout};
use nix::sys::time::{TimeVal, TimeValLike};

use super::*;
use crate::cause::{Class, SkipReason, TransportError};
use crate::manifest::{Source, Variables};
use crate::sweep::http::tests::read_head;

/// A name for 127.0.0.1, read as a number by every resolver (inet_aton(3)), so that no hosts file is needed.
const NAME: &str = "0x7f000001";

/// A listener whose `accept` fails instead of blocking forever.
fn listen() -> TcpListener {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    setsockopt(&listener, ReceiveTimeout, &TimeVal::seconds(20)).unwrap();
    listener
}

/// A manifest with one core route, at [`NAME`] and the listener's port.
fn manifest(listener: &TcpListener, method: &str) -> Manifest {
    manifest_with(
        listener,
        &format!(r#""routes": [{{"path": "/", "core": true, "method": "{method}"}}]"#),
    )
}

fn manifest_with(listener: &TcpListener, keys: &str) -> Manifest {
    let port = listener.local_addr().unwrap().port();
    let text = format!(r#"{{"base_url": "http://{NAME}:{port}", {keys}}}"#);
    let variables = Variables::MayBeMissing;
    Manifest::parse(text.as_bytes(), Source::Stdin, None, variables).unwrap()
}

/// Accepts and answers one request; returns its method.
fn answer(listener: &TcpListener) -> String {
    let (mut stream, _) = listener.accept().unwrap();
    let request = read_head(&mut stream);
    let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
    stream.write_all(answer).unwrap();
    request.split(' ').next().unwrap().to_owned()
}

#[test]
fn a_guard_judges_the_addresses_that_the_last_sweep_probed() {
    let listener = listen();
    let manifest = manifest(&listener, "GET");
    let prober = Prober::new(&manifest, true).unwrap();
    let elsewhere = IpAddr::from([192, 0, 2, 1]);
    (prober.client.sweep().names).insert(NAME.to_owned(), vec![elsewhere]);
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
fn the_shortest_deadline_that_a_manifest_may_have_proves_a_hang() {
    let silent = listen();
    let options = r#""timeout_seconds": 0.2, "retries": 1, "retry_backoff_seconds": 0.05"#;
    let keys = |deadline: &str, recovery: &str| {
        format!(
            r#""deadline_seconds": {deadline}, "defaults": {{{options}}}, {recovery}
               "routes": [{{"path": "/", "core": true}}, {{"path": "/papers"}}]"#
        )
    };
    let recovery = r#""recovery": {"unit": "demo.service", "grace_seconds": 0},"#;
    for (recovery, proved) in [(recovery, true), ("", false)] {
        let manifest = manifest_with(&silent, &keys("0.45", recovery));
        let prober = Prober::new(&manifest, true).unwrap();
        let sweep = prober.sweep(&mut SweepHistory::default(), &|_| {});
        let silent = sweep.results[0].silent;
        assert_eq!(silent, proved, "{:?}", sweep.results);
        let reason = match proved {
            true => SkipReason::BackendHung,
            false => SkipReason::Deadline,
        };
        assert_eq!(sweep.results[1].class, Class::Skipped(reason));
    }
}

#[test]
fn a_silent_core_is_parked_and_another_sweep_closes_that() {
    let silent = listen();
    let address = silent.local_addr().unwrap();
    let keys = r#""recovery": {"unit": "demo.service", "grace_seconds": 0.1},
        "defaults": {"timeout_seconds": 0.1, "retries": 1, "retry_backoff_seconds": 0.01},
        "routes": [{"path": "/", "core": true}, {"path": "/b", "core": true}]"#;
    let manifest = manifest_with(&silent, keys);
    let prober = Prober::new(&manifest, true).unwrap();
    let sweep = prober.sweep(&mut SweepHistory::default(), &|_| {});
    assert_eq!(sweep.verdict.backend, BackendState::Hung);
    let parked = prober.parked();
    assert_eq!(prober.remotes()(), [address]);
    let (_held, clients): (Vec<_>, Vec<_>) = (0..4).map(|_| silent.accept().unwrap()).unzip();
    for request in &parked {
        let at = request.connection.unwrap();
        assert!(
            at.remote == address && clients.contains(&at.local),
            "{at:?}"
        );
        assert_eq!(request.reach, Reach::Acknowledged);
        assert_eq!((request.state, request.round), (ParkedState::Waiting, 1));
    }
    let first: Vec<_> = parked
        .iter()
        .filter(|request| request.first_attempt)
        .collect();
    assert_eq!(
        (parked.len(), first.len()),
        (4, 2),
        "two routes, two attempts"
    );
    assert!(!prober.core_answers(Monotonic::now()));
    assert_eq!(prober.parked(), []);

    // Nothing is parked if no recovery may follow.
    let prober = Prober::new(&manifest, false).unwrap();
    let sweep = prober.sweep(&mut SweepHistory::default(), &|_| {});
    assert_eq!(
        (sweep.verdict.backend, prober.parked()),
        (BackendState::Hung, vec![])
    );
}

#[test]
fn an_answer_after_the_timeout_ends_the_grace_period() {
    let listener = listen();
    let keys = r#""recovery": {"unit": "demo.service", "grace_seconds": 60},
        "defaults": {"timeout_seconds": 0.2, "retries": 0},
        "routes": [{"path": "/", "core": true}, {"path": "/b", "core": true}, {"path": "/page"}]"#;
    let manifest = manifest_with(&listener, keys);
    let prober = Prober::new(&manifest, true).unwrap();
    let began = Monotonic::now();
    let sweep = thread::scope(|scope| {
        scope.spawn(|| {
            let (mut one, _) = listener.accept().unwrap();
            let _other = listener.accept().unwrap();
            thread::sleep(Duration::from_millis(500));
            one.write_all(b"H").unwrap();
            answer(&listener);
        });
        prober.sweep(&mut SweepHistory::default(), &|_| {})
    });
    assert!(Monotonic::now().since(began) < Duration::from_secs(30));
    assert_eq!(sweep.verdict.backend, BackendState::Up);
    assert_eq!(sweep.results[2].class, Class::Ok);
    let core = &sweep.results[..2];
    let timeout = Class::TimeoutUnreachable(TransportError::Timeout);
    assert!(core.iter().all(|result| result.class == timeout));
    let answered: Vec<_> = core.iter().filter(|result| !result.silent).collect();
    let [answered] = answered[..] else {
        panic!("{core:?}");
    };
    let detail = answered.detail.as_deref().unwrap();
    assert!(detail.starts_with("answered after 0."), "{detail}");
}

#[test]
fn events_come_in_the_order_of_the_sweeps() {
    let listener = listen();
    let keys = r#""concurrency": 1, "defaults": {"retries": 0, "timeout_seconds": 0.2},
        "routes": [{"path": "/page"}, {"path": "/", "core": true}]"#;
    let manifest = manifest_with(&listener, keys);
    let prober = Prober::new(&manifest, true).unwrap();
    let (seen, begun) = (Mutex::new(Vec::new()), Mutex::new(Vec::new()));
    let on_event = |event: Event<'_>| {
        let text = match event {
            Event::SweepBegins => {
                begun.lock().unwrap().push(Monotonic::now());
                "begins".to_owned()
            }
            Event::GraceBegins(_) => "grace".to_owned(),
            Event::CoreEnds => "core ends".to_owned(),
            Event::Progress(done, total) => format!("{done} of {total}"),
            Event::Unhealthy(number, sweep, left) => {
                let (class, tally) = (sweep.results[0].class.name(), sweep.verdict.tally[0].1);
                let in_time = left <= Duration::from_secs(20);
                format!("{number} unhealthy: {class}, {tally} ok, in time: {in_time}")
            }
        };
        seen.lock().unwrap().push(text);
    };
    let sweep = thread::scope(|scope| {
        scope.spawn(|| {
            drop(listener.accept().unwrap());
            answer(&listener);
            answer(&listener);
        });
        until_healthy(&prober, Duration::from_secs(20), &on_event)
    });
    let expected = [
        "begins",
        "1 of 2",
        "core ends",
        "1 unhealthy: skipped, 0 ok, in time: true",
        "begins",
        "1 of 2",
        "core ends",
        "2 of 2",
    ];
    assert_eq!(*seen.lock().unwrap(), expected);
    let begun = begun.lock().unwrap();
    assert!(begun[0] < sweep.began && sweep.began <= begun[1]);
}

#[test]
fn a_hang_in_the_middle_of_a_sweep_needs_a_second_round() {
    let listener = listen();
    let keys = r#""concurrency": 1, "defaults": {"retries": 0, "timeout_seconds": 0.2},
        "recovery": {"unit": "demo.service"},
        "routes": [{"path": "/", "core": true}, {"path": "/b", "core": true}]"#;
    let manifest = manifest_with(&listener, keys);
    let prober = Prober::new(&manifest, true).unwrap();
    let sweep = thread::scope(|scope| {
        scope.spawn(|| {
            answer(&listener);
            let _silent = listener.accept().unwrap();
            answer(&listener);
            answer(&listener);
        });
        prober.sweep(&mut SweepHistory::default(), &|_| {})
    });
    let classes: Vec<_> = sweep.results.iter().map(|result| result.class).collect();
    assert_eq!(classes, [Class::Ok, Class::Ok]);
    assert_eq!(sweep.verdict.backend, BackendState::Up);
}

#[test]
fn a_late_answer_to_the_first_round_says_nothing_about_the_second() {
    let listener = listen();
    let keys = r#""concurrency": 2, "defaults": {"retries": 0, "timeout_seconds": 0.4},
        "recovery": {"unit": "demo.service", "grace_seconds": 0.2},
        "routes": [{"path": "/", "core": true}, {"path": "/b", "core": true},
                   {"path": "/c", "core": true}]"#;
    let manifest = manifest_with(&listener, keys);
    let prober = Prober::new(&manifest, true).unwrap();
    let sweep = thread::scope(|scope| {
        scope.spawn(|| {
            let mut first: Vec<_> = (0..3).map(|_| listener.accept().unwrap().0).collect();
            // The third began when the first had timed out.
            thread::sleep(Duration::from_millis(100));
            first[0].write_all(b"H").unwrap();
            // The second round: three more, never answered.
            let second: Vec<_> = (0..3).map(|_| listener.accept().unwrap().0).collect();
            thread::sleep(Duration::from_secs(1));
            drop((first, second));
        });
        prober.sweep(&mut SweepHistory::default(), &|_| {})
    });
    assert_eq!(
        sweep.verdict.backend,
        BackendState::Hung,
        "{:?}",
        sweep.results
    );
    assert!(
        prober
            .parked()
            .iter()
            .all(|request| request.answered().is_none())
    );
}
