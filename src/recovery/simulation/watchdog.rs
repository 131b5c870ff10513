//! One watchdog: it sweeps, then takes the real steps. Before each of its calls, the other one may get its
//! turn. Its outcome is checked against the machine's own record.

use std::time::Duration;

use super::super::observation::GuardContext;
use super::super::steps;
use super::super::{MainPid, Outcome};
use super::{Machine, Shared};
use crate::clock::Monotonic;

/// One watchdog's view of the machine.
#[derive(Clone, Debug)]
pub(super) struct Watchdog {
    pub(super) shared: Shared,
    pub(super) me: usize,
}

/// A pidfd refers to an identity. The number is for the log.
pub(super) struct Held {
    pub(super) number: u32,
    pub(super) identity: u64,
}

impl Watchdog {
    /// Waits for its turn, lets random events happen, acts, and passes the turn on.
    pub(super) fn act<R>(&self, action: impl FnOnce(&mut Machine) -> R) -> R {
        let (machine, changed) = &*self.shared.0;
        let mut machine = changed
            .wait_while(machine.lock().unwrap(), |machine| {
                machine.turn != Some(self.me)
            })
            .unwrap();
        let micros = 1 + machine.world.random.below(500);
        machine.world.pass(Duration::from_micros(micros));
        machine.world.random_events();
        let result = action(&mut machine);
        machine.hand_on();
        drop(machine);
        changed.notify_all();
        result
    }

    fn done(&self) {
        self.act(|machine| machine.running.retain(|&other| other != self.me));
    }

    /// Probes the backend a few times and returns whether it was silent each time.
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
                silent &= main
                    .as_ref()
                    .is_some_and(|main| main.silent && !main.zombie);
                seen = seen.filter(|seen| main.is_some_and(|main| main.identity == *seen));
            });
        }
        self.act(|machine| machine.records[self.me].observed = seen);
        silent
    }

    /// The whole run of a watchdog; none if the backend answered.
    pub(super) fn run(&self, context: &GuardContext<'_>) -> Option<Outcome> {
        let always = [
            context.starved.as_ref().map(|_| "starved"),
            context.not_local.as_ref().map(|_| "not local"),
            context
                .manifest_writable
                .as_ref()
                .map(|_| "writable manifest"),
            context.dry_run.then_some("only a dry run"),
        ];
        self.act(|machine| {
            let record = &mut machine.records[self.me];
            record.min_uptime = context.min_uptime;
            record.against.always = always.into_iter().flatten().next();
        });
        let outcome = self.sweep().then(|| {
            let mut context = context.clone();
            context.sweep_began = self.act(|machine| to_monotonic(machine.records[self.me].began));
            let recovery = steps::run(&context, self, self);
            self.act(|machine| check_outcome(machine, self.me, &recovery.outcome));
            recovery.outcome
        });
        self.done();
        outcome
    }
}

/// Checks that the outcome is what the machine recorded.
fn check_outcome(machine: &mut Machine, me: usize, outcome: &Outcome) {
    let record = &machine.records[me];
    let signals: Vec<_> = record
        .signals
        .iter()
        .filter(|signal| signal.is_some())
        .collect();
    let honest = match outcome {
        Outcome::Recovered { .. } | Outcome::NotRecovered { .. } => {
            let succeeds = |new: MainPid, victim| {
                let mut mains = machine.world.mains.iter();
                mains.any(|&(number, identity)| number == new.get() && identity != victim)
            };
            (!signals.is_empty() || record.dumped_main)
                && record.observed.is_some_and(|victim| {
                    let new_pid = outcome.new_pid();
                    !machine.world.alive(victim) && new_pid.is_none_or(|new| succeeds(new, victim))
                })
        }
        Outcome::Refused(..) | Outcome::WouldKill => signals.is_empty(),
        Outcome::Failed(why) => signals.is_empty() || why.contains("survived"),
        Outcome::NotConfigured | Outcome::NotNeeded | Outcome::Disabled(_) => false,
    };
    let logged = signals.is_empty() && record.dumped.is_empty() || !record.log_lines.is_empty();
    if !honest || !logged || signals.len() > 2 {
        let what = format!("watchdog {me} says {outcome:?} after {record:?}");
        machine.violated(what);
    }
}

fn to_monotonic(time: Duration) -> Monotonic {
    Monotonic::from_micros(u64::try_from(time.as_micros()).unwrap())
}
