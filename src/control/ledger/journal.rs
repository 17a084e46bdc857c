//! Who changed what and when: the latest entries, and the lines for the log.

use crate::config::changes::Who;
use crate::time::Instant;
use std::collections::VecDeque;

/// Most entries that are kept.
const MOST: usize = 256;

/// One entry.
#[derive(Debug, Clone)]
pub(super) struct Note {
    pub(super) at: Instant,
    pub(super) who: Option<Who>,
    pub(super) what: String,
}

/// The journal.
#[derive(Debug, Default)]
pub(super) struct Journal {
    notes: VecDeque<Note>,
    /// Lines that the driver has not logged yet.
    lines: VecDeque<String>,
}

/// Adds one; the oldest makes room.
fn put<T>(all: &mut VecDeque<T>, one: T) {
    if all.len() == MOST {
        all.pop_front();
    }
    all.push_back(one);
}

impl Journal {
    /// Adds an entry; each line of `what` is one.
    pub(super) fn note(&mut self, at: Instant, who: Option<Who>, what: &str) {
        for what in what.lines() {
            put(&mut self.notes, Note { at, who, what: what.to_owned() });
            put(&mut self.lines, who.map_or(what.to_owned(), |who| format!("{who}: {what}")));
        }
    }

    /// Adds an entry of an earlier gateway.
    pub(super) fn remember(&mut self, note: Note) {
        put(&mut self.notes, note);
    }

    /// Adds an entry about what the log has already.
    pub(super) fn note_logged(&mut self, at: Instant, who: Option<Who>, what: String) {
        put(&mut self.notes, Note { at, who, what });
    }

    pub(super) fn notes(&self) -> impl Iterator<Item = &Note> {
        self.notes.iter()
    }

    /// Returns the next line for the log.
    pub(super) fn poll_line(&mut self) -> Option<String> {
        self.lines.pop_front()
    }
}
