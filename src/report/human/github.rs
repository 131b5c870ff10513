//! Annotations for GitHub Actions, by its workflow commands
//! (docs.github.com/actions/reference/workflow-commands-for-github-actions). The escaping is that of
//! actions/toolkit, packages/core/src/command.ts.

use crate::cause::Severity;
use crate::escape::escape;
use crate::report::{Report, Row, wording};

/// GitHub drops further annotations of one kind in a step without a word.
const MOST: usize = 10;

pub(super) fn annotations(report: &Report) -> String {
    let mut text = String::new();
    for (command, wanted) in [("error", Severity::Hard), ("warning", Severity::Soft)] {
        let mut rows: Vec<Row> = report.rows_of(wanted).collect();
        rows.sort_by_key(|(route, _)| !route.core);
        // The last annotation counts the rest.
        let shown = if rows.len() > MOST { MOST - 1 } else { MOST };
        for row in rows.iter().copied().take(shown) {
            let title = property(&wording::target(row.0));
            let message = data(&wording::message(row));
            text += &format!("::{command} title={title}::{message}\n");
        }
        if rows.len() > MOST {
            let more = wording::count(rows.len() - shown, "more route");
            text += &format!("::{command} title={more}::the report names all that are not OK\n");
        }
    }
    text
}

/// Text of a command. After [`escape`], it has no line ends.
fn data(text: &str) -> String {
    escape(text).replace('%', "%25")
}

fn property(text: &str) -> String {
    data(text).replace(':', "%3A").replace(',', "%2C")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_ends_neither_a_property_nor_a_line() {
        assert_eq!(data("100%,\r\n::error::x"), "100%25,\\r\\n::error::x");
        assert_eq!(property("/a%20b:c,d\n"), "/a%2520b%3Ac%2Cd\\n");
    }
}
