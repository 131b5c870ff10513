//! Finds today what would fail in the next hang, or keep this program from being run: beside the
//! sweep, without a say in the exit status. It changes nothing and signals nobody.

use std::fs;
use std::net::SocketAddr;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use super::facts::systemctl;
use super::systemctl::Systemctl;
use super::unit::UnitState;
use super::{guards, host};
use crate::clock::Monotonic;
use crate::manifest::{KillSignal, Manifest, Scope, Source};
use crate::text::escape;

/// The look at the units, under way in the background.
#[derive(Debug)]
pub struct Watch {
    sentences: Receiver<String>,
    units: String,
}

/// Begins to look at the units that matter to `manifest` and to this program. `resolve` gives the
/// addresses that `base_url` leads to, or a sentence that says why there are none.
pub fn start(
    manifest: &Manifest,
    resolve: impl FnOnce() -> Result<Vec<SocketAddr>, String> + Send + 'static,
) -> Watch {
    let subjects = Subjects::of(manifest);
    let units = subjects.names();
    let (tell, sentences) = mpsc::channel();
    let complaint = tell.clone();
    if !units.is_empty() {
        // Not joined: a systemctl that hangs must not keep the report waiting.
        let begun = thread::Builder::new().spawn(move || {
            let show = |unit: &Unit| Systemctl::new(unit.scope).show(&unit.name);
            subjects.examine(show, resolve, |sentence| {
                // Nobody listens any more once the report is written.
                let _ = tell.send(sentence);
            });
        });
        if let Err(error) = begun {
            let _ = complaint.send(format!("{units} could not be looked at: {error}"));
        }
    }
    Watch { sentences, units }
}

impl Watch {
    /// The warnings, waited for `at_most` so long.
    pub fn finish(self, at_most: Duration) -> Vec<String> {
        let until = Monotonic::now() + at_most;
        let mut sentences = Vec::new();
        loop {
            match self.sentences.recv_timeout(until.remaining()) {
                Ok(sentence) => sentences.push(sentence),
                Err(RecvTimeoutError::Disconnected) => return sentences,
                Err(RecvTimeoutError::Timeout) => {
                    sentences.push(format!(
                        "{} could not be looked at in time: systemctl, or the look-up of base_url's name, is slow",
                        self.units
                    ));
                    return sentences;
                }
            }
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Unit {
    pub(super) name: String,
    pub(super) scope: Scope,
}

/// What is looked at.
struct Subjects {
    /// The unit that may be killed, and how.
    backend: Option<(Unit, KillSignal)>,
    /// The unit that this program runs in.
    own: Option<Unit>,
    source: Source,
}

impl Subjects {
    fn of(manifest: &Manifest) -> Self {
        let backend = manifest.recovery.as_ref().map(|plan| {
            let unit = Unit {
                name: plan.unit.as_str().to_owned(),
                scope: plan.scope,
            };
            (unit, plan.signal)
        });
        // systemd sets it for whatever it starts, systemd.exec(5).
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

    /// The names of the units, for people; empty where there are none.
    fn names(&self) -> String {
        let backend = self.backend.as_ref().map(|(unit, _)| unit);
        let units = backend.into_iter().chain(&self.own);
        let names: Vec<_> = units.map(|unit| escape(&unit.name)).collect();
        names.join(" and ")
    }

    /// Looks at everything, what may take longest last, and tells each sentence as it is found.
    fn examine(
        self,
        show: impl Fn(&Unit) -> Result<UnitState, String>,
        resolve: impl FnOnce() -> Result<Vec<SocketAddr>, String>,
        mut tell: impl FnMut(String),
    ) {
        if let Some((unit, signal)) = &self.backend {
            match show(unit) {
                Ok(state) => about_backend(unit, *signal, &state)
                    .into_iter()
                    .for_each(&mut tell),
                Err(why) => tell(format!("recovery of {} would fail: {why}", unit.name)),
            }
        }
        if let Some(own) = &self.own {
            about_own(own, &show).into_iter().for_each(&mut tell);
        }
        if let Some((unit, _)) = &self.backend {
            let writable = host::manifest_writable(&self.source);
            let elsewhere = host::not_local(&resolve());
            for why in [writable, elsewhere].into_iter().flatten() {
                tell(would_refuse(unit, &why));
            }
        }
    }
}

fn about_backend(unit: &Unit, signal: KillSignal, state: &UnitState) -> Vec<String> {
    let refusal = guards::loaded(state, &unit.name, unit.scope)
        .and_then(|()| guards::restarts(state, &unit.name, unit.scope, signal))
        .err()
        .map(|(_, why)| would_refuse(unit, &why));
    refusal.into_iter().chain(stale(unit, state)).collect()
}

fn about_own(own: &Unit, show: &impl Fn(&Unit) -> Result<UnitState, String>) -> Vec<String> {
    let state = match show(own) {
        Ok(state) => state,
        Err(why) => return vec![not_seen(own, &why)],
    };
    let mut sentences: Vec<_> = stale(own, &state).into_iter().collect();
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
            Ok(state) => sentences.extend(about_timer(&timer, &state)),
            Err(why) => sentences.push(not_seen(&timer, &why)),
        }
    }
    sentences
}

fn about_timer(timer: &Unit, state: &UnitState) -> Vec<String> {
    let (name, typed) = (escape(&timer.name), systemctl(timer.scope));
    // When it elapses next cannot be asked: while the service runs, as it does now, that is
    // `infinity` for a timer in good order, too.
    let over = match (state.active.as_deref(), state.sub.as_deref()) {
        (Ok("active"), Ok("elapsed")) => Some(format!(
            "{name} has elapsed and will not start this program again: give it a time that recurs (OnCalendar=), then \"{typed} daemon-reload && {typed} restart {name}\""
        )),
        (Ok("active") | Err(_), _) => None,
        (Ok(other), _) => Some(format!(
            "{name} is not active (ActiveState={}) and will not start this program again: \"{typed} enable --now {name}\" starts it",
            escape(other)
        )),
    };
    stale(timer, state).into_iter().chain(over).collect()
}

/// Of a timer, too: a reload alone gives it its new times.
fn stale(unit: &Unit, state: &UnitState) -> Option<String> {
    (state.stale == Ok(true)).then(|| {
        format!(
            "{} is newer on disk than what systemd has loaded: \"{} daemon-reload\" loads it",
            escape(&unit.name),
            systemctl(unit.scope)
        )
    })
}

fn would_refuse(unit: &Unit, why: &str) -> String {
    format!("recovery of {} would be refused: {why}", unit.name)
}

fn not_seen(unit: &Unit, why: &str) -> String {
    format!("{} could not be looked at: {why}", escape(&unit.name))
}

/// The service that the process with this `/proc/self/cgroup` runs in; none in a session, a
/// scope, or a container.
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
