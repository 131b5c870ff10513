//! Base URLs, the URL of a path, and the target of a redirect. Works on text only, without name resolution or I/O.

use std::fmt;
use std::net::Ipv6Addr;
use std::num::NonZeroU16;
use std::str::FromStr;

use crate::escape::quoted;

/// The largest size in bytes of an absolute URL, which is that of `http::Uri`.
const LONGEST: usize = 65_534;

/// Splits `http://rest` or `https://rest` into whether it is `https`, without regard to case, and the rest.
fn split_scheme(url: &str) -> Option<(bool, &str)> {
    let (scheme, rest) = url.split_once("://")?;
    let is_https = scheme.eq_ignore_ascii_case("https");
    let is_known = is_https || scheme.eq_ignore_ascii_case("http");
    is_known.then_some((is_https, rest))
}

/// The port of a URL that names none.
pub(crate) fn default_port(is_https: bool) -> u16 {
    if is_https { 443 } else { 80 }
}

/// The host and port of an authority: `host`, `host:port`, `[address]` or `[address]:port`.
fn host_and_port(is_https: bool, authority: &str) -> Result<(String, u16), String> {
    let bracket = authority.strip_prefix('[').and_then(|rest| rest.find(']'));
    let end = bracket.map_or_else(|| authority.find(':'), |bracket| Some(bracket + 2));
    let (host, port) = authority.split_at(end.unwrap_or(authority.len()));
    let number = if port.is_empty() {
        NonZeroU16::new(default_port(is_https))
    } else {
        let digits = port.strip_prefix(':').filter(|text| !text.starts_with('+'));
        digits.and_then(|digits| digits.parse().ok())
    };
    let port = number.map(NonZeroU16::get).ok_or_else(|| {
        format!(
            "{} is not a port; give \":\" and a number from 1 to 65535, and put an IPv6 address in brackets, such as \
             \"[::1]\"",
            quoted(port)
        )
    })?;
    Ok((host_name(host)?, port))
}

/// A name, an IPv4 or a bracketed IPv6 address, in lower case. Whether a name exists, the resolver says.
fn host_name(text: &str) -> Result<String, String> {
    let in_name = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
    let is_name = text.len() <= 253 && text.bytes().all(in_name);
    let address = text.strip_prefix('[').and_then(|t| t.strip_suffix(']'));
    let wrong = match address.map(str::parse::<Ipv6Addr>) {
        Some(Ok(address)) => return Ok(format!("[{address}]")),
        Some(Err(_)) => "is not an IPv6 address; give one without a zone, such as \"[::1]\"",
        None if text.is_empty() => "is empty; give one, such as in \"http://127.0.0.1:8000\"",
        None if is_name => return Ok(text.to_ascii_lowercase()),
        None => {
            "is not a DNS name of at most 253 ASCII characters; give a name (in Punycode, \"xn--…\", if it is not \
            ASCII), an IPv4 address, or an IPv6 address in brackets"
        }
    };
    Err(format!("the host {} {wrong}", quoted(text)))
}

/// An `http://` or `https://` address with a host, an optional port and path prefix, and nothing else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BaseUrl {
    written: String,
    /// In lower case, an IPv6 address in brackets.
    host: String,
    port: u16,
    /// Scheme, host and port as they are sent, without a default port.
    origin: String,
    /// The path prefix as it is sent, without a slash at the end.
    prefix: String,
}

impl FromStr for BaseUrl {
    type Err = String;

    /// Reads a base URL (RFC 3986).
    ///
    /// # Errors
    ///
    /// A message that says what is wrong with it and what is allowed; it never contains user info.
    fn from_str(text: &str) -> Result<Self, String> {
        let (is_https, rest) = split_scheme(text)
            .ok_or("is not an HTTP(S) URL; begin it with \"http://\" or \"https://\"")?;
        if rest.chars().any(|c| c.is_whitespace() || c.is_control()) {
            return Err("contains a space or a control character; remove it".to_owned());
        }
        let (authority, tail) = split_before(rest, &['/', '?', '#']);
        // A password may contain the "/" that seems to end the host, so an "@" anywhere hides a message that
        // would quote it.
        let (host, port) = match host_and_port(is_https, authority) {
            Err(_) if text.contains('@') => {
                let message = "has user info before an \"@\"; remove it, and give credentials as a header, such as \
                    \"Authorization\": \"Bearer ${TOKEN}\"";
                return Err(message.to_owned());
            }
            parts => parts?,
        };
        if tail.contains(['?', '#']) {
            return Err("has a query or a fragment; remove it from \"?\" or \"#\" on, and write queries in the paths of \
                the routes".to_owned());
        }
        let scheme = if is_https { "https" } else { "http" };
        let mut origin = format!("{scheme}://{host}");
        if port != default_port(is_https) {
            origin.push_str(&format!(":{port}"));
        }
        Ok(Self {
            written: text.to_owned(),
            host,
            port,
            origin,
            prefix: encoded(tail.trim_end_matches('/')),
        })
    }
}

impl fmt::Display for BaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.written)
    }
}

impl BaseUrl {
    /// Whether it is `https`, not `http`.
    pub fn is_https(&self) -> bool {
        self.origin.starts_with("https:")
    }

    /// The host's name or address, in lower case, an IPv6 address without brackets.
    pub fn host(&self) -> &str {
        self.host.trim_matches(['[', ']'])
    }

    /// The port; the scheme's default where none was written.
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// The absolute URL that is sent for a route's path: pure ASCII, well-formed by RFC 3986.
    pub fn url(&self, path: &str) -> String {
        format!("{}{}{}", self.origin, self.prefix, encoded(path))
    }

    /// Where a redirect from `current_url` (of [`Self::url`] or of this function) to `location`
    /// leads (RFC 3986, section 5): an absolute URL without fragment. None if it leads to another
    /// origin, has user info, cannot be parsed, or is too long.
    pub fn resolve(&self, current_url: &str, location: &str) -> Option<String> {
        let location = location.split('#').next().filter(|text| !text.is_empty())?;
        let (location, query) = split_before(location, &['?']);
        let (current_path, _) = split_before(current_url.strip_prefix(&self.origin)?, &['?']);
        let same_scheme = || split_scheme(location).filter(|(https, _)| *https == self.is_https());
        let absolute = location.strip_prefix("//");
        let path = if let Some(rest) = absolute.or_else(|| same_scheme().map(|(_, rest)| rest)) {
            let (authority, path) = split_before(rest, &['/']);
            let (host, port) = host_and_port(self.is_https(), authority).ok()?;
            if host != self.host || port != self.port {
                return None;
            }
            without_dot_segments(path)
        } else if location.is_empty() {
            current_path.to_owned()
        } else if location.starts_with('/') {
            without_dot_segments(location)
        } else if split_before(location, &['/']).0.contains(':') {
            // Another scheme.
            return None;
        } else {
            let (folder, _) = current_path.rsplit_once('/')?;
            without_dot_segments(&format!("{folder}/{location}"))
        };
        // Some servers write characters that a URI cannot contain, such as Starlette: [] in queries.
        let url = format!("{}{}{}", self.origin, encoded(&path), encoded(query));
        Some(url).filter(|url| url.len() <= LONGEST)
    }
}

/// `text` before the first of these characters, and from there on.
fn split_before<'t>(text: &'t str, stops: &[char]) -> (&'t str, &'t str) {
    text.split_at(text.find(stops).unwrap_or(text.len()))
}

/// An absolute path without the segments `.` and `..` (RFC 3986, section 5.2.4); `/` if it is empty.
fn without_dot_segments(path: &str) -> String {
    let mut kept = Vec::new();
    let mut segments = path.split('/').skip(1).peekable();
    while let Some(segment) = segments.next() {
        // An encoded dot is a dot (section 6.2.2.2).
        let dots = segment.replace("%2e", ".").replace("%2E", ".");
        if dots == ".." {
            kept.pop();
        }
        if dots != "." && dots != ".." {
            kept.push(segment);
        } else if segments.peek().is_none() {
            // It stands for a folder.
            kept.push("");
        }
    }
    format!("/{}", kept.join("/"))
}

/// `text` with every byte percent-encoded that may occur neither in a path nor in a query (RFC 3986, sections
/// 3.3 and 3.4). Existing percent-encoding is kept.
fn encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [byte, tail @ ..] = rest {
        let keep = match byte {
            b'%' => matches!(tail, [a, b, ..] if a.is_ascii_hexdigit() && b.is_ascii_hexdigit()),
            _ => byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@/?".contains(byte),
        };
        if keep {
            encoded.push(char::from(*byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
        rest = tail;
    }
    encoded
}
