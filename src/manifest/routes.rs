//! The list of routes. A route is read as soon as it has been parsed, so that 100,000 take little memory, and
//! gets its options at the end, because `defaults` may come after `routes`.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use serde_json::Value;

use super::json::Json;
use super::object::{ObjectReader, rule};
use super::options::GivenOptions;
use super::problems::{Context, Field, Invalid, Location, Problems, quoted};
use super::url::{self, BaseUrl};
use super::{BodyChecks, Method, Options, Route, Variables, rules};

/// The largest number of routes in a manifest.
const MOST: usize = 100_000;

const LIST: Location<'_> = Location::Key(&Location::Top, "routes");

/// The routes as they are written.
pub(super) struct RawRoutes<'v> {
    /// The first [`MOST`].
    routes: Vec<RawRoute>,
    count: usize,
    /// The distinct options of routes; the first are those of a route that sets none.
    options: Vec<GivenOptions>,
    /// The keys of a route, kept for their allocation.
    keys: Vec<&'static str>,
    context: Context<'v>,
}

struct RawRoute {
    path: Field<String>,
    core: Field<bool>,
    checks: Option<Box<BodyChecks>>,
    /// The index of its own options.
    options: usize,
}

/// The routes with their options.
pub(super) struct Routes {
    /// Those without a problem.
    pub(super) all: Vec<Route>,
    /// The options of the core routes, if it is known which they are.
    pub(super) core: Field<Vec<Arc<Options>>>,
}

impl<'v> RawRoutes<'v> {
    pub(super) fn new(variables: Variables<'v>) -> Self {
        Self {
            routes: Vec::new(),
            count: 0,
            options: vec![GivenOptions::default()],
            keys: Vec::new(),
            context: Context::new(variables),
        }
    }

    /// Reads the next route.
    pub(super) fn push(&mut self, json: &Json<'_>) {
        let location = Location::Item(&LIST, self.count);
        self.count += 1;
        if self.count > MOST {
            return;
        }
        let mut route = RawRoute {
            path: Err(Invalid),
            core: Err(Invalid),
            checks: None,
            options: 0,
        };
        if let Ok(mut keys) = ObjectReader::new(json, &location, &mut self.context) {
            // One allocation for all routes.
            keys.known = std::mem::take(&mut self.keys);
            keys.known.clear();
            route.path = keys.required("path", rule(rules::path));
            route.core = keys.or("core", rule(rules::boolean), false);
            let contains = keys.optional("body_contains", body_text).unwrap_or(None);
            let pointers = keys.optional("json", json_checks).unwrap_or(None);
            if contains.is_some() || pointers.is_some() {
                let json = pointers.unwrap_or_default();
                route.checks = Some(Box::new(BodyChecks { contains, json }));
            }
            if keys.is_exhausted() {
                self.keys = keys.known;
            } else {
                let own = GivenOptions::read(&mut keys);
                keys.end();
                route.options = self.index_of(own);
            }
        }
        self.routes.push(route);
    }

    /// The index of `options`. Routes with the same options as a recent one, which most are, share an
    /// index.
    fn index_of(&mut self, options: GivenOptions) -> usize {
        const RECENT: usize = 16;
        let mut recent = self.options.iter().enumerate().rev().take(RECENT);
        if let Some((index, _)) = recent.find(|(_, known)| **known == options) {
            return index;
        }
        self.options.push(options);
        self.options.len() - 1
    }

    /// Gives the routes their options, and applies the rules that compare several keys. `is_cut`:
    /// a syntax error ended the list.
    pub(super) fn resolve(
        self,
        is_cut: bool,
        defaults: Field<&GivenOptions>,
        base_url: Option<&BaseUrl>,
        context: &mut Context<'_>,
    ) -> Routes {
        context.problems.append(self.context.problems);
        let options = self.options.iter();
        let options = options.map(|own| (own.method(defaults), own.over(defaults).map(Arc::new)));
        let options: Vec<_> = options.collect();
        let mut core = Ok(Vec::new());
        let mut known = HashMap::with_capacity(self.routes.len());
        for (index, route) in self.routes.iter().enumerate() {
            let location = Location::Item(&LIST, index);
            let Some((method, options)) = options.get(route.options) else {
                continue;
            };
            let problems = &mut context.problems;
            route.check(*method, index, &mut known, base_url, &location, problems);
            match (&mut core, route.core, options) {
                (_, Ok(false), _) | (Err(Invalid), _, _) => {}
                (Ok(core), Ok(true), Ok(options)) => core.push(options.clone()),
                (core, _, _) => *core = Err(Invalid),
            }
        }
        drop(known);
        if is_cut {
            core = Err(Invalid);
        }
        if self.count > MOST {
            let message = format!("{} routes are too many; give at most {MOST}", self.count);
            core = Err(context.problems.add(&LIST, message));
        }
        if core.as_ref().is_ok_and(Vec::is_empty) {
            let message = match self.count {
                0 => "is empty; give at least one route with \"core\": true",
                _ => "no core route; set \"core\": true on at least one",
            };
            context.problems.add(&LIST, message);
        }
        let all = self.routes.into_iter().filter_map(|route| {
            let (_, options) = options.get(route.options)?;
            route.build(options.clone()).ok()
        });
        Routes {
            all: all.collect(),
            core,
        }
    }
}

impl RawRoute {
    /// The rules that compare a route's keys with each other, and with the other routes.
    fn check<'r>(
        &'r self,
        method: Field<Option<Method>>,
        index: usize,
        known: &mut HashMap<(Option<Method>, &'r str), usize>,
        base_url: Option<&BaseUrl>,
        location: &Location<'_>,
        problems: &mut Problems,
    ) {
        if let (Ok(Some(Method::Head)), Some(checks)) = (method, &self.checks) {
            let keys = [
                ("body_contains", checks.contains.is_some()),
                ("json", !checks.json.is_empty()),
            ];
            for (key, _) in keys.iter().filter(|(_, given)| *given) {
                let message = "cannot be used with HEAD, because its response has no body; remove it, or give \
                    the route \"method\": \"GET\"";
                problems.add(&Location::Key(location, key), message);
            }
        }
        let Ok(path) = &self.path else {
            return;
        };
        if base_url.is_some_and(|base_url| base_url.is_too_long(path)) {
            let message = format!(
                "the URL is too long; base URL and path together may have at most {} bytes, percent-encoded",
                url::LONGEST
            );
            problems.add(&Location::Key(location, "path"), message);
        }
        let Ok(method) = method else {
            return;
        };
        match known.entry((method, path)) {
            Entry::Vacant(entry) => {
                entry.insert(index);
            }
            Entry::Occupied(first) => {
                let message = format!(
                    "same method and path as routes[{}] ({}{}); keep one of the two",
                    first.get(),
                    method.map_or_else(String::new, |method| format!("{} ", method.as_str())),
                    quoted(path)
                );
                problems.add(location, message);
            }
        }
    }

    fn build(self, options: Field<Arc<Options>>) -> Field<Route> {
        Ok(Route {
            path: self.path?,
            core: self.core?,
            options: options?,
            checks: self.checks,
        })
    }
}

/// Reads the text that a body must contain.
fn body_text(
    value: &Json<'_>,
    location: &Location<'_>,
    context: &mut Context<'_>,
) -> Field<String> {
    let text = rules::body_text(value, context.variables);
    context.note(location, text)
}

/// Reads the object JSON Pointer → value.
fn json_checks(
    value: &Json<'_>,
    location: &Location<'_>,
    context: &mut Context<'_>,
) -> Field<Vec<(String, Value)>> {
    let Value::Object(entries) = value.expand(location, context) else {
        let remedy = "give an object, JSON Pointer → value, such as { \"/status\": \"healthy\" }";
        return Err(context.problems.add(location, value.wrong_type(remedy)));
    };
    if entries.is_empty() && !value.is_cut() {
        let message =
            "is empty; give at least one JSON Pointer and its value, or leave the key out";
        context.problems.add(location, message);
    }
    for pointer in entries.keys() {
        let location = Location::Entry(location, pointer);
        let _ = context.note(&location, rules::pointer(pointer));
    }
    Ok(entries.into_iter().collect())
}
