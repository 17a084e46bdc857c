//! The rows of the ledger: objects before and after, what differs from the file, the journal, pools, draining.

use super::super::protocol::{ChangeRow, ChangedRow, DrainRow, DrainState, EventRow, FileRow, OperationRow, PoolRow};
use super::{Drain, Ledger};
use crate::balance::{Admin, Health, LastResort};
use crate::config::changes::Who;
use crate::config::changes::{Entry, Kind, Place, Target, Value};
use crate::config::listing::{self, Finder, Object};
use crate::engine::{Change, Engine, Event, ObjectDiff, ServerRow};
use crate::ids::PoolId;
use crate::time::{Duration, Instant};
use std::collections::HashMap;

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

/// Returns an object before and after a change.
pub(super) fn changed_row(target: &Target, before: Option<&Object>, after: Option<&Object>) -> ChangedRow {
    let changed = before != after;
    let text = match ObjectDiff::of(before, after).filter(|_| changed) {
        Some(diff) => diff.to_string(),
        None => format!("{target}: no change: it is already so"),
    };
    let json = |object: Option<&Object>| object.map(Object::to_json);
    ChangedRow { object: target.clone(), text, changed, before: json(before), after: json(after), flows: None }
}

/// Returns the flows of a server that a change keeps from new ones.
pub(super) fn flows_left(engine: &Engine, row: &ChangedRow) -> Option<u64> {
    if row.object.kind != Kind::Server {
        return None;
    }
    let Some(after) = &row.after else { return Some(engine.flows_of_removed(&row.object.name)) };
    let stopped = after.get("state").is_some_and(|state| state != "enabled");
    let server = stopped.then(|| engine.server_named(&row.object.name).ok()).flatten()?;
    Some(engine.flows_of(server))
}

impl Ledger {
    /// Returns what differs from the file.
    pub fn change_rows(&self, now: Instant) -> Vec<ChangeRow> {
        let written = self.basis.written();
        // An object has several keys, and they follow each other.
        let finders = (Finder::new(written), Finder::new(&self.basis.in_force));
        let (mut known, mut objects) = (None, (None, None));
        let row = |((target, key), entry): (&Place, &Entry)| {
            if known.as_ref() != Some(target) {
                objects = (finders.0.find(target), finders.1.find(target));
                known = Some(target.clone());
            }
            let (file, own) = (objects.0.as_ref(), objects.1.as_ref());
            let value = match (&entry.value, key) {
                (Value::Added(table), _) => Some(table.clone()),
                (Value::Removed, _) => None,
                // It waits for its server.
                (Value::Set(value), Some(_)) if own.is_none() => Some(value.clone()),
                (_, Some(key)) => own.and_then(|own| own.at(key).map(str::to_owned)),
                (_, None) => None,
            };
            let own_is_missing = own.is_none() && objects.0.is_none();
            let file = match key {
                Some(key) => file.and_then(|file| file.at(key).map(str::to_owned)),
                None => file.map(|file| file.to_toml()),
            };
            ChangeRow {
                object: target.clone(),
                key: key.clone(),
                file,
                value,
                is_default: entry.value == Value::Unset,
                waits: entry.outside && own_is_missing,
                who: entry.who,
                ago_ms: millis(now.since(entry.at)),
                deadline_ms: entry.deadline.filter(|deadline| *deadline > now).map(|end| millis(end.since(now))),
            }
        };
        self.basis.changes.iter().map(row).collect()
    }

    /// Returns the journal, the oldest entry first.
    pub fn operation_rows(&self, now: Instant) -> Vec<OperationRow> {
        let row = |note: &super::journal::Note| OperationRow {
            ago_ms: millis(now.since(note.at)),
            what: note.what.clone(),
            who: note.who,
        };
        self.journal.notes().map(row).collect()
    }

    /// Returns the next line for the log: who changed what.
    pub fn poll_line(&mut self) -> Option<String> {
        self.journal.poll_line()
    }

    /// Returns the file as it was read.
    pub fn file_row(&self) -> Option<FileRow> {
        self.basis.file.as_ref().map(|file| FileRow { origin: file.origin().into(), text: file.text().into() })
    }

    /// Returns the pools, in the order of the settings.
    pub fn pool_rows(&self, engine: &Engine, now: Instant) -> Vec<PoolRow> {
        let servers = engine.servers(now);
        let pools = (0..).map(PoolId).zip(&self.basis.in_force.pools);
        let mut by_pool: HashMap<&str, Vec<&ServerRow>> = HashMap::new();
        for row in servers.iter().filter(|row| !row.removed) {
            by_pool.entry(&row.pool).or_default().push(row);
        }
        let mut keys: HashMap<String, _> =
            listing::pools(&self.basis.in_force).into_iter().map(|pool| (pool.name.clone(), pool.to_json())).collect();
        let row = |(id, pool): (PoolId, &crate::balance::PoolSettings)| {
            let services = self.basis.in_force.services.iter();
            let services = services.filter(|own| own.pool == id || own.last_resort == LastResort::Pool(id));
            let own = || by_pool.get(&*pool.name).into_iter().flatten().copied();
            let count = |fits: &dyn Fn(&ServerRow) -> bool| own().filter(|row| fits(row)).count() as u64;
            let enabled = |row: &ServerRow| row.admin == Admin::Enabled;
            PoolRow {
                pool: pool.name.clone(),
                services: services.map(|service| service.name.clone()).collect(),
                servers: own().count() as u64,
                usable: count(&|row| enabled(row) && row.health != Health::Down && row.weight > 0),
                draining: count(&|row| row.admin == Admin::Draining),
                disabled: count(&|row| row.admin == Admin::Disabled),
                down: count(&|row| enabled(row) && row.health == Health::Down),
                flows: own().map(|row| row.flows).sum(),
                keys: keys.remove(&pool.name).unwrap_or_default(),
            }
        };
        pools.map(row).collect()
    }

    /// Returns the latest events after a number, the oldest first; without a number all that are kept.
    pub fn event_rows(&self, now: Instant, after: Option<u64>) -> Vec<EventRow> {
        self.events.rows(now, after)
    }

    /// Sets the reported load of a server.
    ///
    /// # Errors
    /// Why it is refused; nothing changes then.
    pub fn load(
        &mut self,
        engine: &mut Engine,
        now: Instant,
        who: Who,
        (name, load, maintenance): (&str, u8, bool),
    ) -> Result<ChangedRow, String> {
        let id = engine.server_named(name).map_err(|error| error.to_string())?;
        let target = Target::new(Kind::Server, engine.server_name(id));
        let keys = listing::find(&self.basis.in_force, &target).map(|object| object.to_json()).unwrap_or_default();
        let standing = |engine: &Engine| {
            let row = engine.server_row(now, id);
            let said = row.load.map_or_else(|| "none".into(), |load| format!("{load} %"));
            let mut keys = keys.clone();
            keys.insert("load".into(), row.load.into());
            keys.insert("maintenance".into(), row.maintenance.into());
            (said + if row.maintenance { ", maintenance" } else { "" }, keys)
        };
        let (was, before) = standing(engine);
        engine.apply(now, Change::Load { server: id, load, maintenance }).map_err(|refused| refused.to_string())?;
        let (is, after) = standing(engine);
        let text = format!("{target}: load {was} -> {is} (for a minute)");
        // A server that reports itself does so all the time: no entry in the history for the same load again.
        if before != after {
            self.note(now, who, &text);
        }
        let (before, after) = (Some(before), Some(after));
        Ok(ChangedRow { object: target, text, changed: true, before, after, flows: None })
    }

    /// Takes note of an event of the engine: draining ends.
    pub fn saw(&mut self, event: &Event, now: Instant) {
        self.events.saw(event, now);
        match event {
            Event::ServerDrained { server } => {
                if let Some(drain) = self.drains.get_mut(server) {
                    drain.ended.get_or_insert(now);
                }
            }
            Event::DrainDeadline { server, flows } => {
                if let Some(drain) = self.drains.get_mut(server) {
                    drain.cut = u64::from(*flows);
                }
            }
            _ => return,
        }
        self.journal.note_logged(now, None, event.to_string());
    }

    /// Returns how far the draining or removal of a server is.
    ///
    /// # Errors
    /// If there is no such server, and none was removed.
    pub fn drain_row(&self, engine: &Engine, now: Instant, name: &str) -> Result<DrainRow, String> {
        let mut known = engine.servers(now).into_iter().filter(|row| !row.removed);
        let known = known.find(|row| format!("{}/{}", row.pool, row.server) == name);
        let drain: Option<&Drain> = self.drains.get(name);
        let for_ms = drain.map(|drain| millis(drain.ended.unwrap_or(now).since(drain.began)));
        let cut = drain.map_or(0, |drain| drain.cut);
        let (state, flows, deadline_ms) = match known {
            Some(row) if row.admin != Admin::Draining => (DrainState::NotDraining, row.flows, None),
            Some(row) if row.flows > 0 => (DrainState::Draining, row.flows, row.drain_deadline_ms),
            Some(_) if cut > 0 => (DrainState::Deadline, 0, None),
            Some(_) => (DrainState::Drained, 0, None),
            None => match engine.flows_of_removed(name) {
                0 if drain.is_none() => {
                    return Err(engine.server_named(name).map_or_else(|e| e.to_string(), |_| String::new()));
                }
                0 => (DrainState::Removed, 0, None),
                flows => (DrainState::Removing, flows, None),
            },
        };
        Ok(DrainRow { server: name.into(), state, flows, for_ms, deadline_ms, cut, ended: 0 })
    }
}
