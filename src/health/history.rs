//! The latest changes of the health of a server.

use super::why::Why;
use crate::time::Instant;
use serde::{Serialize, Serializer};
use std::collections::VecDeque;

/// Entries kept per server; the oldest is dropped first.
pub(super) const KEPT: usize = 32;

/// A change of a server, or of one of its ports.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct HistoryEntry {
    /// Its time; serialized in nanoseconds since the origin of the driver's clock.
    #[serde(serialize_with = "nanos", rename = "at_ns")]
    pub at: Instant,
    /// Whether it concerns the IPv6 address.
    pub v6: bool,
    /// The port; none for the whole address.
    pub port: Option<u16>,
    /// The kind of change.
    pub what: Happened,
    /// Its reason.
    pub why: Why,
}

/// The kinds of changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Happened {
    /// It came up.
    Up,
    /// It went down.
    Down,
    /// Its monitors consider it down, but the floor keeps it in service.
    KeptByFloor,
}

impl Happened {
    /// Returns the word used in tables.
    pub const fn name(self) -> &'static str {
        match self {
            Happened::Up => "up",
            Happened::Down => "down",
            Happened::KeptByFloor => "kept-by-floor",
        }
    }
}

fn nanos<S: Serializer>(at: &Instant, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u64(at.as_nanos())
}

/// A bounded list of changes.
#[derive(Debug, Clone, Default)]
pub(super) struct History(VecDeque<HistoryEntry>);

impl History {
    pub(super) fn push(&mut self, entry: HistoryEntry) {
        if self.0.len() == KEPT {
            self.0.pop_front();
        }
        self.0.push_back(entry);
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &HistoryEntry> {
        self.0.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_entries_are_dropped_first() {
        let mut history = History::default();
        for i in 0..40 {
            let at = Instant::from_nanos(i);
            history.push(HistoryEntry { at, v6: false, port: None, what: Happened::Up, why: Why::Forced });
        }
        let at: Vec<u64> = history.iter().map(|entry| entry.at.as_nanos()).collect();
        assert_eq!(at, (8..40).collect::<Vec<u64>>());
    }
}
