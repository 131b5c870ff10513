use std::net::{TcpListener, TcpStream};

use super::super::Heard;
use super::*;
use crate::skip::skip_unless_ci;

struct Connected(Option<(SocketAddr, SocketAddr)>);

impl Knock for Connected {
    fn heard(&self) -> Heard {
        Heard::Nothing
    }

    fn connection(&self) -> Option<(SocketAddr, SocketAddr)> {
        self.0
    }
}

fn soon() -> Monotonic {
    Monotonic::now() + Duration::from_secs(10)
}

/// This very process is the backend: it listens, and accepts nothing until told.
#[test]
fn gather_sees_whether_a_connection_is_accepted() {
    for address in ["127.0.0.1:0", "[::1]:0"] {
        let Ok(listener) = TcpListener::bind(address) else {
            skip_unless_ci("no IPv6");
            continue;
        };
        let server = listener.local_addr().unwrap();
        let first = TcpStream::connect(server).unwrap();
        let second = TcpStream::connect(server).unwrap();
        let knock = Connected(Some((second.local_addr().unwrap(), server)));
        let before = gather(std::process::id(), &knock, &[server], soon());
        assert_eq!(before.accept_queue, Reading::Known(2));
        assert_eq!(before.accepted, Reading::Known(false));
        assert!(
            before
                .summary()
                .starts_with("2 connections waiting, none accepted; ")
        );

        let kept = (listener.accept().unwrap(), listener.accept().unwrap());
        let after = gather(std::process::id(), &knock, &[server], soon());
        assert_eq!(after.accept_queue, Reading::Known(0));
        assert_eq!(after.accepted, Reading::Known(true));
        drop((kept, first));
    }
}

#[test]
fn gather_sees_this_very_process() {
    let evidence = gather(std::process::id(), &Connected(None), &[], soon());
    assert!(evidence.name.known().is_some_and(|name| !name.is_empty()));
    assert!(evidence.state.known().is_some());
    assert!(
        evidence
            .cpu
            .known()
            .is_some_and(|cpu| cpu.interval_ms >= 100)
    );
    assert!(
        evidence
            .resident_bytes
            .known()
            .is_some_and(|&bytes| bytes > 100_000)
    );
    assert!(
        evidence
            .open_descriptors
            .known()
            .is_some_and(|&open| open >= 3)
    );
    assert!(
        evidence
            .threads
            .known()
            .is_some_and(|groups| !groups.is_empty())
    );
    assert_eq!(evidence.accept_queue, Reading::Unknown);
    assert_eq!(evidence.accepted, Reading::Unknown);
}

#[test]
fn gather_keeps_its_time_and_survives_a_process_that_is_gone() {
    let before = Monotonic::now();
    let evidence = gather(u32::MAX, &Connected(None), &[], before);
    assert!(Monotonic::now().since(before) < Duration::from_millis(100));
    assert_eq!(evidence.name, Reading::Unknown);
    assert_eq!(evidence.cpu, Reading::Unknown);
    assert_eq!(evidence.summary(), "nothing could be seen of the process");
}

#[test]
fn queue_finds_the_backends_sockets() {
    let socket = |local: &str, remote: &str, listens, waiting, inode| Socket {
        local: local.parse().unwrap(),
        remote: remote.parse().unwrap(),
        listens,
        waiting,
        inode,
    };
    let none = "0.0.0.0:0";
    let table = Reading::Known(vec![
        socket("127.0.0.1:8000", none, true, 100, 1),
        socket("0.0.0.0:8000", none, true, 20, 2),
        socket("[::]:8000", none, true, 3, 3),
        socket("127.0.0.1:8001", none, true, 1_000, 4),
        socket("127.0.0.2:8000", none, true, 1_000, 5),
        socket("127.0.0.1:5000", "127.0.0.1:8000", false, 0, 6),
        socket("127.0.0.1:8000", "127.0.0.1:5000", false, 0, 0),
    ]);
    let backend = ["[::ffff:127.0.0.1]:8000".parse().unwrap()];
    let ours = |port| Some((SocketAddr::from(([127, 0, 0, 1], port)), backend[0]));
    assert_eq!(
        queue(&table, &backend, ours(5_000)),
        (Reading::Known(123), Reading::Known(false))
    );
    assert_eq!(queue(&table, &backend, ours(5_001)).1, Reading::Unknown);
    assert_eq!(queue(&table, &backend, None).1, Reading::Unknown);
    assert_eq!(queue(&table, &[], None).0, Reading::Unknown);
    assert_eq!(
        queue(&Reading::NotPermitted, &backend, None),
        (Reading::NotPermitted, Reading::NotPermitted)
    );
}

#[test]
fn evidence_is_told_in_json_and_on_a_line() {
    let evidence = Evidence {
        name: Reading::Known("uvicorn".to_owned()),
        state: Reading::Known('S'),
        threads: Reading::Known(vec![
            ThreadGroup {
                state: 'S',
                wait_channel: Reading::Known("futex_wait".to_owned()),
                count: 2,
            },
            ThreadGroup {
                state: 'R',
                wait_channel: Reading::NotPermitted,
                count: 1,
            },
        ]),
        cpu: Reading::Known(Cpu {
            ticks: 0,
            interval_ms: 100,
        }),
        resident_bytes: Reading::Known(1_024),
        open_descriptors: Reading::NotPermitted,
        accept_queue: Reading::Known(129),
        accepted: Reading::Known(false),
    };
    assert_eq!(
        serde_json::to_string(&evidence).unwrap(),
        "{\"name\":\"uvicorn\",\"state\":\"S\",\
         \"threads\":[{\"state\":\"S\",\"wait_channel\":\"futex_wait\",\"count\":2},\
         {\"state\":\"R\",\"wait_channel\":\"not permitted\",\"count\":1}],\
         \"cpu\":{\"ticks\":0,\"interval_ms\":100},\"resident_bytes\":1024,\
         \"open_descriptors\":\"not permitted\",\"accept_queue\":129,\"accepted\":false}"
    );
    assert_eq!(
        evidence.summary(),
        "129 connections waiting, none accepted; 2 threads sleeping in futex_wait, 1 thread running; 0 CPU ticks in 100 ms"
    );
    let accepting = Evidence {
        accept_queue: Reading::Known(1),
        accepted: Reading::Known(true),
        threads: Reading::Unknown,
        cpu: Reading::NotPermitted,
        ..evidence
    };
    assert_eq!(
        accepting.summary(),
        "1 connection waiting, but the newest one was accepted"
    );
    assert_eq!(
        serde_json::to_value(&accepting).unwrap()["threads"],
        serde_json::Value::Null
    );
}
