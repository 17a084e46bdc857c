//! The state of the engine in a file, so that flows go on after a stop, a crash or a restart of the machine's services.
//!
//! `file` is the format, `saver` the thread that writes it; this module feeds the thread, a few records at a time between
//! packets, and reads the file at the start. It must not know what the records mean.

pub mod file;
mod lock;
mod saver;

use super::preflight;
use super::setup::SetupError;
use crate::config::Settings;
use crate::control::{Kept, Ledger};
use crate::engine::{Engine, Note, NoteScan, StateLoad, StateWalk};
use crate::gateway::sources::Outsiders;
use crate::sources::{self, Found, SourceSettings};
use crate::time::{Duration, Instant};
use file::{Clocks, Header, Print, State};
use lock::{Lock, LockError};
use saver::{Notes, Saver};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;

/// Slots that one portion looks at, while packets wait (`cargo bench --bench state`).
const PORTION: usize = 2048;
/// The time between two portions.
const PAUSE: Duration = Duration::from_millis(5);
/// The time until the first state, and until a change by an operator is saved.
const SOON: Duration = Duration::from_secs(1);
/// How long the end of the process waits until the last state is on the disk.
const LAST: Duration = Duration::from_secs(20);
/// From how long on the disk takes too long for a state.
const TOO_LONG: Duration = Duration::from_secs(60);

/// What becomes of a file that is no state.
const LEFT_ALONE: &str = "leaves the file alone, so no flow will outlive it: remove the file or name another one, and restart the \
                          gateway";

/// Saves the state of an engine at intervals, and at the end.
pub(super) struct Keeping {
    saver: Saver,
    path: PathBuf,
    interval: Duration,
    walk: Option<StateWalk>,
    due: Instant,
    /// Up to which edit the operators' changes are saved, or soon will be.
    edits: u64,
    /// Since when the thread has had something to do without any progress.
    stuck_since: Option<Instant>,
    /// Whether the last attempt failed, which is logged once.
    has_failed: bool,
}

impl Keeping {
    /// Starts the thread that writes `path`; without the lock, from when it is free on. The first state is due soon, so
    /// that it is known early if it cannot be saved.
    fn start(path: &Path, lock: Option<Lock>, interval: Duration, now: Instant) -> io::Result<Keeping> {
        // A confined process may not find out which boot it is.
        Clocks::read();
        let saver = Saver::start(path, lock)?;
        let due = now + interval.min(SOON);
        let (path, walk) = (path.into(), None);
        Ok(Keeping { saver, path, interval, walk, due, edits: 0, stuck_since: None, has_failed: false })
    }

    /// Starts the thread for a gateway that takes the place of the one that has the file: it writes from when that one ends.
    /// In the place of a file that is no state nothing is kept, which is logged.
    ///
    /// # Errors
    /// If the thread cannot be started.
    pub(super) fn later(path: &Path, interval: Duration, now: Instant) -> Result<Option<Keeping>, SetupError> {
        let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
        if let Some(error) = State::keeps_out(&path) {
            log::warn!("{}: {error}; the gateway {LEFT_ALONE}", path.display());
            return Ok(None);
        }
        Keeping::start(&path, None, interval, now).map(Some).map_err(no_thread)
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
            self.stuck_since = None;
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
        let is_behind = self.saver.is_behind();
        if self.saver.take_progress() || !self.saver.is_busy() {
            self.stuck_since = None;
        } else if now.since(*self.stuck_since.get_or_insert(now)) >= TOO_LONG {
            self.note(Err(io::Error::new(io::ErrorKind::TimedOut, "the disk takes too long")));
        }
        if is_behind {
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
    #[allow(clippy::disallowed_methods, reason = "it waits for the disk, and nothing else goes on")]
    pub(super) fn save_last(
        &mut self,
        engine: &mut Engine,
        ledger: &Ledger,
        sources: &Outsiders,
        now: Instant,
    ) -> bool {
        let end = std::time::Instant::now() + LAST;
        let is_over = || std::time::Instant::now() >= end;
        self.walk = None;
        let written = loop {
            while self.saver.is_behind() && !is_over() {
                thread::sleep(PAUSE);
            }
            // A message more than there is room for would wait for the disk, whatever it takes.
            if self.saver.is_behind() {
                break None;
            }
            if self.portion(engine, (ledger, sources), now, (PORTION * 16, true)) {
                break self.saver.finish(end);
            }
        };
        let is_saved = matches!(written, Some(Ok(_)));
        match written {
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

/// Makes what operators changed hold, as far as the file does not speak against it and the system can, and logs what does
/// not; `from` is where the text comes from, which tells times from `at` on.
pub(super) fn keep_changes(
    from: &str,
    ledger: &mut Ledger,
    text: &[u8],
    (at, now): (Instant, Instant),
) -> Option<Kept> {
    let usable = |settings: &Settings| match preflight::addresses(settings).first() {
        Some(problem) => Err(problem.what.clone()),
        None => Ok(()),
    };
    match ledger.load_changes(text, at, now, usable) {
        Ok(kept) => {
            if kept != Kept::default() {
                log::info!("{from}: {kept}; `eqctl changes` lists what differs from the file");
            }
            kept.dropped.iter().for_each(|dropped| log::warn!("{from}: {dropped}"));
            kept.unreadable.iter().for_each(|text| log::warn!("{from}: a change by an operator is not kept: {text}"));
            Some(kept)
        }
        Err(error) => {
            log::warn!("{from}: {error}");
            None
        }
    }
}

/// Adds the lists in a text that comes `from` an earlier gateway, for sources that have found nothing yet.
pub(super) fn add_servers(from: &str, text: &[u8], settings: &[SourceSettings], found: &mut Found) {
    match sources::load(text, settings) {
        Err(error) => log::warn!("{from}: {error}"),
        Ok(lists) => {
            for (pool, list) in lists.into_iter().filter(|(_, list)| !list.is_empty()) {
                found.entry(pool).or_insert_with_key(|pool| {
                    let count = list.len();
                    log::info!("{from}: pool {pool}: {count} servers from outside, until there is a newer list");
                    list
                });
            }
        }
    }
}

/// A state file with what an earlier gateway left in it, and the lock on it.
pub(super) struct Earlier {
    path: PathBuf,
    lock: Option<Lock>,
    state: Option<State>,
    age: Duration,
    is_approximate: bool,
    /// The state's own time on the clock of this gateway.
    at: Instant,
    /// Whether states are saved in this file: not in the place of a file that is no state.
    keeps: bool,
}

impl Earlier {
    /// Opens a state file. Without one, or with one that cannot be read, the gateway begins empty, which is logged.
    ///
    /// # Errors
    /// If another gateway has the file.
    pub(super) fn open(path: &Path, now: Instant) -> Result<Earlier, SetupError> {
        // A link leads to the file that is replaced, and to the directory in which that happens.
        let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
        let shown = path.display();
        let lock = match Lock::take(&path, false) {
            Ok(lock) => Some(lock),
            Err(LockError::Io(_)) => None,
            Err(held @ LockError::Held(_)) => {
                let fix = "stop it, or give this one its own `state-file`".to_owned();
                return Err(SetupError::new(format!("{shown}: {held}"), fix));
            }
        };
        let mut keeps = true;
        let state = match State::open(&path) {
            Ok(Some(state)) => Some(state),
            Ok(None) => {
                log::info!("{shown}: no state of an earlier gateway");
                None
            }
            Err(error) if error.is_anothers() => {
                log::warn!("{shown}: {error}; the gateway begins without flows and {LEFT_ALONE}");
                keeps = false;
                None
            }
            Err(error) => {
                log::warn!("{shown}: {error}; the gateway begins without flows, and as in the configuration file");
                None
            }
        };
        let clocks = state.as_ref().map(|state| state.header.clocks.age(&Clocks::read()));
        let (age, is_approximate) = clocks.unwrap_or_default();
        let begin = now.as_nanos().saturating_sub(u64::try_from(age.as_nanos()).unwrap_or(u64::MAX));
        let at = Instant::from_nanos(begin);
        Ok(Earlier { path, lock, state, age, is_approximate, at, keeps })
    }

    /// Adds the lists of sources that have found nothing yet: a name server may take a while, and flows should go on.
    pub(super) fn add_servers(&mut self, settings: &[SourceSettings], found: &mut Found) {
        let shown = self.path.display().to_string();
        if let Some(text) = self.note(Note::Servers) {
            add_servers(&shown, &text, settings, found);
        }
    }

    /// Makes what operators changed hold. To be called before the engine is made.
    pub(super) fn load_changes(&mut self, ledger: &mut Ledger, now: Instant) -> Option<Kept> {
        let text = self.note(Note::Changes)?;
        keep_changes(&self.path.display().to_string(), ledger, &text, (self.at, now))
    }

    /// Returns a note of the gateway that has left the state.
    fn note(&mut self, note: Note) -> Option<Vec<u8>> {
        let state = self.state.as_mut()?;
        let mut scan = NoteScan::new(note);
        let read = read_pieces(state, |bytes| Ok::<_, io::Error>(scan.read(bytes)))
            .and_then(|()| state.rewind().map_err(|error| error.to_string()));
        if let Err(error) = read {
            log::warn!("{}: {error}", self.path.display());
        }
        scan.text()
    }

    /// Loads the state into a new engine, logs what goes on and what does not, and begins to save that of this gateway.
    ///
    /// # Errors
    /// If the thread that writes it cannot be started.
    pub(super) fn load(
        mut self,
        interval: Duration,
        engine: &mut Engine,
        now: Instant,
    ) -> Result<Option<Keeping>, SetupError> {
        let state = self.state.take();
        let began_with = state.and_then(|state| self.load_state(state, engine, now));
        if !self.keeps {
            return Ok(None);
        }
        if let Some(Err(error)) = self.lock.as_mut().map(|lock| lock.note(began_with)) {
            log::warn!("{}: its lock file cannot be written: {error}", self.path.display());
        }
        Keeping::start(&self.path, self.lock, interval, now).map(Some).map_err(no_thread)
    }

    /// Loads a state; returns its print if it could be read.
    fn load_state(&self, mut state: State, engine: &mut Engine, now: Instant) -> Option<Print> {
        let shown = self.path.display();
        let mut load = StateLoad::new(self.at);
        // A gateway that was killed before it saved a state has forwarded packets after this one.
        if self.lock.as_ref().is_none_or(|lock| lock.is_used(state.print())) {
            load.outdated();
        }
        if let Err(error) = read_pieces(&mut state, |bytes| engine.load_state(&mut load, now, bytes)) {
            let is_empty = load.loaded() == StateLoad::new(self.at).loaded();
            let so = if is_empty { "; the gateway begins without flows" } else { "" };
            log::warn!("{shown}: {error}{so}");
            if is_empty {
                return None;
            }
        }
        match engine.end_load(&load, now) {
            Ok(loaded) => {
                let about = if self.is_approximate { " by the wall clock, as the machine has restarted" } else { "" };
                log::info!("{shown}: {loaded}; it is {} old{about}", humantime::format_duration(rounded(self.age)));
            }
            Err(error) => log::warn!("{shown}: {error}; what could be read goes on: {}", load.loaded()),
        }
        Some(state.print())
    }
}

fn no_thread(error: io::Error) -> SetupError {
    SetupError::new(format!("cannot start the thread that saves the state: {error}"), None)
}

/// Passes the records of a state to `take`, which returns how many bytes it has read; the rest comes again.
fn read_pieces<E: std::fmt::Display>(
    state: &mut State,
    mut take: impl FnMut(&[u8]) -> Result<usize, E>,
) -> Result<(), String> {
    let mut records = Vec::new();
    while state.read_piece(&mut records).map_err(|error| format!("the state cannot be read: {error}"))? {
        let read = take(&records).map_err(|error| error.to_string())?;
        records.drain(..read);
    }
    Ok(())
}

/// Rounds to what a person wants to know.
fn rounded(age: Duration) -> Duration {
    if age < Duration::from_secs(60) {
        Duration::from_millis(age.as_millis() as u64)
    } else {
        Duration::from_secs(age.as_secs())
    }
}
