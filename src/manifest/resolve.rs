//! Fills in the defaults of a manifest, and applies the rules that compare several keys. Independent of
//! JSON.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use super::field::Field;
use super::keys::{MOST_ROUTES, RawManifest, RawOptions, RawRoute, RawRoutes};
use super::location::{Location, Problems, quoted};
use super::object::Object;
use super::url::{self, BaseUrl, Scheme};
use super::{Header, Manifest, Method, Options, Proxy, Route, Source, proof};

/// Makes a manifest of `raw`, probed at `base_url` instead of its own where one is given.
pub(super) fn resolve(
    mut raw: RawManifest,
    base_url: Option<BaseUrl>,
    source: Source,
    mut problems: Problems,
) -> Result<Manifest, Problems> {
    let deadline_name = if raw.deadline.is_absent() {
        "the default "
    } else {
        ""
    };
    let (has_socket, has_recovery) = (!raw.unix_socket.is_absent(), !raw.recovery.is_absent());
    raw.fill_defaults();
    let (proxy, concurrency) = (raw.proxy.value(), raw.concurrency.value());
    let (own_url, deadline) = (raw.base_url.value(), raw.deadline.value());
    if has_socket {
        check_socket(own_url.as_ref(), proxy, &mut problems);
    }
    // The socket belongs to the manifest's own URL.
    let unix_socket = raw.unix_socket.optional();
    let unix_socket = unix_socket.map(|path| path.filter(|_| base_url.is_none()));
    let base_url = base_url.or(own_url);

    let list = raw.routes.value();
    if let Some(list) = &list {
        check_count(list, &mut problems);
    }
    let list = list.unwrap_or_default();
    let shared = SharedOptions::new(list.options, raw.defaults);
    check_routes(&list.routes, &shared, base_url.as_ref(), &mut problems);

    if has_recovery {
        if proxy == Some(Proxy::Env) {
            let message = "cannot be used with \"proxy\": \"env\", since a proxy's silence proves \
                nothing about the backend; set \"proxy\" to \"none\", or remove \"recovery\"";
            problems.add(&Location::Key(&Location::Top, "recovery"), message);
        }
        let core = core(&list.routes, &shared).filter(|_| list.beyond == 0);
        if let (Some(core), Some(concurrency), Some(deadline)) = (core, concurrency, deadline)
            && let Err(message) = proof::check(&core, concurrency, deadline)
        {
            let location = Location::Key(&Location::Top, "deadline_seconds");
            problems.add(&location, format_args!("{deadline_name}{message}"));
        }
    }

    let recovery = raw.recovery.optional();
    let manifest = || {
        let routes = list.routes.into_iter().map(|raw| shared.route(raw));
        Some(Manifest {
            source,
            base_url: base_url?,
            unix_socket: unix_socket?,
            user_agent: raw.user_agent.value()?,
            deadline: deadline?,
            concurrency: concurrency?,
            proxy: proxy?,
            routes: routes.collect::<Option<_>>()?,
            recovery: match recovery? {
                Some(plan) => Some(plan.build()?),
                None => None,
            },
        })
    };
    if problems.count() > 0 {
        return Err(problems);
    }
    manifest().ok_or(problems)
}

/// The keys that cannot be used with a UNIX socket.
fn check_socket(base_url: Option<&BaseUrl>, proxy: Option<Proxy>, problems: &mut Problems) {
    let location = Location::Key(&Location::Top, "unix_socket");
    if base_url.is_some_and(|url| url.scheme() == Scheme::Https) {
        let message = "cannot be used with an https:// base_url; write http://, as the backend \
            speaks it at its socket";
        problems.add(&location, message);
    }
    if proxy == Some(Proxy::Env) {
        let message = "cannot be used with \"proxy\": \"env\", because no proxy reaches a UNIX socket; \
            set \"proxy\" to \"none\", or remove \"unix_socket\"";
        problems.add(&location, message);
    }
}

/// The number of routes, and of core routes.
fn check_count(list: &RawRoutes, problems: &mut Problems) {
    let location = Location::Key(&Location::Top, "routes");
    let count = list.routes.len() + list.beyond;
    if count == 0 {
        problems.add(
            &location,
            "is empty; give at least one route with \"core\": true",
        );
    } else if list.beyond > 0 {
        let message = format!("{count} routes are too many; give at most {MOST_ROUTES}");
        problems.add(&location, message);
    } else if list.routes.iter().all(|route| route.core == Some(false)) {
        let message = "no core route; set \"core\": true on at least one";
        problems.add(&location, message);
    }
}

/// Every route against its options, the base URL, and the other routes.
fn check_routes(
    routes: &[RawRoute],
    shared: &SharedOptions,
    base_url: Option<&BaseUrl>,
    problems: &mut Problems,
) {
    let list = Location::Key(&Location::Top, "routes");
    let mut known: HashMap<(KnownMethod, &str), usize> = HashMap::with_capacity(routes.len());
    for (index, route) in routes.iter().enumerate() {
        let location = Location::Item(&list, index);
        let method = shared.method(route);
        if let (Some(KnownMethod::Is(Method::Head)), Some(checks)) = (method, &route.checks) {
            let keys = [
                ("body_contains", checks.contains.is_some()),
                ("json", !checks.json.is_empty()),
            ];
            for (key, _) in keys.iter().filter(|(_, given)| *given) {
                let message = "cannot be used with HEAD, because its response has no body; remove it, or give \
                    the route \"method\": \"GET\"";
                problems.add(&Location::Key(&location, key), message);
            }
        }
        let Some(path) = route.path.as_deref() else {
            continue;
        };
        if base_url.is_some_and(|base_url| base_url.is_too_long(path)) {
            let message = format!(
                "the URL is too long; base URL and path together may have at most {} bytes, percent-encoded",
                url::LONGEST
            );
            problems.add(&Location::Key(&location, "path"), message);
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
                    "same method and path as routes[{}] ({}{}); keep one of the two",
                    first.get(),
                    method.prefix(),
                    quoted(path)
                );
                problems.add(&location, message);
            }
        }
    }
}

/// What is known of a route's method.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum KnownMethod {
    /// It is this one.
    Is(Method),
    /// It is that of `defaults`, which is invalid: the same for all routes without their own.
    OfDefaults,
}

impl KnownMethod {
    fn prefix(self) -> String {
        match self {
            Self::Is(method) => format!("{} ", method.as_str()),
            Self::OfDefaults => String::new(),
        }
    }
}

/// The options of all routes, each of them once.
struct SharedOptions(Vec<(Option<KnownMethod>, Option<Arc<Options>>)>);

impl SharedOptions {
    /// Fills the `own` options of routes from the defaults. Where a part of them is not known, there
    /// are none: nothing is compared with them, since that would mislead.
    fn new(own: Vec<RawOptions>, defaults: Field<RawOptions>) -> Self {
        let defaults = match defaults {
            Field::Absent => Some(RawOptions::default()),
            defaults => defaults.value(),
        };
        let defaults = defaults.map(|mut defaults| {
            defaults.fill_defaults();
            defaults
        });
        let fill_in = |mut own: RawOptions| {
            let inherited = defaults.as_ref().and_then(|defaults| defaults.method.get());
            let method = match own.method {
                Field::Value(method) => Some(KnownMethod::Is(method)),
                Field::Invalid => None,
                Field::Absent => Some(
                    inherited.map_or(KnownMethod::OfDefaults, |method| KnownMethod::Is(*method)),
                ),
            };
            let options = defaults.as_ref().and_then(|defaults| {
                add_headers(&mut own.headers, &defaults.headers);
                own.fill_from(defaults);
                own.build()
            });
            (method, options.map(Arc::new))
        };
        Self(own.into_iter().map(fill_in).collect())
    }

    fn method(&self, route: &RawRoute) -> Option<KnownMethod> {
        self.0.get(route.options)?.0
    }

    fn options(&self, route: &RawRoute) -> Option<&Arc<Options>> {
        self.0.get(route.options)?.1.as_ref()
    }

    fn route(&self, raw: RawRoute) -> Option<Route> {
        Some(Route {
            options: self.options(&raw)?.clone(),
            path: raw.path?,
            core: raw.core?,
            checks: raw.checks,
        })
    }
}

/// Puts the headers of the defaults before a route's own, which win name by name.
fn add_headers(own: &mut Field<Vec<Header>>, defaults: &Field<Vec<Header>>) {
    match (own, defaults) {
        (Field::Value(own), Field::Value(defaults)) => {
            let is_own = |header: &Header| {
                let same = |own: &Header| own.name.eq_ignore_ascii_case(&header.name);
                own.iter().any(same)
            };
            let mut all: Vec<Header> = defaults.clone();
            all.retain(|header| !is_own(header));
            all.append(own);
            *own = all;
        }
        (own @ Field::Value(_), Field::Invalid) => *own = Field::Invalid,
        _ => {}
    }
}

/// The options of the core routes; none where they, or which routes are core, is not known.
fn core<'a>(routes: &[RawRoute], shared: &'a SharedOptions) -> Option<Vec<&'a Options>> {
    routes
        .iter()
        .filter(|route| route.core != Some(false))
        .map(|route| route.core.and(shared.options(route)).map(Arc::as_ref))
        .collect()
}
