//! Drives the real steps against a simulated machine: in random rounds, with two watchdogs at once and
//! random events between any two calls, and in scripts. It does not use the guards' logic: whether a signal
//! is wrong is derived from the simulated machine itself.

mod events;
mod host;
mod last_moment;
mod prober;
mod scripts;
mod watchdog;
mod world;

use std::panic::{self, AssertUnwindSafe};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use nix::sys::signal::Signal;

use self::watchdog::Watchdog;
use self::world::{Flaw, OnDump, RestartResult, SignalBehaviour, Worker, World};
use super::observation::GuardContext;
use super::{Guard, Outcome};
use crate::clock::Monotonic;
use crate::manifest::{DumpSignal, KillSignal, Scope};

/// What one watchdog has observed and done, recorded by the machine.
#[derive(Clone, Debug, Default)]
struct Record {
    /// The process whose hang its sweep observed from beginning to end.
    observed: Option<u64>,
    began: Duration,
    min_uptime: Duration,
    /// Main process and invocation at its first observation.
    first: Option<(Option<u32>, u64)>,
    observations: usize,
    /// How many observations it had made when it opened the process.
    observations_when_opened: usize,
    /// The reasons against a signal at the last observation.
    against: Against,
    /// The process that was sent the final probe, and whether the probe reached it.
    asked: Option<(u64, bool)>,
    /// The processes that were sent the dump signal.
    dumped: Vec<u32>,
    /// Whether the observed process was among them.
    dumped_main: bool,
    signals: Vec<Option<Signal>>,
    log_lines: Vec<String>,
}

/// The reasons against a signal, one for each source of facts, as of its last read.
#[derive(Clone, Debug, Default)]
struct Against {
    manager: Option<&'static str>,
    process: Option<&'static str>,
    members: Option<&'static str>,
    sockets: Option<&'static str>,
    probe: Option<&'static str>,
    always: Option<&'static str>,
}

impl Against {
    /// The first reason.
    fn first(&self) -> Option<&'static str> {
        let observations = [self.manager, self.process, self.members, self.sockets];
        let all = observations.into_iter().chain([self.probe, self.always]);
        all.flatten().next()
    }
}

/// A script's change to the machine at a certain moment.
type Change = fn(&mut Machine);

/// The faults that a script gives the machine.
#[derive(Clone, Debug, Default)]
struct Faults {
    /// The calls of `show` that fail, counted from 0.
    failing_shows: Vec<usize>,
    not_permitted: bool,
    /// How long a reader of stderr keeps the first log line waiting.
    slow_log: Duration,
    /// How many reads of /proc still take too long.
    slow_inspections: usize,
    /// A job is queued while the log line waits.
    job_meanwhile: bool,
    /// A change to the machine at a certain moment.
    change: Option<(Moment, Change)>,
    /// The backend wakes up while the log line waits.
    wakes_meanwhile: bool,
}

/// Moments of a recovery after the first observation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Moment {
    BeforeTheSecondObservation,
    WhileLogging,
    WhileDumping,
}

#[derive(Debug)]
struct Machine {
    world: World,
    records: Vec<Record>,
    faults: Faults,
    /// Whose turn it is; `None` once all are done.
    turn: Option<usize>,
    running: Vec<usize>,
    violation: Option<String>,
}

impl Machine {
    fn violated(&mut self, what: String) {
        self.world.note(&what);
        self.violation.get_or_insert(what);
    }

    /// Applies the script's change for this moment.
    fn change_at(&mut self, moment: Moment) {
        if let Some((_, change)) = (self.faults.change).take_if(|(when, _)| *when == moment) {
            change(self);
        }
    }

    fn hand_on(&mut self) {
        let index = self.world.random.below(self.running.len() as u64);
        self.turn = self.running.get(index as usize).copied();
    }
}

/// The machine, shared by the watchdogs: one acts at a time, and the seed decides which one is next.
#[derive(Clone, Debug)]
struct Shared(Arc<(Mutex<Machine>, Condvar)>);

impl Shared {
    fn new(world: World, watchdogs: usize, faults: Faults) -> Self {
        let machine = Machine {
            world,
            records: vec![Record::default(); watchdogs],
            faults,
            turn: Some(0),
            running: (0..watchdogs).collect(),
            violation: None,
        };
        Self(Arc::new((Mutex::new(machine), Condvar::new())))
    }
}

fn context() -> GuardContext<'static> {
    GuardContext {
        unit: "demo.service",
        scope: Scope::System,
        signal: KillSignal::Kill,
        dump_signal: None,
        min_uptime: Duration::from_secs(120),
        verify: Duration::from_secs(20),
        dry_run: false,
        sweep_began: Monotonic::from_micros(0),
        silent_at: vec!["127.0.0.1:80".parse().unwrap()],
        starved: None,
        own_pid: 99,
        user_manager: None,
        not_local: None,
        manifest_writable: None,
    }
}

/// One round: a machine and two watchdogs, all determined by one seed.
fn round(seed: u64) -> (Vec<Option<Outcome>>, Machine) {
    let mut world = World::new(seed, seed % 7 * 10);
    let behaviour = match world.random.below(8) {
        0 => SignalBehaviour::IgnoresAbort,
        1 => SignalBehaviour::Stuck,
        2 => SignalBehaviour::Dumps(world.random.below(90_000)),
        _ => SignalBehaviour::Dies(world.random.below(3_000)),
    };
    world.on_dump = match world.random.below(8) {
        0 => OnDump::NoHandler,
        1 => OnDump::Blocked,
        2 => OnDump::Exits,
        3 => OnDump::Wakes,
        _ => OnDump::Writes,
    };
    let on_dump = world.on_dump;
    let main = world.main().unwrap();
    main.behaviour = behaviour;
    main.on_dump = on_dump;
    for number in 0..world.random.below(3) as u32 {
        world.workers.push(Worker {
            number: 1_000 + number,
            traced: false,
            on_dump,
        });
    }
    world.service.restart = match world.random.below(8) {
        0 => RestartResult::Failed,
        1 => RestartResult::Limbo,
        2 => RestartResult::Stops(world.random.below(20_000), "stop-sigterm"),
        other => RestartResult::Restart(world.random.below(2_000), other == 3),
    };
    let flaws = [
        Flaw::NotFound,
        Flaw::Mortal,
        Flaw::NoJob,
        Flaw::KillsMainOnly,
    ];
    world.flaw = flaws.get(world.random.below(60) as usize).copied();
    let mut context = context();
    if world.random.chance(300) {
        context.dump_signal = Some(DumpSignal::Usr1);
    }
    if world.random.chance(300) {
        context.signal = KillSignal::Abort;
    }
    if world.random.chance(300) {
        context.min_uptime = Duration::ZERO;
    }
    context.starved = world.random.chance(30).then(|| "late".to_owned());
    context.not_local = world.random.chance(30).then(|| "far away".to_owned());
    context.manifest_writable = world.random.chance(30).then(|| "by all".to_owned());
    context.dry_run = world.random.chance(50);

    let shared = Shared::new(world, 2, Faults::default());
    let run = |me| {
        let watchdog = Watchdog {
            shared: shared.clone(),
            me,
        };
        let run = panic::catch_unwind(AssertUnwindSafe(|| watchdog.run(&context)));
        // After a panic, the other watchdog would wait for its turn forever.
        shared.0.1.notify_all();
        run.unwrap_or_else(|_| panic!("seed {seed}: watchdog {me} panicked"))
    };
    let outcomes = std::thread::scope(|scope| {
        let runs = [0, 1].map(|me| scope.spawn(move || run(me)));
        runs.map(|run| run.join().unwrap()).to_vec()
    });
    let (machine, _) = Arc::into_inner(shared.0).unwrap();
    (outcomes, machine.into_inner().unwrap())
}

/// Two watchdogs and random events: no signal ever reaches a process whose hang the watchdog has not
/// observed itself, nor one that a guard protects.
#[test]
fn no_round_signals_the_wrong_process() {
    const ROUNDS: u64 = 2_000;
    let mut seen = std::collections::BTreeMap::new();
    for seed in 0..ROUNDS {
        let (outcomes, machine) = round(seed);
        if let Some(violation) = machine.violation {
            panic!("seed {seed}: {violation}\n{}", machine.world.log.join("\n"));
        }
        for record in &machine.records {
            let died_of_dump = record.dumped_main && record.signals.is_empty();
            for (name, is_so) in [
                ("dumped", !record.dumped.is_empty()),
                ("died_of_dump", died_of_dump),
            ] {
                *seen.entry(name).or_insert(0_u64) += u64::from(is_so);
            }
        }
        for outcome in outcomes.iter().flatten() {
            let name = outcome.guard().map_or(outcome.name(), Guard::name);
            *seen.entry(name).or_insert(0_u64) += 1;
        }
    }
    // The rounds prove something only if each of these occurs often enough.
    for (name, at_least) in [
        ("recovered", ROUNDS / 10),
        ("not_recovered", ROUNDS / 50),
        ("failed", ROUNDS / 100),
        ("would_kill", ROUNDS / 100),
        ("restarted", ROUNDS / 100),
        ("changed", 1),
        ("gone", 1),
        ("answered", 1),
        ("traced", 1),
        ("job_queued", 1),
        ("frozen", 1),
        ("not_active", 1),
        ("too_young", 1),
        ("starved", 1),
        ("not_local", 1),
        ("not_loaded", 1),
        ("no_restart", 1),
        ("manifest_writable", 1),
        ("unreadable", 1),
        ("main_pid", 1),
        ("foreign_listener", 1),
        ("not_reached", 1),
        ("busy", 1),
        ("dumped", ROUNDS / 20),
        ("died_of_dump", 1),
    ] {
        let count = seen.get(name).copied().unwrap_or(0);
        assert!(count >= at_least, "{name}: {count} of {seen:?}");
    }
}

#[test]
fn a_round_is_the_same_each_time() {
    let (first, again) = (round(1_234), round(1_234));
    assert_eq!(first.0, again.0);
    assert_eq!(first.1.world.log, again.1.world.log);
}
