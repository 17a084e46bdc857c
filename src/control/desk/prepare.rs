//! What a request would make of the settings: checked, and not yet done.

use super::super::protocol::ChangedRow;
use super::rows::changed_row;
use super::{Ask, Desk};
use crate::balance::Admin;
use crate::config::changes::{Changes, Conflict, Entry, File, Kind, Target, Value, Who, read_enabled, read_server};
use crate::config::keys::{Takes, find};
use crate::config::listing::{self, Object};
use crate::config::{NoServer, Settings, closest, find_server};
use crate::time::{Duration, Instant};
use std::collections::BTreeMap;

/// A change that needs no other plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Quick {
    Weight { server: String, weight: u16 },
    Admin { server: String, admin: Admin, deadline: Option<Duration> },
    Rule { rule: String, on: bool },
}

/// A request that may be carried out.
#[derive(Debug, Clone)]
pub(super) struct Prepared {
    /// What differs from the file then.
    pub(super) changes: Changes,
    /// What is to be done once the settings are in force.
    pub(super) quick: Vec<Quick>,
    pub(super) rows: Vec<ChangedRow>,
    /// Servers that are removed, with their pools.
    pub(super) removed: Vec<String>,
    /// Whether their flows end at once.
    pub(super) at_once: bool,
}

/// The keys that are changed without another plan.
const QUICK: [(Kind, &str); 3] = [(Kind::Server, "weight"), (Kind::Server, "state"), (Kind::Rule, "enabled")];

/// What a request does to the changes.
#[derive(Debug, Default)]
struct Draft {
    changes: Changes,
    /// The objects that it concerns, in its order.
    targets: Vec<Target>,
    /// The keys that it concerns; none where an object comes or goes.
    keys: Vec<(Target, Option<String>)>,
    /// When draining begins: after what time it ends.
    deadline: Option<Duration>,
    removed: Vec<String>,
    at_once: bool,
}

impl Draft {
    fn touch(&mut self, target: &Target, key: Option<&str>) {
        if !self.targets.contains(target) {
            self.targets.push(target.clone());
        }
        self.keys.push((target.clone(), key.map(str::to_owned)));
    }
}

impl Desk {
    /// Checks a request; the second value is the settings that it needs another plan for.
    pub(super) fn prepare(&self, now: Instant, who: Who, ask: &Ask) -> Result<(Prepared, Option<Settings>), String> {
        let draft = match ask {
            Ask::Set { target, values, deadline } => self.set(now, who, target, values, *deadline)?,
            Ask::Add { target, values } => self.add(now, who, target, values)?,
            Ask::Remove { target, now: at_once } => self.remove(now, who, target, *at_once)?,
            Ask::Drop { target, key } => self.go_back(target.as_ref(), key.as_deref())?,
        };
        let refused = |why: Conflict| format!("{} is refused: {why}", subject(ask));
        let before: Vec<Option<Object>> = draft.targets.iter().map(|target| listing::find(&self.in_force, target)).collect();
        let (quick, after, settings) = match self.quick(&draft).map_err(refused)? {
            Some(quick) => {
                let after = draft.targets.iter().zip(&before).map(|(target, before)| with(target, before.as_ref(), &quick));
                (quick.iter().map(|(_, _, change)| change.clone()).collect(), after.collect(), None)
            }
            None => {
                let settings = self.with(&draft.changes).map_err(refused)?;
                let after: Vec<Option<Object>> =
                    draft.targets.iter().map(|target| listing::find(&settings, target)).collect();
                (self.quick_after(&draft, &settings), after, Some(settings))
            }
        };
        let mut draft = draft;
        self.forget_needless(&mut draft, &after);
        let rows = draft.targets.iter().zip(before.iter().zip(&after));
        let mut rows: Vec<ChangedRow> =
            rows.map(|(target, (before, after))| changed_row(target, before.as_ref(), after.as_ref())).collect();
        self.note_deadline(&draft, &mut rows);
        let Draft { changes, removed, at_once, .. } = draft;
        let prepared = Prepared { changes, quick, rows, removed, at_once };
        if prepared.rows.iter().all(|row| !row.changed) {
            let changes = if matches!(ask, Ask::Drop { .. }) { prepared.changes } else { self.changes.clone() };
            return Ok((Prepared { changes, quick: Vec::new(), removed: Vec::new(), ..prepared }, None));
        }
        Ok((prepared, settings))
    }

    /// Returns the settings with these changes instead of the present ones.
    fn with(&self, changes: &Changes) -> Result<Settings, Conflict> {
        let file = self.file.as_ref().ok_or_else(Conflict::no_file)?;
        Ok(file.with(changes)?.with_seed(self.in_force.seed))
    }

    /// What the file says by itself.
    fn written(&self) -> &Settings {
        self.file.as_ref().map_or(&self.in_force, File::settings)
    }

    /// Returns the object that is meant.
    fn find(&self, target: &Target) -> Result<Target, String> {
        let settings = &self.in_force;
        let target = match target.kind {
            Kind::Server => {
                let place = find_server(settings, &target.name).map_err(|error| self.was_removed(target, error))?;
                let server = &settings.servers[place];
                let pool = &settings.pools[server.pool.0 as usize].name;
                return Ok(Target::new(Kind::Server, format!("{pool}/{}", server.name)));
            }
            _ => target.clone(),
        };
        let names: Vec<&str> = match target.kind {
            Kind::Service => settings.services.iter().map(|service| service.name.as_str()).collect(),
            Kind::Rule => settings.policy.rules.iter().map(|rule| rule.name.as_str()).collect(),
            Kind::Pool | Kind::Server => settings.pools.iter().map(|pool| pool.name.as_str()).collect(),
        };
        if names.contains(&target.name.as_str()) {
            return Ok(target);
        }
        Err(format!("there is no {target}{}", self.near(&target, &names)))
    }

    fn near(&self, target: &Target, names: &[&str]) -> String {
        let kind = target.kind.name();
        match closest(&target.name, names.iter().copied()) {
            Some(near) => format!("; did you mean {near}?"),
            None if target.kind == Kind::Pool => "; `eqctl pool` lists them".into(),
            None => format!("; `eqctl {kind}s` lists them"),
        }
    }

    /// The error for a server that is not there, which may have been removed at run time.
    fn was_removed(&self, target: &Target, error: NoServer) -> String {
        match self.changes.get(target, None) {
            Some(Entry { value: Value::Removed, who, .. }) => {
                format!("{target} was removed by {who}; `eqctl changes drop {target}` brings it back")
            }
            _ => error.to_string(),
        }
    }

    fn set(
        &self,
        now: Instant,
        who: Who,
        target: &Target,
        values: &BTreeMap<String, Option<String>>,
        deadline: Option<Duration>,
    ) -> Result<Draft, String> {
        let target = self.find(target)?;
        let mut draft = Draft { changes: self.changes.clone(), deadline, ..Draft::default() };
        if values.is_empty() {
            return Err("nothing to set: write KEY=VALUE, for example weight=5".into());
        }
        for (key, value) in values {
            settable(target.kind, key)?;
            let draining = target.kind == Kind::Server && key == "state";
            let value = value.clone().map_or(Value::Unset, Value::Set);
            let deadline = deadline.filter(|_| draining).map(|span| now + span);
            draft.changes.put(target.clone(), Some(key.clone()), Entry { value, who, at: now, deadline });
            draft.touch(&target, Some(key));
        }
        Ok(draft)
    }

    fn add(&self, now: Instant, who: Who, target: &Target, values: &BTreeMap<String, String>) -> Result<Draft, String> {
        if target.kind != Kind::Server {
            return Err(format!("a {} cannot be added at run time: add it to the file and reload", target.kind.name()));
        }
        let (pool, name) = target.parts();
        if pool.is_empty() || name.is_empty() {
            return Err("write the new server as POOL/SERVER, for example web/web-4".into());
        }
        self.find(&Target::new(Kind::Pool, pool))?;
        if listing::find(&self.in_force, target).is_some() {
            return Err(format!("{target} exists already; `eqctl server set` changes it"));
        }
        if self.changes.get(target, None).is_some() {
            return Err(self.was_removed(target, NoServer::Unknown { name: target.name.clone(), near: None }));
        }
        let mut keys = Vec::with_capacity(values.len());
        for (key, value) in values {
            settable(target.kind, key)?;
            keys.push(format!("{key} = {value}"));
        }
        let value = Value::Added(format!("{{ {} }}", keys.join(", ")));
        let mut draft = Draft { changes: self.changes.clone(), ..Draft::default() };
        draft.changes.put(target.clone(), None, Entry { value, who, at: now, deadline: None });
        draft.touch(target, None);
        Ok(draft)
    }

    fn remove(&self, now: Instant, who: Who, target: &Target, at_once: bool) -> Result<Draft, String> {
        if target.kind != Kind::Server {
            let kind = target.kind.name();
            return Err(format!("a {kind} cannot be removed at run time: remove it from the file and reload"));
        }
        let target = self.find(target)?;
        let mut draft = Draft { changes: self.changes.clone(), at_once, ..Draft::default() };
        draft.changes.drop_object(&target);
        if listing::find(self.written(), &target).is_some() {
            let entry = Entry { value: Value::Removed, who, at: now, deadline: None };
            draft.changes.put(target.clone(), None, entry);
        }
        draft.touch(&target, None);
        draft.removed.push(target.name);
        Ok(draft)
    }

    fn go_back(&self, target: Option<&Target>, key: Option<&str>) -> Result<Draft, String> {
        let mut draft = Draft { changes: self.changes.clone(), ..Draft::default() };
        // The short form of a server that was removed is not in force, but among the changes.
        let of = |own: &Target| {
            target.is_none_or(|target| {
                let short = target.kind == own.kind && !target.name.contains('/') && own.parts().1 == target.name;
                own == target || short
            })
        };
        let places = self.changes.iter().map(|(place, _)| place);
        let places: Vec<_> =
            places.filter(|(own, at)| of(own) && (key.is_none() || at.as_deref() == key)).cloned().collect();
        let first = places.first().map(|(own, _)| own.clone());
        if let (Some(target), true) = (target, places.iter().any(|(own, _)| Some(own) != first.as_ref())) {
            return Err(format!("several pools have changes of a {target}: write POOL/SERVER"));
        }
        if let (Some(target), true) = (target, places.is_empty()) {
            let target = self.find(target)?;
            let what = key.map_or(target.to_string(), |key| format!("{key} of {target}"));
            return Err(format!("{what} is as in the file; `eqctl changes` lists what differs"));
        }
        for (target, key) in places {
            draft.changes.drop_key(&target, key.as_deref());
            let is_addition = key.is_none() && listing::find(self.written(), &target).is_none();
            if is_addition {
                draft.changes.drop_object(&target);
                draft.removed.push(target.name.clone());
            }
            draft.touch(&target, key.as_deref());
        }
        Ok(draft)
    }

    /// Returns what is to be done if no other plan is needed: each with its object, and the key's value.
    fn quick(&self, draft: &Draft) -> Result<Option<Vec<(Target, String, Quick)>>, Conflict> {
        let mut all = Vec::with_capacity(draft.keys.len());
        for (target, key) in &draft.keys {
            let Some(key) = key.as_deref().filter(|key| QUICK.contains(&(target.kind, *key))) else { return Ok(None) };
            let Some(change) = self.quick_change(draft, target, key)? else { return Ok(None) };
            // The check of a file refuses a pool whose weights are all 0.
            if let Quick::Weight { weight: 0, .. } = change {
                return Ok(None);
            }
            all.push((target.clone(), key.to_owned(), change));
        }
        Ok(Some(all))
    }

    /// Returns what sets a key to the value that the changes, or else the file, give it.
    fn quick_change(&self, draft: &Draft, target: &Target, key: &str) -> Result<Option<Quick>, Conflict> {
        let value = draft.changes.get(target, Some(key)).map(|entry| &entry.value);
        if target.kind == Kind::Rule {
            let on = match value {
                Some(Value::Set(value)) => read_enabled(Kind::Rule, value)?,
                Some(_) => true,
                None => match self.written().policy.rules.iter().find(|rule| rule.name == target.name) {
                    Some(rule) => rule.enabled,
                    None => return Ok(None),
                },
            };
            return Ok(Some(Quick::Rule { rule: target.name.clone(), on }));
        }
        let own = match value {
            Some(Value::Set(value)) => read_server(&[(key, value)])?,
            Some(_) => read_server(&[])?,
            None => match find_server(self.written(), &target.name) {
                Ok(place) => self.written().servers[place].clone(),
                Err(_) => return Ok(None),
            },
        };
        let server = target.name.clone();
        Ok(Some(match key {
            "weight" => Quick::Weight { server, weight: own.weight },
            _ => Quick::Admin { server, admin: own.admin, deadline: draft.deadline },
        }))
    }

    /// Returns what is to be done once another plan is in force: the engine keeps weights, states and switches.
    fn quick_after(&self, draft: &Draft, settings: &Settings) -> Vec<Quick> {
        let mut all = Vec::new();
        for target in &draft.targets {
            let touched = |key: &str| draft.keys.iter().any(|(of, own)| of == target && own.as_deref().is_none_or(|k| k == key));
            let name = || target.name.clone();
            match target.kind {
                Kind::Server => {
                    let Ok(place) = find_server(settings, &target.name) else { continue };
                    let own = &settings.servers[place];
                    if touched("weight") {
                        all.push(Quick::Weight { server: name(), weight: own.weight });
                    }
                    if touched("state") {
                        all.push(Quick::Admin { server: name(), admin: own.admin, deadline: draft.deadline });
                    }
                }
                Kind::Rule => {
                    let found = settings.policy.rules.iter().find(|rule| rule.name == target.name);
                    if let Some(rule) = found.filter(|_| touched("enabled")) {
                        all.push(Quick::Rule { rule: name(), on: rule.enabled });
                    }
                }
                Kind::Service | Kind::Pool => {}
            }
        }
        all
    }

    /// Drops changes that say what the file says.
    fn forget_needless(&self, draft: &mut Draft, after: &[Option<Object>]) {
        for (target, key) in &draft.keys {
            let Some(key) = key.as_deref() else { continue };
            let place = draft.targets.iter().position(|own| own == target);
            let now = place.and_then(|place| after[place].as_ref()?.at(key));
            let file = listing::find(self.written(), target);
            let same = self.file.is_some() && now.is_some() && file.as_ref().and_then(|file| file.at(key)) == now;
            let needed = draft.changes.get(target, Some(key)).is_some_and(|entry| entry.deadline.is_some());
            if same && !needed {
                draft.changes.drop_key(target, Some(key));
            }
        }
    }

    /// Says by when draining ends, and that another deadline is a change too.
    fn note_deadline(&self, draft: &Draft, rows: &mut [ChangedRow]) {
        for row in rows.iter_mut().filter(|row| row.object.kind == Kind::Server) {
            let entry = |changes: &Changes| changes.get(&row.object, Some("state")).and_then(|entry| entry.deadline);
            if !draft.keys.iter().any(|(of, key)| *of == row.object && key.as_deref() == Some("state")) {
                continue;
            }
            let (before, now) = (entry(&self.changes), entry(&draft.changes));
            if let (Some(_), Some(span)) = (now, draft.deadline) {
                let within = humantime::format_duration(span);
                row.text = match row.changed {
                    true => format!("{}, remaining flows end in {within}", row.text),
                    false => format!("{}: draining, remaining flows end in {within}", row.object),
                };
                row.changed = true;
            } else if before.is_some() && !row.changed {
                row.text = format!("{}: draining, without a deadline", row.object);
                row.changed = true;
            }
        }
    }
}

/// Returns an object with the values of quick changes.
fn with(target: &Target, before: Option<&Object>, quick: &[(Target, String, Quick)]) -> Option<Object> {
    let mut object = before?.clone();
    for (_, key, change) in quick.iter().filter(|(of, ..)| of == target) {
        let value = match change {
            Quick::Weight { weight, .. } => weight.to_string(),
            Quick::Admin { admin, .. } => listing::word(admin),
            Quick::Rule { on, .. } => on.to_string(),
        };
        object.keys.iter_mut().filter(|own| own.key == key).for_each(|own| own.value.clone_from(&value));
    }
    Some(object)
}

/// Refuses keys that cannot be changed at run time; those that the object does not have are refused by the reader of the
/// file.
fn settable(kind: Kind, key: &str) -> Result<(), String> {
    let table = key.split_once('.').map_or(kind.table().to_owned(), |(below, _)| format!("{}.{below}", kind.table()));
    let Some(known) = find(&table, key.rsplit('.').next().unwrap_or(key)) else { return Ok(()) };
    let refused = match (kind, key) {
        (_, "name") => return Err(format!("the name of a {} is what it is known by, and cannot be changed", kind.name())),
        (Kind::Pool, "passive") => return Err("passive is a table: set its keys, such as passive.failures".into()),
        (Kind::Service | Kind::Rule, key) => key != "enabled",
        // The servers have it, as the file resolves it.
        (Kind::Pool, "slow-start") => return Err("set slow-start of the servers of the pool".into()),
        (Kind::Pool | Kind::Server, _) => matches!(known.takes, Takes::Table | Takes::Tables { .. }),
    };
    match refused {
        true => Err(format!("{key} of a {} cannot be changed at run time: change the file and reload", kind.name())),
        false => Ok(()),
    }
}

/// What a request is about, for an error.
fn subject(ask: &Ask) -> String {
    match ask {
        Ask::Set { target, values, .. } => {
            let set = |(key, value): (&String, &Option<String>)| match value {
                Some(value) => format!("{key} = {value}"),
                None => format!("the default of {key}"),
            };
            format!("{} of {target}", values.iter().map(set).collect::<Vec<_>>().join(", "))
        }
        Ask::Add { target, .. } => format!("the addition of {target}"),
        Ask::Remove { target, .. } => format!("the removal of {target}"),
        Ask::Drop { target: Some(target), .. } => format!("going back to the file for {target}"),
        Ask::Drop { target: None, .. } => "going back to the file".into(),
    }
}
