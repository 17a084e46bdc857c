//! How flows end, and who is told.

use super::{Ended, Engine, Event, Reason};
use crate::packet::Side;
use crate::time::Instant;

/// Most flows that one call of `handle_timeout` ends.
const MOST_EXPIRED: usize = 256;
/// Most events that wait for `poll_event`.
pub(super) const MOST_EVENTS: usize = 1024;

impl Engine {
    pub(super) fn expire(&mut self, now: Instant) {
        for _ in 0..MOST_EXPIRED {
            match self.table.first_to_expire() {
                Some((when, index)) if when <= now => self.end(now, index, Ended::Expired),
                _ => return,
            }
        }
    }

    /// Gives up one flow for a new one, or refuses.
    pub(super) fn make_room(&mut self, now: Instant) -> Result<(), Reason> {
        if !self.pressed {
            self.pressed = true;
            self.tell(Event::TableFull { max_flows: self.table.max() });
        }
        let index = self.table.first_to_evict().ok_or(Reason::TableFull)?;
        self.end(now, index, Ended::Evicted);
        Ok(())
    }

    /// Ends a flow.
    pub(super) fn end(&mut self, now: Instant, index: u32, cause: Ended) {
        if self.tell_flows {
            let flow = Box::new(self.row(now, index));
            self.tell(Event::FlowEnded { flow, cause });
        }
        let client = self.table.key(index, Side::Client).addresses.src();
        let flow = self.table.flow(index);
        let (service, server, rule) = (flow.service, flow.server_id, flow.rule);
        self.services[service.0 as usize].flows -= 1;
        self.release_source(now, index);
        self.table.remove(index);
        self.balancer.ended(now, service, client, server);
        self.policy.ended(rule, client);
        self.totals.end(cause);
        let (flows, max) = (self.table.len(), self.table.max());
        // A flow that makes room for another one relieves nothing.
        let leaves = matches!(cause, Ended::Expired | Ended::Killed);
        if self.pressed && leaves && flows <= max - max.div_ceil(10) {
            self.pressed = false;
            self.tell(Event::TableRelieved { flows });
        }
    }

    pub(super) fn tell_opened(&mut self, now: Instant, index: u32) {
        if self.tell_flows {
            let flow = Box::new(self.row(now, index));
            self.tell(Event::FlowOpened(flow));
        }
    }

    pub(super) fn tell(&mut self, event: Event) {
        if self.events.len() < MOST_EVENTS {
            self.events.push_back(event);
        }
    }
}
