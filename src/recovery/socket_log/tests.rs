use std::time::Duration;

use super::super::samples::{
    accepted, connection, established, in_state, listener, received, wildcard, written,
};
use super::*;
use crate::clock::Monotonic;

const CLIENT: u16 = 50_000;

fn waiting() -> TcpSocket {
    connection(1, CLIENT)
}

fn served(socket: TcpSocket, bytes: u64) -> TcpSocket {
    written(accepted(socket), bytes)
}

/// The sign of progress after these reads of the listener's connections.
fn sign(reads: &[Vec<TcpSocket>]) -> Option<Served> {
    let mut log = SocketLog::default();
    for table in reads {
        log.record(table);
    }
    let table = [listener("127.0.0.1:80", 9)];
    let sign = log.sign(&table, &["127.0.0.1:80".parse().unwrap()], &HashSet::new());
    sign.map(|sign| sign.what)
}

#[test]
fn an_application_that_writes_makes_progress() {
    for (before, after, expected) in [
        (
            vec![waiting()],
            vec![served(waiting(), 5)],
            Some(Served::Wrote(5)),
        ),
        (
            vec![served(waiting(), 5)],
            vec![served(waiting(), 6)],
            Some(Served::Wrote(1)),
        ),
        (vec![served(waiting(), 5)], vec![served(waiting(), 5)], None),
        (vec![], vec![served(waiting(), 5)], Some(Served::Wrote(5))),
        (vec![], vec![accepted(waiting())], None),
        (vec![], vec![waiting()], None),
        (vec![waiting()], vec![accepted(waiting())], None),
    ] {
        let case = format!("{before:?} {after:?}");
        // The last reads of a connection must agree.
        let reads = [before, after.clone(), after.clone(), after];
        assert_eq!(sign(&reads), expected, "{case}");
    }
}

#[test]
fn a_read_that_is_too_high_is_not_progress() {
    let at = |bytes| vec![served(waiting(), bytes)];
    assert_eq!(sign(&[at(100), at(124), at(100), at(100)]), None);
    assert_eq!(sign(&[at(124), at(100), at(100), at(100)]), None);
    assert_eq!(sign(&[at(100), at(100), at(124), at(100)]), None);
    assert_eq!(sign(&[at(100), at(100), at(100), at(124)]), None);
    // A first read that is too high does not hide what later reads show.
    assert_eq!(
        sign(&[at(124), at(100), at(130), at(130), at(130)]),
        Some(Served::Wrote(30))
    );
}

#[test]
fn bytes_written_before_a_connection_vanished_count() {
    let reads = [vec![waiting()], vec![served(waiting(), 5)], vec![], vec![]];
    assert_eq!(sign(&reads), Some(Served::Wrote(5)));
}

#[test]
fn a_backend_that_closes_a_waiting_or_new_connection_makes_progress() {
    for state in [
        TcpState::FinWait1,
        TcpState::FinWait2,
        TcpState::Closing,
        TcpState::LastAck,
        TcpState::TimeWait,
    ] {
        let closed = in_state(waiting(), state);
        assert_eq!(
            sign(&[vec![waiting()], vec![closed]]),
            Some(Served::Closed),
            "{state:?}"
        );
        assert_eq!(
            sign(&[vec![], vec![closed]]),
            Some(Served::Closed),
            "{state:?}"
        );
        // It was accepted before the sweep, and ends without a byte.
        assert_eq!(
            sign(&[vec![accepted(waiting())], vec![closed]]),
            None,
            "{state:?}"
        );
        // It had ended before the sweep began.
        assert_eq!(sign(&[vec![closed], vec![closed]]), None, "{state:?}");
    }
}

#[test]
fn a_backend_that_ends_one_request_and_accepts_the_next_makes_progress() {
    let next = || connection(2, CLIENT + 1);
    let before = vec![accepted(waiting()), next()];
    for state in [TcpState::FinWait2, TcpState::TimeWait] {
        let ended = in_state(waiting(), state);
        let went_on = vec![ended, accepted(next())];
        assert_eq!(
            sign(&[before.clone(), went_on]),
            Some(Served::WentOn),
            "{state:?}"
        );
        // A worker that died.
        assert_eq!(
            sign(&[before.clone(), vec![ended, next()]]),
            None,
            "{state:?}"
        );
    }
    // It ended without a byte.
    let ended = vec![in_state(waiting(), TcpState::FinWait1), accepted(next())];
    assert_eq!(sign(&[before.clone(), ended]), None);
    assert_eq!(
        sign(&[before, vec![accepted(waiting()), accepted(next())]]),
        None
    );
}

#[test]
fn an_exchange_that_was_over_before_the_sweep_is_not_progress() {
    for state in [TcpState::FinWait2, TcpState::TimeWait] {
        let ended = in_state(waiting(), state);
        let next = connection(2, CLIENT + 1);
        let reads = [vec![ended, next], vec![ended, accepted(next)]];
        assert_eq!(sign(&reads), None, "{state:?}");
    }
}

#[test]
fn a_client_that_closed_its_end_may_still_be_served() {
    let half_closed = in_state(served(waiting(), 5), TcpState::CloseWait);
    assert_eq!(sign(&[vec![], vec![half_closed]]), Some(Served::Wrote(5)));
}

#[test]
fn sign_names_what_was_written_rather_than_the_end() {
    let open = |bytes| vec![served(waiting(), bytes)];
    let closed = |bytes| vec![in_state(served(waiting(), bytes), TcpState::FinWait1)];
    let known = [vec![waiting()], closed(5), closed(5), closed(5)];
    assert_eq!(sign(&known), Some(Served::Wrote(5)));
    // For a connection that began after the first read, the close is the sign.
    let new = [vec![], open(5), closed(9), closed(9), closed(9)];
    assert_eq!(sign(&new), Some(Served::Closed));
    let all = [vec![], open(5), open(9), open(9), open(9)];
    assert_eq!(sign(&all), Some(Served::Wrote(9)));
}

#[test]
fn a_connection_that_waited_and_was_accepted_and_has_gone_is_progress() {
    let waits = || vec![waiting()];
    let open = || vec![accepted(waiting())];
    assert_eq!(
        sign(&[waits(), waits(), open(), vec![]]),
        Some(Served::Closed)
    );
    assert_eq!(sign(&[waits(), waits(), open(), open()]), None);
    assert_eq!(sign(&[waits(), waits(), vec![]]), None);
    // It may have been accepted at once.
    assert_eq!(sign(&[waits(), open(), vec![]]), None);
}

#[test]
fn clients_that_give_up_are_not_progress() {
    let gave_up = in_state(waiting(), TcpState::CloseWait);
    assert_eq!(sign(&[vec![waiting()], vec![gave_up]]), None);
    assert_eq!(sign(&[vec![], vec![gave_up]]), None);
    // Reset by the client.
    assert_eq!(sign(&[vec![waiting()], vec![]]), None);
    assert_eq!(
        sign(&[vec![waiting(), established(waiting())], vec![]]),
        None
    );
}

#[test]
fn a_client_that_gives_up_and_is_closed_is_not_progress_unless_it_was_served() {
    // A different socket: the client's end.
    let ended = in_state(connection(2, CLIENT), TcpState::TimeWait);
    let open = accepted(waiting());
    assert_eq!(sign(&[vec![], vec![open], vec![ended]]), None);
    assert_eq!(sign(&[vec![open], vec![], vec![ended]]), None);
    // The client's machine has not acknowledged the backend's FIN yet.
    let late = in_state(open, TcpState::LastAck);
    assert_eq!(sign(&[vec![], vec![open], vec![late]]), None);
    assert_eq!(
        sign(&[
            vec![],
            vec![open],
            vec![in_state(served(open, 5), TcpState::LastAck)]
        ]),
        Some(Served::Closed)
    );
    assert_eq!(
        sign(&[vec![], vec![served(open, 5)], vec![ended]]),
        Some(Served::Wrote(5))
    );
    // It began and ended between two dumps.
    assert_eq!(sign(&[vec![], vec![ended]]), Some(Served::Closed));
    // It waited until the backend accepted and closed it.
    let waits = || vec![waiting()];
    assert_eq!(
        sign(&[vec![], waits(), waits(), vec![open], vec![ended]]),
        Some(Served::Closed)
    );
    assert_eq!(sign(&[vec![], waits(), vec![open], vec![ended]]), None);
}

#[test]
fn was_reached_requires_an_own_request_without_an_answer_or_a_full_queue() {
    let idle = listener("127.0.0.1:80", 9);
    let apart = listener("127.0.0.2:80", 8);
    let mut full = idle;
    full.receive_queue = full.send_queue + 1;
    let request = received(waiting(), 100);
    let answered = written(request, 5);
    let mut elsewhere = request;
    elsewhere.local = apart.local;
    let other = received(connection(2, CLIENT + 1), 100);
    let (none, idle) = (vec![], vec![idle]);
    for (sweep, later, expected) in [
        (vec![], &idle, false),
        (vec![waiting()], &idle, false),
        (vec![request], &idle, true),
        (vec![request], &none, true),
        (vec![waiting()], &vec![request], false),
        (vec![request], &vec![answered], false),
        (vec![answered], &idle, false),
        (vec![elsewhere], &idle, false),
        (vec![other], &idle, false),
        (vec![full], &idle, true),
        (vec![], &vec![full], false),
    ] {
        let mut log = SocketLog::default();
        log.record(&sweep);
        log.end_sweep();
        log.record(later);
        let table = [idle[0], apart];
        let own = HashSet::from([request.remote]);
        let found = log.was_reached(&table, &["127.0.0.1:80".parse().unwrap()], &own);
        assert_eq!(found, expected, "{sweep:?} {later:?}");
    }
}

#[test]
fn accepted_after_sweep_requires_a_connection_that_waited_at_its_end() {
    let waits = || vec![waiting()];
    let open = || vec![accepted(waiting())];
    for (sweep, later, expected) in [
        (vec![waits(), waits()], open(), true),
        (vec![waits(), waits()], waits(), false),
        (vec![waits(), waits()], vec![], false),
        (vec![waits(), waits(), open()], open(), false),
        (vec![waits(), waits(), vec![]], open(), false),
        // It may have been accepted at once.
        (vec![waits()], open(), false),
        (vec![vec![]], open(), false),
    ] {
        let mut log = SocketLog::default();
        for table in &sweep {
            log.record(table);
        }
        log.end_sweep();
        log.record(&later);
        for (address, at_it) in [("127.0.0.1:80", true), ("127.0.0.2:80", false)] {
            let table = [listener("127.0.0.1:80", 9), listener("127.0.0.2:80", 8)];
            let found = log.accepted_after_sweep(&table, &[address.parse().unwrap()]);
            assert_eq!(found.is_some(), expected && at_it, "{sweep:?} {later:?}");
        }
    }
}

#[test]
fn a_log_of_many_connections_is_judged_quickly() {
    let connections = (0..30_000).map(|client| accepted(connection(client, CLIENT)));
    let table: Vec<_> = connections
        .chain([listener("127.0.0.1:80", 90_000)])
        .collect();
    let mut log = SocketLog::default();
    log.record(&table);
    let began = Monotonic::now();
    let at = ["127.0.0.1:80".parse().unwrap()];
    assert_eq!(log.sign(&table, &at, &HashSet::new()), None);
    assert!(!log.was_reached(&table, &at, &HashSet::new()));
    let took = Monotonic::now().since(began);
    assert!(took < Duration::from_secs(2), "{took:?}");
}

#[test]
fn own_connections_and_other_listeners_do_not_count() {
    let mut log = SocketLog::default();
    log.record(&[]);
    log.record(&[served(waiting(), 5)]);
    let at = |address: &str| [address.parse().unwrap()];
    let own = HashSet::from([waiting().remote]);
    let own_listener = [listener("127.0.0.1:80", 9)];
    assert_eq!(log.sign(&own_listener, &at("127.0.0.1:80"), &own), None);
    let no_client = HashSet::new();
    let apart = [listener("127.0.0.1:80", 9), listener("127.0.0.2:80", 8)];
    assert!(log.sign(&apart, &at("127.0.0.1:80"), &no_client).is_some());
    assert_eq!(log.sign(&apart, &at("127.0.0.2:80"), &no_client), None);
    let all = [wildcard("[::]:80", 9)];
    assert!(log.sign(&all, &at("127.0.0.2:80"), &no_client).is_some());
}
