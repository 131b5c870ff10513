//! What the units around a service do when it restarts: those that its restart needs, those that stop with it, and
//! those whose stop then comes back to it. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::iter;

use super::restart::RestartFacts;
use super::systemctl::systemctl;
use super::unit::{Property, Unit};
use crate::escape::escape;
use crate::manifest::Scope;

/// The lists of units that a start needs.
const NEEDED: [&str; 3] = ["Requires", "Requisite", "BindsTo"];
/// The lists of units that stop with a unit whose process ends.
const STOP_ON_END: [&str; 2] = ["BoundBy", "PropagatesStopTo"];
/// The lists of units that a restart of a unit restarts, too, if they run.
const RESTART_ON_RESTART: [&str; 4] = ["RequiredBy", "RequisiteOf", "BoundBy", "ConsistsOf"];
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

/// The units that [`RestartFacts`] still needs beside the `known` ones: those that depend on `unit`, directly or not,
/// those that any of them needs, and the `.socket` units. Slices are left out: they are always there.
pub(super) fn names_to_ask<'a>(unit: &'a Unit, known: &'a [Unit]) -> BTreeSet<&'a str> {
    let sockets = unit.triggered_by(".socket");
    let needed = known
        .iter()
        .chain([unit])
        .flat_map(|unit| names(unit, &NEEDED));
    let dependents = closure(known, names(unit, &STOP_ON_STOP), &STOP_ON_STOP);
    let mut asked: BTreeSet<_> = needed
        .chain(sockets)
        .chain(dependents.into_keys())
        .collect();
    for id in known.iter().chain([unit]).filter_map(Unit::id) {
        asked.remove(id);
    }
    asked.retain(|name| !is_slice(name));
    asked
}

fn is_slice(name: &str) -> bool {
    name.strip_suffix(".slice").is_some()
}

/// Why a dependency keeps the unit from starting again, or a dependent stops it for good.
pub(super) fn no_restart(facts: &RestartFacts<'_>) -> Property<Option<String>> {
    for name in names(facts.unit, &NEEDED).filter(|name| !is_slice(name)) {
        find(facts.neighbours, name)?;
    }
    for list in ["Requires", "Requisite", "BindsTo", "After", "BoundBy"] {
        // Missing, it must not look like an empty list.
        facts.unit.list(list)?.for_each(drop);
    }
    let itself = (facts.unit, true, "which it needs");
    // systemd restarts all of them in one transaction, which fails as a whole where a unit is not loaded.
    let others = restarting_with(facts).into_iter();
    let others = others.map(|unit| (unit, false, "which is restarted with it"));
    for (unit, jobs, role) in iter::once(itself).chain(others) {
        if let Some(obstacle) = Obstacle::of(facts, unit, jobs)? {
            return Ok(Some(format!(
                "systemd would not restart {}: {}",
                facts.name,
                obstacle.describe(facts.name, role)
            )));
        }
    }
    if let Some(why) = stops_what_it_needs(facts)? {
        return Ok(Some(why));
    }
    stop_comes_back(facts)
}

/// A unit that must run already for a start, and stops when this one ends: since systemd 254, it does so before the
/// restart.
fn stops_what_it_needs(facts: &RestartFacts<'_>) -> Property<Option<String>> {
    if facts.restarts_directly() {
        return Ok(None);
    }
    let stopping = stopping_with(facts)?;
    let mut needed = facts.unit.list("Requisite")?;
    Ok(needed.find(|name| stopping.contains_key(name)).map(|name| {
        format!(
            "systemd would not restart {0}: its end stops {1} (BindsTo= or PropagatesStopTo=), which must run already at its start (Requisite={1}); use Requires={1}",
            facts.name,
            escape(name)
        )
    }))
}

/// A unit that is needed for a start and is not there.
struct Obstacle<'a> {
    /// The unit that needs it.
    by: &'a str,
    /// The list in which that unit has it.
    setting: &'static str,
    name: &'a str,
    state: String,
    remedy: String,
}

impl<'a> Obstacle<'a> {
    /// The first obstacle to a start of `unit`, or of those that it needs. `jobs`: not only to the plan of such a
    /// start, but also to its execution.
    fn of(facts: &RestartFacts<'a>, unit: &'a Unit, jobs: bool) -> Property<Option<Self>> {
        Self::search(facts, unit, jobs, &mut BTreeSet::new())
    }

    fn search(
        facts: &RestartFacts<'a>,
        unit: &'a Unit,
        jobs: bool,
        visited: &mut BTreeSet<(&'a str, bool)>,
    ) -> Property<Option<Self>> {
        let after: BTreeSet<_> = unit.list_or_empty("After").collect();
        for setting in NEEDED {
            for name in unit.list_or_empty(setting) {
                let Ok(other) = find(facts.neighbours, name) else {
                    continue;
                };
                let waits = jobs && after.contains(name) && !is_up(other);
                if !visited.insert((name, waits)) {
                    continue;
                }
                if let Some((state, remedy)) = missing(other, setting, waits, facts.scope)? {
                    let by = unit.id().unwrap_or(facts.name);
                    return Ok(Some(Self {
                        by,
                        setting,
                        name,
                        state,
                        remedy,
                    }));
                }
                let deeper = Self::search(facts, other, waits, visited)?;
                if deeper.is_some() {
                    return Ok(deeper);
                }
            }
        }
        Ok(None)
    }

    /// `role`: what another unit than `name` that needs it is to `name`.
    fn describe(&self, name: &str, role: &str) -> String {
        let (setting, needed) = (self.setting, escape(self.name));
        let holder = if self.by == name {
            format!("its {setting}={needed}")
        } else {
            format!("{setting}={needed} of {}, {role},", escape(self.by))
        };
        format!("{holder} {}; {}", self.state, self.remedy)
    }
}

/// Why `other`, needed by `setting`, prevents a start, and what to do, if it does. `waits`: the start waits for it, and
/// it does not run.
fn missing(
    other: &Unit,
    setting: &str,
    waits: bool,
    scope: Scope,
) -> Property<Option<(String, String)>> {
    let (typed, name) = (systemctl(scope), escape(other.id().unwrap_or_default()));
    let start = || format!("start it: \"{typed} start {name}\"");
    let (state, remedy) = match (other.load_state()?, other.active_state()?) {
        ("not-found", _) => (
            "does not exist".into(),
            "install it, or correct the unit".into(),
        ),
        ("masked", _) => (
            "is masked".into(),
            format!("\"{typed} unmask {name}\" allows it to start"),
        ),
        ("loaded", "failed") if waits => ("has failed".into(), start()),
        ("loaded", _) if waits && setting == "Requisite" => ("is not active".into(), start()),
        ("loaded", _) => return Ok(None),
        (load, _) => (
            format!("is not loaded (LoadState={})", escape(load)),
            format!("\"{typed} status {name}\" shows why"),
        ),
    };
    Ok(Some((state, remedy)))
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

/// Warnings about the units that stop or restart with this one and do not run afterwards.
pub(super) fn dependents_left(facts: &RestartFacts<'_>) -> Vec<String> {
    let fail = restarting_with(facts).into_iter().filter_map(|unit| {
        let obstacle = Obstacle::of(facts, unit, true).ok()??;
        Some(format!(
            "a kill of {} also restarts {}, which then fails: {}",
            facts.name,
            escape(unit.id()?),
            obstacle.describe(unit.id()?, "which it needs")
        ))
    });
    let stay = stopped_for_good(facts).into_iter().map(|name| {
        format!(
            "a kill of {0} also stops {1}, which is not started again with it: add \"Wants={1}\" to {0}, or use PartOf= in place of BindsTo= in {1}",
            facts.name,
            escape(name)
        )
    });
    fail.chain(stay).collect()
}

fn stopped_for_good<'a>(facts: &RestartFacts<'a>) -> Vec<&'a str> {
    if facts.restarts_directly() {
        return Vec::new();
    }
    let started: BTreeSet<_> = names(facts.unit, &STARTED).collect();
    let runs = |unit: &Unit| is_up(unit) && unit.list_or_empty("UpheldBy").next().is_none();
    stopping_with(facts)
        .unwrap_or_default()
        .into_keys()
        .filter(|name| !started.contains(name) && find(facts.neighbours, name).is_ok_and(runs))
        .collect()
}

/// The running units that systemd restarts with this one, as far as they are known.
fn restarting_with<'a>(facts: &RestartFacts<'a>) -> Vec<&'a Unit> {
    let run = |name: &&str| find(facts.neighbours, name).is_ok_and(is_up);
    let direct = names(facts.unit, &RESTART_ON_RESTART).filter(run);
    closure(facts.neighbours, direct, &RESTART_ON_RESTART)
        .into_keys()
        .filter_map(|name| find(facts.neighbours, name).ok())
        .filter(|unit| is_up(unit) && unit.id() != facts.unit.id())
        .collect()
}

/// The units that stop when this one does, as far as they are known, each with the one through which it does.
fn stopping_with<'a>(facts: &RestartFacts<'a>) -> Property<BTreeMap<&'a str, &'a str>> {
    let mut direct = Vec::new();
    for name in names(facts.unit, &STOP_ON_END) {
        if is_up(find(facts.neighbours, name)?) {
            direct.push(name);
        }
    }
    let mut stopping = closure(facts.neighbours, direct.into_iter(), &STOP_ON_STOP);
    stopping.retain(|name, _| Some(*name) != facts.unit.id());
    Ok(stopping)
}

/// All units that follow from the `first` ones over these lists of the known units, each with its first one.
fn closure<'a>(
    known: &'a [Unit],
    first: impl Iterator<Item = &'a str>,
    lists: &[&'static str],
) -> BTreeMap<&'a str, &'a str> {
    let mut found = BTreeMap::new();
    let mut next: Vec<_> = first.map(|name| (name, name)).collect();
    while let Some((name, first)) = next.pop() {
        if found.contains_key(name) {
            continue;
        }
        found.insert(name, first);
        if let Ok(unit) = find(known, name) {
            next.extend(names(unit, lists).map(|other| (other, first)));
        }
    }
    found
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
