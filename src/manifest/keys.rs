//! Every key of the manifest, with its rule and its default. Rules that compare several keys are in
//! `resolve`.

use std::num::NonZeroUsize;
use std::time::Duration;

use serde::de::{IgnoredAny, MapAccess, SeqAccess};
use serde_json::Value;

use super::field::Field;
use super::headers::Headers;
use super::json::{AnyValue, Context, Exact, JsonValue, Reader, Seed, ValueVisitor, scalar, visit};
use super::location::Location;
use super::object::{Object, duplicate, keys, object};
use super::url::BaseUrl;
use super::{
    BodyChecks, DumpSignal, Expect, Header, KillSignal, Method, Options, Proxy, RecoveryPlan,
    Scope, SocketPath, UnitName, rules,
};

/// Routes in a manifest.
pub(super) const MOST_ROUTES: usize = 100_000;

const SECOND: Duration = Duration::from_secs(1);

keys! {
    /// The manifest's top level.
    RawManifest {
        schema: () = "$schema", scalar(|value| rules::text(value).map(drop)), optional;
        base_url: BaseUrl = "base_url", scalar(rules::parsed), required;
        unix_socket: SocketPath = "unix_socket", scalar(rules::parsed), optional;
        user_agent: String = "user_agent", scalar(rules::user_agent),
            default(concat!(env!("CARGO_PKG_NAME"), "/", env!("CARGO_PKG_VERSION")).to_owned());
        deadline: Duration = "deadline_seconds",
            scalar(|value| rules::positive_seconds(value, rules::DAY)), default(120 * SECOND);
        concurrency: NonZeroUsize = "concurrency", scalar(rules::concurrency),
            default(const { NonZeroUsize::new(4).unwrap() });
        proxy: Proxy = "proxy", scalar(rules::proxy), default(Proxy::None);
        defaults: RawOptions = "defaults", object(), optional;
        routes: RawRoutes = "routes", visit(Routes), required;
        recovery: RawRecovery = "recovery", object(), optional;
    }
}

keys! {
    /// The options of `defaults` or of one route.
    RawOptions for Options {
        method: Method = "method", scalar(rules::method), default(Method::Get);
        expect: Expect = "expect", visit(Statuses), default(Expect::Success);
        timeout: Duration = "timeout_seconds",
            scalar(|value| rules::positive_seconds(value, 3600)), default(10 * SECOND);
        retries: u32 = "retries", scalar(|value| rules::whole(value, 0, 10)), default(2);
        backoff: Duration = "retry_backoff_seconds",
            scalar(|value| rules::seconds(value, 0, 60)), default(SECOND / 2);
        max_redirects: u32 = "max_redirects", scalar(|value| rules::whole(value, 0, 20)), default(0);
        headers: Vec<Header> = "headers", visit(Headers), default(Vec::new());
        max_body_bytes: usize = "max_body_bytes", scalar(rules::max_body_bytes), default(1024 * 1024);
    }
}

keys! {
    /// A route as it is written.
    RouteObject {
        path: String = "path", scalar(rules::path), required;
        core: bool = "core", scalar(rules::boolean), default(false);
        contains: String = "body_contains", body_text(), optional;
        json: Vec<(String, Value)> = "json", visit(JsonChecks), optional;
        ..options: RawOptions
    }
}

keys! {
    /// The `recovery` object.
    RawRecovery for RecoveryPlan {
        unit: UnitName = "unit", scalar(rules::parsed), required;
        scope: Scope = "scope", scalar(rules::scope), default(Scope::System);
        signal: KillSignal = "signal", scalar(rules::signal), default(KillSignal::Kill);
        dump_signal: DumpSignal = "dump_signal", scalar(rules::dump_signal), optional;
        min_uptime: Duration = "min_uptime_seconds",
            scalar(|value| rules::seconds(value, 0, rules::DAY)), default(120 * SECOND);
        verify: Duration = "verify_seconds",
            scalar(|value| rules::seconds(value, 1, 3600)), default(60 * SECOND);
    }
}

/// A route, its options shared with others.
#[derive(Clone, PartialEq)]
pub(super) struct RawRoute {
    /// None where there is no valid one.
    pub(super) path: Option<String>,
    /// None where it is not known.
    pub(super) core: Option<bool>,
    /// The index of its own options in [`RawRoutes::options`].
    pub(super) options: usize,
    pub(super) checks: Option<Box<BodyChecks>>,
}

/// All routes, and their own options.
#[derive(Clone, PartialEq)]
pub(super) struct RawRoutes {
    pub(super) routes: Vec<RawRoute>,
    /// The different ones; the first are those of a route without any.
    pub(super) options: Vec<RawOptions>,
    /// Routes beyond [`MOST_ROUTES`], which were not kept.
    pub(super) beyond: usize,
}

impl Default for RawRoutes {
    fn default() -> Self {
        Self {
            routes: Vec::new(),
            options: vec![RawOptions::default()],
            beyond: 0,
        }
    }
}

impl RawRoutes {
    fn push(&mut self, mut route: RouteObject, is_object: bool) {
        route.fill_defaults();
        let (contains, json) = (route.contains.value(), route.json.value());
        let options = self.number(route.options);
        let has_checks = contains.is_some() || json.is_some();
        self.routes.push(RawRoute {
            path: route.path.value(),
            core: route.core.value().filter(|_| is_object),
            options,
            checks: has_checks.then(|| {
                Box::new(BodyChecks {
                    contains,
                    json: json.unwrap_or_default(),
                })
            }),
        });
    }

    /// The index of `options`. Routes with the same options as a recent one, which most are, share an
    /// index.
    fn number(&mut self, options: RawOptions) -> usize {
        const RECENT: usize = 16;
        if self.options.first() == Some(&options) {
            return 0;
        }
        let mut recent = self.options.iter().enumerate().rev().take(RECENT);
        if let Some((number, _)) = recent.find(|(_, known)| **known == options) {
            return number;
        }
        self.options.push(options);
        self.options.len() - 1
    }
}

/// The array of routes.
struct Routes;

impl<'de> ValueVisitor<'de> for Reader<'_, '_, Routes> {
    type Out = Option<RawRoutes>;

    fn scalar(self, value: JsonValue<'de>) -> Self::Out {
        let remedy = "give a list of routes, such as [{ \"path\": \"/\", \"core\": true }]";
        self.context
            .problems
            .add(self.location, value.wrong_type(remedy));
        None
    }

    fn array<A: SeqAccess<'de>>(self, mut array: A) -> Result<Self::Out, A::Error> {
        let mut all = RawRoutes::default();
        for index in 0..MOST_ROUTES {
            let location = Location::Item(self.location, index);
            let mut route = RouteObject::default();
            let reader = Reader::new(&mut route, &location, self.context);
            match array.next_element_seed(Seed(reader))? {
                Some(is_object) => all.push(route, is_object),
                None => return Ok(Some(all)),
            }
        }
        while array.next_element::<IgnoredAny>()?.is_some() {
            all.beyond += 1;
        }
        Ok(Some(all))
    }
}

/// An array of acceptable statuses.
struct Statuses;

impl<'de> ValueVisitor<'de> for Reader<'_, '_, Statuses> {
    type Out = Option<Expect>;

    fn scalar(self, value: JsonValue<'de>) -> Self::Out {
        let message = value.wrong_type("give a list of statuses, such as [200, 301]");
        self.context.problems.add(self.location, message);
        None
    }

    fn array<A: SeqAccess<'de>>(self, mut array: A) -> Result<Self::Out, A::Error> {
        let problems = &mut self.context.problems;
        let before = problems.count();
        let mut statuses = Vec::new();
        let mut index = 0;
        while let Some(value) = array.next_element_seed(Seed(AnyValue))? {
            match rules::status(&value) {
                Ok(status) if statuses.contains(&status) => {}
                Ok(status) => statuses.push(status),
                Err(message) => problems.add(&Location::Item(self.location, index), message),
            }
            index += 1;
        }
        if index == 0 {
            let message =
                "is empty; give at least one status, or leave the key out for any 2xx or 3xx";
            problems.add(self.location, message);
        }
        Ok((problems.count() == before).then_some(Expect::Listed(statuses)))
    }
}

/// Reads the text that a body must contain.
fn body_text<'de, A: MapAccess<'de>>(
    map: &mut A,
    location: &Location<'_>,
    context: &mut Context<'_>,
) -> Result<Field<String>, A::Error> {
    let variables = context.variables;
    scalar(map, location, context, |value| {
        rules::body_text(value, variables)
    })
}

/// The object JSON Pointer → value.
struct JsonChecks;

impl<'de> ValueVisitor<'de> for Reader<'_, '_, JsonChecks> {
    type Out = Option<Vec<(String, Value)>>;

    fn scalar(self, value: JsonValue<'de>) -> Self::Out {
        let remedy = "give an object, JSON Pointer → value, such as { \"/status\": \"healthy\" }";
        self.context
            .problems
            .add(self.location, value.wrong_type(remedy));
        None
    }

    fn object<A: MapAccess<'de>>(self, map: A) -> Result<Self::Out, A::Error> {
        let before = self.context.problems.count();
        let reader = Reader::new(Exact, self.location, self.context);
        let Value::Object(entries) = reader.object(map)? else {
            return Ok(None);
        };
        let problems = &mut self.context.problems;
        if entries.is_empty() {
            let message =
                "is empty; give at least one JSON Pointer and its value, or leave the key out";
            problems.add(self.location, message);
        }
        for pointer in entries.keys() {
            if let Err(message) = rules::pointer(pointer) {
                problems.add(&Location::Entry(self.location, pointer), message);
            }
        }
        Ok((problems.count() == before).then(|| entries.into_iter().collect()))
    }
}
