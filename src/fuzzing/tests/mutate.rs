//! Random mutations of valid manifests.

use proptest::prelude::*;
use proptest::sample::{Index, select};
use serde_json::{Value, json};

/// A value that breaks some rule or only just satisfies it.
fn odd() -> impl Strategy<Value = Value> {
    let texts = [
        "",
        "/",
        "#",
        "/a b",
        "GET",
        "HEAD",
        "env",
        "x.service",
        "@.service",
        "x@.service",
        "${TOKEN}",
        "${LINES}",
        "${LATIN1}",
        "${NONE}",
        "${",
        "a\u{1b}[31m",
        "\u{202e}",
        "http://u:p@h/",
        "http://h/?q",
        "é.service",
        "/~2",
        " ",
    ];
    let numbers = [
        -1.0,
        -0.0,
        0.0,
        0.5,
        1.0,
        10.0,
        10.5,
        11.0,
        21.0,
        60.1,
        64.0,
        65.0,
        199.0,
        200.0,
        599.0,
        600.0,
        3_600.1,
        86_400.1,
        16_777_217.0,
        1e-10,
        1e300,
        4_294_967_296.0,
    ];
    prop_oneof![
        4 => select(texts.to_vec()).prop_map(|text| json!(text)).boxed(),
        4 => select(numbers.to_vec()).prop_map(|number| json!(number)).boxed(),
        1 => select(vec![json!(null), json!(true), json!([]), json!({}), json!([200, "x"]), json!({"X-A": "a\nb"})]),
        1 => any::<String>().prop_map(|text| json!(text)),
    ]
}

/// Every location in `value`, as a JSON Pointer.
fn places(value: &Value, at: String, all: &mut Vec<String>) {
    match value {
        Value::Object(table) => {
            for (key, value) in table {
                let key = key.replace('~', "~0").replace('/', "~1");
                places(value, format!("{at}/{key}"), all);
            }
        }
        Value::Array(list) => {
            for (index, value) in list.iter().enumerate() {
                places(value, format!("{at}/{index}"), all);
            }
        }
        _ => {}
    }
    all.push(at);
}

/// A change to a valid manifest at one location.
#[derive(Clone, Debug)]
pub(super) enum Change {
    Value(Value),
    Remove,
    Repeat,
    Add(String, Value),
}

pub(super) fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        5 => odd().prop_map(Change::Value),
        1 => Just(Change::Remove),
        1 => Just(Change::Repeat),
        1 => ("retrys|[a-z]{0,3}\\PC?|method|json|\u{1b}", odd()).prop_map(|(key, value)| Change::Add(key, value)),
    ]
}

pub(super) fn mutate(manifest: &mut Value, at: &Index, change: Change) {
    let mut all = Vec::new();
    places(manifest, String::new(), &mut all);
    let place = at.get(&all);
    let (parent, last) = place.rsplit_once('/').unwrap_or_default();
    let last = last.replace("~1", "/").replace("~0", "~");
    match (change, manifest.pointer_mut(place)) {
        (Change::Value(value), Some(there)) => *there = value,
        (Change::Add(key, value), Some(Value::Object(table))) => {
            table.insert(key, value);
        }
        (Change::Remove, _) => match manifest.pointer_mut(parent) {
            Some(Value::Object(table)) => {
                table.remove(&last);
            }
            Some(Value::Array(list)) => {
                list.pop();
            }
            _ => {}
        },
        (Change::Repeat, _) => {
            // The list that contains the location.
            let mut ends = place.rmatch_indices('/').map(|(end, _)| &place[..end]);
            let is_list = |place: &&str| manifest.pointer(place).is_some_and(Value::is_array);
            if let Some(Value::Array(list)) =
                ends.find(is_list).and_then(|at| manifest.pointer_mut(at))
            {
                list.extend(list.clone());
            }
        }
        _ => {}
    }
}
