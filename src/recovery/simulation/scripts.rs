//! Scripts: one watchdog, no random events, and one peculiarity of the machine.

use super::*;

/// Runs one watchdog against a machine without random events.
pub(super) fn script(
    context: &Context,
    script: Script,
    arrange: impl FnOnce(&mut World),
) -> (Outcome, Machine) {
    let mut world = World::new(1, 0);
    arrange(&mut world);
    let shared = Shared::new(world, 1, script);
    let watchdog = Watchdog {
        shared: shared.clone(),
        me: 0,
    };
    let outcome = watchdog.run(context).expect("the backend hangs");
    drop(watchdog);
    let machine = shared.into_machine();
    assert_eq!(machine.violation, None, "{}", machine.world.log.join("\n"));
    (outcome, machine)
}

/// A recovery of a machine that is only arranged.
fn arranged(context: &Context, arrange: impl FnOnce(&mut World)) -> (Outcome, Machine) {
    script(context, Script::default(), arrange)
}

fn with_restart(restart: Restart) -> (Outcome, Machine) {
    arranged(&context(), |world| world.service.restart = restart)
}

fn abort() -> Context {
    let mut context = context();
    context.plan.signal = KillSignal::Abort;
    context
}

pub(super) fn with_dump_signal() -> Context {
    let mut context = context();
    context.plan.dump_signal = Some(Signal::SIGUSR1);
    context
}

pub(super) fn signals(machine: &Machine) -> &[Signal] {
    &machine.records[0].signals
}

/// How long the recovery took, without the sweep's two attempts and the grace period.
fn took(machine: &Machine) -> Duration {
    machine.world.now - machine.records[0].began - Duration::from_secs(50)
}

#[test]
fn a_hung_process_is_killed_once_and_its_successor_named() {
    let (outcome, machine) = arranged(&context(), |_| {});
    let Outcome::Recovered { new_pid } = outcome else {
        panic!("{outcome:?}");
    };
    assert_eq!(Some(new_pid.get()), machine.world.service.main);
    assert_eq!(signals(&machine), [Signal::SIGKILL]);
    let [line] = &*machine.records[0].log_lines else {
        panic!("{:?}", machine.records[0].log_lines);
    };
    let expected = "about to send SIGKILL to process 100000000, the main process of demo.service: ";
    assert!(line.starts_with(expected), "{line}");
    assert_eq!(machine.world.mode(), Some(Mode::Serves));
}

#[test]
fn every_kind_of_hang_is_recovered() {
    for unix in [false, true] {
        for accepts in [false, true] {
            for limit in [0, 1, 128] {
                let (outcome, _) = arranged(&context(), |world| {
                    (world.network.unix, world.network.limit) = (unix, limit);
                    world.bots(5);
                    world.set_mode(Mode::Hangs { accepts });
                });
                assert_eq!(outcome.name(), "recovered", "{unix} {accepts} {limit}");
            }
        }
    }
}

#[test]
fn a_dry_run_asks_for_permission_and_signals_nothing() {
    for (forbidden, name) in [(false, "would_kill"), (true, "failed")] {
        let dry_run = Context {
            dry_run: true,
            ..with_dump_signal()
        };
        let (outcome, machine) = arranged(&dry_run, |world| {
            world.main().unwrap().on_dump_signal = OnDumpSignal::Writes;
            world
                .faults
                .extend(forbidden.then_some(Fault::NotPermitted));
        });
        assert_eq!(outcome.name(), name);
        let says = outcome.detail().unwrap_or("CAP_KILL");
        assert!(says.contains("CAP_KILL"), "{says}");
        assert!(signals(&machine).is_empty());
        assert!(machine.records[0].asked.is_empty());
        assert!(machine.records[0].log_lines.is_empty());
    }
}

#[test]
fn systemctl_that_fails_prevents_a_signal_but_is_asked_again_after_it() {
    for (failing_shows, name) in [
        (vec![0], "failed"),
        (vec![1], "failed"),
        (vec![2, 3], "recovered"),
    ] {
        let fails = Script {
            failing_shows,
            ..Script::default()
        };
        let (outcome, machine) = script(&context(), fails, |_| {});
        assert_eq!(outcome.name(), name, "{outcome:?}");
        assert_eq!(signals(&machine).is_empty(), name == "failed");
    }
}

#[test]
fn observations_that_are_always_stale_do_not_lead_to_a_signal() {
    // Two before the log line, then three that could be fresh.
    for (slow_groups, refusal) in [(4, None), (5, Some(Guard::STARVED))] {
        let slow = Script {
            slow_groups,
            ..Script::default()
        };
        let (outcome, machine) = script(&context(), slow, |_| {});
        assert_eq!(outcome.guard(), refusal, "{outcome:?}");
        assert_eq!(signals(&machine).is_empty(), refusal.is_some());
    }
}

#[test]
fn a_process_that_no_signal_ends_is_reported_as_such() {
    for (context, sent) in [(context(), 1), (abort(), 2)] {
        let survives = Script {
            change: Some((
                Moment::WhileLogging,
                Box::new(|machine: &mut Machine| {
                    machine.world.main().unwrap().on_signal = OnSignal::Survives;
                }),
            )),
            ..Script::default()
        };
        let (outcome, machine) = script(&context, survives, |_| {});
        assert!(
            matches!(&outcome, Outcome::Failed(why) if why.contains("survived SIGKILL for 10 s (state D")),
            "{outcome:?}"
        );
        assert_eq!(signals(&machine).len(), sent);
    }
}

#[test]
fn an_abort_is_followed_by_a_kill_unless_it_worked() {
    const BOTH: &[Signal] = &[Signal::SIGABRT, Signal::SIGKILL];
    for (on_signal, expected, seconds) in [
        (OnSignal::Dies(4_000), &BOTH[..1], 4..6),
        (OnSignal::IgnoresAbort, BOTH, 5..7),
        (OnSignal::DumpsCore(50_000), &BOTH[..1], 50..52),
        (OnSignal::DumpsCore(80_000), BOTH, 60..62),
    ] {
        let (outcome, machine) = arranged(&abort(), |world| {
            world.main().unwrap().on_signal = on_signal;
        });
        assert_eq!(outcome.name(), "recovered", "{on_signal:?}");
        assert_eq!(signals(&machine), expected, "{on_signal:?}");
        assert!(seconds.contains(&took(&machine).as_secs()), "{on_signal:?}");
    }
}

#[test]
fn a_unit_that_ends_in_failed_is_not_waited_for() {
    let (outcome, machine) = with_restart(Restart::Failed);
    let detail = outcome.detail().unwrap_or_default();
    for part in [
        "Result=start-limit-hit",
        "\"systemctl reset-failed demo.service && systemctl start demo.service\"",
    ] {
        assert!(detail.contains(part), "{outcome:?}");
    }
    assert!(took(&machine) < Duration::from_secs(2));
}

#[test]
fn the_wait_for_a_restart_is_as_long_as_the_unit_says() {
    // TimeoutStopSec=5, RestartSec=0.1, and 10 s; ExecStartPre= has TimeoutStartSec=30 more.
    for (restart, name, seconds) in [
        (Restart::Never, "not_recovered", 15..17),
        (Restart::StartPre(40_000), "recovered", 40..43),
        (Restart::StartPre(60_000), "not_recovered", 45..47),
    ] {
        let (outcome, machine) = with_restart(restart);
        assert_eq!(outcome.name(), name, "{restart:?}");
        assert!(seconds.contains(&took(&machine).as_secs()), "{restart:?}");
        let detail = outcome
            .detail()
            .unwrap_or("systemd ran no new main process");
        assert!(
            detail.contains("systemd ran no new main process"),
            "{detail}"
        );
    }
}

#[test]
fn children_that_delay_the_restart_are_reported_once() {
    for (millis, sub, times) in [
        (4_000, "stop-sigterm", 1),
        (1_000, "stop-sigterm", 0),
        (4_000, "stop", 0),
        (4_000, "stop-post", 0),
    ] {
        let (outcome, machine) = with_restart(Restart::Stops(millis, sub));
        assert_eq!(outcome.name(), "recovered");
        let lines = &machine.records[0].log_lines;
        let left = lines.iter().filter(|line| line.contains("KillMode=mixed"));
        assert_eq!(left.count(), times, "{millis} {sub}: {lines:?}");
    }
}

#[test]
fn a_new_process_that_hangs_too_is_not_recovered_and_not_killed() {
    let hangs = Mode::Hangs { accepts: false };
    let (outcome, machine) = with_restart(Restart::After(100, hangs));
    assert!(outcome.new_pid().is_some(), "{outcome:?}");
    let detail = outcome.detail().unwrap_or_default();
    let expected = "the core was not healthy within verify_seconds (20)";
    assert!(detail.contains(expected), "{detail}");
    assert_eq!(signals(&machine), [Signal::SIGKILL]);
    assert_eq!(took(&machine).as_secs(), 20);
}

#[test]
fn stacks_are_asked_of_the_processes_that_catch_the_signal_before_the_kill() {
    for (on_dump_signal, asked) in [
        (OnDumpSignal::Writes, 2),
        (OnDumpSignal::Blocks, 1),
        (OnDumpSignal::NoHandler, 1),
    ] {
        let (outcome, machine) = arranged(&with_dump_signal(), |world| {
            world.main().unwrap().on_dump_signal = on_dump_signal;
            world.workers = [(1, OnDumpSignal::Writes), (2, OnDumpSignal::NoHandler)].into();
        });
        assert_eq!(outcome.name(), "recovered", "{on_dump_signal:?}");
        assert_eq!(machine.records[0].asked.len(), asked, "{on_dump_signal:?}");
        assert_eq!(signals(&machine), [Signal::SIGKILL]);
    }
}

#[test]
fn a_main_process_that_ends_of_the_dump_signal_counts_as_killed() {
    // Its connections end with it, or up to 300 ms earlier.
    for earlier in [0, 100, 300] {
        let (outcome, machine) = arranged(&with_dump_signal(), |world| {
            world.main().unwrap().on_dump_signal = OnDumpSignal::Ends(earlier);
        });
        assert_eq!(outcome.name(), "recovered", "{earlier}");
        assert_eq!(machine.records[0].asked.len(), 1);
        assert!(signals(&machine).is_empty());
    }
}
