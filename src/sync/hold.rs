//! Answers of servers to SYNs that wait until the peer knows the connection: its client begins to send only when either gateway
//! can go on with it.
//!
//! It must not know packets: the driver keeps them.

use super::event::Event;
use super::link::Link;
use super::node::Node;
use crate::engine::Engine;
use crate::flow::Table;
use crate::ids::FlowId;
use crate::time::{Duration, Instant};
use std::collections::VecDeque;

/// For how long an answer waits at most.
const LONGEST: Duration = Duration::from_millis(20);
/// Most answers that wait. With more, none waits until all of these have gone.
const MOST_HELD: usize = 4096;

/// An answer that waits.
#[derive(Debug, Clone, Copy)]
pub(super) struct Held {
    pub flow: FlowId,
    until: Instant,
    /// The frame that tells the peer of the flow, once it is written.
    pub told: Option<u64>,
}

/// The answers that wait, oldest first, and those that can be sent on.
#[derive(Debug, Default)]
pub(super) struct Holding {
    is_on: bool,
    is_suspended: bool,
    pub held: VecDeque<Held>,
    released: VecDeque<FlowId>,
    totals: HoldTotals,
}

/// What has become of answers that were to wait until the peer knows their connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct HoldTotals {
    /// Those that have waited, or still do.
    pub held: u64,
    /// Those that the peer has acknowledged.
    pub known: u64,
    /// Those that went without an acknowledgement: after 20 ms, or because the peer was lost meanwhile.
    pub late: u64,
    /// Those that did not wait: too many did, or the peer does not know all flows of this gateway.
    pub not_held: u64,
}

impl Holding {
    /// Returns when the oldest one can wait no longer.
    pub(super) fn due(&self) -> Option<Instant> {
        self.held.front().map(|held| held.until)
    }

    /// Returns whether the peer is to be told of some.
    pub(super) fn has_news(&self) -> bool {
        self.held.back().is_some_and(|held| held.told.is_none())
    }

    fn release(&mut self, is_over: impl Fn(&Held) -> bool) -> u64 {
        let mut count = 0;
        while let Some(held) = self.held.pop_front_if(|held| is_over(held)) {
            self.released.push_back(held.flow);
            count += 1;
        }
        count
    }

    pub(super) fn memory(&self) -> usize {
        self.held.capacity() * size_of::<Held>() + self.released.capacity() * size_of::<FlowId>()
    }
}

impl Node {
    /// Lets answers to SYNs wait until the peer knows their connections, or no longer; initially they do not.
    pub fn hold_answers(&mut self, on: bool) {
        self.holding.is_on = on;
    }

    /// Returns whether the first answer of the server of this half-open flow is to wait until [`Node::poll_released`] returns the
    /// flow, at most 20 ms; call [`Node::poll_output`] then. Only while this gateway is active and in step with its peer, and
    /// at most 4,096 wait.
    pub fn holds(&mut self, now: Instant, flow: FlowId) -> bool {
        let holding = &mut self.holding;
        if !(holding.is_on && self.role.is_active() && Table::is_half_open(flow.index)) {
            return false;
        }
        let is_full = !holding.is_suspended && holding.held.len() >= MOST_HELD;
        holding.is_suspended |= is_full;
        if holding.is_suspended || !self.link.as_deref().is_some_and(Link::in_step) {
            holding.totals.not_held += 1;
            if is_full {
                self.report(Event::Holding { on: false });
            }
            return false;
        }
        holding.totals.held += 1;
        holding.held.push_back(Held { flow, until: now + LONGEST, told: None });
        true
    }

    /// Counts an answer for which the driver has no room: it does not wait.
    pub fn cannot_hold(&mut self) {
        self.holding.totals.not_held += 1;
    }

    /// Returns whether answers to SYNs are to wait, if there is a peer.
    pub fn holds_answers(&self) -> bool {
        self.holding.is_on
    }

    /// Returns the next flow whose answer is to be sent on, which may have ended meanwhile.
    pub fn poll_released(&mut self) -> Option<FlowId> {
        self.holding.released.pop_front()
    }

    /// Returns what has become of answers that were to wait.
    pub fn held_answers(&self) -> HoldTotals {
        self.holding.totals
    }

    /// Lets all answers go that wait: nobody will ask for them later.
    pub fn release_all(&mut self) {
        self.holding.totals.late += self.holding.release(|_| true);
        self.resume_holding();
    }

    /// Releases those that the peer knows.
    pub(super) fn release_known(&mut self, acked: u64) {
        self.holding.totals.known += self.holding.release(|held| held.told.is_some_and(|told| told <= acked));
        self.resume_holding();
    }

    /// Releases those that can wait no longer: all of them if the peer is gone.
    pub(super) fn release_due(&mut self, now: Instant) {
        let is_alone = !self.role.is_active() || !self.link.as_deref().is_some_and(Link::in_step);
        self.holding.totals.late += self.holding.release(|held| is_alone || held.until <= now);
        self.resume_holding();
    }

    fn resume_holding(&mut self) {
        if self.holding.is_suspended && self.holding.held.is_empty() {
            self.holding.is_suspended = false;
            self.report(Event::Holding { on: true });
        }
    }

    /// Writes the records of flows whose answers wait; returns whether there is any.
    pub(super) fn give_held(&mut self, now: Instant, engine: &Engine, link: &mut Link, body: &mut Vec<u8>) -> usize {
        let mut written = 0;
        let first = self.holding.held.partition_point(|held| held.told.is_some());
        for held in self.holding.held.range_mut(first..) {
            if body.len() >= super::give::MOST_RECORDS {
                break;
            }
            // One that has ended meanwhile is acknowledged with the others.
            if let Some(flow) = engine.half_open_flow(held.flow) {
                engine.give_half_open(&mut link.giving, now, flow, body);
            }
            held.told = Some(link.sent + 1);
            written += 1;
        }
        written
    }
}
