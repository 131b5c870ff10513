use super::*;
use crate::cause::TransportError;
use crate::report::Report;
use crate::report::samples::*;

fn verdict_line(cases: Vec<Case>) -> String {
    with_report(cases, |report| {
        let Report {
            manifest,
            results,
            verdict: judged,
            ..
        } = report;
        let (word, rest) = verdict(manifest, results, judged);
        word.to_owned() + &rest
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
        "healthy, but 2 auxiliary routes did not answer"
    );
    assert_eq!(
        verdict_line(soft()),
        "healthy, but 1 auxiliary route did not answer, 1 auxiliary route was not probed and \
         2 routes were rate-limited"
    );
}

#[test]
fn verdict_says_why_a_run_failed() {
    assert_eq!(
        verdict_line(failing()),
        "unhealthy: 1 of 2 core routes did not answer (reset) and 4 routes gave an HTTP \
         error; 1 route was rate-limited"
    );
    assert_eq!(
        verdict_line(hung()),
        "unhealthy: the backend hung: 2 of 2 core routes stayed silent; 2 auxiliary routes \
         were not probed"
    );
    assert_eq!(
        verdict_line(vec![lost("/").core()]),
        "unhealthy: the backend is down: 1 of 1 core routes did not answer (refused)"
    );
    let skipped = case("/", Class::Skipped(SkipReason::Deadline), None, 0).core();
    assert_eq!(
        verdict_line(vec![skipped]),
        "unhealthy: 1 of 1 core routes was not probed"
    );
}

#[test]
fn unhealthy_sweep_rounds_the_remaining_time_up() {
    let cases = vec![
        case("/", Class::Ok, Some(200), 0).core(),
        lost("/b").core(),
        lost("/c").core(),
    ];
    with_report(cases, |report| {
        let Report {
            manifest,
            results,
            verdict,
            ..
        } = report;
        let left = Duration::from_millis(26_100);
        assert_eq!(
            unhealthy_sweep(3, manifest, results, verdict, left),
            "sweep 3: 2 of 3 core routes did not answer (refused); trying again for 27 s"
        );
    });
}

#[test]
fn tally_names_skipped_routes_only_where_there_are_some() {
    let counted = Tally {
        ok: 9,
        rate_limited: 12,
        ..Tally::default()
    };
    assert_eq!(
        tally(&counted),
        "9 OK, 0 timeout/unreachable, 12 rate-limited, 0 HTTP error"
    );
    assert_eq!(
        tally(&Tally {
            skipped: 3,
            ..counted
        }),
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
    let not_configured = Recovery::idle(recovery::Outcome::NotConfigured, None);
    assert_eq!(
        recovery(&not_configured),
        "recovery: not_configured: the manifest has no \"recovery\""
    );
}
