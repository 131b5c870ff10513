//! What the units around a service do when it restarts: those that its restart needs, those that stop with it, and
//! those whose stop then comes back to it. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::iter;

use super::super::guards::{Answer, refuse};
use super::restart::RestartFacts;
use super::systemctl::systemctl;
use super::unit::{Property, Unit};
use crate::escape::escape;
use crate::manifest::Scope;

/// The lists of units that a start needs.
const NEEDED: &str = "Requires Requisite BindsTo";
/// The lists of units that stop with a unit whose process ends.
const STOP_ON_END: &str = "BoundBy PropagatesStopTo";
/// The lists of units that a restart of a unit restarts, too, if they run.
const RESTART_ON_RESTART: &str = "RequiredBy RequisiteOf BoundBy ConsistsOf";
/// The lists of units that a stop of a unit stops, too.
const STOP_ON_STOP: &str = "RequiredBy RequisiteOf BoundBy ConsistsOf PropagatesStopTo";
/// The same seen from the other end: the lists of units whose stop stops a unit.
const STOPPED_BY: &str = "Requires Requisite BindsTo PartOf StopPropagatedFrom";
/// The lists of units that a start of a unit starts again.
const STARTED: &str = "Requires BindsTo Wants Upholds";

/// The units that [`RestartFacts`] still needs beside the `known` ones: those that depend on `unit`, directly or not,
/// those that any of them needs, and the `.socket` units.
pub(super) fn names_to_ask<'a>(unit: &'a Unit, known: &'a [Unit]) -> BTreeSet<&'a str> {
    let all = || known.iter().chain([unit]);
    let needed = all().flat_map(|unit| names(unit, NEEDED));
    let dependents = closure(known, names(unit, STOP_ON_STOP), STOP_ON_STOP);
    let mut asked: BTreeSet<_> = (needed.filter(|name| !is_slice(name)))
        .chain(unit.triggered_by(".socket"))
        .chain(dependents.into_keys())
        .collect();
    for id in all().filter_map(Unit::id) {
        asked.remove(id);
    }
    asked
}

/// A slice that is needed is always there; only one that stops with a unit matters.
fn is_slice(name: &str) -> bool {
    name.strip_suffix(".slice").is_some()
}

/// Refuses if a dependency keeps the unit from starting again, or a dependent stops it for good.
pub(super) fn no_restart(facts: &RestartFacts<'_>) -> Answer {
    for list in ["Requires", "Requisite", "BindsTo", "After", "BoundBy"] {
        // Missing, it must not look like an empty list.
        facts.unit.parsed(list, Some)?;
    }
    let needed = names(facts.unit, NEEDED).filter(|name| !is_slice(name));
    for name in needed.chain(names(facts.unit, STOP_ON_END)) {
        if find(facts.neighbours, name).is_none() {
            return Err(format!("systemctl did not report {}", escape(name)).into());
        }
    }
    let name = &facts.plan.unit;
    let itself = (facts.unit, true, "which it needs");
    // systemd restarts all of them in one transaction, which fails as a whole where a unit is not loaded.
    let others = restarting_with(facts).into_iter();
    let others = others.map(|unit| (unit, false, "which is restarted with it"));
    for (unit, jobs, role) in iter::once(itself).chain(others) {
        if let Some(why) = obstacle(facts, unit, jobs, name, role)? {
            return refuse(format!("systemd would not restart {name}: {why}"));
        }
    }
    stops_prevent_restart(facts)
}

/// What is missing for a start of `unit`, or of those that it needs. `jobs`: not only to the plan of such a start, but
/// also to its execution. `name` is the unit that the sentence is about, and `role` what another one that lacks
/// something is to it.
fn obstacle(
    facts: &RestartFacts<'_>,
    unit: &Unit,
    jobs: bool,
    name: &str,
    role: &str,
) -> Property<Option<String>> {
    let mut visited = BTreeSet::new();
    let mut next = vec![(unit, jobs)];
    while let Some((unit, jobs)) = next.pop() {
        let lists = NEEDED.split(' ');
        for (setting, needed) in lists.flat_map(|list| unit.list(list).map(move |it| (list, it))) {
            let Some(other) = find(facts.neighbours, needed) else {
                continue;
            };
            let waits = jobs && !is_up(other) && unit.list("After").any(|after| after == needed);
            if !visited.insert((needed, waits)) {
                continue;
            }
            let Some(why) = why_missing(other, setting, waits, facts.plan.scope)? else {
                next.push((other, waits));
                continue;
            };
            let (by, needed) = (unit.id().unwrap_or(&facts.plan.unit), escape(needed));
            return Ok(Some(if by == name {
                format!("its {setting}={needed} {why}")
            } else {
                format!("{setting}={needed} of {}, {role}, {why}", escape(by))
            }));
        }
    }
    Ok(None)
}

/// Why `other`, needed by `setting`, prevents a start, and what to do, if it does. `waits`: the start waits for it, and
/// it does not run.
fn why_missing(other: &Unit, setting: &str, waits: bool, scope: Scope) -> Property<Option<String>> {
    let (typed, name) = (systemctl(scope), escape(other.id().unwrap_or_default()));
    let start = |state| format!("{state}; start it: \"{typed} start {name}\"");
    let (load, active) = (other.text("LoadState")?, other.text("ActiveState")?);
    Ok(match (load, active) {
        ("not-found", _) => Some("does not exist; install it, or correct the unit".to_owned()),
        ("masked", _) => Some(format!(
            "is masked; \"{typed} unmask {name}\" allows it to start"
        )),
        ("loaded", "failed") if waits => Some(start("has failed")),
        ("loaded", _) if waits && setting == "Requisite" => Some(start("is not active")),
        ("loaded", _) => None,
        _ => Some(format!(
            "is not loaded (LoadState={}); \"{typed} status {name}\" shows why",
            escape(load)
        )),
    })
}

/// Refuses if the units that stop when this one ends keep it from running again.
fn stops_prevent_restart(facts: &RestartFacts<'_>) -> Answer {
    let (name, stopping) = (&facts.plan.unit, stopping_with(facts));
    let mut must_run = facts.unit.list("Requisite");
    // Since systemd 254, they stop before the restart.
    if !facts.restarts_directly()
        && let Some(stopped) = must_run.find(|name| stopping.contains_key(name))
    {
        return refuse(format!(
            "systemd would not restart {name}: its end stops {0} (BindsTo= or PropagatesStopTo=), which must run already at its start (Requisite={0}); use Requires={0}",
            escape(stopped)
        ));
    }
    // The cycle: their stop stops this one, while it is still stopping. A unit that ends at once is already on its way
    // up again, and systemd drops that stop.
    let mut stopped_by = names(facts.unit, STOPPED_BY);
    let Some((last, first)) = stopped_by.find_map(|name| stopping.get_key_value(name)) else {
        return Ok(());
    };
    if !facts.stops_slowly()? {
        return Ok(());
    }
    let over = (last != first).then(|| format!(" over {}", escape(last)));
    let over = over.unwrap_or_default();
    refuse(format!(
        "{name} would stay stopped: its end stops {} (BindsTo= or PropagatesStopTo=), and that stop comes back to {name}{over} (one of {}=) before it has ended; remove one of these dependencies",
        escape(first),
        STOPPED_BY.replace(' ', "=, ")
    ))
}

/// Warnings about the units that stop or restart with this one and do not run afterwards.
pub(super) fn dependents_left(facts: &RestartFacts<'_>) -> Vec<String> {
    let fail = restarting_with(facts).into_iter().filter_map(|unit| {
        let name = unit.id()?;
        let why = obstacle(facts, unit, true, name, "which it needs").ok()??;
        let (own, name) = (&facts.plan.unit, escape(name));
        Some(format!(
            "a kill of {own} also restarts {name}, which then fails: {why}"
        ))
    });
    let started: BTreeSet<_> = names(facts.unit, STARTED).collect();
    let stays = |unit: &Unit| is_up(unit) && !unit.is_set("UpheldBy");
    let stopping = stopping_with(facts).into_keys();
    let stay = stopping
        .filter(|name| {
            !facts.restarts_directly()
                && !started.contains(name)
                && find(facts.neighbours, name).is_some_and(stays)
        })
        .map(|name| {
            format!(
                "a kill of {0} also stops {1}, which is not started again with it: add \"Wants={1}\" to {0}, or use PartOf= in place of BindsTo= in {1}",
                facts.plan.unit,
                escape(name)
            )
        });
    fail.chain(stay).collect()
}

/// The running units that systemd restarts with this one, as far as they are known.
fn restarting_with<'a>(facts: &RestartFacts<'a>) -> Vec<&'a Unit> {
    let restarting = following(facts, RESTART_ON_RESTART, RESTART_ON_RESTART).into_keys();
    let units = restarting.filter_map(|name| find(facts.neighbours, name));
    units.filter(|unit| is_up(unit)).collect()
}

/// The units that stop when this one ends, as far as they are known, each with the one through which it does.
fn stopping_with<'a>(facts: &RestartFacts<'a>) -> BTreeMap<&'a str, &'a str> {
    following(facts, STOP_ON_END, STOP_ON_STOP)
}

/// The other units that follow, over the lists `then`, from the running ones in the lists `first` of this one.
fn following<'a>(
    facts: &RestartFacts<'a>,
    first: &'static str,
    then: &'static str,
) -> BTreeMap<&'a str, &'a str> {
    let known = facts.neighbours;
    let runs = |name: &&str| find(known, name).is_some_and(is_up);
    let mut found = closure(known, names(facts.unit, first).filter(runs), then);
    found.retain(|name, _| Some(*name) != facts.unit.id());
    found
}

/// All units that follow from the `first` ones over these lists of the known units, each with its first one.
fn closure<'a>(
    known: &'a [Unit],
    first: impl Iterator<Item = &'a str>,
    lists: &'static str,
) -> BTreeMap<&'a str, &'a str> {
    let mut found = BTreeMap::new();
    let mut next: Vec<_> = first.map(|name| (name, name)).collect();
    while let Some((name, first)) = next.pop() {
        if found.contains_key(name) {
            continue;
        }
        found.insert(name, first);
        if let Some(unit) = find(known, name) {
            next.extend(names(unit, lists).map(|other| (other, first)));
        }
    }
    found
}

fn is_up(unit: &Unit) -> bool {
    matches!(
        unit.text("ActiveState"),
        Ok("active" | "reloading" | "activating" | "refreshing")
    )
}

fn find<'a>(units: &'a [Unit], name: &str) -> Option<&'a Unit> {
    units.iter().find(|unit| unit.id() == Some(name))
}

fn names<'a>(unit: &'a Unit, lists: &'static str) -> impl Iterator<Item = &'a str> {
    lists.split(' ').flat_map(|list| unit.list(list))
}

#[cfg(test)]
mod tests;
