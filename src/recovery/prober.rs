//! What recovery asks of the prober, answered by the one that made the sweep.

use std::net::SocketAddr;

use super::{Backend, Heard, Knock};
use crate::clock::Monotonic;
use crate::sweep::{FinalProbe, ProbeStatus, Prober};

impl Backend for Prober<'_> {
    fn knock(&self) -> Box<dyn Knock> {
        match self.final_probe() {
            Ok(knock) => Box::new(knock),
            Err(error) => Box::new(NoKnock(format!("{error:#}"))),
        }
    }

    fn core_answers(&self, until: Monotonic) -> bool {
        Prober::core_answers(self, until)
    }

    fn addresses(&self) -> Result<Vec<SocketAddr>, String> {
        self.lookup()()
    }
}

impl Knock for FinalProbe {
    fn heard(&self) -> Heard {
        match self.status() {
            ProbeStatus::Silent => Heard::Nothing,
            ProbeStatus::Answered => Heard::Byte,
            ProbeStatus::Ended { detail, .. } => Heard::Ended(detail),
        }
    }

    fn connection(&self) -> Option<(SocketAddr, SocketAddr)> {
        let all = self.connections();
        let established = all.iter().find(|one| one.established)?;
        Some((established.connection.local, established.connection.remote))
    }
}

/// A last GET that could not be sent, which leaves a doubt like one that was cut off.
struct NoKnock(String);

impl Knock for NoKnock {
    fn heard(&self) -> Heard {
        Heard::Ended(self.0.clone())
    }

    fn connection(&self) -> Option<(SocketAddr, SocketAddr)> {
        None
    }
}
