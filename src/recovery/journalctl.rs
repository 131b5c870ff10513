//! Reads the stacks of processes from the journal, and gives the command for a person to do the same.

use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::Dump;
use super::command;
use crate::escape::escape;
use crate::manifest::Scope;

/// The bound on one call.
const BOUND: Duration = Duration::from_secs(2);
/// Lines that are quoted.
const LINES: usize = 40;
/// The journal notes a line when it receives it.
const LAG: Duration = Duration::from_secs(1);

/// How a person types `journalctl` for this manager.
pub(super) const fn journalctl(scope: Scope) -> &'static str {
    match scope {
        Scope::System => "journalctl",
        Scope::User => "journalctl --user",
    }
}

/// The command that shows what the processes of `dump` wrote.
pub(super) fn command(dump: &Dump, unit: &str, scope: Scope) -> String {
    format!("{} {}", journalctl(scope), arguments(dump, unit).join(" "))
}

/// The beginning of what that command prints, escaped; empty where this program may not read the
/// journal, or the processes wrote nothing there.
pub(super) fn lines(dump: &Dump, unit: &str, scope: Scope) -> Vec<String> {
    let mut command = Command::new("journalctl");
    if scope == Scope::User {
        command.arg("--user");
    }
    command.args(["--quiet", "--no-pager", "--output=cat"]);
    command.args(arguments(dump, unit));
    let Ok(output) = command::run(&mut command, BOUND, None) else {
        return Vec::new();
    };
    let text = String::from_utf8_lossy(&output.answer);
    let lines = text.lines().take(LINES);
    lines.map(|line| escape(line).into_owned()).collect()
}

fn arguments(dump: &Dump, unit: &str) -> Vec<String> {
    // Seconds since 1970 mean the same in every time zone (systemd.time(7)).
    let seconds = |time: SystemTime| {
        time.duration_since(UNIX_EPOCH)
            .unwrap_or_default()
            .as_secs()
    };
    let until = dump.until.checked_add(LAG).unwrap_or(dump.until);
    let processes = dump.processes.iter().map(|pid| format!("_PID={pid}"));
    ["-u".to_owned(), unit.to_owned()]
        .into_iter()
        .chain(processes)
        .chain([
            format!("--since=@{}", seconds(dump.since)),
            format!("--until=@{}", seconds(until) + 1),
        ])
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::DumpSignal;

    #[test]
    fn command_names_the_processes_and_the_time() {
        let at = |millis| UNIX_EPOCH + Duration::from_millis(millis);
        let dump = Dump {
            signal: DumpSignal::Usr1,
            processes: vec![7, 8],
            since: at(5_900),
            until: at(6_950),
            command: String::new(),
            traces: Vec::new(),
        };
        assert_eq!(
            command(&dump, "demo.service", Scope::User),
            "journalctl --user -u demo.service _PID=7 _PID=8 --since=@5 --until=@8"
        );
    }
}
