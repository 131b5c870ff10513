//! Reads the sockets at which the probes wait, over TCP or at a path.

use std::path::PathBuf;
use std::time::Duration;

use super::netlink::SockDiag;
use super::table::{TcpSocket, TcpState};
use super::tcp::{States, sockets_at};
use super::unix::{self, UnixListener};
use crate::clock::Monotonic;
use crate::manifest::Manifest;

/// The time limit for one reading.
const LIMIT: Duration = Duration::from_secs(1);
/// How often a reading is repeated during which the lengths of the accept queues change.
const REPEATS: usize = 5;

/// One reading of the kernel's socket tables.
#[derive(Clone, Debug)]
pub(crate) enum Reading {
    Tcp(TcpReading),
    /// The sockets that listen at the path.
    Unix {
        at: Monotonic,
        listeners: Vec<UnixListener>,
    },
}

/// One reading of the TCP sockets at a port. An accept between the reading of the listeners and that of the
/// connections would be miscounted, so the listeners are read again afterwards.
#[derive(Clone, Debug)]
pub(crate) struct TcpReading {
    pub(crate) at: Monotonic,
    /// The listeners, and then the connections.
    pub(crate) rows: Vec<TcpSocket>,
    /// The listeners after that; with the same lengths, unless they change all the time.
    pub(crate) listeners_after: Vec<TcpSocket>,
}

/// Where the backend listens, with a netlink socket to read its tables.
#[derive(Debug)]
pub(crate) struct SocketReader {
    place: Place,
    sock_diag: Option<SockDiag>,
}

#[derive(Clone, Debug)]
enum Place {
    Port(u16),
    Path(PathBuf),
}

impl SocketReader {
    /// A reader for the backend of `manifest`.
    pub(crate) fn new(manifest: &Manifest) -> Self {
        let place = match &manifest.unix_socket {
            Some(path) => Place::Path(path.as_path().to_owned()),
            None => Place::Port(manifest.base_url.port()),
        };
        Self {
            place,
            sock_diag: None,
        }
    }

    /// Reads listeners and connections.
    ///
    /// # Errors
    ///
    /// A message, if the kernel refuses or is too slow.
    pub(crate) fn read(&mut self) -> Result<Reading, String> {
        let port = match &self.place {
            Place::Path(path) => {
                return Ok(Reading::Unix {
                    listeners: unix::listeners(path, Monotonic::now() + LIMIT)?,
                    at: Monotonic::now(),
                });
            }
            Place::Port(port) => *port,
        };
        let mut repeats = 0;
        loop {
            let rows = self.tcp(port, States::All)?;
            let listeners_after = self.tcp(port, States::Listening)?;
            repeats += 1;
            if repeats == REPEATS || lengths(&rows).eq(lengths(&listeners_after)) {
                return Ok(Reading::Tcp(TcpReading {
                    at: Monotonic::now(),
                    rows,
                    listeners_after,
                }));
            }
        }
    }

    /// Reads only the listeners, which is quick however many connections there are.
    ///
    /// # Errors
    ///
    /// As [`Self::read`].
    pub(crate) fn read_listeners(&mut self) -> Result<Reading, String> {
        match self.place {
            Place::Path(_) => self.read(),
            Place::Port(port) => Ok(Reading::Tcp(TcpReading {
                rows: self.tcp(port, States::Listening)?,
                listeners_after: Vec::new(),
                at: Monotonic::now(),
            })),
        }
    }

    fn tcp(&mut self, port: u16, states: States) -> Result<Vec<TcpSocket>, String> {
        let open = match self.sock_diag.take() {
            Some(open) => open,
            None => SockDiag::open()?,
        };
        let until = Monotonic::now() + LIMIT;
        let table = sockets_at(self.sock_diag.insert(open), port, states, until);
        if table.is_err() {
            // A reading that was abandoned may still be in progress on this socket.
            self.sock_diag = None;
        }
        table
    }
}

/// The length of each listener's queue.
fn lengths(table: &[TcpSocket]) -> impl Iterator<Item = (u64, u32)> {
    let listeners = table.iter().filter(|row| row.state == TcpState::Listen);
    listeners.map(|listener| (listener.cookie, listener.receive_queue))
}
