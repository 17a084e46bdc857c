//! The state of what the gateway installed in the system, and of its sources of servers, as reported to control sessions.

use super::protocol::{RepairRow, SourceRow, TroubleRow};
use crate::sources::SourceState;
use crate::time::{Duration, Instant};

/// What is missing of what the gateway installed, and what was restored.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SystemState {
    /// Parts restored since the start.
    pub repairs: u64,
    /// When the last repair was, and what the log says about it.
    pub last: Option<(Instant, String)>,
    /// What does not work at the moment.
    pub troubles: Vec<Trouble>,
}

/// A part that does not work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trouble {
    /// Its name.
    pub part: String,
    /// What is wrong with it.
    pub what: String,
    /// Since when.
    pub since: Instant,
    /// When it will be repaired; `None` if it cannot be.
    pub next: Option<Instant>,
    /// How often it has gone missing, without a quiet minute between.
    pub times: u64,
}

impl SystemState {
    /// Returns the rows of `eqctl status`.
    pub(super) fn rows(&self, now: Instant) -> (Option<RepairRow>, Vec<TroubleRow>) {
        let last =
            self.last.as_ref().map(|(at, what)| RepairRow { what: what.clone(), ago_ms: millis(now.since(*at)) });
        let row = |trouble: &Trouble| TroubleRow {
            part: trouble.part.clone(),
            what: trouble.what.clone(),
            for_ms: millis(now.since(trouble.since)),
            next_ms: trouble.next.map(|next| millis(next.since(now))),
            times: trouble.times,
        };
        (last, self.troubles.iter().map(row).collect())
    }
}

/// Returns the row of `eqctl sources` for a source.
pub(super) fn source_row(state: &SourceState, now: Instant) -> SourceRow {
    SourceRow {
        pool: state.settings.pool.clone(),
        kind: state.settings.from.kind().into(),
        from: state.settings.from.to_string(),
        servers: state.list.as_ref().map_or(0, |list| list.len()) as u64,
        names: state.list.iter().flat_map(|list| list.iter().map(|server| server.name.clone())).collect(),
        good_ms: state.good.map(|good| millis(now.since(good))),
        next_ms: if state.is_busy { 0 } else { millis(state.next.since(now)) },
        error: state.trouble.as_ref().map(|(_, text)| text.clone()),
        error_for_ms: state.trouble.as_ref().map(|(since, _)| millis(now.since(*since))),
        left_out: state.left_out.clone(),
    }
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}
