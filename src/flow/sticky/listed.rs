//! Sticky slots as an operator sees and clears them, a few at a time.

use super::super::clients::Walker;
use super::{Slot, Slots, Sticky};
use crate::time::Instant;
use std::net::IpAddr;

/// A sticky slot in a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ListedSlot {
    /// The client, or its network.
    pub client: IpAddr,
    /// Whether the client has proved itself.
    pub proven: bool,
    /// The slot.
    pub slot: Slot,
    /// When the slot ends; none while it counts flows.
    pub ends: Option<Instant>,
}

impl Sticky {
    /// Begins a list, which [`Sticky::list`] goes on with; one that is under way ends.
    pub fn begin_list(&mut self) {
        self.proven.clients.begin_walk(Walker::List);
        self.asking.clients.begin_walk(Walker::List);
    }

    /// Passes up to `most` slots to `take`; returns how many: none at the end.
    pub fn list(&mut self, most: usize, mut take: impl FnMut(ListedSlot)) -> usize {
        let mut pass = |slots: &mut Slots, most, proven| {
            let idle_time = slots.idle_time;
            slots.clients.walk(Walker::List, most, |client, slot| {
                let ends = (slot.flows == 0).then(|| slot.since + idle_time);
                take(ListedSlot { client, proven, slot: *slot, ends });
            })
        };
        let walked = pass(&mut self.proven, most, true);
        walked + pass(&mut self.asking, most - walked, false)
    }

    /// Forgets a client; returns whether it was known. Its flows stay where they are.
    pub fn clear(&mut self, client: IpAddr, proven: bool) -> bool {
        let slots = if proven { &mut self.proven } else { &mut self.asking };
        slots.clients.remove(client).is_some()
    }
}
