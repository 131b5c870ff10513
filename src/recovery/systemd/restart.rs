//! What systemd does once a signal has ended the main process of a service: whether it restarts the unit, and
//! what else it does then, as far as the unit's own settings decide. Pure.
//! The rules are those of systemd's src/core/service.c: service_sigchld_event(), service_enter_running(),
//! service_enter_dead(), service_shall_restart(), and of its unit.c: unit_trigger_emergency_actions.

use std::time::Duration;

use super::super::guards::{Answer, refuse};
use super::dependencies;
use super::systemctl::systemctl;
use super::unit::{Property, Unit, ignores_failure, span};
use crate::clock::Monotonic;
use crate::escape::escape;
use crate::manifest::{KillSignal, RecoveryPlan};

/// How a recovery with `signal` may end the main process: the last signal, as systemd prints it, and whether there is a
/// core dump, which cannot be known. A process that survives SIGABRT gets SIGKILL.
const fn possible_ends(signal: KillSignal) -> &'static [(&'static str, bool)] {
    match signal {
        KillSignal::Kill => &[("KILL", false)],
        KillSignal::Abort => &[("ABRT", false), ("ABRT", true), ("KILL", false)],
    }
}

/// What decides whether a kill of the main process ends in a restart.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RestartFacts<'a> {
    pub(crate) plan: &'a RecoveryPlan,
    pub(crate) unit: &'a Unit,
    /// How many processes the unit has beside the main one.
    pub(crate) others: usize,
    /// The units that its dependencies name: [`super::Systemctl::neighbours`].
    pub(crate) neighbours: &'a [Unit],
    pub(crate) now: Monotonic,
}

impl RestartFacts<'_> {
    /// Refuses where a kill would not end in a restart, or would take down something else.
    pub(crate) fn no_restart(&self) -> Answer {
        for &(signal, dumps_core) in possible_ends(self.plan.signal) {
            let success = self.counts_as_success(signal, dumps_core)?;
            self.not_restarted(signal, success.as_deref())?;
            self.emergency(success.is_some())?;
        }
        dependencies::no_restart(self)?;
        self.start_limit()
    }

    /// What a kill takes along, or what nobody can foresee, although systemd restarts the unit.
    pub(crate) fn restart_warnings(&self) -> Vec<String> {
        let name = &self.plan.unit;
        let mut warnings = dependencies::dependents_left(self);
        let action = self.unit.value("StartLimitAction").unwrap_or("none");
        if action != "none" {
            let (does, limit, action) = (what_action_does(action), self.limit(), escape(action));
            warnings.push(format!(
                "StartLimitAction={action} of {name} {does}, once a kill is the start too many ({limit})"
            ));
        }
        if self.unit.is_set("ExecCondition") {
            warnings.push(format!(
                "systemd checks ExecCondition= of {name} again at a restart: if it no longer holds, a kill is not followed by one"
            ));
        }
        warnings
    }

    /// Whether the unit stays in a stopping state after the death of its main process. Only then can a stop of
    /// another unit come back to it.
    pub(super) fn stops_slowly(&self) -> Property<bool> {
        Ok(self.unit.is_set("ExecStopPost")
            || self.others > 0 && matches!(self.kill_mode()?, "control-group" | "mixed"))
    }

    /// `RestartMode=direct`: the restart is invisible to other units.
    pub(super) fn restarts_directly(&self) -> bool {
        self.unit.value("RestartMode") == Some("direct")
    }

    fn refuse_setting(&self, why: &str) -> Answer {
        let (typed, unit) = (systemctl(self.plan.scope), &self.plan.unit);
        refuse(format!("{why}: correct it with \"{typed} edit {unit}\""))
    }

    fn kill_mode(&self) -> Property<&str> {
        let known = "control-group mixed process none";
        self.unit.parsed("KillMode", one_of(known))
    }

    /// Whether systemd restarts the service after `signal`. `success`: why that counts as a success, if it does.
    fn not_restarted(&self, signal: &str, success: Option<&str>) -> Answer {
        let (unit, name) = (self.unit, &self.plan.unit);
        let refuse = |why: &str| {
            self.refuse_setting(&format!(
            "systemd would not restart {name} after SIG{signal} ({why}), so a kill would turn a hang into an outage"
        ))
        };
        // It is unknown which of its processes will be left.
        if unit.parsed_or("ExitType", "main", one_of("main cgroup"))? == "cgroup" {
            return refuse("ExitType=cgroup waits for all other processes, too");
        }
        let known = "no always on-success on-failure on-abnormal on-abort on-watchdog";
        let restart = unit.parsed("Restart", one_of(known))?;
        if self.others > 0
            && let Some(why) = self.others_block(restart)?
        {
            return refuse(&why);
        }
        let remains = unit.parsed_or("RemainAfterExit", "no", one_of("yes no"))? == "yes";
        if remains && let Some(why) = success {
            return refuse(&format!("RemainAfterExit=yes, and {why}"));
        }
        if self.list_names("RestartPreventExitStatus", signal)? {
            return refuse(&format!("RestartPreventExitStatus= names SIG{signal}"));
        }
        if unit.value("RestartUSec") == Some("infinity") {
            return refuse("RestartSec=infinity never ends");
        }
        if self.list_names("RestartForceExitStatus", signal)? {
            return Ok(());
        }
        let setting = format!("Restart={restart}");
        match (restart, success) {
            ("on-success", Some(_)) if unit.is_set("ExecStopPost") => refuse(&format!(
                "with {setting} the way ExecStopPost= exits decides"
            )),
            ("always", _)
            | ("on-failure" | "on-abnormal" | "on-abort", None)
            | ("on-success", Some(_)) => Ok(()),
            ("on-failure" | "on-abnormal" | "on-abort", Some(why)) => {
                refuse(&format!("{setting}, and {why}"))
            }
            _ => refuse(&setting),
        }
    }

    /// Why the processes beside the main one may keep systemd from restarting the unit, if they may:
    /// enter_signal() and unit_kill_context() of src/core/service.c and unit.c.
    fn others_block(&self, restart: &str) -> Property<Option<String>> {
        let mode = self.kill_mode()?;
        let forever = self.unit.span("TimeoutStopUSec")? == Duration::MAX;
        let setting = if matches!(mode, "process" | "none") {
            format!("KillMode={mode} leaves them running")
        } else if !self.unit.flag("SendSIGKILL")? {
            "SendSIGKILL=no waits for them as long as they ignore SIGTERM".to_owned()
        } else if mode == "control-group" && forever {
            "TimeoutStopSec=infinity waits for them as long as they ignore SIGTERM".to_owned()
        } else if restart == "on-success" {
            "with Restart=on-success the way they exit decides".to_owned()
        } else {
            return Ok(None);
        };
        let left = match self.others {
            1 => "another process of the unit is left".to_owned(),
            more => format!("{more} other processes of the unit are left"),
        };
        Ok(Some(format!("{left}, and {setting}")))
    }

    /// Why systemd counts an end by `signal` as a success, if it does. A core dump is one only with "-":
    /// is_clean_exit() in systemd's src/shared/exit-status.c.
    fn counts_as_success(&self, signal: &str, dumps_core: bool) -> Property<Option<String>> {
        if self.ignores_failure()? {
            let why = "the \"-\" in ExecStart= turns every failure into a success";
            return Ok(Some(why.to_owned()));
        }
        let listed = self.list_names("SuccessExitStatus", signal)?;
        Ok((listed && !dumps_core).then(|| format!("SuccessExitStatus= names SIG{signal}")))
    }

    /// Whether the property, a list of exit statuses (numbers) and signals (names), names `signal`. Other text, such as
    /// the `[unprintable]` of systemctl, is invalid, since it may hide a list that does.
    fn list_names(&self, property: &str, signal: &str) -> Property<bool> {
        let printed = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || "+- ".contains(c);
        let is_signal = |word: &str| word.strip_prefix("SIG").unwrap_or(word) == signal;
        self.unit.parsed(property, |text| {
            let list = text.chars().all(printed).then_some(text)?;
            Some(list.split(' ').any(is_signal))
        })
    }

    /// Whether `ExecStart=` begins with `-`. A service with a main process has a command, and systemd prints it.
    /// Only Type=oneshot can have several, and it has no main process once it is active.
    fn ignores_failure(&self) -> Property<bool> {
        let ignores = self.unit.parsed_or("ExecStart", false, ignores_failure)?;
        let differs = |command: &String| ignores_failure(command) != Some(ignores);
        if self.unit.values("ExecStart").iter().any(differs) {
            return Err("systemctl reported ExecStart= both with and without \"-\"".to_owned());
        }
        Ok(ignores)
    }

    /// Refuses if the failure, or the `success`, itself sets off more than the restart.
    fn emergency(&self, success: bool) -> Answer {
        if self.restarts_directly() {
            return Ok(());
        }
        let (unit, name) = (self.unit, &self.plan.unit);
        // The other processes and ExecStopPost= may still turn a success into a failure.
        let failure = !success || self.others > 0 || unit.is_set("ExecStopPost");
        // systemd before 254, which has no RestartMode=, does this at every automatic restart.
        let counts = success || unit.value("RestartMode").is_none();
        for (possible, setting) in [(failure, "FailureAction"), (counts, "SuccessAction")] {
            let action = unit.text(setting)?;
            if possible && action != "none" {
                let (does, action) = (what_action_does(action), escape(action));
                return self.refuse_setting(&format!(
                    "{setting}={action} of {name} {does}, although systemd would restart the unit"
                ));
            }
        }
        for (possible, setting) in [(failure, "OnFailure"), (success, "OnSuccess")] {
            let isolates = unit.value(&format!("{setting}JobMode")) == Some("isolate");
            if possible
                && isolates
                && let Some(target) = unit.list(setting).next()
            {
                return self.refuse_setting(&format!(
                    "a kill of {name} would start {} ({setting}=) and stop everything else ({setting}JobMode=isolate)",
                    escape(target)
                ));
            }
        }
        Ok(())
    }

    /// Refuses if the start limit certainly forbids the restart.
    fn start_limit(&self) -> Answer {
        let unit = self.unit;
        let interval = unit.span("StartLimitIntervalUSec")?;
        let burst: u32 = unit.parsed("StartLimitBurst", |text| text.parse().ok())?;
        if burst != 1 || interval.is_zero() {
            return Ok(());
        }
        let started = unit.moment("ExecMainStartTimestampMonotonic")?;
        let age = self.now.since(started);
        if age >= interval {
            return Ok(());
        }
        let (name, limit, seconds) = (&self.plan.unit, self.limit(), age.as_secs());
        self.refuse_setting(&format!(
            "systemd would not restart {name}: {limit}, and the last start was {seconds} s ago"
        ))
    }

    fn limit(&self) -> String {
        let value = |name| escape(self.unit.value(name).unwrap_or("unknown"));
        let (burst, interval) = (value("StartLimitBurst"), value("StartLimitIntervalUSec"));
        format!("StartLimitBurst={burst} in StartLimitIntervalSec={interval}")
    }
}

/// The consequence of a `FailureAction=` or the like, systemd.unit(5).
fn what_action_does(action: &str) -> &'static str {
    match action.split('-').next() {
        Some("reboot" | "kexec") => "would reboot the machine",
        Some("poweroff" | "halt") => "would switch the machine off",
        Some("soft") => "would restart all of user space",
        Some("exit") => "would end the service manager",
        _ => "would act on the whole machine",
    }
}

/// After a start limit, the units that need `systemctl reset-failed`: a `.socket` fails with its service.
pub(crate) fn units_to_reset<'a>(unit: &'a Unit, name: &'a str) -> Vec<&'a str> {
    let sockets = unit.triggered_by(".socket");
    [name].into_iter().chain(sockets).collect()
}

/// How long it takes from the death of the main process to the next start: stopping the remaining processes, and the
/// pause. The longest `Duration` if that may take for ever, or cannot be known.
pub(crate) fn longest_restart(unit: &Unit) -> Duration {
    let known = |length: Property<Duration>| length.unwrap_or(Duration::MAX);
    let optional = |name| known(unit.parsed_or(name, Duration::ZERO, span));
    // With RestartSteps=, since systemd 254, the next pause may be longer than RestartSec=.
    let pause = known(unit.span("RestartUSec")).max(optional("RestartUSecNext"));
    let delay = pause.saturating_add(optional("RestartRandomizedDelayUSec"));
    known(unit.span("TimeoutStopUSec")).saturating_add(delay)
}

/// Whether a command runs that comes before the main process: `ExecCondition=`, `ExecStartPre=`, or the `ExecStart=`
/// of a unit whose main process is not known yet.
pub(crate) fn runs_start_command(unit: &Unit) -> bool {
    let starts = ["condition", "start-pre", "start", "start-post"];
    unit.text("ActiveState") == Ok("activating")
        && unit
            .text("SubState")
            .is_ok_and(|state| starts.contains(&state))
}

/// Takes only one of these words: an unknown value may mean anything.
fn one_of(words: &str) -> impl Fn(&str) -> Option<&str> {
    |text| words.split(' ').any(|word| word == text).then_some(text)
}

#[cfg(test)]
mod tests;
