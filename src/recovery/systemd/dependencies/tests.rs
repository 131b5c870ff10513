use super::*;
use crate::clock::Monotonic;
use crate::recovery::samples::context;
use crate::recovery::systemd::samples::{demo, message_of, neighbours};

fn facts<'a>(unit: &'a Unit, neighbours: &'a [Unit], others: usize) -> RestartFacts<'a> {
    RestartFacts {
        plan: Box::leak(Box::new(context().plan)),
        unit,
        others,
        neighbours,
        now: Monotonic::now(),
    }
}

/// What `no_restart` says, if the backend has `others` processes beside the main one.
fn judge(unit: &[&str], neighbours: &[Unit], others: usize) -> String {
    let unit = demo(unit);
    message_of(facts(&unit, neighbours, others).no_restart())
}

#[test]
fn names_to_ask_follow_what_is_needed_and_what_depends() {
    let unit = demo(&["PropagatesStopTo=other.service"]);
    let first: Vec<_> = names_to_ask(&unit, &[]).into_iter().collect();
    let expected = [
        "db.service",
        "demo.socket",
        "other.service",
        "sysinit.target",
        "worker.service",
    ];
    assert_eq!(first, expected);
    let unit = demo(&[]);
    let ask = |name, changes: &[&str]| {
        let known = neighbours(name, changes);
        let names: Vec<_> = names_to_ask(&unit, &known)
            .into_iter()
            .map(str::to_owned)
            .collect();
        names.join(" ")
    };
    assert_eq!(ask("db.service", &[]), "");
    assert_eq!(
        ask(
            "worker.service",
            &["RequiredBy=demo.service sub.service db.service"]
        ),
        "sub.service"
    );
    assert_eq!(
        ask(
            "worker.service",
            &["Requires=disk.mount x.slice", "Wants=x.service"]
        ),
        "disk.mount"
    );
    assert_eq!(
        ask(
            "db.service",
            &["Requisite=disk.mount", "BoundBy=unrelated.service"]
        ),
        "disk.mount"
    );
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
            Some("its Requires=db.service has failed; start it: \"systemctl start db.service\""),
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

/// The backend, or a unit that depends on it, needs `db.service`, which needs `disk.mount`.
#[test]
fn an_obstacle_is_found_however_far_away_it_is() {
    let need = ["Requires=disk.mount", "After=disk.mount"];
    let db = |disk: &[&str], state: &str| {
        let state = format!("ActiveState={state}");
        let mut units = neighbours("disk.mount", disk);
        units.retain(|unit| unit.id() != Some("db.service"));
        let all = neighbours("db.service", &[&state, need[0], need[1]]);
        units.extend(
            all.into_iter()
                .filter(|unit| unit.id() == Some("db.service")),
        );
        units
    };
    let (masked, failed) = (["LoadState=masked"], ["ActiveState=failed"]);
    let over = "Requires=disk.mount of db.service, which it needs, is masked; \"systemctl unmask disk.mount\"";
    for (unit, units, refused) in [
        (&[][..], db(&[], "active"), None),
        (&[], db(&masked, "active"), Some(over)),
        (&[], db(&masked, "inactive"), Some(over)),
        (
            &["Requires=", "Wants=db.service"],
            db(&masked, "active"),
            None,
        ),
        // A start of db.service is needed only if it does not run.
        (&[], db(&failed, "active"), None),
        (
            &[],
            db(&failed, "inactive"),
            Some("disk.mount of db.service, which it needs, has failed"),
        ),
        (&["After="], db(&failed, "inactive"), None),
        (
            &["Requires=", "RequiredBy=db.service"],
            db(&masked, "active"),
            Some("which is restarted with it, is masked"),
        ),
        (
            &["Requires=", "RequiredBy=db.service"],
            db(&masked, "inactive"),
            None,
        ),
        (
            &["Requires=", "PropagatesStopTo=db.service"],
            db(&masked, "active"),
            None,
        ),
    ] {
        let why = judge(unit, &units, 0);
        assert_eq!(why.is_empty(), refused.is_none(), "{unit:?}: {why}");
        assert!(why.contains(refused.unwrap_or_default()), "{unit:?}: {why}");
    }
    // The dependent alone fails.
    let (unit, units) = (
        demo(&["Requires=", "RequiredBy=db.service", "BoundBy="]),
        db(&failed, "active"),
    );
    let warnings = dependents_left(&facts(&unit, &units, 0)).concat();
    let expected = "a kill of demo.service also restarts db.service, which then fails: its Requires=disk.mount has failed";
    assert!(warnings.starts_with(expected), "{warnings}");
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
fn a_unit_must_not_stop_what_its_start_requires_to_run() {
    for (unit, worker, refused) in [
        (&["Requisite=worker.service"][..], &[][..], true),
        (&["Requisite=db.service", "Requires="], &[], false),
        (
            &["Requisite=worker.service", "RestartMode=direct"],
            &[],
            false,
        ),
        (
            &["Requisite=worker.service"],
            &["ActiveState=inactive"],
            false,
        ),
        (
            &["Requisite=db.service", "Requires="],
            &["RequiredBy=db.service"],
            true,
        ),
    ] {
        let why = judge(unit, &neighbours("worker.service", worker), 0);
        assert_eq!(
            why.contains("which must run already"),
            refused,
            "{unit:?}: {why}"
        );
        assert_eq!(!why.is_empty(), refused, "{unit:?}: {why}");
    }
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

#[test]
fn a_slice_that_stops_with_the_unit_is_not_taken_for_harmless() {
    for stopped in ["x.slice", "basic.target", "sysinit.target"] {
        for list in ["BoundBy", "PropagatesStopTo"] {
            let stops = format!("{list}={stopped}");
            let unit = demo(&[&*format!("Requires=db.service {stopped}"), &*stops]);
            assert!(names_to_ask(&unit, &[]).contains(stopped), "{stops}");
            let known = neighbours("db.service", &[]);
            assert!(facts(&unit, &known, 1).no_restart().is_err(), "{stops}");
        }
    }
}
