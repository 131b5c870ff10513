//! Scripted stories: one watchdog, no mischief, and one thing about the machine that is special.

use super::*;

/// Runs one watchdog against a machine without mischief.
fn story(task: &Task<'_>, knobs: Knobs, arrange: impl FnOnce(&mut World)) -> (Outcome, Machine) {
    let mut world = World::new(1, 0);
    arrange(&mut world);
    let shared = Shared::new(world, 1, knobs);
    let watchdog = Watchdog {
        shared: shared.clone(),
        me: 0,
    };
    let outcome = watchdog.run(task).expect("the backend hangs");
    drop(watchdog);
    let (machine, _) = Arc::into_inner(shared.0).unwrap();
    let machine = machine.into_inner().unwrap();
    assert_eq!(machine.violation, None, "{}", machine.world.log.join("\n"));
    (outcome, machine)
}

fn with_nature(nature: Nature) -> impl FnOnce(&mut World) {
    move |world| world.main().unwrap().nature = nature
}

fn with_fate(fate: Fate) -> impl FnOnce(&mut World) {
    move |world| world.service.fate = fate
}

fn abort() -> Task<'static> {
    let mut task = task();
    task.standing.signal = KillSignal::Abort;
    task
}

fn signals(machine: &Machine) -> &[Option<Signal>] {
    &machine.records[0].signals
}

#[test]
fn a_hung_process_is_killed_once_and_its_successor_named() {
    let (outcome, mut machine) = story(&task(), Knobs::default(), |_| {});
    let new = machine.world.service.main.unwrap();
    let Outcome::Recovered { new_pid } = outcome else {
        panic!("{outcome:?}");
    };
    assert_eq!(new_pid.get(), new);
    assert_eq!(signals(&machine), [Some(Signal::SIGKILL)]);
    assert_eq!(machine.records[0].announcements.len(), 1);
    let line = &machine.records[0].announcements[0];
    assert!(
        line.starts_with(
            "sending SIGKILL to process 100000000, the main process of demo.service: "
        ),
        "{line}"
    );
    assert!(!machine.world.main().unwrap().mute);
}

#[test]
fn a_rehearsal_asks_for_permission_and_signals_nothing() {
    let rehearsal = Task {
        rehearse: true,
        ..task()
    };
    let (outcome, machine) = story(&rehearsal, Knobs::default(), |_| {});
    assert_eq!(outcome, Outcome::WouldKill);
    assert_eq!(signals(&machine), [None]);
    assert!(machine.records[0].announcements.is_empty());
}

#[test]
fn a_signal_that_is_not_permitted_is_a_failure() {
    for rehearse in [false, true] {
        let knobs = Knobs {
            not_permitted: true,
            ..Knobs::default()
        };
        let (outcome, _) = story(&Task { rehearse, ..task() }, knobs, |_| {});
        assert!(
            matches!(&outcome, Outcome::Failed(why) if why.contains("CAP_KILL")),
            "{outcome:?}"
        );
    }
}

#[test]
fn systemctl_that_fails_at_either_look_is_a_failure() {
    for call in [0, 1] {
        let knobs = Knobs {
            failing_shows: vec![call],
            ..Knobs::default()
        };
        let (outcome, machine) = story(&task(), knobs, |_| {});
        assert_eq!(
            outcome,
            Outcome::Failed("systemctl is out of order".to_owned())
        );
        assert!(signals(&machine).is_empty());
    }
}

#[test]
fn systemctl_that_fails_after_the_signal_is_asked_again() {
    let knobs = Knobs {
        failing_shows: vec![2, 3],
        ..Knobs::default()
    };
    let (outcome, _) = story(&task(), knobs, |_| {});
    assert_eq!(outcome.name(), "recovered");
}

#[test]
fn an_announcement_that_was_kept_waiting_is_followed_by_another_look() {
    for (seconds, looks, name) in [(0, 2, "recovered"), (5, 3, "refused")] {
        let knobs = Knobs {
            slow_announcement: Duration::from_secs(seconds),
            job_meanwhile: seconds > 0,
            ..Knobs::default()
        };
        let (outcome, machine) = story(&task(), knobs, |_| {});
        assert_eq!(outcome.name(), name, "{outcome:?}");
        assert!(machine.records[0].looks >= looks);
    }
}

#[test]
fn a_backend_that_wakes_up_while_it_is_announced_is_spared() {
    let knobs = Knobs {
        slow_announcement: Duration::from_millis(900),
        wakes_meanwhile: true,
        ..Knobs::default()
    };
    let (outcome, machine) = story(&task(), knobs, |_| {});
    assert_eq!(outcome.guard(), Some(Guard::Answered), "{outcome:?}");
    assert!(signals(&machine).is_empty());
}

#[test]
fn a_look_that_is_always_out_of_date_is_no_ground_for_a_signal() {
    // Two before the announcement, then three that could be fresh.
    for (slow_inspections, refusal) in [(4, None), (5, Some(Guard::Starved))] {
        let knobs = Knobs {
            slow_inspections,
            ..Knobs::default()
        };
        let (outcome, machine) = story(&task(), knobs, |_| {});
        assert_eq!(outcome.guard(), refusal, "{outcome:?}");
        assert_eq!(signals(&machine).is_empty(), refusal.is_some());
    }
}

#[test]
fn a_process_that_nothing_ends_is_told_as_such() {
    for task in [task(), abort()] {
        let (outcome, _) = story(&task, Knobs::default(), with_nature(Nature::Stuck));
        let Outcome::Failed(why) = outcome else {
            panic!("{outcome:?}");
        };
        assert!(why.contains("survived SIGKILL for 10 s (state D"), "{why}");
    }
}

#[test]
fn an_abort_is_followed_by_a_kill_unless_it_worked() {
    for (nature, expected) in [
        (Nature::Dies(4_000), &[Some(Signal::SIGABRT)][..]),
        (
            Nature::Deaf,
            &[Some(Signal::SIGABRT), Some(Signal::SIGKILL)],
        ),
        (Nature::Dumps(50_000), &[Some(Signal::SIGABRT)]),
        (
            Nature::Dumps(80_000),
            &[Some(Signal::SIGABRT), Some(Signal::SIGKILL)],
        ),
    ] {
        let (outcome, machine) = story(&abort(), Knobs::default(), with_nature(nature));
        assert_eq!(outcome.name(), "recovered", "{nature:?}");
        assert_eq!(signals(&machine), expected, "{nature:?}");
    }
}

#[test]
fn a_unit_that_ends_in_failed_is_not_waited_for() {
    let (outcome, machine) = story(&task(), Knobs::default(), with_fate(Fate::Failed));
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
fn a_restart_that_does_not_come_is_waited_for_as_long_as_the_unit_says() {
    let (outcome, machine) = story(&task(), Knobs::default(), with_fate(Fate::Limbo));
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
fn children_that_delay_the_restart_are_told_once() {
    for (millis, sub, times) in [
        (4_000, "stop-sigterm", 1),
        (1_000, "stop-sigterm", 0),
        (4_000, "stop", 0),
        (4_000, "stop-post", 0),
    ] {
        let fate = Fate::Stops(millis, sub);
        let (outcome, machine) = story(&task(), Knobs::default(), with_fate(fate));
        assert_eq!(outcome.name(), "recovered");
        let told = &machine.records[0].announcements;
        let deaf = told.iter().filter(|line| line.contains("KillMode=mixed"));
        assert_eq!(deaf.count(), times, "{millis} {sub}: {told:?}");
    }
}

#[test]
fn a_new_process_that_hangs_too_is_not_recovered_and_not_killed() {
    let fate = Fate::Restart(100, true);
    let (outcome, machine) = story(&task(), Knobs::default(), with_fate(fate));
    let Outcome::NotRecovered {
        new_pid: Some(_),
        detail,
    } = outcome
    else {
        panic!("{outcome:?}");
    };
    assert!(
        detail.contains("no healthy core after verify_seconds (20)"),
        "{detail}"
    );
    assert_eq!(signals(&machine), [Some(Signal::SIGKILL)]);
    assert!(
        machine.world.now < Duration::from_secs(2_060),
        "{:?}",
        machine.world.now
    );
}
