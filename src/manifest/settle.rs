//! From what a manifest says to what it means: fills in the defaults, and holds the parts against
//! each other. It knows every default, and no JSON.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use super::given::Given;
use super::place::{Place, Problems, quoted};
use super::raw::{MOST_ROUTES, Raw, RawOptions, RawRecovery, RawRoute, RawRoutes};
use super::url::{self, BaseUrl, Scheme};
use super::{
    Expect, Header, KillSignal, Manifest, Method, Options, Proxy, RecoveryPlan, Route, Scope,
    Source,
};

const DEADLINE: Duration = Duration::from_secs(120);
const LONGEST_DEADLINE: Duration = Duration::from_secs(86_400);
const USER_AGENT: &str = concat!(env!("CARGO_PKG_NAME"), "/", env!("CARGO_PKG_VERSION"));
const CONCURRENCY: NonZeroUsize = NonZeroUsize::new(4).unwrap();

/// Makes a manifest of `raw`, probed at `base_url` instead of its own where one is given.
pub(super) fn settle(
    raw: Raw,
    base_url: Option<BaseUrl>,
    source: Source,
    mut problems: Problems,
) -> Result<Manifest, Problems> {
    let proxy = raw.proxy.or(Proxy::None);
    let own_url = raw.base_url.value();
    if !matches!(raw.unix_socket, Given::Absent) {
        check_socket(own_url.as_ref(), proxy, &mut problems);
    }
    // The socket belongs to the manifest's own URL.
    let unix_socket = match (&base_url, raw.unix_socket) {
        (_, Given::Broken) => None,
        (None, Given::Value(path)) => Some(Some(path)),
        (Some(_), Given::Value(_)) | (_, Given::Absent) => Some(None),
    };
    let base_url = base_url.or(own_url);
    let concurrency = raw.concurrency.or(CONCURRENCY);
    let deadline_name = match raw.deadline {
        Given::Absent => "the default ",
        _ => "",
    };
    let deadline = raw.deadline.or(DEADLINE);

    let list = raw.routes.value();
    if let Some(list) = &list {
        check_count(list, &mut problems);
    }
    let list = list.unwrap_or_default();
    let shared = Shared::new(
        list.options,
        raw.defaults.or(RawOptions::default()).as_ref(),
    );
    check_routes(&list.routes, &shared, base_url.as_ref(), &mut problems);

    if !matches!(raw.recovery, Given::Absent) {
        if proxy == Some(Proxy::Env) {
            let message = "is not possible with \"proxy\": \"env\", since a proxy's silence proves \
                nothing about the backend; set \"proxy\" to \"none\", or remove \"recovery\"";
            problems.add(&Place::Key(&Place::Top, "recovery"), message);
        }
        let core = core(&list.routes, &shared).filter(|_| list.beyond == 0);
        if let (Some(core), Some(concurrency), Some(deadline)) = (core, concurrency, deadline)
            && let Err(message) = prove(&core, concurrency, deadline)
        {
            let place = Place::Key(&Place::Top, "deadline_seconds");
            problems.add(&place, format_args!("{deadline_name}{message}"));
        }
    }

    let recovery = match raw.recovery {
        Given::Absent => Some(None),
        Given::Broken => None,
        Given::Value(recovery) => plan(recovery).map(Some),
    };
    let user_agent = raw.user_agent.or(USER_AGENT.to_owned());
    let manifest = || {
        let routes = list.routes.into_iter().map(|raw| shared.route(raw));
        Some(Manifest {
            source,
            base_url: base_url?,
            unix_socket: unix_socket?,
            user_agent: user_agent?,
            deadline: deadline?,
            concurrency: concurrency?,
            proxy: proxy?,
            routes: routes.collect::<Option<_>>()?,
            recovery: recovery?,
        })
    };
    if problems.count() > 0 {
        return Err(problems);
    }
    manifest().ok_or(problems)
}

/// What a UNIX socket cannot be together with.
fn check_socket(base_url: Option<&BaseUrl>, proxy: Option<Proxy>, problems: &mut Problems) {
    let place = Place::Key(&Place::Top, "unix_socket");
    if base_url.is_some_and(|url| url.scheme() == Scheme::Https) {
        let message = "is not possible with an https:// base_url; write http://, as the backend \
            speaks it at its socket";
        problems.add(&place, message);
    }
    if proxy == Some(Proxy::Env) {
        let message = "is not possible with \"proxy\": \"env\", since no proxy reaches a UNIX socket; \
            set \"proxy\" to \"none\", or remove \"unix_socket\"";
        problems.add(&place, message);
    }
}

/// The number of routes, and of core routes.
fn check_count(list: &RawRoutes, problems: &mut Problems) {
    let place = Place::Key(&Place::Top, "routes");
    let count = list.routes.len() + list.beyond;
    if count == 0 {
        problems.add(
            &place,
            "is empty; give at least one route with \"core\": true",
        );
    } else if list.beyond > 0 {
        let message = format!("{count} routes are too many; give at most {MOST_ROUTES}");
        problems.add(&place, message);
    } else if list.routes.iter().all(|route| route.core == Some(false)) {
        let message = "none is a core route, and only those prove anything about the backend; give at \
            least one \"core\": true";
        problems.add(&place, message);
    }
}

/// Every route against its options, the base URL, and the other routes.
fn check_routes(
    routes: &[RawRoute],
    shared: &Shared,
    base_url: Option<&BaseUrl>,
    problems: &mut Problems,
) {
    let list = Place::Key(&Place::Top, "routes");
    let mut known: HashMap<(Method, &str), usize> = HashMap::with_capacity(routes.len());
    for (index, route) in routes.iter().enumerate() {
        let place = Place::Item(&list, index);
        let method = shared.of(route).map(|options| options.method);
        if let (Some(Method::Head), Some(checks)) = (method, &route.checks) {
            let keys = [
                ("body_contains", checks.contains.is_some()),
                ("json", !checks.json.is_empty()),
            ];
            for (key, _) in keys.iter().filter(|(_, given)| *given) {
                let message = "is not possible with HEAD, whose answer has no body; remove it, or give \
                    the route \"method\": \"GET\"";
                problems.add(&Place::Key(&place, key), message);
            }
        }
        let Some(path) = route.path.as_deref() else {
            continue;
        };
        if base_url.is_some_and(|base_url| base_url.is_too_long(path)) {
            let message = format!(
                "the URL is too long; base URL and path may have {} bytes together, percent-encoded",
                url::LONGEST
            );
            problems.add(&Place::Key(&place, "path"), message);
        }
        let Some(method) = method else {
            continue;
        };
        match known.entry((method, path)) {
            Entry::Vacant(entry) => {
                entry.insert(index);
            }
            Entry::Occupied(first) => {
                let message = format!(
                    "same method and path as routes[{}] ({} {}); keep one of the two",
                    first.get(),
                    method.as_str(),
                    quoted(path)
                );
                problems.add(&place, message);
            }
        }
    }
}

/// The options of all routes, filled in from the defaults. None where a part of them is not known:
/// then nothing is held against them, since that would mislead.
struct Shared {
    /// Those of the routes that have none of their own.
    plain: Option<Arc<Options>>,
    own: Vec<Option<Arc<Options>>>,
}

impl Shared {
    fn new(own: Vec<RawOptions>, defaults: Option<&RawOptions>) -> Self {
        let fill_in = |own| fill_in(own, defaults?).map(Arc::new);
        Self {
            plain: fill_in(RawOptions::default()),
            own: own.into_iter().map(fill_in).collect(),
        }
    }

    fn of(&self, route: &RawRoute) -> Option<&Arc<Options>> {
        match route.options {
            None => self.plain.as_ref(),
            Some(number) => self.own.get(number)?.as_ref(),
        }
    }

    fn route(&self, raw: RawRoute) -> Option<Route> {
        Some(Route {
            options: self.of(&raw)?.clone(),
            path: raw.path?,
            core: raw.core?,
            checks: raw.checks,
        })
    }
}

fn fill_in(own: RawOptions, defaults: &RawOptions) -> Option<Options> {
    let own_headers = own.headers.or(Vec::new())?;
    let mut headers = defaults.headers.clone().or(Vec::new())?;
    headers.retain(|header| {
        let same = |own: &Header| own.name.eq_ignore_ascii_case(&header.name);
        !own_headers.iter().any(same)
    });
    headers.extend(own_headers);
    let second = Duration::from_secs(1);
    Some(Options {
        method: own.method.over(&defaults.method, Method::Get)?,
        expect: own.expect.over(&defaults.expect, Expect::Success)?,
        timeout: own.timeout.over(&defaults.timeout, 10 * second)?,
        retries: own.retries.over(&defaults.retries, 2)?,
        backoff: own.backoff.over(&defaults.backoff, second / 2)?,
        max_redirects: own.max_redirects.over(&defaults.max_redirects, 0)?,
        headers,
        max_body_bytes: own
            .max_body_bytes
            .over(&defaults.max_body_bytes, 1024 * 1024)? as usize,
    })
}

/// The options of the core routes; none where they, or which routes are core, is not known.
fn core<'a>(routes: &[RawRoute], shared: &'a Shared) -> Option<Vec<&'a Options>> {
    routes
        .iter()
        .filter(|route| route.core != Some(false))
        .map(|route| route.core.and(shared.of(route)).map(Arc::as_ref))
        .collect()
}

fn plan(raw: RawRecovery) -> Option<RecoveryPlan> {
    Some(RecoveryPlan {
        unit: raw.unit.value()?,
        scope: raw.scope.or(Scope::System)?,
        signal: raw.signal.or(KillSignal::Kill)?,
        dump_signal: raw.dump_signal.map(Some).or(None)?,
        min_uptime: raw.min_uptime.or(Duration::from_secs(120))?,
        verify: raw.verify.or(Duration::from_secs(60))?,
    })
}

/// Whether `deadline` leaves time for every core route to stay silent on all its attempts.
fn prove(core: &[&Options], concurrency: NonZeroUsize, deadline: Duration) -> Result<(), String> {
    let Some(slowest) = core.iter().max_by_key(|options| whole_budget(options)) else {
        return Ok(());
    };
    let rounds = u32::try_from(core.len().div_ceil(concurrency.get())).unwrap_or(u32::MAX);
    let needed = whole_budget(slowest).saturating_mul(rounds);
    if needed <= deadline {
        return Ok(());
    }
    let why = format!(
        "{} core routes, {concurrency} at a time, the slowest with {} attempts of {} s and pauses of {} s",
        core.len(),
        slowest.retries + 1,
        in_seconds(slowest.timeout),
        in_seconds(pauses(slowest)),
    );
    let (deadline, needed_text) = (in_seconds(deadline), in_seconds(needed));
    Err(if needed <= LONGEST_DEADLINE {
        format!("{deadline} is too short to prove a hang; give at least {needed_text} ({why})")
    } else {
        format!(
            "{deadline} is too short to prove a hang, which takes {needed_text} ({why}), more than the {} \
             that are allowed; have fewer core routes, or lower their time-outs and retries",
            in_seconds(LONGEST_DEADLINE)
        )
    })
}

/// The longest time that a route's attempts and pauses take.
fn whole_budget(options: &Options) -> Duration {
    options
        .timeout
        .saturating_mul(options.retries + 1)
        .saturating_add(pauses(options))
}

/// All pauses of a route: each is twice as long as the one before.
fn pauses(options: &Options) -> Duration {
    let units = 2_u32.saturating_pow(options.retries) - 1;
    options.backoff.saturating_mul(units)
}

/// A length in seconds with all its digits, and no more: read back, it is the same length.
fn in_seconds(length: Duration) -> String {
    let text = format!("{}.{:09}", length.as_secs(), length.subsec_nanos());
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}
