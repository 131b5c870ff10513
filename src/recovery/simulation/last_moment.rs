//! Scripts in which the first observation passes every guard, and one thing changes before the signal.

use super::scripts::{script, signals, with_dump};
use super::world::FIRST;
use super::*;

/// Makes `change` at each moment; a later observation has to find it.
fn is_refused(guard: Guard, change: fn(&mut Machine)) {
    for moment in [
        Moment::BeforeTheSecondObservation,
        Moment::WhileLogging,
        Moment::WhileDumping,
    ] {
        let faults = Faults {
            change: Some((moment, change)),
            // So long that the last observation is stale.
            slow_log: match moment {
                Moment::WhileLogging => Duration::from_secs(5),
                Moment::BeforeTheSecondObservation | Moment::WhileDumping => Duration::ZERO,
            },
            ..Faults::default()
        };
        let (outcome, machine) = script(&with_dump(), faults, |world| {
            world.main().unwrap().on_dump = OnDump::Writes;
            world.workers.push(Worker {
                number: 1_000,
                traced: false,
                on_dump: OnDump::Writes,
            });
        });
        assert_eq!(outcome.guard(), Some(guard), "{moment:?}: {outcome:?}");
        assert!(signals(&machine).is_empty(), "{moment:?}");
        let dumped = &machine.records[0].dumped;
        assert_eq!(dumped.is_empty(), moment != Moment::WhileDumping);
    }
}

#[test]
fn a_listener_that_changes_hands() {
    is_refused(Guard::ForeignListener, |machine| {
        machine.world.foreign = true
    });
}

#[test]
fn a_worker_that_is_traced() {
    is_refused(Guard::Traced, |machine| {
        machine.world.workers.first_mut().unwrap().traced = true;
    });
}

#[test]
fn a_main_process_that_is_traced() {
    is_refused(Guard::Traced, |machine| {
        machine.world.main().unwrap().traced = true
    });
}

#[test]
fn a_client_that_is_served() {
    is_refused(Guard::Busy, |machine| {
        machine.world.served = Some(machine.world.now)
    });
}

#[test]
fn a_process_that_leaves_its_group() {
    is_refused(Guard::MainPid, |machine| {
        machine.world.main().unwrap().outside = true
    });
}

#[test]
fn a_backend_that_answers() {
    is_refused(Guard::Answered, |machine| {
        machine.world.main().unwrap().silent = false
    });
}

#[test]
fn a_job_that_is_queued() {
    is_refused(Guard::JobQueued, |machine| machine.world.service.job = true);
}

#[test]
fn a_unit_that_is_frozen() {
    is_refused(Guard::Frozen, |machine| machine.world.service.frozen = true);
}

#[test]
fn a_process_that_somebody_else_kills() {
    is_refused(Guard::Gone, |machine| {
        machine.world.main().unwrap().kill_pending = true
    });
}

#[test]
fn a_unit_that_is_restarted_with_the_same_number() {
    is_refused(Guard::Changed, |machine| {
        let world = &mut machine.world;
        let number = world.service.main.unwrap();
        world.main().unwrap().zombie = true;
        world.notice();
        world.next_number = number - FIRST;
        world.start(true);
        assert_eq!(world.service.main, Some(number));
    });
}

#[test]
fn a_main_process_that_hands_over_to_a_child() {
    is_refused(Guard::Changed, |machine| {
        let world = &mut machine.world;
        let number = world.spawn(true, SignalBehaviour::Dies(0));
        world.appoint(number);
    });
}

#[test]
fn a_reason_that_ends_after_the_first_observation() {
    let faults = Faults {
        change: Some((Moment::BeforeTheSecondObservation, |machine| {
            machine.world.service.job = false;
        })),
        ..Faults::default()
    };
    let (outcome, machine) = script(&with_dump(), faults, |world| world.service.job = true);
    assert_eq!(outcome.guard(), Some(Guard::JobQueued), "{outcome:?}");
    assert!(signals(&machine).is_empty());
}

#[test]
fn an_observation_after_the_dump_that_is_always_stale() {
    fn slow(machine: &mut Machine, inspections: usize) {
        machine.faults.slow_inspections = inspections;
    }
    let cases: [(fn(&mut Machine), _); 2] = [
        (|machine| slow(machine, 3), None),
        (|machine| slow(machine, 4), Some(Guard::Starved)),
    ];
    for (change, refusal) in cases {
        let faults = Faults {
            change: Some((Moment::WhileDumping, change)),
            ..Faults::default()
        };
        let (outcome, machine) = script(&with_dump(), faults, |world| {
            world.main().unwrap().on_dump = OnDump::Writes;
        });
        assert_eq!(outcome.guard(), refusal, "{outcome:?}");
        assert_eq!(signals(&machine).is_empty(), refusal.is_some());
    }
}
