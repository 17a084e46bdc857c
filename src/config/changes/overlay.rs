//! Changes on top of the tables of a file, before they are read.
//!
//! What a change brings has no place in the file: problems with it are reported without one.

use super::super::check;
use super::super::listing::quoted;
use super::super::outside::{self, LeftOut};
use super::super::problem::{Draft, Problem, Severity, Source, place_all};
use super::super::raw;
use super::super::settings::Settings;
use super::super::{ConfigError, Parsed, keys};
use super::{Changes, Kind, Target, Value};
use crate::balance::ServerSettings;
use crate::sources::Found;
use crate::time::Duration;
use serde_spanned::Spanned;
use std::borrow::Cow;
use std::fmt;
use std::mem;
use toml::de::{DeArray, DeTable, DeValue};

/// A configuration file as it was read: its text, and what it says by itself.
#[derive(Debug, Clone, PartialEq)]
pub struct File {
    source: Source,
    settings: Settings,
}

/// Why changes cannot be applied to a file: the file with them would be wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conflict(Vec<Problem>);

/// The first error, with where it is in the file and what to do: one line.
impl fmt::Display for Conflict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(first) = self.0.first() else { return f.write_str("the configuration would be wrong") };
        f.write_str(&first.title)?;
        let places = first.related.iter().map(|place| (place.line, place.label.as_str(), &place.span));
        let own = (first.line, first.label.as_str(), &first.span);
        if let Some((line, label, _)) = std::iter::once(own).chain(places).find(|(.., span)| **span != (0..0)) {
            let label = if label.is_empty() { String::new() } else { format!(", {label}") };
            write!(f, " (line {line} of the file{label})")?;
        }
        if first.help.is_empty() { Ok(()) } else { write!(f, ": {}", first.help) }
    }
}

impl std::error::Error for Conflict {}

impl Conflict {
    fn of(drafts: Vec<Draft>, source: &Source) -> Self {
        let mut problems = place_all(drafts, source);
        problems.retain(|problem| problem.severity == Severity::Error);
        Conflict(problems)
    }

    /// The conflict where the settings come from no file that could be changed.
    pub(crate) fn no_file() -> Self {
        Conflict::one("this gateway runs without a configuration file", "only weights, states and rules can be changed")
    }

    fn one(title: impl Into<String>, help: impl Into<String>) -> Self {
        Conflict::of(vec![Draft::error(0..0, title).help(help)], &Source::default())
    }
}

impl File {
    /// Takes the file of a configuration.
    pub fn of(parsed: &Parsed) -> Self {
        File { source: parsed.source.clone(), settings: parsed.settings.clone() }
    }

    /// Returns its name in messages.
    pub fn origin(&self) -> &str {
        &self.source.origin
    }

    /// Returns its text.
    pub fn text(&self) -> &str {
        &self.source.text
    }

    /// Returns what it says by itself.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Returns whether a server is from outside.
    pub fn has_from_outside(&self, target: &Target) -> bool {
        let (pool, name) = target.parts();
        target.kind == Kind::Server && outside::has(&self.source.outside, pool, name)
    }

    /// Returns the same file with servers from outside, and those that cannot be used.
    ///
    /// # Errors
    /// Where the file would be wrong with these servers.
    pub fn with_servers(&self, found: &Found) -> Result<(File, LeftOut), ConfigError> {
        let (source, settings) = (self.source.clone(), self.settings.clone());
        let (parsed, left_out) = Parsed { settings, warnings: Vec::new(), source }.with_servers(found)?;
        Ok((File::of(&parsed), left_out))
    }

    /// Returns the settings of the file with changes, checked as those of a file are.
    ///
    /// # Errors
    /// [`Conflict`] if the file with them would be wrong, or lacks an object that is changed.
    pub fn with(&self, changes: &Changes) -> Result<Settings, Conflict> {
        if changes.is_empty() {
            return Ok(self.settings.clone());
        }
        let mut root = DeTable::parse_recoverable(&self.source.text).0.into_inner();
        outside::insert(&mut root, &self.source.outside);
        patch(&mut root, changes)?;
        let mut drafts = Vec::new();
        let raw = raw::read(&root, &mut drafts);
        let settings = check::check(raw, &mut drafts);
        match drafts.iter().any(Draft::is_error) {
            true => Err(Conflict::of(drafts, &self.source)),
            false => Ok(settings),
        }
    }
}

/// Reads the keys of one server, `weight = 5`, as the reader of a file does; the rest are defaults.
pub(crate) fn read_server(keys: &[(&str, &str)]) -> Result<ServerSettings, Conflict> {
    let mut table = table_of(keys)?;
    for (key, value) in [("name", "x"), ("address", "192.0.2.1")] {
        table.insert(placeless_key(key), Spanned::new(0..0, DeValue::String(value.into())));
    }
    let mut drafts = Vec::new();
    let (server, _) = raw::pool::server(&table, 0..0, Duration::ZERO, &mut drafts);
    if drafts.is_empty() { Ok(server.settings) } else { Err(Conflict::of(drafts, &Source::default())) }
}

/// Reads the switch of a service or rule.
pub(crate) fn read_enabled(kind: Kind, value: &str) -> Result<bool, Conflict> {
    let table = table_of(&[("enabled", value)])?;
    let mut drafts = Vec::new();
    let keys = if kind == Kind::Rule { &keys::RULE } else { &keys::SERVICE };
    let enabled = super::super::fields::Fields::new(&table, 0..0, keys, &mut drafts).flag_or_default("enabled");
    if drafts.is_empty() { Ok(enabled) } else { Err(Conflict::of(drafts, &Source::default())) }
}

fn table_of<'t>(keys: &[(&'t str, &'t str)]) -> Result<DeTable<'t>, Conflict> {
    keys.iter().map(|(key, value)| Ok((placeless_key(key), parse(value)?))).collect()
}

/// Applies changes to the tables of a file.
fn patch<'t>(root: &mut DeTable<'t>, changes: &'t Changes) -> Result<(), Conflict> {
    for ((target, key), entry) in changes.iter() {
        if entry.outside && waits(root, target) {
            continue;
        }
        match (&entry.value, key) {
            (Value::Added(table), _) => add(root, target, table)?,
            (Value::Removed, _) => remove(root, target)?,
            (Value::Set(value), Some(key)) => set(find(root, target)?, key, Some(value))?,
            (Value::Unset, Some(key)) => set(find(root, target)?, key, None)?,
            (Value::Set(_) | Value::Unset, None) => {}
        }
    }
    Ok(())
}

/// Returns whether a server is not there and may come from outside.
fn waits(root: &mut DeTable<'_>, target: &Target) -> bool {
    let Ok(pool) = find(root, &Target::new(Kind::Pool, target.parts().0)) else { return false };
    let has_source = pool.contains_key("servers-file") || pool.contains_key("servers-dns");
    has_source && find(root, target).is_err()
}

fn missing(target: &Target) -> Conflict {
    Conflict::one(format!("there is no {target}"), "`eqctl changes drop` forgets the change")
}

/// The objects of a kind: those of a server's kind are below its pool.
fn list<'r, 't>(root: &'r mut DeTable<'t>, target: &Target) -> Result<&'r mut DeArray<'t>, Conflict> {
    let (pool, _) = target.parts();
    let (table, key) = match target.kind {
        Kind::Server => {
            let of_pool = Target::new(Kind::Pool, pool);
            (find(root, &of_pool)?, "server")
        }
        kind => (root, kind.table()),
    };
    let empty = || Spanned::new(0..0, DeValue::Array(DeArray::new()));
    match table.entry(placeless_key(key)).or_insert_with(empty).get_mut() {
        DeValue::Array(array) => Ok(array),
        _ => Err(missing(target)),
    }
}

fn has_name(item: &Spanned<DeValue<'_>>, name: &str) -> bool {
    item.get_ref().as_table().and_then(|table| table.get("name")).and_then(|own| own.get_ref().as_str()) == Some(name)
}

fn find<'r, 't>(root: &'r mut DeTable<'t>, target: &Target) -> Result<&'r mut DeTable<'t>, Conflict> {
    let (_, name) = target.parts();
    let found = list(root, target)?.iter_mut().find(|item| has_name(item, name));
    match found.map(Spanned::get_mut) {
        Some(DeValue::Table(table)) => Ok(table),
        _ => Err(missing(target)),
    }
}

fn add<'t>(root: &mut DeTable<'t>, target: &Target, table: &'t str) -> Result<(), Conflict> {
    let (_, name) = target.parts();
    let array = list(root, target)?;
    if array.iter().any(|item| has_name(item, name)) {
        return Err(Conflict::one(format!("{target} exists already"), ""));
    }
    let mut item = parse(table)?;
    if let DeValue::Table(table) = item.get_mut() {
        table.insert(placeless_key("name"), Spanned::new(0..0, DeValue::String(name.to_owned().into())));
    }
    array.push(item);
    Ok(())
}

fn remove(root: &mut DeTable<'_>, target: &Target) -> Result<(), Conflict> {
    let (_, name) = target.parts();
    let array = list(root, target)?;
    if !array.iter().any(|item| has_name(item, name)) {
        return Err(missing(target));
    }
    let items = mem::replace(array, DeArray::new());
    items.into_iter().filter(|item| !has_name(item, name)).for_each(|item| array.push(item));
    Ok(())
}

/// Sets a key of an object, `weight` or `sticky.idle`, or removes it.
fn set<'t>(table: &mut DeTable<'t>, key: &'t str, value: Option<&'t String>) -> Result<(), Conflict> {
    let (table, key) = match key.split_once('.') {
        None => (table, key),
        Some((below, key)) => {
            let empty = || Spanned::new(0..0, DeValue::Table(DeTable::new()));
            match table.entry(placeless_key(below)).or_insert_with(empty).get_mut() {
                DeValue::Table(table) => (table, key),
                _ => return Err(Conflict::one(format!("{} is not a table", quoted(below)), "")),
            }
        }
    };
    match value {
        Some(value) => drop(table.insert(placeless_key(key), parse(value)?)),
        None => drop(table.remove(key)),
    }
    Ok(())
}

/// Reads a value that has no place in the file.
fn parse(text: &str) -> Result<Spanned<DeValue<'_>>, Conflict> {
    let wrong =
        |error: toml::de::Error| Conflict::one(format!("{} is not a value: {}", quoted(text), error.message()), "");
    DeValue::parse(text).map(placeless).map_err(wrong)
}

fn placeless_key(key: &str) -> Spanned<Cow<'_, str>> {
    Spanned::new(0..0, Cow::Borrowed(key))
}

fn placeless(value: Spanned<DeValue<'_>>) -> Spanned<DeValue<'_>> {
    let value = match value.into_inner() {
        DeValue::Array(items) => {
            let mut array = DeArray::new();
            items.into_iter().for_each(|item| array.push(placeless(item)));
            DeValue::Array(array)
        }
        DeValue::Table(table) => DeValue::Table(
            table.into_iter().map(|(key, value)| (Spanned::new(0..0, key.into_inner()), placeless(value))).collect(),
        ),
        other => other,
    };
    Spanned::new(0..0, value)
}
