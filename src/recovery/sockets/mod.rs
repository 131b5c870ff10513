//! What the kernel shows about the sockets at which the probes wait: listeners, connections, accept queues, and
//! whose they are.

pub(super) mod netlink;
pub(super) mod owners;
pub(super) mod queue;
pub(super) mod tcp;
pub(super) mod unix;

use std::path::PathBuf;
use std::time::Duration;

use nix::errno::Errno;

use self::netlink::explain;
use self::tcp::{HELD, LISTENING, TcpSocket, TcpState, sockets_at};
use self::unix::UnixListener;
use crate::clock::Monotonic;
use crate::manifest::Manifest;

/// The time limit for one table.
const LIMIT: Duration = Duration::from_secs(1);
/// How often a reading is repeated during which the lengths of the accept queues change.
const REPEATS: usize = 5;

/// One reading of the kernel's socket tables.
#[derive(Clone, Debug)]
pub(crate) enum Reading {
    /// The sockets at a port. An accept between the reading of the listeners and that of the connections would be
    /// miscounted, so the listeners are read again afterwards.
    Tcp {
        at: Monotonic,
        /// The listeners, and then the connections.
        rows: Vec<TcpSocket>,
        /// The listeners after that; with the same lengths, unless they change all the time.
        listeners_after: Vec<TcpSocket>,
    },
    /// The sockets that listen at the path.
    Unix {
        at: Monotonic,
        path: PathBuf,
        listeners: Vec<UnixListener>,
    },
}

impl Reading {
    /// The listeners and connections at the TCP port; none over a UNIX socket.
    pub(crate) fn rows(&self) -> &[TcpSocket] {
        match self {
            Self::Tcp { rows, .. } => rows,
            Self::Unix { .. } => &[],
        }
    }
}

/// Where the backend listens.
#[derive(Clone, Debug)]
pub(crate) enum Place {
    Port(u16),
    Path(PathBuf),
}

impl Place {
    /// Where the backend of `manifest` listens.
    pub(crate) fn of(manifest: &Manifest) -> Self {
        match &manifest.unix_socket {
            Some(path) => Self::Path(path.clone()),
            None => Self::Port(manifest.base_url.port()),
        }
    }

    /// Reads the listeners and, if `connections` is set, the connections; at a path, the listeners. A
    /// message, if the kernel refuses or is too slow.
    pub(crate) fn read(&self, connections: bool) -> Result<Reading, String> {
        let reading = match self {
            Self::Port(port) => read_tcp(*port, connections),
            Self::Path(path) => {
                unix::listeners(path, Monotonic::now() + LIMIT).map(|listeners| Reading::Unix {
                    at: Monotonic::now(),
                    path: path.clone(),
                    listeners,
                })
            }
        };
        reading.map_err(explain)
    }
}

fn read_tcp(port: u16, connections: bool) -> Result<Reading, Errno> {
    let read = |states| sockets_at(port, states, Monotonic::now() + LIMIT);
    let mut repeats = 0;
    loop {
        let rows = read(if connections { HELD } else { LISTENING })?;
        let listeners_after = read(LISTENING)?;
        repeats += 1;
        let listeners = rows.iter().filter(|row| row.state == TcpState::Listen);
        if repeats == REPEATS || listeners.eq(&listeners_after) {
            return Ok(Reading::Tcp {
                at: Monotonic::now(),
                rows,
                listeners_after,
            });
        }
    }
}
