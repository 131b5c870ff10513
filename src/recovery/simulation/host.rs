//! Implements [`Host`](super::super::steps::Host) with the simulated world. Each call records the reasons
//! against a signal, derived from the world itself.

use std::time::{Duration, SystemTime};

use nix::sys::signal::Signal;

use super::super::observation::{
    Disturbance, Disturbed, Members, Observation, Owner, Parent, Process, Sockets, TcpFacts, Vitals,
};
use super::super::proc::Status;
use super::super::samples::{connection, in_group, listener, received};
use super::super::socket_log::{Served, Sign};
use super::super::steps::{Host, NotSent};
use super::super::unit::UnitState;
use super::super::{Evidence, FinalProbe, MainPid, dump};
use super::Moment;
use super::watchdog::{Held, Watchdog};
use super::world::{Flaw, OnDump, SignalBehaviour};
use crate::clock::Monotonic;
use crate::manifest::DumpSignal;

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
            // Facts from before this query of systemd are not part of this observation.
            record.against.process = Some("process not observed again");
            record.against.members = Some("members not observed again");
            record.against.sockets = Some("sockets not observed again");
            record.against.probe = Some("final probe not observed again");
            let calls = record.observations;
            record.observations += 1;
            if machine.faults.failing_shows.contains(&calls) {
                record.against.manager = Some("systemctl failed");
                return Err("systemctl is out of order".to_owned());
            }
            record.against.manager = [
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
                 FreezerState={}\nControlGroup=/system.slice/demo.service\nKillMode=control-group\nSendSIGKILL=yes\nTimeoutStopUSec=5s\nRestartUSec=100ms\nNeedDaemonReload=no\n",
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
                Some(Flaw::KillsMainOnly) => ("KillMode=control-group", "KillMode=process"),
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
            record.observations_when_opened = record.observations;
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
            if let Some(left) = machine.faults.slow_inspections.checked_sub(1) {
                machine.faults.slow_inspections = left;
                machine.world.pass(Duration::from_secs(2));
            }
            let world = &machine.world;
            let found = world
                .processes
                .get(&held.number)
                .filter(|process| process.identity == held.identity && !process.zombie);
            machine.records[self.me].against.process = match found {
                None => Some("gone"),
                Some(process) => [
                    (process.outside, "outside of its control group"),
                    (process.kill_pending, "killed already"),
                ]
                .into_iter()
                .find_map(|(holds, what)| holds.then_some(what)),
            };
            found.map_or(Process::Gone("it has died"), |process| {
                Process::Alive(Vitals {
                    state: if process.behaviour == SignalBehaviour::Stuck {
                        'D'
                    } else {
                        'S'
                    },
                    dumping: process.dumping,
                    kill_pending: process.kill_pending,
                    age: world.now.saturating_sub(process.started) + world.suspended,
                    group: Some(if process.outside {
                        "/system.slice/other.service".to_owned()
                    } else {
                        "/system.slice/demo.service".to_owned()
                    }),
                    parent: Parent {
                        pid: 1,
                        group: None,
                    },
                })
            })
        })
    }

    fn members(&self, _: &UnitState) -> Result<Members, String> {
        self.act(|machine| {
            let world = &machine.world;
            let main = world.service.main.and_then(|main| {
                let process = world.processes.get(&main)?;
                let by = [
                    (process.traced, Disturbance::Tracer(7)),
                    (process.dumping, Disturbance::CoreDump),
                ];
                let by = by.into_iter().find_map(|(holds, by)| holds.then_some(by))?;
                Some(Disturbed { pid: main, by })
            });
            let mut workers = world.workers.iter();
            let worker = workers.find(|worker| worker.traced);
            let disturbed = main.or(worker.map(|worker| Disturbed {
                pid: worker.number,
                by: Disturbance::TracingStop,
            }));
            let others = world.workers.len();
            let kept = others > 0 && world.flaw == Some(Flaw::KillsMainOnly);
            machine.records[self.me].against.members = [
                (disturbed.is_some(), "a process is debugged"),
                (kept, "processes left over"),
            ]
            .into_iter()
            .find_map(|(holds, what)| holds.then_some(what));
            Ok(Members {
                others,
                disturbed,
                frozen: None,
                cpu_wait: None,
            })
        })
    }

    fn sockets(&self, _: &UnitState, _: &Process) -> Result<Sockets, String> {
        self.act(|machine| {
            let world = &machine.world;
            let record = &mut machine.records[self.me];
            let mut table = vec![in_group(listener("127.0.0.1:80", 1), 7)];
            let asked = record.asked.filter(|(asked, _)| world.alive(*asked));
            table.extend(asked.map(|(_, reached)| {
                let bytes = if reached { 100 } else { 0 };
                received(in_group(connection(2, 50_000), 7), bytes)
            }));
            let served = world.served.is_some_and(|served| served >= record.began);
            record.against.sockets = [
                (world.foreign, "another unit's listener"),
                (served, "a client was served"),
                (record.asked.is_none(), "no final probe"),
                (
                    record.asked.is_some_and(|(_, reached)| !reached),
                    "the request was dropped",
                ),
            ]
            .into_iter()
            .find_map(|(holds, what)| holds.then_some(what));
            let owner = match world.foreign {
                true => Owner::Foreign("/system.slice/other.service".to_owned()),
                false => Owner::Unit,
            };
            Ok(Sockets::Tcp(TcpFacts {
                table,
                owners: [(7, owner)].into(),
                progress: served.then(|| Sign {
                    client: "127.0.0.1:40000".parse().unwrap(),
                    what: Served::Wrote(5),
                }),
                accepted: None,
                sweep_reached: true,
            }))
        })
    }

    fn evidence(
        &self,
        _: &Held,
        _: &Observation,
        _: &dyn FinalProbe,
        until: Monotonic,
    ) -> Evidence {
        self.act(|machine| {
            let left = until.since(machine.world.at());
            machine.world.pass(left.min(Duration::from_millis(100)));
            machine.change_at(Moment::BeforeTheSecondObservation);
        });
        Evidence::default()
    }

    fn log(&self, line: &str) {
        self.act(|machine| {
            let slow = std::mem::take(&mut machine.faults.slow_log);
            machine.world.pass(slow);
            machine.change_at(Moment::WhileLogging);
            machine.world.service.job |= machine.faults.job_meanwhile;
            let wakes = machine.faults.wakes_meanwhile;
            if let Some(main) = machine.world.main().filter(|_| wakes) {
                main.silent = false;
            }
            let record = &mut machine.records[self.me];
            record.against.probe = Some("final probe not observed again");
            record.log_lines.push(line.to_owned());
        });
    }

    fn signal(&self, held: &Held, signal: Option<Signal>) -> Result<(), NotSent> {
        self.act(|machine| {
            if machine.faults.not_permitted {
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
            let against = record.against.first();
            let blind = record.observations <= record.observations_when_opened;
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
                machine.violated(format!("watchdog {} did not observe again", self.me));
            }
            machine
                .world
                .strike(held.identity, signal == Some(Signal::SIGKILL));
            Ok(())
        })
    }

    fn dump(&self, _: &UnitState, signal: DumpSignal) -> Vec<u32> {
        self.act(|machine| {
            let world = &machine.world;
            let main = world.service.main.and_then(|number| {
                let process = world.processes.get(&number)?;
                let there = !process.zombie && !process.outside;
                there.then_some((number, process.identity, process.on_dump))
            });
            let catches = |on_dump: OnDump| {
                let (caught, blocked) = on_dump.masks();
                dump::catches(&status(caught, blocked), signal)
            };
            let main = main.filter(|(.., on_dump)| catches(*on_dump));
            let workers = world.workers.iter();
            let workers = workers.filter(|worker| catches(worker.on_dump));
            let workers: Vec<_> = workers.collect();
            let deaf = (main.iter().map(|(.., on_dump)| *on_dump))
                .chain(workers.iter().map(|worker| worker.on_dump))
                .any(|on_dump| matches!(on_dump, OnDump::NoHandler | OnDump::Blocked));
            let sent_to: Vec<u32> = (main.iter().map(|(number, ..)| *number))
                .chain(workers.iter().map(|worker| worker.number))
                .collect();
            let record = &mut machine.records[self.me];
            let against = record.against.first();
            record.dumped.clone_from(&sent_to);
            record.dumped_main =
                main.is_some_and(|(_, identity, _)| record.observed == Some(identity));
            if let Some(what) = against {
                machine.violated(format!(
                    "watchdog {} asked for stacks against: {what}",
                    self.me
                ));
            }
            if deaf {
                machine.violated("a process got a dump signal that it does not catch".to_owned());
            }
            if let Some((_, identity, _)) = main {
                machine.world.asked_for_stacks(identity);
            }
            machine.change_at(Moment::WhileDumping);
            sent_to
        })
    }

    fn wall_clock(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + self.act(|machine| machine.world.now)
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

/// What /proc shows of a process that catches or blocks each signal.
fn status(caught: bool, blocked: bool) -> Status {
    let mask = |all: bool| if all { u64::MAX } else { 0 };
    Status {
        parent: 1,
        tracer: 0,
        tracing_stop: false,
        dumping: false,
        kill_pending: false,
        resident: None,
        caught: mask(caught),
        blocked: mask(blocked),
    }
}
