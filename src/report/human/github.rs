//! Annotations for GitHub Actions, by its workflow commands
//! (docs.github.com/actions/reference/workflow-commands-for-github-actions). The escaping is that of
//! actions/toolkit, packages/core/src/command.ts.

use crate::cause::Severity;
use crate::escape::escape;
use crate::manifest::Route;
use crate::report::wording;
use crate::verdict::ProbeResult;

/// The line that annotates a run with a route that is not OK.
pub(super) fn annotation(route: &Route, result: &ProbeResult, message: &str) -> Option<String> {
    let command = match result.class.severity(route.core) {
        Severity::Fine => return None,
        Severity::Soft => "warning",
        Severity::Hard => "error",
    };
    let title = property(&escape(&wording::target(route)));
    Some(format!("::{command} title={title}::{}", data(message)))
}

fn data(text: &str) -> String {
    text.replace('%', "%25")
        .replace('\r', "%0D")
        .replace('\n', "%0A")
}

fn property(text: &str) -> String {
    data(text).replace(':', "%3A").replace(',', "%2C")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_ends_neither_a_property_nor_a_line() {
        assert_eq!(data("100%,\r\n::error::x"), "100%25,%0D%0A::error::x");
        assert_eq!(property("/a%20b:c,d\n"), "/a%2520b%3Ac%2Cd%0A");
    }
}
