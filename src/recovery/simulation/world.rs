//! A simulated machine: processes that share a few numbers, a service manager that restarts what dies, and
//! random events at any moment. Independent of the steps that run against it.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::clock::Monotonic;

/// The first number that is assigned: higher than the PID of any real process on Linux.
pub(super) const FIRST: u32 = 100_000_000;
/// So few that numbers are soon reused.
pub(super) const NUMBERS: u32 = 6;

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

    /// From 0 up to, but excluding, `end`.
    pub(super) fn below(&mut self, end: u64) -> u64 {
        self.next() % end.max(1)
    }

    /// True in `per_mille` of 1000 cases.
    pub(super) fn chance(&mut self, per_mille: u64) -> bool {
        self.below(1_000) < per_mille
    }
}

/// How a process reacts to a signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SignalBehaviour {
    /// It dies within this many milliseconds of either signal.
    Dies(u64),
    /// It ignores SIGABRT.
    IgnoresAbort,
    /// It dumps core for this many milliseconds after SIGABRT.
    Dumps(u64),
    /// It waits inside the kernel, and no signal ends it.
    Stuck,
}

/// What a process does with the dump signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OnDump {
    /// It has no handler, and would die of the signal.
    NoHandler,
    /// It has a handler, but blocks the signal.
    Blocked,
    /// It writes its stacks and continues.
    Writes,
    /// It writes its stacks and exits.
    Exits,
    /// Its handler interrupts the call that hung: the backend answers again.
    Wakes,
}

impl OnDump {
    /// Whether the process has a handler, and whether it blocks the signal.
    pub(super) const fn masks(self) -> (bool, bool) {
        match self {
            Self::NoHandler => (false, false),
            Self::Blocked => (true, true),
            Self::Writes | Self::Exits | Self::Wakes => (true, false),
        }
    }
}

/// A process of the unit beside the main one.
#[derive(Clone, Copy, Debug)]
pub(super) struct Worker {
    pub(super) number: u32,
    pub(super) traced: bool,
    pub(super) on_dump: OnDump,
}

/// One process. Its number may be reused, its identity never.
#[derive(Clone, Debug)]
pub(super) struct Process {
    pub(super) identity: u64,
    pub(super) started: Duration,
    /// Whether it leaves every request unanswered.
    pub(super) silent: bool,
    /// What it does with the dump signal.
    pub(super) on_dump: OnDump,
    /// Whether it has left its unit's control group.
    pub(super) outside: bool,
    pub(super) traced: bool,
    pub(super) dumping: bool,
    pub(super) kill_pending: bool,
    pub(super) behaviour: SignalBehaviour,
    /// When it dies of a signal that it got.
    pub(super) dies: Option<Duration>,
    /// Dead, but not yet reaped by its parent, so it still has its number.
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
    /// When it will be started (again).
    pub(super) starts: Option<Duration>,
    /// What happens to it when the main process dies.
    pub(super) restart: RestartResult,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RestartResult {
    /// It is restarted this many milliseconds later; the new process is silent or not.
    Restart(u64, bool),
    /// The same, but first the unit is in this state while its remaining processes are stopped.
    Stops(u64, &'static str),
    /// The start limit is hit.
    Failed,
    /// The manager waits for something else.
    Limbo,
}

/// A permanent problem with the unit's settings, or with the answer about them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flaw {
    /// There is no such unit.
    NotFound,
    /// `Restart=no`
    Mortal,
    /// The manager does not report jobs.
    NoJob,
    /// `KillMode=process`
    KillsMainOnly,
}

#[derive(Debug)]
pub(super) struct World {
    pub(super) random: Random,
    pub(super) now: Duration,
    /// Time suspended, which only CLOCK_BOOTTIME counts.
    pub(super) suspended: Duration,
    pub(super) processes: BTreeMap<u32, Process>,
    pub(super) service: Service,
    pub(super) flaw: Option<Flaw>,
    pub(super) workers: Vec<Worker>,
    /// What every new process does with the dump signal.
    pub(super) on_dump: OnDump,
    /// Whether the backend's socket belongs to another unit.
    pub(super) foreign: bool,
    /// Whether a packet filter drops requests.
    pub(super) filtered: bool,
    /// When the backend last served another client.
    pub(super) served: Option<Duration>,
    /// Every main process so far: its number and its identity.
    pub(super) mains: Vec<(u32, u64)>,
    pub(super) log: Vec<String>,
    /// The probability of a random event between two calls, per mille.
    pub(super) event_rate: u64,
    pub(super) next_number: u32,
    next_identity: u64,
}

impl World {
    /// A world whose main process has been silent for long.
    pub(super) fn new(seed: u64, event_rate: u64) -> Self {
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
                restart: RestartResult::Restart(100, false),
            },
            flaw: None,
            workers: Vec::new(),
            on_dump: OnDump::NoHandler,
            foreign: false,
            filtered: false,
            served: None,
            mains: Vec::new(),
            log: Vec::new(),
            event_rate,
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
    pub(super) fn spawn(&mut self, silent: bool, behaviour: SignalBehaviour) -> u32 {
        let numbers = || (0..).map(|step| FIRST + (self.next_number + step) % NUMBERS);
        let number = numbers()
            .find(|number| !self.processes.contains_key(number))
            .unwrap();
        self.next_number = number - FIRST + 1;
        let process = Process {
            identity: self.next_identity,
            started: self.now,
            silent,
            on_dump: self.on_dump,
            outside: false,
            traced: false,
            dumping: false,
            kill_pending: false,
            behaviour,
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

    pub(super) fn start(&mut self, silent: bool) {
        if self.processes.len() as u32 >= NUMBERS {
            self.reap_strangers();
        }
        let number = self.spawn(silent, SignalBehaviour::Dies(0));
        self.appoint(number);
        self.workers.clear();
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
    pub(super) fn appoint(&mut self, number: u32) {
        self.service.main = Some(number);
        let identity = self.processes.get(&number).map(|process| process.identity);
        self.mains
            .extend(identity.map(|identity| (number, identity)));
    }

    pub(super) fn reap_strangers(&mut self) {
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
        match (process.behaviour, kill) {
            (SignalBehaviour::Dies(millis), _) => process.dies = after(millis),
            (SignalBehaviour::IgnoresAbort, true) => process.dies = after(1),
            (SignalBehaviour::Dumps(_), true) => process.dies = after(1),
            (SignalBehaviour::Dumps(millis), false) => {
                process.dumping = true;
                process.dies = after(millis);
            }
            (SignalBehaviour::IgnoresAbort, false) | (SignalBehaviour::Stuck, _) => {}
        }
    }

    /// The dump signal reaches the main process.
    pub(super) fn asked_for_stacks(&mut self, identity: u64) {
        let now = self.now;
        let found = self.processes.values_mut();
        for process in found.filter(|process| process.identity == identity) {
            match process.on_dump {
                OnDump::Exits => process.dies = Some(now + Duration::from_millis(300)),
                OnDump::Wakes => process.silent = false,
                OnDump::NoHandler | OnDump::Blocked | OnDump::Writes => {}
            }
        }
    }

    /// Lets time pass, with every event that is due meanwhile.
    pub(super) fn pass(&mut self, length: Duration) {
        self.now += length;
        let now = self.now;
        for process in self.processes.values_mut() {
            process.zombie |= process.dies.is_some_and(|dies| dies <= now);
        }
        if self.service.starts.is_some_and(|starts| starts <= now) {
            let silent = matches!(self.service.restart, RestartResult::Restart(_, true));
            self.start(silent);
        }
    }

    /// The manager reaps the dead main process; only then is its number free.
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
        (self.service.active, self.service.sub, self.service.starts) = match self.service.restart {
            RestartResult::Restart(millis, _) => ("activating", "auto-restart", after(millis)),
            RestartResult::Stops(millis, sub) => ("deactivating", sub, after(millis)),
            RestartResult::Failed => ("failed", "failed", None),
            RestartResult::Limbo => ("activating", "auto-restart", None),
        };
    }
}
