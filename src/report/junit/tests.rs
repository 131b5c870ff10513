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
    assert_eq!(
        Xml("a<b>&\"c\"").to_string(),
        "a&lt;b&gt;&amp;&quot;c&quot;"
    );
    assert_eq!(
        Xml("\0\u{1b}\n\u{85}").to_string(),
        "\\u{0}\\u{1b}\\n\\u{85}"
    );
    assert_eq!(Xml("\u{fffe}\u{ffff}").to_string(), "\u{fffd}\u{fffd}");
}
