//! What differs between two configurations, by object and key.
//!
//! Objects are identified by name, never by their position in the file; rules also have a place, since their order
//! matters. It must not know how a difference is applied.

mod order;
#[cfg(test)]
mod tests;

use super::Plan;
use crate::config::Settings;
use crate::config::keys::{DefaultValue, Reload, TABLES, Table, find};
use crate::config::listing::{Object, objects};
use serde::Serialize;
use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::fmt;

const SERVER: &str = "pool.server";
/// Keys of a server whose change makes it a different server.
const SERVER_IDENTITY: [&str; 2] = ["address", "port"];
const RULE: &str = "rule";

/// What differs between two configurations.
///
/// Its `Display` is one line per object that was added or removed and per key that changed, without a newline at the end:
///
/// ```text
/// service web: sticky.idle "5m" -> "10m" (at once)
/// rule clients: rate (no limit) -> 1000 (new flows only)
/// server web/web-2: weight 1 -> 5 (new flows only)
/// server web/web-3: removed
/// ```
///
/// Without a difference it is `no changes`. As JSON it is `{"objects": [...]}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PlanDiff {
    /// All objects of both configurations: tables in the order of the documentation; in each, the objects in the order of
    /// the newer file, then those that were removed in the order of the older one.
    pub objects: Vec<ObjectDiff>,
}

/// The difference in one object.
///
/// As JSON: `{"table": "pool.server", "name": "web/web-2", "change": "changed", "keys": [...]}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ObjectDiff {
    /// Its table, as the key table names it: `service`, `pool.server`; empty for the top level.
    pub table: &'static str,
    /// Its name, with that of its pool for servers and monitors: `web/web-2`; empty for a table that exists once.
    pub name: String,
    /// What became of it.
    #[serde(flatten)]
    pub change: ObjectChange,
    /// The address and the port of a server, if they changed under its name: it is then listed twice, as an addition and
    /// as a removal. Empty otherwise.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub moved: Vec<KeyDiff>,
}

/// The kind of difference in an object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "change", content = "keys", rename_all = "kebab-case")]
pub enum ObjectChange {
    /// Only the newer configuration has it.
    Added,
    /// Only the older configuration has it.
    Removed,
    /// Both have it, with different values of these keys, in the order of the key table.
    Changed(Vec<KeyDiff>),
    /// Both have it, with the same values.
    Unchanged,
}

/// The difference in one key of an object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct KeyDiff {
    /// Its table: that of the object, or one below it, such as `service.sticky`.
    pub table: &'static str,
    /// The key. For a rule that was moved it is `place`, with the values `after "name"` and `before "name"`.
    pub key: &'static str,
    /// The older value as [`KeyValue::value`](crate::config::listing::KeyValue::value); `None` if the key did not apply.
    pub from: Option<String>,
    /// The newer value, likewise.
    pub to: Option<String>,
    /// What a reload does with the newer value.
    pub reload: Reload,
}

impl Plan {
    /// Compares this plan with a newer one.
    pub fn diff(&self, newer: &Plan) -> PlanDiff {
        PlanDiff::between(self.written(), newer.written())
    }
}

impl PlanDiff {
    /// Compares two checked configurations.
    pub fn between(old: &Settings, new: &Settings) -> PlanDiff {
        PlanDiff::of_objects(&objects(old), &objects(new))
    }

    /// Compares two listings.
    pub fn of_objects(old: &[Object], new: &[Object]) -> PlanDiff {
        let mut diff = PlanDiff { objects: Vec::with_capacity(new.len()) };
        for table in TABLES {
            let [old, new] = [old, new].map(|all| all.iter().filter(|object| object.table == table.name).collect());
            diff.add_table(table, old, new);
        }
        diff
    }

    /// Compares the objects of one table.
    fn add_table(&mut self, table: &'static Table, old: Vec<&Object>, new: Vec<&Object>) {
        let former: HashMap<&str, &Object> = old.iter().map(|object| (object.name.as_str(), *object)).collect();
        let mut places = if table.name == RULE { order::moved(&old, &new) } else { HashMap::new() };
        let mut moved: HashMap<&str, Vec<KeyDiff>> = HashMap::new();
        for object in &new {
            let name = object.name.as_str();
            let Some(before) = former.get(name) else {
                self.push(object, ObjectChange::Added, Vec::new());
                continue;
            };
            let mut keys = differing(before, object);
            if keys.iter().any(KeyDiff::makes_another_server) {
                keys.retain(KeyDiff::makes_another_server);
                self.push(object, ObjectChange::Added, keys.clone());
                moved.insert(name, keys);
                continue;
            }
            keys.extend(places.remove(name).map(|(from, to)| KeyDiff {
                table: table.name,
                key: "place",
                from: Some(from),
                to: Some(to),
                reload: Reload::NewFlows,
            }));
            let change = if keys.is_empty() { ObjectChange::Unchanged } else { ObjectChange::Changed(keys) };
            self.push(object, change, Vec::new());
        }
        let kept: HashSet<&str> = new.iter().map(|object| object.name.as_str()).collect();
        for object in old {
            let name = object.name.as_str();
            match moved.remove(name) {
                Some(keys) => self.push(object, ObjectChange::Removed, keys),
                None if !kept.contains(name) => self.push(object, ObjectChange::Removed, Vec::new()),
                None => {}
            }
        }
    }

    fn push(&mut self, object: &Object, change: ObjectChange, moved: Vec<KeyDiff>) {
        self.objects.push(ObjectDiff { table: object.table, name: object.name.clone(), change, moved });
    }

    /// Returns whether both configurations mean the same.
    pub fn is_empty(&self) -> bool {
        self.objects.iter().all(|object| object.change == ObjectChange::Unchanged)
    }

    /// Returns the objects that only the newer configuration has.
    pub fn added(&self) -> impl Iterator<Item = &ObjectDiff> {
        self.objects.iter().filter(|object| object.change == ObjectChange::Added)
    }

    /// Returns the objects that only the older configuration has.
    pub fn removed(&self) -> impl Iterator<Item = &ObjectDiff> {
        self.objects.iter().filter(|object| object.change == ObjectChange::Removed)
    }

    /// Returns the objects that both configurations have with different values, each with its keys.
    pub fn changed(&self) -> impl Iterator<Item = (&ObjectDiff, &[KeyDiff])> {
        self.objects.iter().filter_map(|object| match &object.change {
            ObjectChange::Changed(keys) => Some((object, &keys[..])),
            _ => None,
        })
    }

    /// Returns the changed keys whose newer value takes effect at the next start only, each with its object.
    pub fn needs_restart(&self) -> impl Iterator<Item = (&ObjectDiff, &KeyDiff)> {
        let all = self.changed().flat_map(|(object, keys)| keys.iter().map(move |key| (object, key)));
        all.filter(|(_, key)| key.reload == Reload::Restart)
    }
}

impl ObjectDiff {
    /// Compares one object before and after; none: it did not exist, or does not exist any more.
    pub fn of(before: Option<&Object>, after: Option<&Object>) -> Option<ObjectDiff> {
        let mut diff = PlanDiff { objects: Vec::new() };
        let change = match (before, after) {
            (Some(before), Some(after)) => match differing(before, after) {
                keys if keys.is_empty() => ObjectChange::Unchanged,
                keys => ObjectChange::Changed(keys),
            },
            (None, _) => ObjectChange::Added,
            (_, None) => ObjectChange::Removed,
        };
        diff.push(after.or(before)?, change, Vec::new());
        diff.objects.pop()
    }
}

impl KeyDiff {
    /// Describes the change in one line: `gateway: device "a" -> "b" (at the next start)`.
    pub fn describe(&self, object: &ObjectDiff) -> String {
        let change = ObjectChange::Changed(vec![self.clone()]);
        ObjectDiff { table: object.table, name: object.name.clone(), change, moved: Vec::new() }.to_string()
    }

    fn makes_another_server(&self) -> bool {
        self.table == SERVER && SERVER_IDENTITY.contains(&self.key)
    }
}

/// Compares the keys of an object that both configurations have.
///
/// A key that applies in only one of them is left out if it has its default value: the key that it depends on says
/// enough.
fn differing(old: &Object, new: &Object) -> Vec<KeyDiff> {
    let mut all = Vec::new();
    for table in TABLES.iter().filter(|table| is_within(table, old.table)) {
        let has_table = |object: &Object| object.keys.iter().any(|value| value.table == table.name);
        let in_both = has_table(old) && has_table(new);
        for key in table.keys {
            let implied = |value: Option<&str>| in_both && value.is_some_and(|value| value == key.default.to_string());
            let (from, to) = (old.value(table.name, key.name), new.value(table.name, key.name));
            if from == to || from.is_none() && implied(to) || to.is_none() && implied(from) {
                continue;
            }
            let (from, to) = (from.map(String::from), to.map(String::from));
            all.push(KeyDiff { table: table.name, key: key.name, from, to, reload: key.reload });
        }
    }
    all
}

/// Returns whether a table is that of an object, or nested in it.
fn is_within(table: &Table, object: &str) -> bool {
    let below = |rest: &str| rest.is_empty() || rest.starts_with('.') && !object.is_empty();
    table.name.strip_prefix(object).is_some_and(below)
}

impl fmt::Display for PlanDiff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return f.write_str("no changes");
        }
        let differing = self.objects.iter().filter(|object| object.change != ObjectChange::Unchanged);
        for (at, object) in differing.enumerate() {
            let newline = if at > 0 { "\n" } else { "" };
            write!(f, "{newline}{object}")?;
        }
        Ok(())
    }
}

/// One line, or one per changed key: `server web/web-2: weight 1 -> 5 (new flows only)`. Empty for an unchanged object.
impl fmt::Display for ObjectDiff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (change, keys) = match &self.change {
            ObjectChange::Unchanged => return Ok(()),
            ObjectChange::Changed(keys) => ("", keys),
            ObjectChange::Added => ("added", &self.moved),
            ObjectChange::Removed => ("removed", &self.moved),
        };
        if !change.is_empty() {
            self.subject(f)?;
            f.write_str(change)?;
            for (at, key) in keys.iter().enumerate() {
                f.write_str(if at > 0 { ", " } else { " (" })?;
                key.values(f, self.table)?;
            }
            return f.write_str(if keys.is_empty() { "" } else { ")" });
        }
        for (at, key) in keys.iter().enumerate() {
            f.write_str(if at > 0 { "\n" } else { "" })?;
            self.subject(f)?;
            key.values(f, self.table)?;
            write!(f, " ({})", key.reload.brief())?;
        }
        Ok(())
    }
}

impl ObjectDiff {
    /// Writes the prefix of a line: `server web/web-2: `, `gateway: `; nothing for the top level.
    fn subject(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = self.table.rsplit('.').next().unwrap_or(self.table);
        match (kind, self.name.as_str()) {
            ("", _) => Ok(()),
            (kind, "") => write!(f, "{kind}: "),
            (kind, name) => write!(f, "{kind} {name}: "),
        }
    }
}

impl KeyDiff {
    /// Writes the key and both values; `object` is the table of its object.
    fn values(&self, f: &mut fmt::Formatter<'_>, object: &str) -> fmt::Result {
        if let Some(below) = self.table.strip_prefix(object).and_then(|rest| rest.strip_prefix('.')) {
            write!(f, "{below}.")?;
        }
        let [from, to] = [&self.from, &self.to].map(|value| value.as_deref().map(|value| self.shown(value)));
        match (from, to) {
            (Some(from), Some(to)) => write!(f, "{} {from} -> {to}", self.key),
            (None, Some(to)) => write!(f, "{} set to {to}", self.key),
            (Some(from), None) => write!(f, "{} {from} no longer applies", self.key),
            (None, None) => f.write_str(self.key),
        }
    }

    /// Puts words that represent an absent key in parentheses.
    fn shown<'v>(&self, value: &'v str) -> Cow<'v, str> {
        let default = find(self.table, self.key).map(|key| key.default);
        match default {
            Some(DefaultValue::Unset(words)) if words == value && !words.starts_with('"') => {
                format!("({value})").into()
            }
            _ => value.into(),
        }
    }
}
