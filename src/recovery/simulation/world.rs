//! A simulated machine: processes that share a few PIDs, a service manager that restarts what dies, and faults.
//! Independent of the steps that run against it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::events::Random;
use super::faults::Fault;
use super::network::{Filter, Network};
use crate::clock::Monotonic;

/// The first PID that is assigned: higher than that of any real process on Linux.
pub(super) const FIRST: u32 = 100_000_000;
/// So few that PIDs are soon reused.
pub(super) const PIDS: u32 = 6;

/// What a backend does with requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// It answers them at once.
    Serves,
    /// It answers none; its event loop still accepts connections, or not even that.
    Hangs { accepts: bool },
    /// One at a time, each taking this many milliseconds.
    Overloaded(u64),
}

/// How a process reacts to SIGABRT and SIGKILL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OnSignal {
    /// It dies within this many milliseconds of either.
    Dies(u64),
    /// It ignores SIGABRT.
    IgnoresAbort,
    /// It dumps core for this many milliseconds after SIGABRT.
    DumpsCore(u64),
    /// No signal ends it.
    Survives,
}

/// What a process does with the signal that asks for its stacks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum OnDumpSignal {
    /// It has no handler, and would die of the signal.
    #[default]
    NoHandler,
    /// It has a handler, but blocks the signal.
    Blocks,
    /// It writes its stacks and continues.
    Writes,
    /// It ends after 300 ms; its connections end this much earlier, in milliseconds.
    Ends(u64),
    /// Its handler interrupts the call that hung: the backend answers again.
    Wakes,
}

/// One process. Its PID may be reused, its identity never.
#[derive(Clone, Debug)]
pub(super) struct Process {
    pub(super) identity: u64,
    pub(super) parent: u32,
    pub(super) started: Duration,
    /// When it became the main process.
    pub(super) appointed: Option<Duration>,
    pub(super) mode: Mode,
    pub(super) on_signal: OnSignal,
    pub(super) on_dump_signal: OnDumpSignal,
    pub(super) dumping: bool,
    pub(super) kill_pending: bool,
    /// When it dies of a signal that it got, and when its connections end.
    pub(super) dies: Option<Duration>,
    pub(super) disconnects: Option<Duration>,
    /// Dead, but not yet reaped by its parent, so it still has its PID.
    pub(super) zombie: bool,
}

/// The unit, as the service manager sees it.
#[derive(Clone, Debug, Default)]
pub(super) struct Service {
    pub(super) main: Option<u32>,
    pub(super) started: Duration,
    /// The last start or reload.
    pub(super) state_changed: Duration,
    pub(super) invocation: u64,
    pub(super) active: &'static str,
    pub(super) sub: &'static str,
    /// When its next main process starts.
    pub(super) starts: Option<Duration>,
    pub(super) restart: Restart,
}

/// What happens to the unit when the main process dies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Restart {
    /// The manager waits for something else.
    #[default]
    Never,
    /// It is restarted this many milliseconds later; the new process is in this mode.
    After(u64, Mode),
    /// First the unit is in this state for so long, while its remaining processes are stopped.
    Stops(u64, &'static str),
    /// `ExecStartPre=` runs for this many milliseconds before the new process.
    StartPre(u64),
    /// The start limit is hit.
    Failed,
}

#[derive(Debug, Default)]
pub(super) struct World {
    pub(super) random: Random,
    pub(super) now: Duration,
    /// Time suspended, which only CLOCK_BOOTTIME counts.
    pub(super) suspended: Duration,
    pub(super) processes: BTreeMap<u32, Process>,
    pub(super) service: Service,
    /// The unit's other processes, with what each does with the signal that asks for stacks.
    pub(super) workers: Vec<(u32, OnDumpSignal)>,
    pub(super) faults: BTreeSet<Fault>,
    /// Whether systemd listens for the unit, which has a `.socket`.
    pub(super) activated: bool,
    pub(super) network: Network,
    /// How long the unit had work but no CPU, and how much CPU time it used; since when it has had none.
    pub(super) cpu: (Duration, Duration),
    pub(super) no_cpu_since: Duration,
    /// What every new process does with the signal that asks for stacks.
    pub(super) on_dump_signal: OnDumpSignal,
    /// Every main process so far: its PID and its identity.
    pub(super) mains: Vec<(u32, u64)>,
    pub(super) log: Vec<String>,
    /// The probability of a random event between two calls, per mille.
    pub(super) event_rate: u64,
    /// Whether only clients and other programs do something.
    pub(super) calm: bool,
    pub(super) next_pid: u32,
    next_identity: u64,
}

impl World {
    /// A world whose main process has hung for long.
    pub(super) fn new(seed: u64, event_rate: u64) -> Self {
        let mut world = Self {
            random: Random::new(seed),
            now: Duration::from_secs(1_000),
            event_rate,
            ..Self::default()
        };
        world.service.restart = Restart::After(100, Mode::Serves);
        world.network.limit = 128;
        world.start(Mode::Hangs { accepts: false });
        world.now += Duration::from_secs(1_000);
        world
    }

    pub(super) fn note(&mut self, what: impl std::fmt::Display) {
        self.log.push(format!("{:>12?} {what}", self.now));
    }

    pub(super) fn has(&self, fault: Fault) -> bool {
        self.faults.contains(&fault)
    }

    pub(super) fn toggle(&mut self, fault: Fault) {
        self.note(format_args!("{fault:?} begins or ends"));
        if !self.faults.remove(&fault) {
            self.faults.insert(fault);
            if fault == Fault::NoCpu {
                self.no_cpu_since = self.now;
            }
        }
    }

    pub(super) fn main(&mut self) -> Option<&mut Process> {
        self.processes.get_mut(&self.service.main?)
    }

    /// What clients see of the backend; none if it is dead.
    pub(super) fn mode(&self) -> Option<Mode> {
        let main = self.processes.get(&self.service.main?)?;
        (!main.zombie && main.disconnects.is_none()).then_some(main.mode)
    }

    pub(super) fn set_mode(&mut self, mode: Mode) {
        self.note(format_args!("the main process now: {mode:?}"));
        if let Some(main) = self.main() {
            main.mode = mode;
        }
        self.network.serve(Some(mode), self.now);
    }

    pub(super) fn set_filter(&mut self, filter: Option<Filter>) {
        self.note(format_args!("packet filter: {filter:?}"));
        self.network.filter = filter;
        self.pass(Duration::ZERO);
    }

    pub(super) fn find(&mut self, identity: u64) -> Option<&mut Process> {
        let mut processes = self.processes.values_mut();
        processes.find(|process| process.identity == identity)
    }

    pub(super) fn alive(&self, identity: u64) -> bool {
        let mut processes = self.processes.values();
        processes.any(|process| process.identity == identity && !process.zombie)
    }

    /// Gives a new process a PID.
    pub(super) fn spawn(&mut self, parent: u32, mode: Mode) -> u32 {
        let pids = || (0..).map(|step| FIRST + (self.next_pid + step) % PIDS);
        let pid = pids()
            .find(|pid| !self.processes.contains_key(pid))
            .unwrap();
        self.next_pid = pid - FIRST + 1;
        let process = Process {
            identity: self.next_identity,
            parent,
            started: self.now,
            appointed: None,
            mode,
            on_signal: OnSignal::Dies(0),
            on_dump_signal: self.on_dump_signal,
            dumping: false,
            kill_pending: false,
            dies: None,
            disconnects: None,
            zombie: false,
        };
        self.next_identity += 1;
        self.note(format_args!("process {pid} is now #{}", process.identity));
        self.processes.insert(pid, process);
        pid
    }

    pub(super) fn start(&mut self, mode: Mode) {
        if self.processes.len() as u32 >= PIDS {
            self.reap_strangers();
        }
        let pid = self.spawn(1, mode);
        self.appoint(pid);
        self.workers.clear();
        self.network.listen();
        self.service = Service {
            invocation: self.service.invocation + 1,
            state_changed: self.now,
            active: "active",
            sub: "running",
            starts: None,
            ..self.service
        };
    }

    /// The process with this PID is the main process from now on.
    pub(super) fn appoint(&mut self, pid: u32) {
        self.service.main = Some(pid);
        self.service.started = self.now;
        let now = self.now;
        if let Some(process) = self.main() {
            process.appointed = Some(now);
            let identity = process.identity;
            self.mains.push((pid, identity));
        }
    }

    pub(super) fn reap_strangers(&mut self) {
        let main = self.service.main;
        self.processes.retain(|pid, _| Some(*pid) == main);
    }

    /// A signal reaches a process.
    pub(super) fn strike(&mut self, identity: u64, kill: bool) {
        let now = self.now;
        let Some(process) = self.find(identity) else {
            return;
        };
        let after = |millis| Some(now + Duration::from_millis(millis));
        process.kill_pending |= kill;
        process.dies = match (process.on_signal, kill) {
            (OnSignal::Dies(millis), _) => after(millis),
            (OnSignal::IgnoresAbort | OnSignal::DumpsCore(_), true) => after(1),
            (OnSignal::DumpsCore(millis), false) => {
                process.dumping = true;
                after(millis)
            }
            (OnSignal::IgnoresAbort, false) | (OnSignal::Survives, _) => process.dies,
        };
    }

    /// The signal that asks for stacks reaches the main process.
    pub(super) fn ask_for_stacks(&mut self, identity: u64) {
        let now = self.now;
        let Some(process) = self.find(identity) else {
            return;
        };
        match process.on_dump_signal {
            OnDumpSignal::Ends(earlier) => {
                let dies = now + Duration::from_millis(300);
                process.dies = Some(dies);
                process.disconnects = Some(dies - Duration::from_millis(earlier));
            }
            OnDumpSignal::Wakes => self.set_mode(Mode::Serves),
            OnDumpSignal::NoHandler | OnDumpSignal::Blocks | OnDumpSignal::Writes => {}
        }
    }

    /// Lets time pass, with everything that is due meanwhile.
    pub(super) fn pass(&mut self, length: Duration) {
        self.now += length;
        let now = self.now;
        if self.has(Fault::NoCpu) {
            self.cpu.0 += length;
        } else {
            self.cpu.1 += length;
        }
        let is_due = |moment: Option<Duration>| moment.is_some_and(|moment| moment <= now);
        for process in self.processes.values_mut() {
            process.zombie |= is_due(process.dies);
        }
        let main = self.main();
        if main.is_none_or(|main| main.zombie || is_due(main.disconnects)) {
            self.network.end();
        }
        self.network.serve(self.mode(), now);
        if is_due(self.service.starts) {
            self.start(match self.service.restart {
                Restart::After(_, mode) => mode,
                _ => Mode::Serves,
            });
        }
    }

    /// The manager reaps the dead main process; only then is its PID free.
    pub(super) fn notice(&mut self) {
        let Some(pid) = self.service.main else {
            return;
        };
        if self.processes.get(&pid).is_none_or(|main| !main.zombie) {
            return;
        }
        self.processes.remove(&pid);
        self.note(format_args!("the manager notices that {pid} is dead"));
        self.network.end();
        let service = &mut self.service;
        service.main = None;
        let after = |millis| Some(self.now + Duration::from_millis(millis));
        (service.active, service.sub, service.starts) = match service.restart {
            Restart::After(millis, _) => ("activating", "auto-restart", after(millis)),
            Restart::Stops(millis, sub) => ("deactivating", sub, after(millis)),
            Restart::StartPre(millis) => ("activating", "start-pre", after(millis)),
            Restart::Failed => ("failed", "failed", None),
            Restart::Never => ("activating", "auto-restart", None),
        };
    }

    /// All faults end, the backend runs, and hangs.
    pub(super) fn heal(&mut self, accepts: bool) {
        self.faults.clear();
        self.set_filter(None);
        self.service.restart = Restart::After(100, Mode::Serves);
        self.notice();
        if self.service.main.is_none() {
            self.start(Mode::Serves);
        }
        let main = self.main().unwrap();
        (main.on_signal, main.parent) = (OnSignal::Dies(100), 1);
        (self.calm, self.event_rate) = (true, 150);
        self.pass(Duration::from_secs(300));
        self.set_mode(Mode::Hangs { accepts });
    }

    pub(super) fn at(&self) -> Monotonic {
        monotonic(self.now)
    }
}

pub(super) fn monotonic(time: Duration) -> Monotonic {
    Monotonic::from_micros(u64::try_from(time.as_micros()).unwrap())
}
