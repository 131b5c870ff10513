//! The keys that a route and `defaults` have in common, with their rules and defaults.

use std::time::Duration;

use super::headers::headers;
use super::json::Json;
use super::reader::{Node, Object};
use super::rules::{seconds, whole, word};
use super::{Header, Method, Options};

const MIB: u32 = 1024 * 1024;

impl Default for Options {
    fn default() -> Self {
        Self {
            method: Method::Get,
            expect: Vec::new(),
            timeout: Duration::from_secs(10),
            retries: 2,
            backoff: Duration::from_millis(500),
            max_redirects: 0,
            headers: Vec::new(),
            max_body_bytes: MIB as usize,
        }
    }
}

impl Options {
    /// The options that an object sets, the others as in `base`.
    pub(super) fn read(keys: &mut Object<'_, '_>, base: &Self) -> Self {
        let methods = [Method::Get, Method::Head].map(|method| (method.as_str(), method));
        Self {
            method: keys.value_or("method", base.method, word(&methods)),
            expect: keys.value_or("expect", base.expect.clone(), expect),
            timeout: keys.value_or("timeout_seconds", base.timeout, seconds(None, 3600)),
            retries: keys.value_or("retries", base.retries, whole(0, 10)),
            backoff: keys.value_or("retry_backoff_seconds", base.backoff, seconds(Some(0), 60)),
            max_redirects: keys.value_or("max_redirects", base.max_redirects, whole(0, 20)),
            headers: replace(&base.headers, keys.value("headers", headers)),
            max_body_bytes: keys.value_or(
                "max_body_bytes",
                base.max_body_bytes,
                whole(1, 16 * MIB),
            ),
        }
    }
}

fn expect(list: &Node<'_>) -> Result<Vec<u16>, String> {
    let Json::Array(items) = list.json else {
        return Err(list
            .json
            .wrong_type("give a list of statuses, such as [200, 301]"));
    };
    if items.is_empty() {
        let message = "is empty; give at least one status, or leave the key out for any 2xx or 3xx";
        return Err(message.to_owned());
    }
    let mut statuses = Vec::new();
    for (index, item) in items.iter().enumerate() {
        let item = list.item(index, item);
        let status = item.check(whole(200, 599)(&item));
        statuses.extend(status.filter(|status| !statuses.contains(status)));
    }
    Ok(statuses)
}

/// The inherited headers, each replaced by an own one of the same name.
fn replace(inherited: &[Header], own: Option<Vec<Header>>) -> Vec<Header> {
    let own = own.unwrap_or_default();
    let is_replaced = |name: &str| own.iter().any(|own| own.name.eq_ignore_ascii_case(name));
    let kept = inherited.iter().filter(|header| !is_replaced(&header.name));
    kept.cloned().chain(own.iter().cloned()).collect()
}
