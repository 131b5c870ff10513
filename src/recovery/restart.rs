//! When systemd restarts a service whose main process died by a signal. Pure: it knows the rule, and
//! nothing of the unit that it is asked about.

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
    /// None where the text is no such list. Whatever else it holds, such as the `[unprintable]` of
    /// systemctl, it may stand for a list that names our signal.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let printed = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || "+-".contains(c);
        let words = text.split_whitespace();
        let words = words.map(|word| word.chars().all(printed).then(|| word.to_owned()));
        words.collect::<Option<_>>().map(Self)
    }

    /// Whether the list names `signal`, given as `KILL`: systemd prints it so, the unit file may
    /// have had `SIGKILL`. A number is always an exit status.
    pub(super) fn names(&self, signal: &str) -> bool {
        self.0
            .iter()
            .any(|status| status.strip_prefix("SIG").unwrap_or(status) == signal)
    }
}

/// Why systemd does not restart a service whose main process dies by `signal` (given as `KILL`), if
/// it does not: service_shall_restart() of its src/core/service.c. `clean` says whether it takes that
/// death for a success.
pub(super) fn no_restart_after(
    signal: &str,
    restart: Restart,
    clean: bool,
    prevent: &Statuses,
    force: &Statuses,
) -> Option<String> {
    if prevent.names(signal) {
        return Some(format!("RestartPreventExitStatus= names SIG{signal}"));
    }
    if force.names(signal) {
        return None;
    }
    let restart_is = || format!("Restart={}", restart.as_str());
    match (restart, clean) {
        (Restart::Always, _)
        | (Restart::OnFailure | Restart::OnAbnormal | Restart::OnAbort, false)
        | (Restart::OnSuccess, true) => None,
        (Restart::OnFailure | Restart::OnAbnormal | Restart::OnAbort, true) => Some(format!(
            "{}, and SuccessExitStatus= names SIG{signal}",
            restart_is()
        )),
        (Restart::No | Restart::OnSuccess | Restart::OnWatchdog, _) => Some(restart_is()),
    }
}
