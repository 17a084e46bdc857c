//! The ledger of what operators changed: takes their requests, makes the settings in force from the file and the changes,
//! and keeps a journal.
//!
//! ```text
//!  Ask --draft--> weight, state, switch of a rule --------------------------> at once ---------> rows, journal
//!         `-----> Order --resolve (in any thread)--> Resolved --the driver puts its settings in force--^
//! ```
//!
//! Sans-IO. Only one order is under way at a time, and none during a reload: other requests wait. It must not know
//! sockets, clocks or how settings are put in force.

mod basis;
mod draft;
mod events;
mod journal;
mod rows;
mod saved;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_model;

pub use basis::{Basis, Merged};
pub use saved::{Kept, LedgerCopy};

use super::protocol::ChangedRow;
use crate::balance::Admin;
use crate::balance::ServerSettings;
use crate::config::changes::{Changes, File, Target, Who};
use crate::config::{Settings, find_server};
use crate::engine::{Change, Engine};
use crate::ids::ServerId;
use crate::time::{Duration, Instant};
use basis::{FEW, Places, Prepared, Quick};
use draft::Draft;
use events::Events;
use journal::Journal;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// A request of an operator that changes something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ask {
    /// Changes keys of an object; none is the default of the key.
    Set {
        /// The object.
        target: Target,
        /// The keys with their values in the notation of the file.
        values: BTreeMap<String, Option<String>>,
        /// When draining: when the remaining flows are ended.
        deadline: Deadline,
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

/// When the remaining flows of a draining server are ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Deadline {
    /// As it is; never for a server that does not drain yet.
    #[default]
    Keep,
    /// Never.
    Never,
    /// After this time.
    After(Duration),
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

/// A request that needs other settings, checked as a file is: by [`Order::resolve`], in any thread.
#[derive(Debug)]
pub struct Order {
    number: u64,
    who: Who,
    draft: Draft,
    basis: Basis,
}

/// A checked order.
#[derive(Debug)]
pub struct Resolved {
    who: Who,
    prepared: Prepared,
    settings: Option<Arc<Settings>>,
}

impl Order {
    /// Returns its number.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Returns whether removed servers go at once, with their flows.
    pub fn at_once(&self) -> bool {
        self.draft.at_once
    }

    /// Makes the settings and checks them: for 10,000 servers this takes longer than a packet may wait.
    ///
    /// # Errors
    /// Why they would be wrong, for the operator.
    pub fn resolve(self) -> Result<Resolved, String> {
        let (prepared, settings) = self.basis.resolve(self.draft)?;
        Ok(Resolved { who: self.who, prepared, settings: settings.map(Arc::new) })
    }
}

impl Resolved {
    /// Returns the settings to put in force; none if nothing changes.
    pub fn settings(&self) -> Option<&Arc<Settings>> {
        self.settings.as_ref()
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

/// What is being carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum UnderWay {
    Nothing,
    Order(u64),
    Reload,
}

/// The ledger of one gateway.
#[derive(Debug)]
pub struct Ledger {
    basis: Basis,
    journal: Journal,
    events: Events,
    /// How often the changes have become others.
    edits: u64,
    /// By name with the pool.
    drains: BTreeMap<String, Drain>,
    /// What the driver has not fetched yet.
    order: Option<Order>,
    /// The number of the last order.
    orders: u64,
    under_way: UnderWay,
    /// What became of orders that nobody has asked about yet; a few, as their sessions may have ended.
    outcomes: Vec<(u64, Result<Vec<ChangedRow>, String>)>,
}

/// Most outcomes that are kept: one for each connection.
const MOST_OUTCOMES: usize = 16;
/// From how many on removed servers are forgotten after [`FORGOTTEN`].
const MOST_DRAINS: usize = 1024;
const FORGOTTEN: Duration = Duration::from_secs(3600);

impl Ledger {
    /// Makes the ledger of a gateway with these settings in force: those of the file, but for the seed.
    pub fn new(file: Option<File>, in_force: Settings) -> Self {
        Ledger {
            basis: Basis { file: file.map(Arc::new), in_force: Arc::new(in_force), changes: Arc::default() },
            journal: Journal::default(),
            events: Events::default(),
            edits: 0,
            drains: BTreeMap::new(),
            order: None,
            orders: 0,
            under_way: UnderWay::Nothing,
            outcomes: Vec::new(),
        }
    }

    /// Returns the settings in force: those of the file with the changes.
    pub fn in_force(&self) -> &Arc<Settings> {
        &self.basis.in_force
    }

    /// Returns what differs from the file.
    pub fn changes(&self) -> &Changes {
        &self.basis.changes
    }

    /// Returns a number that is another one whenever the changes have become others.
    pub fn edits(&self) -> u64 {
        self.edits
    }

    /// Returns the file.
    pub fn file(&self) -> Option<&File> {
        self.basis.file.as_deref()
    }

    /// Returns whether an order or a reload is under way: other requests have to wait, as they would overtake it.
    pub fn is_busy(&self) -> bool {
        self.under_way != UnderWay::Nothing
    }

    /// Does what an operator asks for, or orders it.
    ///
    /// # Errors
    /// Why it is refused, and what to do; nothing changes then.
    pub fn ask(&mut self, engine: &mut Engine, now: Instant, who: Who, ask: &Ask) -> Result<Reply, String> {
        if self.is_busy() {
            return Ok(Reply::Busy);
        }
        let draft = self.basis.draft(now, who, ask)?;
        if let Some(prepared) = self.basis.at_once(&draft)? {
            return Ok(Reply::Done(self.commit(engine, now, who, prepared)));
        }
        self.orders += 1;
        self.under_way = UnderWay::Order(self.orders);
        self.order = Some(Order { number: self.orders, who, draft, basis: self.basis.clone() });
        Ok(Reply::Ordered(self.orders))
    }

    /// Notes what has become of the pair; the log has it already.
    pub fn saw_pair(&mut self, now: Instant, what: String) {
        self.events.note(now, None, &what);
        self.journal.note_logged(now, None, what);
    }

    /// Notes what a reload has changed, or why it has changed nothing; the log has it already.
    pub fn saw_reload(&mut self, now: Instant, who: Option<Who>, what: String) {
        self.events.note(now, who, &what);
        self.journal.note_logged(now, who, what);
    }

    /// Returns whether there is an order for the driver.
    pub fn has_order(&self) -> bool {
        self.order.is_some()
    }

    /// Returns what the driver has to resolve and put in force, once; it then calls [`Ledger::carried_out`].
    pub fn poll_order(&mut self) -> Option<Order> {
        self.order.take()
    }

    /// Takes the end of an order: it was resolved and, if it has settings, these are in force ([`Ledger::follow`]); or
    /// nothing was changed for the reason given.
    pub fn carried_out(&mut self, engine: &mut Engine, now: Instant, number: u64, result: Result<Resolved, String>) {
        self.under_way = UnderWay::Nothing;
        let outcome = result.map(|resolved| self.commit(engine, now, resolved.who, resolved.prepared));
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
        let lost = self.under_way != UnderWay::Order(number);
        lost.then(|| Err("the outcome is no longer known: see `eqctl history`".into()))
    }

    /// Begins to put a newer file in force: [`Basis::merge`] makes the settings for it. Until the end,
    /// [`Ledger::reloaded`], requests have to wait; none if another order is under way.
    pub fn begin_reload(&mut self) -> Option<Basis> {
        if self.is_busy() {
            return None;
        }
        self.under_way = UnderWay::Reload;
        Some(self.basis.clone())
    }

    /// Takes the end of a reload: a newer file is in force with these settings, or nothing was changed.
    pub fn reloaded(&mut self, engine: &mut Engine, now: Instant, merged: Option<(Merged, Arc<Settings>)>) {
        if let Some((merged, settings)) = merged {
            self.take_file(now, merged, settings);
            self.assert(engine, now);
        }
        self.under_way = UnderWay::Nothing;
    }

    /// Takes a newer file that is in force with these settings, and returns what it replaces: dropping that takes a while.
    /// [`Ledger::assert_part`] is to follow, and then [`Ledger::reloaded`] with none.
    pub fn take_file(&mut self, now: Instant, merged: Merged, settings: Arc<Settings>) -> Basis {
        let Merged { file, changes, dropped, .. } = merged;
        self.edits += u64::from(!dropped.is_empty());
        let basis = Basis { file: Some(file), in_force: settings, changes: Arc::new(changes) };
        for dropped in &dropped {
            self.journal.note_logged(now, None, dropped.to_string());
            self.events.note(now, None, &dropped.to_string());
        }
        std::mem::replace(&mut self.basis, basis)
    }

    /// Takes note of what an operator did that is no change of the configuration: it goes to the log and the history.
    pub fn note(&mut self, now: Instant, who: Who, what: &str) {
        self.journal.note(now, Some(who), what);
        self.events.note(now, Some(who), what);
    }

    /// Takes note of the settings that the driver has put in force, those of an order, and returns those before: dropping them
    /// takes a while.
    pub fn follow(&mut self, settings: &Arc<Settings>) -> Arc<Settings> {
        std::mem::replace(&mut self.basis.in_force, Arc::clone(settings))
    }

    /// Brings the engine's weights, states and switches in line with the settings in force.
    fn assert(&mut self, engine: &mut Engine, now: Instant) {
        let mut from = Some(0);
        while let Some(place) = from {
            from = self.assert_part(engine, now, place, usize::MAX);
        }
    }

    /// The same for at most `most` servers, from a place on; returns where to continue, none at the end.
    pub fn assert_part(&mut self, engine: &mut Engine, now: Instant, from: usize, most: usize) -> Option<usize> {
        let settings = Arc::clone(&self.basis.in_force);
        let mut others = None;
        let mut quick = Vec::new();
        let mut ids = HashMap::new();
        let mut place = from;
        while let Some(is) = engine.set_by_operators(place).filter(|_| place - from < most) {
            let at_its_place = settings
                .servers
                .get(place)
                .filter(|own| own.name == is.server && settings.pools[own.pool.0 as usize].name == is.pool);
            place += 1;
            // The engine may have been made of settings in another order.
            let own =
                at_its_place.or_else(|| others.get_or_insert_with(|| Places::new(&settings)).of(is.pool, is.server));
            let Some(own) = own else { continue };
            let drains = own.admin == Admin::Draining || is.has_deadline;
            if own.weight == is.weight && own.admin == is.admin && !drains {
                continue;
            }
            let server = format!("{}/{}", is.pool, is.server);
            ids.insert(server.clone(), is.id);
            if own.weight != is.weight {
                quick.push(Quick::Weight { server: server.clone(), weight: own.weight });
            }
            // One that has passed while no gateway ran ends the flows at once.
            let deadline = self.basis.deadline(&server).filter(|_| is.flows > 0);
            let left = deadline.map(|deadline| deadline.since(now));
            if own.admin != is.admin || left.is_some() != is.has_deadline {
                quick.push(Quick::Admin { server, admin: own.admin, deadline: left });
            }
        }
        let is_end = engine.set_by_operators(place).is_none();
        if is_end {
            let wanted: HashMap<&str, bool> =
                settings.policy.rules.iter().map(|rule| (rule.name.as_str(), rule.enabled)).collect();
            for row in engine.rules() {
                if let Some(on) = wanted.get(row.rule.as_str()).copied().filter(|on| *on != row.enabled) {
                    quick.push(Quick::Rule { rule: row.rule, on });
                }
            }
        }
        // The settings say it already.
        quick.iter().for_each(|change| self.carry_out_one(engine, now, change, Some(&ids)));
        (!is_end).then_some(place)
    }

    /// Makes a prepared change the one in force, and returns its rows.
    fn commit(&mut self, engine: &mut Engine, now: Instant, who: Who, prepared: Prepared) -> Vec<ChangedRow> {
        self.edits += 1;
        self.basis.changes = Arc::new(prepared.changes);
        self.carry_out(engine, now, &prepared.quick);
        if self.drains.len() >= MOST_DRAINS {
            self.drains.retain(|name, drain| now.since(drain.began) < FORGOTTEN || engine.server_named(name).is_ok());
        }
        for server in prepared.removed {
            self.drains.insert(server, Drain { began: now, ended: None, cut: 0 });
        }
        let mut rows = prepared.rows;
        for row in rows.iter_mut().filter(|row| row.changed) {
            self.journal.note(now, Some(who), &row.text);
            self.events.note(now, Some(who), &row.text);
            row.flows = rows::flows_left(engine, row);
        }
        rows
    }

    /// Carries out changes that need no other plan, in the settings and in the engine.
    fn carry_out(&mut self, engine: &mut Engine, now: Instant, changes: &[Quick]) {
        // Many would take too long one by one.
        let ids = (changes.len() > FEW).then(|| engine.server_ids());
        let places: Option<HashMap<String, usize>> = (changes.len() > FEW).then(|| {
            let settings = &self.basis.in_force;
            let name =
                |server: &ServerSettings| format!("{}/{}", settings.pools[server.pool.0 as usize].name, server.name);
            settings.servers.iter().map(name).zip(0..).collect()
        });
        for change in changes {
            change.apply_to(Arc::make_mut(&mut self.basis.in_force), |settings, name| match &places {
                Some(places) => places.get(name).copied(),
                None => find_server(settings, name).ok(),
            });
            self.carry_out_one(engine, now, change, ids.as_ref());
        }
    }

    fn carry_out_one(
        &mut self,
        engine: &mut Engine,
        now: Instant,
        change: &Quick,
        ids: Option<&HashMap<String, ServerId>>,
    ) {
        let find = |engine: &Engine, name: &str| match ids {
            Some(ids) => ids.get(name).copied(),
            None => engine.server_named(name).ok(),
        };
        let change = match change {
            Quick::Weight { server, weight } => {
                find(engine, server).map(|server| Change::Weight { server, weight: *weight })
            }
            Quick::Admin { server: name, admin, deadline } => {
                let drain = Drain { began: now, ended: None, cut: 0 };
                match admin {
                    Admin::Draining => drop(self.drains.insert(name.clone(), drain)),
                    Admin::Enabled | Admin::Disabled => drop(self.drains.remove(name)),
                }
                find(engine, name).map(|server| Change::Admin { server, admin: *admin, deadline: *deadline })
            }
            Quick::Rule { rule, on } => engine.find_rule(rule).map(|rule| Change::Rule { rule, on: *on }),
        };
        let done = change.is_some_and(|change| engine.apply(now, change).is_ok());
        debug_assert!(done, "a server or rule of the settings in force is unknown to the engine");
    }
}
