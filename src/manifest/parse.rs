//! Parses a manifest's bytes. No I/O.

use super::json::Json;
use super::load::{LoadOptions, MOST_BYTES};
use super::problems::{Context, Invalid, Location, Problems};
use super::routes::RawRoutes;
use super::{Manifest, Source, keys};

impl Manifest {
    /// Reads a manifest from its bytes.
    ///
    /// # Errors
    ///
    /// Every problem with its location. A syntax error ends the parsing and is the last problem shown.
    pub fn parse(
        bytes: &[u8],
        source: Source,
        options: &LoadOptions<'_>,
    ) -> Result<Self, Problems> {
        let mut context = Context::new(options.variables);
        let Some(text) = text(bytes, &mut context.problems) else {
            return Err(context.problems);
        };
        let mut routes = RawRoutes::new(options.variables);
        let (json, read) = Json::parse(text, "routes", &mut |route| routes.push(&route));
        let base_url = options.base_url.clone();
        let manifest = keys::manifest(&json, routes, base_url, source, &mut context);
        let mut problems = context.problems;
        if let Err(error) = read {
            let (line, column) = position(text, error.line(), error.column());
            let message = error.to_string();
            let message = message
                .rsplit_once(" at line ")
                .map_or(&*message, |(what, _)| what);
            problems.end(
                line,
                column,
                format_args!("{message}; correct the JSON there"),
            );
        }
        match manifest {
            Ok(manifest) if problems.count() == 0 => Ok(manifest),
            Ok(_) | Err(Invalid) => Err(problems),
        }
    }
}

/// The text of a manifest, if it is valid UTF-8, not empty and not too long.
fn text<'a>(bytes: &'a [u8], problems: &mut Problems) -> Option<&'a str> {
    if bytes.len() > MOST_BYTES {
        problems.add(&Location::Top, "exceeds the 8 MiB limit; split it in two");
        return None;
    }
    if bytes.starts_with("\u{feff}".as_bytes()) {
        let message = "starts with a byte order mark; save the file as UTF-8 without it";
        problems.end(1, 1, message);
        return None;
    }
    if bytes.trim_ascii().is_empty() {
        problems.add(
            &Location::Top,
            "is empty; give an object with \"base_url\" and \"routes\"",
        );
        return None;
    }
    match std::str::from_utf8(bytes) {
        Ok(text) => Some(text),
        Err(error) => {
            let valid = bytes.get(..error.valid_up_to()).unwrap_or_default();
            let valid = String::from_utf8_lossy(valid);
            let line = valid.split('\n').count();
            let column = valid
                .rsplit('\n')
                .next()
                .map_or(0, |text| text.chars().count())
                + 1;
            problems.end(line, column, "is not UTF-8; save the file as UTF-8");
            None
        }
    }
}

/// The line and the column that serde_json reports, the column in characters instead of bytes, and
/// counted from 1 also where the text ends with a newline.
fn position(text: &str, line: usize, column: usize) -> (usize, usize) {
    let before = text
        .split('\n')
        .nth(line.saturating_sub(1))
        .and_then(|line| line.get(..column));
    let column = before.map_or(column, |text| text.chars().count());
    (line, column.max(1))
}
