//! The last changes of one server's health, for the question "since when, and why?".

use super::why::Why;
use crate::time::Instant;
use serde::{Serialize, Serializer};
use std::collections::VecDeque;

/// Entries kept a server; the oldest goes first.
pub const KEPT: usize = 32;

/// What happened to a server, or one port of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct HistoryEntry {
    /// When; in nanoseconds since the driver's origin where serialized.
    #[serde(serialize_with = "nanos", rename = "at_ns")]
    pub at: Instant,
    /// Whether it was its IPv6 address.
    pub v6: bool,
    /// The port; none: the whole address.
    pub port: Option<u16>,
    /// What happened.
    pub what: Happened,
    /// Why.
    pub why: Why,
}

/// What can happen to a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Happened {
    /// It came up.
    Up,
    /// It went down.
    Down,
    /// Its monitors say down, but the floor keeps it in.
    Held,
}

impl Happened {
    /// The word used in tables.
    pub const fn name(self) -> &'static str {
        match self {
            Happened::Up => "up",
            Happened::Down => "down",
            Happened::Held => "held",
        }
    }
}

fn nanos<S: Serializer>(at: &Instant, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u64(at.as_nanos())
}

/// A bounded list of entries.
#[derive(Debug, Clone, Default)]
pub(super) struct History(VecDeque<HistoryEntry>);

impl History {
    pub fn push(&mut self, entry: HistoryEntry) {
        if self.0.len() == KEPT {
            self.0.pop_front();
        }
        self.0.push_back(entry);
    }

    pub fn iter(&self) -> impl Iterator<Item = &HistoryEntry> {
        self.0.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_entries_go_first() {
        let mut history = History::default();
        for i in 0..40 {
            let at = Instant::from_nanos(i);
            history.push(HistoryEntry { at, v6: false, port: None, what: Happened::Up, why: Why::Forced });
        }
        let at: Vec<u64> = history.iter().map(|entry| entry.at.as_nanos()).collect();
        assert_eq!(at, (8..40).collect::<Vec<u64>>());
    }
}
