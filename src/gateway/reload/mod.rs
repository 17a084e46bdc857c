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

mod notes;
mod retired;
mod worker;

pub(super) use worker::{Job, Outcome, Ready, Source, Worker};
pub use worker::{MOST_CONFIG, read};

use super::follower::Follower;
use super::marking::Marking;
use super::queues::Opener;
use super::setup::{Changes, Installed};
use super::sources::Readable;
use super::watch::Keeper;
use crate::config::Settings;
use crate::config::changes::Who;
use crate::config::outside::LeftOut;
use crate::control::{About, Desk, Ledger, Merged, ReloadOrder, ReloadRow, Resolved, Ticket};
use crate::engine::{Engine, Removed};
use crate::sources::{Found, From, SourceSettings};
use crate::time::Instant;
use retired::Retired;
use std::sync::{Arc, Mutex, PoisonError};

/// Parts of the system changed before packets get their turn; each takes the kernel some microseconds.
const PORTION: usize = 16;

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
    /// The plan is in force, and the system follows.
    Following(Asker, Changes, Vec<ReloadRow>, Option<Box<Resolved>>),
    /// The system gives up what is retired.
    Retiring(Changes),
}

/// What a reload changes besides the engine.
pub(super) struct Surroundings<'a> {
    pub(super) engine: &'a mut Engine,
    pub(super) ledger: &'a mut Ledger,
    pub(super) follower: &'a mut Follower,
    pub(super) keeper: &'a mut Keeper,
    pub(super) marking: Option<&'a mut Marking>,
    pub(super) opener: &'a mut Opener,
    pub(super) installed: Option<&'a mut Installed>,
    pub(super) about: &'a mut Arc<About>,
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
            readable: Readable::default(),
        }
    }

    /// Takes the servers from outside that the settings at the start have.
    pub(super) fn start_with(&mut self, found: Found) {
        self.found = Arc::new(found);
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
            Step::Preparing(asker, ..) | Step::GettingReady(asker, ..) | Step::Following(asker, ..) => {
                !matches!(asker, Asker::Outside)
            }
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
                    if let Some(merged) = merged {
                        let settings = Arc::clone(of.ledger.in_force());
                        of.ledger.reloaded(of.engine, now, Some((*merged, settings)));
                    }
                    self.end(of, now, asker, Ok((rows, resolved)));
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
                    self.follow(of, now, (asker, order), *ready, of_ledger);
                }
            }
            Step::Following(asker, mut changes, mut rows, resolved) => {
                if carry_out(&mut changes, of) {
                    rows.extend(changes.take_problems().into_iter().map(ReloadRow::problem));
                    self.end(of, now, asker, Ok((rows, resolved)));
                } else {
                    self.step = Step::Following(asker, changes, rows, resolved);
                }
            }
            Step::Retiring(mut changes) => {
                if carry_out(&mut changes, of) {
                    changes.take_problems().iter().for_each(|problem| log::warn!("{problem}"));
                } else {
                    self.step = Step::Retiring(changes);
                }
            }
        }
        matches!(self.step, Step::GettingReady(..) | Step::Following(..) | Step::Retiring(_))
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
        (merged, resolved): OfLedger,
    ) {
        let Ready { successor, settings, diff, left_out, warnings } = ready;
        // A flow to a new server needs its key in the programs' map from its first packet on.
        let missed = of.extend_maps(&settings);
        let removed = if order.now { Removed::EndNow } else { Removed::Drain };
        match of.engine.follow(now, successor, removed) {
            Ok(replaced) => self.worker.as_ref().map_or((), |worker| worker.discard(replaced)),
            Err(_) => return self.end(of, now, asker, Err("another reload came first: ask again".into())),
        }
        of.follower.follow(of.engine.plan().settings(), now);
        let about = About { mtu: settings.gateway.mtu, ..(**of.about).clone() };
        *of.about = Arc::new(about);
        let mut rows = ReloadRow::of(&diff);
        rows.extend(merged.as_deref().map_or_else(Vec::new, dropped));
        rows.extend(left_out.into_iter().map(ReloadRow::left_out));
        rows.extend(warnings.into_iter().chain(missed).map(ReloadRow::problem));
        rows.extend(self.unreadable(of.ledger.in_force(), &settings));
        self.retired.begin(of.engine, now);
        let changes = of.follow_settings(&settings, of.engine.has_retired());
        match (merged, &resolved) {
            (Some(merged), _) => of.ledger.reloaded(of.engine, now, Some((*merged, settings))),
            (None, Some(_)) => of.ledger.follow(&settings),
            (None, None) => {}
        }
        self.step = Step::Following(asker, changes, rows, resolved);
    }

    /// Gives up what no flow uses any more.
    fn retire(&mut self, of: &mut Surroundings<'_>) -> Changes {
        of.engine.forget_retired();
        let settings = Arc::clone(of.ledger.in_force());
        of.restrict_maps(&settings);
        of.follow_settings(&settings, false)
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
        match &result {
            // The log has said which servers came and went.
            Ok((rows, _)) if matches!(asker, Asker::Outside) => {
                rows.iter().for_each(|row| log::log!(quiet(row), "servers from outside: {row}"));
            }
            Err(why) if matches!(asker, Asker::Outside) => self.outcome = Some(Err(why.clone())),
            Ok((rows, _)) if rows.is_empty() => log::info!("reload: no changes"),
            Ok((rows, _)) => rows.iter().for_each(|row| log::log!(level(row), "reload: {row}")),
            Err(why) => log::error!("reload: {why}"),
        }
        if result.is_err() {
            of.ledger.reloaded(of.engine, now, None);
        }
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

/// Changes a portion of the system; returns whether all of it is done.
fn carry_out(changes: &mut Changes, of: &mut Surroundings<'_>) -> bool {
    let Some(installed) = &mut of.installed else { return true };
    if !changes.is_done() {
        installed.carry_out(changes, PORTION);
        return false;
    }
    let interfaces = of.follower.interfaces();
    let done = installed.follow_errors(interfaces).and_then(|()| installed.follow_announcements());
    if let Err(error) = done {
        log::warn!("packets of new services or servers may not arrive: {error}");
    }
    of.keeper.follow(installed);
    true
}

impl Surroundings<'_> {
    /// Adds the servers and addresses of settings to the programs' maps; returns what had no room.
    fn extend_maps(&mut self, settings: &Settings) -> Option<String> {
        let steering = self.opener.extend(settings);
        let marks = self.marking.as_mut().map_or(Ok(()), |marking| marking.extend(settings));
        let error = steering.and(marks).err()?;
        Some(format!(
            "the BPF programs do not know all new servers ({error}): their replies may not be translated; restart the gateway"
        ))
    }

    /// Removes from the programs' maps what is not in the settings.
    fn restrict_maps(&mut self, settings: &Settings) {
        self.opener.restrict(settings);
        if let Some(marking) = &mut self.marking {
            marking.restrict(settings);
        }
    }

    /// Makes the system follow settings; returns what there is to do. `has_retired` says whether there may be flows of what has
    /// been removed.
    fn follow_settings(&mut self, settings: &Settings, has_retired: bool) -> Changes {
        let Some(installed) = &mut self.installed else { return Changes::default() };
        let changes = installed.follow(settings, (self.engine.retired(), has_retired));
        // Replies first: no client's packet may enter before its reply can.
        if let Err(error) = installed.follow_errors(self.follower.interfaces()) {
            log::warn!("replies of new servers may not be translated: {error}");
        }
        self.keeper.follow(installed);
        changes
    }
}

fn quiet(row: &ReloadRow) -> log::Level {
    if row.is_problem() { log::Level::Warn } else { log::Level::Debug }
}

fn level(row: &ReloadRow) -> log::Level {
    if row.is_problem() { log::Level::Warn } else { log::Level::Info }
}

fn lock(desk: &Mutex<Desk>) -> std::sync::MutexGuard<'_, Desk> {
    // A desk is consistent between any two statements.
    desk.lock().unwrap_or_else(PoisonError::into_inner)
}
