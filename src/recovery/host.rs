//! The real machine behind the steps; as thin as can be, because only the steps are simulated.

use std::fs;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::signal::Signal;
use nix::time::{ClockId, clock_gettime};

use super::facts::{Process, Vitals};
use super::pidfd::PidFd;
use super::steps::{Host, NotSent};
use super::systemctl::Systemctl;
use super::unit::UnitState;
use super::{Evidence, Knock, MainPid, evidence, proc};
use crate::clock::Monotonic;
use crate::manifest::Source;
use crate::privileges::Caller;
use crate::text::escape;

/// This machine.
pub(super) struct Machine<'a> {
    pub(super) systemctl: Systemctl,
    pub(super) unit: &'a str,
    pub(super) addresses: &'a [SocketAddr],
    pub(super) say: &'a dyn Fn(&str),
}

/// A process that is held on to.
pub(super) struct Held {
    pid: MainPid,
    fd: PidFd,
}

impl Host for Machine<'_> {
    type Process = Held;

    fn now(&self) -> Monotonic {
        Monotonic::now()
    }

    fn pause(&self, length: Duration) {
        std::thread::sleep(length);
    }

    fn show(&self) -> Result<UnitState, String> {
        self.systemctl.show(self.unit)
    }

    fn open(&self, pid: MainPid) -> Result<Option<Held>, String> {
        match PidFd::open(pid.get()) {
            Ok(fd) => Ok(Some(Held { pid, fd })),
            Err(Errno::ESRCH) => Ok(None),
            Err(error) => Err(format!(
                "process {} cannot be held on to by a pidfd, which Linux has since 5.3: {error}",
                pid.get()
            )),
        }
    }

    fn inspect(&self, process: &Held) -> Process {
        let vitals = vitals(process.pid.get());
        // Asked last: as long as it lives its number is its own, and so is what was read.
        if process.fd.died_within(Duration::ZERO) {
            return Process::Gone("it has died");
        }
        vitals.map_or(Process::Hidden, Process::Alive)
    }

    fn evidence(&self, process: &Held, knock: &dyn Knock, until: Monotonic) -> Evidence {
        evidence::gather(process.pid.get(), knock, self.addresses, until)
    }

    fn announce(&self, line: &str) {
        (self.say)(line);
    }

    fn signal(&self, process: &Held, signal: Option<Signal>) -> Result<(), NotSent> {
        process.fd.signal(signal).map_err(|error| match error {
            Errno::ESRCH => NotSent::Gone,
            error => NotSent::Refused(error.to_string()),
        })
    }

    fn died_within(&self, process: &Held, at_most: Duration) -> bool {
        process.fd.died_within(at_most)
    }
}

fn vitals(pid: u32) -> Option<Vitals> {
    let read = |file| {
        let bytes = fs::read(format!("/proc/{pid}/{file}")).ok()?;
        Some(String::from_utf8_lossy(&bytes).into_owned())
    };
    let stat = proc::stat(&read("stat")?)?;
    let status = proc::status(&read("status")?)?;
    let now = clock_gettime(ClockId::CLOCK_BOOTTIME).ok()?;
    Some(Vitals {
        state: stat.state,
        tracer: status.tracer,
        dumping: status.dumping,
        kill_pending: status.kill_pending,
        age: Duration::from(now).saturating_sub(stat.started),
    })
}

/// Why the manifest that came from `source` may be another user's, if this process may kill any
/// process and it may be.
pub(super) fn manifest_writable(source: &Source) -> Option<String> {
    let caller = Caller::current();
    let found = source
        .writable_by_others(caller)
        .filter(|_| caller.may_kill)?;
    Some(format!(
        "{found}, who could have any process killed: \"{}\"",
        found.remedy()
    ))
}

/// Why the base URL may lead to another machine, if it may.
pub(super) fn not_local(addresses: &Result<Vec<SocketAddr>, String>) -> Option<String> {
    let why = match addresses {
        Err(why) => format!("its name cannot be resolved ({})", escape(why)),
        Ok(addresses) if addresses.is_empty() => "its name has no address".to_owned(),
        Ok(addresses) => {
            let foreign = addresses.iter().find(|address| !is_local(**address))?;
            format!("{} is no address of this machine", foreign.ip())
        }
    };
    Some(format!(
        "base_url does not surely lead to this machine: {why}, and a time-out across a network proves nothing about a local process; \
         give the address on which the backend listens here, such as 127.0.0.1"
    ))
}

/// Whether `address` is one of this machine. The kernel chooses a peer's own address as the local
/// one just for its own addresses; a list of the interfaces would need AF_NETLINK, which hardened
/// units forbid.
fn is_local(address: SocketAddr) -> bool {
    let ip = address.ip().to_canonical();
    // Connecting to the unspecified address reaches this machine, ip(7).
    if ip.is_loopback() || ip.is_unspecified() {
        return true;
    }
    let reaches_itself = || {
        let socket = match address {
            SocketAddr::V4(_) => UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)),
            SocketAddr::V6(_) => UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0)),
        }?;
        // Connecting a UDP socket sends nothing; any port will do.
        socket.connect(address)?;
        Ok::<_, std::io::Error>(socket.local_addr()?.ip().to_canonical() == ip)
    };
    reaches_itself().unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn not_local_knows_this_machine_from_others() {
        let at = |text: &str| Ok(vec![text.parse().unwrap()]);
        for here in [
            "127.0.0.1:8000",
            "127.9.9.9:1",
            "[::1]:8000",
            "[::ffff:127.0.0.1]:8000",
            "0.0.0.0:8000",
        ] {
            assert_eq!(not_local(&at(here)), None, "{here}");
        }
        // Addresses for documentation (RFC 5737, RFC 3849): nobody has them.
        for there in [
            "192.0.2.1:8000",
            "[2001:db8::1]:8000",
            "[::ffff:192.0.2.1]:8000",
        ] {
            let why = not_local(&at(there)).unwrap();
            assert!(why.contains("is no address of this machine"), "{why}");
        }
        let both = Ok(vec![
            "127.0.0.1:80".parse().unwrap(),
            "192.0.2.1:80".parse().unwrap(),
        ]);
        assert!(not_local(&both).unwrap().contains("192.0.2.1"));
        assert!(not_local(&Ok(Vec::new())).unwrap().contains("no address"));
        assert!(
            not_local(&Err("no\nsuch name".to_owned()))
                .unwrap()
                .contains("no\\nsuch name")
        );
    }

    #[test]
    fn not_local_knows_the_outward_address_of_this_machine() {
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        if socket.connect("192.0.2.1:9").is_ok() {
            assert_eq!(not_local(&Ok(vec![socket.local_addr().unwrap()])), None);
        }
    }

    #[test]
    fn vitals_are_those_of_the_process() {
        let own = vitals(std::process::id()).unwrap();
        assert!(!own.kill_pending && !own.dumping);
        assert!(own.age < Duration::from_secs(3_600));
        assert_eq!(vitals(u32::MAX), None);
    }
}
