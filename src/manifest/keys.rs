//! Every key of the manifest, with its rule and its default, and the rules that compare several keys.

use std::num::NonZeroUsize;
use std::time::Duration;

use super::headers::headers;
use super::json::Json;
use super::location::{Context, Field, Invalid, Location};
use super::object::ObjectReader;
use super::routes::{RawRoutes, Routes};
use super::rules::{self, DAY, seconds, seconds_up_to, whole, word};
use super::url::{BaseUrl, Scheme};
use super::{
    DumpSignal, Expect, Header, KillSignal, Manifest, Method, Options, Proxy, RecoveryPlan, Scope,
    Source, proof,
};

const SECOND: Duration = Duration::from_secs(1);
const DEFAULT_DEADLINE: Duration = Duration::from_secs(120);
const USER_AGENT: &str = concat!(env!("CARGO_PKG_NAME"), "/", env!("CARGO_PKG_VERSION"));
const MIB: u32 = 1024 * 1024;

/// Reads a manifest, whose `routes` have been read, and which is probed at `base_url` instead of its own
/// where one is given.
pub(super) fn manifest(
    json: &Json<'_>,
    routes: RawRoutes<'_>,
    base_url: Option<BaseUrl>,
    source: Source,
    context: &mut Context<'_>,
) -> Field<Manifest> {
    let mut top = ObjectReader::new(json, &Location::Top, context)?;
    // For editors; only its type is checked.
    let _ = top.optional("$schema", rule(|value| rules::text(value).map(drop)));
    let own_url = top.required("base_url", rule(rules::parsed::<BaseUrl>));
    let unix_socket = top.optional("unix_socket", rule(rules::parsed));
    let user_agent = top.optional("user_agent", rule(rules::user_agent));
    let own_deadline = top.optional("deadline_seconds", rule(seconds_up_to(DAY)));
    let concurrency = top.or("concurrency", rule(whole(1, 64)), 4);
    let concurrency =
        concurrency.map(|number| NonZeroUsize::new(number).unwrap_or(NonZeroUsize::MIN));
    let proxies = [("none", Proxy::None), ("env", Proxy::Env)];
    let proxy = top.or("proxy", rule(word(&proxies)), Proxy::None);
    let defaults = top.or("defaults", defaults, GivenOptions::default());
    let defaults = defaults.as_ref().map_err(|invalid| *invalid);
    let sent_to = base_url.as_ref().or(own_url.as_ref().ok());
    let routes = top.required("routes", |value, location, context| {
        let Json::Array(_) = value else {
            let remedy = "give a list of routes, such as [{ \"path\": \"/\", \"core\": true }]";
            return Err(context.problems.add(location, value.wrong_type(remedy)));
        };
        Ok(routes.resolve(value.is_cut(), defaults, sent_to, context))
    });
    let recovery = top.optional("recovery", recovery);

    if !matches!(unix_socket, Ok(None)) {
        check_socket(&mut top, &own_url, proxy);
    }
    if !matches!(recovery, Ok(None)) {
        check_recovery(&mut top, own_deadline, &routes, concurrency, proxy);
    }
    top.end();
    // The socket belongs to the manifest's own URL.
    let unix_socket = unix_socket?.filter(|_| base_url.is_none());
    let own_url = own_url?;
    Ok(Manifest {
        source,
        base_url: base_url.unwrap_or(own_url),
        unix_socket,
        user_agent: user_agent?.unwrap_or_else(|| USER_AGENT.to_owned()),
        deadline: own_deadline?.unwrap_or(DEFAULT_DEADLINE),
        concurrency: concurrency?,
        proxy: proxy?,
        routes: routes?.all,
        recovery: recovery?,
    })
}

/// Reads the `defaults` object.
fn defaults(
    value: &Json<'_>,
    location: &Location<'_>,
    context: &mut Context<'_>,
) -> Field<GivenOptions> {
    let mut keys = ObjectReader::new(value, location, context)?;
    let given = GivenOptions::read(&mut keys);
    keys.end();
    Ok(given)
}

/// The keys that cannot be used with a UNIX socket.
fn check_socket(
    top: &mut ObjectReader<'_, '_, '_>,
    base_url: &Field<BaseUrl>,
    proxy: Field<Proxy>,
) {
    let is_https = |url: &BaseUrl| url.scheme() == Scheme::Https;
    if base_url.as_ref().is_ok_and(is_https) {
        let message = "cannot be used with an https:// base_url; write http://, as the backend \
            speaks it at its socket";
        top.problem("unix_socket", message);
    }
    if proxy == Ok(Proxy::Env) {
        let message = "cannot be used with \"proxy\": \"env\", because no proxy reaches a UNIX socket; \
            set \"proxy\" to \"none\", or remove \"unix_socket\"";
        top.problem("unix_socket", message);
    }
}

/// The keys that cannot be used with recovery.
fn check_recovery(
    top: &mut ObjectReader<'_, '_, '_>,
    deadline: Field<Option<Duration>>,
    routes: &Field<Routes>,
    concurrency: Field<NonZeroUsize>,
    proxy: Field<Proxy>,
) {
    if proxy == Ok(Proxy::Env) {
        let message = "cannot be used with \"proxy\": \"env\", since a proxy's silence proves \
            nothing about the backend; set \"proxy\" to \"none\", or remove \"recovery\"";
        top.problem("recovery", message);
    }
    if let (Ok(Routes { core: Ok(core), .. }), Ok(concurrency), Ok(own)) =
        (routes, concurrency, deadline)
    {
        let name = if own.is_none() { "the default " } else { "" };
        let deadline = own.unwrap_or(DEFAULT_DEADLINE);
        if let Err(message) = proof::check(core, concurrency, deadline) {
            top.problem("deadline_seconds", format_args!("{name}{message}"));
        }
    }
}

/// Reads the `recovery` object.
fn recovery(
    value: &Json<'_>,
    location: &Location<'_>,
    context: &mut Context<'_>,
) -> Field<RecoveryPlan> {
    let mut keys = ObjectReader::new(value, location, context)?;
    let unit = keys.required("unit", rule(rules::parsed));
    let scopes = [("system", Scope::System), ("user", Scope::User)];
    let scope = keys.or("scope", rule(word(&scopes)), Scope::System);
    let signals = KillSignal::ALL.map(|signal| (signal.name(), signal));
    let signal = keys.or("signal", rule(word(&signals)), KillSignal::Kill);
    let signals = DumpSignal::ALL.map(|signal| (signal.name(), signal));
    let dump_signal = keys.optional("dump_signal", rule(word(&signals)));
    let min_uptime = keys.or("min_uptime_seconds", rule(seconds(0, DAY)), 120 * SECOND);
    let verify = keys.or("verify_seconds", rule(seconds(1, 3600)), 60 * SECOND);
    keys.end();
    Ok(RecoveryPlan {
        unit: unit?,
        scope: scope?,
        signal: signal?,
        dump_signal: dump_signal?,
        min_uptime: min_uptime?,
        verify: verify?,
    })
}

/// The options of `defaults` or of one route, as far as they are given.
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

    /// The method; none if it is inherited from `defaults` and invalid there, so that all routes without
    /// their own share it.
    pub(super) fn method(&self, defaults: Field<&Self>) -> Field<Option<Method>> {
        let default = defaults.and_then(|given| given.method);
        let inherited = default.map(|default| default.unwrap_or(Method::Get));
        Ok(self.method?.or(inherited.ok()))
    }

    /// All options: these, else those of `defaults`, else the built-in ones.
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

/// The first of an option's values that is given.
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

/// Reads a value by its rule.
pub(super) fn rule<T>(
    rule: impl Fn(&Json<'_>) -> Result<T, String>,
) -> impl Fn(&Json<'_>, &Location<'_>, &mut Context<'_>) -> Field<T> {
    move |value, location, context| context.note(location, rule(value))
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
