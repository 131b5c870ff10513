//! Rows of the socket table for tests.

use std::net::SocketAddr;

use super::observation::ProbeFacts;
use super::tcp_table::{TcpSocket, TcpState, Traffic};
use crate::sweep::{Connection, ProbeConnection, ProbeStatus};

/// A listener whose queue is not full.
pub(super) fn listener(address: &str, cookie: u64) -> TcpSocket {
    let local: SocketAddr = address.parse().unwrap();
    TcpSocket {
        state: TcpState::Listen,
        local,
        remote: SocketAddr::new(local.ip(), 0),
        cookie,
        inode: 700,
        receive_queue: 0,
        send_queue: 128,
        group: None,
        ipv6_only: false,
        traffic: None,
    }
}

/// A listener at the wildcard address.
pub(super) fn wildcard(address: &str, cookie: u64) -> TcpSocket {
    listener(address, cookie)
}

/// A server's end at 127.0.0.1:80 that has not been accepted.
pub(super) fn connection(cookie: u64, client: u16) -> TcpSocket {
    TcpSocket {
        state: TcpState::Established,
        remote: SocketAddr::new([127, 0, 0, 1].into(), client),
        inode: 0,
        send_queue: 0,
        traffic: Some(Traffic {
            acknowledged: 0,
            received: 0,
        }),
        ..listener("127.0.0.1:80", cookie)
    }
}

pub(super) fn established(socket: TcpSocket) -> TcpSocket {
    in_state(socket, TcpState::Established)
}

pub(super) fn accepted(socket: TcpSocket) -> TcpSocket {
    TcpSocket {
        inode: 800,
        ..socket
    }
}

/// As the kernel shows it in `state`: in TIME_WAIT and FIN_WAIT2 with few fields.
pub(super) fn in_state(socket: TcpSocket, state: TcpState) -> TcpSocket {
    let bare = matches!(state, TcpState::TimeWait | TcpState::FinWait2);
    let fin = state.closed_here();
    TcpSocket {
        state,
        group: socket.group.filter(|_| !bare),
        inode: if fin { 0 } else { socket.inode },
        send_queue: socket.send_queue + u32::from(fin && !bare),
        traffic: socket.traffic.filter(|_| !bare),
        ..socket
    }
}

pub(super) fn in_group(socket: TcpSocket, group: u64) -> TcpSocket {
    TcpSocket {
        group: Some(group),
        ..socket
    }
}

pub(super) fn written(socket: TcpSocket, bytes: u64) -> TcpSocket {
    let received = socket.traffic.map_or(0, |traffic| traffic.received);
    TcpSocket {
        traffic: Some(Traffic {
            acknowledged: bytes,
            received,
        }),
        ..socket
    }
}

pub(super) fn received(socket: TcpSocket, bytes: u64) -> TcpSocket {
    TcpSocket {
        traffic: Some(Traffic {
            acknowledged: 0,
            received: bytes,
        }),
        ..socket
    }
}

/// A silent final probe from port 50000 to 127.0.0.1:80.
pub(super) fn probe(established: bool) -> ProbeFacts {
    ProbeFacts {
        status: ProbeStatus::Silent,
        connections: vec![ProbeConnection {
            connection: Connection {
                local: "127.0.0.1:50000".parse().unwrap(),
                remote: "127.0.0.1:80".parse().unwrap(),
            },
            established,
        }],
    }
}
