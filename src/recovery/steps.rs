//! The order in which a hung main process is looked at, ended and waited for. Everything that
//! touches the machine goes through [`Host`], so that a simulation can drive these very steps.

use std::time::Duration;

use super::facts::{Look, Process, Standing, journalctl, systemctl};
use super::guards;
use super::unit::UnitState;
use super::{Backend, Evidence, Guard, Heard, Knock, MainPid, Outcome};
use crate::clock::Monotonic;
use crate::manifest::KillSignal;
use crate::text::escape;

/// How long evidence and the last GET may delay the signal.
const LAST_GET: Duration = Duration::from_millis(250);
/// A look older than this is no ground for a signal.
const STALE: Duration = Duration::from_secs(1);
/// How often a stale look is taken anew before the signal is given up.
const FRESH_LOOKS: usize = 3;
/// How long what obeys SIGTERM may take to end before it is called deaf.
const OBEDIENCE: Duration = Duration::from_millis(1_500);
/// How long a process has to die of SIGKILL.
const DEATH: Duration = Duration::from_secs(10);
/// How long a process has to die of SIGABRT before it gets SIGKILL.
const ABORT: Duration = Duration::from_secs(5);
/// How long a process that dumps core is left alone, from SIGABRT on.
const CORE_DUMP: Duration = Duration::from_secs(60);
/// What systemd has for a restart beyond the unit's own settings.
const RESTART_SLACK: Duration = Duration::from_secs(10);
/// The longest wait for a restart.
const RESTART_CAP: Duration = Duration::from_secs(300);

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
    /// Sends the signal.
    fn signal(&self, process: &Self::Process, signal: Sent) -> Result<(), NotSent>;
    /// Waits for the process to die, and says whether it did within `at_most`.
    fn died_within(&self, process: &Self::Process, at_most: Duration) -> bool;
}

/// What is sent to a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sent {
    /// Nothing: it is only asked whether a signal would be permitted.
    Question,
    /// SIGABRT
    Abort,
    /// SIGKILL
    Kill,
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
            self.send(&suspect, Sent::Question)?;
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
            self.signal_name(),
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
    fn send(&self, suspect: &Suspect<H::Process>, signal: Sent) -> Step<()> {
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

    /// Signals, and waits for the process to die.
    fn end(&self, suspect: &Suspect<H::Process>) -> Step<()> {
        let process = &suspect.process;
        match self.task.standing.signal {
            KillSignal::Kill => self.send(suspect, Sent::Kill)?,
            KillSignal::Abort => {
                self.send(suspect, Sent::Abort)?;
                if self.dies_of_abort(process) {
                    return Ok(());
                }
                match self.host.signal(process, Sent::Kill) {
                    Ok(()) | Err(NotSent::Gone) => {}
                    Err(NotSent::Refused(why)) => {
                        return Err(Outcome::Failed(format!(
                            "process {} did not obey SIGABRT, and SIGKILL was refused: {}",
                            suspect.pid.get(),
                            escape(&why)
                        )));
                    }
                }
            }
        }
        if self.host.died_within(process, DEATH) {
            return Ok(());
        }
        Err(Outcome::Failed(self.survived(suspect)))
    }

    fn dies_of_abort(&self, process: &H::Process) -> bool {
        let patience = self.host.now() + CORE_DUMP;
        if self.host.died_within(process, ABORT) {
            return true;
        }
        let dumps =
            || matches!(self.host.inspect(process), Process::Alive(vitals) if vitals.dumping);
        while self.host.now() < patience && dumps() {
            if self.host.died_within(process, Duration::from_millis(250)) {
                return true;
            }
        }
        self.host.died_within(process, Duration::ZERO)
    }

    fn survived(&self, suspect: &Suspect<H::Process>) -> String {
        let pid = suspect.pid.get();
        let state = match self.host.inspect(&suspect.process) {
            Process::Alive(vitals) if vitals.state == 'D' => {
                " (state D: it waits inside the kernel for a device or a network file system, which no signal ends)".to_owned()
            }
            Process::Alive(vitals) => format!(" (state {})", vitals.state),
            Process::None | Process::Gone(_) | Process::Hidden => String::new(),
        };
        format!(
            "process {pid} survived SIGKILL for {} s{state}: \"cat /proc/{pid}/stack\" as root shows what it waits for",
            DEATH.as_secs()
        )
    }

    /// Waits for systemd to run a new main process.
    fn await_restart(&self, suspect: &Suspect<H::Process>) -> Step<MainPid> {
        let takes = suspect.unit.restart_takes;
        let bound = takes.map_or(RESTART_CAP, |takes| {
            takes.saturating_add(RESTART_SLACK).min(RESTART_CAP)
        });
        let began = self.host.now();
        let until = began + bound;
        let mut pause = Duration::from_millis(50);
        let mut told = false;
        loop {
            let answer = self.host.show();
            if let Ok(unit) = &answer {
                if let Some(new_pid) = self.successor(&suspect.unit, unit) {
                    return Ok(new_pid);
                }
                if failed(unit) {
                    return Err(self.not_recovered(None, &self.ended_in_failed(unit)));
                }
                let waits = unit.sub.as_deref() == Ok("stop-sigterm");
                if waits && !told && self.host.now().since(began) >= OBEDIENCE {
                    self.host.announce(&self.children_left());
                    told = true;
                }
            }
            let now = self.host.now();
            if now >= until {
                return Err(self.not_recovered(
                    None,
                    &format!(
                        "systemd ran no new main process within {} s ({})",
                        bound.as_secs(),
                        answer.map_or_else(|why| why, |unit| state(&unit))
                    ),
                ));
            }
            self.host.pause(pause.min(until.since(now)));
            pause = (pause * 2).min(Duration::from_secs(1));
        }
    }

    /// The main process that follows the one that was ended. The invocation alone tells the two
    /// apart: a new process may have been given the old number.
    fn successor(&self, old: &UnitState, new: &UnitState) -> Option<MainPid> {
        let (Ok(was), Ok(is), Ok(pid)) = (&old.invocation, &new.invocation, &new.main_pid) else {
            return None;
        };
        MainPid::new(*pid, self.task.standing.own_pid).filter(|_| was != is)
    }

    fn verify(&self, new_pid: MainPid) -> Step<Outcome> {
        let until = self.host.now() + self.task.verify;
        let mut pause = Duration::from_millis(500);
        loop {
            if self.backend.core_answers(until) {
                return Ok(Outcome::Recovered { new_pid });
            }
            let now = self.host.now();
            if now >= until {
                break;
            }
            self.host.pause(pause.min(until.since(now)));
            pause = Duration::from_secs(1);
        }
        let why = match self.host.show() {
            Ok(unit) if failed(&unit) => self.ended_in_failed(&unit),
            _ => format!(
                "the new main process {} has no healthy core after verify_seconds ({})",
                new_pid.get(),
                self.task.verify.as_secs_f64()
            ),
        };
        Err(self.not_recovered(Some(new_pid), &why))
    }

    fn not_recovered(&self, new_pid: Option<MainPid>, why: &str) -> Outcome {
        let Standing { unit, scope, .. } = self.task.standing;
        let journal = format!("{} -u {unit}", journalctl(scope));
        let detail = format!("{why}; \"{journal}\" tells more");
        Outcome::NotRecovered { new_pid, detail }
    }

    fn ended_in_failed(&self, unit: &UnitState) -> String {
        let Standing {
            unit: name, scope, ..
        } = self.task.standing;
        let typed = systemctl(scope);
        let result = unit.result.as_deref().unwrap_or("unknown");
        format!(
            "{name} ended in \"failed\" (Result={}), and systemd leaves it there: \"{typed} reset-failed {name} && {typed} start {name}\" starts it",
            escape(result)
        )
    }

    fn children_left(&self) -> String {
        format!(
            "{} still has processes that do not obey SIGTERM, and systemd waits for them up to TimeoutStopSec= before the restart; \
             KillMode=mixed in the unit would end them at once",
            self.task.standing.unit
        )
    }

    const fn signal_name(&self) -> &'static str {
        match self.task.standing.signal {
            KillSignal::Kill => "SIGKILL",
            KillSignal::Abort => "SIGABRT",
        }
    }
}

fn refused((guard, why): guards::Refusal) -> Outcome {
    Outcome::Refused(guard, why)
}

/// Whether nothing will come any more; a queued job may still start the unit.
fn failed(unit: &UnitState) -> bool {
    unit.active.as_deref() == Ok("failed") && unit.job == Ok(None)
}

fn state(unit: &UnitState) -> String {
    let active = unit.active.as_deref().unwrap_or("unknown");
    let sub = unit.sub.as_deref().unwrap_or("unknown");
    format!("ActiveState={}, SubState={}", escape(active), escape(sub))
}
