//! What recovery asks of the prober, answered by the one that made the sweep.

use std::net::SocketAddr;

use super::{Backend, Heard, Knock};
use crate::clock::Monotonic;
use crate::sweep::{self, Prober};

impl Backend for Prober<'_> {
    fn knock(&self) -> Box<dyn Knock> {
        match Prober::knock(self) {
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

impl Knock for sweep::Knock {
    fn heard(&self) -> Heard {
        match self.ended() {
            _ if sweep::Knock::heard(self) => Heard::Byte,
            Some(why) => Heard::Ended(why.to_owned()),
            None => Heard::Nothing,
        }
    }

    fn connection(&self) -> Option<(SocketAddr, SocketAddr)> {
        sweep::Knock::connection(self)
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
