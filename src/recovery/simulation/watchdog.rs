//! One watchdog: it sweeps, then takes the real steps. Before each of its calls, the other one may get its turn. Its
//! outcome is checked against the machine's own record.

use std::time::Duration;

use super::super::facts::Context;
use super::super::sockets::queue::QueueHistory;
use super::super::{Outcome, samples, steps};
use super::network::{Connection, Stage, port};
use super::world::{World, monotonic};
use super::{Machine, Shared, Source};
use crate::sweep::{ParkedRequest, ParkedState, Reach};

/// The timeout of an attempt, and how often the accept queue is read meanwhile.
const TIMEOUT: Duration = Duration::from_secs(10);
const READINGS: u32 = 4;
const ATTEMPTS: usize = 2;
/// How many are sent at once.
const REQUESTS: usize = 2;
const GRACE: Duration = Duration::from_secs(30);

/// One watchdog's view of the machine.
pub(super) struct Watchdog {
    pub(super) shared: Shared,
    pub(super) me: usize,
}

/// A core request of a watchdog's sweep.
#[derive(Clone, Debug)]
pub(super) struct Request {
    cookie: u64,
    began: Duration,
    /// As it was parked.
    parked: ParkedRequest,
    /// Whether the accept queue was full when it timed out.
    met_full_queue: bool,
}

impl Request {
    fn connection<'a>(&self, world: &'a World) -> &'a Connection {
        &world.network.connections[&self.cookie]
    }

    /// Whether it proves in `world` that requests reach the backend's socket.
    pub(super) fn proves_arrival(&self, world: &World) -> bool {
        let stage = self.connection(world).stage;
        self.parked.first_attempt
            && match self.parked.reach {
                Reach::Acknowledged => matches!(stage, Stage::Waiting | Stage::Accepted),
                Reach::Unconnected => self.met_full_queue && world.network.is_full(),
                Reach::Connected => false,
            }
    }

    /// Why it proves that the backend does not hang, if it does.
    pub(super) fn objection(&self, world: &World) -> Option<&'static str> {
        let connection = self.connection(world);
        match connection {
            _ if connection.answered.is_some() => Some("answered"),
            _ if connection.late && connection.stage != Stage::Ended => Some("connected late"),
            _ => None,
        }
    }

    /// Whether the backend has written an answer that has not arrived.
    pub(super) fn is_withheld(&self, world: &World) -> bool {
        let connection = self.connection(world);
        connection.withheld && connection.stage == Stage::Accepted
    }

    /// What the sweep would say of it.
    pub(super) fn shown(&self, world: &World) -> ParkedRequest {
        let connection = self.connection(world);
        // Over a UNIX socket, nothing is kept open without a connection.
        let open = !world.network.unix || self.parked.reach != Reach::Unconnected;
        ParkedRequest {
            state: match (connection.answered, connection.stage) {
                (Some(answered), _) => ParkedState::Answered(answered.saturating_sub(self.began)),
                (None, Stage::Ended) if open => ParkedState::Ended,
                (None, _) if connection.late => ParkedState::ConnectedLate,
                (None, _) => ParkedState::Waiting,
            },
            ..self.parked.clone()
        }
    }
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
        if machine.turn != Some(self.me) {
            changed.notify_all();
        }
        result
    }

    /// Sleeps, while the other one may act.
    pub(super) fn sleep(&self, length: Duration) {
        self.act(|machine| machine.wake[self.me] = machine.world.now + length);
    }

    pub(super) fn end(&self) {
        self.act(|machine| machine.running.retain(|&other| other != self.me));
    }

    /// The whole run of a watchdog; none if the backend answered.
    pub(super) fn run(&self, context: &Context) -> Option<Outcome> {
        let mut context = context.clone();
        let unix = self.act(|machine| {
            let record = &mut machine.records[self.me];
            record.min_uptime = context.plan.min_uptime;
            record.began = machine.world.now;
            context.hung_since = Some(monotonic(machine.world.now));
            machine.world.network.unix
        });
        if unix {
            context.addresses.clear();
        }
        let (history, starved) = self.sweep(&context)?;
        context.starved = starved;
        let always = [
            (context.starved.is_some(), "starved"),
            (context.not_local.is_some(), "not local"),
            (context.manifest_writable.is_some(), "writable manifest"),
            (context.dry_run, "only a dry run"),
        ];
        let reason = always
            .into_iter()
            .find_map(|(holds, what)| holds.then_some(what));
        self.act(|machine| machine.records[self.me].against[Source::Sweep as usize] = reason);
        let recovery = steps::run(&context, self, history);
        self.act(|machine| check_outcome(machine, self.me, &recovery.outcome));
        Some(recovery.outcome)
    }

    /// Sends core requests, and parks them. Returns the accept queue and how long this program was kept from
    /// running, if that was too long; none if a request was answered or refused.
    fn sweep(&self, context: &Context) -> Option<(QueueHistory, Option<Duration>)> {
        let mut history = QueueHistory::default();
        let mut starved = None;
        for attempt in 0..ATTEMPTS {
            let began = self.act(|machine| machine.world.now);
            let sent = (0..REQUESTS).map(|_| self.act(Machine::send));
            let sent = sent.collect::<Option<Vec<u64>>>()?;
            for _ in 0..READINGS {
                let until = self.act(|machine| machine.world.now) + TIMEOUT / READINGS;
                self.sleep(TIMEOUT / READINGS);
                self.act(|machine| {
                    let late = machine.world.now.saturating_sub(until);
                    starved = starved.or((late > Duration::from_secs(1)).then_some(late));
                    if let Ok(reading) = machine.read_sockets(self.me) {
                        history.record(&context.addresses, &reading);
                    }
                });
            }
            for cookie in sent {
                self.act(|machine| machine.park(self.me, cookie, attempt, began))?;
            }
        }
        let until = self.act(|machine| machine.world.now) + GRACE;
        loop {
            let (now, answered) = self.act(|machine| {
                let mut requests = machine.records[self.me].requests.iter();
                let answered =
                    requests.any(|request| request.objection(&machine.world) == Some("answered"));
                (machine.world.now, answered)
            });
            if answered {
                return None;
            }
            if now >= until {
                return Some((history, starved));
            }
            self.sleep((until - now).min(Duration::from_secs(5)));
        }
    }
}

impl Machine {
    fn send(&mut self) -> Option<u64> {
        let world = &mut self.world;
        let cookie = world.network.connect(true, world.now)?;
        world.network.serve(world.mode(), world.now);
        Some(cookie)
    }

    /// A watchdog's attempt times out; none if it was not silent.
    fn park(&mut self, me: usize, cookie: u64, attempt: usize, began: Duration) -> Option<()> {
        let timed_out = self.world.at();
        let network = &mut self.world.network;
        let (met_full_queue, unix) = (network.is_full(), network.unix);
        let connection = network.connections.get_mut(&cookie)?;
        connection.parked = true;
        let reach = match connection.stage {
            _ if connection.answered.is_some() => return None,
            Stage::Ended => return None,
            Stage::Connecting => Reach::Unconnected,
            Stage::Waiting | Stage::Accepted if connection.lost => Reach::Connected,
            Stage::Waiting | Stage::Accepted => Reach::Acknowledged,
        };
        let parked = samples::parked(port(cookie));
        let parked = ParkedRequest {
            first_attempt: attempt == 0,
            began: monotonic(began),
            timed_out,
            connection: parked.connection.filter(|_| !unix),
            reach,
            ..parked
        };
        self.records[me].requests.push(Request {
            cookie,
            began,
            parked,
            met_full_queue,
        });
        Some(())
    }
}

/// Checks that the outcome is what the machine recorded.
fn check_outcome(machine: &mut Machine, me: usize, outcome: &Outcome) {
    let record = &machine.records[me];
    let signalled = !record.signals.is_empty();
    let ended_by_us = signalled || record.asked_main.is_some();
    let honest = match outcome {
        Outcome::Recovered { .. } | Outcome::NotRecovered { .. } => {
            let victim = record.victim.or(record.asked_main);
            ended_by_us
                && victim.is_some_and(|victim| {
                    let mut mains = machine.world.mains.iter();
                    let succeeds = |pid: u32| {
                        mains.any(|&(number, identity)| number == pid && identity != victim)
                    };
                    let new_pid = outcome.new_pid().map(|pid| pid.get());
                    !machine.world.alive(victim) && new_pid.is_none_or(succeeds)
                })
        }
        Outcome::Refused(..) | Outcome::WouldKill => !signalled,
        Outcome::Failed(why) => {
            !signalled || why.contains("survived") || why.contains("did not end")
        }
        Outcome::NotConfigured | Outcome::NotNeeded | Outcome::Disabled(_) => false,
    };
    let logged = !signalled && record.asked.is_empty() || !record.log_lines.is_empty();
    if !honest || !logged {
        let what = format!("watchdog {me} says {outcome:?} after {record:?}");
        machine.violated(what);
    }
}
