//! Everything that a recovery reads of this machine and does to it.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::{Duration, SystemTime};

use nix::errno::Errno;
use nix::sys::signal::Signal;

use super::cgroup::{ControlGroup, Hierarchy};
use super::evidence::{self, ProcessEvidence};
use super::facts::{Context, Group, MainProcess};
use super::pidfd::PidFd;
use super::sockets::owners::unix_groups;
use super::sockets::{Place, Reading};
use super::systemd::{Systemctl, Unit, missing_path};
use super::{MainPid, RecoveryRequest, proc, stacks};
use crate::clock::Monotonic;
use crate::escape::escape;
use crate::manifest::{RecoveryPlan, Source};
use crate::privileges::Caller;
use crate::sweep::{ParkedRequest, UnixPeer};

/// A control group's id, where the kernel shows it, and its path, or why that is unknown.
pub(super) type GroupPath = (Option<u64>, Result<String, String>);

/// The operations on the machine that a recovery needs, with as little logic as possible, because the simulation
/// replaces them. Errors are messages.
pub(super) trait Host {
    /// A handle to one process, independent of its PID.
    type Process;

    fn now(&self) -> Monotonic;
    /// The current time for people and the journal.
    fn wall_clock(&self) -> SystemTime;
    fn pause(&self, length: Duration);
    fn show(&self, unit: &str) -> Result<Unit, String>;
    /// Asks systemd about the units that decide what a kill of `unit` sets off.
    fn neighbours(&self, unit: &Unit) -> Result<Vec<Unit>, String>;
    /// What is wrong with a path that the restart of `unit` needs; for people.
    fn missing_path(&self, unit: &Unit) -> Option<String>;
    /// Opens the process that has this PID now; `ESRCH` if there is none.
    fn open(&self, pid: MainPid) -> Result<Self::Process, Errno>;
    fn inspect(&self, process: &Self::Process) -> MainProcess;
    /// A control group with its processes.
    fn group(&self, group: &ControlGroup) -> Result<Group, String>;
    /// Reads the sockets at which the requests wait: the listeners and, if the backend hangs, the connections, which
    /// otherwise do not matter.
    fn read_sockets(&self) -> Result<Reading, String>;
    /// The paths of the control groups that created these sockets, by their ids; without one over a UNIX socket, those
    /// of the processes that have listened there, in this order. `own` is the unit's group.
    fn groups_of(&self, reading: &Reading, own: &ControlGroup) -> Vec<GroupPath>;
    fn parked(&self) -> Vec<ParkedRequest>;
    /// Records what process `main` and then the others of `group` are doing, by `until` at the latest.
    fn processes(&self, main: MainPid, group: &Group, until: Monotonic) -> Vec<ProcessEvidence>;
    /// Logs the line before a signal.
    fn log(&self, line: &str);
    /// Sends the signal; with none, only checks whether one would be permitted. `ESRCH` if the process has died.
    fn signal(&self, process: &Self::Process, signal: Option<Signal>) -> Result<(), Errno>;
    /// Sends `signal` to each process of `group` that catches it and does not block it, and returns their PIDs.
    fn ask_for_stacks(&self, group: &Group, path: &ControlGroup, signal: Signal) -> Vec<u32>;
    /// Waits for the process to die, and returns whether it did within `at_most`.
    fn died_within(&self, process: &Self::Process, at_most: Duration) -> bool;
    /// Probes every core route once and returns whether all are `ok` or `rate_limited`, by `until` at the latest.
    fn core_answers(&self, until: Monotonic) -> bool;
}

/// This machine.
pub(super) struct Machine<'a> {
    pub(super) systemctl: Systemctl,
    /// Where the backend listens.
    pub(super) place: Place,
    /// Lists the peers of the probes' connections to its UNIX socket.
    pub(super) unix_peers: Box<dyn Fn() -> Vec<UnixPeer> + Send + 'a>,
    /// The recovery, if the backend hangs.
    pub(super) hung: Option<&'a RecoveryRequest<'a>>,
}

impl Host for Machine<'_> {
    type Process = PidFd;

    fn now(&self) -> Monotonic {
        Monotonic::now()
    }

    fn wall_clock(&self) -> SystemTime {
        SystemTime::now()
    }

    fn pause(&self, length: Duration) {
        std::thread::sleep(length);
    }

    fn show(&self, unit: &str) -> Result<Unit, String> {
        self.systemctl.show(unit)
    }

    fn neighbours(&self, unit: &Unit) -> Result<Vec<Unit>, String> {
        self.systemctl.neighbours(unit)
    }

    fn missing_path(&self, unit: &Unit) -> Option<String> {
        missing_path(unit)
    }

    fn open(&self, pid: MainPid) -> Result<PidFd, Errno> {
        PidFd::open(pid.get())
    }

    fn inspect(&self, process: &PidFd) -> MainProcess {
        let vitals = proc::vitals(process.pid());
        // Checked last: while the process lives, its PID is not reused, so the facts are its own.
        if process.died_within(Duration::ZERO) {
            return MainProcess::Gone("it has died");
        }
        vitals.map_or(MainProcess::Hidden, MainProcess::Alive)
    }

    fn group(&self, group: &ControlGroup) -> Result<Group, String> {
        Hierarchy::find()?.group(group)
    }

    fn read_sockets(&self) -> Result<Reading, String> {
        self.place.read(self.hung.is_some())
    }

    fn groups_of(&self, reading: &Reading, own: &ControlGroup) -> Vec<GroupPath> {
        match reading {
            Reading::Tcp { rows, .. } => {
                let ids: BTreeSet<u64> = rows.iter().filter_map(|row| row.group).collect();
                let path = |id| Hierarchy::find()?.path_of_id(id, own);
                ids.into_iter().map(|id| (Some(id), path(id))).collect()
            }
            Reading::Unix {
                path, listeners, ..
            } => {
                let peers = (self.unix_peers)();
                if peers.is_empty() && self.hung.is_none() {
                    // The probes have not connected yet.
                    return vec![(None, Ok(own.as_str().to_owned()))];
                }
                let groups = unix_groups(path, own, &peers, listeners);
                groups.into_iter().map(|path| (None, path)).collect()
            }
        }
    }

    fn parked(&self) -> Vec<ParkedRequest> {
        self.hung.map_or_else(Vec::new, |hung| hung.prober.parked())
    }

    fn processes(&self, main: MainPid, group: &Group, until: Monotonic) -> Vec<ProcessEvidence> {
        let plan = self.hung.and_then(|hung| hung.manifest.recovery.as_ref());
        let dump_signal = plan.and_then(|plan| plan.dump_signal);
        evidence::processes(main.get(), group, dump_signal, until)
    }

    fn log(&self, line: &str) {
        if let Some(hung) = self.hung {
            (hung.log)(line);
        }
    }

    fn signal(&self, process: &PidFd, signal: Option<Signal>) -> Result<(), Errno> {
        process.signal(signal)
    }

    fn ask_for_stacks(&self, group: &Group, path: &ControlGroup, signal: Signal) -> Vec<u32> {
        stacks::ask(group, path, signal)
    }

    fn died_within(&self, process: &PidFd, at_most: Duration) -> bool {
        process.died_within(at_most)
    }

    fn core_answers(&self, until: Monotonic) -> bool {
        self.hung
            .is_some_and(|hung| hung.prober.core_answers(until))
    }
}

/// The context of a backend that is not known to hang. `addresses` are those of its base URL; none over a UNIX socket.
pub(super) fn context(
    plan: RecoveryPlan,
    source: &Source,
    addresses: Option<Result<Vec<SocketAddr>, String>>,
) -> Context {
    Context {
        plan,
        dry_run: true,
        hung_since: None,
        no_handshake: false,
        starved: None,
        own_pid: std::process::id(),
        not_local: addresses.as_ref().and_then(not_local),
        addresses: addresses.and_then(Result::ok).unwrap_or_default(),
        manifest_writable: source
            .writable_by_others(Caller::current(), "who could have any process killed"),
    }
}

/// Why the base URL may resolve to another machine, if that is possible.
fn not_local(addresses: &Result<Vec<SocketAddr>, String>) -> Option<String> {
    let why = match addresses {
        Err(why) => format!("its name cannot be resolved ({})", escape(why)),
        Ok(addresses) if addresses.is_empty() => "its name has no address".to_owned(),
        Ok(addresses) => {
            let foreign = addresses.iter().find(|address| !is_local(**address))?;
            format!("{} is not an address of this machine", foreign.ip())
        }
    };
    Some(format!(
        "base_url may not resolve to this machine: {why}, and a timeout across a network proves nothing about a local process; \
         set it to an address on which the backend listens here, such as 127.0.0.1"
    ))
}

/// Whether `address` belongs to this machine. Only for an address of this machine does the kernel choose the peer's
/// address as the local one; listing the interfaces would need AF_NETLINK, which hardened units forbid.
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
        // Addresses for documentation (RFC 5737, RFC 3849), which no machine has.
        for there in [
            "192.0.2.1:8000",
            "[2001:db8::1]:8000",
            "[::ffff:192.0.2.1]:8000",
        ] {
            let why = not_local(&at(there)).unwrap();
            assert!(why.contains("is not an address of this machine"), "{why}");
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
    fn not_local_knows_the_external_address_of_this_machine() {
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        if socket.connect("192.0.2.1:9").is_ok() {
            assert_eq!(not_local(&Ok(vec![socket.local_addr().unwrap()])), None);
        }
    }
}
