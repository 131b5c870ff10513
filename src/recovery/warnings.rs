//! Warns about problems that would prevent the next recovery or the next run of this program. Runs during
//! the sweep and does not affect the exit status. Changes nothing and sends no signal.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::signal::Signal;

use super::cgroup::path_of;
use super::facts::{Context, Facts, Gatherer, MainProcess};
use super::machine::{Host, Machine};
use super::sockets::Place;
use super::sockets::queue::QueueHistory;
use super::systemd::{Systemctl, Unit, systemctl};
use super::{UnitReport, guards, machine, stacks, steps};
use crate::clock::Monotonic;
use crate::escape::escape;
use crate::manifest::{Manifest, Scope};
use crate::sweep::Prober;

/// How long a cancelled `systemctl` may take to end.
const GIVE_UP: Duration = Duration::from_millis(500);

/// The check of the units, running in the background.
#[derive(Debug)]
pub struct PendingWarnings {
    findings: Receiver<Findings>,
    units: String,
    /// Set to cancel a running `systemctl`.
    cancelled: Arc<AtomicBool>,
}

/// What the check has found.
#[derive(Debug, Default)]
pub struct Findings {
    /// Sentences that name the unit.
    pub warnings: Vec<String>,
    /// The state of the recovery unit, if it was asked for in time.
    pub unit: Option<UnitReport>,
}

impl From<Vec<String>> for Findings {
    fn from(warnings: Vec<String>) -> Self {
        let unit = None;
        Self { warnings, unit }
    }
}

/// Starts checking the units that matter to `manifest` and to this program.
pub fn start(manifest: &Manifest, prober: &Prober<'_>) -> PendingWarnings {
    let own = own_service();
    let plan = manifest.recovery.clone();
    let names: Vec<_> = (plan.iter().map(|plan| plan.unit.as_str()))
        .chain(own.iter().map(|(name, _)| &**name))
        .map(|name| escape(name).into_owned())
        .collect();
    let (sender, findings) = mpsc::channel();
    let pending = PendingWarnings {
        findings,
        units: names.join(" and "),
        cancelled: Arc::default(),
    };
    if names.is_empty() {
        return pending;
    }
    let cancelled = Arc::clone(&pending.cancelled);
    let ask = move |scope| Systemctl::new(scope, Arc::clone(&cancelled));
    let backend = plan.map(|plan| {
        let machine = Machine {
            systemctl: ask(plan.scope),
            place: Place::of(manifest),
            unix_peers: Box::new(prober.unix_peers()),
            hung: None,
        };
        (plan, machine)
    });
    let (source, over_tcp) = (manifest.source.clone(), manifest.unix_socket.is_none());
    let (resolve, complaint) = (prober.lookup(), sender.clone());
    // Not joined: a call that cannot be cancelled must not delay the report.
    let thread = thread::Builder::new().spawn(move || {
        // The receiver is gone once the report is written.
        let send = |findings| drop(sender.send(findings));
        if let Some((name, scope)) = own {
            send(about_own(&name, scope, |unit| ask(scope).show(unit)).into());
        }
        if let Some((plan, machine)) = backend {
            let context = machine::context(plan, &source, over_tcp.then(resolve));
            send(about_backend(&context, &machine));
        }
    });
    if let Err(error) = thread {
        let warning = format!("{} could not be checked: {error}", pending.units);
        drop(complaint.send(vec![warning].into()));
    }
    pending
}

impl PendingWarnings {
    /// Waits for the findings, for at most `at_most`.
    pub fn finish(self, at_most: Duration) -> Findings {
        let mut findings = Findings::default();
        if !self.collect(at_most, &mut findings) {
            self.cancelled.store(true, Ordering::Relaxed);
            // A cancelled call causes warnings about the cancellation.
            let mut late = Findings::default();
            self.collect(GIVE_UP, &mut late);
            findings.unit = findings.unit.or(late.unit);
            findings.warnings.push(format!(
                "{} could not be checked in time: systemctl, or the lookup of base_url's name, is slow",
                self.units
            ));
        }
        findings
    }

    /// Collects findings for at most `at_most`, and returns whether these were all.
    fn collect(&self, at_most: Duration, findings: &mut Findings) -> bool {
        let until = Monotonic::now() + at_most;
        loop {
            match self.findings.recv_timeout(until.remaining()) {
                Ok(more) => {
                    findings.warnings.extend(more.warnings);
                    findings.unit = findings.unit.take().or(more.unit);
                }
                Err(why) => return why == RecvTimeoutError::Disconnected,
            }
        }
    }
}

/// What would prevent the recovery of the backend, or take something else along.
fn about_backend<H: Host>(context: &Context, host: &H) -> Findings {
    let unit = context.unit();
    let mut gatherer = Gatherer::new(context, host, QueueHistory::default());
    let facts = match gatherer.observe() {
        Ok(facts) => facts,
        Err(why) => return vec![format!("recovery of {unit} would fail: {why}")].into(),
    };
    let mut warnings = Vec::from_iter(stale(unit, context.plan.scope, &facts.unit));
    for why in guards::lasting_refusals(context, &facts) {
        warnings.push(format!("recovery of {unit} would be refused: {why}"));
    }
    if let Some(main) = gatherer.main
        && let Err(why) = host.signal(&main.process, None)
        && why != Errno::ESRCH
    {
        let why = steps::not_permitted(main.pid.get(), why);
        warnings.push(format!("recovery of {unit} would fail: {why}"));
    }
    warnings.extend(no_stacks(context, &facts));
    // If facts are missing, a refusal says so.
    if let Ok(restart) = facts.restart(context) {
        warnings.extend(restart.restart_warnings());
    }
    Findings {
        warnings,
        unit: UnitReport::of(unit, &facts.unit, host),
    }
}

/// A `dump_signal` that no process of the unit catches.
fn no_stacks(context: &Context, facts: &Facts) -> Option<String> {
    let signal = context.plan.dump_signal?;
    let MainProcess::Alive(_) = facts.process else {
        return None;
    };
    let mut members = facts.group.as_ref().ok()?.members.iter();
    if members.any(|member| stacks::catches(member.handled, signal)) {
        return None;
    }
    let (name, name_of_signal) = (context.unit(), signal.as_str());
    let remedy = if signal == Signal::SIGQUIT {
        "a JVM catches it without configuration".to_owned()
    } else {
        format!(
            "in Python, faulthandler.register(signal.{name_of_signal}) makes a process catch it; restart the backend after that"
        )
    };
    Some(format!(
        "dump_signal has no effect on {name}: no process of it catches {name_of_signal}; {remedy}"
    ))
}

/// What is wrong with the service `own`, in which this program runs, and with its timers.
fn about_own(own: &str, scope: Scope, show: impl Fn(&str) -> Result<Unit, String>) -> Vec<String> {
    let not_seen = |name, why| format!("{} could not be checked: {why}", escape(name));
    let unit = match show(own) {
        Ok(unit) => unit,
        Err(why) => return vec![not_seen(own, why)],
    };
    let mut warnings = Vec::from_iter(stale(own, scope, &unit));
    for name in unit.triggered_by(".timer") {
        match show(name) {
            Ok(timer) => warnings.extend(about_timer(name, scope, &timer)),
            Err(why) => warnings.push(not_seen(name, why)),
        }
    }
    warnings
}

fn about_timer(name: &str, scope: Scope, timer: &Unit) -> Vec<String> {
    let (shown, typed) = (escape(name), systemctl(scope));
    // The next elapse time cannot be used: while the service runs, as it does now, it is `infinity` even
    // for a correct timer.
    let over = match (timer.text("ActiveState"), timer.text("SubState")) {
        (Ok("active"), Ok("elapsed")) => Some(format!(
            "{shown} has elapsed and will not start this program again: give it a recurring time (OnCalendar=), then \"{typed} daemon-reload && {typed} restart {shown}\""
        )),
        (Ok("active") | Err(_), _) => None,
        (Ok(other), _) => Some(format!(
            "{shown} is not active (ActiveState={}) and will not start this program again: \"{typed} enable --now {shown}\" starts it",
            escape(other)
        )),
    };
    stale(name, scope, timer).into_iter().chain(over).collect()
}

/// Also for a timer: a reload is enough to apply its new times.
fn stale(name: &str, scope: Scope, unit: &Unit) -> Option<String> {
    let (name, typed) = (escape(name), systemctl(scope));
    (unit.flag("NeedDaemonReload") == Ok(true)).then(|| {
        format!("{name} is newer on disk than what systemd has loaded: \"{typed} daemon-reload\" loads it")
    })
}

/// The service in which this process runs, if systemd started it, and its manager.
fn own_service() -> Option<(String, Scope)> {
    // systemd sets it for every process that it starts, systemd.exec(5).
    std::env::var_os("INVOCATION_ID")?;
    service_of(&fs::read_to_string("/proc/self/cgroup").ok()?)
}

/// The service in which a process with this `/proc/self/cgroup` runs; none in a session, a scope, or a container.
pub(super) fn service_of(cgroup: &str) -> Option<(String, Scope)> {
    let (above, name) = path_of(cgroup)?.rsplit_once('/')?;
    let manager = |part: &str| part.starts_with("user@") && part.ends_with(".service");
    let scope = if above.split('/').any(manager) {
        Scope::User
    } else {
        Scope::System
    };
    name.ends_with(".service").then(|| (name.to_owned(), scope))
}

#[cfg(test)]
mod tests;
