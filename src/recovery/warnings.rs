//! Finds today what would fail in the next hang, or keep this program from being run: beside the
//! sweep, without a say in the exit status. It changes nothing and signals nobody.

use std::fs;
use std::net::SocketAddr;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use super::systemctl::{Systemctl, typed};
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
    let units = subjects.names().join(" and ");
    let (tell, sentences) = mpsc::channel();
    let complaint = tell.clone();
    if !subjects.names().is_empty() {
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

    fn names(&self) -> Vec<&str> {
        let backend = self.backend.as_ref().map(|(unit, _)| unit);
        let units = backend.into_iter().chain(&self.own);
        units.map(|unit| unit.name.as_str()).collect()
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
    refusal.into_iter().chain(stale(unit, state, "")).collect()
}

fn about_own(own: &Unit, show: &impl Fn(&Unit) -> Result<UnitState, String>) -> Vec<String> {
    let state = match show(own) {
        Ok(state) => state,
        Err(why) => return vec![not_seen(own, &why)],
    };
    let mut sentences: Vec<_> = stale(own, &state, "").into_iter().collect();
    for name in state
        .triggered_by
        .iter()
        .filter(|name| name.ends_with(".timer"))
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
    let (name, typed) = (escape(&timer.name), typed(timer.scope));
    // A timer keeps its old times until it is started anew.
    let restart = format!(" && {typed} restart {name}");
    // When it elapses next cannot be asked: while the service runs, as it does now, that is
    // `infinity` for a timer in good order, too.
    let over = match (state.active.as_deref(), state.sub.as_deref()) {
        (Ok("active"), Ok("elapsed")) => Some(format!(
            "{name} has elapsed and will not start this program again: give it a time that recurs (OnCalendar=), then \"{typed} daemon-reload{restart}\""
        )),
        (Ok("active"), _) | (Err(_), _) => None,
        (Ok(other), _) => Some(format!(
            "{name} is not active (ActiveState={}) and will not start this program again: \"{typed} enable --now {name}\" starts it",
            escape(other)
        )),
    };
    stale(timer, state, &restart)
        .into_iter()
        .chain(over)
        .collect()
}

/// `also` is what has to be typed besides.
fn stale(unit: &Unit, state: &UnitState, also: &str) -> Option<String> {
    (state.stale == Ok(true)).then(|| {
        format!(
            "{} is newer on disk than what systemd has loaded: \"{} daemon-reload{also}\" loads it",
            escape(&unit.name),
            typed(unit.scope)
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
mod tests {
    use std::sync::mpsc::Sender;

    use super::super::unit::tests::RUNNING;
    use super::*;

    fn unit(name: &str, scope: Scope) -> Unit {
        Unit {
            name: name.to_owned(),
            scope,
        }
    }

    /// A healthy unit, with `to` in the place of `from`.
    fn state(changes: &[(&str, &str)]) -> UnitState {
        let mut text = RUNNING.to_owned();
        for (from, to) in changes {
            assert!(text.contains(from), "{from}");
            text = text.replace(from, to);
        }
        UnitState::parse(text.as_bytes()).unwrap()
    }

    const RESTARTS: (&str, &str) = (
        "RestartPreventExitStatus=1 3 ABRT",
        "RestartPreventExitStatus=",
    );

    fn examine(
        subjects: Subjects,
        show: impl Fn(&Unit) -> Result<UnitState, String>,
        address: &str,
    ) -> Vec<String> {
        let mut sentences = Vec::new();
        let address = address.parse().unwrap();
        subjects.examine(
            show,
            || Ok(vec![address]),
            |sentence| sentences.push(sentence),
        );
        sentences
    }

    fn both() -> Subjects {
        Subjects {
            backend: Some((unit("api.service", Scope::User), KillSignal::Kill)),
            own: Some(unit("check.service", Scope::System)),
            source: Source::Stdin,
        }
    }

    #[test]
    fn examine_is_silent_where_all_is_well() {
        let sentences = examine(both(), |_| Ok(state(&[RESTARTS])), "127.0.0.1:8000");
        assert_eq!(sentences, [""; 0]);
    }

    #[test]
    fn examine_names_every_stale_unit_and_the_cure() {
        let stale = |_: &Unit| Ok(state(&[("NeedDaemonReload=no", "NeedDaemonReload=yes")]));
        assert_eq!(
            examine(both(), stale, "127.0.0.1:8000"),
            [
                "api.service is newer on disk than what systemd has loaded: \"systemctl --user daemon-reload\" loads it",
                "check.service is newer on disk than what systemd has loaded: \"systemctl daemon-reload\" loads it",
                "demo.timer is newer on disk than what systemd has loaded: \"systemctl daemon-reload && systemctl restart demo.timer\" loads it",
            ]
        );
    }

    #[test]
    fn examine_finds_what_would_keep_a_recovery_from_working() {
        let alone = |show: &dyn Fn() -> Result<UnitState, String>, source, address: &str| {
            let subjects = Subjects {
                own: None,
                source,
                ..both()
            };
            examine(subjects, |_| show(), address).join("\n")
        };
        let here = "127.0.0.1:8000";
        for (change, expected) in [
            (
                ("LoadState=loaded", "LoadState=not-found"),
                "would be refused: api.service does not exist",
            ),
            (("Restart=always", "Restart=no"), "(Restart=no)"),
            (
                ("Restart=always", "Restart=on-failure"),
                "SuccessExitStatus= names SIGKILL",
            ),
            (("Restart=always\n", ""), "did not tell Restart="),
        ] {
            let told = alone(&|| Ok(state(&[change])), Source::Stdin, here);
            assert!(told.contains(expected), "{told}");
            assert!(
                told.starts_with("recovery of api.service would be refused: "),
                "{told}"
            );
            assert_eq!(told.lines().count(), 1, "{told}");
        }
        let passing = [
            ("ActiveState=active", "ActiveState=inactive"),
            ("MainPID=30", "MainPID=0"),
        ];
        assert_eq!(alone(&|| Ok(state(&passing)), Source::Stdin, here), "");
        assert_eq!(
            alone(&|| Err("no systemctl".to_owned()), Source::Stdin, here),
            "recovery of api.service would fail: no systemctl"
        );
        let told = alone(&|| Ok(state(&[])), Source::Stdin, "192.0.2.1:80");
        assert!(
            told.contains("of api.service would be refused: base_url does not"),
            "{told}"
        );
        if nix::unistd::geteuid().is_root() {
            let source = Source::File {
                path: "/etc/routes.json".into(),
                owner: 0,
                mode: 0o100_666,
            };
            let told = alone(&|| Ok(state(&[])), source, here);
            assert!(
                told.contains("of api.service would be refused: the manifest"),
                "{told}"
            );
        }
    }

    #[test]
    fn about_timer_finds_one_that_will_not_elapse_again() {
        let timer = unit("check.timer", Scope::System);
        for (active, sub, expected) in [
            ("active", "waiting", None),
            ("active", "running", None),
            ("active", "elapsed", Some("OnCalendar=")),
            ("inactive", "dead", Some("enable --now check.timer")),
            ("failed", "failed", Some("enable --now check.timer")),
        ] {
            let state = state(&[
                ("ActiveState=active", &format!("ActiveState={active}")),
                ("SubState=running", &format!("SubState={sub}")),
            ]);
            let told = about_timer(&timer, &state).join("\n");
            assert_eq!(told.is_empty(), expected.is_none(), "{sub}: {told}");
            assert!(told.contains(expected.unwrap_or_default()), "{sub}: {told}");
        }
    }

    #[test]
    fn own_unit_reads_the_control_group() {
        for (cgroup, expected) in [
            (
                "0::/system.slice/check.service\n",
                Some(unit("check.service", Scope::System)),
            ),
            (
                "0::/user.slice/user-1000.slice/user@1000.service/app.slice/check.service\n",
                Some(unit("check.service", Scope::User)),
            ),
            (
                "12:pids:/x\n0::/system.slice/a@b.service\n",
                Some(unit("a@b.service", Scope::System)),
            ),
            ("0::/user.slice/user-0.slice/session-3.scope\n", None),
            (
                "0::/user.slice/user-1000.slice/user@1000.service/app.slice/term.scope\n",
                None,
            ),
            ("0::/\n", None),
            ("1:name=systemd:/system.slice/x.service\n", None),
            ("", None),
        ] {
            assert_eq!(own_unit(cgroup), expected, "{cgroup}");
        }
    }

    fn watch() -> (Sender<String>, Watch) {
        let (tell, sentences) = mpsc::channel();
        let units = "api.service".to_owned();
        (tell, Watch { sentences, units })
    }

    #[test]
    fn finish_waits_for_the_end_but_not_for_ever() {
        let (tell, done) = watch();
        tell.send("one".to_owned()).unwrap();
        tell.send("two".to_owned()).unwrap();
        drop(tell);
        assert_eq!(done.finish(Duration::ZERO), ["one", "two"]);

        let (tell, stuck) = watch();
        tell.send("one".to_owned()).unwrap();
        let sentences = stuck.finish(Duration::from_millis(30));
        assert_eq!(sentences.len(), 2);
        assert!(sentences[1].starts_with("api.service could not be looked at in time"));
    }
}
