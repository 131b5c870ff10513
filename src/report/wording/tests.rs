use super::*;
use crate::manifest::{Source, Variables};
use crate::recovery::UnitReport;
use crate::report::samples::*;

fn verdict_line(cases: Vec<Case>) -> String {
    with_report(cases, |report| {
        let (_, word, rest) = &conclusion(report)[1];
        format!("{word}{rest}")
    })
}

fn lost(path: &str) -> Case {
    case(
        path,
        Class::TimeoutUnreachable(TransportError::Refused),
        None,
        0,
    )
}

#[test]
fn verdict_counts_soft_results() {
    assert_eq!(verdict_line(healthy()), "healthy: all routes are OK");
    let core = || case("/", Class::Ok, Some(200), 0).core();
    assert_eq!(
        verdict_line(vec![core(), lost("/a"), lost("/b")]),
        "healthy, but 2 other routes did not answer"
    );
    assert_eq!(
        verdict_line(soft()),
        "healthy, but 1 of 2 core routes hit a rate limit; 1 other route could not be probed; \
         1 other route did not answer; 1 other route hit a rate limit"
    );
}

#[test]
fn verdict_names_the_routes_that_failed_a_run() {
    assert_eq!(
        verdict_line(vec![
            lost("/a").core(),
            case("/b", Class::HttpError(ResponseError::Body), Some(200), 0).core(),
            case("/c", Class::HttpError(ResponseError::Status), Some(503), 0).core(),
            case(
                "/head",
                Class::HttpError(ResponseError::Status),
                Some(404),
                0
            ),
            lost("/e"),
        ]),
        "unhealthy: 1 of 3 core routes did not answer (/a: refused); 2 of 3 core routes gave an \
         HTTP error (/b: body, /c: 503); 1 other route gave an HTTP error (HEAD /head: 404); \
         1 other route did not answer"
    );
    assert_eq!(
        verdict_line(hung()),
        "unhealthy: the backend hung: 2 of 2 core routes did not answer (/api/health: timeout, \
         /: timeout); 2 other routes could not be probed"
    );
    let many = ["/a", "/b", "/c", "/d", "/e"];
    assert_eq!(
        verdict_line(many.map(|path| lost(path).core()).into()),
        "unhealthy: the backend is down: 5 of 5 core routes did not answer (/a: refused, \
         /b: refused, /c: refused, 2 more)"
    );
    let skipped = case("/", Class::Skipped(SkipReason::Deadline), None, 0).core();
    assert_eq!(
        verdict_line(vec![skipped]),
        "unhealthy: 1 of 1 core routes could not be probed (/: deadline)"
    );
}

#[test]
fn unhealthy_sweep_says_what_it_waits_for() {
    let line = |cases| {
        with_report(cases, |report| {
            let left = Duration::from_millis(26_100);
            unhealthy_sweep(3, report.manifest, &report.sweep, left)
        })
    };
    let body = Class::HttpError(ResponseError::Body);
    assert_eq!(
        line(vec![
            lost("/soft"),
            case("/a", Class::HttpError(ResponseError::Status), Some(500), 0),
            case("/up", body, Some(200), 4_000)
                .core()
                .detail("\"/version\" is \"1\u{7}\", not \"2\""),
            case("/", Class::Ok, Some(200), 0).core(),
        ]),
        "sweep 3: core /up: wrong body 200 after 4.0 ms, \"/version\" is \"1\\u{7}\", not \"2\" (1 more \
         route failed); trying again for up to 27 s"
    );
    assert_eq!(
        line(vec![
            lost("/b").core(),
            lost("/c").core(),
            lost("/d").core()
        ]),
        "sweep 3: the backend is down: core /b: refused after 0.0 ms (2 more routes failed); \
         trying again for up to 27 s"
    );
}

#[test]
fn heading_names_the_backend_and_its_socket() {
    let of = |more: &str| {
        let text = format!(
            r#"{{"base_url": "http://127.0.0.1:8000", "routes": [{{"path": "/", "core": true}}]{more}}}"#
        );
        let variables = Variables::MayBeMissing;
        heading(&Manifest::parse(text.as_bytes(), Source::Stdin, None, variables).unwrap())
    };
    assert_eq!(of(""), "http://127.0.0.1:8000, 1 route of standard input");
    assert_eq!(
        of(r#", "recovery": {"unit": "api.service"}"#),
        "api at http://127.0.0.1:8000, 1 route of standard input"
    );
    assert_eq!(
        of(r#", "unix_socket": "/run/a.sock""#),
        "http://127.0.0.1:8000 over /run/a.sock, 1 route of standard input"
    );
}

#[test]
fn unit_gives_the_next_command_while_the_backend_is_not_up() {
    let line = |cases, state: &str, sub_state: &str| {
        with_report(cases, |report| {
            report.unit = Some(UnitReport {
                active_state: state.to_owned(),
                sub_state: sub_state.to_owned(),
                ..active()
            });
            unit(report)
        })
    };
    assert_eq!(line(failing(), "active", "running"), None);
    let since = "since 2026-04-23T16:02:11.482Z, restarts: 3";
    let shown = |rest: &str| Some(format!("scidex-api.service: {rest}"));
    assert_eq!(
        line(hung(), "active", "running"),
        shown(&format!("active (running) {since}"))
    );
    let down = || {
        vec![
            lost("/").core(),
            case("/a", Class::Skipped(SkipReason::BackendDown), None, 0),
        ]
    };
    for (state, sub_state, next) in [
        ("inactive", "dead", "next: systemctl start"),
        ("failed", "failed", "next: systemctl status"),
        ("activating", "auto-restart", "next: systemctl status"),
        (
            "active",
            "running",
            "nothing listens at http://127.0.0.1:8000, and systemd will not restart it; next: systemctl restart",
        ),
    ] {
        let expected = shown(&format!(
            "{state} ({sub_state}) {since}; {next} scidex-api.service"
        ));
        assert_eq!(line(down(), state, sub_state), expected);
    }
    let reset = Class::TimeoutUnreachable(TransportError::Reset);
    assert_eq!(
        line(vec![case("/", reset, None, 0).core()], "active", "running"),
        shown(&format!(
            "active (running) {since}; next: systemctl status scidex-api.service"
        ))
    );
}

#[test]
fn tally_names_skipped_routes_only_where_there_are_some() {
    let counted = |skipped| {
        let mut counts = [9, 0, 12, 0, skipped].into_iter();
        tally(Class::NAMES.map(|name| (name, counts.next().unwrap())))
    };
    assert_eq!(
        counted(0),
        "9 OK, 0 timeout/unreachable, 12 rate-limited, 0 HTTP error"
    );
    assert_eq!(
        counted(3),
        "9 OK, 0 timeout/unreachable, 12 rate-limited, 0 HTTP error, 3 skipped"
    );
}

#[test]
fn time_never_needs_more_than_seven_columns() {
    for (micros, expected) in [
        (0, "0.0 ms"),
        (9_949, "9.9 ms"),
        (9_950, "10 ms"),
        (999_499, "999 ms"),
        (999_500, "1.00 s"),
        (9_994_999, "9.99 s"),
        (9_995_000, "10.0 s"),
        (99_949_999, "99.9 s"),
        (99_950_000, "100 s"),
        (86_400_000_000, "86400 s"),
    ] {
        assert_eq!(time(Duration::from_micros(micros)), expected, "{micros} µs");
    }
}

#[test]
fn recovery_names_every_fact_it_has() {
    let recovery = |recovery: &Recovery| {
        let (_, outcome, rest) = super::recovery(recovery);
        outcome + &rest
    };
    assert_eq!(
        recovery(&recovered()),
        "recovery: recovered (scidex-api.service, PID 4242, new PID 4343): killed and \
         restarted; the core answers again after 4.20 s"
    );
    assert_eq!(
        recovery(&refused()),
        "recovery: refused (scidex-api.service, PID 4242, guard too_young): the main process \
         is 30 s old, less than min_uptime_seconds (120)"
    );
    let not_configured = Recovery::default();
    assert_eq!(
        recovery(&not_configured),
        "recovery: not_configured: the manifest has no \"recovery\""
    );
}
