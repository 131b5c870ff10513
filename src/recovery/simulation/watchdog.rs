//! One watchdog: it sweeps, then takes the real steps, and whatever it asks of the machine may be the
//! other one's turn first. What is wrong with a signal is worked out here from the machine itself.

use std::net::SocketAddr;
use std::time::Duration;

use nix::sys::signal::Signal;

use super::super::evidence::Reading;
use super::super::facts::{Process, Vitals};
use super::super::steps::{self, Host, NotSent, Task};
use super::super::unit::UnitState;
use super::super::{Backend, Evidence, Heard, Knock, MainPid, Outcome};
use super::world::{Flaw, Nature};
use super::{Machine, Shared};
use crate::clock::Monotonic;

/// One watchdog's view of the machine.
#[derive(Clone, Debug)]
pub(super) struct Watchdog {
    pub(super) shared: Shared,
    pub(super) me: usize,
}

/// What a pidfd holds: the identity. The number is for the log.
pub(super) struct Held {
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
    pub(super) fn run(&self, task: &Task<'_>) -> Option<Outcome> {
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
        .filter(|signal| signal.is_some())
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
                (world.flaw == Some(Flaw::NotFound), "no such unit"),
                (world.flaw == Some(Flaw::Mortal), "not restarted"),
                (world.flaw == Some(Flaw::NoJob), "perhaps a job"),
            ]
            .into_iter()
            .find_map(|(holds, what)| holds.then_some(what));
            let mut text = format!(
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
            let (from, to) = match world.flaw {
                None => ("", ""),
                Some(Flaw::NotFound) => ("=loaded", "=not-found"),
                Some(Flaw::Mortal) => ("Restart=always", "Restart=no"),
                Some(Flaw::NoJob) => ("Job=", "Jobs="),
            };
            text = text.replacen(from, to, 1);
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
            if let Some(left) = machine.knobs.slow_inspections.checked_sub(1) {
                machine.knobs.slow_inspections = left;
                machine.world.pass(Duration::from_secs(2));
            }
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
            let wakes = machine.knobs.wakes_meanwhile;
            if let Some(main) = machine.world.main().filter(|_| wakes) {
                main.mute = false;
            }
            let record = &mut machine.records[self.me];
            record.against[2] = Some("last GET not looked at again");
            record.announcements.push(line.to_owned());
        });
    }

    fn signal(&self, held: &Held, signal: Option<Signal>) -> Result<(), NotSent> {
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
            if signal.is_none() {
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
            machine
                .world
                .strike(held.identity, signal == Some(Signal::SIGKILL));
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
