//! A listing as a file, for tests.

use super::{KeyValue, Object};
use crate::config::keys::{DefaultValue, TABLES, find};

/// Writes a listing as a file, in the order of the listing; keys without a value are left out.
pub(crate) fn written(all: &[Object]) -> String {
    let of_pool = |object: &Object, pool: &str| object.name.split_once('/').is_some_and(|(before, _)| before == pool);
    let mut text = String::new();
    for object in all.iter().filter(|object| !object.name.contains('/')) {
        write(object, &mut text);
        let parts = all.iter().filter(|part| object.table == "pool" && of_pool(part, &object.name));
        parts.for_each(|part| write(part, &mut text));
    }
    text
}

fn write(object: &Object, text: &mut String) {
    let header = |table: &str| TABLES.iter().find(|known| known.name == table).expect("a table").header;
    if !object.table.is_empty() {
        *text += &format!("{}\n", header(object.table));
    }
    if let Some(name) = object.name.rsplit('/').next().filter(|name| !name.is_empty()) {
        *text += &format!("name = '{name}'\n");
    }
    let mut table = object.table;
    for KeyValue { table: own, key, value } in &object.keys {
        let known = find(own, key).expect("a key");
        if matches!(known.default, DefaultValue::Unset(words) if words == value) {
            continue;
        }
        if *own == "service.timeouts" {
            for (timeout, places) in value.split("; ").filter_map(|part| part.split_once(" for ")) {
                for place in places.split(", ") {
                    let (ports, protocol) = place.split_once('/').map_or((None, place), |(p, name)| (Some(p), name));
                    let ports = ports.map(|ports| format!("ports = '{ports}'\n")).unwrap_or_default();
                    *text += &format!("[[{own}]]\n{ports}protocol = '{protocol}'\n{key} = {timeout}\n");
                }
            }
            continue;
        }
        if *own != table {
            *text += &format!("{}\n", header(own));
            table = own;
        }
        *text += &format!("{key} = {value}\n");
    }
}
