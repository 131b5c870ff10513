use std::sync::mpsc::Sender;

use super::super::samples::{Still, context, member, unit};
use super::*;
use crate::manifest::{Source, Variables};
use crate::skip::skip;

/// The warnings about a healthy backend, changed by `change`.
fn warnings(change: impl Fn(&mut Still, &mut Context)) -> Vec<String> {
    let mut machine = Still::hung();
    machine.parked.clear();
    let mut context = Context {
        hung_since: None,
        ..context()
    };
    change(&mut machine, &mut context);
    about_backend(&context, &machine).warnings
}

#[track_caller]
fn one(change: impl Fn(&mut Still, &mut Context)) -> String {
    let found = warnings(change);
    let [warning] = &found[..] else {
        panic!("{found:#?}");
    };
    warning.clone()
}

#[test]
fn a_healthy_backend_gives_no_warning() {
    assert_eq!(warnings(|_, _| {}), [""; 0]);
}

#[test]
fn the_state_of_the_unit_is_reported() {
    let machine = Still::hung();
    let findings = about_backend(&context(), &machine);
    assert_eq!(findings.warnings, [""; 0]);
    let state = findings.unit.unwrap();
    let words = [&state.name, &state.active_state, &state.sub_state];
    assert_eq!(words, ["demo.service", "active", "running"]);
    // 9,000 s before the machine's time.
    let since = std::time::UNIX_EPOCH + Duration::from_secs(1_000);
    assert_eq!((state.since, state.restarts), (Some(since), Some(0)));
}

#[test]
fn what_would_keep_a_recovery_from_working_is_warned_of() {
    let refused = |machine: &mut Still, _: &mut Context| {
        machine.unit = Ok(unit(&[("Restart", "no")]));
    };
    let warning = one(refused);
    let start = "recovery of demo.service would be refused: ";
    assert!(
        warning.starts_with(start) && warning.contains("Restart=no"),
        "{warning}"
    );
    let failing = one(|machine, _| machine.unit = Err("no systemctl".to_owned()));
    assert_eq!(failing, "recovery of demo.service would fail: no systemctl");
    let denied = one(|machine, _| {
        machine.may_signal = Err(Errno::EPERM);
    });
    let start = "recovery of demo.service would fail: process 4711 cannot be signalled: EPERM";
    assert!(
        denied.starts_with(start) && denied.contains("CAP_KILL"),
        "{denied}"
    );
    assert_eq!(
        warnings(|machine, _| machine.may_signal = Err(Errno::ESRCH)),
        [""; 0]
    );
    let hidden = one(|machine, _| machine.process = MainProcess::Hidden);
    assert!(
        hidden.contains("/proc does not show the main process 4711"),
        "{hidden}"
    );
    let elsewhere = one(|_, context| context.not_local = Some("base_url".to_owned()));
    assert!(
        elsewhere.ends_with("would be refused: base_url"),
        "{elsewhere}"
    );
}

#[test]
fn a_dump_signal_that_no_process_catches_is_warned_of() {
    let with = |caught: u64| {
        warnings(move |machine, context| {
            context.plan.dump_signal = Some(Signal::SIGUSR2);
            let group = machine.group.as_mut().unwrap();
            let mut worker = member(4_712);
            worker.handled = caught;
            group.members.push(worker);
        })
    };
    let [warning] = &with(0)[..] else {
        panic!("one warning")
    };
    assert!(
        warning.contains("no process of it catches SIGUSR2"),
        "{warning}"
    );
    assert!(
        warning.contains("faulthandler.register(signal.SIGUSR2)"),
        "{warning}"
    );
    assert_eq!(with(1 << (libc::SIGUSR2 - 1)), [""; 0]);
}

#[test]
fn stale_units_are_named_with_the_remedy() {
    let stale = one(|machine, _| machine.unit = Ok(unit(&[("NeedDaemonReload", "yes")])));
    assert_eq!(
        stale,
        "demo.service is newer on disk than what systemd has loaded: \"systemctl daemon-reload\" loads it"
    );
    let warnings = about_own("check.service", Scope::User, |name| {
        let triggers = ("TriggeredBy", "check.timer check.path");
        Ok(unit(&[("Id", name), ("NeedDaemonReload", "yes"), triggers]))
    });
    let reload = "is newer on disk than what systemd has loaded: \"systemctl --user daemon-reload\" loads it";
    assert_eq!(
        warnings,
        [
            format!("check.service {reload}"),
            format!("check.timer {reload}")
        ]
    );
    let unseen = about_own("check.service", Scope::User, |_| Err("why".to_owned()));
    assert_eq!(unseen, ["check.service could not be checked: why"]);
}

#[test]
fn a_timer_that_will_not_elapse_again_is_named() {
    for (active, sub, expected) in [
        ("active", "waiting", None),
        ("active", "running", None),
        ("active", "elapsed", Some("OnCalendar=")),
        ("inactive", "dead", Some("enable --now check.timer")),
        ("failed", "failed", Some("enable --now check.timer")),
    ] {
        let timer = unit(&[("ActiveState", active), ("SubState", sub)]);
        let warning = about_timer("check.timer", Scope::System, &timer).join("\n");
        assert_eq!(warning.is_empty(), expected.is_none(), "{sub}: {warning}");
        assert!(
            warning.contains(expected.unwrap_or_default()),
            "{sub}: {warning}"
        );
    }
}

#[test]
fn service_of_reads_the_control_group() {
    let service = |name: &str, scope| Some((name.to_owned(), scope));
    for (cgroup, expected) in [
        (
            "0::/system.slice/check.service\n",
            service("check.service", Scope::System),
        ),
        (
            "0::/user.slice/user-1000.slice/user@1000.service/app.slice/check.service\n",
            service("check.service", Scope::User),
        ),
        (
            "12:pids:/x\n0::/system.slice/a@b.service\n",
            service("a@b.service", Scope::System),
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
        assert_eq!(service_of(cgroup), expected, "{cgroup}");
    }
}

#[test]
fn without_a_unit_nothing_is_checked() {
    if own_service().is_some() {
        return skip("systemd has started the tests, whose service would be checked");
    }
    let text = br#"{"base_url":"http://127.0.0.1:1","routes":[{"path":"/","core":true}]}"#;
    let manifest = Manifest::parse(text, Source::Stdin, None, Variables::MayBeMissing).unwrap();
    let findings = start(&manifest, &Prober::new(&manifest, true).unwrap()).finish(Duration::ZERO);
    assert_eq!(findings.warnings, [""; 0]);
}

fn pending() -> (Sender<Findings>, PendingWarnings) {
    let (sender, findings) = mpsc::channel();
    let pending = PendingWarnings {
        findings,
        units: "api.service".to_owned(),
        cancelled: Arc::default(),
    };
    (sender, pending)
}

fn warning(text: &str) -> Findings {
    vec![text.to_owned()].into()
}

#[test]
fn finish_waits_for_the_end_but_not_indefinitely() {
    let (sender, done) = pending();
    sender.send(warning("one")).unwrap();
    let unit = UnitReport::of("api.service", &unit(&[]), &Still::hung());
    sender
        .send(Findings {
            unit,
            ..warning("two")
        })
        .unwrap();
    drop(sender);
    let findings = done.finish(Duration::ZERO);
    assert_eq!(findings.warnings, ["one", "two"]);
    assert!(findings.unit.is_some());

    let (sender, stuck) = pending();
    sender.send(warning("one")).unwrap();
    let warnings = stuck.finish(Duration::from_millis(30)).warnings;
    assert_eq!(warnings.len(), 2);
    assert!(warnings[1].starts_with("api.service could not be checked in time"));
}

/// The thread that waits for `systemctl` sees the cancellation, ends the call, and ends before `finish` does.
#[test]
fn finish_cancels_a_running_call() {
    let (sender, waiting) = pending();
    let cancelled = Arc::clone(&waiting.cancelled);
    let thread = thread::spawn(move || {
        while !cancelled.load(Ordering::Relaxed) {
            thread::yield_now();
        }
        // The unit's state is known, although a later call was cancelled.
        let late = Findings {
            unit: about_backend(&context(), &Still::hung()).unit,
            ..warning("the call was cancelled")
        };
        sender.send(late).unwrap();
    });
    let findings = waiting.finish(Duration::from_millis(30));
    assert!(thread.is_finished() || thread.join().is_ok());
    let warnings = findings.warnings;
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert!(warnings[0].starts_with("api.service could not be checked in time"));
    assert!(findings.unit.is_some());
}
