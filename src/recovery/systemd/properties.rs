//! The properties that `systemctl show` is asked for.

/// The properties requested of a service or timer: org.freedesktop.systemd1(5) describes them. systemd silently
/// omits those that it, or the unit's type, does not have.
pub(super) fn of_service() -> Vec<&'static str> {
    [SERVICE, UNITS, OTHER_ROOT].concat()
}

const SERVICE: &[&str] = &[
    "Id",
    "LoadState",
    "ActiveState",
    "SubState",
    "Result",
    "MainPID",
    "ControlGroup",
    "InvocationID",
    "ExecMainStartTimestampMonotonic",
    "StateChangeTimestampMonotonic",
    "Job",
    "FreezerState",
    "NeedDaemonReload",
    "NRestarts",
    // whether and when it restarts
    "Restart",
    "RestartMode",
    "RestartUSec",
    "RestartUSecNext",
    "RestartRandomizedDelayUSec",
    "SuccessExitStatus",
    "RestartPreventExitStatus",
    "RestartForceExitStatus",
    "RemainAfterExit",
    "ExitType",
    "ExecCondition",
    "ExecStart",
    "ExecStopPost",
    "KillMode",
    "SendSIGKILL",
    "TimeoutStartUSec",
    "TimeoutStopUSec",
    "StartLimitIntervalUSec",
    "StartLimitBurst",
    "StartLimitAction",
    // what else a failure does
    "FailureAction",
    "SuccessAction",
    "OnFailureJobMode",
    "OnSuccessJobMode",
    "WorkingDirectory",
];

/// Any of these shows a service other files than this program sees.
pub(super) const OTHER_ROOT: &[&str] = &[
    "RootDirectory",
    "RootImage",
    "BindPaths",
    "BindReadOnlyPaths",
    "MountImages",
    "ExtensionImages",
    "ExtensionDirectories",
];

/// The properties requested of the units that a service's dependencies name, and of its `.socket` units.
pub(super) const NEIGHBOUR: &[&str] = &[
    "Id",
    "LoadState",
    "ActiveState",
    "ControlGroup",
    "Listen",
    "Requires",
    "Requisite",
    "BindsTo",
    "After",
    // the units that its stop or restart stops or restarts
    "RequiredBy",
    "RequisiteOf",
    "BoundBy",
    "ConsistsOf",
    "PropagatesStopTo",
    "UpheldBy",
];

/// The lists of units among these properties. A name with a backslash is quoted in them, as for a shell.
pub(super) const UNITS: &[&str] = &[
    "After",
    "BindsTo",
    "BoundBy",
    "ConsistsOf",
    "OnFailure",
    "OnSuccess",
    "PartOf",
    "PropagatesStopTo",
    "RequiredBy",
    "Requires",
    "Requisite",
    "RequisiteOf",
    "StopPropagatedFrom",
    "TriggeredBy",
    "UpheldBy",
    "Upholds",
    "Wants",
];
