//! Reasons against a signal that come and go independently of the processes.

use super::events::Random;

/// A reason against a signal that comes and goes independently of the processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Fault {
    /// `systemctl show` prints this one of [`SETTINGS`], or of [`WITH_WORKERS`].
    Setting(&'static str),
    WorkersSetting(&'static str),
    ShowFails,
    NeighboursFail,
    OpenFails,
    Hidden,
    /// The main process has left its control group.
    Outside,
    /// Its parent is not the manager.
    Adopted,
    Uninterruptible,
    GroupFails,
    Traced,
    WorkerTraced,
    FrozenGroup,
    NoCpu,
    TableFails,
    /// The listener belongs to another unit, to a group that is gone, or to systemd on behalf of nobody.
    Foreign,
    Removed,
    Systemd,
    NotPermitted,
}

/// Answers of `systemctl show` that must prevent a kill: states of the unit, settings, and properties that are missing
/// (`-`) or invalid. db.service has failed.
pub(super) const SETTINGS: &str = "LoadState=not-found|LoadState=masked|LoadState=-|ActiveState=reloading|\
    ActiveState=deactivating|ActiveState=-|Job=68|Job=-|FreezerState=frozen|Restart=no|Restart=on-success|\
    Restart=on-watchdog|Restart=-|RestartPreventExitStatus=SIGKILL|RestartPreventExitStatus=[unprintable]|\
    SuccessExitStatus=KILL;Restart=on-failure|SuccessExitStatus=9 KILL;RemainAfterExit=yes|SuccessExitStatus=-|\
    ExitType=cgroup|RestartUSec=infinity|FailureAction=reboot|FailureAction=-|\
    OnFailure=a.target;OnFailureJobMode=isolate|StartLimitBurst=1;StartLimitIntervalUSec=infinity|\
    StartLimitBurst=-|Requires=db.service;After=db.service|Requires=unknown.service|Requires=-|After=-|MainPID=-|\
    MainPID=|MainPID=1|ControlGroup=-|ControlGroup=/|InvocationID=-|ExecMainStartTimestampMonotonic=0|\
    StateChangeTimestampMonotonic=-";
/// Those that do so only where the unit has other processes.
pub(super) const WITH_WORKERS: &str =
    "KillMode=process|KillMode=-|SendSIGKILL=no|TimeoutStopUSec=infinity";

impl Fault {
    const OTHERS: &[Self] = &[
        Self::ShowFails,
        Self::NeighboursFail,
        Self::OpenFails,
        Self::Hidden,
        Self::Outside,
        Self::Adopted,
        Self::Uninterruptible,
        Self::GroupFails,
        Self::Traced,
        Self::WorkerTraced,
        Self::FrozenGroup,
        Self::NoCpu,
        Self::TableFails,
        Self::Foreign,
        Self::Removed,
        Self::Systemd,
        Self::NotPermitted,
    ];

    pub(super) fn any(random: &mut Random) -> Self {
        let mut one_of = |texts: &'static str| random.pick(&texts.split('|').collect::<Vec<_>>());
        let (setting, with_workers) = (one_of(SETTINGS), one_of(WITH_WORKERS));
        match random.below(8) {
            0..3 => Self::Setting(setting),
            3 => Self::WorkersSetting(with_workers),
            _ => random.pick(Self::OTHERS),
        }
    }
}
