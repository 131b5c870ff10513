//! Implements [`Host`] with the simulated world, and checks each signal.

use std::time::{Duration, SystemTime};

use nix::errno::Errno;
use nix::sys::signal::Signal;

use super::super::cgroup::ControlGroup;
use super::super::evidence::ProcessEvidence;
use super::super::facts::{Group, MainProcess, Member};
use super::super::machine::{GroupPath, Host};
use super::super::sockets::Reading;
use super::super::systemd::Unit;
use super::super::{MainPid, stacks};
use super::faults::Fault;
use super::network::ADDRESS;
use super::readings::{MANAGER, MANAGER_PATH, OTHER, OTHER_PATH, OWN, OWN_PATH};
use super::watchdog::Watchdog;
use super::world::{Mode, OnDumpSignal};
use super::{Machine, Moment, Source};
use crate::clock::Monotonic;
use crate::sweep::ParkedRequest;

/// A pidfd refers to an identity. The PID is for the log.
pub(super) struct Held {
    pid: u32,
    pub(super) identity: u64,
}

impl Machine {
    fn signal(&mut self, me: usize, held: &Held, signal: Option<Signal>) -> Result<(), Errno> {
        if self.world.has(Fault::NotPermitted) {
            return Err(Errno::EPERM);
        }
        if !self.world.alive(held.identity) {
            return Err(Errno::ESRCH);
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

    fn ask_for_stacks(&mut self, me: usize, group: &Group, signal: Signal) -> Vec<u32> {
        let main =
            (self.world.main()).map(|main| (main.identity, main.on_dump_signal, main.zombie));
        let world = &self.world;
        let main = main.filter(|(.., zombie)| !zombie && !world.has(Fault::Outside));
        let pid = world.service.main.unwrap_or(0);
        let now = main.map(|(_, does, _)| (pid, does)).into_iter();
        let now = now.chain(world.workers.iter().copied());
        let catches = |member: &&Member| stacks::catches(member.handled, signal);
        let asked: Vec<(u32, OnDumpSignal)> = (group.members.iter().filter(catches))
            .filter_map(|member| now.clone().find(|(pid, _)| *pid == member.pid))
            .collect();
        let deaf = asked
            .iter()
            .any(|(_, does)| matches!(does, OnDumpSignal::NoHandler | OnDumpSignal::Blocks));
        let asked: Vec<u32> = asked.into_iter().map(|(pid, _)| pid).collect();
        let main = main.filter(|_| asked.contains(&pid));
        let record = &mut self.records[me];
        record.asked.clone_from(&asked);
        record.asked_main = main.map(|(identity, ..)| identity);
        let wrong = record.objection().filter(|_| !asked.is_empty());
        if let Some(wrong) = wrong {
            self.violated(format!("watchdog {me} asked for stacks: {wrong}"));
        }
        if deaf {
            self.violated("a process got a signal that it does not catch".to_owned());
        }
        if let Some((identity, ..)) = main {
            self.world.ask_for_stacks(identity);
        }
        if !asked.is_empty() {
            self.records[me].forget(&[Source::Manager]);
        }
        asked
    }
}

/// The path of a control group.
fn path_of(group: u64) -> Result<String, String> {
    let paths = [
        (OWN, OWN_PATH),
        (OTHER, OTHER_PATH),
        (MANAGER, MANAGER_PATH),
    ];
    let found = paths.into_iter().find(|(id, _)| *id == group);
    let path = found.map(|(_, path)| path.to_owned());
    path.ok_or_else(|| "its group no longer exists".to_owned())
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

    fn open(&self, pid: MainPid) -> Result<Held, Errno> {
        self.act(|machine| {
            if machine.world.has(Fault::OpenFails) {
                return Err(Errno::EMFILE);
            }
            let record = &mut machine.records[self.me];
            record.observations_when_opened = record.observations;
            let pid = pid.get();
            let process = machine.world.processes.get(&pid);
            let identity = process.map(|process| process.identity);
            let note = format!("watchdog {} opens {pid}: #{identity:?}", self.me);
            machine.world.note(note);
            let identity = identity.ok_or(Errno::ESRCH)?;
            Ok(Held { pid, identity })
        })
    }

    fn inspect(&self, held: &Held) -> MainProcess {
        self.act(|machine| machine.inspect(self.me, held))
    }

    fn group(&self, _: &ControlGroup) -> Result<Group, String> {
        self.act(|machine| machine.group(self.me))
    }

    fn read_sockets(&self) -> Result<Reading, String> {
        self.act(|machine| machine.read_sockets(self.me))
    }

    fn groups_of(&self, reading: &Reading, _: &ControlGroup) -> Vec<GroupPath> {
        if matches!(reading, Reading::Tcp { .. }) {
            let ids = reading.rows().iter().filter_map(|row| row.group);
            return ids.map(|id| (Some(id), path_of(id))).collect();
        }
        self.act(|machine| {
            let foreign = !machine.listener_is_own();
            if foreign {
                machine.object(self.me, Source::Sockets, &[(true, "foreign listener")]);
            }
            vec![(None, path_of(machine.listener_group()))]
        })
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
            let record = &mut machine.records[self.me];
            record.log_lines.push(line.to_owned());
            record.forget(&[Source::Parked]);
            machine.change_at(Moment::WhileLogging);
        });
    }

    fn signal(&self, held: &Held, signal: Option<Signal>) -> Result<(), Errno> {
        self.act(|machine| machine.signal(self.me, held, signal))
    }

    fn ask_for_stacks(&self, group: &Group, _: &ControlGroup, signal: Signal) -> Vec<u32> {
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
