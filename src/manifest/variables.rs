//! `${NAME}` in text of the manifest. No message from this file shows a variable's value.

use std::ffi::OsString;
use std::io::{self, Read as _};
use std::path::Path;

use super::load::open_regular;
use crate::escape::{reason, shortened};

/// The largest credential (systemd's own limit).
const MOST_BYTES: u64 = 1024 * 1024;

/// Where `${NAME}` comes from.
#[derive(Clone, Copy)]
pub enum Variables<'a> {
    /// From the environment, which is this function, or else from the file of that name in the folder that
    /// its `CREDENTIALS_DIRECTORY` names; a variable that is in neither is a problem.
    Required(&'a dyn Fn(&str) -> Option<OsString>),
    /// Not read: nothing will be sent, so a variable may be missing and counts as empty.
    MayBeMissing,
}

impl Variables<'_> {
    /// `written` with every `${NAME}` replaced, and the variables in it, name and value; or what is wrong with it.
    pub(super) fn expand(&self, written: &str) -> Result<(String, Vec<(String, String)>), String> {
        let mut text = String::with_capacity(written.len());
        let mut values = Vec::new();
        let mut rest = written;
        while let Some((literal, reference)) = rest.split_once("${") {
            let Some((name, tail)) = reference.split_once('}').filter(|(name, _)| is_name(name))
            else {
                return Err(
                    "has a \"${\" without a variable name and \"}\" after it; write ${NAME} with letters, digits and \"_\""
                        .to_owned(),
                );
            };
            text.push_str(literal);
            if let Self::Required(environment) = self {
                let value = look_up(name, environment)?;
                text.push_str(&value);
                values.push((name.to_owned(), value));
            }
            rest = tail;
        }
        text.push_str(rest);
        Ok((text, values))
    }
}

fn look_up(name: &str, environment: &dyn Fn(&str) -> Option<OsString>) -> Result<String, String> {
    let shown = shortened(name);
    if let Some(value) = environment(name) {
        return value.into_string().map_err(|_| {
            format!("the environment variable {shown} is not valid UTF-8; correct its value")
        });
    }
    let not_set = format!("the environment variable {shown} is not set");
    let Some(folder) = environment("CREDENTIALS_DIRECTORY") else {
        return Err(format!(
            "{not_set}; set it, or pass a credential of that name (LoadCredential=)"
        ));
    };
    let path = Path::new(&folder).join(name);
    read_credential(&path).map_err(|error| {
        let reason = reason(&error);
        format!("{not_set}, and there is no credential in {path:?}: {reason}; give one of the two")
    })
}

/// The content of a file in `$CREDENTIALS_DIRECTORY`, without the line end that editors and `echo` add.
fn read_credential(path: &Path) -> io::Result<String> {
    let mut value = String::new();
    let mut file = open_regular(path)?.take(MOST_BYTES);
    file.read_to_string(&mut value)?;
    let line = value.strip_suffix('\n').unwrap_or(&value);
    Ok(line.strip_suffix('\r').unwrap_or(line).to_owned())
}

/// Whether `text` is a variable's name (POSIX.1, section 8.1, with lower case as shells allow it).
fn is_name(text: &str) -> bool {
    !text.starts_with(|c: char| c.is_ascii_digit())
        && !text.is_empty()
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}
