//! Properties of the parsers of sock_diag(7) answers: TCP and UNIX sockets.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::Choices;
use crate::recovery::sockets::netlink::{attributes, parse};
use crate::recovery::sockets::tcp::socket_of;
use crate::recovery::sockets::tcp::{TcpSocket, TcpState};
use crate::recovery::sockets::unix::{UnixListener, listener_of};

// include/uapi/linux/netlink.h, sock_diag.h, unix_diag.h and inet_diag.h.
const HEADER: usize = 16;
const NLMSG_DONE: u16 = 3;
const SOCK_DIAG_BY_FAMILY: u16 = 20;
const UNIX_DIAG_NAME: u16 = 0;
const UNIX_DIAG_VFS: u16 = 1;
const UNIX_DIAG_ICONS: u16 = 3;
const UNIX_DIAG_RQLEN: u16 = 4;
const INET_DIAG_TOS: u16 = 5;
const INET_DIAG_SKV6ONLY: u16 = 11;
const INET_DIAG_CGROUP_ID: u16 = 21;

/// Checks every property of these parsers.
///
/// # Panics
///
/// A property does not hold.
pub fn netlink_property(data: &[u8]) {
    answer_is_read_within_its_bounds(data);
    attributes_survive_a_round_trip(data);
    if let Some(socket) = socket_of(data) {
        row_survives_a_round_trip(&socket, &mut Choices(data.iter()));
    }
    answer_survives_a_round_trip(&mut Choices(data.iter()));
    unix_row_survives_a_round_trip(data, &mut Choices(data.iter()));
}

/// For any bytes, each message is parsed once, and each row that is read survives a round trip.
fn answer_is_read_within_its_bounds(data: &[u8]) {
    let (mut messages, mut bytes) = (0, 0);
    let read = parse(data, &mut |payload| {
        messages += 1;
        bytes += HEADER + payload.len();
        if let Some(socket) = socket_of(payload) {
            row_survives_a_round_trip(&socket, &mut Choices(payload.iter()));
        }
        Some(())
    });
    assert!(bytes <= data.len(), "{messages} messages of {bytes} bytes");
    // A reader that rejects a message ends the parsing.
    let mut tried = 0;
    let refused = parse(data, &mut |_| {
        tried += 1;
        None
    });
    assert_eq!(tried, messages.min(1));
    assert!(messages == 0 || refused.is_err());
    assert!(messages > 0 || refused == read);
}

/// Attributes follow one another, and are the same when written again.
fn attributes_survive_a_round_trip(data: &[u8]) {
    let found: Vec<_> = attributes(data).collect();
    let written: Vec<u8> = (found.iter())
        .flat_map(|(kind, value)| attribute(*kind, value))
        .collect();
    // The last one may lack its padding.
    assert!(written.len() <= data.len() + 3);
    assert_eq!(attributes(&written).collect::<Vec<_>>(), found);
}

fn row_survives_a_round_trip(socket: &TcpSocket, choices: &mut Choices<'_>) {
    let row = row_as_linux(socket, choices);
    assert_eq!(socket_of(&row), Some(*socket), "{row:?}");
}

/// An answer of several rows survives a round trip; truncated, it has fewer rows, never different ones.
fn answer_survives_a_round_trip(choices: &mut Choices<'_>) {
    let sockets: Vec<_> = (0..choices.below(4)).map(|_| socket(choices)).collect();
    let rows = sockets.iter().map(|socket| row_as_linux(socket, choices));
    let rows: Vec<Vec<u8>> = rows.collect();
    let mut answer: Vec<u8> = (rows.iter())
        .flat_map(|row| message(SOCK_DIAG_BY_FAMILY, choices.number() as u32, row))
        .collect();
    let read = |answer: &[u8]| {
        let mut found = Vec::new();
        let last = parse(answer, &mut |payload| {
            found.push(socket_of(payload)?);
            Some(())
        });
        (last, found)
    };
    assert_eq!(read(&answer), (Ok(false), sockets.clone()));
    let cut = choices.number() as usize % (answer.len() + 1);
    let (_, found) = read(&answer[..cut]);
    assert!(sockets.starts_with(&found), "{cut} of {sockets:?}");
    answer.extend(message(NLMSG_DONE, choices.number() as u32, &[0; 4]));
    // Nothing after the end is read.
    answer.extend(rows.iter().flatten());
    assert_eq!(read(&answer), (Ok(true), sockets));
}

fn socket(choices: &mut Choices<'_>) -> TcpSocket {
    let mut address = |v6: bool| {
        let ip = if v6 {
            let (high, low) = (choices.number(), choices.number());
            let ip = Ipv6Addr::from(u128::from(high) << 64 | u128::from(low));
            IpAddr::V6(ip).to_canonical()
        } else {
            Ipv4Addr::from(choices.number() as u32).into()
        };
        SocketAddr::new(ip, choices.number() as u16)
    };
    let (local, remote) = (address(false), address(false));
    let (local, remote) = match local.port() % 3 {
        0 => (address(true), address(true)),
        _ => (local, remote),
    };
    TcpSocket {
        state: choices.of(&[
            TcpState::Listen,
            TcpState::Open,
            TcpState::Closed,
            TcpState::Other,
        ]),
        local,
        remote,
        cookie: choices.number(),
        inode: choices.number() as u32,
        receive_queue: choices.number() as u32,
        send_queue: choices.number() as u32,
        group: (choices.byte() % 4 != 3).then(|| choices.number()),
        ipv6_only: choices.byte() % 2 == 1,
    }
}

/// A `struct inet_diag_msg` and its attributes, as inet_sk_diag_fill() of net/ipv4/inet_diag.c writes
/// them, including some that are not read.
fn row_as_linux(socket: &TcpSocket, choices: &mut Choices<'_>) -> Vec<u8> {
    let v4 = |ip: IpAddr| match ip {
        IpAddr::V4(ip) => Some(ip),
        IpAddr::V6(_) => None,
    };
    // A dual-stack socket has IPv4 addresses mapped to IPv6 ones.
    let both = v4(socket.local.ip()).zip(v4(socket.remote.ip()));
    let (family, local, remote) = match both.filter(|_| choices.byte().is_multiple_of(2)) {
        Some((local, remote)) => {
            let padded = |ip: Ipv4Addr| [&ip.octets()[..], &[0; 12]].concat();
            (libc::AF_INET, padded(local), padded(remote))
        }
        None => {
            let octets = |ip: IpAddr| match ip {
                IpAddr::V4(ip) => ip.to_ipv6_mapped().octets().to_vec(),
                IpAddr::V6(ip) => ip.octets().to_vec(),
            };
            let ends = (octets(socket.local.ip()), octets(socket.remote.ip()));
            (libc::AF_INET6, ends.0, ends.1)
        }
    };
    let state = match socket.state {
        TcpState::Listen => 10,
        TcpState::Open => choices.of(&[1, 8]),
        TcpState::Closed => choices.of(&[4, 5, 6, 9, 11]),
        TcpState::Other => choices.of(&[2_u8, 3, 7, 12]),
    };
    let mut row = [
        &[family as u8, state, choices.byte(), choices.byte()][..],
        &socket.local.port().to_be_bytes(),
        &socket.remote.port().to_be_bytes(),
        &local,
        &remote,
        // The interface.
        &(choices.number() as u32).to_ne_bytes(),
        &socket.cookie.to_ne_bytes(),
        // The timer's end.
        &(choices.number() as u32).to_ne_bytes(),
        &socket.receive_queue.to_ne_bytes(),
        &socket.send_queue.to_ne_bytes(),
        // The user.
        &(choices.number() as u32).to_ne_bytes(),
        &socket.inode.to_ne_bytes(),
    ]
    .concat();
    row.extend(attribute(INET_DIAG_TOS, &[choices.byte()]));
    if socket.ipv6_only || choices.byte().is_multiple_of(2) {
        row.extend(attribute(INET_DIAG_SKV6ONLY, &[socket.ipv6_only.into()]));
    }
    if let Some(group) = socket.group {
        row.extend(attribute(INET_DIAG_CGROUP_ID, &group.to_ne_bytes()));
    }
    row
}

/// A `struct nlmsghdr` and what follows it, netlink(7).
fn message(kind: u16, sequence: u32, payload: &[u8]) -> Vec<u8> {
    let length = (HEADER + payload.len()) as u32;
    let mut message = [
        &length.to_ne_bytes()[..],
        &kind.to_ne_bytes(),
        &[2, 0],
        &sequence.to_ne_bytes(),
        &[0; 4],
        payload,
    ]
    .concat();
    message.resize(message.len().next_multiple_of(4), 0);
    message
}

/// A `struct nlattr` and its value, rtnetlink(3).
fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = (4 + value.len()) as u16;
    let mut attribute = [&length.to_ne_bytes()[..], &kind.to_ne_bytes(), value].concat();
    attribute.resize(attribute.len().next_multiple_of(4), 0);
    attribute
}

/// A row that is read survives a round trip, and a truncated one is read safely.
fn unix_row_survives_a_round_trip(data: &[u8], choices: &mut Choices<'_>) {
    let _whatever = listener_of(data);
    let mut number = || choices.number() as u32;
    let inode = number();
    let (file, queue) = ((number(), number()), (number(), number()));
    let waiting = (number(), number());
    let pair = |(one, other): (u32, u32)| [one.to_ne_bytes(), other.to_ne_bytes()].concat();
    // The kernel ends a path with a NUL.
    let name = data.strip_suffix(&[0]).unwrap_or(data);
    let row = [
        &[libc::AF_UNIX as u8, 1, 10, 0][..],
        &inode.to_ne_bytes(),
        &[0; 8],
        &attribute(UNIX_DIAG_NAME, &[name, &[0]].concat()),
        &attribute(UNIX_DIAG_VFS, &pair(file)),
        &attribute(UNIX_DIAG_ICONS, &pair(waiting)),
        &attribute(UNIX_DIAG_RQLEN, &pair(queue)),
    ]
    .concat();
    let listener = UnixListener {
        name: name.to_owned(),
        file: Some(file),
        inode,
        queue: Some(queue),
        waiting: vec![waiting.0, waiting.1],
    };
    assert_eq!(listener_of(&row), Some(listener), "{row:?}");
    let _less = listener_of(&row[..choices.below(row.len())]);
}
