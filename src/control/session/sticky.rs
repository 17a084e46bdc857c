//! Lists of sticky clients, and clients that are to be forgotten, piece by piece.

use super::super::protocol::{Answer, ClearedRow, Done};
use super::Floor;
use crate::engine::{StickyQuery, StickyRow, StickyWalk};
use crate::sync::ClearOrder;
use std::collections::VecDeque;

/// Clients looked at per call.
const CLIENTS: usize = 256;
/// Most forgotten clients that an answer lists.
const LISTED: usize = 100;

/// A walk over the sticky clients.
#[derive(Debug)]
pub(super) struct Sticky {
    walk: StickyWalk,
    query: StickyQuery,
    does: Does,
}

#[derive(Debug)]
enum Does {
    List {
        left: u64,
        rows: u64,
    },
    Clear {
        row: ClearedRow,
        /// What the other gateway is to hear of at the end.
        order: Option<ClearOrder>,
    },
}

/// How a walk ended.
pub(super) enum End {
    Listed,
    Cleared(ClearedRow),
    Failed(&'static str),
}

impl Sticky {
    pub(super) fn list(walk: StickyWalk, query: StickyQuery, limit: Option<u64>) -> Self {
        Sticky { walk, query, does: Does::List { left: limit.unwrap_or(u64::MAX), rows: 0 } }
    }

    pub(super) fn clear(walk: StickyWalk, query: StickyQuery, order: Option<ClearOrder>) -> Self {
        Sticky { walk, query, does: Does::Clear { row: ClearedRow::default(), order } }
    }

    /// Does a bounded amount of work; returns what is left to do.
    pub(super) fn go_on(mut self, floor: &mut Floor<'_>, pending: &mut VecDeque<Answer>) -> Result<Self, End> {
        let mut found: Vec<StickyRow> = Vec::new();
        let goes_on = floor.engine.sticky(floor.now, (&mut self.walk, &self.query), CLIENTS, &mut found);
        let Some(goes_on) = goes_on else {
            return Err(End::Failed(match self.does {
                Does::List { .. } => "another list of sticky clients has begun meanwhile: try again",
                Does::Clear { .. } => {
                    "another request to clear sticky clients has begun meanwhile, and this one is incomplete: try again"
                }
            }));
        };
        match &mut self.does {
            Does::List { left, rows } => {
                let more = found.len() as u64 > *left;
                found.truncate(usize::try_from(*left).unwrap_or(usize::MAX));
                (*left, *rows) = (*left - found.len() as u64, *rows + found.len() as u64);
                pending.extend(found.into_iter().map(|row| Answer::Sticky(Box::new(row))));
                if more || !goes_on {
                    pending.push_back(Answer::Done(Done { rows: *rows, more }));
                    return Err(End::Listed);
                }
            }
            Does::Clear { row, order } => {
                row.clients += found.len() as u64;
                let room = LISTED.saturating_sub(row.before.len());
                row.before.extend(found.into_iter().take(room));
                if !goes_on {
                    if let Some(pair) = &mut floor.pair {
                        pair.node.clear_sticky(*order, self.query.clone());
                    }
                    let mut row = std::mem::take(row);
                    row.changed = row.clients > 0;
                    row.text = text(&self.query, row.clients);
                    return Err(End::Cleared(row));
                }
            }
        }
        Ok(self)
    }
}

fn text(query: &StickyQuery, clients: u64) -> String {
    let mut of = String::new();
    for (what, name) in [("service", &query.service), ("server", &query.server)] {
        of += &name.as_ref().map_or(String::new(), |name| format!(", {what} {name}"));
    }
    of += &query.client.map_or(String::new(), |net| format!(", client {net}"));
    match clients {
        0 => format!("no sticky client matches{of}"),
        1 => format!("1 sticky client forgotten{of}"),
        more => format!("{more} sticky clients forgotten{of}"),
    }
}
