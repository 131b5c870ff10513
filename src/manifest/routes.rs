//! The list of routes, with the rules that compare a route's keys with each other and with the other routes.

use std::collections::HashMap;

use serde_json::{Map, Value};

use super::json::Json;
use super::reader::{DUPLICATE_KEY, Node, Object};
use super::{BodyChecks, Method, Options, Route, rules};

const MOST: usize = 10_000;

pub(super) fn routes(list: &Node<'_>, defaults: &Options) -> Result<Vec<Route>, String> {
    let Json::Array(items) = list.json else {
        let remedy = "give a list of routes, such as [{ \"path\": \"/\", \"core\": true }]";
        return Err(list.json.wrong_type(remedy));
    };
    if items.len() > MOST {
        return Err(format!(
            "{} routes are too many; give at most {MOST}",
            items.len()
        ));
    }
    let mut routes = Vec::with_capacity(items.len());
    // The first route with a method and path.
    let mut known: HashMap<(Method, &str), usize> = HashMap::with_capacity(items.len());
    for (index, json) in items.iter().enumerate() {
        let item = Node {
            route: json.get("path").and_then(Json::text),
            ..list.item(index, json)
        };
        let route = Object::read(&item, |keys| route(keys, defaults));
        let Some(route) = item.check(route) else {
            // It may have been meant as a core route.
            list.context.invalid.borrow_mut().insert("core");
            continue;
        };
        let method = route.options.method;
        // A route whose own method is invalid does not have the inherited one.
        let written = item.json.get("method").map(Json::text);
        let is_known = written.is_none_or(|written| written == Some(method.as_str()));
        if let Some(path) = item.route.filter(|_| is_known)
            && let first = *known.entry((method, path)).or_insert(index)
            && first != index
        {
            item.note(format_args!(
                "same method and path as routes[{first}]; keep one of the two"
            ));
        }
        routes.push(route);
    }
    let is_core_known = !list.context.invalid.borrow().contains("core");
    if is_core_known && !routes.iter().any(|route| route.core) {
        return Err("no core route; give at least one with \"core\": true".to_owned());
    }
    Ok(routes)
}

fn route(keys: &mut Object<'_, '_>, defaults: &Options) -> Route {
    let path = keys.required("path", rules::path).unwrap_or_default();
    let core = keys.value_or("core", false, rules::boolean);
    let contains = keys.value("body_contains", rules::body_text);
    let json = keys.value("json", json_checks);
    let options = Options::read(keys, defaults);
    if options.method == Method::Head {
        let head = "HEAD, because its response has no body; remove it, or give the route \"method\": \"GET\"";
        keys.conflict("body_contains", head);
        keys.conflict("json", head);
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
fn json_checks(object: &Node<'_>) -> Result<Vec<(String, Value)>, String> {
    let Value::Object(entries) = expanded(object) else {
        let remedy = "give an object, JSON Pointer → value, such as { \"/status\": \"healthy\" }";
        return Err(object.json.wrong_type(remedy));
    };
    if entries.is_empty() {
        let message =
            "is empty; give at least one JSON Pointer and its value, or leave the key out";
        return Err(message.to_owned());
    }
    for pointer in entries.keys() {
        let node = object.entry(pointer, object.json);
        node.check(rules::pointer(pointer));
    }
    Ok(entries.into_iter().collect())
}

/// The value for a later comparison, unchanged except for the variables in its strings. A duplicate key is a
/// problem.
fn expanded(node: &Node<'_>) -> Value {
    match node.json {
        Json::Null => Value::Null,
        Json::Bool(value) => Value::Bool(*value),
        Json::Number(value) => Value::Number(value.clone()),
        Json::Text(text) => {
            let expanded = node.check(node.context.variables.expand(text));
            expanded.map_or(Value::Null, |(text, _)| Value::String(text))
        }
        Json::Array(items) => {
            let items = items.iter().enumerate();
            let items = items.map(|(index, item)| node.item(index, item));
            items.map(|item| expanded(&item)).collect()
        }
        Json::Object(entries) => {
            let mut all = Map::new();
            for (key, value) in entries {
                let node = node.entry(key, value);
                if all.insert(key.clone(), expanded(&node)).is_some() {
                    node.note(DUPLICATE_KEY);
                }
            }
            Value::Object(all)
        }
    }
}
