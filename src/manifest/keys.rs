//! The keys at the top of the manifest and in `recovery`, with their rules and defaults, and the rules that
//! compare several keys. The keys of routes and `defaults` are in `routes`.

use std::cell::RefCell;
use std::num::NonZeroUsize;
use std::time::Duration;

use anyhow::anyhow;
use nix::sys::signal::Signal;

use super::json::Json;
use super::proof;
use super::reader::{Context, Node, Object};
use super::routes::routes;
use super::rules::{self, DAY, seconds, whole, word};
use super::url::BaseUrl;
use super::{KillSignal, Manifest, Options, RecoveryPlan, Scope, Source, Variables};

/// How many problems are shown; a generated manifest can repeat the same one 10,000 times.
const SHOWN: usize = 100;

const SECOND: Duration = Duration::from_secs(1);
const USER_AGENT: &str = concat!(env!("CARGO_PKG_NAME"), "/", env!("CARGO_PKG_VERSION"));

impl Manifest {
    /// Reads a manifest from its bytes. `base_url`, if given, replaces the manifest's own, which must still be valid.
    ///
    /// # Errors
    ///
    /// Every problem with its place, or the first error in the JSON: one line for each, without header values.
    pub fn parse(
        bytes: &[u8],
        source: Source,
        base_url: Option<&BaseUrl>,
        variables: Variables<'_>,
    ) -> anyhow::Result<Self> {
        let json = Json::parse(bytes).map_err(|problem| anyhow!("{source}: {problem}"))?;
        let context = Context {
            variables,
            problems: RefCell::default(),
            invalid: RefCell::default(),
        };
        let top = Node {
            json: &json,
            place: String::new(),
            route: None,
            context: &context,
        };
        let name = source.to_string();
        let manifest = top.check(Object::read(&top, |keys| manifest(keys, base_url, source)));
        let problems = context.problems.take();
        let more = problems.len().saturating_sub(SHOWN);
        let more = (more > 0).then(|| format!("and {more} more problems"));
        let lines = problems.iter().take(SHOWN).chain(&more);
        let lines: Vec<String> = lines.map(|line| format!("{name}: {line}")).collect();
        let manifest = manifest.flatten().filter(|_| lines.is_empty());
        manifest.ok_or_else(|| anyhow!(lines.join("\n")))
    }
}

fn manifest(
    keys: &mut Object<'_, '_>,
    base_url: Option<&BaseUrl>,
    source: Source,
) -> Option<Manifest> {
    // For editors; only its type is checked.
    keys.value("$schema", rules::text);
    let name = keys.value("name", rules::name);
    let own_url = keys.required("base_url", rules::base_url);
    let unix_socket = keys.value("unix_socket", rules::socket_path);
    let user_agent = keys.value_or("user_agent", USER_AGENT.to_owned(), rules::user_agent);
    let deadline = keys.value_or("deadline_seconds", 120 * SECOND, seconds(None, DAY));
    let concurrency = keys.value_or("concurrency", 4, whole(1, 64));
    let concurrency = NonZeroUsize::new(concurrency).unwrap_or(NonZeroUsize::MIN);
    let proxies = [("none", false), ("env", true)];
    let uses_proxy = keys.value_or("proxy", false, word(&proxies));
    let built_in = Options::default();
    let defaults = keys.value_or("defaults", built_in.clone(), |value| {
        Object::read(value, |keys| Options::read(keys, &built_in))
    });
    let routes = keys.required("routes", |value| routes(value, &defaults));
    let recovery = keys.value("recovery", |value| Object::read(value, recovery));

    check_conflicts(keys, own_url.as_ref(), uses_proxy);
    if let (Some(routes), Some(plan)) = (&routes, &recovery) {
        proof::check_deadline(keys, routes, concurrency, plan.grace, deadline);
    }
    // The socket belongs to the manifest's own URL.
    let unix_socket = unix_socket.filter(|_| base_url.is_none());
    let base_url = base_url.cloned().or(own_url)?;
    let name = name.unwrap_or_else(|| match (&recovery, &unix_socket) {
        (Some(RecoveryPlan { unit, .. }), _) => {
            unit.strip_suffix(".service").unwrap_or(unit).to_owned()
        }
        (None, Some(path)) => path.display().to_string(),
        (None, None) => format!("{}:{}", base_url.host(), base_url.port()),
    });
    Some(Manifest {
        source,
        name,
        base_url,
        unix_socket,
        user_agent,
        deadline,
        concurrency,
        uses_proxy,
        routes: routes?,
        recovery,
    })
}

fn check_conflicts(keys: &Object<'_, '_>, own_url: Option<&BaseUrl>, is_proxied: bool) {
    if own_url.is_some_and(BaseUrl::is_https) {
        let https = "an https:// base_url; write http://, as the backend speaks it at its socket";
        keys.conflict("unix_socket", https);
    }
    if is_proxied {
        let socket = "\"proxy\": \"env\", because no proxy reaches a UNIX socket; set \"proxy\" to \"none\", or remove \
            \"unix_socket\"";
        keys.conflict("unix_socket", socket);
        let recovery = "\"proxy\": \"env\", since a proxy's silence proves nothing about the backend; set \"proxy\" to \
            \"none\", or remove \"recovery\"";
        keys.conflict("recovery", recovery);
    }
}

fn recovery(keys: &mut Object<'_, '_>) -> RecoveryPlan {
    let scopes = [("system", Scope::System), ("user", Scope::User)];
    let signals = [KillSignal::Kill, KillSignal::Abort].map(|signal| (signal.name(), signal));
    let dump_signals = [Signal::SIGUSR1, Signal::SIGUSR2, Signal::SIGQUIT];
    let dump_signals = dump_signals.map(|signal| (signal.as_str(), signal));
    RecoveryPlan {
        unit: keys.required("unit", rules::unit).unwrap_or_default(),
        scope: keys.value_or("scope", Scope::System, word(&scopes)),
        signal: keys.value_or("signal", KillSignal::Kill, word(&signals)),
        dump_signal: keys.value("dump_signal", word(&dump_signals)),
        min_uptime: keys.value_or("min_uptime_seconds", 120 * SECOND, seconds(Some(0), DAY)),
        grace: keys.value_or("grace_seconds", 30 * SECOND, seconds(Some(0), 3600)),
        verify: keys.value_or("verify_seconds", 60 * SECOND, seconds(Some(1), 3600)),
    }
}
