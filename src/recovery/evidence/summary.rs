//! The evidence on one line, for people.

use std::collections::BTreeMap;

use super::{Evidence, Listener, ParkedCounts, ProcessEvidence, ThreadGroup};
use crate::escape::escape;

impl Evidence {
    /// One line for people.
    pub fn summary(&self) -> String {
        let main = self.main.as_ref().and_then(|main| {
            let interval = main.cpu.map(|cpu| format!(" in {} ms", cpu.interval_ms));
            Some(main.summary()? + &interval.unwrap_or_default())
        });
        let parts = [self.listener.summary(), self.parked.summary(), main];
        let parts: Vec<_> = parts.into_iter().flatten().chain(self.others()).collect();
        if parts.is_empty() {
            return "no evidence of the process could be read".to_owned();
        }
        parts.join("; ")
    }

    /// The processes beside the main one; those with the same summary are grouped.
    fn others(&self) -> Vec<String> {
        const SHOWN: usize = 3;
        let mut alike: BTreeMap<String, Vec<u32>> = BTreeMap::new();
        for process in self.processes.iter().skip(1) {
            if let Some(summary) = process.summary() {
                alike.entry(summary).or_default().push(process.pid);
            }
        }
        let line = |(summary, pids): (&String, &Vec<u32>)| {
            let (pid, others) = pids.split_first()?;
            Some(match others.len() {
                0 => format!("process {pid}: {summary}"),
                more => format!("process {pid}: {summary} (and {more} more alike)"),
            })
        };
        let mut lines: Vec<_> = alike.iter().take(SHOWN).filter_map(line).collect();
        if alike.len() > SHOWN {
            lines.push("…".to_owned());
        }
        lines
    }
}

impl Listener {
    fn summary(&self) -> Option<String> {
        let waiting = count(self.accept_queue?, "connection") + " in the accept queue";
        Some(match self.accept_queue_limit {
            Some(limit) => format!("{waiting} (limit {limit})"),
            None => waiting,
        })
    }
}

impl ParkedCounts {
    /// None if nothing is parked.
    fn summary(&self) -> Option<String> {
        let states = [
            (self.accepted.unwrap_or(0), "accepted"),
            (self.unaccepted.unwrap_or(0), "not accepted"),
            (self.unconnected, "not connected"),
        ];
        let parts: Vec<_> = (states.into_iter())
            .filter(|(number, _)| *number > 0)
            .map(|(number, state)| format!("{number} {state}"))
            .collect();
        (!parts.is_empty()).then(|| format!("requests left open: {}", parts.join(", ")))
    }
}

impl ProcessEvidence {
    /// Its threads and CPU time; none if neither could be read.
    fn summary(&self) -> Option<String> {
        let details = self.details.as_ref();
        let threads = details.and_then(|details| {
            let groups = details.threads.as_ref().ok()?;
            let shown: Vec<_> = groups.iter().take(3).map(ThreadGroup::summary).collect();
            let more = if groups.len() > 3 { ", …" } else { "" };
            (!shown.is_empty()).then(|| shown.join(", ") + more)
        });
        let cpu = self.cpu.ok().map(|cpu| count(cpu.ticks, "CPU tick"));
        let parts: Vec<_> = [threads, cpu].into_iter().flatten().collect();
        (!parts.is_empty()).then(|| parts.join(", "))
    }
}

impl ThreadGroup {
    fn summary(&self) -> String {
        let state = match self.state {
            'R' => "running",
            'S' => "sleeping",
            'D' => "in uninterruptible sleep",
            'T' => "stopped",
            't' => "held by a tracer",
            'Z' | 'X' => "dead",
            _ => "in an unknown state",
        };
        let threads = count(self.count as u64, "thread");
        match &self.wait_channel {
            Ok(place) if place != "0" => format!("{threads} {state} in {}", escape(place)),
            _ => format!("{threads} {state}"),
        }
    }
}

fn count(number: u64, what: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {what}{plural}")
}
