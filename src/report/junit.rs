//! The report as JUnit XML, as Jenkins and GitLab read it: hard results are failures, soft ones are skipped cases.

#[cfg(test)]
mod tests;

use super::{Report, Row, severity, timestamp, wording};
use crate::cause::Severity;
use crate::escape::escape;

/// The report as one suite with one case for each route.
pub(super) fn render(report: &Report) -> String {
    let count = |wanted| report.rows_of(wanted).count();
    let (failures, skipped) = (count(Severity::Hard), count(Severity::Soft));
    let counts = format!(
        r#"tests="{}" failures="{failures}" errors="0" time="{:.3}""#,
        report.sweep.results.len(),
        report.elapsed.as_secs_f64(),
    );
    let (name, started) = (xml(&report.manifest.name), timestamp(report.started_at));
    let cases: String = report.by_route().map(case).collect();
    let conclusion = wording::conclusion(report).into_iter();
    let mut summary: Vec<String> = conclusion.map(|(_, first, rest)| first + &rest).collect();
    summary.extend(wording::unit(report));
    summary.push(wording::heading(report.manifest));
    let out = lines("system-out", &summary);
    let err = lines("system-err", &report.warnings);
    // Jenkins' junit-10.xsd allows "skipped" in <testsuite> only.
    format!(
        r#"<?xml version="1.0" encoding="UTF-8"?>
<testsuites name="scidex-route-health" {counts}>
  <testsuite name="{name}" timestamp="{started}" {counts} skipped="{skipped}">
{cases}{out}{err}  </testsuite>
</testsuites>
"#
    )
}

fn case((route, result): Row) -> String {
    let case = format!(
        r#"    <testcase name="{} {}" classname="{}" time="{:.6}""#,
        route.options.method.as_str(),
        xml(&route.path),
        if route.core { "core" } else { "auxiliary" },
        result.elapsed.as_secs_f64(),
    );
    let element = match severity((route, result)) {
        Severity::Fine => return case + "/>\n",
        Severity::Soft => "skipped",
        Severity::Hard => "failure",
    };
    let message = wording::result(result, "");
    let (class, message) = (result.class.name(), xml(&message));
    format!("{case}><{element} type=\"{class}\" message=\"{message}\"/></testcase>\n")
}

fn lines(element: &str, lines: &[String]) -> String {
    if lines.is_empty() {
        return String::new();
    }
    let lines = lines.iter().map(|line| xml(line) + "\n");
    let lines: String = lines.collect();
    format!("    <{element}>{lines}</{element}>\n")
}

/// Text that is safe in an attribute and between tags. XML 1.0 cannot represent most control characters, so
/// they are escaped as in the human report; U+FFFE and U+FFFF are no characters there (section 2.2).
fn xml(text: &str) -> String {
    let text = escape(text).replace('&', "&amp;").replace('"', "&quot;");
    let text = text.replace('<', "&lt;").replace('>', "&gt;");
    text.replace(['\u{FFFE}', '\u{FFFF}'], "\u{FFFD}")
}
