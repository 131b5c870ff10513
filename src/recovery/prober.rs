//! Implements the operations that recovery needs with the prober of the sweep.

use std::net::SocketAddr;

use super::{CoreProber, FinalProbe};
use crate::cause::TransportError;
use crate::clock::Monotonic;
use crate::sweep::{self, Connection, ProbeConnection, ProbeStatus, Prober, UnixPeer};

impl CoreProber for Prober<'_> {
    fn final_probe(&self) -> Box<dyn FinalProbe> {
        Box::new(Prober::final_probe(self))
    }

    fn core_answers(&self, until: Monotonic) -> bool {
        Prober::core_answers(self, until)
    }

    fn addresses(&self) -> Result<Vec<SocketAddr>, String> {
        self.lookup()()
    }

    fn connections(&self) -> Vec<Connection> {
        Prober::connections(self)
    }

    fn unix_peers(&self) -> Vec<UnixPeer> {
        Prober::unix_peers(self)
    }
}

/// A final probe that could not be started counts as one that failed.
impl FinalProbe for anyhow::Result<sweep::FinalProbe> {
    fn status(&self) -> ProbeStatus {
        match self {
            Ok(probe) => probe.status(),
            Err(error) => ProbeStatus::Ended {
                error: TransportError::Network,
                detail: format!("{error:#}"),
            },
        }
    }

    fn connections(&self) -> Vec<ProbeConnection> {
        self.as_ref()
            .map_or_else(|_| Vec::new(), |probe| probe.connections())
    }
}
