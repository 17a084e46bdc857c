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

mod retired;
mod worker;

pub(super) use worker::{Job, Ready, Source, Worker};
pub use worker::{MOST_CONFIG, read};

use super::follower::Follower;
use super::marking::Marking;
use super::queues::Opener;
use super::setup::{Changes, Installed};
use super::watch::Keeper;
use crate::config::Settings;
use crate::control::{About, Desk, ReloadOrder, ReloadRow, Ticket};
use crate::engine::{Engine, Removed};
use crate::time::Instant;
use retired::Retired;
use std::sync::{Arc, Mutex, PoisonError};

/// Parts of the system changed before packets get their turn; each takes the kernel some microseconds.
const PORTION: usize = 16;

/// Whoever asked for a reload.
#[derive(Debug, Clone, Copy)]
enum Asker {
    Signal,
    Session(Ticket),
    /// The gateway itself: see [`Reloads::apply`].
    Own,
}

/// What is under way.
#[derive(Debug)]
enum Step {
    /// Nothing.
    Rest,
    /// The worker prepares the plan.
    Preparing(Asker, ReloadOrder),
    /// The engine gets ready for it.
    GettingReady(Asker, ReloadOrder, Box<Ready>),
    /// The plan is in force, and the system follows.
    Following(Asker, Changes, Vec<ReloadRow>),
    /// The system gives up what is retired.
    Retiring(Changes),
}

/// What a reload changes besides the engine.
pub(super) struct Surroundings<'a> {
    pub(super) engine: &'a mut Engine,
    pub(super) follower: &'a mut Follower,
    pub(super) keeper: &'a mut Keeper,
    pub(super) marking: Option<&'a mut Marking>,
    pub(super) opener: &'a mut Opener,
    pub(super) installed: Option<&'a mut Installed>,
    pub(super) about: &'a mut Arc<About>,
}

/// Reloads, one at a time.
#[derive(Debug)]
pub(super) struct Reloads {
    worker: Option<Worker>,
    desk: Arc<Mutex<Desk>>,
    /// Whether a signal has asked since the last reload began.
    signalled: bool,
    /// Settings to be put in force that are not those of the file.
    own: Option<Box<Settings>>,
    /// The settings of the file when it was last read.
    file: Arc<Settings>,
    step: Step,
    in_force: Arc<Settings>,
    retired: Retired,
}

impl Reloads {
    pub(super) fn new(settings: Settings) -> Reloads {
        let file = Arc::new(settings);
        Reloads {
            worker: None,
            desk: Arc::default(),
            signalled: false,
            own: None,
            step: Step::Rest,
            in_force: Arc::clone(&file),
            file,
            retired: Retired::default(),
        }
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

    /// Returns the settings of the file when it was last read.
    pub(super) fn file(&self) -> &Arc<Settings> {
        &self.file
    }

    /// Puts other settings in force than those of the file; the last ones given count.
    pub(super) fn apply(&mut self, settings: Settings) {
        self.own = Some(Box::new(settings));
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
                Some(Err(why)) => self.end(asker, Err(why)),
                Some(Ok(None)) => self.end(asker, Ok(Vec::new())),
                Some(Ok(Some(ready))) => self.step = Step::GettingReady(asker, order, ready),
            },
            Step::GettingReady(asker, order, mut ready) => {
                if of.engine.get_ready(now, &mut ready.successor) {
                    self.step = Step::GettingReady(asker, order, ready);
                } else {
                    self.follow(of, now, (asker, order), *ready);
                }
            }
            Step::Following(asker, mut changes, mut rows) => {
                if carry_out(&mut changes, of) {
                    rows.extend(changes.take_problems().into_iter().map(ReloadRow::problem));
                    self.end(asker, Ok(rows));
                } else {
                    self.step = Step::Following(asker, changes, rows);
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
        let signalled = std::mem::take(&mut self.signalled).then(|| (Asker::Signal, ReloadOrder::default()));
        let asked = || lock(&self.desk).next().map(|(ticket, order)| (Asker::Session(ticket), order));
        let own = || self.own.is_some().then(|| (Asker::Own, ReloadOrder { partial: true, now: false }));
        let Some((asker, order)) = signalled.or_else(asked).or_else(own) else {
            if self.retired.is_over(of.engine, now) {
                self.step = Step::Retiring(self.retire(of));
            }
            return;
        };
        let Some(worker) = &self.worker else {
            return self.end(asker, Err("the gateway was started without a configuration file".into()));
        };
        let source = match asker {
            Asker::Own => self.own.take().map_or(Source::File, Source::Settings),
            Asker::Signal | Asker::Session(_) => Source::File,
        };
        worker.give(Job {
            source,
            succession: of.engine.succession(now),
            in_force: Arc::clone(&self.in_force),
            partial: order.partial,
        });
        self.step = Step::Preparing(asker, order);
    }

    /// Puts a plan in force.
    fn follow(&mut self, of: &mut Surroundings<'_>, now: Instant, (asker, order): (Asker, ReloadOrder), ready: Ready) {
        let Ready { successor, file, settings, diff, left_out, warnings } = ready;
        // A flow to a new server needs its key in the programs' map from its first packet on.
        let missed = of.extend_maps(&settings);
        let removed = if order.now { Removed::EndNow } else { Removed::Drain };
        match of.engine.follow(now, successor, removed) {
            Ok(replaced) => self.worker.as_ref().map_or((), |worker| worker.discard(replaced)),
            Err(_) => return self.end(asker, Err("another reload came first: ask again".into())),
        }
        self.in_force = Arc::clone(&settings);
        self.file = file.unwrap_or_else(|| Arc::clone(&self.file));
        of.follower.follow(of.engine.plan().settings(), now);
        let about = About { mtu: settings.gateway.mtu, ..(**of.about).clone() };
        *of.about = Arc::new(about);
        let mut rows = ReloadRow::of(&diff);
        rows.extend(left_out.into_iter().map(ReloadRow::left_out));
        rows.extend(warnings.into_iter().chain(missed).map(ReloadRow::problem));
        self.retired.begin(of.engine, now);
        let changes = of.follow_settings(&settings);
        self.step = Step::Following(asker, changes, rows);
    }

    /// Gives up what no flow uses any more.
    fn retire(&mut self, of: &mut Surroundings<'_>) -> Changes {
        of.engine.forget_retired();
        let settings = Arc::clone(&self.in_force);
        of.restrict_maps(&settings);
        of.follow_settings(&settings)
    }

    fn end(&mut self, asker: Asker, result: Result<Vec<ReloadRow>, String>) {
        match &result {
            Ok(rows) if rows.is_empty() => log::info!("reload: no changes"),
            Ok(rows) => rows.iter().for_each(|row| log::log!(level(row), "reload: {row}")),
            Err(why) => log::error!("reload: {why}"),
        }
        if let Asker::Session(ticket) = asker {
            lock(&self.desk).answer(ticket, result);
        }
    }
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

    /// Makes the system follow settings; returns what there is to do.
    fn follow_settings(&mut self, settings: &Settings) -> Changes {
        let Some(installed) = &mut self.installed else { return Changes::default() };
        let changes = installed.follow(settings, self.engine.retired());
        self.keeper.follow(installed);
        changes
    }
}

fn level(row: &ReloadRow) -> log::Level {
    if row.is_problem() { log::Level::Warn } else { log::Level::Info }
}

fn lock(desk: &Mutex<Desk>) -> std::sync::MutexGuard<'_, Desk> {
    // A desk is consistent between any two statements.
    desk.lock().unwrap_or_else(PoisonError::into_inner)
}
