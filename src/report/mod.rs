//! What a run found, and how it is told: one file per format, each of the shape "report in, text
//! out, no I/O".

use std::time::{Duration, SystemTime};

use crate::manifest::Manifest;
use crate::recovery::Recovery;
use crate::verdict::{self, Verdict};

/// Everything that a run found.
#[derive(Debug)]
pub struct Report<'a> {
    /// When the run began.
    pub started_at: SystemTime,
    /// How long the whole run took.
    pub elapsed: Duration,
    /// What was probed.
    pub manifest: &'a Manifest,
    /// What came of each route, in the manifest's order.
    pub outcomes: Vec<verdict::Outcome>,
    /// What the outcomes mean.
    pub verdict: Verdict,
    /// What was done about it.
    pub recovery: Recovery,
    /// Sentences about what would not work.
    pub warnings: Vec<String>,
}
