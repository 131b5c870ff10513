//! The settings of a service that decide what follows the death of its main process, as systemd prints them. Pure.

use crate::manifest::KillSignal;

/// How the main process ends.
#[derive(Clone, Copy, Debug)]
pub(super) struct End {
    /// The signal without `SIG`, as systemd prints it.
    pub(super) signal: &'static str,
    /// A core dump is never a success: is_clean_exit() in systemd's src/shared/exit-status.c.
    pub(super) dumped_core: bool,
}

impl End {
    const KILL: Self = Self {
        signal: "KILL",
        dumped_core: false,
    };
    const ABORT: Self = Self {
        signal: "ABRT",
        dumped_core: false,
    };
    const CORE_DUMP: Self = Self {
        signal: "ABRT",
        dumped_core: true,
    };

    /// The ways in which a recovery with `signal` may end the process. One that survives SIGABRT gets SIGKILL, and
    /// whether it dumps core cannot be known.
    pub(super) const fn all(signal: KillSignal) -> &'static [Self] {
        match signal {
            KillSignal::Kill => &[Self::KILL],
            KillSignal::Abort => &[Self::ABORT, Self::CORE_DUMP, Self::KILL],
        }
    }
}

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
    const ALL: [Self; 7] = [
        Self::No,
        Self::Always,
        Self::OnSuccess,
        Self::OnFailure,
        Self::OnAbnormal,
        Self::OnAbort,
        Self::OnWatchdog,
    ];

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
        Self::ALL
            .into_iter()
            .find(|restart| restart.as_str() == text)
    }
}

/// A list of exit statuses (numbers) and signals (names).
pub(super) struct Statuses<'a>(Vec<&'a str>);

impl<'a> Statuses<'a> {
    /// None if the text is not such a list. Other text, such as the `[unprintable]` of systemctl, may hide a
    /// list that names our signal.
    pub(super) fn parse(text: &'a str) -> Option<Self> {
        let printed = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || "+-".contains(c);
        let words = text.split_whitespace();
        let words = words.map(|word| word.chars().all(printed).then_some(word));
        words.collect::<Option<_>>().map(Self)
    }

    /// Whether the list names the signal of `end`. A number is always an exit status.
    pub(super) fn name(&self, end: End) -> bool {
        let mut words = self.0.iter();
        words.any(|word| word.strip_prefix("SIG").unwrap_or(word) == end.signal)
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

    /// Whether it ends the processes that the main one leaves behind.
    pub(super) const fn signals_others(self) -> bool {
        matches!(self, Self::ControlGroup | Self::Mixed)
    }
}

/// `ExitType=`, systemd.service(5).
pub(super) fn exits_as_group(text: &str) -> Option<bool> {
    match text {
        "cgroup" => Some(true),
        "main" => Some(false),
        _ => None,
    }
}
