//! The keys at the top of the manifest and in `recovery`, with their rules and defaults, and the rules that
//! compare several keys. The keys that routes and `defaults` share are in `options`.

use std::num::NonZeroUsize;
use std::time::Duration;

use super::json::Json;
use super::object::Object;
use super::problems::Context;
use super::routes::routes;
use super::rules::{self, DAY, seconds, seconds_up_to, whole, word};
use super::url::{BaseUrl, Scheme};
use super::{DumpSignal, KillSignal, Manifest, Options, Proxy, RecoveryPlan, Scope, SocketPath};
use super::{Route, Source, proof};

const SECOND: Duration = Duration::from_secs(1);
const USER_AGENT: &str = concat!(env!("CARGO_PKG_NAME"), "/", env!("CARGO_PKG_VERSION"));

/// Reads a manifest. `base_url`, if given, replaces the manifest's own.
pub(super) fn manifest<'v>(
    json: &'v Json,
    base_url: Option<BaseUrl>,
    source: Source,
    context: &mut Context<'v>,
) -> Option<Manifest> {
    Object::read(json, "", context, |keys| read_top(keys, base_url, source))?
}

fn read_top(
    keys: &mut Object<'_, '_>,
    base_url: Option<BaseUrl>,
    source: Source,
) -> Option<Manifest> {
    // For editors; only its type is checked.
    keys.value("$schema", |value| rules::text(value).map(drop));
    let name = keys.value("name", rules::name);
    keys.require("base_url");
    let own_url = keys.value("base_url", rules::parsed::<BaseUrl>);
    let unix_socket = keys.value("unix_socket", rules::parsed::<SocketPath>);
    let user_agent = keys.value("user_agent", rules::user_agent);
    let mut deadline = 120 * SECOND;
    keys.set(&mut deadline, "deadline_seconds", seconds_up_to(DAY));
    let concurrency = keys.value("concurrency", whole(1, 64)).unwrap_or(4);
    let concurrency = NonZeroUsize::new(concurrency).unwrap_or(NonZeroUsize::MIN);
    let mut proxy = Proxy::None;
    let proxies = [("none", Proxy::None), ("env", Proxy::Env)];
    keys.set(&mut proxy, "proxy", word(&proxies));
    let defaults = keys.part("defaults", |value, place, context| {
        Object::read(value, place, context, |keys| {
            Options::read(keys, &Options::default())
        })
    });
    let defaults = defaults.unwrap_or_default();
    keys.require("routes");
    let sent_to = base_url.as_ref().or(own_url.as_ref());
    let routes = keys.part("routes", |value, place, context| {
        routes(value, place, context, &defaults, sent_to)
    });
    let recovery = keys.part("recovery", |value, place, context| {
        Object::read(value, place, context, recovery)
    });

    check_conflicts(keys, own_url.as_ref(), proxy);
    if let (Some(routes), Some((_, grace))) = (&routes, &recovery) {
        check_deadline(keys, routes, concurrency, *grace, deadline);
    }
    // The socket belongs to the manifest's own URL.
    let unix_socket = unix_socket.filter(|_| base_url.is_none());
    let base_url = base_url.or(own_url)?;
    let recovery = match recovery {
        Some((plan, _)) => Some(plan?),
        None => None,
    };
    let unit = recovery.as_ref().map(|plan| plan.unit.as_str());
    let name = name.unwrap_or_else(|| match (unit, &unix_socket) {
        (Some(unit), _) => unit.strip_suffix(".service").unwrap_or(unit).to_owned(),
        (None, Some(path)) => path.to_string(),
        (None, None) => format!("{}:{}", base_url.host(), base_url.port()),
    });
    Some(Manifest {
        source,
        name,
        base_url,
        unix_socket,
        user_agent: user_agent.unwrap_or_else(|| USER_AGENT.to_owned()),
        deadline,
        concurrency,
        proxy,
        routes: routes?,
        recovery,
    })
}

/// Notes keys that cannot be used together.
fn check_conflicts(keys: &mut Object<'_, '_>, own_url: Option<&BaseUrl>, proxy: Proxy) {
    let is_https = own_url.is_some_and(|url| url.scheme() == Scheme::Https);
    let is_proxied = proxy == Proxy::Env;
    for (key, conflicts, message) in [
        (
            "unix_socket",
            is_https,
            "cannot be used with an https:// base_url; write http://, as the backend speaks it at its socket",
        ),
        (
            "unix_socket",
            is_proxied,
            "cannot be used with \"proxy\": \"env\", because no proxy reaches a UNIX socket; set \"proxy\" to \"none\", or \
             remove \"unix_socket\"",
        ),
        (
            "recovery",
            is_proxied,
            "cannot be used with \"proxy\": \"env\", since a proxy's silence proves nothing about the backend; set \"proxy\" \
             to \"none\", or remove \"recovery\"",
        ),
    ] {
        if conflicts && keys.get(key).is_some() {
            keys.problem(key, message);
        }
    }
}

/// Notes a deadline that leaves no time to prove a hang, unless a value that this depends on is invalid: the
/// figure would mislead.
fn check_deadline(
    keys: &mut Object<'_, '_>,
    routes: &[Route],
    concurrency: NonZeroUsize,
    grace: Duration,
    deadline: Duration,
) {
    let is_known = |key| !keys.context.invalid.contains(key);
    if proof::DEPENDS_ON.split(' ').all(is_known)
        && let Err(message) = proof::check(routes, concurrency, grace, deadline)
    {
        let given = keys.get("deadline_seconds").is_some();
        let name = if given { "" } else { "the default " };
        keys.problem("deadline_seconds", format_args!("{name}{message}"));
    }
}

/// Reads the keys of `recovery`: the plan, if its unit is valid, and the grace period.
fn recovery(keys: &mut Object<'_, '_>) -> (Option<RecoveryPlan>, Duration) {
    keys.require("unit");
    let unit = keys.value("unit", rules::parsed);
    let scopes = [("system", Scope::System), ("user", Scope::User)];
    let scope = keys.value("scope", word(&scopes));
    let signals = KillSignal::ALL.map(|signal| (signal.name(), signal));
    let signal = keys.value("signal", word(&signals));
    let signals = DumpSignal::ALL.map(|signal| (signal.name(), signal));
    let dump_signal = keys.value("dump_signal", word(&signals));
    let min_uptime = keys.value("min_uptime_seconds", seconds(0, DAY));
    let grace = keys.value("grace_seconds", seconds(0, 3600));
    let verify = keys.value("verify_seconds", seconds(1, 3600));
    let grace = grace.unwrap_or(30 * SECOND);
    let plan = unit.map(|unit| RecoveryPlan {
        unit,
        scope: scope.unwrap_or(Scope::System),
        signal: signal.unwrap_or(KillSignal::Kill),
        dump_signal,
        min_uptime: min_uptime.unwrap_or(120 * SECOND),
        grace,
        verify: verify.unwrap_or(60 * SECOND),
    });
    (plan, grace)
}
