//! The guards: the reasons not to kill a hung backend, as one table. Pure: they judge facts that other modules
//! collected. Refusals, warnings about a healthy backend and the names in reports all come from this table.

mod process;
mod sockets;
mod unit;

pub(super) use self::sockets::late_sign;

use super::facts::{Context, Facts};

/// Why a hung backend is left alone; its fixed name in reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Guard(&'static str);

impl Guard {
    /// The unit is not loaded.
    const NOT_LOADED: Self = Self("not_loaded");
    /// The process was gone before the signal.
    pub(super) const GONE: Self = Self("gone");
    /// The main process, or its last reload, is younger than the minimal uptime.
    #[cfg(test)]
    pub(crate) const TOO_YOUNG: Self = Self("too_young");
    /// A parked request was answered.
    pub(super) const ANSWERED: Self = Self("answered");
    /// The backend is overloaded, not hung.
    const BUSY: Self = Self("busy");
    /// This program itself was kept from running.
    pub(super) const STARVED: Self = Self("starved");
    /// A fact that a guard depends on is missing or unreadable; named in the place of that guard.
    pub(super) const UNREADABLE: Self = Self("unreadable");

    /// The guard's fixed name in reports.
    pub const fn name(self) -> &'static str {
        self.0
    }

    /// Every guard in the order in which they are checked, which is that of the documentation.
    pub fn all() -> impl Iterator<Item = Self> {
        TABLE.iter().map(|row| row.guard).chain([Self::UNREADABLE])
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

/// One guard.
struct Row {
    guard: Guard,
    /// Whether healthy runs warn of it: its reason does not pass by itself.
    lasting: bool,
    check: fn(&Context, &Facts) -> Answer,
}

/// Checked only while the backend hangs.
const PASSING: bool = false;
/// Also a warning while the backend is healthy.
const LASTING: bool = true;

const fn row(name: &'static str, lasting: bool, check: fn(&Context, &Facts) -> Answer) -> Row {
    Row {
        guard: Guard(name),
        lasting,
        check,
    }
}

/// Every guard; the first that refuses is named.
const TABLE: &[Row] = &[
    row("not_loaded", LASTING, unit::not_loaded),
    row("not_active", PASSING, unit::not_active),
    row("main_pid", LASTING, process::main_pid),
    row("too_young", PASSING, process::too_young),
    row("restarted", PASSING, process::restarted),
    row("changed", PASSING, process::changed),
    row("gone", PASSING, process::gone),
    row("answered", PASSING, sockets::answered),
    row("not_local", LASTING, sockets::not_local),
    row("foreign_listener", LASTING, sockets::foreign_listener),
    row("not_reached", PASSING, sockets::not_reached),
    row("busy", PASSING, sockets::busy),
    row("no_restart", LASTING, unit::no_restart),
    row("job_queued", PASSING, unit::job_queued),
    row("traced", PASSING, process::traced),
    row("frozen", PASSING, unit::frozen),
    row("uninterruptible", PASSING, process::uninterruptible),
    row("starved", PASSING, process::starved),
    row("manifest_writable", LASTING, unit::manifest_writable),
];

/// A guard's refusal: its name and its message.
pub(super) type Refusal = (Guard, String);

/// Whether the process may be signalled, or the refusal of the first guard that does not pass.
pub(super) fn judge(context: &Context, facts: &Facts) -> Result<(), Refusal> {
    for row in TABLE {
        match (row.check)(context, facts) {
            Ok(()) => {}
            Err(Objection::Refuses(why)) => return Err((row.guard, why)),
            Err(Objection::Unreadable(why)) => {
                let why = format!("{why}; without this a kill is not safe");
                return Err((Guard::UNREADABLE, why));
            }
        }
    }
    Ok(())
}

/// Each reason why a kill would be refused that shows while the backend is healthy.
pub(super) fn lasting_refusals(context: &Context, facts: &Facts) -> Vec<String> {
    let mut refusals: Vec<String> = Vec::new();
    for row in TABLE.iter().filter(|row| row.lasting) {
        let Err(Objection::Refuses(why) | Objection::Unreadable(why)) = (row.check)(context, facts)
        else {
            continue;
        };
        // Several guards may lack the same fact.
        if !refusals.contains(&why) {
            refusals.push(why);
        }
        // What systemd says of a unit that it has not loaded means nothing.
        if row.guard == Guard::NOT_LOADED {
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
