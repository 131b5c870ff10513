use super::*;
use crate::report::samples::*;

fn shown(report: &Report) -> String {
    render(report)
}

#[test]
fn render_writes_every_series_on_every_run() {
    with_report(failing(), |report| {
        assert_golden("failing.prom", &shown(report));
    });
    with_report(hung(), |report| {
        report.recovery = recovered();
        report.unit = Some(active());
        report.core_only = true;
        assert_golden("hung.prom", &shown(report));
    });
}

#[test]
fn label_escapes_special_characters() {
    assert_eq!(label(r#"/a"b\c"#), r#"/a\"b\\c"#);
    assert_eq!(label("a\nb"), "a\\nb");
    assert_eq!(label("/plain?a=1"), "/plain?a=1");
}
