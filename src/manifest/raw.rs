//! What was written in each of the manifest's tables, each value already by its own rule. What
//! follows from several values together is the business of `resolve.rs`.

use std::fmt;
use std::time::Duration;

use serde::de::{MapAccess, SeqAccess};
use serde_json::Value;

use super::headers::{self, Variables};
use super::json::{Fill, Into, Keys, Scalar, ScalarSeed};
use super::place::{Place, Problems};
use super::{
    BaseUrl, BodyChecks, Header, KillSignal, Method, Proxy, Scope, Secret, UnitName, rules,
};

/// Routes beyond this many are counted as one problem, and not kept.
const ROUTES_MAX: usize = 100_000;

/// The manifest's top level as written. `None` is a key that is missing, or bad and complained of.
#[derive(Default)]
pub(super) struct RawManifest<'v> {
    pub(super) base_url: Option<BaseUrl>,
    pub(super) user_agent: Option<String>,
    pub(super) deadline: Option<Duration>,
    pub(super) concurrency: Option<u32>,
    pub(super) proxy: Option<Proxy>,
    pub(super) defaults: RawOptions,
    pub(super) routes: Vec<RawRoute>,
    pub(super) recovery: Option<RawRecovery>,
    pub(super) variables: Option<Variables<'v>>,
}

/// The options of a route, or of all, as written.
#[derive(Default)]
pub(super) struct RawOptions {
    pub(super) method: Option<Method>,
    pub(super) expect: Option<Vec<u16>>,
    pub(super) timeout: Option<Duration>,
    pub(super) retries: Option<u32>,
    pub(super) backoff: Option<Duration>,
    pub(super) max_redirects: Option<u32>,
    pub(super) headers: Option<Vec<Header>>,
    pub(super) max_body_bytes: Option<u32>,
}

/// A route as written; its own options are boxed, since most routes have none.
#[derive(Default)]
pub(super) struct RawRoute {
    pub(super) path: Option<String>,
    pub(super) core: bool,
    pub(super) options: Option<Box<RawOptions>>,
    pub(super) checks: Option<Box<BodyChecks>>,
}

/// The recovery table as written.
#[derive(Default)]
pub(super) struct RawRecovery {
    pub(super) unit: Option<UnitName>,
    pub(super) scope: Option<Scope>,
    pub(super) signal: Option<KillSignal>,
    pub(super) min_uptime: Option<Duration>,
    pub(super) verify: Option<Duration>,
}

/// Reads the value of a key by its rule; what the rule refuses is a problem.
fn value<'de, A: MapAccess<'de>, T>(
    table: &mut A,
    place: &Place,
    problems: &mut Problems,
    rule: impl FnOnce(Scalar) -> Result<T, String>,
) -> Result<Option<T>, A::Error> {
    let scalar = table.next_value_seed(ScalarSeed)?;
    Ok(rule(scalar)
        .map_err(|problem| problems.add(place, problem))
        .ok())
}

/// Reads the value of a key into `target`.
fn fill<'de, A: MapAccess<'de>>(
    table: &mut A,
    target: &mut impl Fill,
    place: &Place,
    problems: &mut Problems,
) -> Result<(), A::Error> {
    table.next_value_seed(Into {
        target,
        place,
        problems,
    })
}

/// Complains of a key that must be there.
fn require(keys: &Keys, key: &'static str, what: &str, place: &Place, problems: &mut Problems) {
    if !keys.saw(key) {
        problems.add(&place.key(key), format_args!("missing; give {what}"));
    }
}

impl Fill for RawManifest<'_> {
    const KIND: &'static str = "an object";

    fn table<'de, A: MapAccess<'de>>(
        &mut self,
        mut table: A,
        place: &Place,
        problems: &mut Problems,
    ) -> Result<(), A::Error> {
        const KEYS: [&str; 9] = [
            "routes",
            "base_url",
            "defaults",
            "recovery",
            "user_agent",
            "deadline_seconds",
            "concurrency",
            "proxy",
            "$schema",
        ];
        let variables = self.variables.unwrap_or(Variables::Ignored);
        let mut keys = Keys::of(&KEYS);
        while let Some(key) = keys.next(&mut table, place, problems)? {
            let at = &place.key(key);
            let t = &mut table;
            match key {
                "base_url" => {
                    self.base_url =
                        value(t, at, problems, |s| rules::text(s, "an address")?.parse())?;
                }
                "user_agent" => self.user_agent = value(t, at, problems, rules::user_agent)?,
                "deadline_seconds" => {
                    self.deadline =
                        value(t, at, problems, |s| rules::positive_seconds(&s, 86_400))?;
                }
                "concurrency" => {
                    self.concurrency = value(t, at, problems, |s| rules::integer(&s, 1..=64))?;
                }
                "proxy" => self.proxy = value(t, at, problems, |s| rules::proxy(&s))?,
                "defaults" => {
                    let mut defaults = Defaults {
                        options: RawOptions::default(),
                        variables,
                    };
                    fill(t, &mut defaults, at, problems)?;
                    self.defaults = defaults.options;
                }
                "routes" => {
                    let mut routes = Routes {
                        list: Vec::new(),
                        variables,
                    };
                    fill(t, &mut routes, at, problems)?;
                    self.routes = routes.list;
                }
                "recovery" => {
                    let recovery = self.recovery.insert(RawRecovery::default());
                    fill(t, recovery, at, problems)?;
                }
                _ => drop(value(t, at, problems, rules::schema)?),
            }
        }
        require(&keys, "base_url", "the backend's address", place, problems);
        require(&keys, "routes", "a list of routes", place, problems);
        Ok(())
    }
}

impl RawOptions {
    const KEYS: [&'static str; 8] = [
        "timeout_seconds",
        "retries",
        "expect",
        "retry_backoff_seconds",
        "method",
        "max_redirects",
        "headers",
        "max_body_bytes",
    ];

    /// Takes the value of one of [`Self::KEYS`].
    fn take<'de, A: MapAccess<'de>>(
        &mut self,
        key: &str,
        t: &mut A,
        at: &Place,
        problems: &mut Problems,
        variables: Variables,
    ) -> Result<(), A::Error> {
        match key {
            "method" => self.method = value(t, at, problems, |s| rules::method(&s))?,
            "expect" => {
                let expect = self.expect.insert(Vec::new());
                fill(t, expect, at, problems)?;
            }
            "timeout_seconds" => {
                self.timeout = value(t, at, problems, |s| rules::positive_seconds(&s, 3600))?;
            }
            "retries" => self.retries = value(t, at, problems, |s| rules::integer(&s, 0..=10))?,
            "retry_backoff_seconds" => {
                self.backoff = value(t, at, problems, |s| rules::seconds(&s, 0..=60))?;
            }
            "max_redirects" => {
                self.max_redirects = value(t, at, problems, |s| rules::integer(&s, 0..=20))?;
            }
            "headers" => {
                let mut headers = Headers {
                    list: Vec::new(),
                    variables,
                };
                fill(t, &mut headers, at, problems)?;
                self.headers = Some(headers.list);
            }
            _ => {
                let range = 1..=16 * 1024 * 1024;
                self.max_body_bytes = value(t, at, problems, |s| rules::integer(&s, range))?;
            }
        }
        Ok(())
    }
}

/// The `defaults` table.
struct Defaults<'v> {
    options: RawOptions,
    variables: Variables<'v>,
}

impl Fill for Defaults<'_> {
    const KIND: &'static str = "an object";

    fn table<'de, A: MapAccess<'de>>(
        &mut self,
        mut table: A,
        place: &Place,
        problems: &mut Problems,
    ) -> Result<(), A::Error> {
        let mut keys = Keys::of(&RawOptions::KEYS);
        while let Some(key) = keys.next(&mut table, place, problems)? {
            self.options
                .take(key, &mut table, &place.key(key), problems, self.variables)?;
        }
        Ok(())
    }
}

/// The `routes` list.
struct Routes<'v> {
    list: Vec<RawRoute>,
    variables: Variables<'v>,
}

impl Fill for Routes<'_> {
    const KIND: &'static str = "a list of routes";

    fn list<'de, A: SeqAccess<'de>>(
        &mut self,
        mut list: A,
        place: &Place,
        problems: &mut Problems,
    ) -> Result<(), A::Error> {
        let mut count = 0;
        loop {
            let at = place.index(count);
            let mut one = OneRoute {
                route: RawRoute::default(),
                variables: self.variables,
            };
            if list
                .next_element_seed(Into {
                    target: &mut one,
                    place: &at,
                    problems,
                })?
                .is_none()
            {
                break;
            }
            count += 1;
            if count <= ROUTES_MAX {
                self.list.push(one.route);
            }
        }
        match count {
            0 => problems.add(
                place,
                "empty; give at least one route, and one of them core",
            ),
            _ if count > ROUTES_MAX => {
                problems.add(
                    place,
                    format_args!("{count} are too many; give at most {ROUTES_MAX}"),
                );
            }
            _ => {}
        }
        Ok(())
    }
}

/// One element of the `routes` list.
struct OneRoute<'v> {
    route: RawRoute,
    variables: Variables<'v>,
}

impl Fill for OneRoute<'_> {
    const KIND: &'static str = "an object with a \"path\"";

    fn table<'de, A: MapAccess<'de>>(
        &mut self,
        mut table: A,
        place: &Place,
        problems: &mut Problems,
    ) -> Result<(), A::Error> {
        const KEYS: [&str; 12] = [
            "path",
            "core",
            "timeout_seconds",
            "retries",
            "expect",
            "retry_backoff_seconds",
            "method",
            "max_redirects",
            "headers",
            "max_body_bytes",
            "body_contains",
            "json",
        ];
        let route = &mut self.route;
        let mut keys = Keys::of(&KEYS);
        while let Some(key) = keys.next(&mut table, place, problems)? {
            let at = &place.key(key);
            match key {
                "path" => route.path = value(&mut table, at, problems, rules::path)?,
                "core" => {
                    let core = value(&mut table, at, problems, |s| rules::boolean(&s))?;
                    route.core = core.unwrap_or_default();
                }
                "body_contains" => {
                    let rule = |s| rules::non_empty(s, "text that the body must contain");
                    let checks = route.checks.get_or_insert_default();
                    checks.contains = value(&mut table, at, problems, rule)?;
                }
                "json" => {
                    let checks = route.checks.get_or_insert_default();
                    fill(&mut table, &mut checks.json, at, problems)?;
                }
                _ => {
                    let options = route.options.get_or_insert_default();
                    options.take(key, &mut table, at, problems, self.variables)?;
                }
            }
        }
        require(&keys, "path", "the route's path", place, problems);
        Ok(())
    }
}

/// The `expect` list.
impl Fill for Vec<u16> {
    const KIND: &'static str = "a list of statuses, such as [200, 404]";

    fn list<'de, A: SeqAccess<'de>>(
        &mut self,
        mut list: A,
        place: &Place,
        problems: &mut Problems,
    ) -> Result<(), A::Error> {
        let mut count = 0;
        while let Some(scalar) = list.next_element_seed(ScalarSeed)? {
            match rules::integer(&scalar, 200..=599).map(u16::try_from) {
                Ok(status) => self.extend(status),
                Err(problem) => problems.add(&place.index(count), problem),
            }
            count += 1;
        }
        if count == 0 {
            problems.add(place, format_args!("empty; give {}", Self::KIND));
        }
        Ok(())
    }
}

/// A `headers` table.
struct Headers<'v> {
    list: Vec<Header>,
    variables: Variables<'v>,
}

impl Fill for Headers<'_> {
    const KIND: &'static str = "an object of names and values";

    fn table<'de, A: MapAccess<'de>>(
        &mut self,
        mut table: A,
        place: &Place,
        problems: &mut Problems,
    ) -> Result<(), A::Error> {
        while let Some(name) = table.next_key::<String>()? {
            let at = &place.name(&name);
            let scalar = table.next_value_seed(ScalarSeed)?;
            if let Err(problem) = headers::name(&name) {
                problems.add(at, problem);
            }
            if self
                .list
                .iter()
                .any(|header| header.name.eq_ignore_ascii_case(&name))
            {
                problems.add(at, "given twice (case does not matter); give it once");
            }
            let value = match scalar {
                Scalar::Text(text) => headers::expand(&text, self.variables),
                // The value itself is not shown.
                _ => Err("not text; give the value in quotes".to_owned()),
            };
            match value {
                Err(problem) => problems.add(at, problem),
                Ok(value) if name.eq_ignore_ascii_case("host") && !value.is_ascii() => {
                    problems.add(at, "not ASCII; give the host's ASCII form");
                }
                Ok(value) => self.list.push(Header {
                    name,
                    value: Secret::new(value),
                }),
            }
        }
        Ok(())
    }
}

/// A `json` table.
impl Fill for Vec<(String, Value)> {
    const KIND: &'static str = "an object of JSON Pointers and values";

    fn table<'de, A: MapAccess<'de>>(
        &mut self,
        mut table: A,
        place: &Place,
        problems: &mut Problems,
    ) -> Result<(), A::Error> {
        let mut empty = true;
        while let Some((pointer, value)) = table.next_entry::<String, Value>()? {
            empty = false;
            let at = &place.name(&pointer);
            if let Err(problem) = rules::pointer(&pointer) {
                problems.add(at, problem);
            }
            if self.iter().any(|(known, _)| *known == pointer) {
                problems.add(at, "given twice; give it once");
            }
            self.push((pointer, value));
        }
        if empty {
            problems.add(place, format_args!("empty; give {}", Self::KIND));
        }
        Ok(())
    }
}

impl Fill for RawRecovery {
    const KIND: &'static str = "an object with a \"unit\"";

    fn table<'de, A: MapAccess<'de>>(
        &mut self,
        mut table: A,
        place: &Place,
        problems: &mut Problems,
    ) -> Result<(), A::Error> {
        const KEYS: [&str; 5] = [
            "unit",
            "scope",
            "signal",
            "min_uptime_seconds",
            "verify_seconds",
        ];
        let mut keys = Keys::of(&KEYS);
        while let Some(key) = keys.next(&mut table, place, problems)? {
            let at = &place.key(key);
            let t = &mut table;
            match key {
                "unit" => self.unit = value(t, at, problems, rules::unit)?,
                "scope" => self.scope = value(t, at, problems, |s| rules::scope(&s))?,
                "signal" => self.signal = value(t, at, problems, |s| rules::signal(&s))?,
                "min_uptime_seconds" => {
                    self.min_uptime = value(t, at, problems, |s| rules::seconds(&s, 0..=86_400))?;
                }
                _ => self.verify = value(t, at, problems, |s| rules::seconds(&s, 1..=3600))?,
            }
        }
        require(&keys, "unit", "the backend's unit", place, problems);
        Ok(())
    }
}

impl fmt::Debug for RawManifest<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RawManifest").finish_non_exhaustive()
    }
}
