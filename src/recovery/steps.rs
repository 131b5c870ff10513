//! The steps of a recovery: observe, kill, wait for the restart, verify. Everything that touches the machine
//! goes through [`Host`], so that a simulation can run these same steps.

mod after_signal;

use std::time::{Duration, SystemTime};

use nix::sys::signal::Signal;

use super::observation::{GuardContext, Members, Observation, ProbeFacts, Process, Sockets};
use super::unit::UnitState;
use super::{CoreProber, Dump, Evidence, FinalProbe, Guard, MainPid, Outcome, Recovery, guards};
use crate::clock::Monotonic;
use crate::escape::escape;
use crate::manifest::DumpSignal;
use crate::sweep::ProbeStatus;

/// How long the evidence and the final probe may delay the signal.
const FINAL_PROBE_TIME: Duration = Duration::from_millis(250);
/// No signal is based on an observation older than this.
const STALE: Duration = Duration::from_secs(1);
/// How often a stale observation is repeated before the recovery gives up.
const FRESH_OBSERVATIONS: usize = 3;
/// How long processes have to write their stacks.
const DUMP_TIME: Duration = Duration::from_secs(1);

/// The operations on the machine that the steps need.
pub(super) trait Host {
    /// A handle to one process, independent of its PID.
    type Process;

    /// The current time.
    fn now(&self) -> Monotonic;
    /// The current time for people and the journal.
    fn wall_clock(&self) -> SystemTime;
    /// Lets time pass.
    fn pause(&self, length: Duration);
    /// Queries systemd about the unit; the error is a message.
    fn show(&self) -> Result<UnitState, String>;
    /// Opens the process that has this PID now; none if there is none.
    fn open(&self, pid: MainPid) -> Result<Option<Self::Process>, String>;
    /// What /proc shows of the process.
    fn inspect(&self, process: &Self::Process) -> Process;
    /// What /proc shows of all processes of the unit.
    fn members(&self, unit: &UnitState) -> Result<Members, String>;
    /// What the kernel shows of the sockets at which the probes waited.
    fn sockets(&self, unit: &UnitState, main: &Process) -> Result<Sockets, String>;
    /// Records what the unit's processes are doing, by `until` at the latest.
    fn evidence(
        &self,
        process: &Self::Process,
        first: &Observation,
        probe: &dyn FinalProbe,
        until: Monotonic,
    ) -> Evidence;
    /// Logs one line about the next step.
    fn log(&self, line: &str);
    /// Sends the signal; with none, only checks whether one would be permitted.
    fn signal(&self, process: &Self::Process, signal: Option<Signal>) -> Result<(), NotSent>;
    /// Sends `signal` to each process of the unit that catches it and does not block it, and returns
    /// their PIDs.
    fn dump(&self, unit: &UnitState, signal: DumpSignal) -> Vec<u32>;
    /// Waits for the process to die, and returns whether it did within `at_most`.
    fn died_within(&self, process: &Self::Process, at_most: Duration) -> bool;
}

/// Why a signal was not sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum NotSent {
    /// The process has died.
    Gone,
    /// The kernel refused; why.
    Refused(String),
}

/// Recovers a hung backend, or returns the reason why not. The caller adds the unit's name and the elapsed
/// time.
pub(super) fn run<H: Host>(
    context: &GuardContext<'_>,
    host: &H,
    prober: &dyn CoreProber,
) -> Recovery {
    let mut run = Run {
        context,
        host,
        prober,
        recovery: Recovery::idle(Outcome::NotNeeded, None),
    };
    let (Ok(outcome) | Err(outcome)) = run.recover();
    Recovery {
        outcome,
        ..run.recovery
    }
}

struct Run<'a, H> {
    context: &'a GuardContext<'a>,
    host: &'a H,
    prober: &'a dyn CoreProber,
    /// What is known so far.
    recovery: Recovery,
}

/// A process to signal, unless a further observation finds a reason not to.
struct Target<P> {
    pid: MainPid,
    process: P,
    first: Observation,
    /// The last observation.
    latest: Observation,
    /// When systemd answered in the last observation.
    answered: Monotonic,
    probe: Box<dyn FinalProbe>,
}

/// A step's result; its error ends the recovery.
type Step<T> = Result<T, Outcome>;

impl<H: Host> Run<'_, H> {
    fn recover(&mut self) -> Step<Outcome> {
        let mut target = self.observe_twice()?;
        if self.context.dry_run {
            self.send(&target, None)?;
            return Ok(Outcome::WouldKill);
        }
        self.log_signal(&target);
        self.fresh(&mut target)?;
        let died = match self.context.dump_signal {
            Some(signal) => self.dump_stacks(&mut target, signal)?,
            None => false,
        };
        if !died {
            self.end(&target)?;
        }
        let new_pid = self.await_restart(&target)?;
        self.verify(new_pid)
    }

    /// Makes two observations, with the final probe between them.
    fn observe_twice(&mut self) -> Step<Target<H::Process>> {
        let at = self.host.now();
        let unit = self.host.show().map_err(Outcome::Failed)?;
        let pid = *unit.main_pid.as_ref().unwrap_or(&0);
        self.recovery.pid = (pid != 0).then_some(pid);
        let pid = MainPid::new(pid, self.context.own_pid);
        // Opened before the second observation. The PID can be reused, the descriptor keeps its process: if
        // the PID is still the unit's main PID then, the descriptor's process is the main process.
        let process = match pid {
            Some(pid) => self.host.open(pid).map_err(Outcome::Failed)?,
            None => None,
        };
        let seen = match (&process, pid) {
            (Some(process), _) => self.host.inspect(process),
            (None, Some(_)) => Process::Gone("no process has this PID any more"),
            (None, None) => Process::None,
        };
        let first = self.observe(at, unit, seen, None);
        guards::judge(self.context, &first, None).map_err(refused)?;
        // The guards have just refused any observation that lacks one of the two.
        let (Some(pid), Some(process)) = (pid, process) else {
            let why = "the main process cannot be opened".to_owned();
            return Err(Outcome::Refused(Guard::MainPid, why));
        };

        let probe = self.prober.final_probe();
        let until = self.host.now() + FINAL_PROBE_TIME;
        let evidence = (self.host).evidence(&process, &first, probe.as_ref(), until);
        self.recovery.evidence = Some(evidence);
        while probe.status() == ProbeStatus::Silent && self.host.now() < until {
            let left = until.since(self.host.now());
            self.host.pause(left.min(Duration::from_millis(10)));
        }
        let mut target = Target {
            pid,
            process,
            latest: first.clone(),
            first,
            answered: at,
            probe,
        };
        self.observe_again(&mut target)?;
        Ok(target)
    }

    /// Observes systemd, /proc, the socket table and the final probe once more, in this order: the facts that
    /// change fastest come last.
    fn observe_again(&self, target: &mut Target<H::Process>) -> Step<()> {
        let at = self.host.now();
        let unit = self.host.show().map_err(Outcome::Failed)?;
        target.answered = self.host.now();
        let process = self.host.inspect(&target.process);
        target.latest = self.observe(at, unit, process, Some(target.probe.as_ref()));
        guards::judge(self.context, &target.latest, Some(&target.first)).map_err(refused)
    }

    fn observe(
        &self,
        at: Monotonic,
        unit: UnitState,
        process: Process,
        probe: Option<&dyn FinalProbe>,
    ) -> Observation {
        Observation {
            at,
            members: self.host.members(&unit),
            sockets: self.host.sockets(&unit, &process),
            probe: probe.map(|probe| ProbeFacts {
                connections: probe.connections(),
                status: probe.status(),
            }),
            unit,
            process,
        }
    }

    /// Logs the signal before it is sent.
    fn log_signal(&self, target: &Target<H::Process>) {
        let evidence = self.recovery.evidence.as_ref().map(Evidence::summary);
        self.host.log(&format!(
            "sending {} to process {}, the main process of {}: no core route answered within its timeouts; {}",
            self.context.signal.name(),
            target.pid.get(),
            self.context.unit,
            evidence.unwrap_or_default()
        ));
    }

    /// Observes again until an observation is fresh: blocked stderr (Ctrl-S at a terminal) or a pause of this
    /// whole program may have made the last one stale.
    fn fresh(&self, target: &mut Target<H::Process>) -> Step<()> {
        let mut observations = 0;
        while self.host.now().since(target.answered) > STALE {
            if observations == FRESH_OBSERVATIONS {
                let why = "this program itself is starved: each observation is stale before it can act on it";
                return Err(Outcome::Refused(Guard::Starved, why.to_owned()));
            }
            self.observe_again(target)?;
            observations += 1;
        }
        // This check costs nothing, so it is made even after a fresh observation.
        let probe = ProbeFacts {
            status: target.probe.status(),
            connections: Vec::new(),
        };
        guards::silence::unanswered(Some(&probe), None).map_err(refused)
    }

    /// Asks the unit's processes for their stacks, then makes a third observation. Returns whether the dump
    /// signal ended the main process; that counts as a kill by this run.
    fn dump_stacks(&mut self, target: &mut Target<H::Process>, signal: DumpSignal) -> Step<bool> {
        let since = self.host.wall_clock();
        let until = self.host.now() + DUMP_TIME;
        let processes = self.host.dump(&target.latest.unit, signal);
        if processes.is_empty() {
            return Ok(false);
        }
        let asked = processes.contains(&target.pid.get());
        let mut died = false;
        while !died && target.probe.status() == ProbeStatus::Silent && self.host.now() < until {
            died = (self.host).died_within(&target.process, Duration::from_millis(50));
        }
        self.recovery.dump = Some(Dump {
            signal,
            processes,
            since,
            until: self.host.wall_clock(),
            command: String::new(),
            traces: Vec::new(),
        });
        if died && asked {
            return Ok(true);
        }
        self.observe_again(target)?;
        self.fresh(target)?;
        Ok(false)
    }

    /// Sends the first signal; with none, only checks whether it would be permitted.
    fn send(&self, target: &Target<H::Process>, signal: Option<Signal>) -> Step<()> {
        let pid = target.pid.get();
        self.host
            .signal(&target.process, signal)
            .map_err(|why| match why {
                NotSent::Gone => Outcome::Refused(
                    Guard::Gone,
                    format!("the main process {pid} was gone before the signal"),
                ),
                NotSent::Refused(why) => Outcome::Failed(format!(
                    "process {pid} cannot be signalled: {}; run as root, as the backend's own user, or with CAP_KILL (and without PrivateUsers=)",
                    escape(&why)
                )),
            })
    }
}

fn refused((guard, why): guards::Refusal) -> Outcome {
    Outcome::Refused(guard, why)
}
