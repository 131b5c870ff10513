//! The list of routes: the keys that a route and `defaults` have in common, those of a route alone, and the rules that
//! compare a route's keys with each other and with the other routes.

use std::collections::HashMap;
use std::time::Duration;

use serde_json::{Map, Value};

use super::headers::headers;
use super::json::Json;
use super::reader::{DUPLICATE_KEY, Node, Object};
use super::rules::{self, seconds, whole, word};
use super::{BodyChecks, Header, Method, Options, Route};

const MOST: usize = 10_000;
const MIB: u32 = 1024 * 1024;

impl Default for Options {
    fn default() -> Self {
        Self {
            method: Method::Get,
            expect: Vec::new(),
            timeout: Duration::from_secs(10),
            retries: 2,
            backoff: Duration::from_millis(500),
            max_redirects: 0,
            headers: Vec::new(),
            max_body_bytes: MIB as usize,
        }
    }
}

impl Options {
    /// The options that an object sets, the others as in `base`.
    pub(super) fn read(keys: &mut Object<'_, '_>, base: &Self) -> Self {
        let methods = [Method::Get, Method::Head].map(|method| (method.as_str(), method));
        let bytes = whole(1, 16 * MIB);
        Self {
            method: keys.value_or("method", base.method, word(&methods)),
            expect: keys.value_or("expect", base.expect.clone(), expect),
            timeout: keys.value_or("timeout_seconds", base.timeout, seconds(None, 3600)),
            retries: keys.value_or("retries", base.retries, whole(0, 10)),
            backoff: keys.value_or("retry_backoff_seconds", base.backoff, seconds(Some(0), 60)),
            max_redirects: keys.value_or("max_redirects", base.max_redirects, whole(0, 20)),
            headers: replace(&base.headers, keys.value("headers", headers)),
            max_body_bytes: keys.value_or("max_body_bytes", base.max_body_bytes, bytes),
        }
    }
}

fn expect(list: &Node<'_>) -> Result<Vec<u16>, String> {
    let Json::Array(items) = list.json else {
        return Err(list
            .json
            .wrong_type("give a list of statuses, such as [200, 301]"));
    };
    if items.is_empty() {
        let message = "is empty; give at least one status, or leave the key out for any 2xx or 3xx";
        return Err(message.to_owned());
    }
    let mut statuses = Vec::new();
    for (index, item) in items.iter().enumerate() {
        let item = list.item(index, item);
        let status = item.check(whole(200, 599)(&item));
        statuses.extend(status.filter(|status| !statuses.contains(status)));
    }
    Ok(statuses)
}

/// The inherited headers, each replaced by an own one of the same name.
fn replace(inherited: &[Header], own: Option<Vec<Header>>) -> Vec<Header> {
    let own = own.unwrap_or_default();
    let is_replaced = |name: &str| own.iter().any(|own| own.name.eq_ignore_ascii_case(name));
    let kept = inherited.iter().filter(|header| !is_replaced(&header.name));
    kept.cloned().chain(own.iter().cloned()).collect()
}

pub(super) fn routes(list: &Node<'_>, defaults: &Options) -> Result<Vec<Route>, String> {
    let Json::Array(items) = list.json else {
        let remedy = "give a list of routes, such as [{ \"path\": \"/\", \"core\": true }]";
        return Err(list.json.wrong_type(remedy));
    };
    let number = items.len();
    if number > MOST {
        return Err(format!("{number} routes are too many; give at most {MOST}"));
    }
    let mut routes = Vec::with_capacity(number);
    // The first route with a method and path.
    let mut known: HashMap<(Method, &str), usize> = HashMap::with_capacity(number);
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

/// The value for a later comparison, with the variables in its strings expanded. A duplicate key is a problem.
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
