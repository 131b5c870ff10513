//! Implements [`Host`] with the simulated world. Each call records the reasons against a signal, derived from the
//! world itself.

use std::collections::HashSet;
use std::time::{Duration, SystemTime};

use nix::sys::signal::Signal;

use super::super::cgroup::ControlGroup;
use super::super::evidence::ProcessEvidence;
use super::super::facts::{
    CpuTimes, Disturbance, Group, MainProcess, Member, Parent, Signals, Vitals,
};
use super::super::host::{Host, NotSent};
use super::super::sockets::owners::Owner;
use super::super::sockets::reader::Reading;
use super::super::sockets::unix::UnixListener;
use super::super::systemd::Unit;
use super::super::{MainPid, samples, stacks};
use super::network::ADDRESS;
use super::watchdog::Watchdog;
use super::world::{Fault, Mode, OnDumpSignal, OnSignal, SETTINGS, WITH_WORKERS, Worker};
use super::{Machine, Moment, Source};
use crate::clock::Monotonic;
use crate::manifest::DumpSignal;
use crate::sweep::ParkedRequest;

/// The ids of the control groups: the unit's own, another unit's, one that is gone, and the manager's.
const OWN: u64 = 7;
const OTHER: u64 = 9;
const REMOVED: u64 = 11;
const MANAGER: u64 = 1;
const OWN_PATH: &str = "/system.slice/demo.service";
const OTHER_PATH: &str = "/system.slice/other.service";
const MANAGER_PATH: &str = "/init.scope";

/// A pidfd refers to an identity. The PID is for the log.
pub(super) struct Held {
    pid: u32,
    identity: u64,
}

impl Machine {
    /// The first of these reasons that holds, if any, is the one that `source` now has against a signal.
    fn object(&mut self, me: usize, source: Source, reasons: &[(bool, &'static str)]) {
        let mut reasons = reasons.iter().filter(|(holds, _)| *holds);
        self.records[me].against[source as usize] = reasons.next().map(|(_, what)| *what);
    }

    fn show(&mut self, me: usize) -> Result<Unit, String> {
        let world = &self.world;
        let service = &world.service;
        let record = &mut self.records[me];
        let identity = (service.main, service.invocation);
        let first = *record.first.get_or_insert(identity);
        let calls = record.observations;
        record.observations += 1;
        record.shown = None;
        // Facts from before this question are not part of this observation.
        for source in [
            Source::Process,
            Source::Group,
            Source::Sockets,
            Source::Parked,
        ] {
            record.against[source as usize] = Some("not observed again");
        }
        let settings = world.faults.iter().filter_map(|fault| match fault {
            Fault::Setting(number) => Some(*number),
            _ => None,
        });
        let settings: Vec<usize> = settings.collect();
        let needs_workers = |number: &usize| *number >= SETTINGS.len() - WITH_WORKERS;
        record.needs_no_workers = settings.iter().any(needs_workers);
        let age = |since: Duration| world.now.saturating_sub(since);
        let fails = world.has(Fault::ShowFails) || self.script.failing_shows.contains(&calls);
        let reasons = [
            (fails, "systemctl failed"),
            (service.active != "active", "not active"),
            (service.main.is_none(), "no main process"),
            (age(service.started) < record.min_uptime, "too young"),
            (age(service.state_changed) < record.min_uptime, "reloaded"),
            (service.started > record.began, "restarted"),
            (identity != first, "changed"),
            (
                !settings.iter().all(needs_workers),
                "a setting, or an unknown one",
            ),
        ];
        let text = [
            ("ActiveState", service.active.to_owned()),
            ("SubState", service.sub.to_owned()),
            ("Result", "start-limit-hit".to_owned()),
            ("MainPID", service.main.unwrap_or(0).to_string()),
            ("InvocationID", format!("{:032x}", service.invocation)),
            (
                "ExecMainStartTimestampMonotonic",
                service.started.as_micros().to_string(),
            ),
            (
                "StateChangeTimestampMonotonic",
                service.state_changed.as_micros().to_string(),
            ),
            ("TimeoutStopUSec", "5s".to_owned()),
            ("TimeoutStartUSec", "30s".to_owned()),
        ];
        let socket = world.activated.then_some(("TriggeredBy", "demo.socket"));
        let changes: Vec<_> = (text.iter().map(|(name, value)| (*name, value.as_str())))
            .chain(socket)
            .chain(
                settings
                    .iter()
                    .flat_map(|number| SETTINGS[*number])
                    .copied(),
            )
            .collect();
        let text = samples::show(&changes);
        let note = format!("watchdog {me} sees {identity:?}, {}", service.active);
        self.object(me, Source::Manager, &reasons);
        self.world.note(note);
        if fails {
            return Err("systemctl is out of order".to_owned());
        }
        Ok(Unit::parse(text.as_bytes()).unwrap())
    }

    fn inspect(&mut self, me: usize, held: &Held) -> MainProcess {
        let world = &mut self.world;
        let age = |started| world.now.saturating_sub(started) + world.suspended;
        let mut processes = world.processes.values();
        let found = processes.find(|process| process.identity == held.identity && !process.zombie);
        let (outside, hidden) = (world.has(Fault::Outside), world.has(Fault::Hidden));
        let stuck = world.has(Fault::Uninterruptible)
            || found.is_some_and(|process| process.on_signal == OnSignal::Survives);
        let vitals = found.map(|process| Vitals {
            state: if stuck { 'D' } else { 'S' },
            dumping: process.dumping,
            kill_pending: process.kill_pending,
            age: age(process.started),
            group: Some(if outside { OTHER_PATH } else { OWN_PATH }.to_owned()),
            parent: Parent {
                pid: process.parent,
                group: Some(MANAGER_PATH.to_owned()),
            },
        });
        let was_stuck = *self.records[me].first_stuck.get_or_insert(stuck);
        let holds = |condition: fn(&Vitals) -> bool| vitals.as_ref().is_some_and(condition);
        let reasons = [
            (vitals.is_none(), "gone"),
            (hidden, "hidden"),
            (outside, "outside of its control group"),
            (holds(|vitals| vitals.kill_pending), "killed already"),
            (
                holds(|vitals| vitals.parent.pid != 1),
                "no child of the manager",
            ),
            (stuck && was_stuck, "uninterruptible"),
        ];
        self.object(me, Source::Process, &reasons);
        match vitals {
            None => MainProcess::Gone("it has died"),
            Some(_) if hidden => MainProcess::Hidden,
            Some(vitals) => MainProcess::Alive(vitals),
        }
    }

    fn group(&mut self, me: usize) -> Result<Group, String> {
        for _ in 0..self.script.slow_groups.min(1) {
            self.script.slow_groups -= 1;
            self.world.pass(Duration::from_secs(2));
        }
        let world = &self.world;
        let main = (world.service.main)
            .and_then(|pid| Some((pid, world.processes.get(&pid)?)))
            .filter(|_| !world.has(Fault::Outside));
        let dumps = main.is_some_and(|(_, main)| main.dumping);
        let traced = world.has(Fault::Traced) && main.is_some();
        let disturbance = match (traced, dumps) {
            (true, _) => Some(Disturbance::Tracer(5)),
            (false, dumps) => dumps.then_some(Disturbance::CoreDump),
        };
        let mut members: Vec<_> = (world.workers.iter())
            .map(|worker| member(worker.pid, worker.on_dump_signal, None))
            .collect();
        let worker_traced = world.has(Fault::WorkerTraced) && !members.is_empty();
        if let Some(worker) = members.first_mut().filter(|_| worker_traced) {
            worker.disturbance = Some(Disturbance::TracingStop);
        }
        members.extend(main.map(|(pid, main)| member(pid, main.on_dump_signal, disturbance)));
        let frozen = world.has(Fault::FrozenGroup);
        let fails = world.has(Fault::GroupFails);
        let record = &mut self.records[me];
        let first_read = *record.first_group.get_or_insert(world.now);
        let no_cpu = world.has(Fault::NoCpu) && world.no_cpu_since <= first_read;
        let reasons = [
            (fails, "unreadable control group"),
            (traced || worker_traced || dumps, "traced, or dumping core"),
            (frozen, "frozen"),
            (no_cpu && world.now > first_read, "no CPU"),
            (
                record.needs_no_workers && !world.workers.is_empty(),
                "the restart needs other processes to end",
            ),
        ];
        let group = Group {
            ids: [OWN].into(),
            members,
            frozen: frozen.then(|| format!("{OWN_PATH}/below")),
            cpu: Some(CpuTimes {
                at: world.at(),
                waited: world.cpu.0,
                used: world.cpu.1,
            }),
        };
        self.object(me, Source::Group, &reasons);
        if fails {
            return Err("permission denied".to_owned());
        }
        Ok(group)
    }

    /// The control group that created the listener.
    fn listener_group(&self) -> u64 {
        let faults = [
            (Fault::Foreign, OTHER),
            (Fault::Removed, REMOVED),
            (Fault::Systemd, MANAGER),
        ];
        let fault = faults.into_iter().find(|(fault, _)| self.world.has(*fault));
        let regular = if self.world.activated { MANAGER } else { OWN };
        fault.map_or(regular, |(_, group)| group)
    }

    /// Whether the listener is the unit's own.
    fn listener_is_own(&self) -> bool {
        let activated = self.world.activated;
        self.listener_group() == if activated { MANAGER } else { OWN }
    }

    pub(super) fn read_sockets(&mut self, me: usize, connections: bool) -> Result<Reading, String> {
        let world = &self.world;
        let fails = world.has(Fault::TableFails);
        let serves = world.mode() == Some(Mode::Serves);
        let record = &mut self.records[me];
        if !fails {
            record.queue_seen.record(world);
        }
        let requests = || record.requests.iter();
        let reasons = [
            (fails, "unreadable socket table"),
            (
                !requests().any(|request| request.proves_arrival(world)),
                "not reached",
            ),
            (
                requests().any(|request| request.is_withheld(world)),
                "answered, but the answer was dropped",
            ),
            (record.queue_seen.moved, "the accept queue moved"),
            (serves && world.network.filter.is_none(), "it serves"),
            (!self.listener_is_own(), "foreign listener"),
        ];
        self.object(me, Source::Sockets, &reasons);
        if fails {
            return Err("EAGAIN".to_owned());
        }
        let group = self.listener_group();
        let network = &self.world.network;
        Ok(network.reading(connections, group, self.world.now))
    }

    fn parked(&mut self, me: usize) -> Vec<ParkedRequest> {
        let world = &self.world;
        let requests = || self.records[me].requests.iter();
        let objection = requests().find_map(|request| request.objection(world));
        let shown = requests().map(|request| request.shown(world)).collect();
        let reasons = [(objection.is_some(), objection.unwrap_or_default())];
        self.object(me, Source::Parked, &reasons);
        shown
    }

    fn signal(&mut self, me: usize, held: &Held, signal: Option<Signal>) -> Result<(), NotSent> {
        if self.world.has(Fault::NotPermitted) {
            return Err(NotSent::Refused("EPERM".to_owned()));
        }
        if !self.world.alive(held.identity) {
            return Err(NotSent::Gone);
        }
        let Some(signal) = signal else {
            return Ok(());
        };
        self.world.note(format_args!(
            "watchdog {me} signals #{} ({}): {signal:?}",
            held.identity, held.pid
        ));
        let began = self.records[me].began;
        let process = self.world.find(held.identity).unwrap();
        let observed = process
            .appointed
            .is_some_and(|appointed| appointed <= began);
        let record = &mut self.records[me];
        record.signals.push(signal);
        let wrong = match (&*record.signals, record.victim) {
            _ if !observed => Some("a process whose hang its sweep has not observed".to_owned()),
            ([_], _) => record.objection(),
            ([Signal::SIGABRT, Signal::SIGKILL], Some(victim)) if victim == held.identity => None,
            _ => Some("a second time".to_owned()),
        };
        record.victim = Some(held.identity);
        if let Some(wrong) = wrong {
            self.violated(format!("watchdog {me} signalled: {wrong}"));
        }
        self.world.strike(held.identity, signal == Signal::SIGKILL);
        Ok(())
    }

    fn ask_for_stacks(&mut self, me: usize, group: &Group, signal: DumpSignal) -> Vec<u32> {
        let world = &self.world;
        let main = world.service.main.filter(|_| !world.has(Fault::Outside));
        let main = main.and_then(|pid| Some((pid, world.processes.get(&pid)?)));
        let main = main.filter(|(_, main)| !main.zombie);
        let now = (world.workers.iter().copied()).chain(main.map(|(pid, main)| Worker {
            pid,
            on_dump_signal: main.on_dump_signal,
        }));
        let now: Vec<Worker> = now.collect();
        let asked = group.members.iter().filter(|member| {
            stacks::catches(member.signals, signal) && now.iter().any(|now| now.pid == member.pid)
        });
        let asked: Vec<u32> = asked.map(|member| member.pid).collect();
        let deaf = (now.iter()).any(|now| {
            let deaf = matches!(
                now.on_dump_signal,
                OnDumpSignal::NoHandler | OnDumpSignal::Blocks
            );
            deaf && asked.contains(&now.pid)
        });
        let main = main.filter(|(pid, _)| asked.contains(pid));
        let main = main.map(|(_, main)| (main.identity, main.appointed));
        let record = &mut self.records[me];
        record.asked.clone_from(&asked);
        record.asked_main = main.map(|(identity, _)| identity);
        let wrong = record.objection().filter(|_| !asked.is_empty());
        if let Some(wrong) = wrong {
            self.violated(format!("watchdog {me} asked for stacks: {wrong}"));
        }
        if deaf {
            self.violated("a process got a signal that it does not catch".to_owned());
        }
        if let Some((identity, _)) = main {
            self.world.ask_for_stacks(identity);
        }
        asked
    }
}

impl Host for Watchdog {
    type Process = Held;

    fn now(&self) -> Monotonic {
        self.act(|machine| {
            let now = machine.world.at();
            machine.records[self.me].clock_read(now);
            now
        })
    }

    fn wall_clock(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + self.act(|machine| machine.world.now)
    }

    fn pause(&self, length: Duration) {
        self.sleep(length);
    }

    fn show(&self, _: &str) -> Result<Unit, String> {
        self.act(|machine| machine.show(self.me))
    }

    fn neighbours(&self, _: &Unit) -> Result<Vec<Unit>, String> {
        self.act(|machine| {
            let fails = machine.world.has(Fault::NeighboursFail);
            machine.object(self.me, Source::Neighbours, &[(fails, "unreadable neighbours")]);
            if fails {
                return Err("systemctl is out of order".to_owned());
            }
            let text = format!(
                "Id=db.service\nLoadState=loaded\nActiveState=failed\n\n\
                 Id=demo.socket\nLoadState=loaded\nActiveState=active\nListen={ADDRESS} (Stream)\nListen=/run/demo.sock (Stream)\n"
            );
            Ok(Unit::parse_all(text.as_bytes()).unwrap())
        })
    }

    fn missing_path(&self, _: &Unit) -> Option<String> {
        None
    }

    fn open(&self, pid: MainPid) -> Result<Option<Held>, String> {
        self.act(|machine| {
            if machine.world.has(Fault::OpenFails) {
                return Err("cannot open a pidfd".to_owned());
            }
            let record = &mut machine.records[self.me];
            record.observations_when_opened = record.observations;
            let pid = pid.get();
            let process = machine.world.processes.get(&pid);
            let identity = process.map(|process| process.identity);
            let note = format!("watchdog {} opens {pid}: #{identity:?}", self.me);
            machine.world.note(note);
            Ok(identity.map(|identity| Held { pid, identity }))
        })
    }

    fn inspect(&self, held: &Held) -> MainProcess {
        self.act(|machine| machine.inspect(self.me, held))
    }

    fn group(&self, _: &ControlGroup) -> Result<Group, String> {
        self.act(|machine| machine.group(self.me))
    }

    fn group_ids(&self, group: &ControlGroup) -> Result<HashSet<u64>, String> {
        let is_manager = group.as_str() == MANAGER_PATH;
        Ok(is_manager.then_some(MANAGER).into_iter().collect())
    }

    fn path_of_group(&self, id: u64) -> Result<Option<String>, String> {
        Ok(match id {
            OTHER => Some(OTHER_PATH.to_owned()),
            MANAGER => Some(MANAGER_PATH.to_owned()),
            _ => None,
        })
    }

    fn read_sockets(&self, connections: bool) -> Result<Reading, String> {
        self.act(|machine| machine.read_sockets(self.me, connections))
    }

    fn unix_owner(
        &self,
        _: &ControlGroup,
        _: Option<&ControlGroup>,
        _: &[UnixListener],
    ) -> (String, Result<Owner, String>) {
        let owner = self.act(|machine| {
            let foreign = !machine.listener_is_own();
            if foreign {
                machine.object(self.me, Source::Sockets, &[(true, "foreign listener")]);
            }
            match machine.listener_group() {
                OWN => Owner::Unit,
                MANAGER => Owner::Manager(Vec::new()),
                _ => Owner::Foreign(OTHER_PATH.to_owned()),
            }
        });
        ("/run/demo.sock".to_owned(), Ok(owner))
    }

    fn parked(&self) -> Vec<ParkedRequest> {
        self.act(|machine| machine.parked(self.me))
    }

    fn processes(&self, _: MainPid, _: &Group, until: Monotonic) -> Vec<ProcessEvidence> {
        let left = self.act(|machine| until.since(machine.world.at()));
        self.sleep(left.min(Duration::from_millis(100)));
        self.act(|machine| machine.change_at(Moment::BeforeTheSecondObservation));
        Vec::new()
    }

    fn log(&self, line: &str) {
        self.act(|machine| {
            machine.records[self.me].log_lines.push(line.to_owned());
            machine.change_at(Moment::WhileLogging);
        });
    }

    fn signal(&self, held: &Held, signal: Option<Signal>) -> Result<(), NotSent> {
        self.act(|machine| machine.signal(self.me, held, signal))
    }

    fn ask_for_stacks(&self, group: &Group, _: &ControlGroup, signal: DumpSignal) -> Vec<u32> {
        self.act(|machine| {
            let asked = machine.ask_for_stacks(self.me, group, signal);
            machine.change_at(Moment::WhileAsking);
            asked
        })
    }

    fn died_within(&self, held: &Held, at_most: Duration) -> bool {
        let until = self.act(|machine| machine.world.now) + at_most;
        loop {
            let (dead, left) = self.act(|machine| {
                let world = &machine.world;
                (!world.alive(held.identity), until.saturating_sub(world.now))
            });
            if dead || left.is_zero() {
                return dead;
            }
            self.sleep(left.min(Duration::from_millis(250)));
        }
    }

    fn core_answers(&self, until: Monotonic) -> bool {
        let (answers, left) = self.act(|machine| {
            let answers = machine.world.mode() == Some(Mode::Serves);
            (answers, until.since(machine.world.at()))
        });
        let takes = Duration::from_millis(if answers { 1 } else { 500 });
        self.sleep(takes.min(left));
        answers
    }
}

fn member(pid: u32, on_dump_signal: OnDumpSignal, disturbance: Option<Disturbance>) -> Member {
    let (caught, blocked) = match on_dump_signal {
        OnDumpSignal::NoHandler => (0, 0),
        OnDumpSignal::Blocks => (u64::MAX, u64::MAX),
        _ => (u64::MAX, 0),
    };
    Member {
        pid,
        signals: Signals { caught, blocked },
        disturbance,
    }
}
