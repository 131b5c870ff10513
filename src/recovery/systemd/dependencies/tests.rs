use super::*;
use crate::clock::Monotonic;
use crate::manifest::{KillSignal, Scope};
use crate::recovery::systemd::samples::{demo, neighbours};

fn facts<'a>(unit: &'a Unit, neighbours: &'a [Unit], others: usize) -> RestartFacts<'a> {
    RestartFacts {
        unit,
        name: "demo.service",
        scope: Scope::System,
        signal: KillSignal::Kill,
        others,
        neighbours,
        now: Monotonic::now(),
        missing: None,
    }
}

/// What `no_restart` says, if the backend has `others` processes beside the main one.
fn judge(unit: &[&str], neighbours: &[Unit], others: usize) -> String {
    let unit = demo(unit);
    let why = facts(&unit, neighbours, others).no_restart();
    why.map_or_else(|why| why, Option::unwrap_or_default)
}

#[test]
fn names_to_ask_are_the_dependencies_and_then_the_dependents_of_dependents() {
    let unit = demo(&["PropagatesStopTo=other.service"]);
    let first: Vec<_> = names_to_ask(&unit, &[]).into_iter().collect();
    assert_eq!(
        first,
        [
            "db.service",
            "demo.socket",
            "other.service",
            "sysinit.target",
            "system.slice",
            "worker.service"
        ]
    );
    let known = neighbours(
        "worker.service",
        &["RequiredBy=demo.service sub.service db.service"],
    );
    assert_eq!(names_to_ask(&unit, &known), BTreeSet::from(["sub.service"]));
    assert!(names_to_ask(&unit, &neighbours("db.service", &[])).is_empty());
}

#[test]
fn a_dependency_that_cannot_start_prevents_the_restart() {
    let requisite = ["Requires=", "Requisite=db.service"];
    let binds = ["Requires=", "BindsTo=db.service"];
    for (unit, db, refused) in [
        (&[][..], &[][..], None),
        (&[], &["ActiveState=inactive"], None),
        (&[], &["ActiveState=activating"], None),
        (
            &[],
            &["ActiveState=failed"],
            Some(
                "its Requires=db.service has failed; start it again: \"systemctl start db.service\"",
            ),
        ),
        (&["After="], &["ActiveState=failed"], None),
        (
            &["Requires=", "Wants=db.service"],
            &["ActiveState=failed"],
            None,
        ),
        (
            &[],
            &["LoadState=masked"],
            Some("\"systemctl unmask db.service\""),
        ),
        (&["After="], &["LoadState=masked"], Some("is masked")),
        (
            &["After="],
            &["LoadState=not-found"],
            Some("does not exist"),
        ),
        (
            &["After="],
            &["LoadState=bad-setting"],
            Some("is not loaded (LoadState=bad-setting)"),
        ),
        (&requisite, &[], None),
        (
            &requisite,
            &["ActiveState=inactive"],
            Some("its Requisite=db.service is not active"),
        ),
        (
            &requisite,
            &["ActiveState=deactivating"],
            Some("is not active"),
        ),
        (&requisite, &["ActiveState=activating"], None),
        (
            &["Requires=", "Requisite=db.service", "After="],
            &["ActiveState=failed"],
            None,
        ),
        (
            &binds,
            &["ActiveState=failed"],
            Some("its BindsTo=db.service has failed"),
        ),
        (&[], &["ActiveState"], Some("did not report ActiveState=")),
        (
            &[],
            &["Id=other.service"],
            Some("did not report db.service"),
        ),
        (&["After"], &[], Some("did not report After=")),
        (&["Requires"], &[], Some("did not report Requires=")),
    ] {
        let why = judge(unit, &neighbours("db.service", db), 0);
        assert_eq!(why.is_empty(), refused.is_none(), "{unit:?} {db:?}: {why}");
        assert!(
            why.contains(refused.unwrap_or_default()),
            "{unit:?} {db:?}: {why}"
        );
    }
}

const STOP_POST: &str =
    "ExecStopPost={ path=/bin/sh ; argv[]=sh ; ignore_errors=no ; start_time=[n/a] ; pid=0 }";

#[test]
fn a_stop_that_comes_back_prevents_the_restart() {
    let cycle = "PartOf=worker.service";
    for (unit, worker, others, refused) in [
        (&[cycle][..], &[][..], 1, true),
        (&[cycle], &[], 0, false),
        (&[cycle, STOP_POST], &[], 0, true),
        (&[cycle, "RestartMode=direct"], &[], 1, true),
        (&[cycle, "KillMode=mixed"], &[], 1, true),
        (&[cycle], &["ActiveState=inactive"], 1, false),
        (&[cycle], &["ActiveState=failed"], 1, false),
        (&[], &[], 1, false),
        (&["Wants=worker.service"], &[], 1, false),
        (&["StopPropagatedFrom=worker.service"], &[], 1, true),
        (
            &["BoundBy=", "PropagatesStopTo=worker.service", cycle],
            &[],
            1,
            true,
        ),
        (&["BoundBy=", cycle], &[], 1, false),
        (&[], &["RequiredBy=db.service"], 1, true),
        (&[], &["RequiredBy=demo.service"], 1, false),
    ] {
        let why = judge(unit, &neighbours("worker.service", worker), others);
        assert_eq!(
            !why.is_empty(),
            refused,
            "{unit:?} {worker:?} {others}: {why}"
        );
        assert!(!refused || why.contains("stops worker.service"), "{why}");
    }
    let over = judge(
        &[],
        &neighbours("worker.service", &["ConsistsOf=db.service"]),
        1,
    );
    assert!(
        over.contains("comes back to demo.service over db.service"),
        "{over}"
    );
    let missing = judge(&["BoundBy"], &neighbours("db.service", &[]), 1);
    assert!(missing.contains("did not report BoundBy="), "{missing}");
}

#[test]
fn dependents_left_are_those_that_nothing_starts_again() {
    for (unit, worker, expected) in [
        (&[][..], &[][..], &["worker.service"][..]),
        (&[], &["ActiveState=inactive"], &[]),
        (&[], &["UpheldBy=third.service"], &[]),
        (&["RestartMode=direct"], &[], &[]),
        (&["BoundBy="], &[], &[]),
        (&["BoundBy"], &[], &[]),
        (&["Wants=worker.service"], &[], &[]),
        (&["Upholds=worker.service"], &[], &[]),
        (
            &["Wants=worker.service"],
            &["RequiredBy=demo.socket"],
            &["demo.socket"],
        ),
        (
            &["Wants="],
            &["BoundBy=demo.socket unknown.service"],
            &["demo.socket", "worker.service"],
        ),
    ] {
        let (unit, neighbours) = (demo(unit), neighbours("worker.service", worker));
        let warnings = dependents_left(&facts(&unit, &neighbours, 0));
        assert_eq!(warnings.len(), expected.len(), "{warnings:?}");
        for (warning, name) in warnings.iter().zip(expected) {
            assert!(warning.contains(&format!("also stops {name}")), "{warning}");
        }
    }
}
