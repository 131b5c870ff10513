//! Reads the backend's accept queues during a sweep, in a thread of its own.

use std::net::SocketAddr;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use super::sockets::queue::QueueHistory;
use super::sockets::reader::SocketReader;
use crate::manifest::Manifest;

/// Connections that have waited for less than this do not count, so that readings need not be closer.
const SHORTEST_INTERVAL: Duration = Duration::from_millis(200);
/// A client that comes and resets between two readings leaves a place that hides an accept, so readings must be closer
/// than clients are impatient.
const LONGEST_INTERVAL: Duration = Duration::from_millis(500);

/// The watch, running in its own thread.
#[derive(Debug)]
pub struct QueueWatch {
    events: Sender<Event>,
    history: Arc<Mutex<QueueHistory>>,
}

enum Event {
    SweepBegins,
    CoreEnds,
}

impl QueueWatch {
    /// Starts to watch the backend of `manifest`. `remotes` lists the addresses to which the current sweep has
    /// sent requests so far.
    ///
    /// # Errors
    ///
    /// The thread cannot be started.
    pub fn start(
        manifest: &Manifest,
        remotes: impl Fn() -> Vec<SocketAddr> + Send + 'static,
    ) -> std::io::Result<Self> {
        let core = manifest.routes.iter().filter(|route| route.core);
        let shortest = core.map(|route| route.options.timeout).min();
        // A healthy core has answered by then, and costs no reading.
        let first = shortest.unwrap_or_default() / 4;
        let (events, inbox) = mpsc::channel();
        let history = Arc::default();
        let watcher = Watcher {
            first,
            interval: first.clamp(SHORTEST_INTERVAL, LONGEST_INTERVAL),
            remotes,
            history: Arc::clone(&history),
        };
        let reader = SocketReader::new(manifest);
        // Not joined: it ends with the sender.
        thread::Builder::new()
            .name("queues".to_owned())
            .spawn(move || watcher.run(&inbox, reader))?;
        Ok(Self { events, history })
    }

    /// A sweep begins: earlier readings no longer count.
    pub fn sweep_begins(&self) {
        // The thread ends only after this sender is dropped.
        let _ = self.events.send(Event::SweepBegins);
    }

    /// The core routes have been probed.
    pub fn core_ends(&self) {
        let _ = self.events.send(Event::CoreEnds);
    }

    /// What was read during the last sweep.
    pub(super) fn history(&self) -> QueueHistory {
        let history = self.history.lock();
        history.unwrap_or_else(PoisonError::into_inner).clone()
    }
}

struct Watcher<F> {
    /// From the begin of a sweep to its first reading, which must not miss the end of a short first attempt.
    first: Duration,
    /// Between two readings.
    interval: Duration,
    remotes: F,
    history: Arc<Mutex<QueueHistory>>,
}

impl<F: Fn() -> Vec<SocketAddr>> Watcher<F> {
    fn run(&self, inbox: &Receiver<Event>, mut reader: SocketReader) {
        // Until the next reading, during a sweep.
        let mut pause = None;
        loop {
            let event = match pause {
                Some(pause) => inbox.recv_timeout(pause),
                None => inbox.recv().map_err(RecvTimeoutError::from),
            };
            match event {
                Ok(Event::SweepBegins) => {
                    pause = Some(self.first);
                    *self.history.lock().unwrap_or_else(PoisonError::into_inner) =
                        QueueHistory::default();
                }
                Ok(Event::CoreEnds) => pause = None,
                Err(RecvTimeoutError::Timeout) => {
                    pause = Some(self.interval);
                    // A reading that fails is made up for by the next one. The observations read the same
                    // table, and say why that is not possible.
                    if let Ok(reading) = reader.read() {
                        let mut history =
                            self.history.lock().unwrap_or_else(PoisonError::into_inner);
                        history.record(&(self.remotes)(), &reading);
                    }
                }
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use nix::sys::socket::{Backlog, listen};

    use super::*;
    use crate::clock::Monotonic;
    use crate::manifest::{Source, Variables};

    #[test]
    fn a_queue_that_is_full_from_the_begin_was_full_at_the_end_of_a_short_attempt() {
        const TIMEOUT: Duration = Duration::from_millis(120);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listen(&listener, Backlog::new(0).unwrap()).unwrap();
        let address = listener.local_addr().unwrap();
        let _waiting = TcpStream::connect(address).unwrap();
        let text = format!(
            r#"{{"base_url": "http://{address}", "defaults": {{"timeout_seconds": 0.12}},
                 "routes": [{{"path": "/", "core": true}}]}}"#
        );
        let variables = Variables::MayBeMissing;
        let manifest = Manifest::parse(text.as_bytes(), Source::Stdin, None, variables).unwrap();
        let watch = QueueWatch::start(&manifest, move || vec![address]).unwrap();
        let was_full = || {
            watch.sweep_begins();
            thread::sleep(TIMEOUT);
            let end = Monotonic::now();
            thread::sleep(SHORTEST_INTERVAL * 2);
            watch.core_ends();
            watch.history().was_full(Some(address), end)
        };
        // A busy machine may delay the first reading.
        assert!((0..20).any(|_| was_full()));
    }
}
