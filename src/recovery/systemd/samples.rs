//! What systemd 252 prints, for tests.

use super::Unit;
use crate::recovery::guards::{Answer, Objection};

/// A running service that needs `db.service`; `worker.service` is bound to it.
pub(crate) const DEMO: &str = "\
ExitType=main
Restart=always
RestartUSec=300ms
TimeoutStartUSec=1min 30s
TimeoutStopUSec=1min 30s
RemainAfterExit=no
RestartPreventExitStatus=
RestartForceExitStatus=
SuccessExitStatus=
MainPID=152
Result=success
NRestarts=2
ExecMainStartTimestampMonotonic=2070920720
ExecStart={ path=/bin/sleep ; argv[]=/bin/sleep infinity ; ignore_errors=no ; start_time=[Sun 2026-11-29 18:10:47 UTC] ; stop_time=[n/a] ; pid=152 ; code=(null) ; status=0/0 }
ControlGroup=/system.slice/demo.service
WorkingDirectory=/srv
RootDirectory=
RootImage=
ExtensionDirectories=
ExtensionImages=
MountImages=
BindPaths=
BindReadOnlyPaths=
KillMode=control-group
SendSIGKILL=yes
Id=demo.service
Requires=sysinit.target system.slice db.service
Requisite=
Wants=demo.socket
BindsTo=
PartOf=
Upholds=
RequiredBy=
RequisiteOf=
ConsistsOf=
BoundBy=worker.service
After=basic.target system.slice demo.socket db.service systemd-journald.socket sysinit.target -.mount
OnSuccess=
OnFailure=
TriggeredBy=demo.socket
PropagatesStopTo=
StopPropagatedFrom=
LoadState=loaded
ActiveState=active
FreezerState=running
SubState=running
StateChangeTimestampMonotonic=2070920876
Job=
OnSuccessJobMode=fail
OnFailureJobMode=replace
NeedDaemonReload=no
StartLimitIntervalUSec=10s
StartLimitBurst=5
StartLimitAction=none
FailureAction=none
SuccessAction=none
InvocationID=461583f6b7404f0aad540c48a8c09c4d
";

/// The units that it names, but for slices.
pub(crate) const NEIGHBOURS: &str = "\
ControlGroup=/system.slice/db.service
Id=db.service
RequiredBy=demo.service
RequisiteOf=
BoundBy=
UpheldBy=
ConsistsOf=
PropagatesStopTo=
LoadState=loaded
ActiveState=active

ControlGroup=/system.slice/worker.service
Id=worker.service
RequiredBy=
RequisiteOf=
BoundBy=
UpheldBy=
ConsistsOf=
PropagatesStopTo=
LoadState=loaded
ActiveState=active

Listen=127.0.0.1:8123 (Stream)
Listen=/run/b c.sock (Stream)
ControlGroup=/system.slice/demo.socket
Id=demo.socket
RequiredBy=
RequisiteOf=
BoundBy=
UpheldBy=
ConsistsOf=
PropagatesStopTo=
LoadState=loaded
ActiveState=active

Id=sysinit.target
RequiredBy=worker.service demo.service db.service
RequisiteOf=
BoundBy=
UpheldBy=
ConsistsOf=
PropagatesStopTo=
LoadState=loaded
ActiveState=active
";

/// The message of an answer; empty if it passes.
pub(super) fn message_of(answer: Answer) -> String {
    match answer {
        Ok(()) => String::new(),
        Err(Objection::Refuses(why) | Objection::Unreadable(why)) => why,
    }
}

/// [`DEMO`] with some properties changed: `Name=value`, or `Name` for one that systemd does not print.
pub(crate) fn demo(changes: &[&str]) -> Unit {
    parse(DEMO, changes)
}

/// [`NEIGHBOURS`] with some properties of `unit` changed; one that is not among them is added.
pub(crate) fn neighbours(unit: &str, changes: &[&str]) -> Vec<Unit> {
    let id = format!("Id={unit}");
    let mut blocks: Vec<_> = NEIGHBOURS.split("\n\n").map(str::to_owned).collect();
    let named = |block: &&mut String| block.lines().any(|line| line == id);
    if blocks.iter_mut().find(named).is_none() {
        blocks.push(format!("{id}\nLoadState=loaded\nActiveState=active"));
    }
    let blocks = blocks.iter().map(|block| {
        let changes = if block.lines().any(|line| line == id) {
            changes
        } else {
            &[]
        };
        parse(block, changes)
    });
    blocks.collect()
}

fn parse(text: &str, changes: &[&str]) -> Unit {
    let name = |line: &str| line.split('=').next().map(str::to_owned);
    let changed: Vec<_> = changes.iter().map(|change| name(change)).collect();
    let kept = text.lines().filter(|line| !changed.contains(&name(line)));
    let lines: Vec<_> = kept
        .chain(
            changes
                .iter()
                .copied()
                .filter(|change| change.contains('=')),
        )
        .collect();
    Unit::parse(lines.join("\n").as_bytes()).unwrap()
}
