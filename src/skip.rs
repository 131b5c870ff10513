//! Skips tests that this machine cannot run. Used by the unit tests and by `tests/health`.

use std::collections::BTreeMap;
use std::io::Write;
use std::sync::{Mutex, PoisonError};
use std::thread;

/// How often each reason was given.
static SKIPPED: Mutex<BTreeMap<String, usize>> = Mutex::new(BTreeMap::new());

/// Skips a test that needs something which CI has. With `CI` set, the test fails instead: it must not pass
/// because the thing that it tests is missing.
#[track_caller]
pub(crate) fn skip_unless_ci(why: &str) {
    assert!(std::env::var_os("CI").is_none(), "{why}");
    skip(why);
}

/// Prints that a test is skipped because this machine lacks something that CI may lack, too.
pub(crate) fn skip(why: &str) {
    let test = thread::current().name().unwrap_or("?").to_owned();
    // Not with `eprintln!`, whose output the harness hides for a passing test.
    let _unseen = writeln!(std::io::stderr(), "SKIP {test}: {why}");
    let mut skipped = SKIPPED.lock().unwrap_or_else(PoisonError::into_inner);
    if skipped.is_empty() {
        // Neither the test harness nor std can run a function at exit.
        #[expect(unsafe_code)]
        // SAFETY: `summarize` does not unwind into C code, because nothing in it panics.
        unsafe {
            libc::atexit(summarize);
        }
    }
    *skipped.entry(why.to_owned()).or_default() += 1;
}

/// Prints one line that counts the skipped tests.
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
