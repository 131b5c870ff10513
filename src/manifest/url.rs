//! The base URL, the addresses below it, and where a redirect leads.

use std::fmt;
use std::fmt::Write as _;
use std::net::Ipv6Addr;
use std::str::FromStr;

use iri_string::types::{UriAbsoluteStr, UriReferenceStr, UriStr};

use super::{BaseUrl, Scheme};
use crate::text::escape;

impl Scheme {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }

    const fn default_port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }
}

impl BaseUrl {
    /// Whether TLS is spoken.
    pub fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// The host: a name, or a number without brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port, said or implied.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The address of `path` below this one, as it goes on the wire: what a URI cannot hold is
    /// percent-encoded (RFC 3986, section 2.1).
    pub fn url(&self, path: &str) -> String {
        let mut url = String::with_capacity(self.origin.len() + self.prefix.len() + path.len());
        url.push_str(&self.origin);
        url.push_str(&self.prefix);
        encode(path, &mut url);
        url
    }

    /// Where `location` leads from `current` (RFC 3986, section 5), without its fragment; only
    /// where that is well-formed, of the same origin (RFC 6454, section 5), and names no user.
    pub fn resolve(&self, current: &str, location: &str) -> Option<String> {
        let mut encoded = String::with_capacity(location.len());
        encode(location, &mut encoded);
        let current = UriAbsoluteStr::new(current).ok()?;
        let target = UriReferenceStr::new(&encoded)
            .ok()?
            .resolve_against(current)
            .to_string();
        let target = UriStr::new(&target).ok()?;
        let authority = target.authority_components()?;
        let host = authority
            .host()
            .trim_start_matches('[')
            .trim_end_matches(']');
        let port = match authority.port() {
            None | Some("") => Some(self.scheme.default_port()),
            Some(port) => port.parse().ok(),
        };
        let same = target
            .scheme_str()
            .eq_ignore_ascii_case(self.scheme.as_str())
            && host.eq_ignore_ascii_case(&self.host)
            && port == Some(self.port)
            && authority.userinfo().is_none();
        if !same {
            return None;
        }
        let path = match target.path_str() {
            "" => "/",
            path => path,
        };
        let query = target
            .query_str()
            .map(|query| format!("?{query}"))
            .unwrap_or_default();
        Some(format!("{}{path}{query}", self.origin))
    }
}

impl fmt::Display for BaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.written)
    }
}

/// Appends `text` to `url`, with whatever a URI cannot hold percent-encoded.
fn encode(text: &str, url: &mut String) {
    for byte in text.bytes() {
        match byte {
            b'"' | b'<' | b'>' | b'\\' | b'^' | b'`' | b'{' | b'|' | b'}' | 0..=b' ' | 0x7f.. => {
                // Writing into a string cannot fail.
                let _ = write!(url, "%{byte:02X}");
            }
            _ => url.push(char::from(byte)),
        }
    }
}

impl FromStr for BaseUrl {
    type Err = String;

    fn from_str(written: &str) -> Result<Self, String> {
        let shown = escape(written);
        let say = |problem: &str| Err(format!("\"{shown}\" {problem}"));
        let example = "such as \"http://127.0.0.1:8000\"";
        let Some((scheme, rest)) = written.split_once("://") else {
            return say(&format!(
                "has no scheme; give http:// or https://, {example}"
            ));
        };
        let scheme = match scheme.to_ascii_lowercase().as_str() {
            "http" => Scheme::Http,
            "https" => Scheme::Https,
            _ => {
                return say(&format!(
                    "has an unknown scheme; give http:// or https://, {example}"
                ));
            }
        };
        if written.chars().any(|c| c.is_whitespace() || c.is_control()) {
            return say("contains white space or control characters; leave them out");
        }
        if rest.contains('?') {
            return say("has a query; give it in the routes' paths");
        }
        if rest.contains('#') {
            return say("has a fragment, which is never sent; leave it out");
        }
        let (authority, prefix) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        if authority.contains('@') {
            // Not shown: what stands before the @ may be a password.
            return Err("has user info; give an Authorization header instead".to_owned());
        }
        let (host, port) = match authority.strip_prefix('[') {
            Some(rest) => rest.split_once(']').unwrap_or((rest, "?")),
            None => authority.split_at(authority.find(':').unwrap_or(authority.len())),
        };
        let known = if authority.starts_with('[') {
            host.parse::<Ipv6Addr>().is_ok()
        } else {
            let name = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
            !host.is_empty() && host.chars().all(name)
        };
        if !known {
            return say(
                "names no host; give a name in ASCII, an IPv4 address or an [IPv6] address",
            );
        }
        let port = match port.strip_prefix(':') {
            None if port.is_empty() => scheme.default_port(),
            Some(digits) if digits.bytes().all(|b| b.is_ascii_digit()) => match digits.parse() {
                Ok(port @ 1..) => port,
                _ => return say("has no valid port; give 1 to 65535"),
            },
            _ => return say("has no valid port; give 1 to 65535"),
        };
        let (open, close) = if host.contains(':') {
            ("[", "]")
        } else {
            ("", "")
        };
        let mut origin = format!("{}://{open}{host}{close}", scheme.as_str());
        if port != scheme.default_port() {
            origin += &format!(":{port}");
        }
        let mut encoded = String::new();
        encode(prefix.trim_end_matches('/'), &mut encoded);
        Ok(Self {
            written: written.to_owned(),
            scheme,
            host: host.to_owned(),
            port,
            origin,
            prefix: encoded,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> BaseUrl {
        text.parse().unwrap()
    }

    #[test]
    fn parts_are_said_or_implied() {
        for (text, host, port, root) in [
            (
                "http://127.0.0.1:8000",
                "127.0.0.1",
                8000,
                "http://127.0.0.1:8000/",
            ),
            (
                "HTTPS://Example.org",
                "Example.org",
                443,
                "https://Example.org/",
            ),
            ("http://[::1]:81/", "::1", 81, "http://[::1]:81/"),
            ("http://h:80/a/b//", "h", 80, "http://h/a/b/"),
        ] {
            let url = url(text);
            assert_eq!((url.host(), url.port()), (host, port));
            assert_eq!(url.url("/"), root);
            assert_eq!(url.to_string(), text);
        }
        assert_eq!(
            url("http://h/p").url("/ä?q=\"%20%"),
            "http://h/p/%C3%A4?q=%22%20%"
        );
    }

    #[test]
    fn what_is_no_base_url_is_refused_with_its_reason() {
        for (text, reason) in [
            ("", "no scheme"),
            ("127.0.0.1:8000", "no scheme"),
            ("ftp://h", "unknown scheme"),
            ("http://", "no host"),
            ("http:///x", "no host"),
            ("http://h?q=1", "query"),
            ("http://h/#f", "fragment"),
            ("http://h:0", "port"),
            ("http://h:65536", "port"),
            ("http://h:+1", "port"),
            ("http://[::1", "port"),
            ("http://[::1]x", "port"),
            ("http://[1.2.3.4]", "no host"),
            ("http://münchen.example", "no host"),
            ("http://a b", "white space"),
        ] {
            let error = text.parse::<BaseUrl>().unwrap_err();
            assert!(error.contains(reason), "{text:?}: {error}");
        }
        let error = "http://me:secret@h".parse::<BaseUrl>().unwrap_err();
        assert!(
            error.contains("user info") && !error.contains("secret"),
            "{error}"
        );
    }

    #[test]
    fn redirects_are_resolved_within_the_origin() {
        let base = url("http://h:8000/app");
        let from = "http://h:8000/app/a/b?q=1";
        for (location, expected) in [
            ("/x", Some("http://h:8000/x")),
            ("c", Some("http://h:8000/app/a/c")),
            ("../c?d#e", Some("http://h:8000/app/c?d")),
            ("?r", Some("http://h:8000/app/a/b?r")),
            ("HTTP://H:8000", Some("http://h:8000/")),
            ("//h:8000/y", Some("http://h:8000/y")),
            ("/ü x", Some("http://h:8000/%C3%BC%20x")),
            ("https://h:8000/x", None),
            ("http://h/x", None),
            ("http://other:8000/x", None),
            ("http://u@h:8000/x", None),
            ("http://[", None),
            ("javascript:alert(1)", None),
        ] {
            assert_eq!(
                base.resolve(from, location).as_deref(),
                expected,
                "{location:?}"
            );
        }
        assert_eq!(
            url("http://h")
                .resolve("http://h/", "http://h:80/x")
                .as_deref(),
            Some("http://h/x")
        );
    }
}
