//! The guards: the reasons not to kill a hung backend, as one table. Pure: they judge facts that other modules
//! collected. Refusals, warnings about a healthy backend and the names in reports all come from this table.

mod sockets;
mod unit;

pub(super) use self::sockets::late_sign;

use super::Outcome;
use super::facts::{Context, Facts};

/// Why a hung backend is left alone; its fixed name in reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Guard(&'static str);

impl Guard {
    pub(super) const GONE: Self = Self("gone");
    pub(super) const ANSWERED: Self = Self("answered");
    const BUSY: Self = Self("busy");
    pub(super) const STARVED: Self = Self("starved");
    /// A fact that a guard depends on is missing or unreadable; named in the place of that guard.
    pub(super) const UNREADABLE: Self = Self("unreadable");

    /// The guard's fixed name in reports.
    pub const fn name(self) -> &'static str {
        self.0
    }

    /// Every guard in the order in which they are checked, which is that of the documentation.
    #[cfg(test)]
    pub(crate) fn all() -> impl Iterator<Item = Self> {
        let guards = TABLE.iter().map(|(name, ..)| Self(name));
        guards.chain([Self::UNREADABLE])
    }
}

/// What a guard says: it passes, or why not.
pub(crate) type Answer = Result<(), Objection>;

/// Why a guard does not pass.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Objection {
    /// It refuses; its message.
    Refuses(String),
    /// It lacks a fact; which one, and what to do.
    Unreadable(String),
}

/// A property or another fact that cannot be read.
impl From<String> for Objection {
    fn from(why: String) -> Self {
        Self::Unreadable(why)
    }
}

pub(crate) fn refuse(why: String) -> Answer {
    Err(Objection::Refuses(why))
}

/// Refuses if there is a reason.
fn refuse_for(reason: Option<String>) -> Answer {
    reason.map_or(Ok(()), refuse)
}

/// A guard's name, whether healthy runs warn of it, and its check.
type Row = (&'static str, bool, fn(&Context, &Facts) -> Answer);

/// Checked only while the backend hangs.
const PASSING: bool = false;
/// Also a warning while the backend is healthy: its reason does not pass by itself.
const LASTING: bool = true;

/// Every guard; the first that refuses is named.
const TABLE: &[Row] = &[
    ("not_loaded", LASTING, unit::not_loaded),
    ("not_active", PASSING, unit::not_active),
    ("main_pid", LASTING, unit::main_pid),
    ("too_young", PASSING, unit::too_young),
    ("restarted", PASSING, unit::restarted),
    ("changed", PASSING, unit::changed),
    ("gone", PASSING, unit::gone),
    ("answered", PASSING, sockets::answered),
    ("not_local", LASTING, |context, _| {
        refuse_for(context.not_local.clone())
    }),
    ("foreign_listener", LASTING, sockets::foreign_listener),
    ("not_reached", PASSING, sockets::not_reached),
    ("busy", PASSING, sockets::busy),
    ("no_restart", LASTING, unit::no_restart),
    ("job_queued", PASSING, unit::job_queued),
    ("traced", PASSING, unit::traced),
    ("frozen", PASSING, unit::frozen),
    ("uninterruptible", PASSING, unit::uninterruptible),
    ("starved", PASSING, unit::starved),
    ("manifest_writable", LASTING, |context, _| {
        refuse_for(context.manifest_writable.clone())
    }),
];

/// Whether the process may be signalled, or the refusal of the first guard that does not pass.
pub(super) fn judge(context: &Context, facts: &Facts) -> Result<(), Outcome> {
    for (name, _, check) in TABLE {
        check(context, facts).map_err(|objection| match objection {
            Objection::Refuses(why) => Outcome::Refused(Guard(name), why),
            Objection::Unreadable(why) => {
                let why = format!("{why}; without this a kill is not safe");
                Outcome::Refused(Guard::UNREADABLE, why)
            }
        })?;
    }
    Ok(())
}

/// Each reason why a kill would be refused that shows while the backend is healthy.
pub(super) fn lasting_refusals(context: &Context, facts: &Facts) -> Vec<String> {
    let mut refusals: Vec<String> = Vec::new();
    for (name, _, check) in TABLE.iter().filter(|(_, lasting, _)| *lasting) {
        let Err(Objection::Refuses(why) | Objection::Unreadable(why)) = check(context, facts)
        else {
            continue;
        };
        // Several guards may lack the same fact.
        if !refusals.contains(&why) {
            refusals.push(why);
        }
        // What systemd says of a unit that it has not loaded means nothing.
        if *name == "not_loaded" {
            break;
        }
    }
    refusals
}

/// The main process, for people.
fn the_process(facts: &Facts) -> String {
    match facts.unit.main_pid() {
        Ok(pid @ 1..) => format!("the main process {pid}"),
        _ => "the main process".to_owned(),
    }
}

#[cfg(test)]
mod tests;
