use super::super::super::samples::{accepted, connection, in_state, listener, with_queue};
use super::super::tcp::TcpState;
use super::*;

const ADDRESS: &str = "127.0.0.1:80";

/// After `millis` milliseconds.
fn moment(millis: u64) -> Monotonic {
    Monotonic::from_micros(millis * 1_000)
}

/// One reading: the lengths of the queue before and after, and the connections.
type Step<'a> = (u64, u32, &'a [TcpSocket], u32);

/// Whether the queue has moved after these readings.
fn moves(steps: &[Step<'_>]) -> bool {
    let mut history = QueueHistory::default();
    let address = [ADDRESS.parse().unwrap()];
    for (millis, before, connections, after) in steps {
        let queue = |length| with_queue(listener(ADDRESS, 1), length);
        let reading = Reading::Tcp {
            at: moment(*millis),
            rows: [&[queue(*before)], *connections].concat(),
            listeners_after: vec![queue(*after)],
        };
        history.record(&address, &reading);
    }
    history.has_moved(&address)
}

#[test]
fn a_queue_of_which_nothing_is_accepted_does_not_move() {
    let (one, two) = (connection(11, 1), connection(12, 2));
    assert!(!moves(&[
        (0, 1, &[one], 1),
        (300, 1, &[one], 1),
        (600, 1, &[one], 1)
    ]));
    // It grows.
    assert!(!moves(&[
        (0, 1, &[one], 1),
        (300, 1, &[one], 1),
        (600, 2, &[one, two], 2)
    ]));
    // Clients that close or reset free no place.
    let closed = in_state(one, TcpState::Open);
    assert!(!moves(&[
        (0, 1, &[one], 1),
        (300, 1, &[one], 1),
        (600, 1, &[closed], 1)
    ]));
    assert!(!moves(&[
        (0, 1, &[one], 1),
        (300, 1, &[one], 1),
        (600, 1, &[], 1)
    ]));
    assert!(!moves(&[
        (0, 1, &[one], 1),
        (300, 1, &[one], 1),
        (600, 2, &[two], 2)
    ]));
}

#[test]
fn an_accept_after_a_wait_moves_the_queue() {
    let (one, two) = (connection(11, 1), connection(12, 2));
    let waited: [Step<'_>; 2] = [(0, 1, &[one], 1), (300, 1, &[one], 1)];
    let after = |last: Step<'_>| moves(&[&waited[..], &[last]].concat());
    // Seen while it is served.
    assert!(after((600, 0, &[accepted(one)], 0)));
    // Served and gone between two readings, while another one has arrived.
    assert!(after((600, 1, &[two], 1)));
    assert!(after((600, 0, &[], 0)));
    // Whose client has reset meanwhile: one place is left, for the other one.
    let reset: [Step<'_>; 3] = [(0, 2, &[one], 2), (300, 2, &[one], 2), (600, 1, &[one], 1)];
    assert!(moves(&reset));
}

#[test]
fn a_connection_that_is_just_being_accepted_is_no_movement() {
    let one = connection(11, 1);
    assert!(!moves(&[(0, 1, &[one], 1), (300, 0, &[accepted(one)], 0)]));
    // In two readings, but for less than 200 ms.
    assert!(!moves(&[
        (0, 1, &[one], 1),
        (199, 1, &[one], 1),
        (400, 0, &[], 0)
    ]));
    assert!(moves(&[
        (0, 1, &[one], 1),
        (200, 1, &[one], 1),
        (400, 0, &[], 0)
    ]));
    // A server that accepts at once shows other connections in each reading.
    let steps: Vec<_> = (0..9).map(|n| [connection(20 + n, n as u16)]).collect();
    let steps: Vec<Step<'_>> = (steps.iter().enumerate())
        .map(|(index, row)| (index as u64 * 300, 1, &row[..], 1))
        .collect();
    assert!(!moves(&steps));
}

#[test]
fn a_full_queue_whose_clients_have_reset_still_counts_places() {
    let full = 129;
    assert!(!moves(&[
        (0, full, &[], full),
        (300, full, &[], full),
        (600, full, &[], full)
    ]));
    assert!(moves(&[
        (0, full, &[], full),
        (300, full, &[], full),
        (600, full, &[], 128)
    ]));
    assert!(!moves(&[
        (0, full, &[], full),
        (100, full, &[], full),
        (600, full, &[], 128)
    ]));
}

#[test]
fn other_listeners_and_other_addresses_do_not_count() {
    let mut history = QueueHistory::default();
    let addresses: Vec<SocketAddr> = [ADDRESS, "127.0.0.2:80"]
        .map(|text| text.parse().unwrap())
        .into();
    let other = TcpSocket {
        local: addresses[1],
        ..connection(12, 2)
    };
    let mut record = |millis, cookie, waiting, rows: &[TcpSocket]| {
        let listeners = [
            with_queue(listener(ADDRESS, cookie), waiting),
            listener("127.0.0.2:80", 9),
        ];
        let reading = Reading::Tcp {
            at: moment(millis),
            rows: [&listeners[..], rows].concat(),
            listeners_after: listeners.into(),
        };
        history.record(&addresses, &reading);
    };
    let one = connection(11, 1);
    record(0, 1, 1, &[one, other]);
    record(300, 1, 1, &[one, other]);
    record(600, 1, 1, &[one, accepted(other)]);
    // Another listener has taken the place of the first.
    record(900, 2, 0, &[]);
    assert!(!history.has_moved(&addresses[..1]));
    assert!(history.has_moved(&addresses[1..]));
    assert!(!history.has_moved(&["127.0.0.3:80".parse().unwrap()]));
}

#[test]
fn was_full_asks_for_the_readings_around_a_moment() {
    let mut history = QueueHistory::default();
    let address = ADDRESS.parse().unwrap();
    for (millis, length) in [(0, 128), (300, 129), (600, 130), (900, 1), (1_200, 129)] {
        let queue = with_queue(listener(ADDRESS, 1), length);
        let reading = Reading::Tcp {
            at: moment(millis),
            rows: vec![queue],
            listeners_after: vec![queue],
        };
        history.record(&[address], &reading);
    }
    for (millis, full) in [
        (0, false),
        (299, false),
        (300, true),
        (450, true),
        (600, true),
        (601, false),
        (1_200, true),
    ] {
        assert_eq!(
            history.was_full(Some(address), moment(millis)),
            full,
            "{millis}"
        );
    }
    assert!(!history.was_full(None, moment(450)));
    assert!(!history.was_full(Some("127.0.0.2:80".parse().unwrap()), moment(450)));
}

/// Whether the queue of a UNIX socket has moved after these readings of its pending peers.
fn unix_moves(steps: &[(u64, &[u32])]) -> bool {
    let mut history = QueueHistory::default();
    for (millis, waiting) in steps {
        let listener = UnixListener {
            inode: 5,
            queue: Some((waiting.len() as u32, 2)),
            waiting: waiting.to_vec(),
            ..UnixListener::default()
        };
        let reading = Reading::Unix {
            at: moment(*millis),
            path: "".into(),
            listeners: vec![listener],
        };
        history.record(&[], &reading);
    }
    history.has_moved(&[])
}

#[test]
fn the_queue_of_a_unix_socket_moves_if_its_head_goes() {
    let waited = |last: &[u32]| unix_moves(&[(0, &[1, 2]), (300, &[1, 2]), (600, last)]);
    assert!(!waited(&[1, 2]));
    assert!(!waited(&[1, 2, 3]));
    assert!(!waited(&[0, 2, 3]), "its client has closed");
    assert!(!waited(&[0, 0]));
    assert!(waited(&[2]));
    assert!(waited(&[2, 3]));
    assert!(waited(&[2, 0]), "another one has come and closed");
    assert!(waited(&[]));
    assert!(!unix_moves(&[(0, &[1]), (199, &[1]), (400, &[])]));
    assert!(
        !unix_moves(&[(0, &[0]), (300, &[0]), (600, &[])]),
        "nobody waits"
    );
    assert!(!unix_moves(&[(0, &[1]), (300, &[])]));
    // A full one of which all clients have given up: only an accept makes room.
    assert!(!unix_moves(&[(0, &[0; 3]), (300, &[0; 3]), (600, &[0; 3])]));
    assert!(unix_moves(&[(0, &[0; 3]), (300, &[0; 3]), (600, &[0; 2])]));
    assert!(unix_moves(&[
        (0, &[0; 3]),
        (300, &[0; 3]),
        (600, &[0, 0, 9])
    ]));
    assert!(!unix_moves(&[(0, &[0; 3]), (199, &[0; 3]), (400, &[])]));
}

#[test]
fn a_unix_socket_that_is_replaced_does_not_move() {
    let mut history = QueueHistory::default();
    let record = |history: &mut QueueHistory, millis, inodes: &[u32], waiting: &[u32]| {
        let listeners = inodes.iter().map(|inode| UnixListener {
            inode: *inode,
            queue: Some((3, 2)),
            waiting: waiting.to_vec(),
            ..UnixListener::default()
        });
        let reading = Reading::Unix {
            at: moment(millis),
            path: "".into(),
            listeners: listeners.collect(),
        };
        history.record(&[], &reading);
    };
    record(&mut history, 0, &[5], &[1]);
    record(&mut history, 300, &[5], &[1]);
    assert!(history.was_full(None, moment(150)));
    record(&mut history, 600, &[6], &[]);
    record(&mut history, 900, &[], &[]);
    record(&mut history, 1_200, &[5, 6], &[]);
    assert!(!history.has_moved(&[]));
}
