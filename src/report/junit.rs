//! The report as JUnit XML, in the format that Jenkins and GitLab read: hard results are failures,
//! soft ones are skipped cases. Written by hand, because quick-junit holds all cases in memory and
//! there may be 100,000.

#[cfg(test)]
mod tests;

use std::fmt;
use std::io::{self, Write};

use super::{Report, timestamp, wording};
use crate::cause::Severity;
use crate::escape::escape;
use crate::manifest::Route;
use crate::verdict::ProbeResult;

/// Writes the report as one suite with one case for each route.
///
/// # Errors
///
/// `out` cannot be written.
pub(super) fn render(report: &Report, out: &mut dyn Write) -> io::Result<()> {
    let of = |wanted| {
        let severities = report.by_route().map(|(r, o)| o.class.severity(r.core));
        severities.filter(|severity| *severity == wanted).count()
    };
    let (failures, skipped) = (of(Severity::Hard), of(Severity::Soft));
    let counts = format!(
        r#"tests="{}" failures="{failures}" errors="0" time="{:.3}""#,
        report.results.len(),
        report.elapsed.as_secs_f64(),
    );
    let name = report.manifest.base_url.to_string();
    let (name, started) = (Xml(&name), timestamp(report.started_at));
    writeln!(out, r#"<?xml version="1.0" encoding="UTF-8"?>"#)?;
    writeln!(out, r#"<testsuites name="scidex-route-health" {counts}>"#)?;
    // Not on <testsuites>, where Jenkins' junit-10.xsd does not allow it.
    writeln!(
        out,
        r#"  <testsuite name="{name}" timestamp="{started}" {counts} skipped="{skipped}">"#
    )?;
    for (route, result) in report.by_route() {
        case(route, result, out)?;
    }
    let (word, rest) = wording::verdict(report.manifest, &report.results, &report.verdict);
    let mut summary = format!("{}\n{word}{rest}", wording::tally(&report.verdict.tally));
    if report.verdict.hung() {
        summary += &format!("\n{}", wording::recovery(&report.recovery));
    }
    lines("system-out", summary.lines(), out)?;
    lines(
        "system-err",
        report.warnings.iter().map(String::as_str),
        out,
    )?;
    writeln!(out, "  </testsuite>\n</testsuites>")
}

fn case(route: &Route, result: &ProbeResult, out: &mut dyn Write) -> io::Result<()> {
    let element = match result.class.severity(route.core) {
        Severity::Fine => None,
        Severity::Soft => Some("skipped"),
        Severity::Hard => Some("failure"),
    };
    write!(
        out,
        r#"    <testcase name="{} {}" classname="{}" time="{:.6}""#,
        route.options.method.as_str(),
        Xml(&route.path),
        if route.core { "core" } else { "auxiliary" },
        result.elapsed.as_secs_f64(),
    )?;
    let Some(element) = element else {
        return writeln!(out, "/>");
    };
    let message = wording::result(result, "");
    let (class, message) = (result.class.name(), Xml(&message));
    writeln!(
        out,
        r#"><{element} type="{class}" message="{message}"/></testcase>"#
    )
}

fn lines<'a>(
    element: &str,
    lines: impl Iterator<Item = &'a str>,
    out: &mut dyn Write,
) -> io::Result<()> {
    let mut lines = lines.peekable();
    if lines.peek().is_none() {
        return Ok(());
    }
    write!(out, "    <{element}>")?;
    for line in lines {
        writeln!(out, "{}", Xml(line))?;
    }
    writeln!(out, "</{element}>")
}

/// Text that is safe in an attribute and between tags. XML 1.0 cannot represent most control characters, so
/// they are escaped as in the human report.
struct Xml<'a>(&'a str);

impl fmt::Display for Xml<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for character in escape(self.0).chars() {
            match character {
                '&' => f.write_str("&amp;")?,
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '"' => f.write_str("&quot;")?,
                // Not characters in XML 1.0, section 2.2.
                '\u{FFFE}' | '\u{FFFF}' => f.write_str("\u{FFFD}")?,
                other => write!(f, "{other}")?,
            }
        }
        Ok(())
    }
}
