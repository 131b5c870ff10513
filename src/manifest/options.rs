//! The keys that a route and `defaults` have in common, with their rules and defaults.

use std::time::Duration;

use super::headers::headers;
use super::json::Json;
use super::object::{ObjectReader, rule};
use super::problems::{Context, Field, Invalid, Location};
use super::rules::{seconds, seconds_up_to, whole, word};
use super::{Expect, Header, Method, Options};

const SECOND: Duration = Duration::from_secs(1);
const MIB: u32 = 1024 * 1024;

/// The options that `defaults` or one route sets.
#[derive(Clone, PartialEq)]
pub(super) struct GivenOptions {
    method: Field<Option<Method>>,
    expect: Field<Option<Expect>>,
    timeout: Field<Option<Duration>>,
    retries: Field<Option<u32>>,
    backoff: Field<Option<Duration>>,
    max_redirects: Field<Option<u32>>,
    headers: Field<Option<Vec<Header>>>,
    max_body_bytes: Field<Option<usize>>,
}

impl Default for GivenOptions {
    fn default() -> Self {
        Self {
            method: Ok(None),
            expect: Ok(None),
            timeout: Ok(None),
            retries: Ok(None),
            backoff: Ok(None),
            max_redirects: Ok(None),
            headers: Ok(None),
            max_body_bytes: Ok(None),
        }
    }
}

impl GivenOptions {
    pub(super) fn read(keys: &mut ObjectReader<'_, '_, '_>) -> Self {
        let methods = [Method::Get, Method::Head].map(|method| (method.as_str(), method));
        Self {
            method: keys.optional("method", rule(word(&methods))),
            expect: keys.optional("expect", statuses),
            timeout: keys.optional("timeout_seconds", rule(seconds_up_to(3600))),
            retries: keys.optional("retries", rule(whole(0, 10))),
            backoff: keys.optional("retry_backoff_seconds", rule(seconds(0, 60))),
            max_redirects: keys.optional("max_redirects", rule(whole(0, 20))),
            headers: keys.optional("headers", headers),
            max_body_bytes: keys.optional("max_body_bytes", rule(whole(1, 16 * MIB))),
        }
    }

    /// The method; none if it is inherited from `defaults` and invalid there: all routes without their own
    /// then share one unknown method.
    pub(super) fn method(&self, defaults: Field<&Self>) -> Field<Option<Method>> {
        let default = defaults.and_then(|given| given.method);
        let inherited = default.map(|default| default.unwrap_or(Method::Get));
        Ok(self.method?.or(inherited.ok()))
    }

    /// All options: each from here, else from `defaults`, else the built-in default.
    pub(super) fn over(&self, defaults: Field<&Self>) -> Field<Options> {
        Ok(Options {
            method: self.method(defaults)?.ok_or(Invalid)?,
            expect: first(
                &self.expect,
                defaults.map(|given| &given.expect),
                Expect::Success,
            )?,
            timeout: first(
                &self.timeout,
                defaults.map(|given| &given.timeout),
                10 * SECOND,
            )?,
            retries: first(&self.retries, defaults.map(|given| &given.retries), 2)?,
            backoff: first(
                &self.backoff,
                defaults.map(|given| &given.backoff),
                SECOND / 2,
            )?,
            max_redirects: first(
                &self.max_redirects,
                defaults.map(|given| &given.max_redirects),
                0,
            )?,
            headers: merged(defaults?.headers.clone()?, self.headers.clone()?),
            max_body_bytes: first(
                &self.max_body_bytes,
                defaults.map(|given| &given.max_body_bytes),
                MIB as usize,
            )?,
        })
    }
}

/// The first value of an option that is given.
fn first<T: Clone>(
    own: &Field<Option<T>>,
    default: Field<&Field<Option<T>>>,
    built_in: T,
) -> Field<T> {
    match own.clone()? {
        Some(own) => Ok(own),
        None => Ok(default?.clone()?.unwrap_or(built_in)),
    }
}

/// The headers of `defaults` and a route's own, which win name by name.
fn merged(defaults: Option<Vec<Header>>, own: Option<Vec<Header>>) -> Vec<Header> {
    let own = own.unwrap_or_default();
    let same = |a: &Header, b: &Header| a.name.eq_ignore_ascii_case(&b.name);
    let mut all = defaults.unwrap_or_default();
    all.retain(|header| !own.iter().any(|own| same(own, header)));
    all.extend(own);
    all
}

/// Reads an array of acceptable statuses.
fn statuses(value: &Json<'_>, location: &Location<'_>, context: &mut Context<'_>) -> Field<Expect> {
    let Json::Array(items) = value else {
        let message = value.wrong_type("give a list of statuses, such as [200, 301]");
        return Err(context.problems.add(location, message));
    };
    let mut statuses = Vec::new();
    let is_there = |(_, item): &(usize, &Json<'_>)| !matches!(item, Json::Cut);
    for (index, item) in items.iter().enumerate().filter(is_there) {
        match context.note(&Location::Item(location, index), whole(200, 599)(item)) {
            Ok(status) if !statuses.contains(&status) => statuses.push(status),
            Ok(_) | Err(Invalid) => {}
        }
    }
    if items.is_empty() {
        let message = "is empty; give at least one status, or leave the key out for any 2xx or 3xx";
        context.problems.add(location, message);
    }
    Ok(Expect::Listed(statuses))
}
