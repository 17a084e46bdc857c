//! Another configuration while the gateway runs: read and prepared aside, put in force between two packets, then followed
//! by the system in portions.
//!
//! ```text
//!  SIGHUP, eqctl reload --> desk --> worker: read, check, compile --> follow the plan --> routes and rules, in portions
//!                                                                          |
//!                            flows of what is retired end <-- looked for --+--> routes of what is retired are removed
//! ```
//!
//! It holds no policy: what a change means for flows is the engine's to say.

mod needs;
mod notes;
mod retired;
mod surroundings;
mod telling;
mod worker;

pub(super) use surroundings::Surroundings;
pub(super) use worker::{Job, Outcome, Ready, Source, Worker};
pub use worker::{MOST_CONFIG, read};

use super::setup::Changes;
use super::sources::Readable;
use crate::config::Settings;
use crate::config::changes::Who;
use crate::config::outside::LeftOut;
use crate::control::{About, Desk, Ledger, Merged, ReloadOrder, ReloadRow, Resolved, Ticket};
use crate::engine::{Engine, Removed};
use crate::sources::{Found, From, SourceSettings};
use crate::time::Instant;
use needs::Needs;
use retired::Retired;
use std::sync::{Arc, Mutex, PoisonError};
use telling::Telling;
use worker::Discarded;

/// Servers whose weight and state are compared before packets get their turn.
const COMPARED: usize = 1024;

/// Whoever asked for a reload.
#[derive(Debug, Clone, Copy)]
enum Asker {
    Signal,
    Session(Ticket, Option<Who>),
    /// An operator, for the change of this number in the ledger.
    Operator(u64),
    /// Sources of servers: see [`Reloads::found`].
    Outside,
}

impl Asker {
    /// Returns whether somebody waits for the end.
    fn is_waited_for(self) -> bool {
        !matches!(self, Asker::Outside)
    }
}

/// What is to be noted in the ledger in the end: a newer file, or the change of an operator.
type OfLedger = (Option<Box<Merged>>, Option<Box<Resolved>>);

/// What is under way.
#[derive(Debug)]
enum Step {
    /// Nothing.
    Rest,
    /// The worker prepares the plan.
    Preparing(Asker, ReloadOrder),
    /// The engine gets ready for it.
    GettingReady(Asker, ReloadOrder, Box<Ready>, OfLedger),
    /// The programs know its servers: it can be put in force. With what they had no room for.
    Entering(Asker, ReloadOrder, Box<Ready>, OfLedger, Option<String>),
    /// The plan is in force, and the system follows.
    Following(Box<Following>),
    /// It is done; its changes are written to the log.
    Telling(Telling),
    /// The system gives up what is retired.
    Retiring(Changes),
}

/// What is left to do once a plan is in force.
#[derive(Debug)]
struct Following {
    asker: Asker,
    /// What the system has to change; none if no other plan was needed.
    changes: Option<Changes>,
    rows: Vec<ReloadRow>,
    resolved: Option<Box<Resolved>>,
    /// Where the ledger goes on to compare weights and states with the engine, if a newer file is in force.
    compared: Option<usize>,
    /// Dropped elsewhere in the end, when nobody here has parts of it any more.
    replaced: Discarded,
}

/// Reloads, one at a time. The settings in force are in the ledger.
#[derive(Debug)]
pub(super) struct Reloads {
    worker: Option<Worker>,
    desk: Arc<Mutex<Desk>>,
    /// Whether a signal has asked since the last reload began.
    signalled: bool,
    /// Servers from outside, and whether they are others since the last reload began.
    found: Arc<Found>,
    found_others: bool,
    /// What became of them.
    outcome: Option<Result<LeftOut, String>>,
    step: Step,
    retired: Retired,
    /// What the system needs for the plan in force.
    needs: Option<Needs>,
    /// What files of servers can be read.
    readable: Readable,
}

impl Reloads {
    pub(super) fn new() -> Reloads {
        Reloads {
            worker: None,
            desk: Arc::default(),
            signalled: false,
            found: Arc::default(),
            found_others: false,
            outcome: None,
            step: Step::Rest,
            retired: Retired::default(),
            needs: None,
            readable: Readable::default(),
        }
    }

    /// Takes the settings at the start, and the servers from outside that they have.
    pub(super) fn start_with(&mut self, found: Found, settings: &Settings) {
        (self.found, self.needs) = (Arc::new(found), Some(Needs::of(settings)));
    }

    /// Begins to look for flows of what the configuration has no longer, if there may be any.
    pub(super) fn look_for_retired(&mut self, engine: &Engine, now: Instant) {
        self.retired.begin_soon(engine, now);
    }

    /// Takes note of what a confined process can read.
    pub(super) fn confine(&mut self, readable: Readable) {
        self.readable = readable;
    }

    /// Returns a row for each new file of servers that cannot be read.
    fn unreadable(&self, before: &Settings, settings: &Settings) -> Vec<ReloadRow> {
        let new = settings.sources.iter().filter(|source| !before.sources.contains(source));
        let row = |source: &SourceSettings| {
            let From::File(path) = &source.from else { return None };
            let why = self.readable.lacks(path)?;
            Some(ReloadRow::problem(format!("pool {}, servers from {}: {why}", source.pool, path.display())))
        };
        new.filter_map(row).collect()
    }

    /// Makes reloads possible.
    pub(super) fn use_worker(&mut self, worker: Worker) {
        self.worker = Some(worker);
    }

    /// Returns where control sessions ask.
    pub(super) fn desk(&self) -> &Arc<Mutex<Desk>> {
        &self.desk
    }

    /// Notes that SIGHUP has arrived.
    pub(super) fn signalled(&mut self) {
        self.signalled = true;
    }

    /// Returns whether SIGHUP has arrived since the last reload began.
    pub(super) fn is_signalled(&self) -> bool {
        self.signalled
    }

    /// Returns whether a reload is asked for and none is under way.
    pub(super) fn is_asked(&self, ledger: &Ledger) -> bool {
        let asked = || self.signalled || self.found_others || ledger.has_order() || lock(&self.desk).has_orders();
        matches!(self.step, Step::Rest) && asked()
    }

    /// Puts other servers from outside in force.
    pub(super) fn found(&mut self, found: Found) {
        (self.found, self.found_others) = (Arc::new(found), true);
    }

    /// Returns whether nothing is under way, and nothing waits for its end.
    pub(super) fn is_idle(&self) -> bool {
        matches!(self.step, Step::Rest)
    }

    /// Returns, once, what became of servers from outside: those that cannot be used, or why none can.
    pub(super) fn take_outcome(&mut self) -> Option<Result<LeftOut, String>> {
        self.outcome.take()
    }

    /// Returns whether a reload that somebody asked for is under way: not what follows when it is answered.
    pub(super) fn is_under_way(&self) -> bool {
        match &self.step {
            Step::Rest | Step::Retiring(_) => false,
            Step::Preparing(asker, ..) | Step::GettingReady(asker, ..) | Step::Entering(asker, ..) => {
                asker.is_waited_for()
            }
            Step::Following(following) => following.asker.is_waited_for(),
            Step::Telling(telling) => telling.asker.is_waited_for(),
        }
    }

    /// Returns when it has work to do without an event.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.retired.poll_timeout()
    }

    /// Does one step of what is to be done; returns true if there is more to do at once.
    pub(super) fn work(&mut self, of: &mut Surroundings<'_>, now: Instant) -> bool {
        match std::mem::replace(&mut self.step, Step::Rest) {
            Step::Rest => self.begin(of, now),
            Step::Preparing(asker, order) => match self.worker.as_ref().and_then(Worker::take) {
                None => self.step = Step::Preparing(asker, order),
                Some(Err(why)) => self.end(of, now, asker, Err(why)),
                Some(Ok(Outcome { merged, resolved, left_out, unfit, ready: None })) => {
                    self.outcome = unfit.map(Ok).or(self.outcome.take());
                    let mut rows = merged.as_deref().map_or_else(Vec::new, dropped);
                    rows.extend(left_out.into_iter().map(ReloadRow::left_out));
                    let compared = merged.is_some().then_some(0);
                    let basis =
                        merged.map(|merged| of.ledger.take_file(now, *merged, Arc::clone(of.ledger.in_force())));
                    let replaced = Discarded { basis, ..Discarded::default() };
                    let following = Following { asker, changes: None, rows, resolved, compared, replaced };
                    self.step = Step::Following(Box::new(following));
                }
                Some(Ok(Outcome { merged, resolved, unfit, ready: Some(ready), .. })) => {
                    self.outcome = unfit.map(Ok).or(self.outcome.take());
                    self.step = Step::GettingReady(asker, order, ready, (merged, resolved));
                }
            },
            Step::GettingReady(asker, order, mut ready, of_ledger) => {
                if of.engine.get_ready(now, &mut ready.successor) {
                    self.step = Step::GettingReady(asker, order, ready, of_ledger);
                } else {
                    // A flow to a new server needs its key in the programs' map from its first packet on.
                    let missed = of.extend_maps(&ready.settings, &ready.needs.servers);
                    self.step = Step::Entering(asker, order, ready, of_ledger, missed);
                }
            }
            Step::Entering(asker, order, ready, of_ledger, missed) => {
                self.follow(of, now, (asker, order), *ready, (of_ledger, missed));
            }
            Step::Following(following) => self.go_on(of, now, following),
            Step::Telling(telling) => self.tell(of, now, telling),
            Step::Retiring(mut changes) => {
                if of.carry_out(&mut changes) {
                    changes.take_problems().iter().for_each(|problem| log::warn!("{problem}"));
                } else {
                    self.step = Step::Retiring(changes);
                }
            }
        }
        !matches!(self.step, Step::Rest | Step::Preparing(..))
    }

    /// Begins what was asked for, or looks after what is retired.
    fn begin(&mut self, of: &mut Surroundings<'_>, now: Instant) {
        if let Some(order) = of.ledger.poll_order() {
            // What needs a restart was left out by the last reload, if at all: an operator's change is not about it.
            let reload = ReloadOrder { partial: true, now: order.at_once(), who: None };
            return self.give(of, now, (Asker::Operator(order.number()), reload), Source::Order(Box::new(order)));
        }
        let signalled = std::mem::take(&mut self.signalled).then(|| (Asker::Signal, ReloadOrder::default()));
        let asked = || lock(&self.desk).take_order().map(|(ticket, order)| (Asker::Session(ticket, order.who), order));
        // Not while a change is being carried out: it is asked for again then.
        let has_others = self.found_others && !of.ledger.is_busy();
        let found = || has_others.then_some((Asker::Outside, ReloadOrder { partial: true, ..ReloadOrder::default() }));
        let Some(asker) = signalled.or_else(asked).or_else(found) else {
            if self.retired.is_over(of.engine, now) {
                self.step = Step::Retiring(self.retire(of));
            }
            return;
        };
        let Some(basis) = of.ledger.begin_reload().map(Box::new) else {
            return self.end(of, now, asker.0, Err("a change is being carried out: ask again".into()));
        };
        // Both take what was found last.
        self.found_others = false;
        let source = if matches!(asker.0, Asker::Outside) { Source::Outside(basis) } else { Source::File(basis) };
        self.give(of, now, asker, source);
    }

    /// Gives the worker something to prepare.
    fn give(&mut self, of: &mut Surroundings<'_>, now: Instant, (asker, order): (Asker, ReloadOrder), source: Source) {
        let Some(worker) = &self.worker else {
            return self.end(of, now, asker, Err("the gateway was started without a configuration file".into()));
        };
        worker.give(Job {
            source,
            found: Arc::clone(&self.found),
            succession: of.engine.succession(now),
            in_force: Arc::clone(of.ledger.in_force()),
            partial: order.partial,
        });
        self.step = Step::Preparing(asker, order);
    }

    /// Puts a plan in force.
    fn follow(
        &mut self,
        of: &mut Surroundings<'_>,
        now: Instant,
        (asker, order): (Asker, ReloadOrder),
        ready: Ready,
        ((merged, resolved), missed): (OfLedger, Option<String>),
    ) {
        let Ready { successor, settings, mut needs, mut rows, left_out, warnings } = ready;
        let removed = if order.now { Removed::EndNow } else { Removed::Drain };
        let Ok(plan) = of.engine.follow(now, successor, removed) else {
            return self.end(of, now, asker, Err("another reload came first: ask again".into()));
        };
        if let Some(targets) = needs.targets.take() {
            of.follower.follow_targets(targets, now);
        }
        let about = About { mtu: settings.gateway.mtu, ..(**of.about).clone() };
        *of.about = Arc::new(about);
        rows.extend(merged.as_deref().map_or_else(Vec::new, dropped));
        rows.extend(left_out.into_iter().map(ReloadRow::left_out));
        rows.extend(warnings.into_iter().chain(missed).map(ReloadRow::problem));
        rows.extend(self.unreadable(of.ledger.in_force(), &settings));
        self.retired.begin(of.engine, now);
        let changes = Some(of.follow_settings(&settings, &needs.routing, of.engine.has_retired()));
        let compared = merged.is_some().then_some(0);
        let (basis, before) = match (merged, &resolved) {
            (Some(merged), _) => (Some(of.ledger.take_file(now, *merged, settings)), None),
            (None, Some(_)) => (None, Some(of.ledger.follow(&settings))),
            (None, None) => (None, None),
        };
        let replaced = Discarded { plan: Some(plan), basis, settings: before, needs: self.needs.replace(needs) };
        self.step = Step::Following(Box::new(Following { asker, changes, rows, resolved, compared, replaced }));
    }

    /// Does one step of what is left once a plan is in force.
    fn go_on(&mut self, of: &mut Surroundings<'_>, now: Instant, mut following: Box<Following>) {
        if let Some(changes) = &mut following.changes {
            if of.carry_out(changes) {
                following.rows.extend(changes.take_problems().into_iter().map(ReloadRow::problem));
                following.changes = None;
            }
            self.step = Step::Following(following);
            return;
        }
        if let Some(place) = following.compared {
            following.compared = of.ledger.assert_part(of.engine, now, place, COMPARED);
            if following.compared.is_none() {
                of.ledger.reloaded(of.engine, now, None);
            }
            self.step = Step::Following(following);
            return;
        }
        let Following { asker, rows, resolved, replaced, .. } = *following;
        if let Some(worker) = &self.worker {
            worker.discard(replaced);
        }
        self.end(of, now, asker, Ok((rows, resolved)));
    }

    /// Writes a portion of what has changed to the log; then the answer is given.
    fn tell(&mut self, of: &mut Surroundings<'_>, now: Instant, mut telling: Telling) {
        if telling.tell() {
            self.step = Step::Telling(telling);
            return;
        }
        let Telling { asker, rows, .. } = telling;
        self.answer(of, now, asker, Ok((rows, None)));
    }

    /// Gives up what no flow uses any more.
    fn retire(&mut self, of: &mut Surroundings<'_>) -> Changes {
        of.engine.forget_retired();
        let settings = Arc::clone(of.ledger.in_force());
        let needs = self.needs.get_or_insert_with(|| Needs::of(&settings));
        of.restrict_maps(&settings, &needs.servers);
        of.follow_settings(&settings, &needs.routing, false)
    }

    /// Ends what was asked for, whether or not it was done.
    fn end(&mut self, of: &mut Surroundings<'_>, now: Instant, asker: Asker, result: Done) {
        if let Asker::Operator(number) = asker {
            let result = result.and_then(|(rows, resolved)| {
                rows.iter().filter(|row| row.is_problem()).for_each(|row| log::warn!("{row}"));
                resolved.ok_or_else(|| "nothing was made of it".into())
            });
            return of.ledger.carried_out(of.engine, now, number, result.map(|resolved| *resolved));
        }
        match result {
            Ok((rows, _)) => return self.tell(of, now, Telling::new(asker, rows)),
            Err(ref why) if matches!(asker, Asker::Outside) => self.outcome = Some(Err(why.clone())),
            Err(ref why) => log::error!("reload: {why}"),
        }
        of.ledger.reloaded(of.engine, now, None);
        self.answer(of, now, asker, result);
    }

    /// Answers whoever asked for a reload.
    fn answer(&mut self, of: &mut Surroundings<'_>, now: Instant, asker: Asker, result: Done) {
        notes::note(of.ledger, now, asker, &result);
        if let Asker::Session(ticket, _) = asker {
            lock(&self.desk).answer(ticket, result.map(|(rows, _)| rows));
        }
    }
}

/// What became of something that was asked for: the changes, for an operator's with what is to be noted in the ledger.
type Done = Result<(Vec<ReloadRow>, Option<Box<Resolved>>), String>;

/// Returns a row for each change of an operator that no longer applies.
fn dropped(merged: &Merged) -> Vec<ReloadRow> {
    merged.dropped().iter().map(|dropped| ReloadRow::dropped(dropped.to_string())).collect()
}

fn lock(desk: &Mutex<Desk>) -> std::sync::MutexGuard<'_, Desk> {
    // A desk is consistent between any two statements.
    desk.lock().unwrap_or_else(PoisonError::into_inner)
}
