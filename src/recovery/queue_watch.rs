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
        let (events, inbox) = mpsc::channel();
        let history = Arc::default();
        let watcher = Watcher {
            // A healthy core has answered by then, and costs no reading.
            interval: (shortest.unwrap_or_default() / 4).max(SHORTEST_INTERVAL),
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
    interval: Duration,
    remotes: F,
    history: Arc<Mutex<QueueHistory>>,
}

impl<F: Fn() -> Vec<SocketAddr>> Watcher<F> {
    fn run(&self, inbox: &Receiver<Event>, mut reader: SocketReader) {
        let mut sweeping = false;
        loop {
            let event = if sweeping {
                inbox.recv_timeout(self.interval)
            } else {
                inbox.recv().map_err(RecvTimeoutError::from)
            };
            match event {
                Ok(Event::SweepBegins) => {
                    sweeping = true;
                    *self.history.lock().unwrap_or_else(PoisonError::into_inner) =
                        QueueHistory::default();
                }
                Ok(Event::CoreEnds) => sweeping = false,
                Err(RecvTimeoutError::Timeout) => {
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
