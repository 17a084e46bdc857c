//! The configuration file with what was changed at run time: the text keeps its comments, order and layout.
//!
//! It works on the text that the gateway read and must not touch files.

use super::protocol::{ChangeRow, FileRow};
use crate::config::changes::{Kind, Target};
use crate::config::{self};
use similar::TextDiff;
use toml_edit::{Array, ArrayOfTables, DocumentMut, InlineTable, Item, Table, TableLike, Value};

/// A file with changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Saved {
    /// Its text.
    pub text: String,
    /// Changes that cannot be in it, as their servers come from outside.
    pub left_out: Vec<ChangeRow>,
}

/// Returns a file with changes.
///
/// # Errors
/// If the text cannot be changed so, or would be no valid configuration.
pub fn saved(file: &FileRow, changes: &[ChangeRow]) -> Result<Saved, String> {
    let text = file.text.strip_prefix('\u{feff}').unwrap_or(&file.text);
    let mut document: DocumentMut = text.parse().map_err(|error| format!("{}: {error}", file.origin))?;
    let mut left_out = Vec::new();
    for change in changes {
        if comes_from_outside(document.as_table_mut(), change) {
            left_out.push(change.clone());
            continue;
        }
        let done = apply(document.as_table_mut(), change);
        done.ok_or_else(|| format!("{}: cannot find the place for the change of {}", file.origin, change.object))?;
    }
    let text = document.to_string();
    match config::parse(&text, &file.origin) {
        Ok(_) => Ok(Saved { text, left_out }),
        Err(error) => Err(format!("the file with the changes would not be valid:\n{error}")),
    }
}

/// Returns the difference between a file and what [`saved`] made of it, as `patch -p0` takes it; empty without one.
pub fn patch(file: &FileRow, saved: &str) -> String {
    let diff = TextDiff::from_lines(file.text.as_str(), saved);
    diff.unified_diff().header(&file.origin, &file.origin).to_string()
}

/// Whether a change is one of a server that the file does not have, in a pool with servers from outside.
fn comes_from_outside(root: &mut Table, change: &ChangeRow) -> bool {
    let is_addition = change.key.is_none() && change.value.is_some();
    if change.object.kind != Kind::Server || is_addition || find(root, &change.object).is_some() {
        return false;
    }
    let pool = find(root, &Target::new(Kind::Pool, change.object.parts().0));
    pool.is_some_and(|pool| pool.contains_key("servers-file") || pool.contains_key("servers-dns"))
}

fn apply(root: &mut Table, change: &ChangeRow) -> Option<()> {
    let target = &change.object;
    match (&change.key, &change.value) {
        (None, Some(table)) => add(root, target, table),
        (None, None) => remove(root, target),
        (Some(key), value) => {
            let table = find(root, target)?;
            let (table, key) = match key.split_once('.') {
                None => (table, key.as_str()),
                Some((below, key)) => {
                    let item = table.entry(below).or_insert(Item::Table(Table::new()));
                    (item.as_table_like_mut()?, key)
                }
            };
            match value.as_ref().filter(|_| !change.is_default) {
                Some(value) => set(table, key, value),
                None => {
                    table.remove(key);
                    Some(())
                }
            }
        }
    }
}

/// Sets a key; the comment behind an older value stays.
fn set(table: &mut dyn TableLike, key: &str, value: &str) -> Option<()> {
    let mut value: Value = value.parse().ok()?;
    if let Some(old) = table.get(key).and_then(Item::as_value) {
        *value.decor_mut() = old.decor().clone();
    } else if let Some(last) = last_value(table) {
        // The blank before the closing brace of an inline table belongs to its last value.
        let suffix = last.decor().suffix().cloned();
        let is_blank = |suffix: &toml_edit::RawString| suffix.as_str().is_some_and(|text| text.trim().is_empty());
        if let Some(suffix) = suffix.filter(is_blank) {
            last.decor_mut().set_suffix("");
            *value.decor_mut() = toml_edit::Decor::new(" ", suffix);
        }
    }
    table.insert(key, Item::Value(value));
    Some(())
}

/// The last value of an inline table; none of another table, where each is on a line of its own.
fn last_value(table: &mut dyn TableLike) -> Option<&mut Value> {
    let is_inline =
        table.iter().next().is_some() && !table.is_dotted() && table.iter().all(|(_, item)| item.is_value());
    table.iter_mut().last().filter(|_| is_inline)?.1.as_value_mut()
}

/// The table in which objects of a kind are listed, and under which key.
fn owner<'r>(root: &'r mut Table, target: &Target) -> Option<(&'r mut dyn TableLike, &'static str)> {
    match target.kind {
        Kind::Server => Some((find(root, &Target::new(Kind::Pool, target.parts().0))?, "server")),
        kind => Some((root, kind.table())),
    }
}

fn has_name(table: &dyn TableLike, name: &str) -> bool {
    table.get("name").and_then(Item::as_str) == Some(name)
}

fn find<'r>(root: &'r mut Table, target: &Target) -> Option<&'r mut dyn TableLike> {
    let (table, key) = owner(root, target)?;
    let name = target.parts().1;
    match table.get_mut(key)? {
        Item::ArrayOfTables(all) => {
            all.iter_mut().find(|table| has_name(*table, name)).map(|table| table as &mut dyn TableLike)
        }
        Item::Value(Value::Array(all)) => {
            let mut tables = all.iter_mut().filter_map(Value::as_inline_table_mut);
            tables.find(|table| has_name(*table, name)).map(|table| table as &mut dyn TableLike)
        }
        _ => None,
    }
}

/// Adds a server behind the others of its pool, in the layout that these have.
fn add(root: &mut Table, target: &Target, table: &str) -> Option<()> {
    let keys: InlineTable = table.parse::<Value>().ok()?.as_inline_table()?.clone();
    let name = Value::from(target.parts().1);
    let (owner, key) = owner(root, target)?;
    match owner.entry(key).or_insert(Item::ArrayOfTables(ArrayOfTables::new())) {
        Item::ArrayOfTables(all) => {
            let mut own = Table::new();
            own.insert("name", Item::Value(name));
            for (key, value) in keys.iter() {
                let mut value = value.clone();
                value.decor_mut().clear();
                own.insert(key, Item::Value(value));
            }
            all.push(own);
        }
        Item::Value(Value::Array(all)) => {
            let mut own = InlineTable::new();
            own.insert("name", name);
            for (key, value) in keys.iter() {
                let mut value = value.clone();
                value.decor_mut().clear();
                own.insert(key, value);
            }
            push(all, Value::InlineTable(own));
        }
        _ => return None,
    }
    Some(())
}

/// Adds to an array in the layout of its last item.
fn push(all: &mut Array, mut item: Value) {
    let is_alone = all.len() == 1;
    if let Some(last) = all.iter_mut().last() {
        let prefix = last.decor().prefix().cloned().unwrap_or_default();
        // The line end before the closing bracket belongs to the last item, unless a comma follows it.
        let suffix = last.decor().suffix().cloned().unwrap_or_default();
        last.decor_mut().set_suffix("");
        item.decor_mut().set_prefix(if is_alone && prefix.as_str() == Some("") { " ".into() } else { prefix });
        item.decor_mut().set_suffix(suffix);
    }
    all.push_formatted(item);
}

fn remove(root: &mut Table, target: &Target) -> Option<()> {
    let (owner, key) = owner(root, target)?;
    let name = target.parts().1;
    match owner.get_mut(key)? {
        Item::ArrayOfTables(all) => {
            let place = all.iter().position(|table| has_name(table, name))?;
            all.remove(place);
        }
        Item::Value(Value::Array(all)) => {
            let is = |item: &Value| item.as_inline_table().is_some_and(|table| has_name(table, name));
            let place = all.iter().position(is)?;
            all.remove(place);
        }
        _ => return None,
    }
    Some(())
}
