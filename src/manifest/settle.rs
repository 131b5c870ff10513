//! From what a manifest says to what it means: fills in the defaults, and holds the parts against
//! each other. It knows every default, and no JSON.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use super::json::Given;
use super::place::{Place, Problems, quoted};
use super::raw::{MOST_ROUTES, Raw, RawOptions, RawRecovery, RawRoute, RawRoutes};
use super::url::{self, BaseUrl};
use super::{
    Expect, KillSignal, Manifest, Method, Options, Proxy, RecoveryPlan, Route, Scope, Source,
};

const DEADLINE: Duration = Duration::from_secs(120);
const LONGEST_DEADLINE: Duration = Duration::from_secs(86_400);
const CONCURRENCY: NonZeroUsize = NonZeroUsize::new(4).unwrap();

/// Options that are the same for several routes; none where a part of them is not known, and
/// nothing is compared with it.
type Shared = Option<Arc<Options>>;

/// Makes a manifest of `raw`, probed at `base_url` instead of its own where one is given.
pub(super) fn settle(
    raw: Raw,
    base_url: Option<BaseUrl>,
    source: Source,
    mut problems: Problems,
) -> Result<Manifest, Problems> {
    let base_url = base_url.or(raw.base_url.value());
    let deadline_given = matches!(raw.deadline, Given::Value(_));
    let deadline = raw.deadline.or(DEADLINE);
    let concurrency = raw.concurrency.or(CONCURRENCY);
    let proxy = raw.proxy.or(Proxy::None);

    let list = raw.routes.value();
    if let Some(list) = &list {
        check_list(list, &mut problems);
    }
    let list = list.unwrap_or_default();
    let options = share(list.options, raw.defaults.or(RawOptions::default()));
    check_routes(&list.routes, &options, base_url.as_ref(), &mut problems);

    let recovers = !matches!(raw.recovery, Given::Absent);
    if recovers && proxy == Some(Proxy::Env) {
        let message = "is not possible with \"proxy\": \"env\", since a proxy's silence proves nothing \
            about the backend; set \"proxy\" to \"none\", or remove \"recovery\"";
        problems.add(&Place::Key(&Place::Top, "recovery"), message);
    }
    if let (true, Some(deadline), Some(concurrency)) = (recovers, deadline, concurrency) {
        let core: Option<Vec<&Options>> = list
            .routes
            .iter()
            .filter(|route| route.core)
            .map(|route| options.get(route.options)?.as_deref())
            .collect();
        if let Some(Err(message)) = core.map(|core| prove(&core, concurrency, deadline)) {
            let default = if deadline_given { "" } else { "the default " };
            let place = Place::Key(&Place::Top, "deadline_seconds");
            problems.add(&place, format_args!("{default}{message}"));
        }
    }

    let recovery = match raw.recovery {
        Given::Value(recovery) => plan(recovery).map(Some),
        Given::Absent => Some(None),
        Given::Broken => None,
    };
    let user_agent =
        raw.user_agent
            .or(concat!(env!("CARGO_PKG_NAME"), "/", env!("CARGO_PKG_VERSION")).to_owned());
    match (base_url, user_agent, deadline, concurrency, proxy, recovery) {
        (
            Some(base_url),
            Some(user_agent),
            Some(deadline),
            Some(concurrency),
            Some(proxy),
            Some(recovery),
        ) if problems.count() == 0 => Ok(Manifest {
            source,
            base_url,
            user_agent,
            deadline,
            concurrency,
            proxy,
            routes: routes(list.routes, &options),
            recovery,
        }),
        _ => Err(problems),
    }
}

/// The number of routes, and of core routes.
fn check_list(list: &RawRoutes, problems: &mut Problems) {
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
    } else if !list.routes.iter().any(|route| route.core) {
        let message = "none is a core route, and only those prove anything about the backend; give at \
            least one \"core\": true";
        problems.add(&place, message);
    }
}

/// Every route against its options, the base URL, and the other routes.
fn check_routes(
    routes: &[RawRoute],
    options: &[Shared],
    base_url: Option<&BaseUrl>,
    problems: &mut Problems,
) {
    let list = Place::Key(&Place::Top, "routes");
    let mut known: HashMap<(Method, &str), usize> = HashMap::with_capacity(routes.len());
    for (index, route) in routes.iter().enumerate() {
        let place = Place::Item(&list, index);
        let method = options
            .get(route.options)
            .and_then(Option::as_ref)
            .map(|o| o.method);
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

/// The options by their numbers, each filled in from the defaults.
fn share(options: HashMap<RawOptions, usize>, defaults: Option<RawOptions>) -> Vec<Shared> {
    let mut shared = vec![None; options.len()];
    let Some(defaults) = defaults else {
        return shared;
    };
    for (own, index) in options {
        if let Some(slot) = shared.get_mut(index) {
            *slot = fill_in(own, &defaults).map(Arc::new);
        }
    }
    shared
}

fn fill_in(own: RawOptions, defaults: &RawOptions) -> Option<Options> {
    let own_headers = own.headers.or(Vec::new())?;
    let mut headers = defaults.headers.clone().or(Vec::new())?;
    headers.retain(|header| {
        let same = |own: &super::Header| own.name.eq_ignore_ascii_case(&header.name);
        !own_headers.iter().any(same)
    });
    headers.extend(own_headers);
    let max_body_bytes = own.max_body_bytes.or_given(defaults.max_body_bytes.clone());
    Some(Options {
        method: own
            .method
            .or_given(defaults.method.clone())
            .or(Method::Get)?,
        expect: own
            .expect
            .or_given(defaults.expect.clone())
            .or(Expect::Success)?,
        timeout: own
            .timeout
            .or_given(defaults.timeout.clone())
            .or(Duration::from_secs(10))?,
        retries: own.retries.or_given(defaults.retries.clone()).or(2)?,
        backoff: own
            .backoff
            .or_given(defaults.backoff.clone())
            .or(Duration::from_millis(500))?,
        max_redirects: own
            .max_redirects
            .or_given(defaults.max_redirects.clone())
            .or(0)?,
        headers,
        max_body_bytes: max_body_bytes.or(1024 * 1024)? as usize,
    })
}

fn routes(raw: Vec<RawRoute>, options: &[Shared]) -> Vec<Route> {
    raw.into_iter()
        .filter_map(|route| {
            Some(Route {
                path: route.path?,
                core: route.core,
                options: options.get(route.options)?.clone()?,
                checks: route.checks,
            })
        })
        .collect()
}

fn plan(raw: RawRecovery) -> Option<RecoveryPlan> {
    Some(RecoveryPlan {
        unit: raw.unit.value()?,
        scope: raw.scope.or(Scope::System)?,
        signal: raw.signal.or(KillSignal::Kill)?,
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
