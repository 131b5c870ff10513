//! When systemd restarts a service whose main process died by a signal. Pure.

/// `Restart=`, systemd.service(5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Restart {
    No,
    Always,
    OnSuccess,
    OnFailure,
    OnAbnormal,
    OnAbort,
    OnWatchdog,
}

impl Restart {
    /// As the unit file writes it.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::No => "no",
            Self::Always => "always",
            Self::OnSuccess => "on-success",
            Self::OnFailure => "on-failure",
            Self::OnAbnormal => "on-abnormal",
            Self::OnAbort => "on-abort",
            Self::OnWatchdog => "on-watchdog",
        }
    }

    pub(super) fn parse(text: &str) -> Option<Self> {
        [
            Self::No,
            Self::Always,
            Self::OnSuccess,
            Self::OnFailure,
            Self::OnAbnormal,
            Self::OnAbort,
            Self::OnWatchdog,
        ]
        .into_iter()
        .find(|restart| restart.as_str() == text)
    }
}

/// A list of exit statuses (numbers) and signals (names).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Statuses(Vec<String>);

impl Statuses {
    /// None if the text is not such a list. Other text, such as the `[unprintable]` of systemctl, may hide a
    /// list that names our signal.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let printed = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || "+-".contains(c);
        let words = text.split_whitespace();
        let words = words.map(|word| word.chars().all(printed).then(|| word.to_owned()));
        words.collect::<Option<_>>().map(Self)
    }

    /// Whether the list names `signal`, given as `KILL`, the form that systemd prints even if the unit file
    /// has `SIGKILL`. A number is always an exit status.
    pub(super) fn names(&self, signal: &str) -> bool {
        self.0
            .iter()
            .any(|status| status.strip_prefix("SIG").unwrap_or(status) == signal)
    }
}

/// `KillMode=`, systemd.kill(5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum KillMode {
    ControlGroup,
    Mixed,
    Process,
    None,
}

impl KillMode {
    /// As the unit file writes it.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::ControlGroup => "control-group",
            Self::Mixed => "mixed",
            Self::Process => "process",
            Self::None => "none",
        }
    }

    pub(super) fn parse(text: &str) -> Option<Self> {
        [Self::ControlGroup, Self::Mixed, Self::Process, Self::None]
            .into_iter()
            .find(|mode| mode.as_str() == text)
    }
}

/// How systemd ends the processes that are left after the main process has died.
#[derive(Clone, Copy, Debug)]
pub(super) struct LeftOver {
    /// How many there are; at least one.
    pub(super) processes: usize,
    pub(super) kill_mode: KillMode,
    /// `SendSIGKILL=`
    pub(super) send_sigkill: bool,
    /// Whether `TimeoutStopSec=` is `infinity`.
    pub(super) waits_forever: bool,
}

impl LeftOver {
    /// Why they may prevent systemd from restarting the unit, if they may: enter_signal() and
    /// unit_kill_context() of its src/core/service.c and unit.c.
    fn keep_from_restart(&self, restart: Restart) -> Option<String> {
        let left = match self.processes {
            1 => "another process of the unit is left".to_owned(),
            more => format!("{more} other processes of the unit are left"),
        };
        let setting = match self.kill_mode {
            KillMode::Process | KillMode::None => {
                format!("KillMode={} leaves them running", self.kill_mode.as_str())
            }
            KillMode::ControlGroup | KillMode::Mixed if !self.send_sigkill => {
                "SendSIGKILL=no waits for them as long as they ignore SIGTERM".to_owned()
            }
            KillMode::ControlGroup if self.waits_forever => {
                "TimeoutStopSec=infinity waits for them as long as they ignore SIGTERM".to_owned()
            }
            KillMode::ControlGroup | KillMode::Mixed if restart == Restart::OnSuccess => {
                "with Restart=on-success the way they exit decides".to_owned()
            }
            KillMode::ControlGroup | KillMode::Mixed => return None,
        };
        Some(format!("{left}, and {setting}"))
    }
}

/// The settings of a service that decide what follows the death of its main process.
#[derive(Clone, Copy, Debug)]
pub(super) struct Policy<'a> {
    /// `Restart=`
    pub(super) restart: Restart,
    /// `RemainAfterExit=`
    pub(super) remains: bool,
    /// `ExitType=cgroup`
    pub(super) exits_as_group: bool,
    /// The `-` in `ExecStart=-`
    pub(super) ignores_failure: bool,
    /// `SuccessExitStatus=`
    pub(super) success: &'a Statuses,
    /// `RestartPreventExitStatus=`
    pub(super) prevent: &'a Statuses,
    /// `RestartForceExitStatus=`
    pub(super) force: &'a Statuses,
    /// The other processes of the unit, where there are any.
    pub(super) left_over: Option<LeftOver>,
}

impl Policy<'_> {
    /// Why systemd does not restart the service once `signal` (given as `KILL`) has ended its main
    /// process, if it does not: service_sigchld_event(), service_enter_running() and
    /// service_shall_restart() of its src/core/service.c.
    pub(super) fn no_restart_after(&self, signal: &str, dumped_core: bool) -> Option<String> {
        // It is unknown which of its processes will be left.
        if self.exits_as_group {
            return Some("ExitType=cgroup waits for all other processes, too".to_owned());
        }
        if let Some(why) = self
            .left_over
            .and_then(|left| left.keep_from_restart(self.restart))
        {
            return Some(why);
        }
        let success = self.counted_as_success(signal, dumped_core);
        if let Some(why) = success.as_ref().filter(|_| self.remains) {
            return Some(format!("RemainAfterExit=yes, and {why}"));
        }
        if self.prevent.names(signal) {
            return Some(format!("RestartPreventExitStatus= names SIG{signal}"));
        }
        if self.force.names(signal) {
            return None;
        }
        let restart_is = format!("Restart={}", self.restart.as_str());
        match (self.restart, success) {
            (Restart::Always, _)
            | (Restart::OnFailure | Restart::OnAbnormal | Restart::OnAbort, None)
            | (Restart::OnSuccess, Some(_)) => None,
            (Restart::OnFailure | Restart::OnAbnormal | Restart::OnAbort, Some(why)) => {
                Some(format!("{restart_is}, and {why}"))
            }
            (Restart::OnSuccess, None) | (Restart::No | Restart::OnWatchdog, _) => Some(restart_is),
        }
    }

    /// Why systemd counts that death as a success, if it does.
    fn counted_as_success(&self, signal: &str, dumped_core: bool) -> Option<String> {
        if self.ignores_failure {
            Some("the \"-\" in ExecStart= turns every failure into a success".to_owned())
        } else if self.success.names(signal) && !dumped_core {
            // A core dump is never clean: is_clean_exit() in src/shared/exit-status.c.
            Some(format!("SuccessExitStatus= names SIG{signal}"))
        } else {
            None
        }
    }
}
