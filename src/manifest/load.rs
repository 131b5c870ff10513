//! Reads a manifest from a file or standard input.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde::de::DeserializeSeed;

use super::headers::Variables;
use super::json::Into;
use super::place::{Place, Problems};
use super::raw::RawManifest;
use super::resolve::resolve;
use super::{BaseUrl, Manifest, Source};

/// A manifest is at most this large.
const BYTES_MAX: usize = 8 * 1024 * 1024;

/// Where a manifest is looked for unless one is named.
const DEFAULTS: [&str; 2] = ["routes.json", "/etc/scidex-route-health/routes.json"];

/// How a manifest is read.
#[derive(Clone, Debug)]
pub struct LoadOptions<'a> {
    /// Takes the place of the manifest's own `base_url`.
    pub base_url: Option<BaseUrl>,
    /// Where the variables in header values come from.
    pub variables: Variables<'a>,
}

/// Why there is no manifest.
#[derive(Debug)]
pub enum LoadError {
    /// It could not be read at all; where, and what to do.
    Unreadable(String),
    /// It breaks rules.
    Invalid(Source, Problems),
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable(text) => f.write_str(text),
            Self::Invalid(source, problems) => {
                write!(f, "{source} is no valid manifest:\n{problems}")
            }
        }
    }
}

impl std::error::Error for LoadError {}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stdin => f.write_str("standard input"),
            Self::File { path, .. } => write!(f, "{}", path.display()),
        }
    }
}

impl Manifest {
    /// Reads the manifest that `file` names (`-` for standard input), or the default one.
    ///
    /// # Errors
    ///
    /// Where it cannot be read, is larger than 8 MiB, or breaks a rule; then all its problems are
    /// named, each with its place.
    pub fn load(file: Option<&Path>, options: &LoadOptions) -> Result<Self, LoadError> {
        let (bytes, source) = match file {
            Some(path) if path == "-" => {
                (read(io::stdin().lock(), "standard input")?, Source::Stdin)
            }
            Some(path) => open(path)?,
            None => open(&default_path()?)?,
        };
        match Self::parse(&bytes, source.clone(), options) {
            Ok(manifest) => Ok(manifest),
            Err(problems) => Err(LoadError::Invalid(source, problems)),
        }
    }

    /// Makes a manifest of its text.
    ///
    /// # Errors
    ///
    /// All the problems found, each with its place.
    pub fn parse(bytes: &[u8], source: Source, options: &LoadOptions) -> Result<Self, Problems> {
        let mut problems = Problems::default();
        let text = match std::str::from_utf8(bytes) {
            Ok(text) => text,
            Err(error) => {
                let before = bytes.get(..error.valid_up_to()).unwrap_or_default();
                problems.add_line_and_column(before, "not UTF-8; save the file as UTF-8");
                return Err(problems);
            }
        };
        if text.starts_with('\u{feff}') {
            problems.add_line_and_column(&[], "a byte order mark; save the file without one");
            return Err(problems);
        }
        let mut raw = RawManifest {
            variables: Some(options.variables),
            ..RawManifest::default()
        };
        let mut json = serde_json::Deserializer::from_str(text);
        let target = Into {
            target: &mut raw,
            place: &Place::TOP,
            problems: &mut problems,
        };
        if let Err(error) = target.deserialize(&mut json).and_then(|()| json.end()) {
            problems.add_syntax(&error);
            return Err(problems);
        }
        let mut manifest = resolve(raw, source, problems)?;
        if let Some(base_url) = &options.base_url {
            manifest.base_url = base_url.clone();
        }
        Ok(manifest)
    }
}

/// The default manifest: the one here, else the system's.
fn default_path() -> Result<PathBuf, LoadError> {
    let found = DEFAULTS
        .iter()
        .map(Path::new)
        .find(|path| fs::symlink_metadata(path).is_ok());
    found.map(Path::to_owned).ok_or_else(|| {
        let [here, system] = DEFAULTS;
        LoadError::Unreadable(format!(
            "there is no manifest: neither \"{here}\" in this directory nor \"{system}\"; name one \
             with --manifest FILE"
        ))
    })
}

fn open(path: &Path) -> Result<(Vec<u8>, Source), LoadError> {
    let name = format!("the manifest \"{}\"", path.display());
    let fail = |error: io::Error| LoadError::Unreadable(format!("could not read {name}: {error}"));
    let file = File::open(path).map_err(fail)?;
    // Of the file that was opened, not of the name, which may lead elsewhere by now.
    let facts = file.metadata().map_err(fail)?;
    if facts.is_dir() {
        return Err(LoadError::Unreadable(format!(
            "{name} is a directory; name a file in it"
        )));
    }
    let source = Source::File {
        path: path.to_owned(),
        owner: facts.uid(),
        mode: facts.mode(),
    };
    Ok((read(file, &name)?, source))
}

fn read(from: impl Read, name: &str) -> Result<Vec<u8>, LoadError> {
    let mut bytes = Vec::new();
    from.take(BYTES_MAX as u64 + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| LoadError::Unreadable(format!("could not read {name}: {error}")))?;
    if bytes.len() > BYTES_MAX {
        return Err(LoadError::Unreadable(format!(
            "{name} is larger than 8 MiB; split it"
        )));
    }
    Ok(bytes)
}
