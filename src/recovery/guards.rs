//! Why a hung backend may have to be left alone. Pure: it judges facts that others gathered.

use std::time::Duration;

use super::facts::{Look, Process, Standing, systemctl};
use super::restart::Policy;
use super::unit::{Property, UnitState, Unreadable};
use super::{Guard, Heard, MainPid};
use crate::clock::Monotonic;
use crate::manifest::{KillSignal, Scope};
use crate::text::escape;

/// A guard's refusal: its name and its sentence.
pub(super) type Refusal = (Guard, String);

type Passed = Result<(), Refusal>;

/// Whether the process may be signalled, or the refusal of the first guard.
pub(super) fn judge(standing: &Standing<'_>, look: &Look<'_>) -> Result<(), Refusal> {
    let name = standing.unit;
    let verdicts = [
        loaded(look.unit, name, standing.scope),
        active(look.unit, name),
        main_pid(look.unit, name, standing.own_pid),
        old_enough(look, standing.min_uptime),
        same_as_probed(look, standing.sweep_began),
        unchanged(look, name),
        still_there(look),
        unanswered(&look.heard),
        restarts(look.unit, name, standing.scope, standing.signal),
        no_job(look.unit, name, standing.scope),
        untraced(&look.process, look.unit),
        unfrozen(look.unit, name, standing.scope),
        not_starved(standing.starved),
        refuse_if(Guard::NotLocal, standing.not_local.as_ref()),
        refuse_if(Guard::ManifestWritable, standing.manifest_writable.as_ref()),
    ];
    let refusals = verdicts.into_iter().filter_map(Result::err);
    refusals.min_by_key(|(guard, _)| *guard).map_or(Ok(()), Err)
}

/// `not_loaded`
pub(super) fn loaded(unit: &UnitState, name: &str, scope: Scope) -> Passed {
    let typed = systemctl(scope);
    match known(&unit.load)?.as_str() {
        "loaded" => Ok(()),
        "not-found" => refuse(
            Guard::NotLoaded,
            format!(
                "{name} does not exist: correct recovery.unit in the manifest (\"{typed} list-units --type=service\" lists the names)"
            ),
        ),
        "masked" => refuse(
            Guard::NotLoaded,
            format!("{name} is masked: \"{typed} unmask {name}\" allows it to run again"),
        ),
        other => refuse(
            Guard::NotLoaded,
            format!(
                "{name} is not loaded (LoadState={}): \"{typed} status {name}\" tells why",
                escape(other)
            ),
        ),
    }
}

fn active(unit: &UnitState, name: &str) -> Passed {
    match known(&unit.active)?.as_str() {
        "active" => Ok(()),
        other => {
            let sub = unit.sub.as_deref().unwrap_or("unknown");
            refuse(
                Guard::NotActive,
                format!(
                    "{name} is not active (ActiveState={}, SubState={}): systemd or somebody is already at work on it",
                    escape(other),
                    escape(sub)
                ),
            )
        }
    }
}

fn main_pid(unit: &UnitState, name: &str, own: u32) -> Passed {
    let pid = *known(&unit.main_pid)?;
    if MainPid::new(pid, own).is_some() {
        return Ok(());
    }
    let why = match pid {
        0 => format!("{name} has no main process (MainPID=0)"),
        1 => {
            format!("the main process of {name} is said to be process 1, which is never signalled")
        }
        _ => format!(
            "the main process of {name} is this very program ({pid}): recovery.unit must name the backend's unit"
        ),
    };
    refuse(Guard::MainPid, why)
}

fn old_enough(look: &Look<'_>, min_uptime: Duration) -> Passed {
    let age = look.at.since(*known(&look.judged().started)?);
    if age >= min_uptime {
        return Ok(());
    }
    refuse(
        Guard::TooYoung,
        format!(
            "{} is {} s old, younger than min_uptime_seconds ({}): it is still starting",
            the_process(look.unit),
            age.as_secs(),
            min_uptime.as_secs_f64()
        ),
    )
}

fn same_as_probed(look: &Look<'_>, sweep_began: Monotonic) -> Passed {
    if *known(&look.judged().started)? <= sweep_began {
        return Ok(());
    }
    refuse(
        Guard::Restarted,
        format!(
            "{} started after this sweep began: it is not the process that hung",
            the_process(look.unit)
        ),
    )
}

fn unchanged(look: &Look<'_>, name: &str) -> Passed {
    let invocation = known(&look.unit.invocation)?;
    let Some(before) = look.before else {
        return Ok(());
    };
    let (was, is) = (known(&before.main_pid)?, known(&look.unit.main_pid)?);
    if was != is {
        return refuse(
            Guard::Changed,
            format!(
                "the main process of {name} changed from {was} to {is} between two looks: it is being restarted"
            ),
        );
    }
    // The number alone proves nothing: the next process may have been given it again.
    if known(&before.invocation)? != invocation {
        return refuse(
            Guard::Changed,
            format!("{name} was started anew between two looks (its InvocationID changed)"),
        );
    }
    Ok(())
}

fn still_there(look: &Look<'_>) -> Passed {
    // systemd notes the start right after the fork, so no main process is younger than that note;
    // the second is for rounding. A younger one has got the number in another way.
    const ROUNDING: Duration = Duration::from_secs(1);
    let process = the_process(look.unit);
    match &look.process {
        Process::Gone(how) => refuse(
            Guard::Gone,
            format!("{process} was gone before the signal: {how}"),
        ),
        Process::Alive(vitals) if vitals.kill_pending => refuse(
            Guard::Gone,
            format!(
                "{process} has been sent a SIGKILL already and has not obeyed yet (state {}){}",
                vitals.state,
                if vitals.state == 'D' {
                    ": it waits for a device or a network file system"
                } else {
                    ""
                }
            ),
        ),
        Process::Alive(vitals)
            if look.at.since(*known(&look.judged().started)?) > vitals.age + ROUNDING =>
        {
            refuse(
                Guard::Gone,
                format!("{process} is younger than systemd's: another process has got its number"),
            )
        }
        Process::None | Process::Hidden | Process::Alive(_) => Ok(()),
    }
}

/// `answered`
pub(super) fn unanswered(heard: &Heard) -> Passed {
    match heard {
        Heard::Nothing => Ok(()),
        Heard::Byte => refuse(
            Guard::Answered,
            "the backend woke up: it answered one more request just before the signal".to_owned(),
        ),
        Heard::Ended(why) => refuse(
            Guard::Answered,
            format!(
                "the backend is not silent any more: it ended one more connection just before the signal ({})",
                escape(why)
            ),
        ),
    }
}

/// `no_restart`
pub(super) fn restarts(unit: &UnitState, name: &str, scope: Scope, signal: KillSignal) -> Passed {
    let policy = Policy {
        restart: *known(&unit.restart)?,
        remains: *known(&unit.remains)?,
        exits_as_group: *known(&unit.exits_as_group)?,
        ignores_failure: *known(&unit.ignores_failure)?,
        success: known(&unit.success)?,
        prevent: known(&unit.prevent)?,
        force: known(&unit.force)?,
    };
    // A process that does not obey SIGABRT gets SIGKILL, so systemd must restart it after both; and
    // whether it will dump core cannot be known.
    let ends: &[(&str, bool)] = match signal {
        KillSignal::Kill => &[("KILL", false)],
        KillSignal::Abort => &[("ABRT", false), ("ABRT", true), ("KILL", false)],
    };
    for &(signal, dumped_core) in ends {
        if let Some(why) = policy.no_restart_after(signal, dumped_core) {
            return refuse(
                Guard::NoRestart,
                format!(
                    "systemd would not restart {name} after SIG{signal} ({why}), so a kill would turn a hang into an outage: \
                     correct it with \"{} edit {name}\"",
                    systemctl(scope)
                ),
            );
        }
    }
    Ok(())
}

fn no_job(unit: &UnitState, name: &str, scope: Scope) -> Passed {
    match known(&unit.job)? {
        None => Ok(()),
        Some(job) => refuse(
            Guard::JobQueued,
            format!(
                "job {} is queued for {name}: somebody is starting or stopping it already (\"{} list-jobs\" shows it)",
                escape(job),
                systemctl(scope)
            ),
        ),
    }
}

fn untraced(process: &Process, unit: &UnitState) -> Passed {
    let process_is = the_process(unit);
    match process {
        Process::Alive(vitals) if vitals.tracer != 0 => refuse(
            Guard::Traced,
            format!(
                "{process_is} is traced by process {}: somebody is at work on it",
                vitals.tracer
            ),
        ),
        Process::Alive(vitals) if vitals.state == 't' => refuse(
            Guard::Traced,
            format!("{process_is} is held by a tracer (state t): somebody is at work on it"),
        ),
        Process::Alive(vitals) if vitals.dumping => refuse(
            Guard::Traced,
            format!("{process_is} is dumping core: leave it the time to finish"),
        ),
        Process::Hidden => refuse(
            Guard::Unreadable,
            format!(
                "/proc does not tell about {process_is}: allow it (ProtectProc=default, and no hidepid= on /proc)"
            ),
        ),
        Process::None | Process::Gone(_) | Process::Alive(_) => Ok(()),
    }
}

fn unfrozen(unit: &UnitState, name: &str, scope: Scope) -> Passed {
    match unit.freezer.as_deref() {
        None | Some("running") => Ok(()),
        Some(other) => refuse(
            Guard::Frozen,
            format!(
                "{name} is frozen (FreezerState={}): \"{} thaw {name}\" lets it run again",
                escape(other),
                systemctl(scope)
            ),
        ),
    }
}

fn not_starved(starved: bool) -> Passed {
    if !starved {
        return Ok(());
    }
    refuse(
        Guard::Starved,
        "this program itself was starved: a core attempt overran its time-out by more than 1 s, so its time-outs prove nothing"
            .to_owned(),
    )
}

/// The refusal that was worked out before the first look, if there is one.
fn refuse_if(guard: Guard, why: Option<&String>) -> Passed {
    why.map_or(Ok(()), |why| refuse(guard, why.clone()))
}

fn refuse(guard: Guard, why: String) -> Passed {
    Err((guard, why))
}

fn known<T>(property: &Property<T>) -> Result<&T, Refusal> {
    property.as_ref().map_err(|Unreadable(why)| {
        (
            Guard::Unreadable,
            format!("{why}, and without it a kill is not safe"),
        )
    })
}

fn the_process(unit: &UnitState) -> String {
    match unit.main_pid {
        Ok(pid @ 1..) => format!("the main process {pid}"),
        _ => "the main process".to_owned(),
    }
}

#[cfg(test)]
mod tests;
