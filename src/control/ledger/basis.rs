//! What settings are made of: the file, the changes, and what is in force; and what a request or a newer file makes of it.

use super::super::protocol::ChangedRow;
use super::draft::Draft;
use super::rows::changed_row;
use crate::balance::{Admin, ServerSettings};
use crate::config::changes::{Changes, Conflict, Dropped, File, Kind, Target, Value, read_enabled, read_server};
use crate::config::listing::{self, Finder, Object};
use crate::config::{Settings, find_server};
use crate::time::{Duration, Instant};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// The file, the changes, and the settings in force that they make.
#[derive(Debug, Clone)]
pub struct Basis {
    /// None where the settings come from no file.
    pub(super) file: Option<Arc<File>>,
    pub(super) in_force: Arc<Settings>,
    pub(super) changes: Arc<Changes>,
}

/// What the changes make of a newer file.
#[derive(Debug)]
pub struct Merged {
    pub(super) file: Arc<File>,
    pub(super) changes: Changes,
    pub(super) dropped: Vec<Dropped>,
    settings: Settings,
}

impl Merged {
    /// Returns the settings of the file with the changes that still apply.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Returns the changes that no longer apply.
    pub fn dropped(&self) -> &[Dropped] {
        &self.dropped
    }
}

/// A change that needs no other plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Quick {
    Weight { server: String, weight: u16 },
    Admin { server: String, admin: Admin, deadline: Option<Duration> },
    Rule { rule: String, on: bool },
}

impl Quick {
    /// Applies it to settings that have its object; `server` finds a server in them.
    pub(super) fn apply_to(&self, settings: &mut Settings, server: impl Fn(&Settings, &str) -> Option<usize>) {
        match self {
            Quick::Weight { server: name, weight } => {
                if let Some(place) = server(settings, name) {
                    settings.servers[place].weight = *weight;
                }
            }
            Quick::Admin { server: name, admin, .. } => {
                if let Some(place) = server(settings, name) {
                    settings.servers[place].admin = *admin;
                }
            }
            Quick::Rule { rule: name, on } => {
                if let Some(rule) = settings.policy.rules.iter_mut().find(|rule| rule.name == *name) {
                    rule.enabled = *on;
                }
            }
        }
    }
}

/// The servers of settings by `pool/server`.
pub(super) struct Places<'s>(&'s Settings, HashMap<(&'s str, &'s str), usize>);

impl<'s> Places<'s> {
    pub(super) fn new(settings: &'s Settings) -> Self {
        let pool = |server: &ServerSettings| settings.pools[server.pool.0 as usize].name.as_str();
        let place = |(place, server): (usize, &'s ServerSettings)| ((pool(server), server.name.as_str()), place);
        Places(settings, settings.servers.iter().enumerate().map(place).collect())
    }

    pub(super) fn get(&self, name: &str) -> Option<&'s ServerSettings> {
        let (pool, server) = name.split_once('/')?;
        self.of(pool, server)
    }

    /// Returns a server of a pool.
    pub(super) fn of(&self, pool: &str, server: &str) -> Option<&'s ServerSettings> {
        self.1.get(&(pool, server)).map(|place| &self.0.servers[*place])
    }
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
}

/// The keys that are changed without another plan.
/// Most keys that are changed between two packets.
pub(super) const FEW: usize = 16;

const QUICK: [(Kind, &str); 3] = [(Kind::Server, "weight"), (Kind::Server, "state"), (Kind::Rule, "enabled")];

impl Basis {
    /// Returns the file; none where the settings come from none.
    pub fn file(&self) -> Option<&File> {
        self.file.as_deref()
    }

    /// Makes the settings for a newer file, with the changes that still apply.
    pub fn merge(self, file: File) -> Merged {
        let Basis { in_force, changes, .. } = self;
        let mut changes = Arc::unwrap_or_clone(changes);
        let mut dropped = changes.reconcile(file.settings());
        let (settings, clashing) = changes.settle(&file);
        dropped.extend(clashing);
        let settings = if settings.seed == 0 { settings.with_seed(in_force.seed) } else { settings };
        Merged { file: Arc::new(file), changes, dropped, settings }
    }

    /// Returns what the file says by itself.
    pub(super) fn written(&self) -> &Settings {
        self.file.as_ref().map_or(&self.in_force, |file| file.settings())
    }

    /// Returns when the draining of a server ends by force.
    pub(super) fn deadline(&self, server: &str) -> Option<Instant> {
        self.changes.get(&Target::new(Kind::Server, server), Some("state")).and_then(|entry| entry.deadline)
    }

    /// Returns a request as it may be carried out, if it needs no other plan.
    pub(super) fn at_once(&self, draft: &Draft) -> Result<Option<Prepared>, String> {
        let refused = |why: Conflict| format!("{} is refused: {why}", draft.subject);
        let Some(quick) = self.quick(draft).map_err(refused)? else { return Ok(None) };
        let before = |target| listing::find(&self.in_force, target);
        let after = draft.targets.iter().map(|target| with(target, before(target).as_ref(), &quick)).collect();
        let quick = quick.into_iter().map(|(_, _, change)| change).collect();
        Ok(Some(self.prepared(draft, quick, after)))
    }

    /// Checks a request as a file is checked; the second value is the settings to put in force, unless nothing changes.
    pub(super) fn resolve(&self, draft: Draft) -> Result<(Prepared, Option<Settings>), String> {
        let refused = |why: Conflict| format!("{} is refused: {why}", draft.subject);
        let file = self.file.as_ref().ok_or_else(Conflict::no_file).map_err(refused)?;
        let settings = file.with(&draft.changes).map_err(refused)?.with_seed(self.in_force.seed);
        let quick = self.quick_after(&draft, &settings);
        let finder = Finder::new(&settings);
        let after = draft.targets.iter().map(|target| finder.find(target)).collect();
        let prepared = self.prepared(&draft, quick, after);
        let changes = prepared.rows.iter().any(|row| row.changed);
        Ok((prepared, Some(settings).filter(|_| changes)))
    }

    fn prepared(&self, draft: &Draft, quick: Vec<Quick>, after: Vec<Option<Object>>) -> Prepared {
        let rows = draft.targets.iter().zip(&after);
        let finder = (draft.targets.len() > FEW).then(|| Finder::new(&self.in_force));
        let find = |target: &Target| {
            finder.as_ref().map_or_else(|| listing::find(&self.in_force, target), |all| all.find(target))
        };
        let row =
            |(target, after): (&Target, &Option<Object>)| changed_row(target, find(target).as_ref(), after.as_ref());
        let mut rows: Vec<ChangedRow> = rows.map(row).collect();
        let changes = self.without_needless(draft, &after);
        self.note_deadline(draft, &changes, &mut rows);
        if rows.iter().any(|row| row.changed) {
            return Prepared { changes, quick, rows, removed: draft.removed.clone() };
        }
        let changes = if draft.goes_back { changes } else { (*self.changes).clone() };
        Prepared { changes, quick: Vec::new(), rows, removed: Vec::new() }
    }

    /// Returns what is to be done if no other plan is needed: each with its object, and the key's value.
    fn quick(&self, draft: &Draft) -> Result<Option<Vec<(Target, String, Quick)>>, Conflict> {
        // Many are for another thread.
        if draft.keys.len() > FEW && self.file.is_some() {
            return Ok(None);
        }
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
        let keys: HashSet<(&Target, Option<&str>)> = draft.keys.iter().map(|(of, key)| (of, key.as_deref())).collect();
        let finder = Places::new(settings);
        for target in &draft.targets {
            let touched = |key: &str| keys.contains(&(target, None)) || keys.contains(&(target, Some(key)));
            let name = || target.name.clone();
            match target.kind {
                Kind::Server => {
                    let Some(own) = finder.get(&target.name) else { continue };
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

    /// Returns the changes of a draft without those that say what the file says.
    fn without_needless(&self, draft: &Draft, after: &[Option<Object>]) -> Changes {
        let mut changes = draft.changes.clone();
        let places: HashMap<&Target, usize> = draft.targets.iter().zip(0..).collect();
        let finder = (draft.keys.len() > FEW).then(|| Finder::new(self.written()));
        let find = |target: &Target| {
            finder.as_ref().map_or_else(|| listing::find(self.written(), target), |all| all.find(target))
        };
        for (target, key) in &draft.keys {
            let Some(key) = key.as_deref() else { continue };
            let now = places.get(target).and_then(|place| after[*place].as_ref()?.at(key));
            let file = find(target);
            let same = self.file.is_some() && now.is_some() && file.as_ref().and_then(|file| file.at(key)) == now;
            let needed = draft.changes.get(target, Some(key)).is_some_and(|entry| entry.deadline.is_some());
            if same && !needed {
                changes.drop_key(target, Some(key));
            }
        }
        changes
    }

    /// Says by when draining ends, and that another deadline is a change too.
    fn note_deadline(&self, draft: &Draft, changes: &Changes, rows: &mut [ChangedRow]) {
        let states: HashSet<&Target> =
            draft.keys.iter().filter(|(_, key)| key.as_deref() == Some("state")).map(|(of, _)| of).collect();
        for row in rows.iter_mut().filter(|row| row.object.kind == Kind::Server) {
            let entry = |changes: &Changes| changes.get(&row.object, Some("state")).and_then(|entry| entry.deadline);
            if !states.contains(&row.object) {
                continue;
            }
            let (before, now) = (entry(&self.changes), entry(changes));
            if before == now {
                continue;
            }
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
