//! What a manifest says, table by table: each value is valid by its own rule, and nothing has been
//! filled in or compared yet. It knows every key, and no default.

use std::num::NonZeroUsize;
use std::time::Duration;

use serde::de::{IgnoredAny, MapAccess, SeqAccess};
use serde_json::Value;

use super::given::Given;
use super::headers::Headers;
use super::json::{AnyScalar, Context, Exact, Fill, Read, Scalar, Shape, Table, scalar};
use super::place::Place;
use super::url::BaseUrl;
use super::{
    BodyChecks, DumpSignal, Expect, Header, KillSignal, Method, Proxy, Scope, SocketPath, UnitName,
    rules,
};

/// Routes in a manifest.
pub(super) const MOST_ROUTES: usize = 100_000;

/// The manifest's top level.
#[derive(Default)]
pub(super) struct Raw {
    pub(super) base_url: Given<BaseUrl>,
    pub(super) unix_socket: Given<SocketPath>,
    pub(super) user_agent: Given<String>,
    pub(super) deadline: Given<Duration>,
    pub(super) concurrency: Given<NonZeroUsize>,
    pub(super) proxy: Given<Proxy>,
    pub(super) defaults: Given<RawOptions>,
    pub(super) routes: Given<RawRoutes>,
    pub(super) recovery: Given<RawRecovery>,
}

impl<'de> Table<'de> for Raw {
    const KEYS: &'static [&'static str] = &[
        "base_url",
        "routes",
        "$schema",
        "unix_socket",
        "user_agent",
        "deadline_seconds",
        "concurrency",
        "proxy",
        "defaults",
        "recovery",
    ];
    const REQUIRED: usize = 2;

    fn value<A: MapAccess<'de>>(
        &mut self,
        key: &'static str,
        table: &mut A,
        place: &Place<'_>,
        context: &mut Context<'_>,
    ) -> Result<(), A::Error> {
        match key {
            "base_url" => self.base_url = scalar(table, place, context, rules::parsed)?,
            "unix_socket" => self.unix_socket = scalar(table, place, context, rules::parsed)?,
            "user_agent" => self.user_agent = scalar(table, place, context, rules::user_agent)?,
            "deadline_seconds" => {
                self.deadline = scalar(table, place, context, |v| {
                    rules::positive_seconds(v, 86_400)
                })?;
            }
            "concurrency" => self.concurrency = scalar(table, place, context, rules::concurrency)?,
            "proxy" => self.proxy = scalar(table, place, context, rules::proxy)?,
            "defaults" => self.defaults = fill(table, place, context)?,
            "routes" => {
                let routes = RoutesList { place, context };
                self.routes = table.next_value_seed(Read(routes))?.into();
            }
            "recovery" => self.recovery = fill(table, place, context)?,
            // For editors only.
            last => {
                debug_assert_eq!(last, "$schema");
                scalar(table, place, context, |v| rules::text(v).map(|_| ()))?;
            }
        }
        Ok(())
    }
}

/// Reads the table that comes next.
fn fill<'de, A: MapAccess<'de>, T: Table<'de> + Default>(
    table: &mut A,
    place: &Place<'_>,
    context: &mut Context<'_>,
) -> Result<Given<T>, A::Error> {
    let mut target = T::default();
    let filled = table.next_value_seed(Read(Fill {
        target: &mut target,
        place,
        context,
    }))?;
    Ok(Given::from(filled.then_some(target)))
}

/// The keys of the options.
const OPTIONS: [&str; 8] = [
    "method",
    "expect",
    "timeout_seconds",
    "retries",
    "retry_backoff_seconds",
    "max_redirects",
    "headers",
    "max_body_bytes",
];

/// The options of `defaults` or of one route.
#[derive(Default, PartialEq)]
pub(super) struct RawOptions {
    pub(super) method: Given<Method>,
    pub(super) expect: Given<Expect>,
    pub(super) timeout: Given<Duration>,
    pub(super) retries: Given<u32>,
    pub(super) backoff: Given<Duration>,
    pub(super) max_redirects: Given<u32>,
    pub(super) headers: Given<Vec<Header>>,
    pub(super) max_body_bytes: Given<u32>,
}

impl<'de> Table<'de> for RawOptions {
    const KEYS: &'static [&'static str] = &OPTIONS;
    const REQUIRED: usize = 0;

    fn value<A: MapAccess<'de>>(
        &mut self,
        key: &'static str,
        table: &mut A,
        place: &Place<'_>,
        context: &mut Context<'_>,
    ) -> Result<(), A::Error> {
        match key {
            "method" => self.method = scalar(table, place, context, rules::method)?,
            "expect" => {
                let list = ExpectList { place, context };
                self.expect = table.next_value_seed(Read(list))?.into();
            }
            "timeout_seconds" => {
                self.timeout = scalar(table, place, context, |v| rules::positive_seconds(v, 3600))?;
            }
            "retries" => self.retries = scalar(table, place, context, |v| rules::whole(v, 0, 10))?,
            "retry_backoff_seconds" => {
                self.backoff = scalar(table, place, context, |v| rules::seconds(v, 0, 60))?;
            }
            "max_redirects" => {
                self.max_redirects = scalar(table, place, context, |v| rules::whole(v, 0, 20))?;
            }
            "headers" => {
                let headers = Headers { place, context };
                self.headers = table.next_value_seed(Read(headers))?.into();
            }
            last => {
                debug_assert_eq!(last, "max_body_bytes");
                let most = 16 * 1024 * 1024;
                self.max_body_bytes = scalar(table, place, context, |v| rules::whole(v, 1, most))?;
            }
        }
        Ok(())
    }
}

/// The list of acceptable statuses.
struct ExpectList<'a, 'v> {
    place: &'a Place<'a>,
    context: &'a mut Context<'v>,
}

impl<'de> Shape<'de> for ExpectList<'_, '_> {
    type Out = Option<Expect>;

    fn scalar(self, scalar: Scalar<'de>) -> Self::Out {
        let message = scalar.wrong_type("give a list of statuses, such as [200, 301]");
        self.context.problems.add(self.place, message);
        None
    }

    fn list<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Out, A::Error> {
        let problems = &mut self.context.problems;
        let before = problems.count();
        let mut statuses = Vec::new();
        let mut index = 0;
        while let Some(value) = list.next_element_seed(Read(AnyScalar))? {
            match rules::status(&value) {
                Ok(status) if statuses.contains(&status) => {}
                Ok(status) => statuses.push(status),
                Err(message) => problems.add(&Place::Item(self.place, index), message),
            }
            index += 1;
        }
        if index == 0 {
            let message =
                "is empty; give at least one status, or leave the key out for any 2xx or 3xx";
            problems.add(self.place, message);
        }
        Ok((problems.count() == before).then_some(Expect::Listed(statuses)))
    }
}

/// One route.
pub(super) struct RawRoute {
    /// None where there is no valid one.
    pub(super) path: Option<String>,
    /// None where it is not known.
    pub(super) core: Option<bool>,
    /// Which of [`RawRoutes::options`] are its own, if it has any.
    pub(super) options: Option<usize>,
    pub(super) checks: Option<Box<BodyChecks>>,
}

/// All routes, and what they say of their own options.
#[derive(Default)]
pub(super) struct RawRoutes {
    pub(super) routes: Vec<RawRoute>,
    pub(super) options: Vec<RawOptions>,
    /// Routes beyond [`MOST_ROUTES`], which were not kept.
    pub(super) beyond: usize,
}

/// The list of routes.
struct RoutesList<'a, 'v> {
    place: &'a Place<'a>,
    context: &'a mut Context<'v>,
}

impl<'de> Shape<'de> for RoutesList<'_, '_> {
    type Out = Option<RawRoutes>;

    fn scalar(self, scalar: Scalar<'de>) -> Self::Out {
        let message = scalar
            .wrong_type("give a list of routes, such as [{ \"path\": \"/\", \"core\": true }]");
        self.context.problems.add(self.place, message);
        None
    }

    fn list<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Out, A::Error> {
        let mut all = RawRoutes::default();
        for index in 0..MOST_ROUTES {
            let mut entry = RouteTable::default();
            let place = Place::Item(self.place, index);
            let filled = list.next_element_seed(Read(Fill {
                target: &mut entry,
                place: &place,
                context: &mut *self.context,
            }))?;
            match filled {
                Some(is_table) => all.push(entry, is_table),
                None => return Ok(Some(all)),
            }
        }
        while list.next_element::<IgnoredAny>()?.is_some() {
            all.beyond += 1;
        }
        Ok(Some(all))
    }
}

impl RawRoutes {
    fn push(&mut self, entry: RouteTable, is_table: bool) {
        let options = entry.options.map(|options| self.number(options));
        let checks = entry.contains.is_some() || !entry.json.is_empty();
        self.routes.push(RawRoute {
            path: entry.path.value(),
            core: entry.core.or(false).filter(|_| is_table),
            options,
            checks: checks.then(|| {
                Box::new(BodyChecks {
                    contains: entry.contains,
                    json: entry.json,
                })
            }),
        });
    }

    /// The number of `options`, which is that of a recent route if it says the same: most of the
    /// routes that say something do.
    fn number(&mut self, options: RawOptions) -> usize {
        const RECENT: usize = 16;
        let mut recent = self.options.iter().enumerate().rev().take(RECENT);
        if let Some((number, _)) = recent.find(|(_, recent)| **recent == options) {
            return number;
        }
        self.options.push(options);
        self.options.len() - 1
    }
}

/// A route as a table.
#[derive(Default)]
struct RouteTable {
    path: Given<String>,
    core: Given<bool>,
    options: Option<RawOptions>,
    contains: Option<String>,
    json: Vec<(String, Value)>,
}

impl<'de> Table<'de> for RouteTable {
    const KEYS: &'static [&'static str] = &{
        let [a, b, c, d, e, f, g, h] = OPTIONS;
        [
            "path",
            "core",
            "body_contains",
            "json",
            a,
            b,
            c,
            d,
            e,
            f,
            g,
            h,
        ]
    };
    const REQUIRED: usize = 1;

    fn value<A: MapAccess<'de>>(
        &mut self,
        key: &'static str,
        table: &mut A,
        place: &Place<'_>,
        context: &mut Context<'_>,
    ) -> Result<(), A::Error> {
        match key {
            "path" => self.path = scalar(table, place, context, rules::path)?,
            "core" => self.core = scalar(table, place, context, rules::boolean)?,
            "body_contains" => {
                self.contains = scalar(table, place, context, rules::some_text)?.value();
            }
            "json" => self.json = table.next_value_seed(Read(JsonTable { place, context }))?,
            option => {
                let options = self.options.get_or_insert_default();
                options.value(option, table, place, context)?;
            }
        }
        Ok(())
    }
}

/// The table JSON Pointer → value.
struct JsonTable<'a, 'v> {
    place: &'a Place<'a>,
    context: &'a mut Context<'v>,
}

impl<'de> Shape<'de> for JsonTable<'_, '_> {
    type Out = Vec<(String, Value)>;

    fn scalar(self, scalar: Scalar<'de>) -> Self::Out {
        let remedy = "give an object, JSON Pointer → value, such as { \"/status\": \"healthy\" }";
        self.context
            .problems
            .add(self.place, scalar.wrong_type(remedy));
        Vec::new()
    }

    fn table<A: MapAccess<'de>>(self, table: A) -> Result<Self::Out, A::Error> {
        let exact = Exact {
            place: self.place,
            context: &mut *self.context,
        };
        let Value::Object(entries) = exact.table(table)? else {
            return Ok(Vec::new());
        };
        let problems = &mut self.context.problems;
        if entries.is_empty() {
            let message =
                "is empty; give at least one JSON Pointer and its value, or leave the key out";
            problems.add(self.place, message);
        }
        for pointer in entries.keys() {
            if let Err(message) = rules::pointer(pointer) {
                problems.add(&Place::Entry(self.place, pointer), message);
            }
        }
        Ok(entries.into_iter().collect())
    }
}

/// The `recovery` table.
#[derive(Default)]
pub(super) struct RawRecovery {
    pub(super) unit: Given<UnitName>,
    pub(super) scope: Given<Scope>,
    pub(super) signal: Given<KillSignal>,
    pub(super) dump_signal: Given<DumpSignal>,
    pub(super) min_uptime: Given<Duration>,
    pub(super) verify: Given<Duration>,
}

impl<'de> Table<'de> for RawRecovery {
    const KEYS: &'static [&'static str] = &[
        "unit",
        "scope",
        "signal",
        "dump_signal",
        "min_uptime_seconds",
        "verify_seconds",
    ];
    const REQUIRED: usize = 1;

    fn value<A: MapAccess<'de>>(
        &mut self,
        key: &'static str,
        table: &mut A,
        place: &Place<'_>,
        context: &mut Context<'_>,
    ) -> Result<(), A::Error> {
        match key {
            "unit" => self.unit = scalar(table, place, context, rules::parsed)?,
            "scope" => self.scope = scalar(table, place, context, rules::scope)?,
            "signal" => self.signal = scalar(table, place, context, rules::signal)?,
            "dump_signal" => {
                self.dump_signal = scalar(table, place, context, rules::dump_signal)?;
            }
            "min_uptime_seconds" => {
                self.min_uptime = scalar(table, place, context, |v| rules::seconds(v, 0, 86_400))?;
            }
            last => {
                debug_assert_eq!(last, "verify_seconds");
                self.verify = scalar(table, place, context, |v| rules::seconds(v, 1, 3600))?;
            }
        }
        Ok(())
    }
}
