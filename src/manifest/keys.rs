//! Every key of the manifest, with its rule and its default, and the rules that compare several keys.

use std::num::NonZeroUsize;
use std::sync::Arc;
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

/// An object without keys, such as defaults that are left out.
pub(super) static NO_KEYS: Json<'_> = Json::Object(Vec::new());

/// Reads a manifest, whose `routes` have been read, and which is probed at `base_url` instead of its own
/// where one is given.
pub(super) fn manifest(
    json: &Json<'_>,
    routes: RawRoutes<'_, '_>,
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
    let defaults = top.optional("defaults", |json, location, context| {
        let mut keys = ObjectReader::new(json, location, context)?;
        RouteOptions::read(&mut keys, &NO_KEYS);
        keys.end();
        Ok(json)
    });
    let defaults = defaults.map_or(&Json::Null, |json| json.unwrap_or(&NO_KEYS));
    let sent_to = base_url.as_ref().or(own_url.as_ref().ok());
    let routes = top.required("routes", |value, location, context| {
        let Json::Array(_) = value else {
            let remedy = "give a list of routes, such as [{ \"path\": \"/\", \"core\": true }]";
            return Err(context.problems.add(location, value.wrong_type(remedy)));
        };
        routes.resolve(value.is_cut(), defaults, sent_to, context)
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

/// The options of a route, or of `defaults`.
#[derive(Clone)]
pub(super) struct RouteOptions {
    /// None if it is inherited from `defaults` and invalid there: all routes without their own share it.
    pub(super) method: Field<Option<Method>>,
    pub(super) all: Field<Arc<Options>>,
}

impl RouteOptions {
    /// Reads `own`, and `defaults` for the keys that are missing there. Problems in `defaults` are not noted
    /// again for each route.
    pub(super) fn read(own: &mut ObjectReader<'_, '_, '_>, defaults: &Json<'_>) -> Self {
        let mut keys = Layers { own, defaults };
        let methods = [Method::Get, Method::Head].map(|method| (method.as_str(), method));
        let method_rule = rule(word(&methods));
        let own_method = keys.own.optional("method", &method_rule);
        let default_method = keys.default("method", &method_rule, Method::Get);
        let method = own_method.map(|own| own.or(default_method.ok()));
        let expect = keys.option("expect", statuses, Expect::Success);
        let timeout = keys.option("timeout_seconds", rule(seconds_up_to(3600)), 10 * SECOND);
        let retries = keys.option("retries", rule(whole(0, 10)), 2);
        let backoff = keys.option("retry_backoff_seconds", rule(seconds(0, 60)), SECOND / 2);
        let max_redirects = keys.option("max_redirects", rule(whole(0, 20)), 0);
        let own_headers = keys.own.or("headers", headers, Vec::new());
        let headers = own_headers
            .and_then(|own| Ok(merged(keys.default("headers", headers, Vec::new())?, own)));
        let max_body_bytes = keys.option("max_body_bytes", rule(whole(1, 16 * MIB)), MIB as usize);
        let all = || {
            Ok(Arc::new(Options {
                method: method?.ok_or(Invalid)?,
                expect: expect?,
                timeout: timeout?,
                retries: retries?,
                backoff: backoff?,
                max_redirects: max_redirects?,
                headers: headers?,
                max_body_bytes: max_body_bytes?,
            }))
        };
        Self { method, all: all() }
    }
}

/// An object whose keys have their defaults in another one.
struct Layers<'r, 'j, 'a, 'v> {
    own: &'r mut ObjectReader<'j, 'a, 'v>,
    defaults: &'r Json<'r>,
}

impl Layers<'_, '_, '_, '_> {
    fn option<T>(
        &mut self,
        key: &'static str,
        read: impl Fn(&Json<'_>, &Location<'_>, &mut Context<'_>) -> Field<T>,
        built_in: T,
    ) -> Field<T> {
        match self.own.optional(key, &read)? {
            Some(value) => Ok(value),
            None => self.default(key, read, built_in),
        }
    }

    fn default<T>(
        &mut self,
        key: &'static str,
        read: impl Fn(&Json<'_>, &Location<'_>, &mut Context<'_>) -> Field<T>,
        built_in: T,
    ) -> Field<T> {
        let mut unheard = Context::new(self.own.variables());
        let mut defaults = ObjectReader::new(self.defaults, &Location::Top, &mut unheard)?;
        defaults.or(key, read, built_in)
    }
}

/// The headers of `defaults` and a route's own, which win name by name.
fn merged(mut defaults: Vec<Header>, own: Vec<Header>) -> Vec<Header> {
    let same = |a: &Header, b: &Header| a.name.eq_ignore_ascii_case(&b.name);
    defaults.retain(|header| !own.iter().any(|own| same(own, header)));
    defaults.extend(own);
    defaults
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
    let before = context.problems.count();
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
    context
        .problems
        .unless_since(before, Expect::Listed(statuses))
}
