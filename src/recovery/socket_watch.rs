//! Records facts during the sweep that the decision needs afterwards: the kernel's socket table at the
//! backend's port, and whether this program was kept from running.

use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

use super::sock_diag::SockDiag;
use super::socket_log::SocketLog;
use super::tcp_diag::{self, States};
use super::tcp_table::TcpSocket;
use crate::clock::Monotonic;
use crate::manifest::Manifest;

/// How often this thread wakes up while the core is probed.
const SLICE: Duration = Duration::from_millis(250);
/// The shortest interval between two wake-ups, where timeouts are short.
const SHORTEST_SLICE: Duration = Duration::from_millis(20);
/// When the first dump is made: a healthy core has answered by then, and costs no dump. Sooner where timeouts
/// are short.
const FIRST_DUMP: Duration = Duration::from_millis(50);
/// The time limit for one dump of the table.
pub(super) const DUMP_LIMIT: Duration = Duration::from_secs(1);
/// This thread spends at most one part in this many of its time on dumps.
const DUTY: u32 = 20;
/// A program that did not run for longer than this was starved, whatever its timeouts.
const STARVED_AFTER: Duration = Duration::from_secs(1);

/// The watch, running in its own thread.
#[derive(Debug)]
pub struct SocketWatch {
    events: Sender<Event>,
    seen: Arc<Mutex<Seen>>,
}

enum Event {
    SweepBegins,
    CoreEnds,
    /// Replies once all earlier events are handled.
    Finish(Sender<()>),
}

/// What was recorded since the last sweep began.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    /// The log of the connections at the port; a message if the table is not accessible. None with a UNIX
    /// socket, for which the kernel does not count bytes.
    pub(super) log: Option<Result<SocketLog, String>>,
    /// The longest time that this thread was kept from running while the core was probed.
    pub(super) longest_gap: Duration,
    /// After a gap longer than this, the sweep's timeouts prove nothing.
    pub(super) starved_after: Duration,
}

impl SocketWatch {
    /// Starts to watch the backend's socket.
    ///
    /// # Errors
    ///
    /// The thread cannot be started.
    pub fn start(manifest: &Manifest) -> std::io::Result<Self> {
        let port = match manifest.unix_socket {
            Some(_) => None,
            None => Some(manifest.base_url.port()),
        };
        let core = manifest.routes.iter().filter(|route| route.core);
        let shortest = core.map(|route| route.options.timeout).min();
        Self::begin(port, shortest.unwrap_or(Duration::MAX))
    }

    /// The same for `port` (none with a UNIX socket) and a sweep whose shortest core timeout is `timeout`.
    fn begin(port: Option<u16>, timeout: Duration) -> std::io::Result<Self> {
        let starved_after = STARVED_AFTER.min(timeout / 2);
        let seen = Arc::new(Mutex::new(Seen {
            log: port.map(|_| Err("the sweep has not begun".to_owned())),
            longest_gap: Duration::ZERO,
            starved_after,
        }));
        let (events, inbox) = mpsc::channel();
        let watcher = Watcher {
            port,
            slice: SLICE.min(starved_after / 4).max(SHORTEST_SLICE),
            first_dump: FIRST_DUMP.min(timeout / 2),
            seen: Arc::clone(&seen),
        };
        // Not joined: it ends with the sender.
        thread::Builder::new()
            .name("sockets".to_owned())
            .spawn(move || watcher.run(&inbox))?;
        Ok(Self { events, seen })
    }

    /// A sweep begins: earlier records no longer count.
    pub fn sweep_begins(&self) {
        self.send(Event::SweepBegins);
    }

    /// The core routes have been probed.
    pub fn core_ends(&self) {
        self.send(Event::CoreEnds);
    }

    fn send(&self, event: Event) {
        // The thread ends only after this sender is dropped.
        let _ = self.events.send(event);
    }
}

/// What `watch` recorded of the last sweep.
pub(super) fn finish(watch: Option<SocketWatch>) -> Seen {
    let Some(watch) = watch else {
        return Seen {
            log: Some(Err(
                "the thread that watches the socket table could not be started".to_owned(),
            )),
            longest_gap: Duration::MAX,
            starved_after: STARVED_AFTER,
        };
    };
    let (reply, done) = mpsc::channel();
    watch.send(Event::Finish(reply));
    // If the thread has ended, its records are complete.
    let _ = done.recv_timeout(2 * DUMP_LIMIT);
    let mut seen = watch.seen.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(Ok(log)) = &mut seen.log {
        log.end_sweep();
    }
    seen.clone()
}

impl Seen {
    /// How this program was kept from running, if it was.
    pub(super) fn starved(&self) -> Option<String> {
        (self.longest_gap > self.starved_after).then(|| {
            format!(
                "it was kept from running for {:.1} s while the core was probed",
                self.longest_gap.as_secs_f64()
            )
        })
    }
}

struct Watcher {
    port: Option<u16>,
    slice: Duration,
    first_dump: Duration,
    seen: Arc<Mutex<Seen>>,
}

impl Watcher {
    fn run(&self, inbox: &Receiver<Event>) {
        let mut sock_diag = None;
        loop {
            // Nothing is recorded between sweeps.
            match inbox.recv() {
                Err(_) => return,
                Ok(Event::SweepBegins) => self.watch_sweep(inbox, &mut sock_diag),
                Ok(Event::CoreEnds) => {}
                Ok(Event::Finish(reply)) => handled(&reply),
            }
        }
    }

    /// Watches from the beginning of a sweep until its core routes have been probed.
    fn watch_sweep(&self, inbox: &Receiver<Event>, sock_diag: &mut Option<SockDiag>) {
        let mut awake = Moment::now();
        let mut next_dump = self.begin();
        loop {
            let slice = self.slice.min(next_dump.remaining());
            let event = inbox.recv_timeout(slice.max(SHORTEST_SLICE));
            let now = Moment::now();
            let gap = now.since(&awake);
            awake = now;
            self.note(|seen| seen.longest_gap = seen.longest_gap.max(gap));
            match event {
                Err(RecvTimeoutError::Timeout) if next_dump.has_passed() => {
                    next_dump = self.dump(sock_diag);
                }
                Err(RecvTimeoutError::Timeout) => {}
                Ok(Event::SweepBegins) => next_dump = self.begin(),
                Err(RecvTimeoutError::Disconnected) | Ok(Event::CoreEnds) => return,
                Ok(Event::Finish(reply)) => return handled(&reply),
            }
        }
    }

    /// Discards earlier records, and returns when to make the first dump.
    fn begin(&self) -> Monotonic {
        self.note(|seen| {
            seen.longest_gap = Duration::ZERO;
            seen.log = self.port.map(|_| Ok(SocketLog::default()));
        });
        Monotonic::now() + self.first_dump
    }

    /// Records the table once, and returns when to do so next.
    fn dump(&self, sock_diag: &mut Option<SockDiag>) -> Monotonic {
        let began = Monotonic::now();
        if let Some(port) = self.port {
            let table = dump(sock_diag, port, States::All);
            self.note(|seen| match (&mut seen.log, table) {
                (Some(Ok(log)), Ok(table)) => log.record(&table),
                (log, Err(why)) => *log = Some(Err(why)),
                (None | Some(Err(_)), Ok(_)) => {}
            });
        }
        let took = Monotonic::now().since(began);
        began + took * DUTY
    }

    fn note(&self, change: impl FnOnce(&mut Seen)) {
        change(&mut self.seen.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

/// A moment at which this thread ran.
struct Moment {
    wall: Monotonic,
    /// The thread's CPU time by then, clock_gettime(2).
    ran: Duration,
}

impl Moment {
    fn now() -> Self {
        let ran = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID);
        Self {
            wall: Monotonic::now(),
            ran: ran.map_or(Duration::ZERO, Duration::from),
        }
    }

    /// The time since `earlier` in which the thread did not run. A dump of a large table takes long, but it
    /// is CPU time, not a gap.
    fn since(&self, earlier: &Self) -> Duration {
        let ran = self.ran.saturating_sub(earlier.ran);
        self.wall.since(earlier.wall).saturating_sub(ran)
    }
}

fn handled(reply: &Sender<()>) {
    // The receiver may have given up.
    let _ = reply.send(());
}

/// Makes one dump of the table; opens the netlink socket if there is none yet.
pub(super) fn dump(
    sock_diag: &mut Option<SockDiag>,
    port: u16,
    states: States,
) -> Result<Vec<TcpSocket>, String> {
    let open = match sock_diag.take() {
        Some(open) => open,
        None => SockDiag::open()?,
    };
    let until = Monotonic::now() + DUMP_LIMIT;
    let table = tcp_diag::sockets_at(sock_diag.insert(open), port, states, until);
    if table.is_err() {
        // A dump that was abandoned may still be in progress on this socket.
        *sock_diag = None;
    }
    table
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn the_watch_sees_what_is_served_during_a_sweep() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let watch = SocketWatch::begin(Some(address.port()), Duration::from_secs(10)).unwrap();
        let mut client = TcpStream::connect(address).unwrap();
        let (mut server, _) = listener.accept().unwrap();
        watch.sweep_begins();
        let sign = || {
            let Some(Ok(mut log)) = watch.seen.lock().unwrap().log.clone() else {
                return None;
            };
            let table = dump(&mut None, address.port(), States::All).unwrap();
            log.record(&table);
            log.sign(&table, &[address], &std::collections::HashSet::new())
        };
        // Bytes written before the first dump do not count as progress.
        let until = Monotonic::now() + Duration::from_secs(20);
        while sign().is_none() {
            assert!(!until.has_passed(), "no sign of progress");
            server.write_all(b"x").unwrap();
            client.read_exact(&mut [0]).unwrap();
            std::thread::sleep(FIRST_DUMP);
        }
        assert_eq!(sign().unwrap().client, client.local_addr().unwrap());
        watch.core_ends();
        assert!(finish(Some(watch)).log.is_some());
    }

    #[test]
    fn starved_is_a_gap_of_a_second_or_half_a_timeout() {
        for (timeout, gap, starved) in [
            (10_000, 1_000, false),
            (10_000, 1_001, true),
            (1_000, 500, false),
            (1_000, 501, true),
        ] {
            let watch = SocketWatch::begin(None, Duration::from_millis(timeout)).unwrap();
            let mut seen = finish(Some(watch));
            seen.longest_gap = Duration::from_millis(gap);
            assert_eq!(seen.starved().is_some(), starved, "{timeout} {gap}");
        }
    }
}
