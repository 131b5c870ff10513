//! The privileges of this process.

use std::fs;

use nix::unistd::geteuid;

/// Makes another user's wait channels readable (capabilities(7)).
pub(crate) const CAP_SYS_PTRACE: u32 = 19;
const CAP_KILL: u32 = 5;

/// Whether this process has the effective capability `number`; none if that cannot be read.
pub(crate) fn has_capability(number: u32) -> Option<bool> {
    // The file shows the main thread (proc(5)); all threads have the same capabilities.
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let (_, effective) = status.split_once("\nCapEff:")?;
    let effective = u64::from_str_radix(effective.lines().next()?.trim(), 16).ok()?;
    Some(effective & (1 << number) != 0)
}

/// The user that this process runs as, and whether it may signal the processes of all users.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Caller {
    pub(crate) euid: u32,
    pub(crate) may_kill: bool,
}

impl Caller {
    pub(crate) fn current() -> Self {
        let euid = geteuid();
        Self {
            euid: euid.as_raw(),
            // If it cannot be read, assume the capability.
            may_kill: euid.is_root() || has_capability(CAP_KILL) != Some(false),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_capability_of_the_status_can_be_asked_for() {
        let status = fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find(|line| line.starts_with("CapEff:"));
        let shown = line.unwrap().split_whitespace().last().unwrap();
        let asked = (0..64).filter(|number| has_capability(*number) == Some(true));
        let asked: u64 = asked.map(|number| 1 << number).sum();
        assert_eq!(format!("{asked:016x}"), shown);
    }
}
