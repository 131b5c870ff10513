use std::net::SocketAddr;
use std::time::Duration;

use super::super::observation::{
    Disturbance, Disturbed, Members, Owner, Parent, ProbeFacts, TcpFacts, UnixFacts, Vitals,
};
use super::super::samples::{connection, in_group, listener, probe, received, written};
use super::super::socket_log::{Served, Sign};
use super::*;
use crate::cause::TransportError;
use crate::manifest::{KillSignal, Scope};
use crate::sweep::ProbeStatus;

const NAME: &str = "demo.service";
const GROUP: &str = "/system.slice/demo.service";

/// A healthy unit's properties, changed as `changes` say; `Key` alone leaves the property out.
fn unit(changes: &[&str]) -> UnitState {
    let mut lines: Vec<String> = "\
LoadState=loaded
ActiveState=active
SubState=running
Result=success
MainPID=4711
ControlGroup=/system.slice/demo.service
InvocationID=fe5921ce7fb248c7935c4f07c95f822f
ExecMainStartTimestampMonotonic=1000000000
Restart=always
SuccessExitStatus=
RestartPreventExitStatus=
RestartForceExitStatus=
Job=
FreezerState=running
KillMode=control-group
SendSIGKILL=yes
TimeoutStopUSec=1min 30s
RestartUSec=100ms
NeedDaemonReload=no
TriggeredBy="
        .lines()
        .map(str::to_owned)
        .collect();
    for change in changes {
        let key = change.split('=').next().unwrap();
        lines.retain(|line| line.split('=').next().unwrap() != key);
        if change.contains('=') {
            lines.push((*change).to_owned());
        }
    }
    UnitState::parse(lines.join("\n").as_bytes()).unwrap()
}

/// The main process started at 1000 s, the sweep began at 1500 s, and now it is 1600 s.
fn at(seconds: u64) -> Monotonic {
    Monotonic::from_micros(seconds * 1_000_000)
}

/// The id of the unit's control group.
const UNIT: u64 = 7;

fn server() -> SocketAddr {
    "127.0.0.1:80".parse().unwrap()
}

fn vitals() -> Vitals {
    Vitals {
        state: 'S',
        dumping: false,
        kill_pending: false,
        age: Duration::from_secs(600),
        group: Some(GROUP.to_owned()),
        parent: Parent {
            pid: 1,
            group: Some("/init.scope".to_owned()),
        },
    }
}

/// A context and two observations that pass every guard.
struct Fixture {
    context: GuardContext<'static>,
    first: Observation,
    now: Observation,
}

impl Fixture {
    fn new() -> Self {
        Self::with(&[])
    }

    /// The second observation has a changed unit.
    fn with(changes: &[&str]) -> Self {
        let context = GuardContext {
            unit: NAME,
            scope: Scope::System,
            signal: KillSignal::Kill,
            dump_signal: None,
            min_uptime: Duration::from_secs(120),
            verify: Duration::from_secs(60),
            dry_run: false,
            sweep_began: at(1_500),
            silent_at: vec![server()],
            starved: None,
            own_pid: 99,
            user_manager: None,
            not_local: None,
            manifest_writable: None,
        };
        let table = vec![
            in_group(listener("127.0.0.1:80", 1), UNIT),
            received(in_group(connection(2, 50_000), UNIT), 100),
        ];
        let now = Observation {
            at: at(1_600),
            unit: unit(changes),
            process: Process::Alive(vitals()),
            members: Ok(Members::default()),
            sockets: Ok(Sockets::Tcp(TcpFacts {
                table,
                owners: [(UNIT, Owner::Unit)].into(),
                progress: None,
                accepted: None,
                sweep_reached: true,
            })),
            probe: Some(probe(true)),
        };
        let first = Observation {
            unit: unit(&[]),
            probe: None,
            ..now.clone()
        };
        Self {
            context,
            first,
            now,
        }
    }

    /// As [`Self::new`], but changed by `change`.
    fn changed(change: impl FnOnce(&mut Self)) -> Self {
        let mut fixture = Self::new();
        change(&mut fixture);
        fixture
    }

    fn tcp(&mut self) -> &mut TcpFacts {
        match &mut self.now.sockets {
            Ok(Sockets::Tcp(facts)) => facts,
            other => panic!("{other:?}"),
        }
    }

    fn vitals(&mut self) -> &mut Vitals {
        match &mut self.now.process {
            Process::Alive(vitals) => vitals,
            other => panic!("{other:?}"),
        }
    }

    fn members(&mut self) -> &mut Members {
        self.now.members.as_mut().unwrap()
    }

    fn guard(&self) -> Option<Guard> {
        let judged = judge(&self.context, &self.now, Some(&self.first));
        judged.err().map(|(guard, _)| guard)
    }

    /// The result for the first observation alone.
    fn guard_at_first(&self) -> Option<Guard> {
        let first = Observation {
            probe: None,
            ..self.now.clone()
        };
        judge(&self.context, &first, None)
            .err()
            .map(|(guard, _)| guard)
    }

    fn message(&self) -> String {
        judge(&self.context, &self.now, Some(&self.first))
            .unwrap_err()
            .1
    }
}

#[test]
fn judge_passes_a_plain_hang() {
    assert_eq!(Fixture::new().guard(), None);
    assert_eq!(Fixture::new().guard_at_first(), None);
}

#[test]
fn judge_reads_the_unit() {
    for (changes, expected) in [
        (&["LoadState=not-found"][..], Some(Guard::NotLoaded)),
        (&["LoadState=masked"], Some(Guard::NotLoaded)),
        (&["LoadState=bad-setting"], Some(Guard::NotLoaded)),
        (&["LoadState"], Some(Guard::Unreadable)),
        (&["ActiveState=activating"], Some(Guard::NotActive)),
        (&["ActiveState=reloading"], Some(Guard::NotActive)),
        (&["ActiveState=deactivating"], Some(Guard::NotActive)),
        (&["ActiveState=failed"], Some(Guard::NotActive)),
        (&["ActiveState"], Some(Guard::Unreadable)),
        (&["MainPID=0"], Some(Guard::MainPid)),
        (&["MainPID=1"], Some(Guard::MainPid)),
        (&["MainPID=99"], Some(Guard::MainPid)),
        (&["MainPID=abc"], Some(Guard::Unreadable)),
        (&["MainPID"], Some(Guard::Unreadable)),
        (&["ControlGroup"], Some(Guard::Unreadable)),
        (&["ControlGroup=/"], Some(Guard::Unreadable)),
        (&["ControlGroup=/system.slice"], None),
        (&["ControlGroup=/system.slice/demo"], Some(Guard::MainPid)),
        (&["InvocationID="], Some(Guard::Unreadable)),
        (
            &["ExecMainStartTimestampMonotonic=0"],
            Some(Guard::Unreadable),
        ),
        (
            &["ExecMainStartTimestampMonotonic"],
            Some(Guard::Unreadable),
        ),
        (&["ExecMainStartTimestampMonotonic=1480000000"], None),
        (
            &["ExecMainStartTimestampMonotonic=1480000001"],
            Some(Guard::TooYoung),
        ),
        (&["Job=68"], Some(Guard::JobQueued)),
        (&["Job"], Some(Guard::Unreadable)),
        (&["FreezerState"], None),
        (&["FreezerState=frozen"], Some(Guard::Frozen)),
        (&["FreezerState=freezing"], Some(Guard::Frozen)),
        (&["FreezerState=thawing"], Some(Guard::Frozen)),
        (&["FreezerState="], Some(Guard::Frozen)),
        (&["Restart"], Some(Guard::Unreadable)),
        (&["Restart=no"], Some(Guard::NoRestart)),
        (&["SuccessExitStatus"], Some(Guard::Unreadable)),
        (&["RestartPreventExitStatus"], Some(Guard::Unreadable)),
        (&["RestartForceExitStatus"], Some(Guard::Unreadable)),
        (
            &[
                "TimeoutStopUSec",
                "RestartUSec",
                "SubState",
                "NeedDaemonReload",
                "KillMode",
                "SendSIGKILL",
            ],
            None,
        ),
    ] {
        assert_eq!(
            Fixture::with(changes).guard_at_first(),
            expected,
            "{changes:?}"
        );
    }
}

#[test]
fn judge_says_what_is_wrong_with_the_unit() {
    for (change, part) in [
        ("LoadState=not-found", "does not exist"),
        ("LoadState=masked", "is masked"),
        ("LoadState=bad-setting", "LoadState=bad-setting"),
        ("MainPID=0", "has no main process"),
        ("MainPID=1", "process 1, which is never signalled"),
        ("MainPID=99", "this program itself (99)"),
        (
            "ControlGroup=/other.service",
            "not in that of demo.service (/other.service)",
        ),
    ] {
        let message = Fixture::with(&[change]).message();
        assert!(message.contains(part), "{change}: {message}");
    }
}

#[test]
fn judge_reads_the_process() {
    let alive = |change: fn(&mut Vitals)| {
        let mut vitals = vitals();
        change(&mut vitals);
        Process::Alive(vitals)
    };
    for (process, expected) in [
        (Process::Gone("it has died"), Some(Guard::Gone)),
        (Process::Hidden, Some(Guard::Unreadable)),
        (alive(|it| it.state = 'D'), None),
        (alive(|it| it.state = 'T'), None),
        (alive(|it| it.state = 'R'), None),
        (alive(|it| it.kill_pending = true), Some(Guard::Gone)),
        (alive(|it| it.age = Duration::from_secs(599)), None),
        (
            alive(|it| it.age = Duration::from_secs(598)),
            Some(Guard::Gone),
        ),
        (alive(|it| it.age = Duration::from_secs(90_000)), None),
        (alive(|it| it.group = Some(format!("{GROUP}/worker"))), None),
        (
            alive(|it| it.group = Some(format!("{GROUP}2"))),
            Some(Guard::MainPid),
        ),
        (
            alive(|it| it.group = Some("/".to_owned())),
            Some(Guard::MainPid),
        ),
        (alive(|it| it.group = None), Some(Guard::Unreadable)),
    ] {
        let fixture = Fixture::changed(|it| it.now.process = process.clone());
        assert_eq!(fixture.guard(), expected, "{process:?}");
    }
}

#[test]
fn judge_compares_the_two_observations() {
    for (changes, expected) in [
        (&["MainPID=4712"][..], Some(Guard::Changed)),
        (
            &["InvocationID=00000000000000000000000000000001"],
            Some(Guard::Changed),
        ),
        (
            &["MainPID=4712", "ExecMainStartTimestampMonotonic=1590000000"],
            Some(Guard::Changed),
        ),
        (&["InvocationID="], Some(Guard::Unreadable)),
        (&["MainPID=0"], Some(Guard::MainPid)),
        (&["Job=1"], Some(Guard::JobQueued)),
        (&["ActiveState=deactivating"], Some(Guard::NotActive)),
    ] {
        assert_eq!(Fixture::with(changes).guard(), expected, "{changes:?}");
    }
}

#[test]
fn judge_reads_the_final_probe() {
    let ended = |error| ProbeStatus::Ended {
        error,
        detail: "why".to_owned(),
    };
    for (status, expected) in [
        (ProbeStatus::Answered, Guard::Answered),
        (ended(TransportError::Reset), Guard::Answered),
        (ended(TransportError::Refused), Guard::ForeignListener),
        (ended(TransportError::Network), Guard::NotReached),
    ] {
        let fixture = Fixture::changed(|it| it.now.probe.as_mut().unwrap().status = status.clone());
        assert_eq!(fixture.guard(), Some(expected), "{status:?}");
    }
    let wrote = Fixture::changed(|it| it.tcp().table[1] = written(it.tcp().table[1], 12));
    assert_eq!(wrote.guard(), Some(Guard::Answered));
}

fn sign() -> Sign {
    Sign {
        client: server(),
        what: Served::Wrote(5),
    }
}

#[test]
fn judge_requires_the_three_proofs() {
    for (change, expected) in [
        (
            (|it| {
                drop(
                    it.tcp()
                        .owners
                        .insert(UNIT, Owner::Foreign("/a.service".to_owned())),
                )
            }) as fn(&mut Fixture),
            Some(Guard::ForeignListener),
        ),
        (|it| it.tcp().owners.clear(), Some(Guard::Unreadable)),
        // Wherever the probes waited.
        (
            |it| it.context.silent_at.push("127.0.0.2:80".parse().unwrap()),
            Some(Guard::ForeignListener),
        ),
        (|it| it.tcp().table.clear(), Some(Guard::ForeignListener)),
        (|it| it.tcp().table.truncate(1), Some(Guard::NotReached)),
        (|it| it.tcp().sweep_reached = false, Some(Guard::NotReached)),
        (
            |it| it.tcp().table[1] = received(it.tcp().table[1], 0),
            Some(Guard::NotReached),
        ),
        (|it| it.tcp().progress = Some(sign()), Some(Guard::Busy)),
        (
            |it| it.now.sockets = Err("no netlink".to_owned()),
            Some(Guard::Unreadable),
        ),
        (
            |it| it.first.sockets = Err("no netlink".to_owned()),
            Some(Guard::Unreadable),
        ),
    ] {
        assert_eq!(Fixture::changed(change).guard(), expected);
    }
}

#[test]
fn judge_requires_less_of_a_unix_socket() {
    let owned_by = |owner| {
        let facts = UnixFacts {
            path: "/run/demo.sock".to_owned(),
            owner,
        };
        let fixture = Fixture::changed(|it| {
            it.first.sockets = Ok(Sockets::Unix(facts.clone()));
            it.now.sockets = Ok(Sockets::Unix(facts));
            it.now.probe = Some(ProbeFacts {
                status: ProbeStatus::Silent,
                connections: vec![],
            });
        });
        fixture.guard()
    };
    let listed = Owner::Manager(vec!["/run/demo.sock".to_owned()]);
    let foreign = Owner::Foreign("/other.service".to_owned());
    for (owner, expected) in [
        (Owner::Unit, None),
        (foreign, Some(Guard::ForeignListener)),
        (listed, None),
        (Owner::Manager(vec![]), Some(Guard::ForeignListener)),
        (
            Owner::Unknown("a full queue".to_owned()),
            Some(Guard::Unreadable),
        ),
    ] {
        assert_eq!(owned_by(owner), expected);
    }
}

#[test]
fn judge_refuses_debugged_dumping_and_frozen_processes() {
    for (by, part) in [
        (
            Disturbance::Tracer(77),
            "process 4720 of the unit is traced by process 77",
        ),
        (Disturbance::TracingStop, "state t"),
        (Disturbance::CoreDump, "is dumping core"),
    ] {
        let fixture = Fixture::changed(|it| {
            it.members().disturbed = Some(Disturbed { pid: 4_720, by });
        });
        assert_eq!(fixture.guard(), Some(Guard::Traced));
        assert!(fixture.message().contains(part), "{}", fixture.message());
    }
    let part = Fixture::changed(|it| it.members().frozen = Some("/system.slice/a/b".to_owned()));
    assert_eq!(part.guard(), Some(Guard::Frozen));
    let hidden = Fixture::changed(|it| it.now.members = Err("hidepid".to_owned()));
    assert_eq!(hidden.guard(), Some(Guard::Unreadable));
}

#[test]
fn judge_reads_the_context() {
    let why = || Some("why".to_owned());
    for (change, expected) in [
        (
            (|it, why| it.context.starved = why) as fn(&mut Fixture, Option<String>),
            Guard::Starved,
        ),
        (|it, why| it.context.not_local = why, Guard::NotLocal),
        (
            |it, why| it.context.manifest_writable = why,
            Guard::ManifestWritable,
        ),
        (|it, _| it.context.sweep_began = at(999), Guard::Restarted),
        (|it, _| it.context.own_pid = 4_711, Guard::MainPid),
        (
            |it, _| it.context.min_uptime = Duration::from_secs(601),
            Guard::TooYoung,
        ),
    ] {
        let fixture = Fixture::changed(|it| change(it, why()));
        assert_eq!(fixture.guard(), Some(expected));
        assert_eq!(fixture.guard_at_first(), Some(expected));
    }
    for change in [
        (|it| it.context.min_uptime = Duration::ZERO) as fn(&mut Fixture),
        |it| it.context.min_uptime = Duration::from_secs(600),
        |it| it.context.sweep_began = at(1_000),
    ] {
        assert_eq!(Fixture::changed(change).guard(), None);
    }
}

/// Removes one reason after the other: the first remaining one must be named, in the order of the list.
#[test]
fn judge_names_the_first_guard_of_the_list() {
    let mut changes = vec![
        "LoadState=masked",
        "ActiveState=failed",
        "MainPID=1",
        "Restart=no",
        "Job=1",
        "FreezerState=frozen",
    ];
    let mut fixture = Fixture::changed(|it| {
        it.context.starved = Some("late".to_owned());
        it.context.not_local = Some("far".to_owned());
        it.context.manifest_writable = Some("open".to_owned());
        it.first.unit = unit(&["MainPID=4700", "ExecMainStartTimestampMonotonic=1590000000"]);
        it.now.process = Process::Gone("it has died");
        it.now.probe.as_mut().unwrap().status = ProbeStatus::Answered;
        it.members().disturbed = Some(Disturbed {
            pid: 4_711,
            by: Disturbance::TracingStop,
        });
        let facts = it.tcp();
        facts.owners.insert(UNIT, Owner::Foreign("/a".to_owned()));
        facts.table[1] = received(facts.table[1], 0);
        facts.progress = Some(sign());
    });
    let mut named = Vec::new();
    while named.len() < 20 {
        fixture.now.unit = unit(&changes);
        let Some(guard) = fixture.guard() else { break };
        named.push(guard.name());
        let mut drop = |key: &str| changes.retain(|change| !change.starts_with(key));
        match guard {
            Guard::NotLoaded => drop("LoadState"),
            Guard::NotActive => drop("ActiveState"),
            Guard::MainPid => drop("MainPID"),
            Guard::TooYoung => fixture.context.min_uptime = Duration::ZERO,
            Guard::Restarted => fixture.first.unit = unit(&["MainPID=4700"]),
            Guard::Changed => fixture.first.unit = unit(&[]),
            Guard::Gone => fixture.now.process = Process::Alive(vitals()),
            Guard::Answered => fixture.now.probe = Some(probe(true)),
            Guard::NotLocal => fixture.context.not_local = None,
            Guard::ForeignListener => {
                fixture.tcp().owners.insert(UNIT, Owner::Unit);
            }
            Guard::NotReached => {
                let facts = fixture.tcp();
                facts.table[1] = received(facts.table[1], 1);
            }
            Guard::Busy => fixture.tcp().progress = None,
            Guard::NoRestart => drop("Restart"),
            Guard::JobQueued => drop("Job"),
            Guard::Traced => fixture.members().disturbed = None,
            Guard::Frozen => drop("FreezerState"),
            Guard::Starved => fixture.context.starved = None,
            Guard::ManifestWritable => fixture.context.manifest_writable = None,
            Guard::Unreadable => break,
        }
    }
    assert_eq!(
        named,
        [
            "not_loaded",
            "not_active",
            "main_pid",
            "too_young",
            "restarted",
            "changed",
            "gone",
            "answered",
            "not_local",
            "foreign_listener",
            "not_reached",
            "busy",
            "no_restart",
            "job_queued",
            "traced",
            "frozen",
            "starved",
            "manifest_writable",
        ]
    );
}

/// A guard that lacks a fact refuses in its own position: after the guards before it, before those after it.
#[test]
fn judge_names_unreadable_in_the_position_of_the_guard_that_lacks_a_fact() {
    let unreadable = Some(Guard::Unreadable);
    for (changes, expected) in [
        (&["LoadState", "ActiveState=failed"][..], unreadable),
        (&["LoadState=masked", "ActiveState"], Some(Guard::NotLoaded)),
        (&["ActiveState", "MainPID=0"], unreadable),
        (&["ActiveState=failed", "MainPID"], Some(Guard::NotActive)),
        (
            &["ControlGroup", "ExecMainStartTimestampMonotonic=1590000000"],
            unreadable,
        ),
        (&["MainPID=0", "ControlGroup"], Some(Guard::MainPid)),
        (
            &["InvocationID", "ExecMainStartTimestampMonotonic=1590000000"],
            Some(Guard::TooYoung),
        ),
        (&["Restart", "Job=1"], unreadable),
        (&["Restart=no", "Job"], Some(Guard::NoRestart)),
        (&["Job", "FreezerState=frozen"], unreadable),
    ] {
        assert_eq!(
            Fixture::with(changes).guard_at_first(),
            expected,
            "{changes:?}"
        );
    }
    let sockets = |change: fn(&mut Fixture)| {
        let fixture = Fixture::changed(|it| {
            it.now.sockets = Err("no netlink".to_owned());
            it.now.unit = unit(&["Restart=no"]);
            change(it);
        });
        fixture.guard()
    };
    assert_eq!(sockets(|_| {}), unreadable);
    let far = sockets(|it| it.context.not_local = Some("far".to_owned()));
    assert_eq!(far, Some(Guard::NotLocal));
    let answered = sockets(|it| it.now.probe.as_mut().unwrap().status = ProbeStatus::Answered);
    assert_eq!(answered, Some(Guard::Answered));
    let members = |change: fn(&mut Fixture)| {
        let fixture = Fixture::changed(|it| {
            it.now.members = Err("hidepid".to_owned());
            it.now.unit = unit(&["Job=1"]);
            change(it);
        });
        fixture.guard()
    };
    assert_eq!(members(|_| {}), unreadable);
    assert_eq!(
        members(|it| it.tcp().progress = Some(sign())),
        Some(Guard::Busy)
    );
}

#[test]
fn no_restart_follows_systemd() {
    let signal =
        |unit: &UnitState, signal| no_restart(unit, NAME, Scope::System, signal, 0).is_ok();
    // Restart=, then whether systemd restarts after a signal that is plain, listed in
    // SuccessExitStatus=, RestartPreventExitStatus=, RestartForceExitStatus=.
    for (restart, plain, clean, prevented, forced) in [
        ("no", false, false, false, true),
        ("always", true, true, false, true),
        ("on-success", false, true, false, true),
        ("on-failure", true, false, false, true),
        ("on-abnormal", true, false, false, true),
        ("on-abort", true, false, false, true),
        ("on-watchdog", false, false, false, true),
    ] {
        let restart = format!("Restart={restart}");
        for (list, expected) in [
            ("SuccessExitStatus=", plain),
            ("SuccessExitStatus=9 TERM", plain),
            ("SuccessExitStatus=4 KILL TERM", clean),
            ("SuccessExitStatus=SIGKILL", clean),
            ("RestartPreventExitStatus=1 KILL", prevented),
            ("RestartForceExitStatus=KILL", forced),
        ] {
            let unit = unit(&[&restart, list]);
            assert_eq!(
                signal(&unit, KillSignal::Kill),
                expected,
                "{restart} {list}"
            );
        }
        let both = unit(&[
            &restart,
            "RestartPreventExitStatus=KILL",
            "RestartForceExitStatus=KILL",
        ]);
        assert!(!signal(&both, KillSignal::Kill), "prevention wins");
    }
}

#[test]
fn no_restart_knows_what_systemd_counts_as_success() {
    const DASH: &str = "ExecStart={ path=sh ; argv[]=sh ; ignore_errors=yes ; start_time=[n/a] }";
    const FORCED: &str = "RestartForceExitStatus=KILL ABRT";
    const CLEAN: &str = "SuccessExitStatus=KILL ABRT";
    const REMAINS: &str = "RemainAfterExit=yes";
    for (changes, refused) in [
        (&[DASH][..], None),
        (&[DASH, "Restart=on-success"], None),
        (&[DASH, "Restart=on-failure", FORCED], None),
        (
            &[DASH, "Restart=on-failure"],
            Some("Restart=on-failure, and the \"-\""),
        ),
        (
            &[DASH, "Restart=on-abort"],
            Some("Restart=on-abort, and the \"-\""),
        ),
        (&[REMAINS], None),
        (&[REMAINS, "Restart=on-failure"], None),
        (
            &[REMAINS, CLEAN],
            Some("RemainAfterExit=yes, and SuccessExitStatus= names"),
        ),
        (
            &[REMAINS, CLEAN, FORCED],
            Some("RemainAfterExit=yes, and SuccessExit"),
        ),
        (
            &[REMAINS, DASH, FORCED],
            Some("RemainAfterExit=yes, and the \"-\""),
        ),
        (&["ExitType=main"], None),
        (&["ExitType=cgroup"], Some("ExitType=cgroup")),
        (&["ExitType=cgroup", FORCED], Some("ExitType=cgroup")),
        (&["ExitType=unheard-of"], Some("reported an invalid")),
        (&["RemainAfterExit="], Some("reported an invalid")),
        (&["ExecStart=sh"], Some("reported an invalid")),
    ] {
        let unit = unit(changes);
        for signal in [KillSignal::Kill, KillSignal::Abort] {
            let refusal = no_restart(&unit, NAME, Scope::System, signal, 0).err();
            let why = refusal.map(|(_, why)| why).unwrap_or_default();
            assert_eq!(why.is_empty(), refused.is_none(), "{changes:?}: {why}");
            assert!(
                why.contains(refused.unwrap_or_default()),
                "{changes:?}: {why}"
            );
        }
    }
    // A core dump counts as a failure even if the signal would be a clean exit, but `-` ignores both.
    let dash = unit(&[DASH, "Restart=on-success"]);
    assert!(no_restart(&dash, NAME, Scope::System, KillSignal::Abort, 0).is_ok());
}

#[test]
fn no_restart_after_an_abort_considers_both_signals() {
    for (list, expected) in [
        ("RestartPreventExitStatus=", true),
        ("RestartPreventExitStatus=ABRT", false),
        ("RestartPreventExitStatus=KILL", false),
    ] {
        let unit = unit(&[list]);
        let passed = no_restart(&unit, NAME, Scope::System, KillSignal::Abort, 0).is_ok();
        assert_eq!(passed, expected, "{list}");
    }
    let prevented = unit(&["RestartPreventExitStatus=ABRT"]);
    assert!(no_restart(&prevented, NAME, Scope::System, KillSignal::Kill, 0).is_ok());

    let clean = unit(&["Restart=on-success", "SuccessExitStatus=ABRT KILL"]);
    assert!(no_restart(&clean, NAME, Scope::System, KillSignal::Kill, 0).is_ok());
    assert!(
        no_restart(&clean, NAME, Scope::System, KillSignal::Abort, 0).is_err(),
        "a core dump is no success"
    );
}

#[test]
fn no_restart_considers_the_processes_that_are_left() {
    for (changes, refused) in [
        (&[][..], None),
        (&["KillMode=mixed"], None),
        (&["KillMode=process"], Some("KillMode=process leaves")),
        (&["KillMode=none"], Some("KillMode=none leaves")),
        (&["SendSIGKILL=no"], Some("SendSIGKILL=no waits")),
        (
            &["SendSIGKILL=no", "KillMode=mixed"],
            Some("SendSIGKILL=no waits"),
        ),
        (
            &["TimeoutStopUSec=infinity"],
            Some("TimeoutStopSec=infinity waits"),
        ),
        (&["TimeoutStopUSec=infinity", "KillMode=mixed"], None),
        (
            &["Restart=on-success", "SuccessExitStatus=KILL"],
            Some("with Restart=on-success the way they exit decides"),
        ),
        (
            &["KillMode=process", "RestartForceExitStatus=KILL"],
            Some("KillMode=process leaves"),
        ),
        (&["KillMode"], Some("did not report KillMode=")),
        (&["SendSIGKILL"], Some("did not report SendSIGKILL=")),
        (
            &["TimeoutStopUSec"],
            Some("did not report TimeoutStopUSec="),
        ),
    ] {
        let unit = unit(changes);
        let with = |others| no_restart(&unit, NAME, Scope::System, KillSignal::Kill, others);
        let why = with(1).err().map(|(_, why)| why).unwrap_or_default();
        assert_eq!(why.is_empty(), refused.is_none(), "{changes:?}: {why}");
        assert!(
            why.contains(refused.unwrap_or_default()),
            "{changes:?}: {why}"
        );
        assert_eq!(with(0), Ok(()), "{changes:?}: no process is left");
    }
    let kept = Fixture::changed(|it| {
        it.now.unit = unit(&["KillMode=process"]);
        it.members().others = 3;
    });
    assert_eq!(kept.guard(), Some(Guard::NoRestart));
    assert!(
        kept.message()
            .contains("3 other processes of the unit are left")
    );
}

#[test]
fn no_restart_of_a_process_that_is_not_a_child_of_the_manager() {
    const OWN: &str = "/user.slice/user-1.slice/user@1.service/app.slice/demo.service";
    const MANAGER: &str = "/user.slice/user-1.slice/user@1.service/init.scope";
    for (scope, pid, group, expected) in [
        (Scope::System, 1, Some("/init.scope"), None),
        (Scope::System, 1, None, None),
        (
            Scope::System,
            77,
            Some("/init.scope"),
            Some(Guard::NoRestart),
        ),
        (Scope::System, 0, None, Some(Guard::NoRestart)),
        (Scope::User, 77, Some(MANAGER), None),
        (Scope::User, 1, Some("/init.scope"), Some(Guard::NoRestart)),
        (Scope::User, 1, Some(MANAGER), Some(Guard::NoRestart)),
        (Scope::User, 77, Some(OWN), Some(Guard::NoRestart)),
        (
            Scope::User,
            77,
            Some("/user.slice/user-2.slice/user@2.service/init.scope"),
            Some(Guard::NoRestart),
        ),
        (Scope::User, 77, None, Some(Guard::Unreadable)),
    ] {
        let fixture = Fixture::changed(|it| {
            it.context.scope = scope;
            it.now.unit = unit(&[&format!("ControlGroup={OWN}")]);
            *it.vitals() = Vitals {
                group: Some(OWN.to_owned()),
                parent: Parent {
                    pid,
                    group: group.map(str::to_owned),
                },
                ..vitals()
            };
        });
        assert_eq!(fixture.guard(), expected, "{scope:?} {pid} {group:?}");
        // The process that serves the private socket is the manager, wherever it runs.
        let known = Fixture {
            context: GuardContext {
                user_manager: Some(77),
                ..fixture.context
            },
            ..fixture
        };
        let expected = expected.filter(|_| (scope, pid) != (Scope::User, 77));
        assert_eq!(known.guard(), expected, "{scope:?} {pid} {group:?}");
    }
}

#[test]
fn messages_say_what_why_and_what_to_do() {
    let mut young = Fixture::with(&[]);
    young.first.unit = unit(&["ExecMainStartTimestampMonotonic=1563000000"]);
    assert_eq!(
        young.message(),
        "the main process 4711 is 37 s old, younger than min_uptime_seconds (120): it is still starting"
    );
    let mut typo = Fixture::with(&["LoadState=not-found"]);
    typo.context.scope = Scope::User;
    assert!(typo.message().contains("\"systemctl --user list-units"));
    let stubborn = Fixture::with(&["Restart=on-failure", "SuccessExitStatus=KILL"]);
    assert!(
        stubborn
            .message()
            .contains("after SIGKILL (Restart=on-failure, and SuccessExitStatus= names SIGKILL)")
    );
    let odd = Fixture::with(&["ActiveState=\u{1b}[31m"]);
    assert!(odd.message().contains("ActiveState=\\u{1b}[31m"));
}
