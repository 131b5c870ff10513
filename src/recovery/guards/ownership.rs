//! The second proof: the socket at which the probes waited is the unit's own.

use std::fmt::Display;
use std::net::SocketAddr;

use super::super::observation::{GuardContext, Owner, ProbeFacts, Sockets, TcpFacts};
use super::super::tcp_table::{TcpSocket, canonical, listeners, server_side};
use super::{Guard, Passed, refuse, unreadable};
use crate::cause::TransportError;
use crate::escape::escape;
use crate::sweep::ProbeStatus;

/// `foreign_listener`
pub(super) fn own_listener(
    context: &GuardContext<'_>,
    sockets: &Sockets,
    probe: Option<&ProbeFacts>,
) -> Passed {
    if let Some(ProbeFacts {
        status:
            ProbeStatus::Ended {
                error: TransportError::Refused,
                ..
            },
        ..
    }) = probe
    {
        return refuse(
            Guard::ForeignListener,
            "no process listens at base_url any more: the final probe was refused".to_owned(),
        );
    }
    match sockets {
        Sockets::Tcp(facts) => (context.silent_at.iter())
            .try_for_each(|address| own_address(context.unit, facts, *address, probe)),
        Sockets::Unix(facts) => own(context.unit, &facts.owner, &escape(&facts.path), |listen| {
            *listen == facts.path
        }),
    }
}

/// Whether `unit` itself serves `address`.
pub(super) fn own_address(
    unit: &str,
    facts: &TcpFacts,
    address: SocketAddr,
    probe: Option<&ProbeFacts>,
) -> Passed {
    let connections = probe.into_iter().flat_map(|probe| &probe.connections);
    let accepted = connections
        .filter(|connection| canonical(connection.connection.remote) == canonical(address))
        .find_map(|connection| server_side(&facts.table, &connection.connection))
        // A connection without a group id does not show the owner; its listener does.
        .filter(|socket| socket.group.is_some());
    let listeners = match accepted {
        Some(socket) => vec![socket],
        None => listeners(&facts.table, address),
    };
    if listeners.is_empty() {
        return refuse(
            Guard::ForeignListener,
            format!(
                "no socket on this machine listens at {address}, so the silence there does not come from {unit}: the port is forwarded elsewhere (a container, a port redirect), or its listener has just been closed"
            ),
        );
    }
    listeners
        .into_iter()
        .try_for_each(|socket| own_socket(unit, facts, socket, address))
}

fn own_socket(unit: &str, facts: &TcpFacts, socket: &TcpSocket, address: SocketAddr) -> Passed {
    let Some(id) = socket.group else {
        return Err(unreadable(&format!(
            "the kernel does not show the control group of the listener at {address} (it needs Linux 5.10 with CONFIG_SOCK_CGROUP_DATA)"
        )));
    };
    let Some(owner) = facts.owners.get(&id) else {
        return Err(unreadable(&format!(
            "the owner of the listener at {address} is unknown"
        )));
    };
    own(unit, owner, &address, |listen| {
        names_address(listen, facts, socket)
    })
}

/// Whether the socket at `place` with this `owner` is `unit`'s own. `names` decides whether an entry of
/// `Listen=` means that socket.
fn own(unit: &str, owner: &Owner, place: &dyn Display, names: impl Fn(&String) -> bool) -> Passed {
    let who = match owner {
        Owner::Unit | Owner::SocketUnit(_) => return Ok(()),
        Owner::Manager(listed) if listed.iter().any(names) => return Ok(()),
        Owner::Manager(_) => "the service manager itself".to_owned(),
        Owner::Foreign(path) => unit_of(path),
        Owner::Removed => {
            return Err(unreadable(&format!(
                "the listener at {place} was created by a control group that no longer exists (inherited, or kept in a file descriptor store), so its owner is unknown"
            )));
        }
        Owner::Unknown(why) => {
            return Err(unreadable(&format!(
                "the owner of the listener at {place} is unknown: {}",
                escape(why)
            )));
        }
    };
    refuse(
        Guard::ForeignListener,
        format!(
            "the listener at {place} belongs to {who}, not to {unit}: base_url must point to {unit} itself, not to a proxy"
        ),
    )
}

/// Whether `listen`, an entry of `Listen=`, is the address that the listener behind `socket` is bound
/// to.
fn names_address(listen: &str, facts: &TcpFacts, socket: &TcpSocket) -> bool {
    let Ok(listen) = listen.parse::<SocketAddr>() else {
        return false;
    };
    listeners(&facts.table, socket.local)
        .iter()
        .any(|listener| listener.group == socket.group && listener.local == canonical(listen))
}

/// The unit in the path of a control group, or the path.
fn unit_of(path: &str) -> String {
    const KINDS: [&str; 3] = [".service", ".socket", ".scope"];
    let named = path
        .rsplit('/')
        .find(|part| KINDS.iter().any(|kind| part.ends_with(kind)));
    match named {
        Some(unit) => escape(unit).into_owned(),
        None => format!("control group {}", escape(path)),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::super::super::samples::{connection, in_group, listener, probe, wildcard};
    use super::*;

    const UNIT: u64 = 7;
    const OTHER: u64 = 8;

    fn facts(table: Vec<TcpSocket>) -> TcpFacts {
        let owners = HashMap::from([
            (UNIT, Owner::Unit),
            (
                OTHER,
                Owner::Foreign("/system.slice/other.service/a".to_owned()),
            ),
            (9, Owner::SocketUnit("demo.socket".to_owned())),
            (
                10,
                Owner::Manager(
                    ["127.0.0.1:80", "[::]:81", "[::ffff:127.0.0.1]:82"]
                        .map(str::to_owned)
                        .to_vec(),
                ),
            ),
            (11, Owner::Removed),
            (12, Owner::Unknown("no time".to_owned())),
        ]);
        TcpFacts {
            table,
            owners,
            ..TcpFacts::default()
        }
    }

    fn judge(facts: &TcpFacts, address: &str, probe: Option<&ProbeFacts>) -> Option<Guard> {
        let passed = own_address("demo.service", facts, address.parse().unwrap(), probe);
        passed.err().map(|(guard, why)| {
            assert!(!why.is_empty());
            guard
        })
    }

    #[test]
    fn own_address_judges_the_listener_by_its_group() {
        for (group, expected) in [
            (UNIT, None),
            (OTHER, Some(Guard::ForeignListener)),
            (9, None),
            (10, None),
            (11, Some(Guard::Unreadable)),
            (12, Some(Guard::Unreadable)),
            (13, Some(Guard::Unreadable)),
        ] {
            let facts = facts(vec![in_group(listener("127.0.0.1:80", 1), group)]);
            assert_eq!(judge(&facts, "127.0.0.1:80", None), expected, "{group}");
        }
        let other = facts(vec![in_group(listener("127.0.0.1:81", 1), 10)]);
        assert_eq!(
            judge(&other, "127.0.0.1:81", None),
            Some(Guard::ForeignListener)
        );
        let dual = facts(vec![in_group(wildcard("[::]:81", 1), 10)]);
        assert_eq!(judge(&dual, "127.0.0.1:81", None), None);
        let mapped = facts(vec![in_group(listener("127.0.0.1:82", 1), 10)]);
        assert_eq!(judge(&mapped, "127.0.0.1:82", None), None);
        assert_eq!(
            judge(&facts(vec![]), "127.0.0.1:80", None),
            Some(Guard::ForeignListener)
        );
        let unnamed = facts(vec![listener("127.0.0.1:80", 1)]);
        assert_eq!(
            judge(&unnamed, "127.0.0.1:80", None),
            Some(Guard::Unreadable)
        );
    }

    #[test]
    fn own_address_requires_every_listener_that_the_kernel_could_have_chosen() {
        let both = |first, second| {
            facts(vec![
                in_group(listener("127.0.0.1:80", 1), first),
                in_group(listener("127.0.0.1:80", 2), second),
            ])
        };
        assert_eq!(judge(&both(UNIT, UNIT), "127.0.0.1:80", None), None);
        assert_eq!(
            judge(&both(UNIT, OTHER), "127.0.0.1:80", None),
            Some(Guard::ForeignListener)
        );
        // The final probe's own connection shows which one the kernel chose.
        let mut chosen = both(UNIT, OTHER);
        chosen.table.push(in_group(connection(3, 50_000), UNIT));
        assert_eq!(judge(&chosen, "127.0.0.1:80", Some(&probe(true))), None);
        let mut chosen = both(UNIT, UNIT);
        chosen.table.push(in_group(connection(3, 50_000), OTHER));
        assert_eq!(
            judge(&chosen, "127.0.0.1:80", Some(&probe(true))),
            Some(Guard::ForeignListener)
        );
    }

    #[test]
    fn own_address_follows_the_connection_to_that_very_address() {
        let with_row = |row, listeners: &[(&str, u64)]| {
            let listeners = listeners.iter().zip(1..);
            let listeners = listeners
                .map(|((address, group), cookie)| in_group(listener(address, cookie), *group));
            facts(listeners.chain([row]).collect())
        };
        let own_row = in_group(connection(9, 50_000), UNIT);
        let shared = [("127.0.0.1:80", UNIT), ("127.0.0.1:80", OTHER)];
        let chosen = with_row(own_row, &shared);
        let mapped = judge(&chosen, "[::ffff:127.0.0.1]:80", Some(&probe(true)));
        assert_eq!(mapped, None);
        // A connection to another address proves nothing about this one.
        let apart = with_row(own_row, &[("127.0.0.1:80", UNIT), ("127.0.0.2:80", OTHER)]);
        assert_eq!(
            judge(&apart, "127.0.0.2:80", Some(&probe(true))),
            Some(Guard::ForeignListener)
        );
        // FIN_WAIT2 and TIME_WAIT show no group.
        let bare = with_row(connection(9, 50_000), &[("127.0.0.1:80", UNIT)]);
        assert_eq!(judge(&bare, "127.0.0.1:80", Some(&probe(true))), None);
        // Its listener is gone; the listed one is a new one.
        let managers = with_row(
            in_group(connection(9, 50_000), 10),
            &[("127.0.0.1:80", UNIT)],
        );
        assert_eq!(
            judge(&managers, "127.0.0.1:80", Some(&probe(true))),
            Some(Guard::ForeignListener)
        );
    }

    #[test]
    fn unit_of_names_the_innermost_unit() {
        for (path, name) in [
            ("/system.slice/a.service", "a.service"),
            ("/system.slice/a.service/worker", "a.service"),
            (
                "/user.slice/user@0.service/app.slice/b.service",
                "b.service",
            ),
            ("/docker/4711", "control group /docker/4711"),
        ] {
            assert_eq!(unit_of(path), name);
        }
    }
}
