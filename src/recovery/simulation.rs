//! Drives the real steps against a simulated machine: in random rounds, with two watchdogs at once and random events
//! between any two calls, and in scripts. The machine prints unit properties and socket tables, so that reading and
//! judging them is inside. Whether a signal is wrong, or missing, is derived from the machine itself, without the
//! guards' logic.

mod events;
mod faults;
mod host;
mod last_moment;
mod network;
mod readings;
mod record;
mod scripts;
mod watchdog;
mod world;

use std::collections::BTreeMap;
use std::panic::{self, AssertUnwindSafe};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use nix::sys::signal::Signal;

use self::faults::Fault;
use self::record::{Record, Source};
use self::watchdog::Watchdog;
use self::world::{Mode, OnDumpSignal, OnSignal, Restart, World};
use super::facts::Context;
use super::{Guard, Outcome, samples};
use crate::manifest::KillSignal;

/// A change to the machine at a certain moment of a script.
type Change = Box<dyn FnOnce(&mut Machine) + Send>;

/// What a script gives the machine.
#[derive(Default)]
struct Script {
    /// The calls of `show` that fail, counted from 0.
    failing_shows: Vec<usize>,
    /// How many readings of the control group still take 2 s.
    slow_groups: usize,
    change: Option<(Moment, Change)>,
}

/// Moments of a recovery after the first observation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Moment {
    BeforeTheSecondObservation,
    WhileLogging,
    WhileAsking,
}

struct Machine {
    world: World,
    records: Vec<Record>,
    script: Script,
    /// Whose turn it is; `None` once all are done.
    turn: Option<usize>,
    running: Vec<usize>,
    /// Until when each watchdog sleeps.
    wake: Vec<Duration>,
    violation: Option<String>,
}

impl Machine {
    fn violated(&mut self, what: String) {
        self.world.note(&what);
        self.violation.get_or_insert(what);
    }

    /// Applies the script's change for this moment.
    fn change_at(&mut self, moment: Moment) {
        if let Some((_, change)) = (self.script.change).take_if(|(when, _)| *when == moment) {
            change(self);
        }
    }

    /// One that does not sleep is next. While all sleep, time passes.
    fn hand_on(&mut self) {
        let wake = |me: &usize| self.wake[*me];
        let Some(first) = self.running.iter().map(wake).min() else {
            self.turn = None;
            return;
        };
        let awake = |me: &usize| self.wake[*me] <= first.max(self.world.now);
        let awake: Vec<usize> = self.running.iter().copied().filter(awake).collect();
        self.turn = Some(self.world.random.pick(&awake));
        let sleeps = first.saturating_sub(self.world.now);
        self.world.pass(sleeps);
    }
}

/// The machine, shared by the watchdogs: one acts at a time, and the seed decides which one is next.
#[derive(Clone)]
struct Shared(Arc<(Mutex<Machine>, Condvar)>);

impl Shared {
    fn new(world: World, watchdogs: usize, script: Script) -> Self {
        let machine = Machine {
            world,
            records: vec![Record::default(); watchdogs],
            script,
            turn: Some(0),
            running: (0..watchdogs).collect(),
            wake: vec![Duration::ZERO; watchdogs],
            violation: None,
        };
        Self(Arc::new((Mutex::new(machine), Condvar::new())))
    }

    fn into_machine(self) -> Machine {
        let (machine, _) = Arc::into_inner(self.0).unwrap();
        machine.into_inner().unwrap()
    }
}

/// Runs this many watchdogs at once.
fn run(context: &Context, world: World, watchdogs: usize) -> (Vec<Option<Outcome>>, Machine) {
    let shared = Shared::new(world, watchdogs, Script::default());
    let one = |me| {
        let watchdog = Watchdog {
            shared: shared.clone(),
            me,
        };
        let outcome = panic::catch_unwind(AssertUnwindSafe(|| watchdog.run(context)));
        watchdog.end();
        outcome.unwrap_or_else(|panic| panic::resume_unwind(panic))
    };
    let outcomes = if watchdogs == 1 {
        vec![one(0)]
    } else {
        std::thread::scope(|scope| {
            let runs: Vec<_> = (0..watchdogs)
                .map(|me| scope.spawn(move || one(me)))
                .collect();
            runs.into_iter().map(|run| run.join().unwrap()).collect()
        })
    };
    (outcomes, shared.into_machine())
}

fn context() -> Context {
    let mut context = samples::context();
    context.plan.verify = Duration::from_secs(20);
    context.own_pid = 99;
    context
}

/// A machine and a watchdog's settings, all determined by the seed.
fn random_world(seed: u64) -> (World, Context) {
    let mut world = World::new(seed, seed % 7 * 5);
    let on_signal = match world.random.below(8) {
        0 => OnSignal::IgnoresAbort,
        1 => OnSignal::Survives,
        2 => OnSignal::DumpsCore(world.random.below(90_000)),
        _ => OnSignal::Dies(world.random.below(3_000)),
    };
    world.on_dump_signal = match world.random.below(8) {
        0 => OnDumpSignal::NoHandler,
        1 => OnDumpSignal::Blocks,
        2 => OnDumpSignal::Ends(world.random.below(300)),
        3 => OnDumpSignal::Wakes,
        _ => OnDumpSignal::Writes,
    };
    world.network.unix = world.random.chance(300);
    world.network.limit = world.random.pick(&[0, 2, 128]);
    world.activated = world.random.chance(200);
    let on_dump_signal = world.on_dump_signal;
    let main = world.main().unwrap();
    (main.on_signal, main.on_dump_signal) = (on_signal, on_dump_signal);
    let workers = 1_000..1_000 + world.random.below(3) as u32;
    world
        .workers
        .extend(workers.map(|pid| (pid, on_dump_signal)));
    let mode = world.any_mode();
    world.set_mode(mode);
    let bots = world.random.below(6);
    world.bots(bots);
    world.service.restart = match world.random.below(9) {
        0 => Restart::Failed,
        1 => Restart::Never,
        2 => Restart::Stops(world.random.below(20_000), "stop-sigterm"),
        3 => Restart::StartPre(world.random.below(40_000)),
        4 => Restart::After(100, Mode::Hangs { accepts: false }),
        _ => Restart::After(world.random.below(2_000), Mode::Serves),
    };
    if world.random.chance(150) {
        let fault = Fault::any(&mut world.random);
        world.toggle(fault);
    }
    let mut context = context();
    if world.random.chance(300) {
        context.plan.dump_signal = Some(Signal::SIGUSR1);
    }
    if world.random.chance(300) {
        context.plan.signal = KillSignal::Abort;
    }
    if world.random.chance(300) {
        context.plan.min_uptime = Duration::ZERO;
    }
    context.not_local = world.random.chance(20).then(|| "far away".to_owned());
    context.manifest_writable = world.random.chance(20).then(|| "by all".to_owned());
    context.dry_run = world.random.chance(50);
    (world, context)
}

/// Fails if the machine saw a wrong signal.
fn check(seed: u64, machine: &Machine) {
    if let Some(violation) = &machine.violation {
        panic!("seed {seed}: {violation}\n{}", machine.world.log.join("\n"));
    }
}

/// One round with two watchdogs.
fn round(seed: u64) -> (Vec<Option<Outcome>>, Machine) {
    let (world, context) = random_world(seed);
    run(&context, world, 2)
}

/// Two watchdogs and random events: no signal ever reaches a process whose hang the watchdog has not observed itself,
/// nor one against which the machine has a reason.
#[test]
fn no_round_signals_the_wrong_process() {
    const ROUNDS: u64 = 2_000;
    let mut seen = BTreeMap::new();
    for seed in 0..ROUNDS {
        let (outcomes, machine) = round(seed);
        check(seed, &machine);
        for record in &machine.records {
            let died_of_it = record.asked_main.is_some() && record.signals.is_empty();
            let counts = [
                ("asked", !record.asked.is_empty()),
                ("asked only", died_of_it),
            ];
            for (name, is_so) in counts {
                *seen.entry(name).or_insert(0_u64) += u64::from(is_so);
            }
        }
        for outcome in outcomes.iter().flatten() {
            let name = outcome.guard().map_or(outcome.name(), Guard::name);
            *seen.entry(name).or_insert(0_u64) += 1;
        }
    }
    // The rounds prove something only if each of these occurs.
    let outcomes = ["recovered", "not_recovered", "failed", "would_kill"];
    let guards = Guard::all().map(Guard::name);
    for name in outcomes
        .into_iter()
        .chain(guards)
        .chain(["asked", "asked only"])
    {
        let count = seen.get(name).copied().unwrap_or(0);
        let at_least = if outcomes.contains(&name) { 30 } else { 3 };
        assert!(count >= at_least, "{name}: {count} of {seen:?}");
    }
}

/// Whatever came before: once every fault has healed, a backend that hangs is recovered within two runs, although
/// other clients go on.
#[test]
fn a_hang_is_recovered_within_two_runs_once_all_faults_have_healed() {
    for seed in 0..800 {
        let (world, context) = random_world(seed);
        let (_, mut machine) = run(&context, world, 1);
        let context = Context {
            not_local: None,
            manifest_writable: None,
            dry_run: false,
            ..context
        };
        machine.world.heal(seed % 2 == 0);
        let hung = machine.world.main().unwrap().identity;
        let mut outcomes = Vec::new();
        for watchdogs in [1 + seed as usize / 2 % 2, 1] {
            if machine.world.alive(hung) {
                let (more, after) = run(&context, machine.world, watchdogs);
                outcomes.extend(more.into_iter().flatten());
                machine = after;
                check(seed, &machine);
            }
        }
        let recovered = |outcome: &Outcome| matches!(outcome, Outcome::Recovered { .. });
        // The signal that asks for stacks may have woken it up.
        let wakes = machine.world.on_dump_signal == OnDumpSignal::Wakes;
        let serves = machine.world.mode() == Some(Mode::Serves);
        assert!(
            serves && (wakes || outcomes.iter().any(recovered)),
            "seed {seed}: {outcomes:?}\n{}",
            machine.world.log.join("\n")
        );
    }
}

#[test]
fn a_round_is_the_same_each_time() {
    let (first, again) = (round(1_234), round(1_234));
    assert_eq!(first.0, again.0);
    assert_eq!(first.1.world.log, again.1.world.log);
}
