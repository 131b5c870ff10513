//! Drives the real steps against a made-up machine: at random, with two watchdogs at once and
//! mischief between any two calls, and in scripted stories. It must not know how the guards decide:
//! what is wrong with a signal it works out from the machine itself.

mod stories;
mod world;

use std::net::SocketAddr;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use self::world::{Fate, Nature, World};
use super::evidence::{Evidence, Reading};
use super::guards::{Process, Standing, Vitals};
use super::steps::{self, Host, NotSent, Sent, Task};
use super::unit::UnitState;
use super::{Backend, Guard, Heard, Knock, MainPid, Outcome};
use crate::clock::Monotonic;
use crate::manifest::{KillSignal, Scope};

/// What one watchdog has seen and done, noted by the machine.
#[derive(Clone, Debug, Default)]
struct Record {
    /// The process whose hang its sweep observed from beginning to end.
    observed: Option<u64>,
    began: Duration,
    min_uptime: Duration,
    /// Main process and invocation at its first look.
    first: Option<(Option<u32>, u64)>,
    looks: usize,
    /// How many looks it had had when it took hold of the process.
    looks_when_opened: usize,
    /// What stood against a signal when it last asked the manager, /proc and the last GET, and all
    /// the time.
    against: [Option<&'static str>; 4],
    signals: Vec<Sent>,
    announcements: Vec<String>,
}

/// What a story changes about the machine.
#[derive(Clone, Debug, Default)]
struct Knobs {
    /// The calls of `show` that fail, counted from 0.
    failing_shows: Vec<usize>,
    not_permitted: bool,
    /// How long a reader of stderr keeps the first announcement waiting.
    slow_announcement: Duration,
    /// How long each look into /proc takes.
    slow_inspection: Duration,
    /// A job is queued while the announcement waits.
    job_meanwhile: bool,
}

#[derive(Debug)]
struct Machine {
    world: World,
    records: Vec<Record>,
    knobs: Knobs,
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

    fn hand_on(&mut self) {
        let index = self.world.random.below(self.running.len() as u64);
        self.turn = self.running.get(index as usize).copied();
    }
}

/// The machine, shared by the watchdogs: one acts at a time, and who is next is up to the seed.
#[derive(Clone, Debug)]
struct Shared(Arc<(Mutex<Machine>, Condvar)>);

impl Shared {
    fn new(world: World, watchdogs: usize, knobs: Knobs) -> Self {
        let machine = Machine {
            world,
            records: vec![Record::default(); watchdogs],
            knobs,
            turn: Some(0),
            running: (0..watchdogs).collect(),
            violation: None,
        };
        Self(Arc::new((Mutex::new(machine), Condvar::new())))
    }
}

/// One watchdog's view of the machine.
#[derive(Clone, Debug)]
struct Watchdog {
    shared: Shared,
    me: usize,
}

/// What a pidfd holds: the identity. The number is for the log.
struct Held {
    number: u32,
    identity: u64,
}

impl Watchdog {
    /// Waits for its turn, lets happen what may happen meanwhile, acts, and hands on.
    fn act<R>(&self, action: impl FnOnce(&mut Machine) -> R) -> R {
        let (machine, changed) = &*self.shared.0;
        let mut machine = changed
            .wait_while(machine.lock().unwrap(), |machine| {
                machine.turn != Some(self.me)
            })
            .unwrap();
        let micros = 1 + machine.world.random.below(500);
        machine.world.pass(Duration::from_micros(micros));
        machine.world.trouble();
        let result = action(&mut machine);
        machine.hand_on();
        drop(machine);
        changed.notify_all();
        result
    }

    fn done(&self) {
        self.act(|machine| machine.running.retain(|&other| other != self.me));
    }

    /// Probes the backend a few times and says whether it was silent each time.
    fn sweep(&self) -> bool {
        let mut seen = self.act(|machine| {
            machine.records[self.me].began = machine.world.now;
            machine.world.main().map(|main| main.identity)
        });
        let mut silent = true;
        for _ in 0..3 {
            self.act(|machine| machine.world.pass(Duration::from_secs(10)));
            self.act(|machine| {
                let main = machine.world.main();
                silent &= main.as_ref().is_some_and(|main| main.mute && !main.zombie);
                seen = seen.filter(|seen| main.is_some_and(|main| main.identity == *seen));
            });
        }
        self.act(|machine| machine.records[self.me].observed = seen);
        silent
    }

    /// The whole run of a watchdog; none if the backend answered.
    fn run(&self, task: &Task<'_>) -> Option<Outcome> {
        let always = [
            task.standing.starved.then_some("starved"),
            task.standing.not_local.as_ref().map(|_| "not local"),
            task.standing
                .manifest_writable
                .as_ref()
                .map(|_| "writable manifest"),
            task.rehearse.then_some("only a rehearsal"),
        ];
        self.act(|machine| {
            let record = &mut machine.records[self.me];
            record.min_uptime = task.standing.min_uptime;
            record.against[3] = always.into_iter().flatten().next();
        });
        let outcome = self.sweep().then(|| {
            let mut task = task.clone();
            task.standing.sweep_began =
                self.act(|machine| to_monotonic(machine.records[self.me].began));
            let story = steps::run(&task, self, self);
            self.act(|machine| check_story(machine, self.me, &story.outcome));
            story.outcome
        });
        self.done();
        outcome
    }
}

/// What the outcome says must be what the machine saw.
fn check_story(machine: &mut Machine, me: usize, outcome: &Outcome) {
    let record = &machine.records[me];
    let signals: Vec<_> = record
        .signals
        .iter()
        .filter(|signal| **signal != Sent::Question)
        .collect();
    let honest = match outcome {
        Outcome::Recovered { .. } | Outcome::NotRecovered { .. } => {
            let succeeds = |new: MainPid, victim| {
                let mut mains = machine.world.mains.iter();
                mains.any(|&(number, identity)| number == new.get() && identity != victim)
            };
            !signals.is_empty()
                && record.observed.is_some_and(|victim| {
                    let new_pid = outcome.new_pid();
                    !machine.world.alive(victim) && new_pid.is_none_or(|new| succeeds(new, victim))
                })
        }
        Outcome::Refused(..) | Outcome::WouldKill => signals.is_empty(),
        Outcome::Failed(why) => signals.is_empty() || why.contains("survived"),
        Outcome::NotConfigured | Outcome::NotNeeded | Outcome::Disabled(_) => false,
    };
    let announced = signals.is_empty() || !record.announcements.is_empty();
    if !honest || !announced || signals.len() > 2 {
        let what = format!("watchdog {me} says {outcome:?} after {record:?}");
        machine.violated(what);
    }
}

fn to_monotonic(time: Duration) -> Monotonic {
    Monotonic::from_micros(u64::try_from(time.as_micros()).unwrap())
}

impl Host for Watchdog {
    type Process = Held;

    fn now(&self) -> Monotonic {
        self.act(|machine| machine.world.at())
    }

    fn pause(&self, length: Duration) {
        self.act(|machine| machine.world.pass(length));
    }

    fn show(&self) -> Result<UnitState, String> {
        self.act(|machine| {
            let world = &mut machine.world;
            let service = &world.service;
            let record = &mut machine.records[self.me];
            let identity = (service.main, service.invocation);
            let first = *record.first.get_or_insert(identity);
            let age = world.now.saturating_sub(service.started);
            // Whatever was seen before systemd was asked is no part of this look.
            record.against[1] = Some("process not looked at again");
            record.against[2] = Some("last GET not looked at again");
            let calls = record.looks;
            record.looks += 1;
            if machine.knobs.failing_shows.contains(&calls) {
                record.against[0] = Some("systemctl failed");
                return Err("systemctl is out of order".to_owned());
            }
            record.against[0] = [
                (service.active != "active", "not active"),
                (service.main.is_none(), "no main process"),
                (age < record.min_uptime, "too young"),
                (service.started > record.began, "restarted"),
                (identity != first, "changed"),
                (service.job, "job queued"),
                (service.frozen, "frozen"),
            ]
            .into_iter()
            .find_map(|(holds, what)| holds.then_some(what));
            let text = format!(
                "LoadState=loaded\nActiveState={}\nSubState={}\nResult=start-limit-hit\nMainPID={}\n\
                 InvocationID={:032x}\nExecMainStartTimestampMonotonic={}\nRestart=always\n\
                 SuccessExitStatus=\nRestartPreventExitStatus=\nRestartForceExitStatus=\nJob={}\n\
                 FreezerState={}\nTimeoutStopUSec=5s\nRestartUSec=100ms\nNeedDaemonReload=no\n",
                service.active,
                service.sub,
                service.main.unwrap_or(0),
                service.invocation,
                service.started.as_micros(),
                if service.job { "68" } else { "" },
                if service.frozen { "frozen" } else { "running" },
            );
            world.note(format_args!(
                "watchdog {} sees {:?}, {}/{}",
                self.me, identity, service.active.to_owned(), service.sub.to_owned()
            ));
            Ok(UnitState::parse(text.as_bytes()).unwrap())
        })
    }

    fn open(&self, pid: MainPid) -> Result<Option<Held>, String> {
        self.act(|machine| {
            let record = &mut machine.records[self.me];
            record.looks_when_opened = record.looks;
            let number = pid.get();
            let held = machine.world.processes.get(&number).map(|process| Held {
                number,
                identity: process.identity,
            });
            let identity = held.as_ref().map(|held| held.identity);
            machine.world.note(format_args!(
                "watchdog {} opens {number}: #{identity:?}",
                self.me
            ));
            Ok(held)
        })
    }

    fn inspect(&self, held: &Held) -> Process {
        self.act(|machine| {
            machine.world.pass(machine.knobs.slow_inspection);
            let world = &machine.world;
            let found = world
                .processes
                .get(&held.number)
                .filter(|process| process.identity == held.identity && !process.zombie);
            machine.records[self.me].against[1] = match found {
                None => Some("gone"),
                Some(process) => [
                    (process.traced, "traced"),
                    (process.dumping, "dumping core"),
                    (process.kill_pending, "killed already"),
                ]
                .into_iter()
                .find_map(|(holds, what)| holds.then_some(what)),
            };
            found.map_or(Process::Gone("it has died"), |process| {
                Process::Alive(Vitals {
                    state: if process.nature == Nature::Stuck {
                        'D'
                    } else {
                        'S'
                    },
                    tracer: if process.traced { 7 } else { 0 },
                    dumping: process.dumping,
                    kill_pending: process.kill_pending,
                    age: world.now.saturating_sub(process.started) + world.suspended,
                })
            })
        })
    }

    fn evidence(&self, _: &Held, _: &dyn Knock, until: Monotonic) -> Evidence {
        self.act(|machine| {
            let left = until.since(machine.world.at());
            machine.world.pass(left.min(Duration::from_millis(100)));
        });
        Evidence {
            name: Reading::Unknown,
            state: Reading::Unknown,
            threads: Reading::Unknown,
            cpu: Reading::Unknown,
            resident_bytes: Reading::Unknown,
            open_descriptors: Reading::Unknown,
            accept_queue: Reading::Unknown,
            accepted: Reading::Unknown,
        }
    }

    fn announce(&self, line: &str) {
        self.act(|machine| {
            let slow = std::mem::take(&mut machine.knobs.slow_announcement);
            machine.world.pass(slow);
            machine.world.service.job |= machine.knobs.job_meanwhile;
            machine.records[self.me].announcements.push(line.to_owned());
        });
    }

    fn signal(&self, held: &Held, signal: Sent) -> Result<(), NotSent> {
        self.act(|machine| {
            if machine.knobs.not_permitted {
                return Err(NotSent::Refused(
                    "EPERM: Operation not permitted".to_owned(),
                ));
            }
            if !machine.world.alive(held.identity) {
                return Err(NotSent::Gone);
            }
            let record = &mut machine.records[self.me];
            record.signals.push(signal);
            let first = record.signals.len() == 1;
            let against = record.against.iter().flatten().next().copied();
            let blind = record.looks <= record.looks_when_opened;
            let observed = record.observed;
            machine.world.note(format_args!(
                "watchdog {} signals #{} ({}): {signal:?}",
                self.me, held.identity, held.number
            ));
            if signal == Sent::Question {
                return Ok(());
            }
            if observed != Some(held.identity) {
                machine.violated(format!(
                    "watchdog {} signalled #{}, but had observed the hang of {observed:?}",
                    self.me, held.identity
                ));
            }
            if let Some(what) = against.filter(|_| first) {
                machine.violated(format!("watchdog {} signalled against: {what}", self.me));
            }
            if blind {
                machine.violated(format!("watchdog {} did not look again", self.me));
            }
            machine.world.strike(held.identity, signal == Sent::Kill);
            Ok(())
        })
    }

    fn died_within(&self, held: &Held, at_most: Duration) -> bool {
        let until = self.now() + at_most;
        loop {
            let (dead, left) = self.act(|machine| {
                let left = until.since(machine.world.at());
                (!machine.world.alive(held.identity), left)
            });
            if dead || left.is_zero() {
                return dead;
            }
            self.pause(left.min(Duration::from_millis(250)));
        }
    }
}

impl Backend for Watchdog {
    fn knock(&self) -> Box<dyn Knock> {
        let asked = self.act(|machine| machine.world.main().map(|main| main.identity));
        Box::new(Asked {
            watchdog: self.clone(),
            asked,
        })
    }

    fn core_answers(&self, until: Monotonic) -> bool {
        self.act(|machine| {
            let left = until.since(machine.world.at());
            let answers = machine
                .world
                .main()
                .is_some_and(|main| !main.mute && !main.zombie);
            let takes = Duration::from_millis(if answers { 1 } else { 500 });
            machine.world.pass(takes.min(left));
            answers
        })
    }

    fn addresses(&self) -> Result<Vec<SocketAddr>, String> {
        Err("the steps do not ask".to_owned())
    }
}

/// The last GET: it is answered by the process that was there when it was sent, or ends with it.
struct Asked {
    watchdog: Watchdog,
    asked: Option<u64>,
}

impl Knock for Asked {
    fn heard(&self) -> Heard {
        self.watchdog.act(|machine| {
            let asked = self.asked;
            let process = machine
                .world
                .processes
                .values()
                .find(|process| Some(process.identity) == asked && !process.zombie);
            let (heard, against) = match process {
                None => (Heard::Ended("reset".to_owned()), Some("connection ended")),
                Some(process) if !process.mute => (Heard::Byte, Some("answered")),
                Some(_) => (Heard::Nothing, None),
            };
            machine.records[self.watchdog.me].against[2] = against;
            heard
        })
    }

    fn connection(&self) -> Option<(SocketAddr, SocketAddr)> {
        None
    }
}

fn task() -> Task<'static> {
    Task {
        standing: Standing {
            unit: "demo.service",
            scope: Scope::System,
            signal: KillSignal::Kill,
            min_uptime: Duration::from_secs(120),
            sweep_began: Monotonic::from_micros(0),
            starved: false,
            own_pid: 99,
            not_local: None,
            manifest_writable: None,
        },
        verify: Duration::from_secs(20),
        rehearse: false,
    }
}

/// One round: a machine, and two watchdogs on it, all from one seed.
fn round(seed: u64) -> (Vec<Option<Outcome>>, Machine) {
    let mut world = World::new(seed, seed % 7 * 10);
    let nature = match world.random.below(8) {
        0 => Nature::Deaf,
        1 => Nature::Stuck,
        2 => Nature::Dumps(world.random.below(90_000)),
        _ => Nature::Dies(world.random.below(3_000)),
    };
    world.main().unwrap().nature = nature;
    world.service.fate = match world.random.below(8) {
        0 => Fate::Failed,
        1 => Fate::Limbo,
        2 => Fate::Children(world.random.below(20_000)),
        fate => Fate::Restart(world.random.below(2_000), fate == 3),
    };
    let mut task = task();
    let standing = &mut task.standing;
    if world.random.chance(300) {
        standing.signal = KillSignal::Abort;
    }
    if world.random.chance(300) {
        standing.min_uptime = Duration::ZERO;
    }
    standing.starved = world.random.chance(30);
    standing.not_local = world.random.chance(30).then(|| "far away".to_owned());
    task.rehearse = world.random.chance(50);

    let shared = Shared::new(world, 2, Knobs::default());
    let outcomes = std::thread::scope(|scope| {
        let runs: Vec<_> = (0..2)
            .map(|me| {
                let watchdog = Watchdog {
                    shared: shared.clone(),
                    me,
                };
                let task = &task;
                scope.spawn(move || watchdog.run(task))
            })
            .collect();
        runs.into_iter().map(|run| run.join().unwrap()).collect()
    });
    let (machine, _) = Arc::into_inner(shared.0).unwrap();
    (outcomes, machine.into_inner().unwrap())
}

/// Two watchdogs, and mischief: no signal ever reaches a process that the watchdog has not itself
/// seen hang, nor one that a guard protects.
#[test]
fn no_round_signals_the_wrong_process() {
    const ROUNDS: u64 = 2_000;
    let mut seen = std::collections::BTreeMap::new();
    for seed in 0..ROUNDS {
        let (outcomes, machine) = round(seed);
        if let Some(violation) = machine.violation {
            panic!("seed {seed}: {violation}\n{}", machine.world.log.join("\n"));
        }
        for outcome in outcomes.iter().flatten() {
            let name = outcome.guard().map_or(outcome.name(), Guard::name);
            *seen.entry(name).or_insert(0_u64) += 1;
        }
    }
    // Rounds in which nothing happens would prove nothing.
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
