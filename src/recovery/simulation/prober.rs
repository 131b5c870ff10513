//! Implements the prober's traits with the simulated world.

use std::net::SocketAddr;
use std::time::Duration;

use super::super::samples;
use super::super::{CoreProber, FinalProbe};
use super::watchdog::Watchdog;
use crate::cause::TransportError;
use crate::clock::Monotonic;
use crate::sweep::{Connection, ProbeConnection, ProbeStatus, UnixPeer};

impl CoreProber for Watchdog {
    fn final_probe(&self) -> Box<dyn FinalProbe> {
        let asked = self.act(|machine| {
            let reached = !machine.world.filtered;
            let asked = machine.world.main().map(|main| main.identity);
            machine.records[self.me].asked = asked.map(|asked| (asked, reached));
            asked
        });
        Box::new(Asked {
            watchdog: self.clone(),
            asked,
        })
    }

    fn core_answers(&self, until: Monotonic) -> bool {
        self.act(|machine| {
            let left = until.since(machine.world.at());
            let answers = machine
                .world
                .main()
                .is_some_and(|main| !main.silent && !main.zombie);
            let takes = Duration::from_millis(if answers { 1 } else { 500 });
            machine.world.pass(takes.min(left));
            answers
        })
    }

    fn addresses(&self) -> Result<Vec<SocketAddr>, String> {
        Err("the steps do not ask".to_owned())
    }

    fn connections(&self) -> Vec<Connection> {
        Vec::new()
    }

    fn unix_peers(&self) -> Vec<UnixPeer> {
        Vec::new()
    }
}

/// The final probe: the process that existed when it was sent answers it, or it ends with that process.
struct Asked {
    watchdog: Watchdog,
    asked: Option<u64>,
}

impl FinalProbe for Asked {
    fn status(&self) -> ProbeStatus {
        self.watchdog.act(|machine| {
            let asked = self.asked;
            let process = machine
                .world
                .processes
                .values()
                .find(|process| Some(process.identity) == asked && !process.zombie);
            let (status, against) = match process {
                None => (reset(), Some("connection ended")),
                Some(process) if !process.silent => (ProbeStatus::Answered, Some("answered")),
                Some(_) => (ProbeStatus::Silent, None),
            };
            machine.records[self.watchdog.me].against.probe = against;
            status
        })
    }

    fn connections(&self) -> Vec<ProbeConnection> {
        samples::probe(true).connections
    }
}

fn reset() -> ProbeStatus {
    ProbeStatus::Ended {
        error: TransportError::Reset,
        detail: "reset".to_owned(),
    }
}
