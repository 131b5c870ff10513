//! Parses a manifest's bytes. No I/O.

use std::collections::BTreeSet;

use super::json::Json;
use super::load::{LoadOptions, MOST_BYTES};
use super::problems::{Context, Problems};
use super::{Manifest, Source, keys, syntax};

impl Manifest {
    /// Reads a manifest from its bytes.
    ///
    /// # Errors
    ///
    /// Every problem with its place, or the first error in the JSON.
    pub fn parse(
        bytes: &[u8],
        source: Source,
        options: &LoadOptions<'_>,
    ) -> Result<Self, Problems> {
        let json = match tree(bytes) {
            Ok(json) => json,
            Err(problem) => {
                let mut problems = Problems::new(&source);
                problems.push(problem);
                return Err(problems);
            }
        };
        let mut context = Context {
            variables: options.variables,
            route: None,
            problems: Problems::new(&source),
            invalid: BTreeSet::new(),
        };
        match keys::manifest(&json, options.base_url.clone(), source, &mut context) {
            Some(manifest) if context.problems.count() == 0 => Ok(manifest),
            Some(_) | None => Err(context.problems),
        }
    }
}

/// The JSON in `bytes`.
fn tree(bytes: &[u8]) -> Result<Json, String> {
    if bytes.len() > MOST_BYTES {
        return Err("manifest: exceeds the 8 MiB limit; split it in two".to_owned());
    }
    if bytes.trim_ascii().is_empty() {
        let message = "manifest: is empty; give an object with \"base_url\" and \"routes\"";
        return Err(message.to_owned());
    }
    if bytes.starts_with("\u{feff}".as_bytes()) {
        let message = "starts with a byte order mark; save the file as UTF-8 without it";
        return Err(format!("{}: {message}", syntax::place("")));
    }
    let text = std::str::from_utf8(bytes).map_err(|error| {
        let valid = bytes.get(..error.valid_up_to()).unwrap_or_default();
        let place = syntax::place(&String::from_utf8_lossy(valid));
        format!("{place}: is not UTF-8; save the file as UTF-8")
    })?;
    serde_json::from_str(text).map_err(|error| syntax::message(text, &error))
}
