//! The progress of a sweep, on one line of a terminal that is erased at the end. The probing threads
//! update it, and no terminal blocks them.

use std::env;
use std::io::{self, IsTerminal, Write};

use nix::poll::PollTimeout;

use super::wording::count;
use crate::manifest::Manifest;
use crate::stderr::takes_text;

/// Returns to the beginning of the line and erases it (ECMA-48 CR and EL).
const ERASE: &str = "\r\x1b[K";

/// The progress line on standard error; erased when dropped. Draws nothing if standard error is not
/// a terminal that can erase text.
#[derive(Debug)]
pub struct Progress {
    core: usize,
    is_drawn: bool,
}

impl Progress {
    /// Draws the line for the probes of this manifest.
    pub fn new(manifest: &Manifest) -> Self {
        let progress = Self {
            core: manifest.routes.iter().filter(|route| route.core).count(),
            is_drawn: io::stderr().is_terminal() && env::var("TERM").as_deref() != Ok("dumb"),
        };
        progress.update(0, manifest.routes.len());
        progress
    }

    /// Redraws the line. The core routes are the first ones of each sweep.
    pub fn update(&self, done: usize, total: usize) {
        match self.core.saturating_sub(done) {
            0 => self.show(&format!("probing: {done} of {total} routes done")),
            pending => self.show(&format!("waiting for {}...", count(pending, "core route"))),
        }
    }

    /// Shows another text on the line; none erases it.
    pub fn show(&self, text: &str) {
        let stderr = io::stderr();
        // A terminal that accepts nothing at the moment (Ctrl-S) must not delay the sweep.
        if self.is_drawn && takes_text(&stderr, PollTimeout::ZERO) {
            let _ = stderr.lock().write_all(format!("{ERASE}{text}").as_bytes());
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.show("");
    }
}
