//! How far something long is: on stderr, if somebody looks there and does not see the output itself grow.

#![allow(clippy::disallowed_methods, reason = "it shows how long something takes; nothing is decided by it")]

use crate::control::render;
use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

/// Work that takes longer is shown.
const LONG: Duration = Duration::from_secs(1);
/// How often.
const OFTEN: Duration = Duration::from_millis(500);

/// A line that shows how far something is, and vanishes at the end.
pub(super) struct Shown {
    what: &'static str,
    begun: Instant,
    /// When the line was written last; none if nobody looks.
    next: Option<Instant>,
    total: Option<u64>,
    is_shown: bool,
}

impl Shown {
    pub(super) fn new(what: &'static str) -> Self {
        let begun = Instant::now();
        let is_seen = io::stderr().is_terminal() && !io::stdout().is_terminal();
        Shown { what, begun, next: is_seen.then(|| begun + LONG), total: None, is_shown: false }
    }

    /// Shows how far it is, if it is time to.
    pub(super) fn show(&mut self, done: u64, total: Option<u64>) {
        let Some(next) = self.next else { return };
        let now = Instant::now();
        // With the total known, the work begins anew: first the capture is read, then replayed.
        if self.total != total {
            (self.total, self.begun) = (total, now);
        }
        if now < next {
            return;
        }
        let elapsed = u64::try_from((now - self.begun).as_millis()).unwrap_or(u64::MAX);
        let doing = if total.is_none() { "reading: " } else { "" };
        let text = render::progress(done, total, self.what, elapsed);
        let _ = write!(io::stderr(), "\r\x1b[K{doing}{text}");
        (self.next, self.is_shown) = (Some(now + OFTEN), true);
    }
}

impl Drop for Shown {
    fn drop(&mut self) {
        if self.is_shown {
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
    }
}
