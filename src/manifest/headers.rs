//! Request headers: which names are allowed, and values with the environment's variables put in.
//! No value is ever part of a message: it may be a secret.

use std::ffi::OsString;

/// Where `${NAME}` in a header's value is looked up.
#[derive(Clone, Copy)]
pub enum Variables<'a> {
    /// In this environment; a missing variable is an error.
    Required(&'a dyn Fn(&str) -> Option<OsString>),
    /// Nowhere: only the manifest itself is of interest, and any variable may be missing.
    Ignored,
}

impl std::fmt::Debug for Variables<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Required(_) => "Required",
            Self::Ignored => "Ignored",
        })
    }
}

/// Checks a header's name: a token (RFC 9110, section 5.6.2), and none that the program itself, or
/// HTTP's framing, depends on.
pub(super) fn name(name: &str) -> Result<(), &'static str> {
    const OURS: [&str; 9] = [
        "connection",
        "content-length",
        "expect",
        "keep-alive",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    ];
    let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    if name.is_empty() || !name.bytes().all(token) {
        return Err("not a header's name; give letters, digits and hyphens");
    }
    if name.eq_ignore_ascii_case("user-agent") {
        return Err("not set here; give \"user_agent\" at the top of the manifest");
    }
    if OURS.iter().any(|ours| name.eq_ignore_ascii_case(ours)) {
        return Err("decides how HTTP itself works, and is not for a manifest; leave it out");
    }
    Ok(())
}

/// Puts the environment's variables into a header's value.
pub(super) fn expand(text: &str, variables: Variables) -> Result<String, String> {
    let mut value = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("${") {
        value.push_str(before);
        let Some((name, tail)) = after.split_once('}').filter(|(name, _)| is_variable(name)) else {
            return Err("a \"${\" without a variable's name and \"}\"; write ${NAME}".to_owned());
        };
        value.push_str(&look_up(name, variables)?);
        rest = tail;
    }
    value.push_str(rest);
    // A value is visible characters, spaces and tabs (RFC 9110, section 5.5); more than that could
    // end the header and begin another.
    if value.chars().any(|c| c != '\t' && c.is_control()) {
        return Err("the value contains control characters; leave them out".to_owned());
    }
    Ok(value.trim_matches([' ', '\t']).to_owned())
}

fn look_up(name: &str, variables: Variables) -> Result<String, String> {
    let Variables::Required(environment) = variables else {
        return Ok(String::new());
    };
    let value = environment(name)
        .ok_or_else(|| format!("the environment has no variable \"{name}\"; set it"))?;
    value
        .into_string()
        .map_err(|_| format!("the variable \"{name}\" is not UTF-8 text"))
}

fn is_variable(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expanded(text: &str) -> Result<String, String> {
        let environment = |name: &str| match name {
            "TOKEN" => Some("s3cret".into()),
            "EVIL" => Some("s3cret\r\nX: y".into()),
            "_9" => Some(OsString::new()),
            _ => None,
        };
        expand(text, Variables::Required(&environment))
    }

    #[test]
    fn expand_puts_variables_in() {
        assert_eq!(expanded("Bearer ${TOKEN}").unwrap(), "Bearer s3cret");
        assert_eq!(expanded("${TOKEN}${_9}${TOKEN}").unwrap(), "s3crets3cret");
        assert_eq!(expanded(" $TOKEN {x} $ \t").unwrap(), "$TOKEN {x} $");
        assert_eq!(expand("a${MISSING}b", Variables::Ignored).unwrap(), "ab");
    }

    #[test]
    fn expand_complains_without_the_value() {
        for (text, reason) in [
            ("s3cret ${MISSING}", "no variable \"MISSING\""),
            ("s3cret ${", "write ${NAME}"),
            ("s3cret ${9A}", "write ${NAME}"),
            ("s3cret ${}", "write ${NAME}"),
            ("${EVIL}", "control characters"),
            ("s3cret\n", "control characters"),
        ] {
            let error = expanded(text).unwrap_err();
            assert!(
                error.contains(reason) && !error.contains("s3cret"),
                "{text:?}: {error}"
            );
        }
    }

    #[test]
    fn names_are_tokens_that_do_not_frame() {
        for good in ["X-Token", "Host", "accept", "x_y.z"] {
            assert_eq!(name(good), Ok(()));
        }
        for bad in ["", "a b", "ä", "a:", "Content-Length", "TE", "user-agent"] {
            assert!(name(bad).is_err(), "{bad:?}");
        }
    }
}
