//! A made-up machine: processes with few numbers to share, a service manager that restarts what
//! dies, and mischief at any moment. It knows nothing of the steps that are run against it.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::clock::Monotonic;

/// Numbers are given out from this one on: no real process on any Linux has so high a number.
const FIRST: u32 = 100_000_000;
/// So few that a number is soon given out again.
const NUMBERS: u32 = 6;

/// xorshift64*: small, and the same on every machine.
#[derive(Debug)]
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 11
    }

    /// From 0 up to, but without, `end`.
    pub(super) fn below(&mut self, end: u64) -> u64 {
        self.next() % end.max(1)
    }

    /// True in `per_mille` of 1000 cases.
    pub(super) fn chance(&mut self, per_mille: u64) -> bool {
        self.below(1_000) < per_mille
    }
}

/// How a process takes a signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Nature {
    /// It dies within this many milliseconds of either signal.
    Dies(u64),
    /// It ignores SIGABRT.
    Deaf,
    /// It dumps core for this many milliseconds after SIGABRT.
    Dumps(u64),
    /// It waits inside the kernel, and obeys nothing.
    Stuck,
}

/// One process. Its identity is never given out again, its number is.
#[derive(Clone, Debug)]
pub(super) struct Process {
    pub(super) identity: u64,
    pub(super) started: Duration,
    /// Whether it leaves every request unanswered.
    pub(super) mute: bool,
    pub(super) traced: bool,
    pub(super) dumping: bool,
    pub(super) kill_pending: bool,
    pub(super) nature: Nature,
    /// When a signal that it got ends it.
    pub(super) dies: Option<Duration>,
    /// Dead, but its parent has not noticed yet, so the number is still its own.
    pub(super) zombie: bool,
}

/// The unit, as the service manager sees it.
#[derive(Clone, Debug)]
pub(super) struct Service {
    pub(super) main: Option<u32>,
    pub(super) started: Duration,
    pub(super) invocation: u64,
    pub(super) active: &'static str,
    pub(super) sub: &'static str,
    pub(super) job: bool,
    pub(super) frozen: bool,
    /// When it is started (again).
    pub(super) starts: Option<Duration>,
    /// What becomes of it when the main process dies.
    pub(super) fate: Fate,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// It is restarted this many milliseconds later; the new process is mute or not.
    Restart(u64, bool),
    /// The same, but first the unit is in this state while it stops what is left.
    Stops(u64, &'static str),
    /// The start limit is hit.
    Failed,
    /// The manager waits for something else.
    Limbo,
}

/// What is wrong with the unit's settings, or with the answer about them, for good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flaw {
    /// There is no such unit.
    NotFound,
    /// `Restart=no`
    Mortal,
    /// The manager does not tell about jobs.
    NoJob,
}

#[derive(Debug)]
pub(super) struct World {
    pub(super) random: Random,
    pub(super) now: Duration,
    /// Time that only CLOCK_BOOTTIME counts.
    pub(super) suspended: Duration,
    pub(super) processes: BTreeMap<u32, Process>,
    pub(super) service: Service,
    pub(super) flaw: Option<Flaw>,
    /// Every main process there has been: its number and its identity.
    pub(super) mains: Vec<(u32, u64)>,
    pub(super) log: Vec<String>,
    /// How often something happens between two calls, in 1000.
    mischief: u64,
    next_number: u32,
    next_identity: u64,
}

impl World {
    /// A main process that has been mute for long.
    pub(super) fn new(seed: u64, mischief: u64) -> Self {
        let mut world = Self {
            random: Random::new(seed),
            now: Duration::from_secs(1_000),
            suspended: Duration::ZERO,
            processes: BTreeMap::new(),
            service: Service {
                main: None,
                started: Duration::ZERO,
                invocation: 0,
                active: "activating",
                sub: "auto-restart",
                job: false,
                frozen: false,
                starts: None,
                fate: Fate::Restart(100, false),
            },
            flaw: None,
            mains: Vec::new(),
            log: Vec::new(),
            mischief,
            next_number: 0,
            next_identity: 1,
        };
        world.start(true);
        world.now += Duration::from_secs(1_000);
        world
    }

    pub(super) fn at(&self) -> Monotonic {
        Monotonic::from_micros(u64::try_from(self.now.as_micros()).unwrap())
    }

    pub(super) fn note(&mut self, what: impl std::fmt::Display) {
        self.log.push(format!("{:>12?} {what}", self.now));
    }

    pub(super) fn main(&mut self) -> Option<&mut Process> {
        self.processes.get_mut(&self.service.main?)
    }

    pub(super) fn alive(&self, identity: u64) -> bool {
        self.processes
            .values()
            .any(|process| process.identity == identity && !process.zombie)
    }

    /// Gives a new process a number.
    fn spawn(&mut self, mute: bool, nature: Nature) -> u32 {
        let numbers = || (0..).map(|step| FIRST + (self.next_number + step) % NUMBERS);
        let number = numbers()
            .find(|number| !self.processes.contains_key(number))
            .unwrap();
        self.next_number = number - FIRST + 1;
        let process = Process {
            identity: self.next_identity,
            started: self.now,
            mute,
            traced: false,
            dumping: false,
            kill_pending: false,
            nature,
            dies: None,
            zombie: false,
        };
        self.next_identity += 1;
        self.note(format_args!(
            "process {number} is now #{}",
            process.identity
        ));
        self.processes.insert(number, process);
        number
    }

    fn start(&mut self, mute: bool) {
        if self.processes.len() as u32 >= NUMBERS {
            self.reap_strangers();
        }
        let number = self.spawn(mute, Nature::Dies(0));
        self.appoint(number);
        self.service = Service {
            started: self.now,
            invocation: self.service.invocation + 1,
            active: "active",
            sub: "running",
            starts: None,
            ..self.service
        };
    }

    /// The process with this number is the main process from now on.
    fn appoint(&mut self, number: u32) {
        self.service.main = Some(number);
        let identity = self.processes.get(&number).map(|process| process.identity);
        self.mains
            .extend(identity.map(|identity| (number, identity)));
    }

    fn reap_strangers(&mut self) {
        let main = self.service.main;
        self.processes.retain(|number, _| Some(*number) == main);
    }

    /// A signal reaches a process.
    pub(super) fn strike(&mut self, identity: u64, kill: bool) {
        let now = self.now;
        let Some(process) = self
            .processes
            .values_mut()
            .find(|process| process.identity == identity)
        else {
            return;
        };
        let after = |millis| Some(now + Duration::from_millis(millis));
        process.kill_pending |= kill;
        match (process.nature, kill) {
            (Nature::Dies(millis), _) => process.dies = after(millis),
            (Nature::Deaf, true) => process.dies = after(1),
            (Nature::Dumps(_), true) => process.dies = after(1),
            (Nature::Dumps(millis), false) => {
                process.dumping = true;
                process.dies = after(millis);
            }
            (Nature::Deaf, false) | (Nature::Stuck, _) => {}
        }
    }

    /// Lets time pass, and whatever was due come about.
    pub(super) fn pass(&mut self, length: Duration) {
        self.now += length;
        let now = self.now;
        for process in self.processes.values_mut() {
            process.zombie |= process.dies.is_some_and(|dies| dies <= now);
        }
        if self.service.starts.is_some_and(|starts| starts <= now) {
            let mute = matches!(self.service.fate, Fate::Restart(_, true));
            self.start(mute);
        }
    }

    /// The manager notices that the main process has died; only then is its number free.
    pub(super) fn notice(&mut self) {
        let Some(number) = self.service.main.filter(|number| {
            self.processes
                .get(number)
                .is_some_and(|process| process.zombie)
        }) else {
            return;
        };
        self.processes.remove(&number);
        self.note(format_args!("the manager notices that {number} is dead"));
        self.service.main = None;
        let after = |millis| Some(self.now + Duration::from_millis(millis));
        (self.service.active, self.service.sub, self.service.starts) = match self.service.fate {
            Fate::Restart(millis, _) => ("activating", "auto-restart", after(millis)),
            Fate::Stops(millis, sub) => ("deactivating", sub, after(millis)),
            Fate::Failed => ("failed", "failed", None),
            Fate::Limbo => ("activating", "auto-restart", None),
        };
    }

    /// Whatever may happen between any two calls.
    pub(super) fn trouble(&mut self) {
        while self.random.chance(self.mischief) {
            let event = self.random.below(17);
            self.happen(event);
        }
        if self.mischief == 0 || self.random.chance(500) {
            self.notice();
        }
    }

    fn happen(&mut self, event: u64) {
        let name = match event {
            0 => {
                self.crash();
                "the main process exits"
            }
            1 => {
                self.crash();
                self.notice();
                self.spawn_stranger();
                "the main process exits, a stranger may get its number"
            }
            2 => {
                // The next number to be given out is the one that gets free.
                if let Some(main) = self.service.main {
                    self.next_number = main - FIRST;
                }
                self.crash();
                self.notice();
                self.spawn_stranger();
                "the main process exits, a stranger gets its number"
            }
            3 => {
                if let Some(main) = self.service.main {
                    self.crash();
                    self.notice();
                    self.next_number = main - FIRST;
                    let mute = self.random.chance(500);
                    self.start(mute);
                }
                "the unit is restarted with the same number"
            }
            4 => {
                self.crash();
                self.notice();
                let mute = self.random.chance(500);
                self.start(mute);
                "an operator restarts the unit"
            }
            5 => {
                if let Some(main) = self.main() {
                    main.mute = !main.mute;
                }
                "the main process wakes up or falls silent"
            }
            6 => {
                if let Some(main) = self.main() {
                    main.traced = !main.traced;
                }
                "a tracer comes or goes"
            }
            7 => {
                self.service.job = !self.service.job;
                "a job comes or goes"
            }
            8 => {
                self.service.frozen = !self.service.frozen;
                "the unit is frozen or thawed"
            }
            9 => {
                self.suspended += Duration::from_secs(3_600);
                "the machine was suspended"
            }
            10 => {
                let seconds = self.random.below(200);
                self.pass(Duration::from_secs(seconds));
                "everybody is starved"
            }
            11 => {
                self.notice();
                "the manager looks around"
            }
            12 => {
                let millis = self.random.below(3_000);
                self.pass(Duration::from_millis(millis));
                "time passes"
            }
            13 => {
                self.spawn_stranger();
                "a stranger comes"
            }
            14 => {
                // sd_notify(3), MAINPID=: the old one lives on.
                if self.service.main.is_some() && (self.processes.len() as u32) < NUMBERS {
                    let number = self.spawn(true, Nature::Dies(0));
                    self.appoint(number);
                    self.service.started = self.now;
                }
                "the main process hands over to a child"
            }
            _ => {
                self.reap_strangers();
                "strangers go"
            }
        };
        self.note(name);
    }

    fn crash(&mut self) {
        if let Some(main) = self.main() {
            main.zombie = true;
        }
    }

    fn spawn_stranger(&mut self) {
        if (self.processes.len() as u32) < NUMBERS - 1 {
            self.spawn(true, Nature::Dies(0));
        }
    }
}
