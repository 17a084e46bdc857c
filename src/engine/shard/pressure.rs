//! Want of room as a state: when it began, which flows have given way since, how many were refused.

use super::super::{Count, Event, PressureRow, Short};
use crate::bucket::Bucket;
use crate::flow::Class;
use crate::time::{Duration, Instant};

/// It ends after this long without a flow that gave way or was refused.
const QUIET: Duration = Duration::from_secs(60);
/// Maximum number of settled flows per second that give way: a flood of real connections takes minutes to displace the
/// idle flows of others, and is in the log by then.
const SETTLED_PER_SECOND: u32 = 1000;

/// One shortage, from its first flow that gave way or was refused to the last.
#[derive(Debug, Clone, Copy)]
struct Since {
    began: Instant,
    last: Instant,
    gave_way: [u64; Class::ALL.len()],
    refused: u64,
}

/// The shortages, and their totals.
#[derive(Debug, Default)]
pub(in crate::engine) struct Pressure {
    /// By [`Short`].
    now: [Option<Since>; Short::ALL.len()],
    gave_way: [u64; Class::ALL.len()],
    settled: Bucket,
}

impl Pressure {
    /// Returns whether another settled flow may give way.
    pub(in crate::engine) fn may_take_settled(&self, now: Instant) -> bool {
        self.settled.take(now, SETTLED_PER_SECOND, 0).is_some()
    }

    /// Notes that a flow of a class gave way, or that a new flow was refused; returns whether this begins a shortage.
    pub(super) fn note(&mut self, now: Instant, of: Short, gave_way: Option<Class>) -> bool {
        let begins = self.now[of as usize].is_none();
        let since = Since { began: now, last: now, gave_way: [0; Class::ALL.len()], refused: 0 };
        let since = self.now[of as usize].get_or_insert(since);
        since.last = now;
        match gave_way {
            None => since.refused += 1,
            Some(class) => {
                since.gave_way[class as usize] += 1;
                self.gave_way[class as usize] += 1;
            }
        }
        if gave_way == Some(Class::Settled) {
            let taken = self.settled.take(now, SETTLED_PER_SECOND, 0);
            debug_assert!(taken.is_some(), "more settled flows gave way than may");
            self.settled = taken.unwrap_or(self.settled);
        }
        begins
    }

    /// Returns the flows that gave way since the start, by class.
    pub(super) fn gave_way(&self) -> &[u64] {
        &self.gave_way
    }

    /// Ends a shortage that is over, and returns the event that says so.
    pub(super) fn relieved(&mut self, now: Instant) -> Option<Event> {
        let what = Short::ALL.into_iter().find(|of| self.end(*of).is_some_and(|end| end <= now))?;
        let since = self.now[what as usize].take()?;
        let for_ms = millis(since.last.since(since.began));
        Some(Event::Relieved { what, for_ms, gave_way: counts(&since.gave_way), refused: since.refused })
    }

    fn end(&self, of: Short) -> Option<Instant> {
        self.now[of as usize].map(|since| since.last + QUIET)
    }

    /// Returns when the next shortage is over, if nothing more gives way.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        Short::ALL.into_iter().filter_map(|of| self.end(of)).min()
    }

    /// Returns the shortages that are going on.
    pub(in crate::engine) fn rows(&self, now: Instant) -> Vec<PressureRow> {
        let row = |of: Short| {
            let since = self.now[of as usize]?;
            let (for_ms, gave_way) = (millis(now.since(since.began)), counts(&since.gave_way));
            Some(PressureRow { of, for_ms, gave_way, refused: since.refused })
        };
        Short::ALL.into_iter().filter_map(row).collect()
    }
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

fn counts(counts: &[u64]) -> Vec<Count<Class>> {
    Class::ALL.into_iter().zip(counts).map(|(kind, count)| Count { kind, count: *count }).collect()
}
