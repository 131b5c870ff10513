//! Parses a manifest's bytes, first into raw values and then into a valid manifest. No I/O.

use serde::de::DeserializeSeed as _;

use super::json::{Context, Reader, Seed};
use super::keys::RawManifest;
use super::load::{LoadOptions, MOST_BYTES};
use super::location::{Location, Problems};
use super::resolve::resolve;
use super::{Manifest, Source};

impl Manifest {
    /// Reads a manifest from its bytes.
    ///
    /// # Errors
    ///
    /// Every problem with its location. A syntax error ends the reading, and is the last one shown.
    pub fn parse(
        bytes: &[u8],
        source: Source,
        options: &LoadOptions<'_>,
    ) -> Result<Self, Problems> {
        let mut context = Context {
            problems: Problems::default(),
            variables: options.variables,
        };
        let Some(text) = text(bytes, &mut context.problems) else {
            return Err(context.problems);
        };
        let mut raw = RawManifest::default();
        let reader = Reader::new(&mut raw, &Location::Top, &mut context);
        let mut json = serde_json::Deserializer::from_str(text);
        match Seed(reader)
            .deserialize(&mut json)
            .and_then(|is_object| json.end().map(|()| is_object))
        {
            Ok(true) => resolve(raw, options.base_url.clone(), source, context.problems),
            Ok(false) => Err(context.problems),
            Err(error) => {
                let (line, column) = position(text, error.line(), error.column());
                let message = error.to_string();
                let message = message
                    .rsplit_once(" at line ")
                    .map_or(&*message, |(what, _)| what);
                context.problems.end(
                    line,
                    column,
                    format_args!("{message}; correct the JSON there"),
                );
                Err(context.problems)
            }
        }
    }
}

/// The text of a manifest, if it is one and not too long.
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
/// from 1 also where the text ends with a line.
fn position(text: &str, line: usize, column: usize) -> (usize, usize) {
    let before = text
        .split('\n')
        .nth(line.saturating_sub(1))
        .and_then(|line| line.get(..column));
    let column = before.map_or(column, |text| text.chars().count());
    (line, column.max(1))
}
