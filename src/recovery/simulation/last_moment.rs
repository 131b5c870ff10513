//! Scripts in which the first observation passes every guard, and one thing changes before the signal.

use super::network::Filter;
use super::scripts::{script, signals, with_dump_signal};
use super::world::FIRST;
use super::*;

/// Makes `change` at that moment, which is after the first observation.
fn changed(
    moment: Moment,
    arrange: impl FnOnce(&mut World),
    change: impl FnOnce(&mut Machine) + Send + 'static,
) -> (Outcome, Machine) {
    let changes = Script {
        change: Some((moment, Box::new(change))),
        ..Script::default()
    };
    script(&with_dump_signal(), changes, |world| {
        world.main().unwrap().on_dump_signal = OnDumpSignal::Writes;
        world.workers.push((1_000, OnDumpSignal::Writes));
        arrange(world);
    })
}

/// Makes `change` at each moment; a later observation has to find it.
fn is_refused(
    guard: &str,
    arrange: fn(&mut World),
    change: impl Fn(&mut World) + Copy + Send + 'static,
) {
    for moment in [
        Moment::BeforeTheSecondObservation,
        Moment::WhileLogging,
        Moment::WhileAsking,
    ] {
        let change = move |machine: &mut Machine| {
            // So long that the last observation is stale.
            machine.world.pass(Duration::from_secs(5));
            change(&mut machine.world);
        };
        let (outcome, machine) = changed(moment, arrange, change);
        let refusal = outcome.guard().map_or(outcome.name(), Guard::name);
        assert_eq!(refusal, guard, "{moment:?}: {outcome:?}");
        assert!(signals(&machine).is_empty(), "{moment:?}");
        let asked = &machine.records[0].asked;
        assert_eq!(asked.is_empty(), moment != Moment::WhileAsking);
    }
}

#[test]
fn a_fault_that_begins() {
    for (guard, fault) in [
        ("traced", Fault::Traced),
        ("traced", Fault::WorkerTraced),
        ("foreign_listener", Fault::Foreign),
        ("unreadable", Fault::Removed),
        ("foreign_listener", Fault::Systemd),
        ("main_pid", Fault::Outside),
        ("unreadable", Fault::Hidden),
        ("unreadable", Fault::GroupFails),
        ("unreadable", Fault::TableFails),
        ("frozen", Fault::FrozenGroup),
        ("failed", Fault::ShowFails),
    ] {
        is_refused(guard, |_| {}, move |world| world.toggle(fault));
    }
}

#[test]
fn a_backend_that_answers() {
    is_refused("answered", |_| {}, |world| world.set_mode(Mode::Serves));
}

#[test]
fn a_backend_whose_answers_are_dropped() {
    is_refused(
        "answered",
        |_| {},
        |world| {
            world.set_filter(Some(Filter::Answers));
            world.set_mode(Mode::Serves);
        },
    );
}

#[test]
fn a_backend_that_accepts_a_connection_that_had_waited() {
    is_refused(
        "busy",
        |world| world.bots(1),
        |world| world.set_mode(Mode::Overloaded(60_000)),
    );
}

/// A full queue has room again: a request that was never connected is.
#[test]
fn a_connect_that_had_been_pending() {
    for moment in [Moment::WhileLogging, Moment::WhileAsking] {
        let full = |world: &mut World| {
            world.network.limit = 0;
            world.bots(1);
        };
        let wakes = |machine: &mut Machine| machine.world.set_mode(Mode::Serves);
        let (outcome, machine) = changed(moment, full, wakes);
        assert!(
            matches!(outcome, Outcome::Refused(..)),
            "{moment:?}: {outcome:?}"
        );
        assert!(signals(&machine).is_empty());
    }
}

#[test]
fn a_process_that_somebody_else_kills() {
    is_refused(
        "gone",
        |_| {},
        |world| world.main().unwrap().kill_pending = true,
    );
}

#[test]
fn a_unit_that_is_restarted_with_the_same_pid() {
    for (moment, name) in [
        (Moment::BeforeTheSecondObservation, "changed"),
        (Moment::WhileLogging, "changed"),
        // It may have ended of the signal that asked for stacks.
        (Moment::WhileAsking, "recovered"),
    ] {
        let change = |machine: &mut Machine| {
            let world = &mut machine.world;
            world.pass(Duration::from_secs(5));
            let pid = world.service.main.unwrap();
            world.main().unwrap().zombie = true;
            world.notice();
            world.next_pid = pid - FIRST;
            world.start(Mode::Serves);
            assert_eq!(world.service.main, Some(pid));
        };
        let (outcome, machine) = changed(moment, |_| {}, change);
        let refusal = outcome.guard().map_or(outcome.name(), Guard::name);
        assert_eq!(refusal, name, "{moment:?}: {outcome:?}");
        assert!(signals(&machine).is_empty());
    }
}

#[test]
fn a_main_process_that_hands_over_to_a_child() {
    is_refused(
        "changed",
        |_| {},
        |world| {
            let pid = world.spawn(1, Mode::Hangs { accepts: false });
            world.appoint(pid);
        },
    );
}
