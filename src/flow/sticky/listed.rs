//! Sticky slots as an operator sees and clears them, a few at a time.

use super::super::clients::Walker;
use super::{Slot, Slots, Sticky, Ticket, Tickets};
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

/// Who looks at all sticky slots; each has one walk at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lister {
    /// An operator who lists them.
    List,
    /// An operator who has clients forgotten.
    Clear,
    /// The same at the other gateway of a pair.
    Order,
}

impl Lister {
    /// The number of variants.
    pub const COUNT: usize = 3;
}

impl From<Lister> for Walker {
    fn from(who: Lister) -> Walker {
        match who {
            Lister::List => Walker::List,
            Lister::Clear => Walker::Clear,
            Lister::Order => Walker::Order,
        }
    }
}

/// A moment in the order in which clients were given their servers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StickyMark(Ticket);

impl StickyMark {
    /// Returns whether a slot with this ticket was made later.
    pub fn is_before(self, ticket: Ticket) -> bool {
        self.0.wrapping_sub(ticket) > Ticket::MAX / 2
    }

    /// Returns the earlier one.
    pub fn min(self, other: StickyMark) -> StickyMark {
        if self.is_before(other.0) { self } else { other }
    }
}

impl Tickets {
    /// Returns this moment.
    pub fn mark(&self) -> StickyMark {
        StickyMark(self.0)
    }
}

impl ListedSlot {
    /// Returns whether the client was given its server until then.
    pub fn was_given_by(&self, mark: StickyMark) -> bool {
        !mark.is_before(self.slot.ticket)
    }
}

impl Sticky {
    /// Begins a walk, which [`Sticky::list`] goes on with; one for the same purpose that is under way ends.
    pub fn begin_list(&mut self, who: Lister) {
        self.proven.clients.begin_walk(who.into());
        self.asking.clients.begin_walk(who.into());
    }

    /// Passes up to `most` slots to `take`; returns how many: none at the end.
    pub fn list(&mut self, who: Lister, most: usize, mut take: impl FnMut(ListedSlot)) -> usize {
        let mut pass = |slots: &mut Slots, most, proven| {
            let idle_time = slots.idle_time;
            slots.clients.walk(who.into(), most, |client, slot| {
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
