//! The thread that writes the file, so that no packet waits for a disk.

use super::file::{Draft, Header};
use super::lock::{Lock, LockError};
use crate::config::Settings;
use crate::control::LedgerCopy;
use crate::engine::{Note, write_note};
use crate::gateway::confine;
use crate::sources::{self, Found};
use crate::time;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::thread;
use std::time::Instant;

/// Portions that wait for the thread.
const ROOM: usize = 16;

enum Message {
    Confine,
    Begin(Header),
    Bytes(Vec<u8>),
    Notes(Box<Notes>),
    End,
}

/// What the gateway adds to the state of its engine.
#[derive(Debug)]
pub(super) struct Notes {
    /// What operators changed.
    pub(super) changes: LedgerCopy,
    /// The time of the state.
    pub(super) at: time::Instant,
    pub(super) settings: Arc<Settings>,
    /// Servers from outside.
    pub(super) found: Found,
}

impl Notes {
    fn write(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        write_note(Note::Changes, &self.changes.write(self.at), &mut bytes);
        if !self.found.is_empty() {
            write_note(Note::Servers, &sources::save(&self.settings.sources, &self.found), &mut bytes);
        }
        bytes
    }
}

/// The loop's side of the thread.
#[derive(Debug)]
pub(super) struct Saver {
    to: SyncSender<Message>,
    results: Receiver<io::Result<u64>>,
    written: Receiver<()>,
    /// Portions that were given to the thread and are not written.
    waiting: usize,
    /// Whether it has written any since somebody asked.
    has_moved: bool,
    /// Files that were ended and of which nothing is known yet.
    ended: usize,
}

impl Saver {
    /// Starts the thread that writes `path`. Without the lock it takes it before it writes.
    pub(super) fn start(path: &Path, lock: Option<Lock>) -> io::Result<Saver> {
        // More than the loop ever queues: it never waits here.
        let (to, from) = sync_channel(ROOM * 4);
        let (results_to, results) = sync_channel(ROOM * 4);
        let (written_to, written) = sync_channel(ROOM * 4);
        let path = path.to_owned();
        let write = move || write_files((&path, lock), &from, &results_to, &written_to);
        thread::Builder::new().name("state".into()).spawn(write)?;
        Ok(Saver { to, results, written, waiting: 0, has_moved: false, ended: 0 })
    }

    /// Returns whether the thread has written anything since the last call, as far as is known.
    pub(super) fn take_progress(&mut self) -> bool {
        std::mem::take(&mut self.has_moved)
    }

    /// Returns whether the thread has something to do, as far as is known.
    pub(super) fn is_busy(&self) -> bool {
        self.waiting > 0 || self.ended > 0
    }

    /// Returns whether the thread has enough to do.
    pub(super) fn is_behind(&mut self) -> bool {
        while self.written.try_recv().is_ok() {
            self.waiting -= 1;
            self.has_moved = true;
        }
        self.waiting >= ROOM
    }

    /// Makes the thread give up every privilege that it does not need.
    pub(super) fn confine(&self) {
        let _ = self.to.send(Message::Confine);
    }

    /// Begins a file; one that has not ended is given up.
    pub(super) fn begin(&mut self, header: Header) {
        let _ = self.to.send(Message::Begin(header));
    }

    /// Appends a portion.
    pub(super) fn write(&mut self, bytes: Vec<u8>) {
        self.waiting += 1;
        let _ = self.to.send(Message::Bytes(bytes));
    }

    /// Adds notes, behind everything else.
    pub(super) fn write_notes(&mut self, notes: Notes) {
        self.waiting += 1;
        let _ = self.to.send(Message::Notes(Box::new(notes)));
    }

    /// Ends the file.
    pub(super) fn end(&mut self) {
        self.ended += 1;
        let _ = self.to.send(Message::End);
    }

    /// Returns the length of a file that has been written since the last call, or why it was not.
    pub(super) fn poll(&mut self) -> Option<io::Result<u64>> {
        match self.results.try_recv() {
            Ok(result) => {
                self.ended -= 1;
                Some(result)
            }
            Err(TryRecvError::Empty | TryRecvError::Disconnected) => None,
        }
    }

    /// Waits for the last file; none if that takes longer than until `end`.
    #[allow(clippy::disallowed_methods, reason = "it waits for the disk")]
    pub(super) fn finish(&mut self, end: Instant) -> Option<io::Result<u64>> {
        let mut last = None;
        while self.ended > 0 {
            let left = end.saturating_duration_since(Instant::now());
            last = Some(self.results.recv_timeout(left).ok()?);
            self.ended -= 1;
        }
        last
    }
}

/// Writes files until nobody sends any more.
fn write_files(
    (path, mut lock): (&Path, Option<Lock>),
    from: &Receiver<Message>,
    results: &SyncSender<io::Result<u64>>,
    written: &SyncSender<()>,
) {
    let mut draft: Option<io::Result<Draft>> = None;
    while let Ok(message) = from.recv() {
        match message {
            Message::Confine => confine::writing_thread(super::file::directory(path)),
            Message::Begin(header) => {
                // One that is given up goes before its name is used again.
                drop(draft.take());
                draft = Some(begin(path, &mut lock, &header));
            }
            Message::Bytes(bytes) => {
                append(&mut draft, &bytes);
                // Nobody may be waiting any more.
                let _ = written.try_send(());
            }
            Message::Notes(notes) => {
                append(&mut draft, &notes.write());
                let _ = written.try_send(());
            }
            Message::End => {
                let result = draft.take().unwrap_or_else(|| Err(io::ErrorKind::NotFound.into()));
                let _ = results.send(result.and_then(Draft::finish));
            }
        }
    }
}

fn append(draft: &mut Option<io::Result<Draft>>, bytes: &[u8]) {
    if let Some(Ok(file)) = draft
        && let Err(error) = file.write(bytes)
    {
        *draft = Some(Err(error));
    }
}

/// Begins a file, for which the lock is needed.
fn begin(path: &Path, lock: &mut Option<Lock>, header: &Header) -> io::Result<Draft> {
    if lock.is_none() {
        *lock = Some(Lock::take(path, true).map_err(|error| match error {
            LockError::Io(error) => io::Error::new(error.kind(), format!("its lock file: {error}")),
            held @ LockError::Held(_) => io::Error::new(io::ErrorKind::WouldBlock, held.to_string()),
        })?);
    }
    Draft::create(path, header)
}

#[cfg(test)]
mod tests {
    use super::super::file::{Clocks, State};
    use super::*;

    fn in_a_minute() -> Instant {
        Instant::now() + std::time::Duration::from_secs(60)
    }

    fn records(path: &Path) -> Vec<u8> {
        State::open(path).unwrap().unwrap().records().unwrap()
    }

    fn header() -> Header {
        Header { clocks: Clocks::read() }
    }

    #[test]
    fn files_are_written_one_after_the_other_and_the_last_is_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state");
        let mut saver = Saver::start(&path, None).unwrap();
        for text in [&b"one"[..], b"two", b"three"] {
            saver.begin(header());
            saver.write(text.to_vec());
            // Given up.
            saver.begin(header());
            saver.write(text.to_vec());
            saver.write(b" more".to_vec());
            saver.end();
        }
        assert!(saver.finish(in_a_minute()).unwrap().is_ok());
        assert_eq!(records(&path), b"three more");
    }

    #[test]
    fn only_the_holder_of_the_lock_writes_and_the_next_one_does_once_it_is_free() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state");
        let lock = Lock::take(&path, false).unwrap();
        let (mut first, mut second) = (Saver::start(&path, Some(lock)).unwrap(), Saver::start(&path, None).unwrap());
        let save = |saver: &mut Saver, text: &[u8]| {
            saver.begin(header());
            saver.write(text.to_vec());
            saver.end();
            saver.finish(in_a_minute()).unwrap()
        };
        save(&mut first, b"first").unwrap();
        let error = save(&mut second, b"second").unwrap_err();
        assert_eq!(error.to_string(), "another gateway keeps its state in this file");
        assert_eq!(records(&path), b"first");
        drop(first);
        // Its thread ends a moment later.
        while save(&mut second, b"second").is_err() {}
        assert_eq!(records(&path), b"second");
    }

    #[test]
    fn a_directory_that_is_not_there_is_an_error_and_no_end() {
        let dir = tempfile::tempdir().unwrap();
        let mut saver = Saver::start(&dir.path().join("none/state"), None).unwrap();
        for _ in 0..2 {
            saver.begin(header());
            saver.write(b"x".to_vec());
            saver.end();
        }
        assert_eq!(saver.finish(in_a_minute()).unwrap().unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
