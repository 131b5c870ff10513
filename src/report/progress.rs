//! The progress of a sweep, on one line of a terminal that is erased at the end. The probing threads
//! update it and never block on it.

use std::io::{self, Write};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use super::terminal::Stream;
use crate::stderr::takes_text;

/// The shortest time between two updates.
const PAUSE: Duration = Duration::from_millis(100);
/// Returns to the beginning of the line and erases it (ECMA-48 CR and EL).
const ERASE: &str = "\r\x1b[K";

/// The progress line on standard error; erased when dropped. Draws nothing if standard error is not
/// a terminal.
#[derive(Debug)]
pub struct Progress {
    drawn: Option<Mutex<Option<Instant>>>,
}

impl Progress {
    /// Draws the line for `total` probes.
    pub fn new(total: usize) -> Self {
        let drawn = Stream::stderr().erases().then(Mutex::default);
        let progress = Self { drawn };
        progress.update(0, total);
        progress
    }

    /// Redraws the line, unless it was redrawn a moment ago or another thread is redrawing it.
    pub fn update(&self, done: usize, total: usize) {
        let Some(Ok(mut drawn)) = self.drawn.as_ref().map(Mutex::try_lock) else {
            return;
        };
        if drawn.is_none_or(|drawn| drawn.elapsed() >= PAUSE) {
            *drawn = Some(Instant::now());
            write(&format!("{ERASE}probing {done}/{total}"));
        }
    }

    /// Erases the line, so that other text can be printed.
    pub fn clear(&self) {
        let Some(Ok(mut drawn)) = self.drawn.as_ref().map(Mutex::lock) else {
            return;
        };
        if drawn.take().is_some() {
            write(ERASE);
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.clear();
    }
}

/// Errors are ignored, and a terminal that accepts nothing at the moment (Ctrl-S) must not delay the
/// sweep.
fn write(text: &str) {
    let stderr = io::stderr();
    if takes_text(&stderr, Duration::ZERO) {
        let _ = stderr.lock().write_all(text.as_bytes());
    }
}
