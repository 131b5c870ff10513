//! What the machine that runs the tests lacks. The unit tests include this file, too.

use std::io::Write;
use std::thread;

/// Skips a test that lacks something which CI has. With `CI` set, it fails instead: it must not turn
/// green because the thing that it tests is missing.
#[track_caller]
pub(crate) fn lacking(why: &str) {
    assert!(std::env::var_os("CI").is_none(), "{why}");
    skip(why);
}

/// Says aloud that a test is skipped because this machine lacks something that CI may lack, too.
pub(crate) fn skip(why: &str) {
    let test = thread::current().name().unwrap_or("?").to_owned();
    // Not by `eprintln!`, whose output a passing test keeps to itself.
    let _unseen = writeln!(std::io::stderr(), "SKIP {test}: {why}");
}
