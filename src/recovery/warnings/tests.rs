use std::sync::mpsc::Sender;

use super::super::unit::tests::RUNNING;
use super::*;
use crate::skip::skip_unless_ci;

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
            "demo.timer is newer on disk than what systemd has loaded: \"systemctl daemon-reload\" loads it",
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
        (
            ("ExitType=main", "ExitType=cgroup"),
            "(ExitType=cgroup waits",
        ),
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
    if !nix::unistd::geteuid().is_root() {
        return skip_unless_ci(
            "only a run that may kill any process minds who may write the manifest",
        );
    }
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
