//! The list of routes, with the rules that compare a route's keys with each other and with the other routes.

use std::collections::HashMap;

use serde_json::Value;

use super::json::Json;
use super::object::Object;
use super::problems::{Context, entry, quoted};
use super::url::{self, BaseUrl};
use super::{BodyChecks, Method, Options, Route, rules};

/// The largest number of routes in a manifest.
const MOST: usize = 10_000;

/// Reads the list of routes. `base_url` is where they are sent, if that is known.
pub(super) fn routes<'v>(
    value: &'v Json,
    place: &str,
    context: &mut Context<'v>,
    defaults: &Options,
    base_url: Option<&BaseUrl>,
) -> Option<Vec<Route>> {
    let Json::Array(items) = value else {
        let remedy = "give a list of routes, such as [{ \"path\": \"/\", \"core\": true }]";
        context.note(place, value.wrong_type(remedy));
        return None;
    };
    if items.len() > MOST {
        let message = format!("{} routes are too many; give at most {MOST}", items.len());
        context.invalid.insert("core");
        context.note(place, message);
    }
    let mut routes = Vec::with_capacity(items.len().min(MOST));
    // The first route with a method and path.
    let mut known: HashMap<(Method, &str), usize> = HashMap::with_capacity(routes.capacity());
    for (index, item) in items.iter().take(MOST).enumerate() {
        let place = format!("{place}[{index}]");
        context.route = item.get("path").and_then(Json::text);
        let route = Object::read(item, &place, context, |keys| {
            route(keys, defaults, base_url)
        });
        let Some(route) = route else {
            context.invalid.insert("core");
            continue;
        };
        let method = route.options.method;
        // A route whose own method is invalid does not have the inherited one.
        let written = item.get("method").map(Json::text);
        let is_known = written.is_none_or(|written| written == Some(method.as_str()));
        if let Some(path) = context.route.filter(|_| is_known)
            && let first = *known.entry((method, path)).or_insert(index)
            && first != index
        {
            let target = format!("{} {}", method.as_str(), quoted(path));
            let message =
                format!("same method and path as routes[{first}] ({target}); keep one of the two");
            context.note(&place, message);
        }
        routes.push(route);
    }
    context.route = None;
    if !context.invalid.contains("core") && !routes.iter().any(|route| route.core) {
        let message = match items.len() {
            0 => "is empty; give at least one route with \"core\": true",
            _ => "no core route; set \"core\": true on at least one",
        };
        context.note(place, message);
    }
    Some(routes)
}

/// Reads the keys of one route.
fn route(keys: &mut Object<'_, '_>, defaults: &Options, base_url: Option<&BaseUrl>) -> Route {
    keys.require("path");
    let path = keys.value("path", rules::path).unwrap_or_default();
    if base_url.is_some_and(|base_url| base_url.is_too_long(&path)) {
        let message = format!(
            "the URL is too long; base URL and path together may have at most {} bytes, percent-encoded",
            url::LONGEST
        );
        keys.problem("path", message);
    }
    let core = keys.value("core", rules::boolean).unwrap_or_default();
    let contains = keys.part("body_contains", |value, place, context| {
        let text = rules::body_text(value, context.variables);
        context.check(place, text)
    });
    let json = keys.part("json", json_checks);
    let options = Options::read(keys, defaults);
    if options.method == Method::Head {
        for key in ["body_contains", "json"] {
            if keys.get(key).is_some() {
                let message = "cannot be used with HEAD, because its response has no body; remove it, or give \
                    the route \"method\": \"GET\"";
                keys.problem(key, message);
            }
        }
    }
    let checks = (contains.is_some() || json.is_some()).then(|| {
        let json = json.unwrap_or_default();
        Box::new(BodyChecks { contains, json })
    });
    Route {
        path,
        core,
        options,
        checks,
    }
}

/// Reads the object JSON Pointer → value.
fn json_checks(
    value: &Json,
    place: &str,
    context: &mut Context<'_>,
) -> Option<Vec<(String, Value)>> {
    let Value::Object(entries) = value.expand(place, context) else {
        let remedy = "give an object, JSON Pointer → value, such as { \"/status\": \"healthy\" }";
        context.note(place, value.wrong_type(remedy));
        return None;
    };
    if entries.is_empty() {
        let message =
            "is empty; give at least one JSON Pointer and its value, or leave the key out";
        context.note(place, message);
    }
    for pointer in entries.keys() {
        context.check(&entry(place, pointer), rules::pointer(pointer));
    }
    Some(entries.into_iter().collect())
}
