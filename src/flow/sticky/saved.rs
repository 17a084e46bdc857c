//! Sticky slots as values, from which another store makes them again.
//!
//! Eras and tickets mean nothing elsewhere: a slot is saved only while its era is its server's, and gets the era that its
//! server has there; how many flows it counts becomes known as the flows are made again.

use super::super::clients::Walker;
use super::super::table::Watcher;
use super::{Slot, Slots, Sticky, Ticket, Tickets};
use crate::ids::ServerId;
use crate::time::Instant;
use std::net::IpAddr;

/// A client's sticky slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SavedSlot {
    /// The client, or its network.
    pub client: IpAddr,
    /// Its server.
    pub server: ServerId,
    /// Whether the client has proved itself.
    pub proven: bool,
    /// Whether it counts any flow.
    pub is_busy: bool,
    /// When the last of its flows ended, or the most recent one was opened.
    pub since: Instant,
    /// When the client was given this server.
    pub given: Instant,
}

impl Slots {
    fn restore(&mut self, now: Instant, saved: &SavedSlot, era: u32, tickets: &mut Tickets) -> bool {
        let SavedSlot { client, server, since, given, is_busy, .. } = *saved;
        let known = self.clients.get(client);
        let is_over = !is_busy && since + self.idle_time <= now;
        if known.is_none() && (self.len() >= self.most || is_over) {
            return false;
        }
        // A later record of the same client tells more.
        let same = known.filter(|known| (known.server, known.era) == (server, era));
        let (flows, ticket) = same.map_or_else(|| (0, tickets.next()), |known| (known.flows, known.ticket));
        let slot = Slot { server, era, flows, since, given, ticket };
        if flows > 0 {
            self.clients.set_busy(client, slot)
        } else {
            self.clients.set_idle(client, slot)
        }
        true
    }

    fn count(
        &mut self,
        now: Instant,
        client: IpAddr,
        (server, era): (ServerId, u32),
        replaces: bool,
        tickets: &mut Tickets,
    ) -> Ticket {
        match self.clients.get(client) {
            Some(slot) if (slot.server, slot.era) == (server, era) => {
                self.clients.set_busy(client, Slot { flows: slot.flows + 1, ..slot });
                slot.ticket
            }
            Some(_) if replaces => self.opened(now, client, (server, era), tickets),
            // Another server has the client since.
            Some(_) => 0,
            // It was given its server after the slots were saved.
            None if self.len() < self.most => self.opened(now, client, (server, era), tickets),
            None => 0,
        }
    }
}

impl From<Watcher> for Walker {
    fn from(who: Watcher) -> Walker {
        match who {
            Watcher::Successor => Walker::Copy,
            Watcher::Peer => Walker::Peer,
        }
    }
}

impl Sticky {
    /// Begins a walk, which [`Sticky::walk`] goes on with; one of the same watcher that is under way ends.
    pub fn begin_walk(&mut self, who: Watcher) {
        self.proven.clients.begin_walk(who.into());
        self.asking.clients.begin_walk(who.into());
    }

    /// Passes up to `most` slots to `take`, with their eras; returns how many: none at the end.
    pub fn walk(&mut self, who: Watcher, most: usize, mut take: impl FnMut(SavedSlot, u32)) -> usize {
        let mut pass = |slots: &mut Slots, most, proven| {
            slots.clients.walk(who.into(), most, |client, slot| {
                let Slot { server, since, given, era, .. } = *slot;
                take(SavedSlot { client, server, proven, is_busy: slot.flows > 0, since, given }, era);
            })
        };
        let walked = pass(&mut self.proven, most, true);
        walked + pass(&mut self.asking, most - walked, false)
    }

    /// Returns the slots that are new or have been used since a time, with their eras.
    pub fn recent(&self, since: Instant) -> impl Iterator<Item = (SavedSlot, u32)> + '_ {
        let of = move |slots: &'_ Slots, proven| {
            let recent = slots.clients.recent(move |slot| slot.since >= since);
            recent
                .map(|(client, slot)| {
                    let Slot { server, since, given, era, .. } = *slot;
                    (SavedSlot { client, server, proven, is_busy: slot.flows > 0, since, given }, era)
                })
                .collect::<Vec<_>>()
        };
        of(&self.proven, true).into_iter().chain(of(&self.asking, false))
    }

    /// Makes a slot again that counts no flow yet, with the era that its server has here; returns false if it is over, or
    /// there is no room. To be called before the flows are made again.
    pub fn restore(&mut self, now: Instant, saved: &SavedSlot, era: u32, tickets: &mut Tickets) -> bool {
        let slots = if saved.proven { &mut self.proven } else { &mut self.asking };
        slots.restore(now, saved, era, tickets)
    }

    /// Returns whether a client's slot of this era counts a flow that keeps this ticket.
    pub fn counts(&self, client: IpAddr, proven: bool, (ticket, era): (Ticket, u32)) -> bool {
        let slots = if proven { &self.proven } else { &self.asking };
        let counts = |slot: Slot| slot.flows > 0 && (slot.ticket, slot.era) == (ticket, era);
        ticket != 0 && slots.clients.get(client).is_some_and(counts)
    }

    /// Counts a flow that is made again in its client's slot; returns the ticket that the flow keeps. If another server has the
    /// client, the flow's server has it from now on if it `replaces` the other; otherwise the flow does not count.
    pub fn count(
        &mut self,
        now: Instant,
        client: IpAddr,
        of: (ServerId, u32),
        (proven, replaces): (bool, bool),
        tickets: &mut Tickets,
    ) -> Ticket {
        let slots = if proven { &mut self.proven } else { &mut self.asking };
        slots.count(now, client, of, replaces, tickets)
    }
}
