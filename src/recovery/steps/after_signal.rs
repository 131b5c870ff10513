//! From the signal on: the death of the process, the restart by systemd, and whether the core answers
//! again. Like `steps.rs`, it touches the machine only through [`Host`].

use std::time::Duration;

use nix::errno::Errno;
use nix::sys::signal::Signal;

use super::super::facts::MainProcess;
use super::super::machine::Host;
use super::super::stacks::journalctl;
use super::super::systemd::{Unit, longest_restart, runs_start_command, systemctl, units_to_reset};
use super::super::{MainPid, Outcome, UnitReport};
use super::{Run, Step, Target};
use crate::escape::escape;
use crate::manifest::KillSignal;

/// How long processes may take to end on SIGTERM before a line about them is logged.
const SIGTERM_TIME: Duration = Duration::from_millis(1_500);
/// How long a process has to die of SIGKILL.
const DEATH: Duration = Duration::from_secs(10);
/// How long a process has to die of SIGABRT before it gets SIGKILL.
const ABORT: Duration = Duration::from_secs(5);
/// How long a process that dumps core is left alone, from SIGABRT on.
const CORE_DUMP: Duration = Duration::from_secs(60);
/// The time allowed for a restart beyond the unit's own settings.
const RESTART_SLACK: Duration = Duration::from_secs(10);
/// The longest wait for a restart.
const RESTART_CAP: Duration = Duration::from_secs(300);

impl<H: Host> Run<'_, H> {
    /// Sends the signal and waits for the process to die.
    pub(super) fn end(&self, target: &Target<H::Process>) -> Step<()> {
        let (pid, process) = (target.main.pid.get(), &target.main.process);
        match self.context.plan.signal {
            KillSignal::Kill => self.send(target, Some(Signal::SIGKILL))?,
            KillSignal::Abort => {
                self.send(target, Some(Signal::SIGABRT))?;
                if self.dies_of_abort(process) {
                    return Ok(());
                }
                let killed = self.host.signal(process, Some(Signal::SIGKILL));
                if let Err(why) = killed
                    && why != Errno::ESRCH
                {
                    return Err(Outcome::Failed(format!(
                        "process {pid} did not end after SIGABRT, and sending SIGKILL failed: {why}"
                    )));
                }
            }
        }
        if self.host.died_within(process, DEATH) {
            return Ok(());
        }
        let state = match self.host.inspect(process) {
            MainProcess::Alive(vitals) if vitals.status.state == 'D' => {
                " (state D: it waits inside the kernel for a device or a network file system, which no signal ends)".to_owned()
            }
            MainProcess::Alive(vitals) => format!(" (state {})", vitals.status.state),
            MainProcess::None | MainProcess::Gone(_) | MainProcess::Hidden => String::new(),
        };
        Err(Outcome::Failed(format!(
            "process {pid} survived SIGKILL for {} s{state}: \"cat /proc/{pid}/stack\" as root shows what it waits for",
            DEATH.as_secs()
        )))
    }

    fn dies_of_abort(&self, process: &H::Process) -> bool {
        let core_dump_end = self.host.now() + CORE_DUMP;
        let dumps = || matches!(self.host.inspect(process), MainProcess::Alive(vitals) if vitals.status.dumping);
        let mut died = self.host.died_within(process, ABORT);
        while !died && self.host.now() < core_dump_end && dumps() {
            died = self.host.died_within(process, Duration::from_millis(250));
        }
        died || self.host.died_within(process, Duration::ZERO)
    }

    /// Waits for systemd to run a new main process.
    pub(super) fn await_restart(&mut self, target: &Target<H::Process>) -> Step<MainPid> {
        let began = self.host.now();
        let cap = began + RESTART_CAP;
        let bound = |length| (began + length + RESTART_SLACK).min(cap);
        let restart = longest_restart(&target.latest.unit);
        let mut until = bound(restart);
        let mut pause = Duration::from_millis(50);
        let mut logged = false;
        loop {
            let answer = self.host.show(self.context.unit());
            if let Ok(unit) = &answer {
                self.recovery.unit_report = UnitReport::of(self.context.unit(), unit, self.host);
                // The latest observation may show the new process already, where the stacks ended the old one.
                if let Some(new_pid) = self.successor(&target.latest.first().unit, unit) {
                    return Ok(new_pid);
                }
                if has_failed(unit) {
                    return Err(self.not_recovered(None, &self.ended(unit)));
                }
                if runs_start_command(unit) {
                    let start = unit.span("TimeoutStartUSec").unwrap_or(Duration::MAX);
                    until = bound(restart.saturating_add(start));
                }
                let waits = unit.text("SubState") == Ok("stop-sigterm");
                if waits && !logged && self.host.now().since(began) >= SIGTERM_TIME {
                    self.host.log(&format!(
                        "{} still has processes that do not end on SIGTERM, and systemd waits for them up to TimeoutStopSec= before the restart; \
                         KillMode=mixed in the unit would end them at once",
                        self.context.unit()
                    ));
                    logged = true;
                }
            }
            let now = self.host.now();
            if now >= until {
                let state = answer.map_or_else(|why| why, |unit| state(&unit));
                let seconds = until.since(began).as_secs();
                let why = format!("systemd ran no new main process within {seconds} s ({state})");
                return Err(self.not_recovered(None, &why));
            }
            self.host.pause(pause.min(until.since(now)));
            pause = (pause * 2).min(Duration::from_secs(1));
        }
    }

    /// The main process that replaced the killed one. Only the invocation distinguishes the two: the new
    /// process may have the old PID.
    fn successor(&self, old: &Unit, new: &Unit) -> Option<MainPid> {
        let (was, is) = (old.invocation().ok()?, new.invocation().ok()?);
        let pid = new.main_pid().ok()?;
        MainPid::new(pid, self.context.own_pid).filter(|_| was != is)
    }

    pub(super) fn verify(&self, new_pid: MainPid) -> Step<Outcome> {
        let until = self.host.now() + self.context.plan.verify;
        let mut pause = Duration::from_millis(500);
        loop {
            if self.host.core_answers(until) {
                return Ok(Outcome::Recovered { new_pid });
            }
            let now = self.host.now();
            if now >= until {
                break;
            }
            self.host.pause(pause.min(until.since(now)));
            pause = Duration::from_secs(1);
        }
        let why = match self.host.show(self.context.unit()) {
            Ok(unit) if has_failed(&unit) => self.ended(&unit),
            _ => format!(
                "the new main process {} runs, but the core was not healthy within verify_seconds ({})",
                new_pid.get(),
                self.context.plan.verify.as_secs_f64()
            ),
        };
        Err(self.not_recovered(Some(new_pid), &why))
    }

    fn not_recovered(&self, new_pid: Option<MainPid>, why: &str) -> Outcome {
        let journal = journalctl(self.context.plan.scope);
        let journal = format!("{journal} -u {}", self.context.unit());
        let detail = format!("{why}; \"{journal}\" shows more");
        Outcome::NotRecovered { new_pid, detail }
    }

    fn ended(&self, unit: &Unit) -> String {
        let (name, typed) = (self.context.unit(), systemctl(self.context.plan.scope));
        let units = units_to_reset(unit, name).join(" ");
        format!(
            "{name} ended in \"{}\" (Result={}), and systemd does not restart it: \"{typed} reset-failed {units} && {typed} start {units}\" starts it",
            escape(unit.text("ActiveState").unwrap_or("failed")),
            escape(unit.text("Result").unwrap_or("unknown")),
        )
    }
}

/// Whether the unit has failed and no queued job will start it.
fn has_failed(unit: &Unit) -> bool {
    matches!(unit.text("ActiveState"), Ok("failed" | "inactive")) && unit.job() == Ok(None)
}

fn state(unit: &Unit) -> String {
    let active = unit.text("ActiveState").unwrap_or("unknown");
    let sub = unit.text("SubState").unwrap_or("unknown");
    format!("ActiveState={}, SubState={}", escape(active), escape(sub))
}
