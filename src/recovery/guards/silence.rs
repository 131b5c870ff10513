//! The first proof: the backend itself is silent. No byte arrived, although requests reached the backend both
//! during the sweep and after it, and this program was running to receive an answer.

use super::super::observation::{ProbeFacts, Sockets, TcpFacts};
use super::super::tcp_table::{listeners, server_side};
use super::{Guard, Passed, refuse};
use crate::cause::TransportError;
use crate::escape::escape;
use crate::sweep::{ProbeConnection, ProbeStatus};

/// `answered`
pub(in super::super) fn unanswered(
    probe: Option<&ProbeFacts>,
    sockets: Option<&Sockets>,
) -> Passed {
    let Some(probe) = probe else { return Ok(()) };
    match &probe.status {
        ProbeStatus::Answered => {
            return refuse(
                Guard::Answered,
                "the backend woke up: it answered one more request just before the signal"
                    .to_owned(),
            );
        }
        // Refused, or a failure of the network: not an answer. Other guards judge these.
        ProbeStatus::Silent
        | ProbeStatus::Ended {
            error: TransportError::Refused | TransportError::Network,
            ..
        } => {}
        ProbeStatus::Ended { detail, .. } => {
            return refuse(
                Guard::Answered,
                format!(
                    "the backend is no longer silent: it ended one more connection just before the signal ({})",
                    escape(detail)
                ),
            );
        }
    }
    let Some(Sockets::Tcp(facts)) = sockets else {
        return Ok(());
    };
    if let Some(client) = facts.accepted {
        return refuse(
            Guard::Answered,
            format!(
                "the backend woke up: it has accepted the connection from {client}, which had waited since before the end of the sweep"
            ),
        );
    }
    let written = probe
        .connections
        .iter()
        .filter_map(|connection| server_side(&facts.table, &connection.connection)?.written())
        .max();
    match written {
        None | Some(0) => Ok(()),
        Some(bytes) => refuse(
            Guard::Answered,
            format!(
                "the backend has written an answer to one more request ({bytes} bytes), but it has not arrived: look for a packet filter"
            ),
        ),
    }
}

/// `not_reached`: `first` are the facts from before the final probe.
pub(super) fn reached(probe: Option<&ProbeFacts>, first: &TcpFacts, now: &TcpFacts) -> Passed {
    let Some(probe) = probe else { return Ok(()) };
    if let ProbeStatus::Ended {
        error: TransportError::Network,
        detail,
    } = &probe.status
    {
        return not_reached(&format!(
            "the network failed during the final probe ({})",
            escape(detail)
        ));
    }
    if !now.sweep_reached {
        return not_reached(
            "the requests of the sweep were not seen to arrive, although the accept queue was not full",
        );
    }
    let established: Vec<_> = (probe.connections.iter())
        .filter(|connection| connection.established)
        .collect();
    if established.is_empty() {
        return match (probe.connections.iter())
            .any(|pending| is_full(first, pending) && is_full(now, pending))
        {
            true => Ok(()),
            false => not_reached(
                "the final probe could not connect, although the accept queue is not full",
            ),
        };
    }
    for connection in established {
        let received = server_side(&now.table, &connection.connection)
            .and_then(|socket| socket.traffic)
            .map(|traffic| traffic.received);
        match received {
            Some(1..) => {}
            Some(0) => {
                return not_reached(
                    "the final probe connected, but the backend's end has not received the request",
                );
            }
            None => {
                return not_reached(
                    "the final probe connected, but the backend's end of that connection is not on this machine",
                );
            }
        }
    }
    Ok(())
}

fn is_full(facts: &TcpFacts, pending: &ProbeConnection) -> bool {
    let listeners = listeners(&facts.table, pending.connection.remote);
    // With SO_REUSEPORT the kernel may have chosen any of them.
    listeners.iter().any(|listener| listener.is_full())
}

fn not_reached(what: &str) -> Passed {
    refuse(
        Guard::NotReached,
        format!(
            "{what}: a packet filter may have caused the silence (check \"nft list ruleset\", and IPAddressDeny= and IPAddressAllow= of the units)"
        ),
    )
}

/// `starved`
pub(super) fn not_starved(how: Option<&str>) -> Passed {
    match how {
        None => Ok(()),
        Some(how) => refuse(
            Guard::Starved,
            format!("this program itself was starved: {how}, so its timeouts prove nothing"),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::samples::{
        connection, established, listener, probe, received, written,
    };
    use super::*;

    fn guard(passed: Passed) -> Option<Guard> {
        passed.err().map(|(guard, _)| guard)
    }

    fn facts(table: Vec<super::super::super::tcp_table::TcpSocket>) -> TcpFacts {
        TcpFacts {
            table,
            sweep_reached: true,
            ..TcpFacts::default()
        }
    }

    #[test]
    fn unanswered_sees_bytes_ends_and_answers_that_did_not_arrive() {
        let ended = |error| ProbeStatus::Ended {
            error,
            detail: "why".to_owned(),
        };
        for (status, expected) in [
            (ProbeStatus::Silent, None),
            (ProbeStatus::Answered, Some(Guard::Answered)),
            (ended(TransportError::Reset), Some(Guard::Answered)),
            (ended(TransportError::Tls), Some(Guard::Answered)),
            (ended(TransportError::Refused), None),
            (ended(TransportError::Network), None),
        ] {
            let probe = ProbeFacts {
                status: status.clone(),
                connections: Vec::new(),
            };
            assert_eq!(
                guard(unanswered(Some(&probe), None)),
                expected,
                "{status:?}"
            );
        }
        let wrote = Sockets::Tcp(facts(vec![written(connection(1, 50_000), 12)]));
        let silent = Sockets::Tcp(facts(vec![connection(1, 50_000)]));
        assert_eq!(guard(unanswered(Some(&probe(true)), Some(&silent))), None);
        assert_eq!(
            guard(unanswered(Some(&probe(true)), Some(&wrote))),
            Some(Guard::Answered)
        );
        assert_eq!(guard(unanswered(None, Some(&wrote))), None);
        // It handles the waiting requests before the final probe.
        let woke_up = Sockets::Tcp(TcpFacts {
            accepted: Some("127.0.0.1:50002".parse().unwrap()),
            ..facts(vec![connection(1, 50_000)])
        });
        assert_eq!(
            guard(unanswered(Some(&probe(true)), Some(&woke_up))),
            Some(Guard::Answered)
        );
        // One of several connections is enough.
        let one = Sockets::Tcp(facts(vec![
            connection(1, 50_000),
            written(connection(2, 50_001), 12),
        ]));
        assert_eq!(
            guard(unanswered(Some(&two(true)), Some(&one))),
            Some(Guard::Answered)
        );
    }

    /// A silent final probe with two connections.
    fn two(established: bool) -> ProbeFacts {
        let mut both = probe(established);
        let mut second = both.connections[0];
        second.connection.local.set_port(50_001);
        both.connections.push(second);
        both
    }

    #[test]
    fn reached_judges_every_connection() {
        let arrived = |cookie, client| received(established(connection(cookie, client)), 100);
        let both = facts(vec![arrived(1, 50_000), arrived(2, 50_001)]);
        let one = facts(vec![arrived(1, 50_000)]);
        assert_eq!(guard(reached(Some(&two(true)), &both, &both)), None);
        assert_eq!(
            guard(reached(Some(&two(true)), &one, &one)),
            Some(Guard::NotReached)
        );
        // If all are pending, one at a full queue is enough.
        let mut full = listener("127.0.0.2:80", 3);
        full.receive_queue = full.send_queue + 1;
        let mut pending = two(false);
        pending.connections[1].connection.remote = full.local;
        let queues = facts(vec![listener("127.0.0.1:80", 1), full]);
        assert_eq!(guard(reached(Some(&pending), &queues, &queues)), None);
        // An established one decides, whatever the pending ones wait for.
        pending.connections[0].established = true;
        assert_eq!(
            guard(reached(Some(&pending), &queues, &queues)),
            Some(Guard::NotReached)
        );
    }

    #[test]
    fn reached_requires_the_request_on_the_other_side_or_a_full_queue() {
        let idle = || listener("127.0.0.1:80", 1);
        let full = || {
            let mut full = idle();
            full.receive_queue = full.send_queue + 1;
            full
        };
        let arrived = || received(established(connection(2, 50_000)), 100);
        let half = || received(established(connection(2, 50_000)), 0);
        for (is_established, first, now, expected) in [
            (true, vec![idle()], vec![idle(), arrived()], None),
            (true, vec![full()], vec![full(), arrived()], None),
            (
                true,
                vec![idle()],
                vec![idle(), half()],
                Some(Guard::NotReached),
            ),
            (true, vec![full()], vec![full()], Some(Guard::NotReached)),
            (false, vec![full()], vec![full()], None),
            (false, vec![idle(), full()], vec![full(), idle()], None),
            (false, vec![idle()], vec![full()], Some(Guard::NotReached)),
            (false, vec![full()], vec![idle()], Some(Guard::NotReached)),
            (false, vec![], vec![], Some(Guard::NotReached)),
        ] {
            let case = format!("{is_established} {first:?} {now:?}");
            let result = reached(Some(&probe(is_established)), &facts(first), &facts(now));
            assert_eq!(guard(result), expected, "{case}");
        }
        assert_eq!(guard(reached(None, &facts(vec![]), &facts(vec![]))), None);
    }
}
