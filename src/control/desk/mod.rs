//! The desk of the operators: takes their requests, makes the settings in force from the file and the changes, and keeps
//! a journal.
//!
//! ```text
//!  Ask --prepare--> Prepared --settings? the driver puts them in force--> commit --> rows, journal
//!                      `---- weight, state, switch of a rule: at once ---->
//! ```
//!
//! Sans-IO. What needs another plan is an [`Order`] for the driver, one at a time; the rest is done at once. It must not
//! know sockets, clocks or how a plan is put in force.

mod journal;
mod prepare;
mod rows;
#[cfg(test)]
mod tests;

use super::protocol::ChangedRow;
use crate::balance::Admin;
use crate::config::Settings;
use crate::config::changes::{Changes, Dropped, File, Target, Who};
use crate::engine::{Change, Engine};
use crate::time::{Duration, Instant};
use journal::Journal;
use prepare::{Prepared, Quick};
use std::collections::BTreeMap;

/// A request of an operator that changes something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ask {
    /// Changes keys of an object; none is the default of the key.
    Set {
        /// The object.
        target: Target,
        /// The keys with their values in the notation of the file.
        values: BTreeMap<String, Option<String>>,
        /// When draining: after what time the remaining flows are ended.
        deadline: Option<Duration>,
    },
    /// Adds a server.
    Add {
        /// The server, with its pool.
        target: Target,
        /// Its keys in the notation of the file.
        values: BTreeMap<String, String>,
    },
    /// Removes a server.
    Remove {
        /// The server.
        target: Target,
        /// Whether its flows end at once.
        now: bool,
    },
    /// Goes back to the file.
    Drop {
        /// The object; none for all.
        target: Option<Target>,
        /// Its key; none for all.
        key: Option<String>,
    },
}

/// What became of a request.
#[derive(Debug, Clone, PartialEq)]
pub enum Reply {
    /// It is done.
    Done(Vec<ChangedRow>),
    /// It is done once the driver has carried out the order of this number.
    Ordered(u64),
    /// Another order or a reload is under way: ask again after it.
    Busy,
}

/// Settings that a driver has to put in force.
#[derive(Debug)]
pub struct Order {
    number: u64,
    who: Who,
    settings: Settings,
    prepared: Prepared,
}

impl Order {
    /// Returns the settings to put in force.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Returns whether removed servers go at once, with their flows.
    pub fn at_once(&self) -> bool {
        self.prepared.at_once
    }
}

/// How a server is being drained or removed.
#[derive(Debug, Clone, Copy)]
struct Drain {
    began: Instant,
    ended: Option<Instant>,
    /// Flows that were ended at the deadline.
    cut: u64,
}

/// The desk of one gateway.
#[derive(Debug)]
pub struct Desk {
    /// None where the settings come from no file.
    file: Option<File>,
    in_force: Settings,
    changes: Changes,
    journal: Journal,
    /// By name with the pool.
    drains: BTreeMap<String, Drain>,
    /// What the driver has not fetched yet.
    order: Option<Order>,
    /// The number of the last order.
    orders: u64,
    /// The number of the order that is being carried out or waits to be.
    under_way: Option<u64>,
    /// Whether a newer file is being put in force.
    reloading: bool,
    /// What became of orders that nobody has asked about yet; a few, as their sessions may have ended.
    outcomes: Vec<(u64, Result<Vec<ChangedRow>, String>)>,
}

/// Most outcomes that are kept: one for each connection.
const MOST_OUTCOMES: usize = 16;

/// From how many on removed servers are forgotten after [`FORGOTTEN`].
const MOST_DRAINS: usize = 1024;
const FORGOTTEN: Duration = Duration::from_secs(3600);

impl Desk {
    /// Makes the desk of a gateway with these settings in force: those of the file, but for the seed.
    pub fn new(file: Option<File>, in_force: Settings) -> Self {
        Desk {
            file,
            in_force,
            changes: Changes::default(),
            journal: Journal::default(),
            drains: BTreeMap::new(),
            order: None,
            orders: 0,
            under_way: None,
            reloading: false,
            outcomes: Vec::new(),
        }
    }

    /// Returns the settings in force: those of the file with the changes.
    pub fn in_force(&self) -> &Settings {
        &self.in_force
    }

    /// Returns what differs from the file.
    pub fn changes(&self) -> &Changes {
        &self.changes
    }

    /// Returns the file.
    pub fn file(&self) -> Option<&File> {
        self.file.as_ref()
    }

    /// Returns whether an order or a reload is under way: other requests have to wait, as it would overtake them.
    pub fn is_busy(&self) -> bool {
        self.under_way.is_some() || self.reloading
    }

    /// Does what an operator asks for, or orders it.
    ///
    /// # Errors
    /// Why it is refused, and what to do; nothing changes then.
    pub fn ask(&mut self, engine: &mut Engine, now: Instant, who: Who, ask: &Ask) -> Result<Reply, String> {
        if self.is_busy() {
            return Ok(Reply::Busy);
        }
        let (prepared, settings) = self.prepare(now, who, ask)?;
        let Some(settings) = settings else {
            return Ok(Reply::Done(self.commit(engine, now, who, prepared)));
        };
        self.orders += 1;
        self.under_way = Some(self.orders);
        self.order = Some(Order { number: self.orders, who, settings, prepared });
        Ok(Reply::Ordered(self.orders))
    }

    /// Returns what the driver has to put in force, once; it then calls [`Desk::carried_out`].
    pub fn poll_order(&mut self) -> Option<Order> {
        self.order.take()
    }

    /// Takes the end of an order: its settings are in force, or nothing was changed for the reason given.
    pub fn carried_out(&mut self, engine: &mut Engine, now: Instant, order: Order, result: Result<(), String>) {
        let Order { number, who, settings, prepared } = order;
        self.under_way = None;
        let outcome = result.map(|()| {
            self.in_force = settings;
            self.commit(engine, now, who, prepared)
        });
        if self.outcomes.len() >= MOST_OUTCOMES {
            drop(self.outcomes.remove(0));
        }
        self.outcomes.push((number, outcome));
    }

    /// Returns what became of an order; none while it is under way.
    pub fn take_outcome(&mut self, number: u64) -> Option<Result<Vec<ChangedRow>, String>> {
        if let Some(place) = self.outcomes.iter().position(|(of, _)| *of == number) {
            return Some(self.outcomes.remove(place).1);
        }
        let lost = self.under_way != Some(number);
        lost.then(|| Err("the outcome is no longer known: see `eqctl history`".into()))
    }

    /// Begins to put a newer file in force: makes the settings for it, with the changes that still apply. Until the end,
    /// [`Desk::reloaded`] or [`Desk::reload_failed`], requests have to wait; none if another order is under way.
    pub fn begin_reload(&mut self, file: &File) -> Option<Reloaded> {
        if self.is_busy() {
            return None;
        }
        self.reloading = true;
        Some(self.settings_for(file))
    }

    /// Makes the settings for a newer file, with the changes that still apply; changes nothing.
    pub fn settings_for(&self, file: &File) -> Reloaded {
        let mut changes = self.changes.clone();
        let old = self.file.as_ref().map_or(&self.in_force, File::settings);
        let mut dropped = changes.reconcile(old, file.settings());
        let (settings, clashing) = changes.settle(file);
        dropped.extend(clashing);
        Reloaded { file: file.clone(), settings: settings.with_seed(self.in_force.seed), changes, dropped }
    }

    /// Takes note that the settings for a newer file are in force.
    pub fn reloaded(&mut self, engine: &mut Engine, now: Instant, who: Option<Who>, reloaded: Reloaded) {
        let Reloaded { file, settings, changes, dropped } = reloaded;
        self.reloading = false;
        (self.file, self.in_force, self.changes) = (Some(file), settings, changes);
        for dropped in &dropped {
            self.journal.note(now, who, &dropped.to_string());
        }
        self.assert(engine, now);
    }

    /// Takes note that a reload has changed nothing.
    pub fn reload_failed(&mut self) {
        self.reloading = false;
    }

    /// Brings the engine's weights, states and switches in line with the settings in force.
    fn assert(&mut self, engine: &mut Engine, now: Instant) {
        let mut quick = Vec::new();
        for row in engine.servers(now) {
            let name = format!("{}/{}", row.pool, row.server);
            let Ok(place) = crate::config::find_server(&self.in_force, &name) else { continue };
            let own = &self.in_force.servers[place];
            if own.weight != row.weight {
                quick.push(Quick::Weight { server: name.clone(), weight: own.weight });
            }
            if own.admin != row.admin {
                quick.push(Quick::Admin { server: name, admin: own.admin, deadline: None });
            }
        }
        for row in engine.rules() {
            let found = self.in_force.policy.rules.iter().find(|rule| rule.name == row.rule);
            if let Some(rule) = found.filter(|rule| rule.enabled != row.enabled) {
                quick.push(Quick::Rule { rule: row.rule, on: rule.enabled });
            }
        }
        quick.iter().for_each(|change| self.carry_out(engine, now, change));
    }

    /// Makes a prepared change the one in force, and returns its rows.
    fn commit(&mut self, engine: &mut Engine, now: Instant, who: Who, prepared: Prepared) -> Vec<ChangedRow> {
        self.changes = prepared.changes;
        prepared.quick.iter().for_each(|change| self.carry_out(engine, now, change));
        if self.drains.len() >= MOST_DRAINS {
            self.drains.retain(|name, drain| now.since(drain.began) < FORGOTTEN || engine.server_named(name).is_ok());
        }
        for server in prepared.removed {
            self.drains.insert(server, Drain { began: now, ended: None, cut: 0 });
        }
        let mut rows = prepared.rows;
        for row in rows.iter_mut().filter(|row| row.changed) {
            self.journal.note(now, Some(who), &row.text);
            row.flows = rows::flows_left(engine, row);
        }
        rows
    }

    /// Carries out a change that needs no other plan, in the settings and in the engine.
    fn carry_out(&mut self, engine: &mut Engine, now: Instant, change: &Quick) {
        let settings = &mut self.in_force;
        let change = match change {
            Quick::Weight { server: name, weight } => {
                if let Ok(place) = crate::config::find_server(settings, name) {
                    settings.servers[place].weight = *weight;
                }
                engine.server_named(name).ok().map(|server| Change::Weight { server, weight: *weight })
            }
            Quick::Admin { server: name, admin, deadline } => {
                if let Ok(place) = crate::config::find_server(settings, name) {
                    settings.servers[place].admin = *admin;
                }
                match admin {
                    Admin::Draining => drop(self.drains.insert(name.clone(), Drain { began: now, ended: None, cut: 0 })),
                    Admin::Enabled | Admin::Disabled => drop(self.drains.remove(name)),
                }
                let found = engine.server_named(name).ok();
                found.map(|server| Change::Admin { server, admin: *admin, deadline: *deadline })
            }
            Quick::Rule { rule: name, on } => {
                if let Some(rule) = settings.policy.rules.iter_mut().find(|rule| rule.name == *name) {
                    rule.enabled = *on;
                }
                engine.find_rule(name).map(|rule| Change::Rule { rule, on: *on })
            }
        };
        let done = change.is_some_and(|change| engine.apply(now, change).is_ok());
        debug_assert!(done, "a server or rule of the settings in force is unknown to the engine");
    }
}

/// What a newer file makes of the changes.
#[derive(Debug, Clone)]
pub struct Reloaded {
    file: File,
    settings: Settings,
    changes: Changes,
    dropped: Vec<Dropped>,
}

impl Reloaded {
    /// Returns the settings to put in force.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Returns the changes that no longer apply.
    pub fn dropped(&self) -> &[Dropped] {
        &self.dropped
    }
}
