use super::*;
use crate::report::samples::*;

fn shown(report: &Report) -> String {
    render(report)
}

#[test]
fn render_writes_failures_and_skipped_cases() {
    with_report(failing(), |report| {
        assert_golden("failing.junit.xml", &shown(report));
    });
    with_report(hung(), |report| {
        report.recovery = refused();
        report.warnings = vec!["<scidex-api.service>: Restart=no".to_owned()];
        assert_golden("hung.junit.xml", &shown(report));
    });
}

#[test]
fn xml_escapes_markup_and_invalid_characters() {
    assert_eq!(xml("a<b>&\"c\""), "a&lt;b&gt;&amp;&quot;c&quot;");
    assert_eq!(xml("\0\u{1b}\n\u{85}"), "\\u{0}\\u{1b}\\n\\u{85}");
    assert_eq!(xml("\u{fffe}\u{ffff}"), "\u{fffd}\u{fffd}");
}
