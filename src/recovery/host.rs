//! Implements the steps' [`Host`] with the real machine. It contains as little logic as possible, because
//! the simulation replaces it.

use std::cell::{Cell, RefCell};
use std::collections::HashSet;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, SystemTime};

use nix::errno::Errno;
use nix::sys::signal::Signal;
use nix::sys::socket::{getsockopt, sockopt};

use super::observation::{GuardContext, Members, Observation, Process, Sockets, TcpFacts};
use super::pidfd::PidFd;
use super::sock_diag::SockDiag;
use super::socket_log::SocketLog;
use super::steps::{Host, NotSent};
use super::systemctl::Systemctl;
use super::tcp_diag::States;
use super::tcp_table::{TcpSocket, canonical};
use super::unit::UnitState;
use super::{
    CoreProber, Evidence, FinalProbe, Listener, MainPid, dump, evidence, processes, tcp_owners,
};
use super::{socket_watch, unix_owner};
use crate::clock::Monotonic;
use crate::escape::escape;
use crate::manifest::{DumpSignal, Manifest, RecoveryPlan, Scope, SocketPath, Source};
use crate::privileges::Caller;

/// How often an observation that may lead to a signal reads the socket table: a single read of a counter may
/// be too high.
const DUMPS: usize = 3;

/// This machine.
pub(super) struct Machine<'a> {
    systemctl: Systemctl,
    context: &'a GuardContext<'a>,
    port: u16,
    unix_socket: Option<&'a SocketPath>,
    prober: &'a dyn CoreProber,
    log: &'a dyn Fn(&str),
    sock_diag: RefCell<Option<SockDiag>>,
    /// Whether the first observation has been made.
    has_observed: Cell<bool>,
    /// The log of each connection since the sweep began.
    progress: RefCell<Result<SocketLog, String>>,
}

/// A process, held by a pidfd.
pub(super) struct Held {
    pid: MainPid,
    fd: PidFd,
}

impl<'a> Machine<'a> {
    pub(super) fn new(
        context: &'a GuardContext<'a>,
        manifest: &'a Manifest,
        progress: Option<Result<SocketLog, String>>,
        prober: &'a dyn CoreProber,
        log: &'a dyn Fn(&str),
    ) -> Self {
        Self {
            systemctl: Systemctl::new(context.scope),
            context,
            port: manifest.base_url.port(),
            unix_socket: manifest.unix_socket.as_ref(),
            prober,
            log,
            sock_diag: RefCell::default(),
            has_observed: Cell::new(false),
            progress: RefCell::new(progress.unwrap_or_else(|| Ok(SocketLog::default()))),
        }
    }

    fn table(&self) -> Result<Vec<TcpSocket>, String> {
        socket_watch::dump(&mut self.sock_diag.borrow_mut(), self.port, States::All)
    }

    fn tcp_facts(&self, unit: &UnitState, manager: Option<&str>) -> Result<TcpFacts, String> {
        let mut progress = self.progress.borrow_mut();
        let log = progress.as_mut().map_err(|why| why.clone())?;
        let mut table = self.table()?;
        log.record(&table);
        if self.has_observed.replace(true) {
            for _ in 1..DUMPS {
                table = self.table()?;
                log.record(&table);
            }
        }
        let own: HashSet<SocketAddr> = (self.prober.connections().into_iter())
            .map(|connection| canonical(connection.local))
            .collect();
        Ok(TcpFacts {
            owners: tcp_owners::owners(unit, manager, &self.systemctl, &table)?,
            progress: log.sign(&table, &self.context.silent_at, &own),
            accepted: log.accepted_after_sweep(&table, &self.context.silent_at),
            sweep_reached: log.was_reached(&table, &self.context.silent_at, &own),
            table,
        })
    }
}

impl Host for Machine<'_> {
    type Process = Held;

    fn now(&self) -> Monotonic {
        Monotonic::now()
    }

    fn wall_clock(&self) -> SystemTime {
        SystemTime::now()
    }

    fn pause(&self, length: Duration) {
        std::thread::sleep(length);
    }

    fn show(&self) -> Result<UnitState, String> {
        self.systemctl.show(self.context.unit)
    }

    fn open(&self, pid: MainPid) -> Result<Option<Held>, String> {
        match PidFd::open(pid.get()) {
            Ok(fd) => Ok(Some(Held { pid, fd })),
            Err(Errno::ESRCH) => Ok(None),
            Err(error) => Err(format!(
                "process {}: cannot open a pidfd (requires Linux 5.3): {error}",
                pid.get()
            )),
        }
    }

    fn inspect(&self, process: &Held) -> Process {
        let vitals = processes::vitals(process.pid.get());
        // Checked last: while the process lives, its PID is not reused, so the facts are its own.
        if process.fd.died_within(Duration::ZERO) {
            return Process::Gone("it has died");
        }
        vitals.map_or(Process::Hidden, Process::Alive)
    }

    fn members(&self, unit: &UnitState) -> Result<Members, String> {
        let group = unit.group.as_ref().map_err(|why| why.0.clone())?;
        processes::members(group, *unit.main_pid.as_ref().unwrap_or(&0))
    }

    fn sockets(&self, unit: &UnitState, main: &Process) -> Result<Sockets, String> {
        let manager = main.manager_group();
        match self.unix_socket {
            None => self.tcp_facts(unit, manager).map(Sockets::Tcp),
            Some(path) => {
                let peers = self.prober.unix_peers();
                let facts = unix_owner::facts(path, unit, &peers, manager, &self.systemctl);
                Ok(Sockets::Unix(facts))
            }
        }
    }

    fn evidence(
        &self,
        process: &Held,
        first: &Observation,
        probe: &dyn FinalProbe,
        until: Monotonic,
    ) -> Evidence {
        let group = first.unit.group.as_ref().ok();
        let mut seen =
            evidence::processes(process.pid.get(), group, self.context.dump_signal, until);
        seen.listener = match &first.sockets {
            Ok(Sockets::Tcp(facts)) => evidence::listener(
                facts,
                &self.context.silent_at,
                self.context.unit,
                &probe.connections(),
                &self.table().unwrap_or_default(),
            ),
            Ok(Sockets::Unix(facts)) => evidence::unix_listener(facts, self.context.unit),
            Err(_) => Listener::default(),
        };
        seen
    }

    fn log(&self, line: &str) {
        (self.log)(line);
    }

    fn signal(&self, process: &Held, signal: Option<Signal>) -> Result<(), NotSent> {
        let result = match signal {
            Some(signal) => process.fd.signal(signal),
            None => process.fd.may_signal(),
        };
        result.map_err(|error| match error {
            Errno::ESRCH => NotSent::Gone,
            error => NotSent::Refused(error.to_string()),
        })
    }

    fn dump(&self, unit: &UnitState, signal: DumpSignal) -> Vec<u32> {
        let group = unit.group.as_ref().ok();
        group.map_or_else(Vec::new, |group| {
            dump::send(group, signal, self.context.own_pid)
        })
    }

    fn died_within(&self, process: &Held, at_most: Duration) -> bool {
        process.fd.died_within(at_most)
    }
}

/// The facts about this machine and `plan`, without those about a sweep.
pub(super) fn context(plan: &RecoveryPlan) -> GuardContext<'_> {
    GuardContext {
        unit: plan.unit.as_str(),
        scope: plan.scope,
        signal: plan.signal,
        dump_signal: plan.dump_signal,
        min_uptime: plan.min_uptime,
        verify: plan.verify,
        dry_run: true,
        sweep_began: Monotonic::now(),
        silent_at: Vec::new(),
        starved: None,
        own_pid: std::process::id(),
        user_manager: user_manager(plan.scope),
        not_local: None,
        manifest_writable: None,
    }
}

/// Why another user may have written the manifest from `source`, if that is possible and this process may
/// kill any process.
pub(super) fn manifest_writable(source: &Source) -> Option<String> {
    let caller = Caller::current();
    let found = source
        .writable_by_others(caller)
        .filter(|_| caller.may_kill)?;
    Some(format!(
        "{found}, who could have any process killed; run \"{}\" to secure it",
        found.remedy()
    ))
}

/// The process that serves the private socket of this user's manager, which `systemctl --user` uses.
fn user_manager(scope: Scope) -> Option<u32> {
    if scope != Scope::User {
        return None;
    }
    let folder = std::env::var_os("XDG_RUNTIME_DIR")?;
    let socket = UnixStream::connect(Path::new(&folder).join("systemd/private")).ok()?;
    let peer = getsockopt(&socket, sockopt::PeerCredentials).ok()?;
    u32::try_from(peer.pid()).ok().filter(|&pid| pid > 1)
}

/// Why the base URL may resolve to another machine, if that is possible.
pub(super) fn not_local(addresses: &Result<Vec<SocketAddr>, String>) -> Option<String> {
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

/// Whether `address` belongs to this machine. Only for an address of this machine does the kernel choose
/// the peer's address as the local one; listing the interfaces would need AF_NETLINK, which hardened units
/// forbid.
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
