//! Requests that the gateway answers later, because they take longer than a packet may wait: reloads.

use super::protocol::ReloadRow;
use crate::config::changes::Who;
use std::collections::{BTreeMap, VecDeque};

/// The most results that wait for their sessions; those of sessions that have ended are the oldest.
const MOST_RESULTS: usize = 32;

/// Identifies a request at the desk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticket(u64);

/// What a reload is asked to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ReloadOrder {
    /// Whether what needs a restart is left out, instead of refusing all of it.
    pub partial: bool,
    /// Whether the flows of removed servers end at once.
    pub now: bool,
    /// Who asked; none where nobody did by the control socket.
    pub who: Option<Who>,
}

/// What became of a reload: the changes, or why nothing was changed.
pub type Reloaded = Result<Vec<ReloadRow>, String>;

/// Where sessions leave requests, and find what became of them.
#[derive(Debug, Default)]
pub struct Desk {
    last: u64,
    orders: VecDeque<(Ticket, ReloadOrder)>,
    results: BTreeMap<Ticket, Reloaded>,
}

impl Desk {
    /// Asks for a reload.
    pub fn ask(&mut self, order: ReloadOrder) -> Ticket {
        self.last += 1;
        self.orders.push_back((Ticket(self.last), order));
        Ticket(self.last)
    }

    /// Returns the next request, which [`Desk::answer`] answers.
    pub fn take_order(&mut self) -> Option<(Ticket, ReloadOrder)> {
        self.orders.pop_front()
    }

    /// Returns whether any request waits.
    pub fn has_orders(&self) -> bool {
        !self.orders.is_empty()
    }

    /// Leaves what became of a request.
    pub fn answer(&mut self, ticket: Ticket, result: Reloaded) {
        self.results.insert(ticket, result);
        while self.results.len() > MOST_RESULTS {
            self.results.pop_first();
        }
    }

    /// Takes what became of a request, if it is known.
    pub(super) fn take(&mut self, ticket: Ticket) -> Option<Reloaded> {
        self.results.remove(&ticket)
    }
}
