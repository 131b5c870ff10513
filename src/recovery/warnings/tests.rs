use std::sync::mpsc::Sender;

use super::super::cgroup::tests::Sleepers;
use super::super::observation::{Owner, Parent, Vitals};
use super::super::samples::{in_group, listener};
use super::super::unit::tests::RUNNING;
use super::*;
use crate::manifest::KillSignal;
use crate::skip::skip_unless_ci;

fn unit(name: &str, scope: Scope) -> Unit {
    Unit {
        name: name.to_owned(),
        scope,
    }
}

/// A healthy unit, with these replacements in what systemctl prints.
fn state(changes: &[(&str, &str)]) -> UnitState {
    let mut text = RUNNING.to_owned();
    for (from, to) in changes {
        assert!(text.contains(from), "{from}");
        text = text.replace(from, to);
    }
    UnitState::parse(text.as_bytes()).unwrap()
}

const RESTARTS: (&str, &str) = (
    "RestartPreventExitStatus=1 3 ABRT",
    "RestartPreventExitStatus=",
);
const CLEAN: (&str, &str) = ("SuccessExitStatus=4 KILL TERM", "SuccessExitStatus=");

/// An observation of a backend at 127.0.0.1:8000, changed by `change`.
fn running(
    change: impl Fn(&mut Observation),
) -> impl Fn(&Backend, &UnitState, &[SocketAddr]) -> Vec<String> {
    move |backend, state, addresses| {
        let main = *state.main_pid.as_ref().unwrap();
        let vitals = Vitals {
            state: 'S',
            dumping: false,
            kill_pending: false,
            age: Duration::from_secs(600),
            group: Some("/system.slice/demo.service".to_owned()),
            parent: Parent {
                pid: 1,
                group: None,
            },
        };
        let mut now = Observation {
            at: Monotonic::now(),
            unit: state.clone(),
            process: match main {
                0 => Process::None,
                _ => Process::Alive(vitals),
            },
            members: Ok(Members::default()),
            sockets: Ok(Sockets::Tcp(TcpFacts {
                table: vec![in_group(listener("127.0.0.1:8000", 1), 7)],
                owners: [(7, Owner::Unit)].into(),
                ..TcpFacts::default()
            })),
            probe: None,
        };
        change(&mut now);
        let mut context = host::context(&backend.plan);
        context.scope = Scope::System;
        context.silent_at = addresses.to_vec();
        let refusal = guards::lasting(&context, &now);
        refusal
            .map(|why| would_refuse(&backend.unit, &why))
            .into_iter()
            .collect()
    }
}

fn examine(
    subjects: Subjects,
    show: impl Fn(&Unit) -> Result<UnitState, String>,
    refusals: impl Fn(&Backend, &UnitState, &[SocketAddr]) -> Vec<String>,
    address: &str,
) -> Vec<String> {
    let mut warnings = Vec::new();
    let address = address.parse().unwrap();
    subjects.examine(
        show,
        refusals,
        || Ok(vec![address]),
        |warning| warnings.push(warning),
    );
    warnings
}

fn both() -> Subjects {
    let plan = RecoveryPlan {
        grace: Duration::ZERO,
        unit: "api.service".parse().unwrap(),
        scope: Scope::User,
        signal: KillSignal::Kill,
        dump_signal: None,
        min_uptime: Duration::from_secs(120),
        verify: Duration::from_secs(60),
    };
    Subjects {
        backend: Some(Backend {
            unit: unit("api.service", Scope::User),
            plan,
            port: Some(8_000),
        }),
        own: Some(unit("check.service", Scope::System)),
        source: Source::Stdin,
    }
}

fn none(_: &mut Observation) {}

#[test]
fn examine_warns_of_nothing_if_all_is_well() {
    let well = |_: &Unit| Ok(state(&[RESTARTS, CLEAN]));
    let warnings = examine(both(), well, running(none), "127.0.0.1:8000");
    assert_eq!(warnings, [""; 0]);
}

#[test]
fn examine_names_every_stale_unit_and_the_remedy() {
    let stale = |_: &Unit| Ok(state(&[("NeedDaemonReload=no", "NeedDaemonReload=yes")]));
    assert_eq!(
        examine(both(), stale, |_, _, _| vec![], "127.0.0.1:8000"),
        [
            "api.service is newer on disk than what systemd has loaded: \"systemctl --user daemon-reload\" loads it",
            "check.service is newer on disk than what systemd has loaded: \"systemctl daemon-reload\" loads it",
            "demo.timer is newer on disk than what systemd has loaded: \"systemctl daemon-reload\" loads it",
        ]
    );
}

#[test]
fn examine_finds_what_would_keep_a_recovery_from_working() {
    let alone = |show: &dyn Fn() -> Result<UnitState, String>, source, address: &str| {
        let subjects = Subjects {
            own: None,
            source,
            ..both()
        };
        examine(subjects, |_| show(), running(none), address).join("\n")
    };
    let here = "127.0.0.1:8000";
    for (change, expected) in [
        (
            ("LoadState=loaded", "LoadState=not-found"),
            "would be refused: api.service does not exist",
        ),
        (("Restart=always", "Restart=no"), "(Restart=no)"),
        (
            ("Restart=always", "Restart=on-failure"),
            "SuccessExitStatus= names SIGKILL",
        ),
        (("Restart=always\n", ""), "did not report Restart="),
        (
            ("ExitType=main", "ExitType=cgroup"),
            "(ExitType=cgroup waits",
        ),
    ] {
        let warning = alone(&|| Ok(state(&[change])), Source::Stdin, here);
        assert!(warning.contains(expected), "{warning}");
        assert!(
            warning.starts_with("recovery of api.service would be refused: "),
            "{warning}"
        );
        assert_eq!(warning.lines().count(), 1, "{warning}");
    }
    let passing = [
        ("ActiveState=active", "ActiveState=inactive"),
        ("MainPID=30", "MainPID=0"),
    ];
    assert_eq!(alone(&|| Ok(state(&passing)), Source::Stdin, here), "");
    assert_eq!(
        alone(&|| Err("no systemctl".to_owned()), Source::Stdin, here),
        "recovery of api.service would fail: no systemctl"
    );
    let warning = alone(&|| Ok(state(&[])), Source::Stdin, "192.0.2.1:80");
    assert!(
        warning.contains("of api.service would be refused: base_url may not"),
        "{warning}"
    );
    if !nix::unistd::geteuid().is_root() {
        return skip_unless_ci(
            "only a run that may kill any process minds who may write the manifest",
        );
    }
    let source = Source::File {
        path: "/etc/routes.json".into(),
        owner: 0,
        mode: 0o100_666,
        device: 0,
        inode: 0,
    };
    let warning = alone(&|| Ok(state(&[])), source, here);
    assert!(
        warning.contains("of api.service would be refused: the manifest"),
        "{warning}"
    );
}

#[test]
fn about_timer_finds_one_that_will_not_elapse_again() {
    let timer = unit("check.timer", Scope::System);
    for (active, sub, expected) in [
        ("active", "waiting", None),
        ("active", "running", None),
        ("active", "elapsed", Some("OnCalendar=")),
        ("inactive", "dead", Some("enable --now check.timer")),
        ("failed", "failed", Some("enable --now check.timer")),
    ] {
        let state = state(&[
            ("ActiveState=active", &format!("ActiveState={active}")),
            ("SubState=running", &format!("SubState={sub}")),
        ]);
        let warning = about_timer(&timer, &state).join("\n");
        assert_eq!(warning.is_empty(), expected.is_none(), "{sub}: {warning}");
        assert!(
            warning.contains(expected.unwrap_or_default()),
            "{sub}: {warning}"
        );
    }
}

#[test]
fn own_unit_reads_the_control_group() {
    for (cgroup, expected) in [
        (
            "0::/system.slice/check.service\n",
            Some(unit("check.service", Scope::System)),
        ),
        (
            "0::/user.slice/user-1000.slice/user@1000.service/app.slice/check.service\n",
            Some(unit("check.service", Scope::User)),
        ),
        (
            "12:pids:/x\n0::/system.slice/a@b.service\n",
            Some(unit("a@b.service", Scope::System)),
        ),
        ("0::/user.slice/user-0.slice/session-3.scope\n", None),
        (
            "0::/user.slice/user-1000.slice/user@1000.service/app.slice/term.scope\n",
            None,
        ),
        ("0::/\n", None),
        ("1:name=systemd:/system.slice/x.service\n", None),
        ("", None),
    ] {
        assert_eq!(own_unit(cgroup), expected, "{cgroup}");
    }
}

#[test]
fn lasting_names_reasons_that_persist_while_the_backend_is_healthy() {
    let refused = |changes: &[(&str, &str)], change: &dyn Fn(&mut Observation)| {
        let subjects = Subjects {
            own: None,
            ..both()
        };
        let changes = [&[RESTARTS, CLEAN], changes].concat();
        let show = |_: &Unit| Ok(state(&changes));
        examine(subjects, show, running(change), "127.0.0.1:8000").join("\n")
    };
    let foreign = refused(&[], &|now| {
        let Ok(Sockets::Tcp(facts)) = &mut now.sockets else {
            panic!("TCP")
        };
        let owner = Owner::Foreign("/system.slice/nginx.service".to_owned());
        facts.owners.insert(7, owner);
    });
    assert!(foreign.contains("belongs to nginx.service"), "{foreign}");
    let unreachable = refused(&[], &|now| now.sockets = Err("no AF_NETLINK".to_owned()));
    assert!(unreachable.contains("no AF_NETLINK"), "{unreachable}");
    let supervised = refused(&[], &|now| {
        if let Process::Alive(vitals) = &mut now.process {
            vitals.parent.pid = 77;
        }
    });
    assert!(supervised.contains("a child of process 77"), "{supervised}");
    let elsewhere = refused(&[], &|now| {
        if let Process::Alive(vitals) = &mut now.process {
            vitals.group = Some("/docker/4711".to_owned());
        }
    });
    assert!(
        elsewhere.contains("is in control group /docker/4711"),
        "{elsewhere}"
    );
    // The unit does not run, but its settings are known.
    let stopped = |restart| {
        let none: fn(&mut Observation) = |now| now.process = Process::None;
        refused(&[("Restart=always", restart)], &none)
    };
    assert!(stopped("Restart=no").contains("(Restart=no)"));
    assert_eq!(stopped("Restart=on-failure"), "");
    let left = |now: &mut Observation| now.members.as_mut().unwrap().others = 2;
    let kept = refused(&[("KillMode=mixed", "KillMode=process")], &left);
    assert!(kept.contains("2 other processes"), "{kept}");
    assert_eq!(refused(&[], &left), "");
    // Age, tracers and the like are temporary.
    let passing = |now: &mut Observation| now.at = *now.unit.started.as_ref().unwrap();
    assert_eq!(refused(&[], &passing), "");
}

#[test]
fn a_dump_signal_that_no_process_catches_is_named() {
    let Some(sleepers) = Sleepers::start(1) else {
        return;
    };
    let group = format!("ControlGroup={}", sleepers.group.as_str());
    let state = state(&[("ControlGroup=/system.slice/demo.service", &group)]);
    let warning = uncaught(DumpSignal::Usr2, &state, "api.service").unwrap();
    assert!(
        warning.contains("no process of it catches SIGUSR2"),
        "{warning}"
    );
    assert!(
        warning.contains("faulthandler.register(signal.SIGUSR2)"),
        "{warning}"
    );
    let elsewhere = self::state(&[("ControlGroup=/system.slice/demo.service\n", "")]);
    assert_eq!(uncaught(DumpSignal::Usr2, &elsewhere, "x"), None);
}

fn pending() -> (Sender<String>, PendingWarnings) {
    let (sender, warnings) = mpsc::channel();
    let pending = PendingWarnings {
        warnings,
        units: "api.service".to_owned(),
        cancel: None,
    };
    (sender, pending)
}

#[test]
fn finish_waits_for_the_end_but_not_indefinitely() {
    let (sender, done) = pending();
    sender.send("one".to_owned()).unwrap();
    sender.send("two".to_owned()).unwrap();
    drop(sender);
    assert_eq!(done.finish(Duration::ZERO), ["one", "two"]);

    let (sender, stuck) = pending();
    sender.send("one".to_owned()).unwrap();
    let warnings = stuck.finish(Duration::from_millis(30));
    assert_eq!(warnings.len(), 2);
    assert!(warnings[1].starts_with("api.service could not be checked in time"));
}

/// The thread that waits for `systemctl` sees the pipe close, cancels the call, and ends before `finish` does.
#[test]
fn finish_cancels_a_running_call() {
    let (sender, mut waiting) = pending();
    let (mut cancelled, cancel) = io::pipe().unwrap();
    waiting.cancel = Some(cancel);
    let thread = thread::spawn(move || {
        let closed = io::copy(&mut cancelled, &mut io::sink());
        sender.send("the call was cancelled".to_owned()).unwrap();
        closed.unwrap()
    });
    let warnings = waiting.finish(Duration::from_millis(30));
    assert!(thread.is_finished() || thread.join().is_ok());
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert!(warnings[0].starts_with("api.service could not be checked in time"));
}
