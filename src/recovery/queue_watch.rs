//! Reads the backend's accept queues during a sweep, in a thread of its own.

use std::net::SocketAddr;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::Duration;

use super::sockets::Place;
use super::sockets::queue::QueueHistory;
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
}

enum Event {
    SweepBegins,
    CoreEnds,
    /// Asks for what was read during the last sweep.
    HistoryWanted(Sender<QueueHistory>),
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
        // A healthy core has answered by then, and costs no reading. It must not miss the end of a short first attempt.
        let first = shortest.unwrap_or_default() / 4;
        let place = Place::of(manifest);
        let (events, inbox) = mpsc::channel();
        // Not joined: it ends with the sender.
        thread::Builder::new()
            .name("queues".to_owned())
            .spawn(move || watch(&inbox, first, &place, remotes))?;
        Ok(Self { events })
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
        let (sender, history) = mpsc::channel();
        let _ = self.events.send(Event::HistoryWanted(sender));
        history.recv().unwrap_or_default()
    }
}

/// Reads the queues during each sweep, from `first` after its begin.
fn watch(
    inbox: &Receiver<Event>,
    first: Duration,
    place: &Place,
    remotes: impl Fn() -> Vec<SocketAddr>,
) {
    let interval = first.clamp(SHORTEST_INTERVAL, LONGEST_INTERVAL);
    let mut history = QueueHistory::default();
    // Until the next reading.
    let mut pause = Duration::MAX;
    loop {
        match inbox.recv_timeout(pause) {
            Ok(Event::SweepBegins) => {
                pause = first;
                history = QueueHistory::default();
            }
            Ok(Event::CoreEnds) => pause = Duration::MAX,
            Ok(Event::HistoryWanted(sender)) => drop(sender.send(history.clone())),
            Err(RecvTimeoutError::Timeout) => {
                pause = interval;
                // A reading that fails is made up for by the next one. The observations read the same table, and
                // say why that is not possible.
                if let Ok(reading) = place.read(true) {
                    history.record(&remotes(), &reading);
                }
            }
            Err(RecvTimeoutError::Disconnected) => return,
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
