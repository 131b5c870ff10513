//! Tests that the machine cannot run. The unit tests and `tests/health` use this file, and no program
//! does.

use std::collections::BTreeMap;
use std::io::Write;
use std::sync::{Mutex, PoisonError};
use std::thread;

/// How often each reason was given.
static SKIPPED: Mutex<BTreeMap<String, usize>> = Mutex::new(BTreeMap::new());

/// Skips a test that lacks something which CI has. With `CI` set, it fails instead: it must not turn
/// green because the thing that it tests is missing.
#[track_caller]
pub(crate) fn skip_unless_ci(why: &str) {
    assert!(std::env::var_os("CI").is_none(), "{why}");
    skip(why);
}

/// Prints that a test is skipped because this machine lacks something that CI may also lack.
pub(crate) fn skip(why: &str) {
    let test = thread::current().name().unwrap_or("?").to_owned();
    // Not by `eprintln!`, whose output a passing test keeps to itself.
    let _unseen = writeln!(std::io::stderr(), "SKIP {test}: {why}");
    let mut skipped = SKIPPED.lock().unwrap_or_else(PoisonError::into_inner);
    if skipped.is_empty() {
        // The test harness has no hook for its end, and std none for that of a process.
        #[expect(unsafe_code)]
        // SAFETY: `summarize` unwinds into no C code, since nothing in it panics.
        unsafe {
            libc::atexit(summarize);
        }
    }
    *skipped.entry(why.to_owned()).or_default() += 1;
}

/// One line about all that was skipped.
extern "C" fn summarize() {
    let skipped = SKIPPED.lock().unwrap_or_else(PoisonError::into_inner);
    let reasons: Vec<String> = skipped
        .iter()
        .map(|(why, times)| format!("{times} because {why}"))
        .collect();
    let total: usize = skipped.values().sum();
    let _unseen = writeln!(
        std::io::stderr(),
        "SKIPPED {total} in all: {}",
        reasons.join("; ")
    );
}
