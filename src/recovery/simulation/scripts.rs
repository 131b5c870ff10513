//! Scripts: one watchdog, no random events, and one peculiarity of the machine.

use super::*;

/// Runs one watchdog against a machine without random events.
pub(super) fn script(
    context: &GuardContext<'_>,
    faults: Faults,
    arrange: impl FnOnce(&mut World),
) -> (Outcome, Machine) {
    let mut world = World::new(1, 0);
    arrange(&mut world);
    let shared = Shared::new(world, 1, faults);
    let watchdog = Watchdog {
        shared: shared.clone(),
        me: 0,
    };
    let outcome = watchdog.run(context).expect("the backend hangs");
    drop(watchdog);
    let (machine, _) = Arc::into_inner(shared.0).unwrap();
    let machine = machine.into_inner().unwrap();
    assert_eq!(machine.violation, None, "{}", machine.world.log.join("\n"));
    (outcome, machine)
}

fn with_behaviour(behaviour: SignalBehaviour) -> impl FnOnce(&mut World) {
    move |world| world.main().unwrap().behaviour = behaviour
}

fn with_restart(restart: RestartResult) -> impl FnOnce(&mut World) {
    move |world| world.service.restart = restart
}

fn abort() -> GuardContext<'static> {
    let mut context = context();
    context.signal = KillSignal::Abort;
    context
}

pub(super) fn signals(machine: &Machine) -> &[Option<Signal>] {
    &machine.records[0].signals
}

#[test]
fn a_hung_process_is_killed_once_and_its_successor_named() {
    let (outcome, mut machine) = script(&context(), Faults::default(), |_| {});
    let new = machine.world.service.main.unwrap();
    let Outcome::Recovered { new_pid } = outcome else {
        panic!("{outcome:?}");
    };
    assert_eq!(new_pid.get(), new);
    assert_eq!(signals(&machine), [Some(Signal::SIGKILL)]);
    assert_eq!(machine.records[0].log_lines.len(), 1);
    let line = &machine.records[0].log_lines[0];
    assert!(
        line.starts_with(
            "sending SIGKILL to process 100000000, the main process of demo.service: "
        ),
        "{line}"
    );
    assert!(!machine.world.main().unwrap().silent);
}

#[test]
fn a_dry_run_asks_for_permission_and_signals_nothing() {
    let dry_run = GuardContext {
        dry_run: true,
        ..context()
    };
    let (outcome, machine) = script(&dry_run, Faults::default(), |_| {});
    assert_eq!(outcome, Outcome::WouldKill);
    assert_eq!(signals(&machine), [None]);
    assert!(machine.records[0].log_lines.is_empty());
}

#[test]
fn a_signal_that_is_not_permitted_is_a_failure() {
    for dry_run in [false, true] {
        let faults = Faults {
            not_permitted: true,
            ..Faults::default()
        };
        let (outcome, _) = script(
            &GuardContext {
                dry_run,
                ..context()
            },
            faults,
            |_| {},
        );
        assert!(
            matches!(&outcome, Outcome::Failed(why) if why.contains("CAP_KILL")),
            "{outcome:?}"
        );
    }
}

#[test]
fn systemctl_that_fails_at_either_observation_is_a_failure() {
    for call in [0, 1] {
        let faults = Faults {
            failing_shows: vec![call],
            ..Faults::default()
        };
        let (outcome, machine) = script(&context(), faults, |_| {});
        assert_eq!(
            outcome,
            Outcome::Failed("systemctl is out of order".to_owned())
        );
        assert!(signals(&machine).is_empty());
    }
}

#[test]
fn systemctl_that_fails_after_the_signal_is_asked_again() {
    let faults = Faults {
        failing_shows: vec![2, 3],
        ..Faults::default()
    };
    let (outcome, _) = script(&context(), faults, |_| {});
    assert_eq!(outcome.name(), "recovered");
}

#[test]
fn a_delayed_log_line_is_followed_by_another_observation() {
    for (seconds, observations, name) in [(0, 2, "recovered"), (5, 3, "refused")] {
        let faults = Faults {
            slow_log: Duration::from_secs(seconds),
            job_meanwhile: seconds > 0,
            ..Faults::default()
        };
        let (outcome, machine) = script(&context(), faults, |_| {});
        assert_eq!(outcome.name(), name, "{outcome:?}");
        assert!(machine.records[0].observations >= observations);
    }
}

#[test]
fn a_backend_that_wakes_up_during_the_log_line_is_not_killed() {
    let faults = Faults {
        slow_log: Duration::from_millis(900),
        wakes_meanwhile: true,
        ..Faults::default()
    };
    let (outcome, machine) = script(&context(), faults, |_| {});
    assert_eq!(outcome.guard(), Some(Guard::Answered), "{outcome:?}");
    assert!(signals(&machine).is_empty());
}

#[test]
fn an_observation_that_is_always_stale_does_not_lead_to_a_signal() {
    // Two before the log line, then three that could be fresh.
    for (slow_inspections, refusal) in [(4, None), (5, Some(Guard::Starved))] {
        let faults = Faults {
            slow_inspections,
            ..Faults::default()
        };
        let (outcome, machine) = script(&context(), faults, |_| {});
        assert_eq!(outcome.guard(), refusal, "{outcome:?}");
        assert_eq!(signals(&machine).is_empty(), refusal.is_some());
    }
}

#[test]
fn a_process_that_no_signal_ends_is_reported_as_such() {
    for context in [context(), abort()] {
        let (outcome, _) = script(
            &context,
            Faults::default(),
            with_behaviour(SignalBehaviour::Stuck),
        );
        let Outcome::Failed(why) = outcome else {
            panic!("{outcome:?}");
        };
        assert!(why.contains("survived SIGKILL for 10 s (state D"), "{why}");
    }
}

#[test]
fn an_abort_is_followed_by_a_kill_unless_it_worked() {
    for (behaviour, expected) in [
        (SignalBehaviour::Dies(4_000), &[Some(Signal::SIGABRT)][..]),
        (
            SignalBehaviour::IgnoresAbort,
            &[Some(Signal::SIGABRT), Some(Signal::SIGKILL)],
        ),
        (SignalBehaviour::Dumps(50_000), &[Some(Signal::SIGABRT)]),
        (
            SignalBehaviour::Dumps(80_000),
            &[Some(Signal::SIGABRT), Some(Signal::SIGKILL)],
        ),
    ] {
        let (outcome, machine) = script(&abort(), Faults::default(), with_behaviour(behaviour));
        assert_eq!(outcome.name(), "recovered", "{behaviour:?}");
        assert_eq!(signals(&machine), expected, "{behaviour:?}");
    }
}

#[test]
fn a_unit_that_ends_in_failed_is_not_waited_for() {
    let (outcome, machine) = script(
        &context(),
        Faults::default(),
        with_restart(RestartResult::Failed),
    );
    let Outcome::NotRecovered {
        new_pid: None,
        detail,
    } = outcome
    else {
        panic!("{outcome:?}");
    };
    assert!(detail.contains("Result=start-limit-hit"), "{detail}");
    assert!(
        detail.contains("\"systemctl reset-failed demo.service && systemctl start demo.service\""),
        "{detail}"
    );
    assert!(machine.world.now < Duration::from_secs(2_040));
}

#[test]
fn the_wait_for_a_restart_is_as_long_as_the_unit_says() {
    let (outcome, machine) = script(
        &context(),
        Faults::default(),
        with_restart(RestartResult::Limbo),
    );
    let detail = outcome.detail().unwrap().to_owned();
    assert!(
        detail.contains("no new main process within 15 s (ActiveState=activating"),
        "{detail}"
    );
    assert!(
        detail.contains("\"journalctl -u demo.service\""),
        "{detail}"
    );
    assert!(
        machine.world.now < Duration::from_secs(2_060),
        "{:?}",
        machine.world.now
    );
}

#[test]
fn children_that_delay_the_restart_are_reported_once() {
    for (millis, sub, times) in [
        (4_000, "stop-sigterm", 1),
        (1_000, "stop-sigterm", 0),
        (4_000, "stop", 0),
        (4_000, "stop-post", 0),
    ] {
        let restart = RestartResult::Stops(millis, sub);
        let (outcome, machine) = script(&context(), Faults::default(), with_restart(restart));
        assert_eq!(outcome.name(), "recovered");
        let logged = &machine.records[0].log_lines;
        let left = logged.iter().filter(|line| line.contains("KillMode=mixed"));
        assert_eq!(left.count(), times, "{millis} {sub}: {logged:?}");
    }
}

#[test]
fn a_new_process_that_hangs_too_is_not_recovered_and_not_killed() {
    let restart = RestartResult::Restart(100, true);
    let (outcome, machine) = script(&context(), Faults::default(), with_restart(restart));
    let Outcome::NotRecovered {
        new_pid: Some(_),
        detail,
    } = outcome
    else {
        panic!("{outcome:?}");
    };
    assert!(
        detail.contains("the core was not healthy within verify_seconds (20)"),
        "{detail}"
    );
    assert_eq!(signals(&machine), [Some(Signal::SIGKILL)]);
    assert!(
        machine.world.now < Duration::from_secs(2_060),
        "{:?}",
        machine.world.now
    );
}

pub(super) fn with_dump() -> GuardContext<'static> {
    GuardContext {
        dump_signal: Some(DumpSignal::Usr1),
        ..context()
    }
}

#[test]
fn a_dump_goes_to_the_processes_that_catch_it_and_precedes_the_kill() {
    for (on_dump, expected) in [
        (OnDump::Writes, 2),
        (OnDump::Blocked, 1),
        (OnDump::NoHandler, 1),
    ] {
        let (outcome, machine) = script(&with_dump(), Faults::default(), |world| {
            world.main().unwrap().on_dump = on_dump;
            for (number, on_dump) in [(1, OnDump::Writes), (2, OnDump::NoHandler)] {
                world.workers.push(Worker {
                    number,
                    traced: false,
                    on_dump,
                });
            }
        });
        assert_eq!(outcome.name(), "recovered", "{on_dump:?}");
        assert_eq!(machine.records[0].dumped.len(), expected, "{on_dump:?}");
        assert_eq!(signals(&machine), [Some(Signal::SIGKILL)]);
    }
}

#[test]
fn a_main_process_that_ends_after_the_dump_signal_counts_as_killed() {
    let (outcome, machine) = script(&with_dump(), Faults::default(), |world| {
        world.main().unwrap().on_dump = OnDump::Exits;
    });
    assert_eq!(outcome.name(), "recovered");
    assert_eq!(machine.records[0].dumped.len(), 1);
    assert!(signals(&machine).is_empty());
}

#[test]
fn a_backend_that_wakes_up_during_the_dump_is_left_alone() {
    let (outcome, machine) = script(&with_dump(), Faults::default(), |world| {
        world.main().unwrap().on_dump = OnDump::Wakes;
    });
    assert_eq!(outcome.guard(), Some(Guard::Answered), "{outcome:?}");
    assert!(signals(&machine).is_empty());
}

#[test]
fn a_dry_run_and_a_refusal_send_no_dump_signal() {
    let dry_run = GuardContext {
        dry_run: true,
        ..with_dump()
    };
    for (context, foreign) in [(dry_run, false), (with_dump(), true)] {
        let (_, machine) = script(&context, Faults::default(), |world| {
            world.main().unwrap().on_dump = OnDump::Writes;
            world.foreign = foreign;
        });
        assert!(machine.records[0].dumped.is_empty());
    }
}
