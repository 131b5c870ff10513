use std::time::Duration;

use nix::errno::Errno;

use super::super::facts::CpuTimes;
use super::super::facts::Gatherer;
use super::super::facts::MainProcess;
use super::super::samples::{
    GROUP, NOW, OWN_PATH, Still, at, connection, context, in_group, in_state, listener, member,
    parked, unit, vitals, with_queue,
};
use super::super::sockets::Reading;
use super::super::sockets::queue::QueueHistory;
use super::super::sockets::tcp::TcpState;
use super::super::sockets::unix::UnixListener;
use super::*;
use crate::manifest::Scope;
use crate::sweep::{ParkedState, Reach};

/// The queue as read once during the sweep, when nobody waited.
fn one_reading() -> QueueHistory {
    let mut queues = QueueHistory::default();
    let rows = vec![listener("127.0.0.1:80", 1)];
    let reading = Reading::Tcp {
        at: at(NOW - 90),
        listeners_after: rows.clone(),
        rows,
    };
    queues.record(&["127.0.0.1:80".parse().unwrap()], &reading);
    queues
}

/// A machine at the first observation and one at the second, which differ only as a test says.
struct Fixture {
    context: Context,
    first: Still,
    now: Still,
    queues: QueueHistory,
}

impl Fixture {
    /// A backend that hangs and may be killed.
    fn hung() -> Self {
        Self {
            context: context(),
            first: Still::hung(),
            now: Still::hung(),
            queues: one_reading(),
        }
    }

    /// The same, changed at both observations.
    fn changed(change: impl Fn(&mut Still)) -> Self {
        let mut fixture = Self::hung();
        change(&mut fixture.first);
        change(&mut fixture.now);
        fixture
    }

    /// The same, changed at the second observation.
    fn changed_later(change: impl Fn(&mut Still)) -> Self {
        let mut fixture = Self::hung();
        change(&mut fixture.now);
        fixture
    }

    fn in_context(change: impl Fn(&mut Context)) -> Self {
        let mut fixture = Self::hung();
        change(&mut fixture.context);
        fixture
    }

    fn facts(&self) -> Facts {
        let queues = self.queues.clone();
        let mut gatherer = Gatherer::new(&self.context, &self.first, queues.clone());
        let first = gatherer.observe().unwrap();
        let mut gatherer = Gatherer::new(&self.context, &self.now, queues);
        let mut now = Facts::clone(&gatherer.observe().unwrap());
        now.earlier = Some(first);
        now
    }

    fn refusal(&self) -> Option<(&'static str, String)> {
        let refusal = judge(&self.context, &self.facts()).err()?;
        let guard = refusal.guard().unwrap();
        Some((guard.name(), refusal.detail().unwrap().to_owned()))
    }

    #[track_caller]
    fn refuses(&self, guard: &str, words: &str) {
        let (name, why) = self.refusal().expect("a refusal");
        assert_eq!(name, guard, "{why}");
        assert!(why.contains(words), "{why}");
    }

    #[track_caller]
    fn passes(&self) {
        assert_eq!(self.refusal(), None);
    }
}

fn with(changes: &'static [(&str, &str)]) -> Fixture {
    Fixture::changed(|machine| machine.unit = Ok(unit(changes)))
}

#[test]
fn a_plain_hang_passes_every_guard() {
    Fixture::hung().passes();
}

#[test]
fn a_process_that_is_gone_at_the_signal_refuses_and_one_that_may_not_be_signalled_fails() {
    let outcome = |error| {
        let machine = Still {
            may_signal: Err(error),
            ..Still::hung()
        };
        let context = Context {
            dry_run: true,
            ..context()
        };
        super::super::steps::run(&context, &machine, one_reading()).outcome
    };
    assert_eq!(outcome(Errno::ESRCH).guard(), Some(Guard::GONE));
    let denied = outcome(Errno::EPERM);
    assert_eq!(denied.name(), "failed");
    let why = denied.detail().unwrap();
    assert!(
        why.starts_with("process 4711 cannot be signalled: EPERM"),
        "{why}"
    );
}

#[test]
fn the_guards_are_those_of_the_documentation_in_its_order() {
    let unreadable = (Guard::UNREADABLE.name(), LASTING);
    let rows = TABLE.iter().map(|(name, lasting, _)| (*name, *lasting));
    let guards: Vec<_> = rows.chain([unreadable]).collect();
    let documentation = include_str!("../../../docs/recovery.md");
    let documented: Vec<_> = documentation
        .lines()
        .skip_while(|line| !line.starts_with("| guard |"))
        .skip(2)
        .take_while(|line| line.starts_with('|'))
        .filter_map(|line| line.split('|').nth(1))
        .flat_map(|names| {
            let lasting = names.contains("**W**");
            let names = names.split('`').skip(1).step_by(2);
            names.map(move |name| (name, lasting))
        })
        .collect();
    assert_eq!(guards, documented);
}

#[test]
fn what_systemd_says_of_the_unit_is_read() {
    with(&[("LoadState", "not-found")]).refuses("not_loaded", "does not exist");
    with(&[("LoadState", "masked")]).refuses("not_loaded", "systemctl unmask demo.service");
    with(&[("LoadState", "bad-setting")]).refuses("not_loaded", "LoadState=bad-setting");
    for (state, words) in [
        ("reloading", "it is reloading its configuration"),
        ("activating", "it is starting"),
        ("deactivating", "it is stopping"),
        ("inactive", "it is stopped"),
        ("failed", "it has failed"),
    ] {
        let changed = Fixture::changed(|machine| {
            machine.unit = Ok(unit(&[("ActiveState", state)]));
        });
        changed.refuses("not_active", words);
    }
    with(&[("MainPID", "0")]).refuses("main_pid", "no main process");
    with(&[("MainPID", "1")]).refuses("main_pid", "process 1");
    with(&[("MainPID", "4000")]).refuses("main_pid", "this program itself");
    with(&[("Job", "68")]).refuses("job_queued", "job 68");
    Fixture::changed(|machine| machine.missing = Some("/srv/app is gone".to_owned()))
        .refuses("no_restart", "/srv/app is gone; restore it");
    with(&[("FreezerState", "frozen")]).refuses("frozen", "systemctl thaw");
    with(&[("FreezerState", "-")]).passes();
    with(&[("Restart", "no")]).refuses("no_restart", "Restart=no");
}

#[test]
fn a_young_process_a_reload_and_a_successor_are_left_alone() {
    with(&[("ExecMainStartTimestampMonotonic", "9880000001")])
        .refuses("too_young", "the main process 4711 is 119 s old");
    with(&[("ExecMainStartTimestampMonotonic", "9880000000")]).passes();
    let reloaded = |micros: &'static str| {
        Fixture::changed(move |machine| {
            machine.unit = Ok(unit(&[("StateChangeTimestampMonotonic", micros)]));
        })
    };
    reloaded("9880000001").refuses("too_young", "was reloaded 119 s ago");
    reloaded("9880000000").passes();
    let mut young = with(&[("ExecMainStartTimestampMonotonic", "9900000001")]);
    young.context.plan.min_uptime = Duration::ZERO;
    young.refuses("restarted", "after this sweep began");
    let mut same = with(&[("ExecMainStartTimestampMonotonic", "9900000000")]);
    same.context.plan.min_uptime = Duration::ZERO;
    same.passes();
}

#[test]
fn a_change_between_the_observations_is_named() {
    let later = |changes: &'static [(&str, &str)]| {
        Fixture::changed_later(move |machine| machine.unit = Ok(unit(changes)))
    };
    later(&[("MainPID", "4712")]).refuses("changed", "from 4711 to 4712");
    let other = "ffffffffffffffffffffffffffffffff";
    let restarted = &[
        ("InvocationID", other),
        ("StateChangeTimestampMonotonic", "9999000000"),
    ];
    let restarted = Fixture::changed_later(|machine| machine.unit = Ok(unit(restarted)));
    restarted.refuses("changed", "its InvocationID changed");
    later(&[("StateChangeTimestampMonotonic", "9999000000")]).refuses("too_young", "reloaded");
}

fn alive(change: impl Fn(&mut super::super::facts::Vitals)) -> MainProcess {
    let mut vitals = vitals();
    change(&mut vitals);
    MainProcess::Alive(vitals)
}

#[test]
fn what_proc_shows_of_the_main_process_is_read() {
    let process =
        |process: MainProcess| Fixture::changed(move |machine| machine.process = process.clone());
    process(MainProcess::Hidden).refuses("unreadable", "ProtectProc=default");
    process(MainProcess::Gone("it has died")).refuses("gone", "it has died");
    let pending = |state| {
        alive(move |vitals| {
            vitals.status.kill_pending = true;
            vitals.status.state = state;
        })
    };
    process(pending('S')).refuses("gone", "pending SIGKILL (state S)");
    process(pending('D')).refuses("gone", "a device");
    let reused = alive(|vitals| vitals.age = Duration::from_secs(NOW - 1_002));
    process(reused).refuses("gone", "its PID was reused");
    process(alive(|vitals| {
        vitals.age = Duration::from_secs(NOW - 1_001)
    }))
    .passes();
    let outside = alive(|vitals| vitals.group = Some("/other".to_owned()));
    process(outside).refuses("main_pid", "control group /other");
    process(alive(|vitals| vitals.group = None)).refuses("unreadable", "needs cgroup2");
    let stuck = || alive(|vitals| vitals.status.state = 'D');
    process(stuck()).refuses("uninterruptible", "state D");
    Fixture::changed_later(|machine| machine.process = stuck()).passes();
    let mut over = Fixture::hung();
    over.first.process = stuck();
    over.passes();
    let mut first = process(stuck()).facts();
    first.earlier = None;
    assert_eq!(
        judge(&context(), &first),
        Ok(()),
        "it may be over at the second observation"
    );
}

#[test]
fn a_process_that_is_no_child_of_its_manager_is_left_alone() {
    let child_of = |pid, group: Option<&str>| {
        let group = group.map(str::to_owned);
        let process = alive(|vitals| {
            vitals.status.parent = pid;
            vitals.parent_group.clone_from(&group);
        });
        Fixture::changed(move |machine| machine.process = process.clone())
    };
    child_of(77, Some("/init.scope")).refuses("no_restart", "child of process 77");
    let user = |pid, group| {
        let mut fixture = child_of(pid, group);
        fixture.context.plan.scope = Scope::User;
        fixture
    };
    user(501, Some("/init.scope")).passes();
    user(1, Some("/init.scope")).refuses("no_restart", "child of process 1,");
    user(501, Some("/user.slice/init.scope")).refuses("no_restart", "child of process 501");
    user(501, Some("/system.slice/demo.service")).refuses("no_restart", "child of process 501");
    user(501, None).refuses("unreadable", "process 501");
}

#[test]
fn an_answer_to_a_parked_request_spares_the_backend() {
    let after = Duration::from_millis(13_140);
    let answered = Fixture::changed_later(|machine| {
        machine.parked[0].state = ParkedState::Answered(after);
    });
    answered.refuses("answered", "after 13.1 s");
    let written = Fixture::changed(|machine| {
        machine.rows.as_mut().unwrap()[1].send_queue = 17;
    });
    written.refuses("answered", "17 bytes");
    // A FIN is no answer.
    let closed = Fixture::changed(|machine| {
        let rows = machine.rows.as_mut().unwrap();
        rows[1] = in_state(rows[1], TcpState::Closed);
        rows[1].send_queue = 1;
        rows.push(in_group(connection(3, 50_001), GROUP));
        machine.parked.push(parked(50_001));
    });
    closed.passes();
}

#[test]
fn the_listener_must_be_the_units_own() {
    // The server's end of a parked request decides.
    let mut other = Fixture::changed(|machine| {
        machine.rows.as_mut().unwrap()[1].group = Some(8);
        machine
            .groups
            .insert("/system.slice/nginx.service".to_owned(), 8);
    });
    other.refuses("foreign_listener", "belongs to nginx.service");
    // Without one, every listener does.
    other.context.addresses = vec!["127.0.0.2:80".parse().unwrap()];
    other.refuses(
        "foreign_listener",
        "no socket on this machine listens at 127.0.0.2:80",
    );
    let reuse = Fixture::changed(|machine| {
        let rows = machine.rows.as_mut().unwrap();
        rows[1].state = TcpState::Closed;
        rows[1].group = None;
        rows.push(in_group(listener("127.0.0.1:80", 9), 8));
        machine.groups.insert("/a/b".to_owned(), 8);
    });
    reuse.refuses("foreign_listener", "control group /a/b");
    // Where several serve the address, each has to be the unit's own.
    let shared = Fixture::changed(|machine| {
        let rows = machine.rows.as_mut().unwrap();
        rows.push(in_group(listener("127.0.0.1:80", 9), 8));
        rows.push(in_group(connection(3, 50_001), 8));
        machine.parked.push(parked(50_001));
        machine
            .groups
            .insert("/system.slice/old.service".to_owned(), 8);
    });
    shared.refuses("foreign_listener", "belongs to old.service");
    let group =
        |group| Fixture::changed(move |machine| machine.rows.as_mut().unwrap()[1].group = group);
    group(Some(9)).refuses("unreadable", "no longer exists");
    let unknown = Fixture::changed(|machine| {
        let rows = machine.rows.as_mut().unwrap();
        rows.iter_mut().for_each(|row| row.group = None);
    });
    unknown.refuses("unreadable", "Linux 5.10");
    let error = || "allow AF_NETLINK".to_owned();
    Fixture::changed(move |machine| machine.rows = Err(error())).refuses(
        "unreadable",
        "allow AF_NETLINK; without this a kill is not safe",
    );
}

#[test]
fn a_socket_unit_that_triggers_the_unit_may_own_the_listener() {
    let socket = |listen: &'static str, path: &'static str, id| {
        Fixture::changed(move |machine| {
            machine.unit = Ok(unit(&[("TriggeredBy", "demo.socket demo.timer")]));
            let text = format!(
                "Id=demo.socket\nLoadState=loaded\nActiveState=active\nControlGroup=/system.slice/demo.socket\nListen={listen}\n"
            );
            machine.neighbours = super::super::systemd::Unit::parse_all(text.as_bytes());
            machine.groups.insert(path.to_owned(), id);
            let rows = machine.rows.as_mut().unwrap();
            rows.iter_mut().for_each(|row| row.group = Some(8));
        })
    };
    socket("[::]:80 (Stream)", "/system.slice/demo.socket", 8).passes();
    let other = "/system.slice/other.socket";
    socket("127.0.0.1:80 (Stream)", other, 8).refuses("foreign_listener", "other.socket");
    socket("127.0.0.1:80 (Stream)", "/init.scope", 8).passes();
    socket("127.0.0.1:81 (Stream)", "/init.scope", 8)
        .refuses("foreign_listener", "the service manager itself");
    // Process 1 listens for a unit that does not run yet.
    let mut idle = socket("127.0.0.1:80 (Stream)", "/init.scope", 8);
    idle.context.hung_since = None;
    for machine in [&mut idle.first, &mut idle.now] {
        machine.unit = Ok(unit(&[
            ("TriggeredBy", "demo.socket"),
            ("ActiveState", "inactive"),
            ("MainPID", "0"),
        ]));
    }
    assert_eq!(lasting_refusals(&idle.context, &idle.facts()), [""; 0]);
}

#[test]
fn a_request_must_have_reached_the_socket() {
    let parked = |change: fn(&mut crate::sweep::ParkedRequest)| {
        Fixture::changed(move |machine| change(&mut machine.parked[0]))
    };
    parked(|request| request.reach = Reach::Connected).refuses("not_reached", "nft list ruleset");
    parked(|request| request.first_attempt = false).refuses("not_reached", "");
    Fixture::changed(|machine| machine.parked.clear()).refuses("not_reached", "");
    // The row must be there in both observations, and open.
    let gone = |machine: &mut Still| machine.rows.as_mut().unwrap().truncate(1);
    Fixture::changed_later(gone).refuses("not_reached", "");
    let mut fixture = Fixture::hung();
    gone(&mut fixture.first);
    fixture.refuses("not_reached", "");
    Fixture::changed(|machine| {
        let rows = machine.rows.as_mut().unwrap();
        rows[1] = in_state(rows[1], TcpState::Closed);
    })
    .refuses("not_reached", "");
    // Only the last round counts.
    Fixture::changed(|machine| {
        let mut second = machine.parked[0].clone();
        second.round = 2;
        second.reach = Reach::Connected;
        machine.parked.push(second);
    })
    .refuses("not_reached", "");
}

#[test]
fn a_server_of_plain_http_that_waits_for_the_rest_of_a_handshake_does_not_hang() {
    let https = |inode, unread| {
        let mut fixture = Fixture::changed(|machine| {
            let row = &mut machine.rows.as_mut().unwrap()[1];
            row.inode = inode;
            row.receive_queue = unread;
        });
        fixture.context.no_handshake = true;
        fixture
    };
    https(800, 0).refuses("not_reached", "give base_url with http://");
    // Its event loop is blocked.
    https(800, 250).passes();
    https(0, 250).passes();
    let mut shaken = https(800, 0);
    shaken.context.no_handshake = false;
    shaken.passes();
}

#[test]
fn a_full_queue_reaches_a_request_that_could_not_connect() {
    let full = |machine: &mut Still| {
        machine.parked[0].reach = Reach::Unconnected;
        let rows = machine.rows.as_mut().unwrap();
        *rows = vec![with_queue(rows[0], 129)];
    };
    let reading = |seconds, waiting| {
        let listener = with_queue(listener("127.0.0.1:80", 1), waiting);
        Reading::Tcp {
            at: at(seconds),
            rows: vec![listener],
            listeners_after: vec![listener],
        }
    };
    let address = ["127.0.0.1:80".parse().unwrap()];
    // The attempt timed out 50 s ago.
    for (waiting, passes) in [(129, true), (128, false)] {
        let mut fixture = Fixture::changed(full);
        fixture.queues.record(&address, &reading(NOW - 55, waiting));
        fixture.queues.record(&address, &reading(NOW - 45, 129));
        assert_eq!(
            fixture.refusal().is_none(),
            passes,
            "{:?}",
            fixture.refusal()
        );
    }
    for first_has_room in [true, false] {
        let mut fixture = Fixture::changed(full);
        fixture.queues.record(&address, &reading(NOW - 55, 129));
        fixture.queues.record(&address, &reading(NOW - 45, 129));
        let machine = match first_has_room {
            true => &mut fixture.first,
            false => &mut fixture.now,
        };
        machine.rows.as_mut().unwrap()[0].receive_queue = 128;
        fixture.refuses("not_reached", "");
    }
}

#[test]
fn a_queue_that_moves_belongs_to_an_overloaded_backend() {
    let late = Fixture::changed(|machine| {
        let mut late = parked(50_001);
        late.state = ParkedState::ConnectedLate;
        machine.parked.push(late);
    });
    late.refuses("busy", "overloaded");
    let mut moved = Fixture::hung();
    let address = ["127.0.0.1:80".parse().unwrap()];
    for (seconds, row) in [(0, 0), (1, 0), (2, 900)] {
        let mut waiting = connection(5, 60_000);
        waiting.inode = row;
        let reading = Reading::Tcp {
            at: at(seconds),
            rows: vec![listener("127.0.0.1:80", 1), waiting],
            listeners_after: vec![listener("127.0.0.1:80", 1)],
        };
        moved.queues.record(&address, &reading);
    }
    moved.refuses("busy", "accepted a connection that had waited");
    moved.context.addresses = vec!["127.0.0.2:80".parse().unwrap()];
    assert_ne!(moved.refusal().unwrap().0, "busy");
    // Nobody has looked.
    let mut unread = Fixture::hung();
    unread.queues = QueueHistory::default();
    unread.refuses("unreadable", "was not read in time");
}

#[test]
fn a_backend_without_cpu_time_is_overloaded() {
    for (waited, used, starves) in [
        (500, 99, true),
        (499, 0, false),
        (500, 101, false),
        (500, 100, true),
        (1_000, 0, true),
    ] {
        let mut fixture = Fixture::hung();
        let cpu = |seconds, waited, used| {
            Some(CpuTimes {
                at: at(seconds),
                waited: Duration::from_millis(waited),
                used: Duration::from_millis(used),
            })
        };
        fixture.first.group.as_mut().unwrap().cpu = cpu(0, 70, 7);
        fixture.now.group.as_mut().unwrap().cpu = cpu(1, 70 + waited, 7 + used);
        assert_eq!(fixture.refusal().is_some(), starves, "{waited} {used}");
        if starves {
            fixture.refuses("busy", "waited for one for");
        }
    }
}

#[test]
fn a_unix_socket_is_judged_by_its_listener_and_its_connections() {
    let unix = |group: Result<&'static str, String>| {
        let mut fixture = Fixture::changed(move |machine| {
            let listener = UnixListener {
                inode: 5,
                queue: Some((1, 128)),
                waiting: vec![9],
                ..UnixListener::default()
            };
            machine.unix = Some(vec![listener]);
            machine.unix_groups = vec![group.clone().map(str::to_owned)];
            machine.parked[0].connection = None;
        });
        // As read once during the sweep.
        fixture.queues.record(
            &[],
            &Reading::Unix {
                at: at(NOW - 90),
                path: "".into(),
                listeners: fixture.now.unix.clone().unwrap(),
            },
        );
        fixture
    };
    unix(Ok(OWN_PATH)).passes();
    unix(Ok("/nginx.service")).refuses("foreign_listener", "nginx");
    unix(Err("why".to_owned())).refuses("unreadable", "/run/demo.sock is unknown: why");
    let mut nobody = unix(Ok(OWN_PATH));
    for machine in [&mut nobody.first, &mut nobody.now] {
        machine.unix_groups.clear();
    }
    nobody.refuses("unreadable", "no process is known to listen there");
    let mut ended = unix(Ok(OWN_PATH));
    ended.now.parked[0].state = ParkedState::Ended;
    ended.refuses("not_reached", "");
    let mut foreign = unix(Ok("/init.scope"));
    foreign.refuses("foreign_listener", "the service manager itself");
    let text = "Id=demo.socket\nLoadState=loaded\nActiveState=active\nControlGroup=/d.socket\nListen=/run/demo.sock (Stream)\n";
    for machine in [&mut foreign.first, &mut foreign.now] {
        machine.unit = Ok(unit(&[("TriggeredBy", "demo.socket")]));
        machine.neighbours = super::super::systemd::Unit::parse_all(text.as_bytes());
    }
    foreign.passes();
    for machine in [&mut foreign.first, &mut foreign.now] {
        let legacy = text.replace("/run/", "/var/run/");
        machine.neighbours = super::super::systemd::Unit::parse_all(legacy.as_bytes());
    }
    foreign.passes();
    let mut replaced = foreign.now.clone();
    let mut groups = ["/init.scope", "/nginx.service", OWN_PATH].map(|path| Ok(path.to_owned()));
    for _ in 0..groups.len() {
        groups.rotate_left(1);
        replaced.unix_groups = groups.to_vec();
        let mut fixture = Fixture::hung();
        (fixture.first, fixture.now) = (replaced.clone(), replaced.clone());
        fixture.refuses("foreign_listener", "nginx");
    }
    for machine in [&mut foreign.first, &mut foreign.now] {
        let other = text.replace("demo.sock ", "other.sock ");
        machine.neighbours = super::super::systemd::Unit::parse_all(other.as_bytes());
    }
    foreign.refuses("foreign_listener", "the service manager itself");
    // Before the first connection of a healthy run, nothing is known; of a hung backend, that refuses.
    let mut unknown = unix(Err("why".to_owned()));
    for machine in [&mut unknown.first, &mut unknown.now] {
        machine.unix.as_mut().unwrap().clear();
    }
    unknown.refuses("unreadable", "why");
    unknown.context.hung_since = None;
    assert_eq!(
        lasting_refusals(&unknown.context, &unknown.facts()),
        [""; 0]
    );
    let mut known = unix(Ok("/nginx.service"));
    known.context.hung_since = None;
    assert_eq!(lasting_refusals(&known.context, &known.facts()).len(), 1);
    // No connection could be made, since the queue was full all the time.
    let mut full = unix(Ok(OWN_PATH));
    for machine in [&mut full.first, &mut full.now] {
        machine.parked[0].reach = Reach::Unconnected;
        machine.unix.as_mut().unwrap()[0].queue = Some((129, 128));
    }
    full.refuses("not_reached", "");
    for seconds in [NOW - 55, NOW - 45] {
        let reading = Reading::Unix {
            at: at(seconds),
            path: "".into(),
            listeners: full.now.unix.as_ref().unwrap().clone(),
        };
        full.queues.record(&[], &reading);
    }
    full.passes();
    full.first.unix.as_mut().unwrap()[0].queue = Some((128, 128));
    full.refuses("not_reached", "");
}

#[test]
fn a_debugger_a_core_dump_and_a_frozen_group_are_left_alone() {
    let disturbed = Fixture::changed(|machine| {
        let mut other = member(4_712);
        other.disturbance = Some("is dumping core".to_owned());
        machine.group.as_mut().unwrap().members.push(other);
    });
    disturbed.refuses("traced", "process 4712 of the unit is dumping core: wait");
    let frozen = Fixture::changed(|machine| {
        machine.group.as_mut().unwrap().frozen = Some("/system.slice/demo.service/c".to_owned());
    });
    frozen.refuses("frozen", "/system.slice/demo.service/c");
    let unreadable = || "the group cannot be read".to_owned();
    Fixture::changed(move |machine| machine.group = Err(unreadable()))
        .refuses("unreadable", "the group cannot be read");
}

#[test]
fn the_context_is_read() {
    Fixture::in_context(|context| context.not_local = Some("why".to_owned()))
        .refuses("not_local", "why");
    Fixture::in_context(|context| context.manifest_writable = Some("who".to_owned()))
        .refuses("manifest_writable", "who");
    Fixture::in_context(|context| context.starved = Some(Duration::from_millis(1_400)))
        .refuses("starved", "1.4 s");
}

#[test]
fn the_first_guard_that_refuses_is_named_and_what_lacks_a_fact_refuses_in_its_place() {
    let mut fixture = with(&[("Job", "1"), ("Restart", "-"), ("LoadState", "-")]);
    fixture.context.starved = Some(Duration::from_secs(2));
    fixture.refuses("unreadable", "LoadState=");
    let mut fixture = with(&[("Job", "1"), ("Restart", "-")]);
    fixture.context.starved = Some(Duration::from_secs(2));
    fixture.refuses("unreadable", "Restart=");
    fixture.context.not_local = Some("elsewhere".to_owned());
    fixture.refuses("not_local", "elsewhere");
    for property in [
        "LoadState",
        "ActiveState",
        "MainPID",
        "ControlGroup",
        "ExecMainStartTimestampMonotonic",
        "StateChangeTimestampMonotonic",
        "InvocationID",
        "Restart",
        "Job",
    ] {
        let fixture = Fixture::changed(|machine| machine.unit = Ok(unit(&[(property, "-")])));
        let (guard, why) = fixture.refusal().unwrap();
        assert_eq!(guard, "unreadable", "{property}: {why}");
    }
}

#[test]
fn lasting_refusals_are_those_that_a_healthy_backend_shows() {
    let refusals = |change: &dyn Fn(&mut Still)| {
        let mut machine = Still::hung();
        machine.parked.clear();
        change(&mut machine);
        let context = Context {
            hung_since: None,
            ..context()
        };
        let mut gatherer = Gatherer::new(&context, &machine, QueueHistory::default());
        let facts = gatherer.observe().unwrap();
        lasting_refusals(&context, &facts)
    };
    assert_eq!(refusals(&|_| {}), [""; 0]);
    // These change by themselves.
    let passing = |machine: &mut Still| {
        machine.unit = Ok(unit(&[
            ("ActiveState", "activating"),
            ("Job", "5"),
            ("MainPID", "0"),
        ]));
        machine.rows = Ok(Vec::new());
    };
    assert_eq!(refusals(&passing), [""; 0]);
    let several = refusals(&|machine| {
        machine.unit = Ok(unit(&[("Restart", "no")]));
        machine.process = MainProcess::Hidden;
        machine.rows.as_mut().unwrap()[0].group = Some(8);
        machine.groups.insert("/nginx.service".to_owned(), 8);
    });
    let [hidden, foreign, restart] = &several[..] else {
        panic!("{several:#?}");
    };
    assert!(hidden.contains("/proc does not show"), "{hidden}");
    assert!(foreign.contains("nginx.service"), "{foreign}");
    assert!(restart.contains("Restart=no"), "{restart}");
    let typo = refusals(&|machine| {
        machine.unit = Ok(unit(&[
            ("LoadState", "not-found"),
            ("Restart", "no"),
            ("MainPID", "0"),
        ]));
    });
    let [typo] = &typo[..] else {
        panic!("{typo:#?}");
    };
    assert!(typo.contains("does not exist"), "{typo}");
    // Named once, although several guards lack it.
    let group = refusals(&|machine| machine.group = Err("no cgroup2".to_owned()));
    assert_eq!(group, ["no cgroup2"]);
}
