use std::time::Duration;

use unicode_width::UnicodeWidthStr;

use super::table::{bar, shorten, wrap};
use super::*;
use crate::cause::{ResponseError, SkipReason};
use crate::report::samples::*;

const WIDE_TERMINAL: Appearance = Appearance {
    journal: false,
    columns: 120,
    color: false,
    github: false,
};
const NARROW_TERMINAL: Appearance = Appearance {
    columns: 60,
    ..WIDE_TERMINAL
};
const PLAIN: Appearance = Appearance {
    journal: false,
    columns: usize::MAX,
    color: false,
    github: false,
};
const GITHUB: Appearance = Appearance {
    github: true,
    ..PLAIN
};
const JOURNAL: Appearance = Appearance {
    journal: true,
    ..PLAIN
};

fn shown(report: &Report, appearance: Appearance, quiet: bool) -> String {
    render(report, appearance, quiet)
}

#[test]
fn render_shows_every_route_at_a_terminal_and_keeps_to_its_width() {
    for (name, cases) in [("soft", soft()), ("failing", failing()), ("hung", hung())] {
        with_report(cases, |report| {
            report.recovery = match name {
                "hung" => recovered(),
                _ => report.recovery.clone(),
            };
            report.unit = Some(active());
            for (width, appearance) in [(60, NARROW_TERMINAL), (120, WIDE_TERMINAL)] {
                let text = shown(report, appearance, false);
                let (table, _) = text.rsplit_once("\n\n").unwrap();
                assert!(table.lines().all(|line| line.width() <= width), "{text}");
                assert_golden(&format!("human-{name}-{width}.txt"), &text);
            }
        });
    }
}

#[test]
fn render_annotates_what_is_not_ok_for_github() {
    for cases in [healthy(), soft(), failing(), hung()] {
        with_report(cases, |report| {
            for quiet in [false, true] {
                let (plain, github) = (shown(report, PLAIN, quiet), shown(report, GITHUB, quiet));
                let (commands, others): (Vec<&str>, Vec<&str>) =
                    github.lines().partition(|line| line.starts_with("::"));
                assert_eq!(others, plain.lines().collect::<Vec<_>>());
                let weight = |severity| {
                    report
                        .by_route()
                        .filter(|row| super::severity(*row) == severity)
                        .count()
                };
                let count = |start: &str| commands.iter().filter(|c| c.starts_with(start)).count();
                if !(quiet && report.sweep.verdict.healthy) {
                    assert_eq!(count("::error title="), weight(Severity::Hard), "{github}");
                    assert_eq!(
                        count("::warning title="),
                        weight(Severity::Soft),
                        "{github}"
                    );
                }
                assert!(!commands.iter().any(|line| line.contains('\u{1b}')));
            }
        });
    }
    with_report(failing(), |report| {
        assert_golden("human-failing-github.txt", &shown(report, GITHUB, true));
    });
}

#[test]
fn github_gets_at_most_ten_annotations_of_a_kind_and_the_core_first() {
    let path = |number: usize| format!("/{number}");
    let error = Class::HttpError(ResponseError::Status);
    for (errors, last) in [
        (10, "::error title=/8::"),
        (12, "::error title=3 more routes::"),
    ] {
        let mut cases: Vec<Case> = (0..errors)
            .map(|number| case(&path(number), error, Some(500), 0))
            .collect();
        cases.push(case("/limited", Class::RateLimited, Some(429), 0));
        *cases.get_mut(9).unwrap() = case("/core", error, Some(500), 0).core();
        with_report(cases, |report| {
            let text = shown(report, GITHUB, true);
            let of = |start: &str| -> Vec<String> {
                let lines = text.lines().filter(|line| line.starts_with(start));
                lines.map(str::to_owned).collect()
            };
            let errors = of("::error");
            assert_eq!((errors.len(), of("::warning").len()), (10, 1), "{text}");
            let first = "::error title=/core::core /core: HTTP error 500";
            assert!(errors.first().unwrap().starts_with(first), "{text}");
            assert!(errors.last().unwrap().starts_with(last), "{text}");
        });
    }
}

#[test]
fn skipped_routes_are_counted_where_only_failures_are_shown() {
    let mut cases = hung();
    let error = Class::HttpError(ResponseError::Status);
    cases.extend((0..9).map(|number| {
        let class = Class::Skipped(SkipReason::BackendHung);
        case(&format!("/{number}"), class, None, 0)
    }));
    cases.push(case("/last", error, Some(500), 0));
    with_report(cases, |report| {
        report.recovery = recovered();
        assert_golden("human-hung-quiet.txt", &shown(report, PLAIN, true));
        let journal = shown(report, JOURNAL, false);
        assert!(
            journal.contains("\n<4>(9 more skipped)\n<4>evidence: "),
            "{journal}"
        );
        assert!(shown(report, PLAIN, false).contains("/8\n"));
    });
}

#[test]
fn render_writes_plain_lines_into_a_pipe() {
    with_report(healthy(), |report| {
        assert_golden("human-healthy-plain.txt", &shown(report, PLAIN, false));
    });
    with_report(failing(), |report| {
        assert_golden("human-failing-plain.txt", &shown(report, PLAIN, false));
    });
}

#[test]
fn render_writes_only_what_is_not_ok_to_the_journal_with_levels() {
    with_report(soft(), |report| {
        assert_golden("human-soft-journal.txt", &shown(report, JOURNAL, false));
    });
    with_report(failing(), |report| {
        assert_golden("human-failing-journal.txt", &shown(report, JOURNAL, false));
    });
    with_report(hung(), |report| {
        report.recovery = refused();
        assert_golden("human-hung-journal.txt", &shown(report, JOURNAL, false));
    });
}

#[test]
fn render_is_quiet_while_healthy_and_short_otherwise() {
    with_report(soft(), |report| {
        for appearance in [PLAIN, JOURNAL, WIDE_TERMINAL] {
            assert_eq!(shown(report, appearance, true), "");
        }
    });
    with_report(failing(), |report| {
        assert_golden("human-failing-quiet.txt", &shown(report, PLAIN, true));
    });
}

#[test]
fn render_colors_without_changing_the_text() {
    for cases in [soft(), failing(), hung()] {
        with_report(cases, |report| {
            let colored = shown(
                report,
                Appearance {
                    color: true,
                    ..WIDE_TERMINAL
                },
                false,
            );
            let codes = [
                "\x1b[1m", "\x1b[2m", "\x1b[31m", "\x1b[32m", "\x1b[33m", "\x1b[0m",
            ];
            let stripped = codes
                .iter()
                .fold(colored.clone(), |text, code| text.replace(code, ""));
            assert_ne!(stripped, colored);
            assert_eq!(stripped, shown(report, WIDE_TERMINAL, false));
        });
    }
}

#[test]
fn render_escapes_text_from_servers() {
    with_report(failing(), |report| {
        for appearance in [PLAIN, JOURNAL, NARROW_TERMINAL, WIDE_TERMINAL] {
            assert!(!shown(report, appearance, false).contains('\x1b'));
        }
    });
}

#[test]
fn the_tally_stands_alone_before_verdict_and_recovery() {
    with_report(hung(), |report| {
        report.recovery = refused();
        for appearance in [PLAIN, NARROW_TERMINAL, WIDE_TERMINAL] {
            let text = shown(
                report,
                Appearance {
                    color: true,
                    ..appearance
                },
                false,
            );
            let last: Vec<_> = text.lines().rev().take(3).collect();
            let [recovery, verdict, tally] = last[..] else {
                panic!("{text}")
            };
            let expected = "0 OK, 2 timeout/unreachable, 0 rate-limited, 0 HTTP error, 2 skipped";
            assert_eq!(tally, expected);
            assert!(verdict.contains("unhealthy"));
            assert!(
                recovery.starts_with("\x1b[1m\x1b[31mrecovery: refused\x1b[0m (scidex-api.service"),
                "{recovery}"
            );
        }
    });
}

#[test]
fn bar_grows_with_the_logarithm() {
    let longest = Duration::from_secs(10);
    for (millis, columns) in [
        (0, "╾"),
        (1, "╾"),
        (10, "━━╾"),
        (100, "━━━━━"),
        (99_000, "━━━━━━━━━━"),
    ] {
        assert_eq!(
            bar(Duration::from_millis(millis), longest),
            columns,
            "{millis} ms"
        );
    }
}

#[test]
fn shorten_keeps_both_ends() {
    assert_eq!(shorten("/short", 6), "/short");
    assert_eq!(shorten("/api/search?limit=1", 11), "/api/…mit=1");
    // Each of these characters takes two columns.
    assert_eq!(shorten("/日本語日本語", 8), "/日…語");
}

#[test]
fn wrap_breaks_at_spaces() {
    assert_eq!(wrap("one two three", 8), ["one two", "three"]);
    assert_eq!(wrap("averylongword x", 8), ["averylongword", "x"]);
    assert_eq!(wrap("one two", 0), ["one", "two"]);
    assert_eq!(wrap("one two", usize::MAX), ["one two"]);
    assert_eq!(wrap("", 8), [""]);
}

#[test]
fn the_heading_counts_one_route_as_one() {
    with_report(vec![case("/", Class::Ok, Some(200), 0).core()], |report| {
        let text = shown(report, PLAIN, false);
        assert!(
            text.starts_with("scidex-api at http://127.0.0.1:8000, 1 route of "),
            "{text}"
        );
    });
}
