use super::super::facts::Gatherer;
use super::super::samples::{
    GROUP, Still, accepted, connection, context, in_group, in_state, listener as row, member,
    parked, with_queue,
};
use super::super::sockets::queue::QueueHistory;
use super::super::sockets::tcp::TcpState;
use super::*;

fn soon() -> Monotonic {
    Monotonic::now() + Duration::from_secs(10)
}

/// A group with these processes.
fn group(processes: &[u32]) -> Group {
    Group {
        members: processes.iter().map(|pid| member(*pid)).collect(),
        ..Group::default()
    }
}

/// This process without the others of its control group, which do not belong to the test.
fn own() -> ProcessEvidence {
    let pid = std::process::id();
    let mut processes = processes(pid, &group(&[pid]), None, soon());
    assert_eq!(processes.len(), 1);
    processes.remove(0)
}

#[test]
fn listener_adds_up_the_queues_and_names_the_owner() {
    let waiting = |cookie, waiting| in_group(with_queue(row("127.0.0.1:80", cookie), waiting), 7);
    let server = "[::ffff:127.0.0.1]:80".parse().unwrap();
    let context = Context {
        addresses: vec![server, server],
        ..context()
    };
    for (owner, name) in [
        (Owner::Unit, Some("demo.service")),
        (
            Owner::SocketUnit("demo.socket".to_owned()),
            Some("demo.socket"),
        ),
        (Owner::Manager(Vec::new()), Some("the service manager")),
        (Owner::Foreign("/other".to_owned()), Some("/other")),
    ] {
        let sockets = Sockets {
            reading: Reading::Tcp {
                at: soon(),
                rows: vec![waiting(1, 100), waiting(2, 29), row("127.0.0.2:80", 3)],
                listeners_after: Vec::new(),
            },
            owners: [(Some(7), owner)].into(),
        };
        let seen = SocketEvidence::of(&sockets, &context);
        assert_eq!(seen.accept_queue, Some(129));
        assert_eq!(seen.accept_queue_limit, Some(256));
        let name = name.map(str::to_owned);
        assert_eq!(seen.listener_owner, name);
    }
    let none = Sockets {
        reading: Reading::Tcp {
            at: soon(),
            rows: Vec::new(),
            listeners_after: Vec::new(),
        },
        owners: [].into(),
    };
    assert_eq!(
        SocketEvidence::of(&none, &context),
        SocketEvidence::default()
    );
}

#[test]
fn parked_requests_are_counted_by_how_far_they_got() {
    let mut machine = Still::hung();
    let rows = machine.rows.as_mut().unwrap();
    rows.push(in_group(accepted(connection(3, 50_001)), GROUP));
    rows.push(in_state(accepted(connection(4, 50_002)), TcpState::Closed));
    let mut pending = parked(50_003);
    pending.reach = Reach::Unconnected;
    machine
        .parked
        .extend([parked(50_001), parked(50_002), pending]);
    let context = context();
    let mut gatherer = Gatherer::new(&context, &machine, QueueHistory::default());
    let facts = gatherer.observe().unwrap();
    let evidence = Evidence::new(Vec::new(), &context, &facts);
    let counts = ParkedCounts {
        accepted: Some(1),
        unaccepted: Some(1),
        unconnected: 1,
    };
    assert_eq!(evidence.parked, counts);
    assert_eq!(evidence.listener.accept_queue, Some(1));
}

#[test]
fn processes_sees_this_very_process() {
    let process = own();
    assert_eq!(process.pid, std::process::id());
    assert!(process.name.is_ok_and(|name| !name.is_empty()));
    assert!(process.state.is_ok());
    assert!(process.cpu.is_ok_and(|cpu| cpu.interval_ms >= 100));
    let details = process.details.unwrap();
    assert!(details.resident_bytes.is_ok_and(|bytes| bytes > 100_000));
    assert!(details.threads.is_ok_and(|groups| !groups.is_empty()));
    assert_eq!(details.catches_dump_signal, Err(Unread::Unknown));
    let pid = std::process::id();
    let asked = processes(pid, &group(&[pid]), Some(Signal::SIGUSR2), soon());
    let details = asked[0].details.as_ref().unwrap();
    assert_eq!(details.catches_dump_signal, Ok(false));
}

#[test]
fn like_threads_are_grouped_the_largest_group_and_the_first_thread_first() {
    let sleeps = |place: &str| ('S', Ok(place.to_owned()));
    let threads = ["pipe_read", "futex_wait", "do_wait", "futex_wait"].map(sleeps);
    let groups = grouped(threads.into_iter().chain([('R', Ok("0".to_owned()))]));
    let shown = groups.iter().map(|group| {
        let place = group.wait_channel.as_ref().unwrap();
        format!("{} {place} {}", group.state, group.count)
    });
    let expected = ["S futex_wait 2", "S pipe_read 1", "S do_wait 1", "R 0 1"];
    assert_eq!(shown.collect::<Vec<_>>(), expected);
}

#[test]
fn processes_takes_the_others_of_the_group_after_the_main_one() {
    let main = std::process::id();
    let seen = processes(main, &group(&[1, main, u32::MAX]), None, soon());
    let pids: Vec<_> = seen.iter().map(|process| process.pid).collect();
    assert_eq!(pids, [main, 1, u32::MAX]);
    let details: Vec<_> = seen
        .iter()
        .map(|process| process.details.is_some())
        .collect();
    assert_eq!(details, [true, false, false]);
    let many: Vec<u32> = (1..200).collect();
    assert_eq!(
        processes(main, &group(&many), None, soon()).len(),
        PROCESSES
    );
}

#[test]
fn processes_keeps_its_time_limit_and_tolerates_a_process_that_is_gone() {
    let before = Monotonic::now();
    let seen = processes(u32::MAX, &group(&[1, 2, 3]), None, before);
    assert!(Monotonic::now().since(before) < Duration::from_millis(100));
    assert_eq!(seen.len(), 1);
    assert_eq!(
        (&seen[0].name, &seen[0].cpu),
        (&Err(Unread::Unknown), &Err(Unread::Unknown))
    );
    let evidence = Evidence {
        processes: seen,
        ..Evidence::default()
    };
    assert_eq!(
        evidence.summary(),
        "no evidence of the process could be read"
    );
}

fn main_process() -> ProcessEvidence {
    ProcessEvidence {
        pid: 4_711,
        name: Ok("uvicorn".to_owned()),
        state: Ok('S'),
        cpu: Ok(Cpu {
            ticks: 0,
            interval_ms: 100,
        }),
        details: Some(ProcessDetails {
            threads: Ok(vec![
                ThreadGroup {
                    state: 'S',
                    wait_channel: Ok("futex_wait".to_owned()),
                    count: 2,
                },
                ThreadGroup {
                    state: 'R',
                    wait_channel: Err(Unread::NotPermitted),
                    count: 1,
                },
            ]),
            resident_bytes: Ok(1_024),
            catches_dump_signal: Ok(true),
        }),
    }
}

fn full_queue() -> SocketEvidence {
    SocketEvidence {
        accept_queue: Some(129),
        accept_queue_limit: Some(128),
        listener_owner: Some("demo.service".to_owned()),
    }
}

const PARKED: ParkedCounts = ParkedCounts {
    accepted: Some(6),
    unaccepted: Some(3),
    unconnected: 0,
};

#[test]
fn the_main_process_is_flat_in_json_and_first_in_processes() {
    let process = "\"pid\":4711,\"name\":\"uvicorn\",\"state\":\"S\",\
         \"cpu\":{\"ticks\":0,\"interval_ms\":100},\
         \"threads\":[{\"state\":\"S\",\"wait_channel\":\"futex_wait\",\"count\":2},\
         {\"state\":\"R\",\"wait_channel\":\"not permitted\",\"count\":1}],\
         \"resident_bytes\":1024,\"catches_dump_signal\":true";
    let listener = "\"accept_queue\":129,\"accept_queue_limit\":128,\
         \"listener_owner\":\"demo.service\"";
    let parked = "\"parked\":{\"accepted\":6,\"unaccepted\":3,\"unconnected\":0}";
    let evidence = Evidence {
        main: Some(main_process()),
        processes: vec![main_process()],
        listener: full_queue(),
        parked: PARKED,
    };
    assert_eq!(
        serde_json::to_string(&evidence).unwrap(),
        format!("{{{process},{listener},{parked},\"processes\":[{{{process}}}]}}")
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
        details: None,
        cpu: Ok(Cpu {
            ticks,
            interval_ms: 100,
        }),
        ..main_process()
    };
    let unseen = ProcessEvidence {
        cpu: Err(Unread::NotPermitted),
        ..worker(9, 0)
    };
    let evidence = |others: Vec<ProcessEvidence>| Evidence {
        main: Some(main_process()),
        processes: [vec![main_process()], others].concat(),
        listener: full_queue(),
        parked: PARKED,
    };
    let queue = "129 connections in the accept queue (limit 128); requests left open: 6 accepted, 3 not accepted";
    assert_eq!(evidence(vec![]).summary(), format!("{queue}; {MAIN}"));
    assert_eq!(
        evidence(vec![worker(5, 0), worker(6, 1), worker(7, 0), unseen]).summary(),
        format!(
            "{queue}; {MAIN}; process 6: 1 CPU tick; process 5: 0 CPU ticks (and 1 more alike)"
        )
    );
    let many = evidence((0..5).map(|n| worker(10 + n, u64::from(n))).collect());
    assert!(many.summary().contains("process 12: 2 CPU ticks; …"));
    assert!(many.summary().contains("; process 14: 4 CPU ticks; "));
}
