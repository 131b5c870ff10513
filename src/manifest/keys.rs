//! The keys at the top of the manifest and in `recovery`, with their rules and defaults, and the rules that
//! compare several keys. The keys that routes and `defaults` share are in `options`.

use std::num::NonZeroUsize;
use std::time::Duration;

use super::json::Json;
use super::object::{ObjectReader, rule};
use super::options::GivenOptions;
use super::problems::{Context, Field, Location};
use super::routes::{RawRoutes, Routes};
use super::rules::{self, DAY, seconds, seconds_up_to, whole, word};
use super::url::{BaseUrl, Scheme};
use super::{
    DumpSignal, KillSignal, Manifest, Proxy, RecoveryPlan, Scope, SocketPath, Source, proof,
};

const SECOND: Duration = Duration::from_secs(1);
const DEFAULT_DEADLINE: Duration = Duration::from_secs(120);
const USER_AGENT: &str = concat!(env!("CARGO_PKG_NAME"), "/", env!("CARGO_PKG_VERSION"));

/// Reads the keys of a manifest whose `routes` have been read already. `base_url`, if given, replaces the
/// manifest's own.
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
    let name = top.optional("name", rule(rules::name));
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
    let unix_socket: Option<SocketPath> = unix_socket?.filter(|_| base_url.is_none());
    let own_url = own_url?;
    let base_url = base_url.unwrap_or(own_url);
    let recovery: Option<RecoveryPlan> = recovery?;
    let default_name = || match (&recovery, &unix_socket) {
        (Some(plan), _) => plan.unit.as_str().trim_end_matches(".service").to_owned(),
        (None, Some(path)) => path.to_string(),
        (None, None) => format!("{}:{}", base_url.host(), base_url.port()),
    };
    Ok(Manifest {
        source,
        name: name?.unwrap_or_else(default_name),
        base_url,
        unix_socket,
        user_agent: user_agent?.unwrap_or_else(|| USER_AGENT.to_owned()),
        deadline: own_deadline?.unwrap_or(DEFAULT_DEADLINE),
        concurrency: concurrency?,
        proxy: proxy?,
        routes: routes?.all,
        recovery,
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
    let grace = keys.or("grace_seconds", rule(seconds(0, 3600)), 30 * SECOND);
    let verify = keys.or("verify_seconds", rule(seconds(1, 3600)), 60 * SECOND);
    keys.end();
    Ok(RecoveryPlan {
        unit: unit?,
        scope: scope?,
        signal: signal?,
        dump_signal: dump_signal?,
        min_uptime: min_uptime?,
        grace: grace?,
        verify: verify?,
    })
}
