//! The keys that a route and `defaults` have in common, with their rules and defaults.

use std::time::Duration;

use super::headers::headers;
use super::json::Json;
use super::object::Object;
use super::problems::Context;
use super::rules::{seconds, seconds_up_to, whole, word};
use super::{Expect, Method, Options};

const MIB: u32 = 1024 * 1024;

impl Default for Options {
    fn default() -> Self {
        Self {
            method: Method::Get,
            expect: Expect::Success,
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
    /// The options that an object sets, the others as they are inherited.
    pub(super) fn read(keys: &mut Object<'_, '_>, inherited: &Self) -> Self {
        let mut options = inherited.clone();
        let methods = [Method::Get, Method::Head].map(|method| (method.as_str(), method));
        keys.set(&mut options.method, "method", word(&methods));
        if let Some(statuses) = keys.part("expect", statuses) {
            options.expect = Expect::Listed(statuses);
        }
        keys.set(&mut options.timeout, "timeout_seconds", seconds_up_to(3600));
        keys.set(&mut options.retries, "retries", whole(0, 10));
        keys.set(
            &mut options.backoff,
            "retry_backoff_seconds",
            seconds(0, 60),
        );
        keys.set(&mut options.max_redirects, "max_redirects", whole(0, 20));
        if let Some(own) = keys.part("headers", headers) {
            let replaced = |name: &str| own.iter().any(|own| own.name.eq_ignore_ascii_case(name));
            options.headers.retain(|header| !replaced(&header.name));
            options.headers.extend(own);
        }
        keys.set(
            &mut options.max_body_bytes,
            "max_body_bytes",
            whole(1, 16 * MIB),
        );
        options
    }
}

/// Reads a list of acceptable statuses.
fn statuses(value: &Json, place: &str, context: &mut Context<'_>) -> Option<Vec<u16>> {
    let Json::Array(items) = value else {
        let message = value.wrong_type("give a list of statuses, such as [200, 301]");
        context.note(place, message);
        return None;
    };
    if items.is_empty() {
        let message = "is empty; give at least one status, or leave the key out for any 2xx or 3xx";
        context.note(place, message);
    }
    let mut statuses = Vec::new();
    for (index, item) in items.iter().enumerate() {
        let status = whole(200, 599)(item);
        let status = context.check(&format!("{place}[{index}]"), status);
        statuses.extend(status.filter(|status| !statuses.contains(status)));
    }
    Some(statuses)
}
