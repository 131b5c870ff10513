//! Warns about problems that would prevent the next recovery or the next run of this program. Runs during
//! the sweep and does not affect the exit status. Changes nothing and sends no signal.

use std::fs;
use std::io::{self, PipeWriter};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use super::observation::{Members, Observation, Process, Sockets, TcpFacts};
use super::systemctl::{Systemctl, systemctl};
use super::tcp_diag::States;
use super::tcp_table::listeners;
use super::unit::UnitState;
use super::{cgroup, dump, guards, host, processes, socket_watch, tcp_owners};
use crate::clock::Monotonic;
use crate::escape::escape;
use crate::manifest::{DumpSignal, Manifest, RecoveryPlan, Scope, Source};

/// How long a cancelled `systemctl` may take to end.
const GIVE_UP: Duration = Duration::from_millis(500);

/// The check of the units, running in the background.
#[derive(Debug)]
pub struct PendingWarnings {
    warnings: Receiver<String>,
    units: String,
    /// Closed to cancel a running `systemctl`.
    cancel: Option<PipeWriter>,
}

/// Starts checking the units that matter to `manifest` and to this program. `resolve` returns the addresses
/// of `base_url`, or a message that says why there are none.
pub fn start(
    manifest: &Manifest,
    resolve: impl FnOnce() -> Result<Vec<SocketAddr>, String> + Send + 'static,
) -> PendingWarnings {
    let subjects = Subjects::of(manifest);
    let units = subjects.names();
    let (sender, warnings) = mpsc::channel();
    let complaint = sender.clone();
    let mut pending = PendingWarnings {
        warnings,
        units,
        cancel: None,
    };
    if pending.units.is_empty() {
        return pending;
    }
    let begin = || {
        let (cancelled, cancel) = io::pipe()?;
        let cancelled = Arc::new(cancelled);
        // Not joined: a call that cannot be cancelled must not delay the report.
        thread::Builder::new().spawn(move || {
            let ask = |scope| Systemctl::new(scope).cancelled_by(&cancelled);
            let show = |unit: &Unit| ask(unit.scope).show(&unit.name);
            subjects.examine(show, lasting_refusals(&ask), resolve, |warning| {
                // The receiver is gone once the report is written.
                let _ = sender.send(warning);
            });
        })?;
        Ok(cancel)
    };
    match begin() {
        Ok(cancel) => pending.cancel = Some(cancel),
        Err::<_, io::Error>(error) => {
            let _ = complaint.send(format!("{} could not be checked: {error}", pending.units));
        }
    }
    pending
}

impl PendingWarnings {
    /// Waits for the warnings, for at most `at_most`.
    pub fn finish(mut self, at_most: Duration) -> Vec<String> {
        let mut warnings = Vec::new();
        if self.collect(at_most, &mut warnings) {
            return warnings;
        }
        drop(self.cancel.take());
        let known = warnings.len();
        self.collect(GIVE_UP, &mut warnings);
        // A cancelled call causes warnings about the cancellation.
        warnings.truncate(known);
        warnings.push(format!(
            "{} could not be checked in time: systemctl, or the lookup of base_url's name, is slow",
            self.units
        ));
        warnings
    }

    /// Collects warnings for at most `at_most`, and returns whether these were all.
    fn collect(&self, at_most: Duration, warnings: &mut Vec<String>) -> bool {
        let until = Monotonic::now() + at_most;
        loop {
            match self.warnings.recv_timeout(until.remaining()) {
                Ok(warning) => warnings.push(warning),
                Err(RecvTimeoutError::Disconnected) => return true,
                Err(RecvTimeoutError::Timeout) => return false,
            }
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Unit {
    pub(super) name: String,
    pub(super) scope: Scope,
}

/// The units to check.
struct Subjects {
    /// The unit that may be killed, and how.
    backend: Option<Backend>,
    /// The unit in which this program runs.
    own: Option<Unit>,
    source: Source,
}

struct Backend {
    unit: Unit,
    plan: RecoveryPlan,
    /// Its port; none with a UNIX socket.
    port: Option<u16>,
}

impl Subjects {
    fn of(manifest: &Manifest) -> Self {
        let backend = manifest.recovery.as_ref().map(|plan| Backend {
            unit: Unit {
                name: plan.unit.as_str().to_owned(),
                scope: plan.scope,
            },
            plan: plan.clone(),
            port: match manifest.unix_socket {
                Some(_) => None,
                None => Some(manifest.base_url.port()),
            },
        });
        // systemd sets it for every process that it starts, systemd.exec(5).
        let under_systemd = std::env::var_os("INVOCATION_ID").is_some();
        let cgroup = || fs::read_to_string("/proc/self/cgroup").ok();
        Self {
            backend,
            own: under_systemd
                .then(cgroup)
                .flatten()
                .and_then(|text| own_unit(&text)),
            source: manifest.source.clone(),
        }
    }

    /// The names of the units, for people; empty if there are none.
    fn names(&self) -> String {
        let backend = self.backend.as_ref().map(|backend| &backend.unit);
        let units = backend.into_iter().chain(&self.own);
        let names: Vec<_> = units.map(|unit| escape(&unit.name)).collect();
        names.join(" and ")
    }

    /// Checks everything, the slowest last, and sends each warning as it is found.
    /// `refusals` checks the running backend.
    fn examine(
        self,
        show: impl Fn(&Unit) -> Result<UnitState, String>,
        refusals: impl Fn(&Backend, &UnitState, &[SocketAddr]) -> Vec<String>,
        resolve: impl FnOnce() -> Result<Vec<SocketAddr>, String>,
        mut warn: impl FnMut(String),
    ) {
        let mut running = None;
        if let Some(backend) = &self.backend {
            let unit = &backend.unit;
            match show(unit) {
                Ok(state) => {
                    stale(unit, &state).into_iter().for_each(&mut warn);
                    running = Some((backend, state));
                }
                Err(why) => warn(format!("recovery of {} would fail: {why}", unit.name)),
            }
        }
        if let Some(own) = &self.own {
            about_own(own, &show).into_iter().for_each(&mut warn);
        }
        let Some(backend) = &self.backend else { return };
        let addresses = match backend.port {
            Some(_) => resolve(),
            None => Ok(Vec::new()),
        };
        if let Some((backend, state)) = running {
            let known = addresses.as_deref().unwrap_or_default();
            refusals(backend, &state, known)
                .into_iter()
                .for_each(&mut warn);
        }
        let elsewhere = backend.port.and_then(|_| host::not_local(&addresses));
        for why in [host::manifest_writable(&self.source), elsewhere]
            .into_iter()
            .flatten()
        {
            warn(would_refuse(&backend.unit, &why));
        }
    }
}

/// Lasting reasons against a recovery, as far as they show while the backend is healthy.
fn lasting_refusals(
    ask: &impl Fn(Scope) -> Systemctl,
) -> impl Fn(&Backend, &UnitState, &[SocketAddr]) -> Vec<String> {
    |backend, state, addresses| {
        let (unit, plan) = (&backend.unit, &backend.plan);
        let mut context = host::context(plan);
        let now = observe(backend, state, &ask(unit.scope));
        if let Ok(Sockets::Tcp(facts)) = &now.sockets {
            let served = addresses.iter().copied();
            context.silent_at = served
                .filter(|&address| !listeners(&facts.table, address).is_empty())
                .collect();
        }
        let refusal = guards::lasting(&context, &now).map(|why| would_refuse(unit, &why));
        let no_stacks = match (plan.dump_signal, &now.process) {
            (Some(signal), Process::Alive(_)) => uncaught(signal, state, &unit.name),
            _ => None,
        };
        refusal.into_iter().chain(no_stacks).collect()
    }
}

/// An observation of the running backend that costs a healthy run little: it assumes that no process of it
/// is being debugged.
fn observe(backend: &Backend, state: &UnitState, systemctl: &Systemctl) -> Observation {
    let at = Monotonic::now();
    let main = *state.main_pid.as_ref().unwrap_or(&0);
    let process = match main {
        0 => Process::None,
        pid => processes::vitals(pid).map_or(Process::Hidden, Process::Alive),
    };
    let group = || state.group.as_ref().map_err(|why| why.0.clone());
    let others = || Ok(cgroup::Hierarchy::find()?.processes(group()?)?.len());
    let manager = process.manager_group();
    let sockets = backend.port.map(|port| {
        let table = socket_watch::dump(&mut None, port, States::Listening)?;
        let owners = tcp_owners::owners(state, manager, systemctl, &table)?;
        Ok(Sockets::Tcp(TcpFacts {
            table,
            owners,
            ..TcpFacts::default()
        }))
    });
    Observation {
        at,
        unit: state.clone(),
        members: others().map(|processes| Members {
            others: processes.saturating_sub(1),
            ..Members::default()
        }),
        sockets: sockets.unwrap_or_else(|| Ok(Sockets::Tcp(TcpFacts::default()))),
        probe: None,
        process,
    }
}

fn uncaught(signal: DumpSignal, state: &UnitState, name: &str) -> Option<String> {
    let group = state.group.as_ref().ok()?;
    let mut processes = processes::statuses(group).ok()?.into_iter();
    if processes.any(|(_, status)| dump::catches(&status, signal)) {
        return None;
    }
    let name_of_signal = signal.name();
    let remedy = match signal {
        DumpSignal::Quit => "a JVM catches it without configuration".to_owned(),
        DumpSignal::Usr1 | DumpSignal::Usr2 => {
            format!(
                "in Python, faulthandler.register(signal.{name_of_signal}) makes a process catch it"
            )
        }
    };
    Some(format!(
        "dump_signal has no effect on {name}: no process of it catches {name_of_signal}; {remedy}"
    ))
}

fn would_refuse(unit: &Unit, why: &str) -> String {
    format!("recovery of {} would be refused: {why}", unit.name)
}

fn about_own(own: &Unit, show: &impl Fn(&Unit) -> Result<UnitState, String>) -> Vec<String> {
    let state = match show(own) {
        Ok(state) => state,
        Err(why) => return vec![not_seen(own, &why)],
    };
    let mut warnings: Vec<_> = stale(own, &state).into_iter().collect();
    for name in state
        .triggered_by
        .iter()
        .filter(|name| name.strip_suffix(".timer").is_some())
    {
        let timer = Unit {
            name: name.clone(),
            scope: own.scope,
        };
        match show(&timer) {
            Ok(state) => warnings.extend(about_timer(&timer, &state)),
            Err(why) => warnings.push(not_seen(&timer, &why)),
        }
    }
    warnings
}

fn about_timer(timer: &Unit, state: &UnitState) -> Vec<String> {
    let (name, typed) = (escape(&timer.name), systemctl(timer.scope));
    // The next elapse time cannot be used: while the service runs, as it does now, it is `infinity` even
    // for a correct timer.
    let over = match (state.active.as_deref(), state.sub.as_deref()) {
        (Ok("active"), Ok("elapsed")) => Some(format!(
            "{name} has elapsed and will not start this program again: give it a recurring time (OnCalendar=), then \"{typed} daemon-reload && {typed} restart {name}\""
        )),
        (Ok("active") | Err(_), _) => None,
        (Ok(other), _) => Some(format!(
            "{name} is not active (ActiveState={}) and will not start this program again: \"{typed} enable --now {name}\" starts it",
            escape(other)
        )),
    };
    stale(timer, state).into_iter().chain(over).collect()
}

/// Also for a timer: a reload is enough to apply its new times.
fn stale(unit: &Unit, state: &UnitState) -> Option<String> {
    (state.stale == Ok(true)).then(|| {
        format!(
            "{} is newer on disk than what systemd has loaded: \"{} daemon-reload\" loads it",
            escape(&unit.name),
            systemctl(unit.scope)
        )
    })
}

fn not_seen(unit: &Unit, why: &str) -> String {
    format!("{} could not be checked: {why}", escape(&unit.name))
}

/// The service in which a process with this `/proc/self/cgroup` runs; none in a session, a scope, or a
/// container.
pub(super) fn own_unit(cgroup: &str) -> Option<Unit> {
    let path = cgroup.lines().find_map(|line| line.strip_prefix("0::"))?;
    let (above, name) = path.rsplit_once('/')?;
    let manager = |part: &str| part.starts_with("user@") && part.ends_with(".service");
    let scope = if above.split('/').any(manager) {
        Scope::User
    } else {
        Scope::System
    };
    name.ends_with(".service").then(|| Unit {
        name: name.to_owned(),
        scope,
    })
}

#[cfg(test)]
mod tests;
