//! Reads the stacks of processes from the journal, and builds the command with which a person can do so.

use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::Deserialize;

use super::Dump;
use super::command;
use crate::escape::escape;
use crate::manifest::Scope;

/// The bound on one call.
const BOUND: Duration = Duration::from_secs(2);
/// How many lines are quoted.
const LINES: usize = 40;
/// How late a line may reach the journal, which timestamps it on receipt.
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

/// The first lines that this command prints, escaped; empty if this program may not read the journal, or
/// the processes wrote nothing to it.
pub(super) fn lines(dump: &Dump, unit: &str, scope: Scope) -> Vec<String> {
    let mut command = Command::new("journalctl");
    if scope == Scope::User {
        command.arg("--user");
    }
    command.args(["--quiet", "--no-pager", "--output=json"]);
    command.arg("--output-fields=_PID,MESSAGE,_LINE_BREAK");
    command.args(arguments(dump, unit));
    match command::run(&mut command, BOUND, None) {
        Ok(output) => whole_lines(&String::from_utf8_lossy(&output.answer)),
        Err(_) => Vec::new(),
    }
}

/// The lines of each process in turn. Processes that share a pipe to the journal break each other's
/// lines, which the journal then marks (`_LINE_BREAK`, systemd.journal-fields(7)).
fn whole_lines(entries: &str) -> Vec<String> {
    #[derive(Deserialize)]
    struct Entry {
        #[serde(rename = "_PID")]
        pid: String,
        #[serde(rename = "MESSAGE")]
        message: String,
        #[serde(rename = "_LINE_BREAK")]
        line_break: Option<String>,
    }
    // The text of each process, in the order in which it was written.
    let mut processes: Vec<(String, String)> = Vec::new();
    // An entry that does not parse is not text (its MESSAGE is an array of bytes).
    for entry in entries
        .lines()
        .filter_map(|line| serde_json::from_str::<Entry>(line).ok())
    {
        let at = processes.iter().position(|(pid, _)| *pid == entry.pid);
        let at = at.unwrap_or_else(|| {
            processes.push((entry.pid, String::new()));
            processes.len() - 1
        });
        if let Some((_, text)) = processes.get_mut(at) {
            text.push_str(&entry.message);
            if entry.line_break.is_none() {
                text.push('\n');
            }
        }
    }
    let lines = processes.iter().flat_map(|(_, text)| text.lines());
    lines
        .take(LINES)
        .map(|line| escape(line).into_owned())
        .collect()
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
    fn whole_lines_joins_what_other_processes_broke() {
        let entries = r#"
            {"_PID":"7","MESSAGE":"  File \"a.py\"","_LINE_BREAK":"pid-change","__CURSOR":"x"}
            {"_PID":"8","MESSAGE":"one","_LINE_BREAK":"pid-change"}
            {"_PID":"7","MESSAGE":", line 3"}
            {"_PID":"7","MESSAGE":[1,2]}
            {"_PID":"8","MESSAGE":" two\u001b"}
            {"_PID":"7","MESSAGE":"end"}
        "#;
        assert_eq!(
            whole_lines(entries),
            ["  File \"a.py\", line 3", "end", "one two\\u{1b}"]
        );
        assert_eq!(whole_lines(&entries.repeat(30)).len(), LINES);
        assert_eq!(whole_lines("garbage"), [""; 0]);
    }

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
