//! What a watchdog reads: unit properties, processes and socket tables, made from the world. Each reading records the
//! reasons against a signal, derived from the world itself.

use std::time::Duration;

use super::super::facts::{CpuTimes, Group, MainProcess, Member, Vitals};
use super::super::proc::Status;
use super::super::samples;
use super::super::sockets::Reading;
use super::super::systemd::Unit;
use super::faults::Fault;
use super::host::Held;
use super::world::{Mode, OnDumpSignal, OnSignal};
use super::{Machine, Source};
use crate::sweep::ParkedRequest;

/// The ids of the control groups: the unit's own, another unit's, one that is gone, and the manager's.
pub(super) const OWN: u64 = 7;
pub(super) const OTHER: u64 = 9;
pub(super) const REMOVED: u64 = 11;
pub(super) const MANAGER: u64 = 1;
pub(super) const OWN_PATH: &str = "/system.slice/demo.service";
pub(super) const OTHER_PATH: &str = "/system.slice/other.service";
pub(super) const MANAGER_PATH: &str = "/init.scope";

impl Machine {
    /// The first of these reasons that holds, if any, is the one that `source` now has against a signal.
    pub(super) fn object(&mut self, me: usize, source: Source, reasons: &[(bool, &'static str)]) {
        let mut reasons = reasons.iter().filter(|(holds, _)| *holds);
        self.records[me].against[source as usize] = reasons.next().map(|(_, what)| *what);
    }

    pub(super) fn show(&mut self, me: usize) -> Result<Unit, String> {
        let world = &self.world;
        let service = &world.service;
        let record = &mut self.records[me];
        let identity = (service.main, service.invocation);
        let first = *record.first.get_or_insert(identity);
        let calls = record.observations;
        record.observations += 1;
        record.shown = None;
        // Facts from before this question are not part of this observation.
        record.forget(&[
            Source::Process,
            Source::Group,
            Source::Sockets,
            Source::Parked,
        ]);
        let printed = |fault: &Fault| match fault {
            Fault::Setting(text) | Fault::WorkersSetting(text) => Some(*text),
            _ => None,
        };
        let is_setting = |fault: &Fault| matches!(fault, Fault::Setting(_));
        let settings = world
            .faults
            .iter()
            .filter_map(printed)
            .flat_map(|text| text.split(';'));
        let settings = settings.filter_map(|text| text.split_once('='));
        record.needs_no_workers =
            (world.faults.iter()).any(|fault| matches!(fault, Fault::WorkersSetting(_)));
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
            (world.faults.iter().any(is_setting), "a setting"),
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
            .chain(settings)
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

    pub(super) fn inspect(&mut self, me: usize, held: &Held) -> MainProcess {
        let world = &mut self.world;
        let age = |started| world.now.saturating_sub(started) + world.suspended;
        let mut processes = world.processes.values();
        let found = processes.find(|process| process.identity == held.identity && !process.zombie);
        let (outside, hidden) = (world.has(Fault::Outside), world.has(Fault::Hidden));
        let stuck = world.has(Fault::Uninterruptible)
            || found.is_some_and(|process| process.on_signal == OnSignal::Survives);
        let adopted = world.has(Fault::Adopted);
        let vitals = found.map(|process| Vitals {
            age: age(process.started),
            status: Status {
                state: if stuck { 'D' } else { 'S' },
                parent: if adopted { 7 } else { process.parent },
                dumping: process.dumping,
                kill_pending: process.kill_pending,
                ..samples::status()
            },
            group: Some(if outside { OTHER_PATH } else { OWN_PATH }.to_owned()),
            parent_group: Some(MANAGER_PATH.to_owned()),
        });
        let was_stuck = *self.records[me].first_stuck.get_or_insert(stuck);
        let holds = |condition: fn(&Vitals) -> bool| vitals.as_ref().is_some_and(condition);
        let reasons = [
            (vitals.is_none(), "gone"),
            (hidden, "hidden"),
            (outside, "outside of its control group"),
            (holds(|vitals| vitals.status.kill_pending), "killed already"),
            (
                holds(|vitals| vitals.status.parent != 1),
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

    pub(super) fn group(&mut self, me: usize) -> Result<Group, String> {
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
            (true, _) => Some("is traced by process 5".to_owned()),
            (false, dumps) => dumps.then(|| "is dumping core".to_owned()),
        };
        let mut members: Vec<_> = (world.workers.iter())
            .map(|worker| member(worker.0, worker.1, None))
            .collect();
        let worker_traced = world.has(Fault::WorkerTraced) && !members.is_empty();
        if let Some(worker) = members.first_mut().filter(|_| worker_traced) {
            worker.disturbance = Some("is held by a tracer (state t)".to_owned());
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
    pub(super) fn listener_group(&self) -> u64 {
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
    pub(super) fn listener_is_own(&self) -> bool {
        let activated = self.world.activated;
        self.listener_group() == if activated { MANAGER } else { OWN }
    }

    pub(super) fn read_sockets(&mut self, me: usize) -> Result<Reading, String> {
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
        Ok(network.reading(group, self.world.now))
    }

    pub(super) fn parked(&mut self, me: usize) -> Vec<ParkedRequest> {
        let world = &self.world;
        let requests = || self.records[me].requests.iter();
        let objection = requests().find_map(|request| request.objection(world));
        let shown = requests().map(|request| request.shown(world)).collect();
        let reasons = [(objection.is_some(), objection.unwrap_or_default())];
        self.object(me, Source::Parked, &reasons);
        shown
    }
}

fn member(pid: u32, on_dump_signal: OnDumpSignal, disturbance: Option<String>) -> Member {
    let is_deaf = matches!(
        on_dump_signal,
        OnDumpSignal::NoHandler | OnDumpSignal::Blocks
    );
    Member {
        pid,
        handled: if is_deaf { 0 } else { u64::MAX },
        disturbance,
    }
}
