//! Chooses the proxy for an address from the environment, with the same rules as curl. ureq would use any of
//! the variables for any scheme, and supports only a part of `no_proxy`.

use std::net::IpAddr;

use ureq::Error;
use ureq::unversioned::transport::{
    ConnectProxyConnector, ConnectionDetails, Connector, Transport,
};

use super::failure::Failure;
use crate::cause::{Class, TransportError};
use crate::manifest::{BaseUrl, Scheme};

/// The proxy that `variable` (a lookup in the environment) names for `url`; none if there is none or the
/// host is exempt.
///
/// # Errors
///
/// The kind of proxy is not supported. The message names the variable, but never its value, which may
/// contain a password.
pub(super) fn choose(
    url: &BaseUrl,
    variable: impl Fn(&str) -> Option<String>,
) -> Result<Option<ureq::Proxy>, String> {
    let set = |name: &'static str| {
        let upper = name.to_ascii_uppercase();
        variable(name)
            .map(|value| (name.to_owned(), value))
            .or_else(|| variable(&upper).map(|value| (upper.clone(), value)))
    };
    let own = match url.scheme() {
        Scheme::Http => "http_proxy",
        Scheme::Https => "https_proxy",
    };
    let named = set(own).or_else(|| set("all_proxy"));
    let Some((name, value)) = named.filter(|(_, value)| !value.trim().is_empty()) else {
        return Ok(None);
    };
    if set("no_proxy").is_some_and(|(_, list)| exempt(&list, url.host(), url.port())) {
        return Ok(None);
    }
    let proxy = ureq::Proxy::new(value.trim())
        .map_err(|_| format!("{name}: not the address of a proxy; give http://HOST:PORT"))?;
    match proxy.protocol() {
        ureq::ProxyProtocol::Http => Ok(Some(proxy)),
        _ => Err(format!(
            "{name}: only HTTP proxies are supported; give http://HOST:PORT"
        )),
    }
}

/// Whether `list` (`no_proxy`) exempts `host`. Entries are `*`, a name with all names below it, an address,
/// or a range such as 10.0.0.0/8; each may have a port.
fn exempt(list: &str, host: &str, port: u16) -> bool {
    list.split([',', ' ', '\t'])
        .filter(|entry| !entry.is_empty())
        .any(|entry| {
            if entry == "*" {
                return true;
            }
            if let Ok(address) = host.parse::<IpAddr>() {
                return matches_number(entry, address, port);
            }
            let (name, wanted) = match entry.rsplit_once(':') {
                Some((name, number)) => (name, number.parse().ok()),
                None => (entry, None),
            };
            let name = name
                .trim_start_matches("*.")
                .trim_start_matches('.')
                .to_ascii_lowercase();
            let host = host.to_ascii_lowercase();
            let below = host
                .strip_suffix(&name)
                .is_some_and(|head| head.ends_with('.'));
            (host == name || below) && wanted.is_none_or(|wanted: u16| wanted == port)
        })
}

fn matches_number(entry: &str, address: IpAddr, port: u16) -> bool {
    if let Ok(socket) = entry.parse::<std::net::SocketAddr>() {
        return socket.ip() == address && socket.port() == port;
    }
    let bare = entry.trim_start_matches('[').trim_end_matches(']');
    let Some((network, length)) = bare.split_once('/') else {
        return bare.parse() == Ok(address);
    };
    match (network.parse(), address, length.parse::<u32>()) {
        (Ok(IpAddr::V4(network)), IpAddr::V4(address), Ok(length @ 0..=32)) => {
            let shift = 32 - length;
            u32::from(network).checked_shr(shift) == u32::from(address).checked_shr(shift)
        }
        (Ok(IpAddr::V6(network)), IpAddr::V6(address), Ok(length @ 0..=128)) => {
            let shift = 128 - length;
            u128::from(network).checked_shr(shift) == u128::from(address).checked_shr(shift)
        }
        _ => false,
    }
}

/// Connects through the proxy, if there is one. A failure of the proxy proves nothing about the backend.
#[derive(Debug, Default)]
pub(super) struct ProxyConnector(ConnectProxyConnector);

impl<In: Transport> Connector<In> for ProxyConnector {
    type Out = <ConnectProxyConnector as Connector<In>>::Out;

    fn connect(
        &self,
        details: &ConnectionDetails,
        chained: Option<In>,
    ) -> Result<Option<Self::Out>, Error> {
        self.0.connect(details, chained).map_err(|error| {
            let mut failure = Failure::from(error);
            if failure.class != Class::TimeoutUnreachable(TransportError::Timeout) {
                failure.class = Class::TimeoutUnreachable(TransportError::Network);
            }
            failure.into()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(url: &str, variables: &[(&str, &str)]) -> Result<Option<String>, String> {
        let url = url.parse().unwrap();
        let variable = |name: &str| {
            variables
                .iter()
                .find(|(key, _)| *key == name)
                .map(|(_, value)| (*value).to_owned())
        };
        choose(&url, variable).map(|proxy| proxy.map(|proxy| proxy.uri().to_string()))
    }

    #[test]
    fn the_scheme_chooses_the_variable() {
        let both = [("http_proxy", "http://a:1"), ("HTTPS_PROXY", "http://b:2")];
        assert_eq!(
            chosen("http://x", &both),
            Ok(Some("http://a:1/".to_owned()))
        );
        assert_eq!(
            chosen("https://x", &both),
            Ok(Some("http://b:2/".to_owned()))
        );
        assert_eq!(
            chosen("http://x", &[("https_proxy", "http://b:2")]),
            Ok(None)
        );
        let all = [("all_proxy", "http://c:3")];
        assert_eq!(
            chosen("https://x", &all),
            Ok(Some("http://c:3/".to_owned()))
        );
        assert_eq!(chosen("https://x", &[("https_proxy", " ")]), Ok(None));
    }

    #[test]
    fn a_proxy_of_another_kind_is_refused_without_its_password() {
        for value in ["socks5://me:secret@h:1", "https://me:secret@h:1"] {
            let error = chosen("http://x", &[("http_proxy", value)]).unwrap_err();
            assert_eq!(
                error,
                "http_proxy: only HTTP proxies are supported; give http://HOST:PORT"
            );
        }
        let error = chosen("http://x", &[("ALL_PROXY", "ht!tp://me:secret@h")]).unwrap_err();
        assert!(
            error.contains("ALL_PROXY") && !error.contains("secret"),
            "{error}"
        );
    }

    #[test]
    fn no_proxy_exempts_names_addresses_and_ranges() {
        for (list, host, port, expected) in [
            ("*", "x", 80, true),
            ("example.com", "example.com", 80, true),
            (" example.com ", "api.Example.com", 80, true),
            (".example.com", "api.example.com", 80, true),
            ("*.example.com", "api.example.com", 80, true),
            ("example.com", "badexample.com", 80, false),
            ("example.com:81", "example.com", 80, false),
            ("example.com:80", "example.com", 80, true),
            ("127.0.0.1", "127.0.0.1", 80, true),
            ("127.0.0.1:81", "127.0.0.1", 80, false),
            ("127.0.0.0/8", "127.9.9.9", 80, true),
            ("0.0.0.0/0", "9.9.9.9", 80, true),
            ("10.0.0.0/8", "127.0.0.1", 80, false),
            ("10.0.0.0/33", "10.0.0.1", 80, false),
            ("::1", "::1", 80, true),
            ("[::1]", "::1", 80, true),
            ("fe80::/10", "fe80::1", 80, true),
            ("", "x", 80, false),
        ] {
            assert_eq!(exempt(list, host, port), expected, "{list:?} {host} {port}");
        }
    }
}
