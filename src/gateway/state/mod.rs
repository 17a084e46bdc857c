//! The state of the engine in a file, so that flows go on after a stop, a crash or a restart of the machine's services.
//!
//! `file` is the format, `saver` the thread that writes it; this module feeds the thread, a few records at a time between
//! packets, and reads the file at the start. It must not know what the records mean.

pub mod file;
mod saver;

use crate::config::Settings;
use crate::control::{Kept, Ledger};
use crate::engine::{Engine, Loaded, Note, StateLoad, StateWalk, read_note};
use crate::gateway::preflight;
use crate::gateway::sources::Outsiders;
use crate::sources::{self, Found, SourceSettings};
use crate::time::{Duration, Instant};
use file::{Clocks, Header};
use saver::{Notes, Saver};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Slots that one portion looks at, while packets wait (`cargo bench --bench state`).
const PORTION: usize = 2048;
/// The time between two portions.
const PAUSE: Duration = Duration::from_millis(5);
/// The time until the first state, and until a change by an operator is saved.
const SOON: Duration = Duration::from_secs(1);
/// How long the end of the process waits until the last state is on the disk.
const LAST: Duration = Duration::from_secs(20);

/// Saves the state of an engine at intervals, and at the end.
pub(super) struct Keeping {
    saver: Saver,
    path: PathBuf,
    interval: Duration,
    walk: Option<StateWalk>,
    due: Instant,
    /// Up to which edit the operators' changes are saved, or soon will be.
    edits: u64,
    /// Whether the last attempt failed, which is logged once.
    has_failed: bool,
}

impl Keeping {
    /// Starts the thread that writes `path`. The first state is due soon, so that it is known early if it cannot be saved.
    pub(super) fn start(path: &Path, interval: Duration, now: Instant) -> io::Result<Keeping> {
        // A confined process may not find out which boot it is.
        Clocks::read();
        let saver = Saver::start(path)?;
        let due = now + interval.min(SOON);
        Ok(Keeping { saver, path: path.into(), interval, walk: None, due, edits: 0, has_failed: false })
    }

    /// Makes the thread give up every privilege that it does not need.
    pub(super) fn confine(&self) {
        self.saver.confine();
    }

    /// Returns when there is work to do.
    pub(super) fn poll_timeout(&self, ledger: &Ledger) -> Instant {
        if ledger.edits() == self.edits { self.due } else { Instant::ZERO }
    }

    /// Does what is due: begins a state, writes a portion of it, or notes how it went.
    pub(super) fn work(&mut self, engine: &mut Engine, ledger: &Ledger, sources: &Outsiders, now: Instant) {
        while let Some(result) = self.saver.poll() {
            self.note(result);
        }
        // What an operator has changed is not to be lost by a crash.
        if ledger.edits() != self.edits {
            (self.edits, self.due) = (ledger.edits(), self.due.min(now + SOON));
        }
        if self.due > now {
            return;
        }
        // The disk is slower than the walk: the walk waits, so that memory is bounded.
        if self.saver.is_behind() {
            self.due = now + PAUSE;
            return;
        }
        if self.portion(engine, (ledger, sources), now, (PORTION, false)) {
            self.due = now + self.interval;
        } else {
            self.due = now + PAUSE;
        }
    }

    /// Saves the state at the end, after the last packet; returns whether it is on the disk.
    pub(super) fn save_last(
        &mut self,
        engine: &mut Engine,
        ledger: &Ledger,
        sources: &Outsiders,
        now: Instant,
    ) -> bool {
        self.walk = None;
        while !self.portion(engine, (ledger, sources), now, (PORTION * 16, true)) {}
        let saved = self.saver.finish(LAST);
        let is_saved = matches!(saved, Some(Ok(_)));
        match saved {
            Some(Ok(bytes)) => log::info!("{}: saved {bytes} bytes of state", self.path.display()),
            Some(result) => self.note(result),
            None => log::warn!("{}: the state is not saved: the disk takes too long", self.path.display()),
        }
        is_saved
    }

    /// Writes a portion; returns whether the state is complete.
    fn portion(
        &mut self,
        engine: &mut Engine,
        (ledger, sources): (&Ledger, &Outsiders),
        now: Instant,
        (most, is_final): (usize, bool),
    ) -> bool {
        let mut bytes = Vec::new();
        let walk = match &mut self.walk {
            Some(walk) => walk,
            None => {
                self.saver.begin(Header { clocks: Clocks::read() });
                self.walk.insert(StateWalk::new(now, is_final))
            }
        };
        let done = engine.write_state(walk, now, most, &mut bytes);
        let at = walk.time();
        self.saver.write(bytes);
        if done {
            self.walk = None;
            let settings = Arc::clone(ledger.in_force());
            self.saver.write_notes(Notes { changes: ledger.copy(), at, settings, found: sources.found() });
            self.saver.end();
        }
        done
    }

    fn note(&mut self, result: io::Result<u64>) {
        match result {
            Ok(bytes) => {
                log::debug!("{}: saved {bytes} bytes of state", self.path.display());
                if std::mem::take(&mut self.has_failed) {
                    log::info!("{}: the state is saved again", self.path.display());
                }
            }
            Err(error) if !std::mem::replace(&mut self.has_failed, true) => log::warn!(
                "{}: the state is not saved: {error}; flows will not outlive this gateway until it is: check the directory \
                 and the space on its disk",
                self.path.display()
            ),
            Err(_) => {}
        }
    }
}

/// The state of an earlier gateway.
pub(super) struct Earlier {
    path: PathBuf,
    state: file::State,
    age: Duration,
    is_approximate: bool,
    /// Its own time on the clock of this gateway.
    at: Instant,
}

impl Earlier {
    /// Reads the state in a file. Without a file, or with one that cannot be read, the gateway begins empty.
    pub(super) fn read(path: &Path, now: Instant) -> Option<Earlier> {
        let shown = path.display();
        let state = match file::read(path) {
            Ok(Some(state)) => state,
            Ok(None) => {
                log::info!("{shown}: no state of an earlier gateway");
                return None;
            }
            Err(error) => {
                log::warn!("{shown}: {error}; the gateway begins without flows, and as in the configuration file");
                return None;
            }
        };
        let (age, is_approximate) = state.header.clocks.age(&Clocks::read());
        let begin = now.as_nanos().saturating_sub(u64::try_from(age.as_nanos()).unwrap_or(u64::MAX));
        Some(Earlier { path: path.into(), state, age, is_approximate, at: Instant::from_nanos(begin) })
    }

    /// Adds the lists of sources that have found nothing yet: a name server may take a while, and flows should go on.
    pub(super) fn add_servers(&self, settings: &[SourceSettings], found: &mut Found) {
        let shown = self.path.display();
        let Some(text) = read_note(Note::Servers, self.state.records()) else { return };
        match sources::load(&text, settings) {
            Err(error) => log::warn!("{shown}: {error}"),
            Ok(lists) => {
                for (pool, list) in lists.into_iter().filter(|(_, list)| !list.is_empty()) {
                    found.entry(pool).or_insert_with_key(|pool| {
                        log::info!(
                            "{shown}: pool {pool}: {} servers from outside, until there is a newer list",
                            list.len()
                        );
                        list
                    });
                }
            }
        }
    }

    /// Makes what operators changed hold, as far as the file does not speak against it and the system can, and logs what
    /// does not. To be called before the engine is made.
    pub(super) fn load_changes(&self, ledger: &mut Ledger, now: Instant) -> Option<Kept> {
        let shown = self.path.display();
        let text = read_note(Note::Changes, self.state.records())?;
        let usable = |settings: &Settings| match preflight::addresses(settings).first() {
            Some(problem) => Err(problem.what.clone()),
            None => Ok(()),
        };
        match ledger.load_changes(&text, self.at, now, usable) {
            Ok(kept) => {
                if kept != Kept::default() {
                    log::info!("{shown}: {kept}; `eqctl changes` lists what differs from the file");
                }
                kept.dropped.iter().for_each(|dropped| log::warn!("{shown}: {dropped}"));
                kept.unreadable
                    .iter()
                    .for_each(|text| log::warn!("{shown}: a change by an operator is not kept: {text}"));
                Some(kept)
            }
            Err(error) => {
                log::warn!("{shown}: {error}");
                None
            }
        }
    }

    /// Loads the state into a new engine, and logs what goes on and what does not.
    pub(super) fn load(self, engine: &mut Engine, now: Instant) -> Option<Loaded> {
        let Earlier { path, state, age, is_approximate, at } = self;
        let shown = path.display();
        let mut load = StateLoad::new(at);
        if let Err(error) = engine.load_state(&mut load, now, state.records()) {
            log::warn!("{shown}: {error}; the gateway begins without flows");
            return None;
        }
        match engine.end_load(load, now) {
            Ok(loaded) => {
                let about = if is_approximate { " by the wall clock, as the machine has restarted" } else { "" };
                log::info!("{shown}: {loaded}; it is {} old{about}", humantime::format_duration(rounded(age)));
                Some(loaded)
            }
            Err(error) => {
                log::warn!("{shown}: {error}; what could be read goes on");
                None
            }
        }
    }
}

/// Rounds to what a person wants to know.
fn rounded(age: Duration) -> Duration {
    if age < Duration::from_secs(60) {
        Duration::from_millis(age.as_millis() as u64)
    } else {
        Duration::from_secs(age.as_secs())
    }
}
