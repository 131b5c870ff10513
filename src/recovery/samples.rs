//! Facts for tests: rows of the socket table, parked requests, what systemctl prints, and a machine that is made
//! of them.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use nix::errno::Errno;
use nix::sys::signal::Signal;

use super::MainPid;
use super::cgroup::ControlGroup;
use super::evidence::ProcessEvidence;
use super::facts::{Context, Group, MainProcess, Member, Vitals};
use super::machine::{GroupPath, Host};
use super::proc::Status;
use super::sockets::Reading;
use super::sockets::tcp::{TcpSocket, TcpState};
use super::sockets::unix::UnixListener;
use super::systemd::Unit;
use crate::clock::Monotonic;
use crate::manifest::{KillSignal, RecoveryPlan, Scope};
use crate::sweep::{Connection, ParkedRequest, ParkedState, Reach};

/// When the tests' facts are observed.
pub(super) const NOW: u64 = 10_000;

/// A moment, in seconds.
pub(super) fn at(seconds: u64) -> Monotonic {
    Monotonic::from_micros(seconds * 1_000_000)
}

/// A listener whose queue is not full.
pub(super) fn listener(address: &str, cookie: u64) -> TcpSocket {
    let local: SocketAddr = address.parse().unwrap();
    TcpSocket {
        state: TcpState::Listen,
        local,
        remote: SocketAddr::new(local.ip(), 0),
        cookie,
        inode: 700,
        receive_queue: 0,
        send_queue: 128,
        group: None,
        ipv6_only: false,
    }
}

/// A listener at the wildcard address.
pub(super) fn wildcard(address: &str, cookie: u64) -> TcpSocket {
    listener(address, cookie)
}

/// A server's end at 127.0.0.1:80 that has not been accepted.
pub(super) fn connection(cookie: u64, client: u16) -> TcpSocket {
    TcpSocket {
        state: TcpState::Open,
        remote: SocketAddr::new([127, 0, 0, 1].into(), client),
        inode: 0,
        send_queue: 0,
        ..listener("127.0.0.1:80", cookie)
    }
}

pub(super) fn accepted(socket: TcpSocket) -> TcpSocket {
    TcpSocket {
        inode: 800,
        ..socket
    }
}

pub(super) fn in_state(socket: TcpSocket, state: TcpState) -> TcpSocket {
    TcpSocket { state, ..socket }
}

pub(super) fn in_group(socket: TcpSocket, group: u64) -> TcpSocket {
    TcpSocket {
        group: Some(group),
        ..socket
    }
}

/// A listener with this many connections in its queue.
pub(super) fn with_queue(listener: TcpSocket, waiting: u32) -> TcpSocket {
    TcpSocket {
        receive_queue: waiting,
        ..listener
    }
}

/// The first attempt of the first core route, parked from this port to 127.0.0.1:80.
pub(super) fn parked(local: u16) -> ParkedRequest {
    let ip = [127, 0, 0, 1];
    ParkedRequest {
        route: 0,
        round: 1,
        first_attempt: true,
        began: at(NOW - 60),
        timed_out: at(NOW - 50),
        connection: Some(Connection {
            local: SocketAddr::from((ip, local)),
            remote: SocketAddr::from((ip, 80)),
        }),
        reach: Reach::Acknowledged,
        state: ParkedState::Waiting,
    }
}

/// A unit that may be killed, with these properties replaced or added; `-` leaves one out.
pub(super) fn unit(changes: &[(&str, &str)]) -> Unit {
    Unit::parse(show(changes).as_bytes()).unwrap()
}

/// What `systemctl show` prints about [`unit`].
pub(super) fn show(changes: &[(&str, &str)]) -> String {
    let mut properties = BTreeMap::from([
        ("Id", "demo.service"),
        ("LoadState", "loaded"),
        ("ActiveState", "active"),
        ("SubState", "running"),
        ("Result", "success"),
        ("MainPID", "4711"),
        ("ControlGroup", "/system.slice/demo.service"),
        ("InvocationID", "0123456789abcdef0123456789abcdef"),
        ("ExecMainStartTimestampMonotonic", "1000000000"),
        ("StateChangeTimestampMonotonic", "1000000000"),
        ("Job", ""),
        ("FreezerState", "running"),
        ("NeedDaemonReload", "no"),
        ("NRestarts", "0"),
        ("TriggeredBy", ""),
        ("Restart", "always"),
        ("RestartUSec", "100ms"),
        ("SuccessExitStatus", ""),
        ("RestartPreventExitStatus", ""),
        ("RestartForceExitStatus", ""),
        ("RemainAfterExit", "no"),
        ("ExitType", "main"),
        ("KillMode", "control-group"),
        ("SendSIGKILL", "yes"),
        ("TimeoutStartUSec", "1min 30s"),
        ("TimeoutStopUSec", "1min 30s"),
        ("StartLimitIntervalUSec", "10s"),
        ("StartLimitBurst", "5"),
        ("StartLimitAction", "none"),
        ("FailureAction", "none"),
        ("SuccessAction", "none"),
        ("OnFailure", ""),
        ("OnFailureJobMode", "replace"),
        ("Requires", ""),
        ("Requisite", ""),
        ("BindsTo", ""),
        ("PartOf", ""),
        ("Wants", ""),
        ("After", ""),
        ("BoundBy", ""),
        ("PropagatesStopTo", ""),
        ("StopPropagatedFrom", ""),
        ("Upholds", ""),
        ("WorkingDirectory", ""),
        ("RootDirectory", ""),
        ("RootImage", ""),
    ]);
    for (name, value) in changes {
        if *value == "-" {
            properties.remove(name);
        } else {
            properties.insert(name, value);
        }
    }
    let lines = properties.iter();
    lines
        .map(|(name, value)| format!("{name}={value}\n"))
        .collect()
}

/// The context of a backend at 127.0.0.1:80 whose hang the sweep has proved.
pub(super) fn context() -> Context {
    Context {
        plan: RecoveryPlan {
            unit: "demo.service".parse().unwrap(),
            scope: Scope::System,
            signal: KillSignal::Kill,
            dump_signal: None,
            min_uptime: Duration::from_secs(120),
            grace: Duration::from_secs(30),
            verify: Duration::from_secs(60),
        },
        dry_run: false,
        hung_since: Some(at(NOW - 100)),
        addresses: vec!["127.0.0.1:80".parse().unwrap()],
        no_handshake: false,
        starved: None,
        own_pid: 4_000,
        not_local: None,
        manifest_writable: None,
    }
}

/// A living main process.
pub(super) fn vitals() -> Vitals {
    Vitals {
        age: Duration::from_secs(NOW - 1_000),
        status: status(),
        group: Some("/system.slice/demo.service".to_owned()),
        parent_group: Some("/init.scope".to_owned()),
    }
}

/// What /proc shows of a child of process 1 that nothing disturbs.
pub(super) fn status() -> Status {
    Status {
        parent: 1,
        tracer: 0,
        state: 'S',
        dumping: false,
        kill_pending: false,
        resident: None,
        handled: 0,
    }
}

/// A process of the unit that nothing disturbs.
pub(super) fn member(pid: u32) -> Member {
    Member {
        pid,
        handled: 0,
        disturbance: None,
    }
}

/// A machine that always shows the same facts.
#[derive(Clone, Debug)]
pub(super) struct Still {
    /// What systemctl prints about the unit.
    pub(super) unit: Result<Unit, String>,
    pub(super) neighbours: Result<Vec<Unit>, String>,
    pub(super) missing: Option<String>,
    pub(super) process: MainProcess,
    pub(super) group: Result<Group, String>,
    /// The ids of groups, by their paths.
    pub(super) groups: BTreeMap<String, u64>,
    pub(super) rows: Result<Vec<TcpSocket>, String>,
    /// With a UNIX socket: its listeners, and the groups of their processes.
    pub(super) unix: Option<Vec<UnixListener>>,
    pub(super) unix_groups: Vec<Result<String, String>>,
    pub(super) parked: Vec<ParkedRequest>,
    pub(super) may_signal: Result<(), Errno>,
    pub(super) lines: RefCell<Vec<String>>,
}

/// The group of the unit of [`Still`], and its path.
pub(super) const OWN_PATH: &str = "/system.slice/demo.service";
pub(super) const GROUP: u64 = 7;

impl Still {
    /// A machine on which [`context`]'s backend hangs, and may be killed.
    pub(super) fn hung() -> Self {
        Self {
            unit: Ok(unit(&[])),
            neighbours: Ok(Vec::new()),
            missing: None,
            process: MainProcess::Alive(vitals()),
            group: Ok(Group {
                members: vec![member(4_711)],
                frozen: None,
                cpu: None,
            }),
            groups: [(OWN_PATH.to_owned(), GROUP)].into(),
            rows: Ok(vec![
                in_group(with_queue(listener("127.0.0.1:80", 1), 1), GROUP),
                in_group(connection(2, 50_000), GROUP),
            ]),
            unix: None,
            unix_groups: Vec::new(),
            parked: vec![parked(50_000)],
            may_signal: Ok(()),
            lines: RefCell::default(),
        }
    }
}

impl Host for Still {
    type Process = MainPid;

    fn now(&self) -> Monotonic {
        at(NOW)
    }

    fn wall_clock(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(NOW)
    }

    fn pause(&self, _: Duration) {}

    fn show(&self, _: &str) -> Result<Unit, String> {
        self.unit.clone()
    }

    fn neighbours(&self, _: &Unit) -> Result<Vec<Unit>, String> {
        self.neighbours.clone()
    }

    fn missing_path(&self, _: &Unit) -> Option<String> {
        self.missing.clone()
    }

    fn open(&self, pid: MainPid) -> Result<MainPid, Errno> {
        Ok(pid)
    }

    fn inspect(&self, _: &MainPid) -> MainProcess {
        self.process.clone()
    }

    fn group(&self, _: &ControlGroup) -> Result<Group, String> {
        self.group.clone()
    }

    fn read_sockets(&self) -> Result<Reading, String> {
        if let Some(listeners) = &self.unix {
            return Ok(Reading::Unix {
                at: at(NOW),
                path: "/run/demo.sock".into(),
                listeners: listeners.clone(),
            });
        }
        let rows = self.rows.clone()?;
        let listeners = rows
            .iter()
            .filter(|row| row.state == TcpState::Listen)
            .copied();
        let listeners_after: Vec<_> = listeners.collect();
        Ok(Reading::Tcp {
            at: at(NOW),
            rows,
            listeners_after,
        })
    }

    fn groups_of(&self, reading: &Reading, _: &ControlGroup) -> Vec<GroupPath> {
        let path = |id| {
            let mut groups = self.groups.iter();
            let found = groups.find(|(_, known)| **known == id);
            let path = found.map(|(path, _)| path.clone());
            path.ok_or_else(|| "its group no longer exists".to_owned())
        };
        let ids = reading.rows().iter().filter_map(|row| row.group);
        let tcp = ids.map(|id| (Some(id), path(id)));
        let unix = self.unix_groups.iter().map(|path| (None, path.clone()));
        tcp.chain(unix).collect()
    }

    fn parked(&self) -> Vec<ParkedRequest> {
        self.parked.clone()
    }

    fn processes(&self, _: MainPid, _: &Group, _: Monotonic) -> Vec<ProcessEvidence> {
        Vec::new()
    }

    fn log(&self, line: &str) {
        self.lines.borrow_mut().push(line.to_owned());
    }

    fn signal(&self, _: &MainPid, _: Option<Signal>) -> Result<(), Errno> {
        self.may_signal
    }

    fn ask_for_stacks(&self, _: &Group, _: &ControlGroup, _: Signal) -> Vec<u32> {
        Vec::new()
    }

    fn died_within(&self, _: &MainPid, _: Duration) -> bool {
        false
    }

    fn core_answers(&self, _: Monotonic) -> bool {
        false
    }
}
