//! The evidence on one line, for people.

use std::collections::BTreeMap;

use super::{Evidence, ParkedCounts, ProcessEvidence, SocketEvidence, ThreadGroup};
use crate::escape::escape;

impl Evidence {
    /// One line for people.
    pub fn summary(&self) -> String {
        let main = self.main.as_ref().and_then(ProcessEvidence::summary);
        let parts = [self.listener.summary(), self.parked.summary(), main];
        let parts: Vec<_> = parts.into_iter().flatten().chain(self.others()).collect();
        if parts.is_empty() {
            return "no evidence of the process could be read".to_owned();
        }
        parts.join("; ")
    }

    /// The processes beside the main one, the busiest first; those with the same CPU time are grouped.
    fn others(&self) -> Vec<String> {
        const SHOWN: usize = 3;
        let mut alike: BTreeMap<u64, (u32, usize)> = BTreeMap::new();
        for process in self.processes.iter().skip(1) {
            if let Ok(cpu) = process.cpu {
                let first = alike.entry(cpu.ticks);
                first
                    .and_modify(|(_, more)| *more += 1)
                    .or_insert((process.pid, 0));
            }
        }
        let line = |(ticks, (pid, more)): (&u64, &(u32, usize))| {
            let line = format!("process {pid}: {}", count(*ticks, "CPU tick"));
            match more {
                0 => line,
                _ => format!("{line} (and {more} more alike)"),
            }
        };
        let mut lines: Vec<_> = alike.iter().rev().take(SHOWN).map(line).collect();
        if alike.len() > SHOWN {
            lines.push("…".to_owned());
        }
        lines
    }
}

impl SocketEvidence {
    fn summary(&self) -> Option<String> {
        let (waiting, limit) = self.accept_queue.zip(self.accept_queue_limit)?;
        let waiting = count(waiting, "connection");
        Some(format!("{waiting} in the accept queue (limit {limit})"))
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
        let cpu = self.cpu.ok().map(|cpu| {
            let ticks = count(cpu.ticks, "CPU tick");
            format!("{ticks} in {} ms", cpu.interval_ms)
        });
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
