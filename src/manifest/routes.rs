//! The list of routes. A route is read as soon as it has been parsed, so that 100,000 take little memory, and
//! gets its options at the end, because `defaults` may come after `routes`.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use serde_json::Value;

use super::json::Json;
use super::keys::{NO_KEYS, RouteOptions, rule};
use super::location::{Context, Field, Invalid, Location, Problems, quoted};
use super::object::ObjectReader;
use super::url::{self, BaseUrl};
use super::{BodyChecks, Method, Options, Route, Variables, rules};

/// Routes in a manifest.
const MOST: usize = 100_000;

const LIST: Location<'_> = Location::Key(&Location::Top, "routes");

/// The routes as they are written.
pub(super) struct RawRoutes<'t, 'v> {
    /// The first [`MOST`].
    routes: Vec<RawRoute<'t>>,
    count: usize,
    /// The keys of a route without its options.
    keys: Vec<&'static str>,
    context: Context<'v>,
}

struct RawRoute<'t> {
    path: Field<String>,
    core: Field<bool>,
    checks: Option<Box<BodyChecks>>,
    /// The whole route, if it has options of its own.
    own: Option<Box<Json<'t>>>,
}

/// The routes with their options.
pub(super) struct Routes {
    /// Those without a problem.
    pub(super) all: Vec<Route>,
    /// The options of the core routes, if it is known which they are.
    pub(super) core: Field<Vec<Arc<Options>>>,
}

impl<'t, 'v> RawRoutes<'t, 'v> {
    pub(super) fn new(variables: Variables<'v>) -> Self {
        Self {
            routes: Vec::new(),
            count: 0,
            keys: Vec::new(),
            context: Context::new(variables),
        }
    }

    /// Reads the next route.
    pub(super) fn push(&mut self, json: Json<'t>) {
        let location = Location::Item(&LIST, self.count);
        self.count += 1;
        if self.count > MOST {
            return;
        }
        let mut route = RawRoute {
            path: Err(Invalid),
            core: Err(Invalid),
            checks: None,
            own: None,
        };
        if let Ok(mut keys) = ObjectReader::new(&json, &location, &mut self.context) {
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
            let has_own = !keys.is_exhausted();
            self.keys = keys.known;
            if has_own {
                route.own = Some(Box::new(json));
            }
        }
        self.routes.push(route);
    }

    /// Gives the routes their options, and applies the rules that compare several keys. `is_cut`:
    /// a syntax error ended the list.
    pub(super) fn resolve(
        self,
        is_cut: bool,
        defaults: &Json<'_>,
        base_url: Option<&BaseUrl>,
        context: &mut Context<'_>,
    ) -> Field<Routes> {
        context.problems.append(self.context.problems);
        let mut options = SharedOptions::new(defaults, context)?;
        let mut core = Ok(Vec::new());
        let mut known = HashMap::with_capacity(self.routes.len());
        let mut all = Vec::with_capacity(self.routes.len());
        for (index, route) in self.routes.iter().enumerate() {
            let location = Location::Item(&LIST, index);
            let options = options.read(route, &self.keys, &location, context);
            route.check(
                &options,
                index,
                &mut known,
                base_url,
                &location,
                &mut context.problems,
            );
            match (&mut core, route.core, &options.all) {
                (_, Ok(false), _) | (Err(Invalid), _, _) => {}
                (Ok(core), Ok(true), Ok(options)) => core.push(options.clone()),
                (core, _, _) => *core = Err(Invalid),
            }
            all.push(options.all);
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
        let routes = self.routes.into_iter().zip(all);
        let all = routes.filter_map(|(route, options)| route.build(options).ok());
        Ok(Routes {
            all: all.collect(),
            core,
        })
    }
}

impl RawRoute<'_> {
    /// The rules that compare a route's keys with each other, and with the other routes.
    fn check<'r>(
        &'r self,
        options: &RouteOptions,
        index: usize,
        known: &mut HashMap<(Option<Method>, &'r str), usize>,
        base_url: Option<&BaseUrl>,
        location: &Location<'_>,
        problems: &mut Problems,
    ) {
        if let (Ok(Some(Method::Head)), Some(checks)) = (options.method, &self.checks) {
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
        let Ok(method) = options.method else {
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

/// The options of all routes, equal ones shared.
struct SharedOptions<'a> {
    /// The `defaults` object.
    defaults: &'a Json<'a>,
    /// The options of a route without its own.
    inherited: RouteOptions,
    all: Vec<Arc<Options>>,
}

impl<'a> SharedOptions<'a> {
    fn new(defaults: &'a Json<'a>, context: &mut Context<'_>) -> Field<Self> {
        let mut none = ObjectReader::new(&NO_KEYS, &Location::Top, context)?;
        Ok(Self {
            defaults,
            inherited: RouteOptions::read(&mut none, defaults),
            all: Vec::new(),
        })
    }

    /// Reads the options of a route. They are compared with those of recent routes, which are mostly the
    /// same.
    fn read(
        &mut self,
        route: &RawRoute<'_>,
        keys: &[&'static str],
        location: &Location<'_>,
        context: &mut Context<'_>,
    ) -> RouteOptions {
        const RECENT: usize = 16;
        let Some(Ok(mut own)) = route
            .own
            .as_deref()
            .map(|own| ObjectReader::new(own, location, context))
        else {
            return self.inherited.clone();
        };
        own.known.extend(keys);
        let mut read = RouteOptions::read(&mut own, self.defaults);
        own.end();
        if let Ok(options) = &mut read.all {
            let mut recent = self.all.iter().rev().take(RECENT);
            match recent.find(|known| *known == options) {
                Some(known) => *options = known.clone(),
                None => self.all.push(options.clone()),
            }
        }
        read
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
    let before = context.problems.count();
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
    context
        .problems
        .unless_since(before, entries.into_iter().collect())
}
