//! The state of the engine in a file, so that flows go on after a stop, a crash or a restart of the machine's services.
//!
//! `file` is the format, `saver` the thread that writes it; this module feeds the thread, a few records at a time between
//! packets, and reads the file at the start. It must not know what the records mean.

pub mod file;
mod lock;
mod saver;

use super::setup::SetupError;
use crate::engine::{Engine, Loaded, StateLoad, StateWalk};
use crate::time::{Duration, Instant};
use file::{Clocks, Header, Print, State};
use lock::{Lock, LockError};
use saver::Saver;
use std::io;
use std::path::{Path, PathBuf};
use std::thread;

/// Slots that one portion looks at, while packets wait (`cargo bench --bench state`).
const PORTION: usize = 2048;
/// The time between two portions.
const PAUSE: Duration = Duration::from_millis(5);
/// The time until the first state.
const SOON: Duration = Duration::from_secs(1);
/// How long the end of the process waits until the last state is on the disk.
const LAST: Duration = Duration::from_secs(20);
/// From how long on the disk takes too long for a state.
const TOO_LONG: Duration = Duration::from_secs(60);

/// Saves the state of an engine at intervals, and at the end.
pub(super) struct Keeping {
    saver: Saver,
    path: PathBuf,
    interval: Duration,
    walk: Option<StateWalk>,
    due: Instant,
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
        Ok(Keeping { saver, path: path.into(), interval, walk: None, due, stuck_since: None, has_failed: false })
    }

    /// Makes the thread give up every privilege that it does not need.
    pub(super) fn confine(&self) {
        self.saver.confine();
    }

    /// Returns when there is work to do.
    pub(super) fn poll_timeout(&self) -> Instant {
        self.due
    }

    /// Does what is due: begins a state, writes a portion of it, or notes how it went.
    pub(super) fn work(&mut self, engine: &mut Engine, now: Instant) {
        while let Some(result) = self.saver.poll() {
            self.stuck_since = None;
            self.note(result);
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
        if self.portion(engine, now, PORTION, false) {
            self.due = now + self.interval;
        } else {
            self.due = now + PAUSE;
        }
    }

    /// Saves the state at the end, after the last packet; returns whether it is on the disk.
    #[allow(clippy::disallowed_methods, reason = "it waits for the disk, and nothing else goes on")]
    pub(super) fn save_last(&mut self, engine: &mut Engine, now: Instant) -> bool {
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
            if self.portion(engine, now, PORTION * 16, true) {
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
    fn portion(&mut self, engine: &mut Engine, now: Instant, most: usize, is_final: bool) -> bool {
        let mut bytes = Vec::new();
        let walk = match &mut self.walk {
            Some(walk) => walk,
            None => {
                self.saver.begin(Header { clocks: Clocks::read() });
                self.walk.insert(StateWalk::new(now, is_final))
            }
        };
        let done = engine.write_state(walk, now, most, &mut bytes);
        self.saver.write(bytes);
        if done {
            self.walk = None;
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

/// Loads the state of an earlier gateway into a new engine, logs what goes on and what does not, and begins to save that of
/// this one. Without a file, or with one that cannot be read, the engine begins empty; in the place of a file that is no
/// state, none is saved.
///
/// # Errors
/// If another gateway has the file, or the thread that writes it cannot be started.
pub(super) fn keep(
    path: &Path,
    interval: Duration,
    engine: &mut Engine,
    now: Instant,
) -> Result<Option<Keeping>, SetupError> {
    // A link leads to the file that is replaced, and to the directory in which that happens.
    let path = &path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let shown = path.display();
    let mut lock = match Lock::take(path, false) {
        Ok(lock) => Some(lock),
        Err(LockError::Io(_)) => None,
        Err(held @ LockError::Held(_)) => {
            let fix = "stop it, or give this one its own `state-file`".to_owned();
            return Err(SetupError::new(format!("{shown}: {held}"), fix));
        }
    };
    let began_with = match State::open(path) {
        Ok(None) => {
            log::info!("{shown}: no state of an earlier gateway");
            None
        }
        Ok(Some(state)) => load(path, state, lock.as_ref(), engine, now),
        Err(error) if error.is_anothers() => {
            log::warn!(
                "{shown}: {error}; the gateway begins without flows and leaves the file alone, so no flow will outlive it: \
                 remove the file or name another one, and restart the gateway"
            );
            return Ok(None);
        }
        Err(error) => {
            log::warn!("{shown}: {error}; the gateway begins without flows");
            None
        }
    };
    if let Some(Err(error)) = lock.as_mut().map(|lock| lock.note(began_with)) {
        log::warn!("{shown}: its lock file cannot be written: {error}");
    }
    let failed = |error| SetupError::new(format!("cannot start the thread that saves the state: {error}"), None);
    Keeping::start(path, lock, interval, now).map(Some).map_err(failed)
}

/// Loads a state; returns its print if it could be read.
fn load(path: &Path, mut state: State, lock: Option<&Lock>, engine: &mut Engine, now: Instant) -> Option<Print> {
    let shown = path.display();
    let (age, is_approximate) = state.header.clocks.age(&Clocks::read());
    let begin = now.as_nanos().saturating_sub(u64::try_from(age.as_nanos()).unwrap_or(u64::MAX));
    let mut load = StateLoad::new(Instant::from_nanos(begin));
    // A gateway that was killed before it saved a state has forwarded packets after this one.
    if lock.is_none_or(|lock| lock.is_used(state.print())) {
        load.outdated();
    }
    let mut records = Vec::new();
    loop {
        match state.read_piece(&mut records) {
            Ok(true) => {}
            Ok(false) => break,
            Err(error) => {
                log::warn!("{shown}: the state cannot be read: {error}");
                break;
            }
        }
        match engine.load_state(&mut load, now, &records) {
            Ok(read) => drop(records.drain(..read)),
            Err(error) => {
                log::warn!("{shown}: {error}; the gateway begins without flows");
                return None;
            }
        }
    }
    let loaded: Loaded = load.loaded();
    match engine.end_load(load, now) {
        Ok(loaded) => {
            let about = if is_approximate { " by the wall clock, as the machine has restarted" } else { "" };
            log::info!("{shown}: {loaded}; it is {} old{about}", humantime::format_duration(rounded(age)));
        }
        Err(error) => log::warn!("{shown}: {error}; what could be read goes on: {loaded}"),
    }
    Some(state.print())
}

/// Rounds to what a person wants to know.
fn rounded(age: Duration) -> Duration {
    if age < Duration::from_secs(60) {
        Duration::from_millis(age.as_millis() as u64)
    } else {
        Duration::from_secs(age.as_secs())
    }
}
