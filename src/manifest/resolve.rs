//! From what was written to a manifest that holds: defaults put in, and the rules that take
//! several values together.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use super::place::{Place, Problems};
use super::raw::{RawManifest, RawOptions, RawRecovery};
use super::{
    Expect, Header, KillSignal, Manifest, Method, Options, Proxy, RecoveryPlan, Route, Scope,
    Source,
};

impl Options {
    /// The options of a route that neither it nor the manifest's defaults say anything of.
    fn built_in() -> Self {
        Self {
            method: Method::Get,
            expect: Expect::Success,
            timeout: Duration::from_secs(10),
            retries: 2,
            backoff: Duration::from_millis(500),
            max_redirects: 0,
            headers: Vec::new(),
            max_body_bytes: 1024 * 1024,
        }
    }

    /// These options with what was written in their place; headers name by name.
    fn with(&self, raw: RawOptions) -> Self {
        let mut headers = self.headers.clone();
        for header in raw.headers.unwrap_or_default() {
            let same = |known: &Header| known.name.eq_ignore_ascii_case(&header.name);
            headers.retain(|known| !same(known));
            headers.push(header);
        }
        Self {
            method: raw.method.unwrap_or(self.method),
            expect: raw
                .expect
                .map_or_else(|| self.expect.clone(), Expect::Listed),
            timeout: raw.timeout.unwrap_or(self.timeout),
            retries: raw.retries.unwrap_or(self.retries),
            backoff: raw.backoff.unwrap_or(self.backoff),
            max_redirects: raw.max_redirects.unwrap_or(self.max_redirects),
            headers,
            max_body_bytes: raw
                .max_body_bytes
                .map_or(self.max_body_bytes, |bytes| bytes as usize),
        }
    }

    /// The longest that a route may take: all attempts, and the pauses between them.
    fn longest(&self) -> Duration {
        // Doubled for each next pause: 1 + 2 + 4 + … of them.
        let pauses = (1 << self.retries) - 1;
        self.timeout * (self.retries + 1) + self.backoff * pauses
    }
}

/// Puts a manifest together, or returns all its problems.
pub(super) fn resolve(
    raw: RawManifest,
    source: Source,
    mut problems: Problems,
) -> Result<Manifest, Problems> {
    let top = &Place::TOP;
    let defaults = Arc::new(Options::built_in().with(raw.defaults));
    let mut routes = Vec::with_capacity(raw.routes.len());
    let all_read = raw.routes.iter().all(|route| route.path.is_some());
    for (index, route) in raw.routes.into_iter().enumerate() {
        let options = match route.options {
            None => Arc::clone(&defaults),
            Some(own) => Arc::new(defaults.with(*own)),
        };
        if options.method == Method::Head && route.checks.is_some() {
            let place = &top.key("routes");
            let problem =
                "a HEAD has no body; give GET, or leave out \"body_contains\" and \"json\"";
            problems.add(&place.index(index), problem);
        }
        let path = route.path.unwrap_or_default();
        routes.push(Route {
            path,
            core: route.core,
            options,
            checks: route.checks,
        });
    }
    if all_read {
        complain_of_same(&routes, &mut problems);
    }
    if !routes.is_empty() && !routes.iter().any(|route| route.core) {
        problems.add(
            &top.key("routes"),
            "none is core; give \"core\": true to a liveness route",
        );
    }

    let deadline = raw.deadline.unwrap_or(Duration::from_secs(120));
    let proxy = raw.proxy.unwrap_or(Proxy::None);
    let concurrency = NonZeroUsize::new(raw.concurrency.unwrap_or(4) as usize);
    let concurrency = concurrency.unwrap_or(NonZeroUsize::MIN);
    if raw.recovery.is_some() {
        if proxy != Proxy::None {
            let problem = "not together with \"recovery\": what a proxy does proves nothing of a \
                           local process; give \"none\"";
            problems.add(&top.key("proxy"), problem);
        }
        complain_of_short(deadline, &routes, concurrency, &mut problems);
    }
    let recovery = raw.recovery.and_then(plan);
    match raw.base_url {
        Some(base_url) if problems.is_empty() => Ok(Manifest {
            source,
            base_url,
            user_agent: raw.user_agent.unwrap_or_else(default_user_agent),
            deadline,
            concurrency,
            proxy,
            routes,
            recovery,
        }),
        _ => Err(problems),
    }
}

fn default_user_agent() -> String {
    concat!("scidex-route-health/", env!("CARGO_PKG_VERSION")).to_owned()
}

fn plan(raw: RawRecovery) -> Option<RecoveryPlan> {
    Some(RecoveryPlan {
        unit: raw.unit?,
        scope: raw.scope.unwrap_or(Scope::System),
        signal: raw.signal.unwrap_or(KillSignal::Kill),
        min_uptime: raw.min_uptime.unwrap_or(Duration::from_secs(120)),
        verify: raw.verify.unwrap_or(Duration::from_secs(60)),
    })
}

/// Complains of routes with the method and path of an earlier one.
fn complain_of_same(routes: &[Route], problems: &mut Problems) {
    let mut known: HashMap<(Method, &str), usize> = HashMap::with_capacity(routes.len());
    for (index, route) in routes.iter().enumerate() {
        match known.entry((route.options.method, route.path.as_str())) {
            Entry::Vacant(entry) => drop(entry.insert(index)),
            Entry::Occupied(entry) => {
                let method = route.options.method.as_str();
                let place = &Place::TOP.key("routes");
                let first = entry.get();
                problems.add(
                    &place.index(index),
                    format_args!("the same {method} and path as routes[{first}]; leave one out"),
                );
            }
        }
    }
}

/// Complains of a deadline before which the core routes could not prove a hang.
fn complain_of_short(
    deadline: Duration,
    routes: &[Route],
    concurrency: NonZeroUsize,
    problems: &mut Problems,
) {
    // A figure that is written as it is named here may be a rounding error away.
    const ROUNDING: Duration = Duration::from_micros(1);
    let core = routes.iter().filter(|route| route.core);
    let Some(longest) = core.clone().map(|route| route.options.longest()).max() else {
        return;
    };
    let rounds = u32::try_from(core.count().div_ceil(concurrency.get())).unwrap_or(u32::MAX);
    let needed = longest.saturating_mul(rounds);
    if deadline + ROUNDING < needed {
        problems.add(
            &Place::TOP.key("deadline_seconds"),
            format_args!(
                "{} is too short to prove a hang; give at least {} ({rounds} times {}, all \
                 attempts and pauses of the longest core route)",
                deadline.as_secs_f64(),
                needed.as_secs_f64(),
                longest.as_secs_f64()
            ),
        );
    }
}
