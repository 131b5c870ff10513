//! What the units around a service do when it restarts: those that its restart needs, those that stop with it, and
//! those whose stop then comes back to it. Pure.

use std::collections::{BTreeMap, BTreeSet};

use super::restart::RestartFacts;
use super::systemctl::systemctl;
use super::unit::{Property, Unit};
use crate::escape::escape;

/// The lists of units that a restart needs.
const NEEDED: [&str; 3] = ["Requires", "Requisite", "BindsTo"];
/// The lists of units that stop with a unit whose process ends.
const STOP_ON_END: [&str; 2] = ["BoundBy", "PropagatesStopTo"];
/// The lists of units that a stop of a unit stops, too.
const STOP_ON_STOP: [&str; 5] = [
    "RequiredBy",
    "RequisiteOf",
    "BoundBy",
    "ConsistsOf",
    "PropagatesStopTo",
];
/// The same seen from the other end: the lists of units whose stop stops a unit.
const STOPPED_BY: [&str; 5] = [
    "Requires",
    "Requisite",
    "BindsTo",
    "PartOf",
    "StopPropagatedFrom",
];
/// The lists of units that a start of a unit starts again.
const STARTED: [&str; 4] = ["Requires", "BindsTo", "Wants", "Upholds"];

/// The units that [`RestartFacts`] still needs beside the `known` ones: first those that the dependencies of `unit`
/// name, and its `.socket` units; then those that would stop along with the ones that stop with it. Most units have
/// none of the latter.
pub(in crate::recovery) fn names_to_ask<'a>(
    unit: &'a Unit,
    known: &'a [Unit],
) -> BTreeSet<&'a str> {
    let dependents: BTreeSet<_> = names(unit, &STOP_ON_END).collect();
    let mut asked: BTreeSet<_> = if known.is_empty() {
        let sockets = unit.triggered_by().filter(|name| name.ends_with(".socket"));
        names(unit, &NEEDED)
            .chain(sockets)
            .chain(dependents)
            .collect()
    } else {
        let stopping = known
            .iter()
            .filter(|other| other.id().is_some_and(|id| dependents.contains(id)));
        stopping
            .flat_map(|other| names(other, &STOP_ON_STOP))
            .collect()
    };
    let ids = known.iter().chain([unit]).filter_map(Unit::id);
    ids.for_each(|id| {
        asked.remove(id);
    });
    asked
}

/// Why a dependency keeps the unit from starting again, or a dependent stops it for good.
pub(super) fn no_restart(facts: &RestartFacts<'_>) -> Property<Option<String>> {
    Ok(match needed_and_away(facts)? {
        Some(why) => Some(why),
        None => stop_comes_back(facts)?,
    })
}

fn needed_and_away(facts: &RestartFacts<'_>) -> Property<Option<String>> {
    let after: BTreeSet<_> = facts.unit.list("After")?.collect();
    for setting in NEEDED {
        for name in facts.unit.list(setting)? {
            let other = find(facts.neighbours, name)?;
            let ordered = after.contains(name);
            let typed = systemctl(facts.scope);
            let shown = escape(name);
            let (state, remedy) = match (other.load_state()?, other.active_state()?) {
                ("not-found", _) => (
                    "does not exist".into(),
                    "install it, or correct the unit".to_owned(),
                ),
                ("masked", _) => (
                    "is masked".into(),
                    format!("\"{typed} unmask {shown}\" allows it to start"),
                ),
                ("loaded", "failed") if ordered => (
                    "has failed".into(),
                    format!("start it again: \"{typed} start {shown}\""),
                ),
                ("loaded", "inactive" | "deactivating") if ordered && setting == "Requisite" => (
                    "is not active".into(),
                    format!("start it: \"{typed} start {shown}\""),
                ),
                ("loaded", _) => continue,
                (other, _) => (
                    format!("is not loaded (LoadState={})", escape(other)),
                    format!("\"{typed} status {shown}\" shows why"),
                ),
            };
            return Ok(Some(format!(
                "systemd would not restart {}: its {setting}={shown} {state}; {remedy}",
                facts.name
            )));
        }
    }
    Ok(None)
}

/// The cycle: the end of the unit stops another one, whose stop stops this one, while it is still stopping. A unit that
/// ends at once is already on its way up again, and systemd drops that stop.
fn stop_comes_back(facts: &RestartFacts<'_>) -> Property<Option<String>> {
    if !facts.stops_slowly()? {
        return Ok(None);
    }
    let stopped_by: BTreeSet<_> = names(facts.unit, &STOPPED_BY).collect();
    let stopping = stopping_with(facts)?;
    let Some((last, first)) = stopping.iter().find(|(name, _)| stopped_by.contains(*name)) else {
        return Ok(None);
    };
    let over = if last == first {
        String::new()
    } else {
        format!(" over {}", escape(last))
    };
    Ok(Some(format!(
        "{0} would stay stopped: its end stops {1} (BindsTo= or PropagatesStopTo=), and that stop comes back to {0}{over} (one of {2}=) before it has ended; remove one of these dependencies",
        facts.name,
        escape(first),
        STOPPED_BY.join("=, ")
    )))
}

/// Warnings about the units that stop with this one and are not started again by its restart.
pub(super) fn dependents_left(facts: &RestartFacts<'_>) -> Vec<String> {
    if facts.restarts_directly() {
        return Vec::new();
    }
    let started: BTreeSet<_> = names(facts.unit, &STARTED).collect();
    let stays = |name: &str| {
        let runs = |unit: &Unit| is_up(unit) && unit.list_or_empty("UpheldBy").next().is_none();
        !started.contains(name) && find(facts.neighbours, name).is_ok_and(runs)
    };
    let stopping = stopping_with(facts).unwrap_or_default();
    stopping
        .keys()
        .filter(|name| stays(name))
        .map(|name| {
            format!(
                "a kill of {0} also stops {1}, which is not started again with it: add \"Wants={1}\" to {0}, or use PartOf= in place of BindsTo= in {1}",
                facts.name,
                escape(name)
            )
        })
        .collect()
}

/// The units that stop when this one does, as far as they are known, each with the one through which it does.
fn stopping_with<'a>(facts: &RestartFacts<'a>) -> Property<BTreeMap<&'a str, &'a str>> {
    // Missing, it must not look like an empty list.
    facts.unit.list("BoundBy")?.for_each(drop);
    let mut stopping = BTreeMap::new();
    let mut next = Vec::new();
    for name in names(facts.unit, &STOP_ON_END) {
        if is_up(find(facts.neighbours, name)?) {
            next.push((name, name));
        }
    }
    while let Some((name, first)) = next.pop() {
        if Some(name) == facts.unit.id() || stopping.contains_key(name) {
            continue;
        }
        stopping.insert(name, first);
        if let Ok(unit) = find(facts.neighbours, name) {
            next.extend(names(unit, &STOP_ON_STOP).map(|other| (other, first)));
        }
    }
    Ok(stopping)
}

fn is_up(unit: &Unit) -> bool {
    matches!(
        unit.active_state(),
        Ok("active" | "reloading" | "activating" | "refreshing")
    )
}

fn find<'a>(units: &'a [Unit], name: &str) -> Property<&'a Unit> {
    let unit = units.iter().find(|unit| unit.id() == Some(name));
    unit.ok_or_else(|| format!("systemctl did not report {}", escape(name)))
}

fn names<'a>(unit: &'a Unit, lists: &[&'static str]) -> impl Iterator<Item = &'a str> {
    lists
        .iter()
        .flat_map(|list| unit.list_or_empty(list))
        .collect::<Vec<_>>()
        .into_iter()
}

#[cfg(test)]
mod tests;
