//! The order in which a hung main process is looked at, ended and waited for. Everything that
//! touches the machine goes through [`Host`], so that a simulation can drive these very steps.

mod aftermath;

use std::time::Duration;

use nix::sys::signal::Signal;

use super::facts::{Look, Process, Standing};
use super::guards;
use super::unit::UnitState;
use super::{Backend, Evidence, Guard, Heard, Knock, MainPid, Outcome};
use crate::clock::Monotonic;
use crate::text::escape;

/// How long evidence and the last GET may delay the signal.
const LAST_GET: Duration = Duration::from_millis(250);
/// A look older than this is no ground for a signal.
const STALE: Duration = Duration::from_secs(1);
/// How often a stale look is taken anew before the signal is given up.
const FRESH_LOOKS: usize = 3;

/// The machine, as far as the steps need it.
pub(super) trait Host {
    /// A hold on one process, whatever becomes of its number.
    type Process;

    /// The present moment.
    fn now(&self) -> Monotonic;
    /// Lets time pass.
    fn pause(&self, length: Duration);
    /// Asks systemd about the unit; the error is a sentence.
    fn show(&self) -> Result<UnitState, String>;
    /// Takes hold of the process that has this number now; none where there is none.
    fn open(&self, pid: MainPid) -> Result<Option<Self::Process>, String>;
    /// What /proc tells about the process.
    fn inspect(&self, process: &Self::Process) -> Process;
    /// Notes what the process is doing, by `until` at the latest.
    fn evidence(&self, process: &Self::Process, knock: &dyn Knock, until: Monotonic) -> Evidence;
    /// Tells people what is about to happen, on one line.
    fn announce(&self, line: &str);
    /// Sends the signal; with none, only asks whether one would be permitted.
    fn signal(&self, process: &Self::Process, signal: Option<Signal>) -> Result<(), NotSent>;
    /// Waits for the process to die, and says whether it did within `at_most`.
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

/// What recovery is to do with a backend that hung.
#[derive(Clone, Debug)]
pub(super) struct Task<'a> {
    /// What the guards need to know.
    pub(super) standing: Standing<'a>,
    /// How long the new main process has until the core answers.
    pub(super) verify: Duration,
    /// Stop short of the signal.
    pub(super) rehearse: bool,
}

/// What came of it.
#[derive(Debug)]
pub(super) struct Story {
    pub(super) outcome: Outcome,
    pub(super) pid: Option<u32>,
    pub(super) evidence: Option<Evidence>,
}

/// Recovers a hung backend, or says why not.
pub(super) fn run<H: Host>(task: &Task<'_>, host: &H, backend: &dyn Backend) -> Story {
    let mut run = Run {
        task,
        host,
        backend,
        pid: None,
        evidence: None,
    };
    let outcome = match run.recover() {
        Ok(outcome) | Err(outcome) => outcome,
    };
    Story {
        outcome,
        pid: run.pid,
        evidence: run.evidence,
    }
}

struct Run<'a, H> {
    task: &'a Task<'a>,
    host: &'a H,
    backend: &'a dyn Backend,
    pid: Option<u32>,
    evidence: Option<Evidence>,
}

/// A process that is to be signalled, unless one more look finds a reason not to.
struct Suspect<P> {
    pid: MainPid,
    process: P,
    /// As the last look found it.
    unit: UnitState,
    /// When systemd told it.
    told: Monotonic,
    knock: Box<dyn Knock>,
}

/// A step's result; its error ends the recovery.
type Step<T> = Result<T, Outcome>;

impl<H: Host> Run<'_, H> {
    fn recover(&mut self) -> Step<Outcome> {
        let suspect = self.look_twice()?;
        if self.task.rehearse {
            self.send(&suspect, None)?;
            return Ok(Outcome::WouldKill);
        }
        self.announce(&suspect);
        let suspect = self.fresh(suspect)?;
        self.end(&suspect)?;
        let new_pid = self.await_restart(&suspect)?;
        self.verify(new_pid)
    }

    /// Looks twice, with one more GET between the two.
    fn look_twice(&mut self) -> Step<Suspect<H::Process>> {
        let at = self.host.now();
        let first = self.host.show().map_err(Outcome::Failed)?;
        let pid = *first.main_pid.as_ref().unwrap_or(&0);
        self.pid = (pid != 0).then_some(pid);
        let pid = MainPid::new(pid, self.task.standing.own_pid);
        // Opened before the second look: the number can be given to another process, the
        // descriptor cannot. If the number still belongs to the unit then, so does the process.
        let process = match pid {
            Some(pid) => self.host.open(pid).map_err(Outcome::Failed)?,
            None => None,
        };
        let seen = match (&process, pid) {
            (Some(process), _) => self.host.inspect(process),
            (None, Some(_)) => Process::Gone("no process has its number any more"),
            (None, None) => Process::None,
        };
        self.judge(&Look {
            at,
            unit: &first,
            before: None,
            process: seen,
            heard: Heard::Nothing,
        })?;
        // The guards have just refused whatever would leave either of the two out.
        let (Some(pid), Some(process)) = (pid, process) else {
            let why = "the main process cannot be held on to".to_owned();
            return Err(Outcome::Refused(Guard::MainPid, why));
        };

        let knock = self.backend.knock();
        let until = self.host.now() + LAST_GET;
        self.evidence = Some(self.host.evidence(&process, knock.as_ref(), until));
        while knock.heard() == Heard::Nothing && self.host.now() < until {
            let left = until.since(self.host.now());
            self.host.pause(left.min(Duration::from_millis(10)));
        }
        let suspect = Suspect {
            pid,
            process,
            unit: first,
            told: at,
            knock,
        };
        self.look_again(suspect)
    }

    /// Asks systemd, /proc and the last GET once more, in this order: what can change fastest is
    /// looked at last.
    fn look_again(&self, suspect: Suspect<H::Process>) -> Step<Suspect<H::Process>> {
        let at = self.host.now();
        let unit = self.host.show().map_err(Outcome::Failed)?;
        let told = self.host.now();
        self.judge(&Look {
            at,
            unit: &unit,
            before: Some(&suspect.unit),
            process: self.host.inspect(&suspect.process),
            heard: suspect.knock.heard(),
        })?;
        Ok(Suspect {
            unit,
            told,
            ..suspect
        })
    }

    fn judge(&self, look: &Look<'_>) -> Step<()> {
        guards::judge(&self.task.standing, look).map_err(refused)
    }

    /// Says what is about to happen, before it happens.
    fn announce(&self, suspect: &Suspect<H::Process>) {
        let evidence = self.evidence.as_ref().map(Evidence::summary);
        self.host.announce(&format!(
            "sending {} to process {}, the main process of {}: no core route answered within its time-outs; {}",
            self.task.standing.signal.name(),
            suspect.pid.get(),
            self.task.standing.unit,
            evidence.unwrap_or_default()
        ));
    }

    /// Looks again until a look is fresh. A reader that keeps stderr waiting (Ctrl-S at a terminal)
    /// lets the last one grow old, and so does a pause of this whole program.
    fn fresh(&self, mut suspect: Suspect<H::Process>) -> Step<Suspect<H::Process>> {
        let mut looks = 0;
        while self.host.now().since(suspect.told) > STALE {
            if looks == FRESH_LOOKS {
                let why = "this program itself is starved: whatever it looks at is out of date before it can act on it";
                return Err(Outcome::Refused(Guard::Starved, why.to_owned()));
            }
            suspect = self.look_again(suspect)?;
            looks += 1;
        }
        // However fresh the look, this costs nothing.
        guards::unanswered(&suspect.knock.heard()).map_err(refused)?;
        Ok(suspect)
    }

    /// Sends the first signal, or asks whether that would be permitted.
    fn send(&self, suspect: &Suspect<H::Process>, signal: Option<Signal>) -> Step<()> {
        let pid = suspect.pid.get();
        self.host
            .signal(&suspect.process, signal)
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
