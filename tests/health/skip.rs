//! Skips tests that this machine cannot run. The unit tests in `src` use it, too.

use std::collections::BTreeMap;
use std::env;
use std::io::Write;
use std::process::Command;
use std::sync::{Mutex, PoisonError};
use std::thread;

/// The skipped tests, and why.
static SKIPPED: Mutex<BTreeMap<String, String>> = Mutex::new(BTreeMap::new());

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
    skipped.insert(test, why.to_owned());
}

/// Prints one line that counts the tests that ran and those that were skipped, which the harness counts as passed.
extern "C" fn summarize() {
    let skipped = SKIPPED.lock().unwrap_or_else(PoisonError::into_inner);
    let mut reasons: BTreeMap<&str, usize> = BTreeMap::new();
    for why in skipped.values() {
        *reasons.entry(why).or_default() += 1;
    }
    let reasons: Vec<String> = reasons
        .into_iter()
        .map(|(why, tests)| format!("{tests} because {why}"))
        .collect();
    let ran = selected().map_or_else(
        || "the others".to_owned(),
        |all| all.saturating_sub(skipped.len()).to_string(),
    );
    let _unseen = writeln!(
        std::io::stderr(),
        "{ran} ran, {} SKIPPED (README.md names the packages for a full run): {}",
        skipped.len(),
        reasons.join("; ")
    );
}

/// How many tests this run consists of. Only the harness knows; its list ends with `208 tests, 0 benchmarks`.
fn selected() -> Option<usize> {
    let listed = |option: &[&str]| -> Option<usize> {
        let mut command = Command::new(env::current_exe().ok()?);
        command.args(env::args_os().skip(1)).arg("--list");
        let printed = String::from_utf8(command.args(option).output().ok()?.stdout).ok()?;
        let (tests, _) = printed.trim_end().lines().last()?.split_once(" test")?;
        tests.parse().ok()
    };
    listed(&[])?.checked_sub(listed(&["--ignored"])?)
}
