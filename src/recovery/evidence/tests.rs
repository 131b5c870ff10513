use std::net::{TcpListener, TcpStream};

use super::super::cgroup::tests::Sleepers;
use super::super::samples::{accepted, connection, in_group, listener as row, probe};
use super::super::socket_watch;
use super::super::tcp_diag::States;
use super::*;
use crate::skip::skip_unless_ci;
use crate::sweep::Connection;

fn soon() -> Monotonic {
    Monotonic::now() + Duration::from_secs(10)
}

/// This process without its control group, whose other processes do not belong to the test.
fn own() -> Evidence {
    processes(std::process::id(), None, None, soon())
}

/// This process is the backend: it listens, and accepts nothing at first.
#[test]
fn listener_sees_whether_a_connection_is_accepted() {
    for address in ["127.0.0.1:0", "[::1]:0"] {
        let Ok(backend) = TcpListener::bind(address) else {
            skip_unless_ci("no IPv6");
            continue;
        };
        let server = backend.local_addr().unwrap();
        let first = TcpStream::connect(server).unwrap();
        let second = TcpStream::connect(server).unwrap();
        let connections = [ProbeConnection {
            connection: Connection {
                local: second.local_addr().unwrap(),
                remote: server,
            },
            established: true,
        }];
        let observe = || {
            let table = socket_watch::dump(&mut None, server.port(), States::All).unwrap();
            let facts = TcpFacts {
                table: table.clone(),
                ..TcpFacts::default()
            };
            listener(&facts, &[server], "demo.service", &connections, &table)
        };
        let before = observe();
        assert_eq!(before.accept_queue, Reading::Known(2));
        assert!(
            before
                .accept_queue_limit
                .known()
                .is_some_and(|&limit| limit > 2)
        );
        assert_eq!(before.accepted, Reading::Known(false));
        let kept = (backend.accept().unwrap(), backend.accept().unwrap());
        let after = observe();
        assert_eq!(after.accept_queue, Reading::Known(0));
        assert_eq!(after.accepted, Reading::Known(true));
        drop((kept, first));
    }
}

#[test]
fn listener_adds_up_the_queues_and_names_the_owner() {
    let waiting = |cookie, waiting| TcpSocket {
        receive_queue: waiting,
        ..in_group(row("127.0.0.1:80", cookie), 7)
    };
    let server: SocketAddr = "[::ffff:127.0.0.1]:80".parse().unwrap();
    for (owner, name) in [
        (Owner::Unit, Some("demo.service")),
        (
            Owner::SocketUnit("demo.socket".to_owned()),
            Some("demo.socket"),
        ),
        (Owner::Manager(Vec::new()), Some("the service manager")),
        (Owner::Foreign("/other".to_owned()), Some("/other")),
        (Owner::Removed, None),
    ] {
        let facts = TcpFacts {
            table: vec![waiting(1, 100), waiting(2, 29), row("127.0.0.2:80", 3)],
            owners: [(7, owner)].into(),
            ..TcpFacts::default()
        };
        let seen = listener(&facts, &[server, server], "demo.service", &[], &[]);
        assert_eq!(seen.accept_queue, Reading::Known(129));
        assert_eq!(seen.accept_queue_limit, Reading::Known(256));
        assert_eq!(seen.accepted, Reading::Unknown);
        let name = name.map(str::to_owned);
        assert_eq!(seen.listener_owner, Reading::from(name));
    }
    let none = listener(&TcpFacts::default(), &[server], "demo.service", &[], &[]);
    assert_eq!(none, Listener::default());
}

#[test]
fn listener_takes_acceptance_from_the_later_table() {
    let connections = probe(true).connections;
    for (later, expected) in [
        (vec![], Reading::Unknown),
        (vec![connection(1, 50_000)], Reading::Known(false)),
        (vec![accepted(connection(1, 50_000))], Reading::Known(true)),
    ] {
        let facts = TcpFacts::default();
        let seen = listener(&facts, &[], "demo.service", &connections, &later);
        assert_eq!(seen.accepted, expected);
    }
}

#[test]
fn processes_sees_this_very_process() {
    let evidence = own();
    let [process] = &evidence.processes[..] else {
        panic!("{evidence:?}");
    };
    assert_eq!(process.pid, std::process::id());
    assert!(process.name.known().is_some_and(|name| !name.is_empty()));
    assert!(process.state.known().is_some());
    assert!((process.cpu.known()).is_some_and(|cpu| cpu.interval_ms >= 100));
    assert!((process.resident_bytes.known()).is_some_and(|&bytes| bytes > 100_000));
    assert!((process.open_descriptors.known()).is_some_and(|&open| open >= 3));
    assert!((process.threads.known()).is_some_and(|groups| !groups.is_empty()));
    assert_eq!(process.catches_dump_signal, Reading::Unknown);
    let pid = std::process::id();
    let asked = processes(pid, None, Some(DumpSignal::Usr2), soon());
    assert_eq!(
        asked.processes[0].catches_dump_signal,
        Reading::Known(false)
    );
}

#[test]
fn processes_takes_the_others_of_the_group_after_the_main_one() {
    let Some(sleepers) = Sleepers::start(3) else {
        return;
    };
    let main = sleepers.processes[1].id();
    let seen = processes(main, Some(&sleepers.group), None, soon());
    assert_eq!(seen.processes.len(), 3);
    assert_eq!(seen.processes[0].pid, main);
    let again = seen.processes.iter().filter(|process| process.pid == main);
    assert_eq!(again.count(), 1);
}

#[test]
fn processes_keeps_its_time_limit_and_tolerates_a_process_that_is_gone() {
    let before = Monotonic::now();
    let evidence = processes(u32::MAX, None, None, before);
    assert!(Monotonic::now().since(before) < Duration::from_millis(100));
    assert_eq!(evidence.processes[0].name, Reading::Unknown);
    assert_eq!(evidence.processes[0].cpu, Reading::Unknown);
    assert_eq!(
        evidence.summary(),
        "no evidence of the process could be read"
    );
}

fn main_process() -> ProcessEvidence {
    ProcessEvidence {
        pid: 4_711,
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
        catches_dump_signal: Reading::Known(true),
    }
}

fn full_queue() -> Listener {
    Listener {
        accept_queue: Reading::Known(129),
        accept_queue_limit: Reading::Known(128),
        listener_owner: Reading::Known("demo.service".to_owned()),
        accepted: Reading::Known(false),
    }
}

#[test]
fn the_main_process_is_flat_in_json_and_first_in_processes() {
    let process = "\"pid\":4711,\"name\":\"uvicorn\",\"state\":\"S\",\
         \"threads\":[{\"state\":\"S\",\"wait_channel\":\"futex_wait\",\"count\":2},\
         {\"state\":\"R\",\"wait_channel\":\"not permitted\",\"count\":1}],\
         \"cpu\":{\"ticks\":0,\"interval_ms\":100},\"resident_bytes\":1024,\
         \"open_descriptors\":\"not permitted\",\"catches_dump_signal\":true";
    let listener = "\"accept_queue\":129,\"accept_queue_limit\":128,\
         \"listener_owner\":\"demo.service\",\"accepted\":false";
    let evidence = Evidence {
        processes: vec![main_process()],
        listener: full_queue(),
    };
    assert_eq!(
        serde_json::to_string(&evidence).unwrap(),
        format!("{{{process},{listener},\"processes\":[{{{process}}}]}}")
    );
    let nothing = serde_json::to_value(Evidence::default()).unwrap();
    assert_eq!(nothing["processes"], serde_json::json!([]));
    assert_eq!(nothing["accept_queue"], serde_json::Value::Null);
}

#[test]
fn summary_is_one_line_with_like_processes_together() {
    const MAIN: &str = "2 threads sleeping in futex_wait, 1 thread running, 0 CPU ticks in 100 ms";
    let worker = |pid, ticks| ProcessEvidence {
        pid,
        threads: Reading::Unknown,
        cpu: Reading::Known(Cpu {
            ticks,
            interval_ms: 100,
        }),
        ..main_process()
    };
    let unseen = ProcessEvidence {
        cpu: Reading::NotPermitted,
        ..worker(9, 0)
    };
    let evidence = |others: Vec<ProcessEvidence>| Evidence {
        processes: [vec![main_process()], others].concat(),
        listener: full_queue(),
    };
    let queue = "129 connections waiting (limit 128), none accepted";
    assert_eq!(evidence(vec![]).summary(), format!("{queue}; {MAIN}"));
    assert_eq!(
        evidence(vec![worker(5, 0), worker(6, 1), worker(7, 0), unseen]).summary(),
        format!(
            "{queue}; {MAIN}; process 5: 0 CPU ticks (and 1 more alike); process 6: 1 CPU tick"
        )
    );
    let many = evidence((0..5).map(|n| worker(10 + n, u64::from(n))).collect());
    assert!(many.summary().contains("process 12: 2 CPU ticks; …"));
    assert!(!many.summary().contains("process 13"));
    let accepting = Evidence {
        listener: Listener {
            accept_queue: Reading::Known(1),
            accept_queue_limit: Reading::Unknown,
            accepted: Reading::Known(true),
            ..full_queue()
        },
        processes: vec![],
    };
    assert_eq!(
        accepting.summary(),
        "1 connection waiting, but the newest one was accepted"
    );
}
