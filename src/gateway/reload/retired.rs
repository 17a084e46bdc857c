//! Whether any flow is left of services, addresses or servers that the configuration no longer has.

use crate::engine::{Cursor, Engine};
use crate::time::{Duration, Instant};

/// The time between two looks at all flows.
const REST: Duration = Duration::from_secs(10);
/// The time until the first look, at the start of a process.
const SOON: Duration = Duration::from_secs(1);
/// While a look is under way: the time between its steps, and the slots of the table that a step looks at.
const PAUSE: Duration = Duration::from_millis(20);
const PORTION: usize = 1024;

/// A look at all flows that is repeated until none is left.
#[derive(Debug, Default)]
pub(super) struct Retired {
    next: Option<(Instant, Cursor)>,
}

impl Retired {
    /// Begins to look, if there may be such flows.
    pub(super) fn begin(&mut self, engine: &Engine, now: Instant) {
        self.next = engine.has_retired().then(|| (now + REST, Cursor::default()));
    }

    /// The same for flows that were there before this process: it may have none.
    pub(super) fn begin_soon(&mut self, engine: &Engine, now: Instant) {
        self.next = engine.has_retired().then(|| (now + SOON, Cursor::default()));
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.next.map(|(due, _)| due)
    }

    /// Looks at a portion of the flows if it is time for that; returns true once, when none is left.
    pub(super) fn is_over(&mut self, engine: &Engine, now: Instant) -> bool {
        let Some((_, from)) = self.next.filter(|(due, _)| *due <= now) else { return false };
        let (found, next) = engine.find_retired(from, PORTION);
        self.next = match (found, next) {
            (true, _) => Some((now + REST, Cursor::default())),
            (false, Some(next)) => Some((now + PAUSE, next)),
            (false, None) => None,
        };
        self.next.is_none()
    }
}
