//! The steps of a recovery: observe, kill, wait for the restart, verify. Everything that touches the machine
//! goes through [`Host`], so that a simulation can run these same steps.

mod after_signal;

use std::rc::Rc;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::signal::Signal;

use super::facts::{Context, Facts, Gatherer, Held};
use super::guards::{self, Guard};
use super::machine::Host;
use super::sockets::queue::QueueHistory;
use super::{Evidence, Outcome, Recovery, Stacks, UnitReport, stacks};

/// How long the evidence may delay the signal.
const EVIDENCE_TIME: Duration = Duration::from_millis(250);
/// No signal is based on an observation older than this.
const STALE: Duration = Duration::from_secs(1);
/// How often a stale observation is repeated before the recovery gives up.
const FRESH_OBSERVATIONS: usize = 3;
/// How long processes have to write their stacks.
const STACKS_TIME: Duration = Duration::from_secs(1);

/// Recovers a hung backend, or returns the reason why not. `queues` are the accept queues as read during the sweep.
pub(super) fn run<H: Host>(context: &Context, host: &H, queues: QueueHistory) -> Recovery {
    let began = host.now();
    let mut run = Run {
        context,
        host,
        gatherer: Gatherer::new(context, host, queues),
        recovery: Recovery::default(),
    };
    let (Ok(outcome) | Err(outcome)) = run.recover();
    Recovery {
        outcome,
        unit: Some(context.plan.unit.clone()),
        elapsed: host.now().since(began),
        ..run.recovery
    }
}

struct Run<'a, H: Host> {
    context: &'a Context,
    host: &'a H,
    gatherer: Gatherer<'a, H>,
    /// What is known so far.
    recovery: Recovery,
}

/// A process to signal, unless a further observation finds a reason not to.
struct Target<P> {
    main: Rc<Held<P>>,
    /// The last observation.
    latest: Rc<Facts>,
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
        let (pid, unit) = (target.main.pid.get(), self.context.unit());
        let signal = self.context.plan.signal.name();
        self.host.log(&format!(
            "about to send {signal} to process {pid}, the main process of {unit}: no core route answered within its timeouts and the grace period"
        ));
        self.refresh(&mut target)?;
        let died = match self.context.plan.dump_signal {
            Some(signal) => self.collect_stacks(&mut target, signal)?,
            None => false,
        };
        if !died {
            self.end(&target)?;
        }
        let new_pid = self.await_restart(&target)?;
        self.verify(new_pid)
    }

    /// Makes two observations, with the evidence between them.
    fn observe_twice(&mut self) -> Step<Target<H::Process>> {
        let first = self.gatherer.observe().map_err(Outcome::Failed)?;
        self.recovery.pid = first.unit.main_pid().ok().filter(|pid| *pid != 0);
        self.recovery.unit_report = UnitReport::of(self.context.unit(), &first.unit, self.host);
        guards::judge(self.context, &first)?;
        let (Some(main), Ok(group)) = (self.gatherer.main.clone(), &first.group) else {
            // The guards refuse any observation that lacks one of the two.
            let why = "the main process cannot be opened".to_owned();
            return Err(Outcome::Refused(Guard::UNREADABLE, why));
        };
        let until = self.host.now() + EVIDENCE_TIME;
        let processes = self.host.processes(main.pid, group, until);
        self.recovery.evidence = Some(Evidence::new(processes, self.context, &first));
        let latest = first;
        let mut target = Target { main, latest };
        self.observe_again(&mut target)?;
        Ok(target)
    }

    fn observe_again(&mut self, target: &mut Target<H::Process>) -> Step<()> {
        target.latest = self.gatherer.observe().map_err(Outcome::Failed)?;
        guards::judge(self.context, &target.latest)
    }

    /// Observes again until an observation is fresh: blocked stderr (Ctrl-S at a terminal) or a pause of this
    /// whole program may have made the last one stale. At last, checks the parked requests once more.
    fn refresh(&mut self, target: &mut Target<H::Process>) -> Step<()> {
        let mut observations = 0;
        while self.host.now().since(target.latest.shown) > STALE {
            if observations == FRESH_OBSERVATIONS {
                let why = "this program itself is starved: each observation is stale before it can act on it";
                return Err(Outcome::Refused(Guard::STARVED, why.to_owned()));
            }
            self.observe_again(target)?;
            observations += 1;
        }
        guards::late_sign(&self.host.parked())
    }

    /// Asks the unit's processes for their stacks, then makes a third observation. Returns whether that ended
    /// the main process, which counts as a kill by this run.
    fn collect_stacks(&mut self, target: &mut Target<H::Process>, signal: Signal) -> Step<bool> {
        let (Ok(group), Ok(path)) = (&target.latest.group, target.latest.unit.control_group())
        else {
            return Ok(false);
        };
        let since = self.host.wall_clock();
        let until = self.host.now() + STACKS_TIME;
        let processes = self.host.ask_for_stacks(group, &path, signal);
        if processes.is_empty() {
            return Ok(false);
        }
        let asked = processes.contains(&target.main.pid.get());
        let mut died = false;
        while !died && self.host.now() < until {
            died = (self.host).died_within(&target.main.process, Duration::from_millis(50));
            if guards::late_sign(&self.host.parked()).is_err() {
                break;
            }
        }
        let until = self.host.wall_clock();
        self.recovery.stacks = Some(Stacks {
            signal,
            command: stacks::command(&self.context.plan, &processes, since, until),
            processes,
            since,
            until,
        });
        if asked && died {
            return Ok(true);
        }
        let again = self.observe_again(target);
        match again.and_then(|()| self.refresh(target)) {
            Ok(()) => Ok(false),
            // It closes its connections, and systemd notices its end, before its death is complete.
            Err(_) if asked && self.host.died_within(&target.main.process, STACKS_TIME) => Ok(true),
            Err(outcome) => Err(outcome),
        }
    }

    /// Sends the first signal; with none, only checks whether it would be permitted.
    fn send(&self, target: &Target<H::Process>, signal: Option<Signal>) -> Step<()> {
        let pid = target.main.pid.get();
        match self.host.signal(&target.main.process, signal) {
            Ok(()) => Ok(()),
            Err(Errno::ESRCH) => {
                let why = format!("the main process {pid} was gone before the signal");
                Err(Outcome::Refused(Guard::GONE, why))
            }
            Err(why) => Err(Outcome::Failed(not_permitted(pid, why))),
        }
    }
}

/// The message for a signal that the kernel refuses.
pub(super) fn not_permitted(pid: u32, why: Errno) -> String {
    format!(
        "process {pid} cannot be signalled: {why}; run as root, as the backend's own user, or with CAP_KILL (and without PrivateUsers=)"
    )
}
