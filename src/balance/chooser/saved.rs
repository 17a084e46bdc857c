//! What a chooser knows of flows and sticky clients, saved and made again. Positions of algorithms are not saved: each
//! begins a new round.

use super::Chooser;
use crate::balance::roster::Roster;
use crate::balance::standings::Standings;
use crate::flow::{SavedSlot, Sticky, Ticket, Watcher};
use crate::ids::{ServerId, ServiceId};
use crate::time::Instant;
use std::net::IpAddr;

impl Chooser {
    /// Returns the numbers of the groups of services that share sticky slots.
    pub fn sticky_groups(&self) -> impl Iterator<Item = u32> + '_ {
        self.sticky.keys().copied()
    }

    /// Begins a walk over the sticky slots of all groups; one of the same walker that is under way ends.
    pub fn begin_sticky_walk(&mut self, who: Watcher) {
        self.sticky.values_mut().for_each(|slots| slots.begin_walk(who));
    }

    /// Passes up to `most` sticky slots of a group to `take` that are valid; returns how many it looked at, none at the
    /// end.
    pub fn walk_sticky(
        &mut self,
        standings: &Standings,
        (who, group): (Watcher, u32),
        most: usize,
        mut take: impl FnMut(SavedSlot),
    ) -> usize {
        let Some(slots) = self.sticky.get_mut(&group) else { return 0 };
        slots.walk(who, most, |slot, era| {
            if standings.server(slot.server).era == era {
                take(slot);
            }
        })
    }

    /// Returns the valid sticky slots that are new or have been used since a time, with their groups.
    pub fn recent_sticky(&self, standings: &Standings, since: Instant) -> impl Iterator<Item = (u32, SavedSlot)> {
        let valid = |(slot, era): (SavedSlot, u32)| (standings.server(slot.server).era == era).then_some(slot);
        let recent = move |sticky: &Sticky| sticky.recent(since).filter_map(valid).collect::<Vec<_>>();
        self.sticky.iter().flat_map(move |(group, sticky)| recent(sticky).into_iter().map(|slot| (*group, slot)))
    }

    /// Makes a sticky slot of a group again, before its flows are; returns false if it cannot be.
    pub fn restore_slot(&mut self, now: Instant, standings: &Standings, group: u32, slot: &SavedSlot) -> bool {
        let era = standings.server(slot.server).era;
        let tickets = &mut self.tickets;
        self.sticky.get_mut(&group).is_some_and(|slots| slots.restore(now, slot, era, tickets))
    }

    /// Returns whether a client's sticky slot is valid and counts a flow that keeps this ticket.
    pub fn counts(
        &self,
        (roster, standings): (&Roster, &Standings),
        (service, client): (ServiceId, IpAddr),
        (server, proven, ticket): (ServerId, bool, Ticket),
    ) -> bool {
        let Some(of) = roster.service(service).sticky.as_ref() else { return false };
        let kept = (ticket, standings.server(server).era);
        self.sticky.get(&of.group).is_some_and(|slots| slots.counts(of.prefixes.of(client), proven, kept))
    }

    /// Counts a flow that is made again, in its client's sticky slot if it was `counted` there; returns the ticket that the
    /// flow keeps. For an algorithm that counts new flows it is none. Its server `replaces` another one in the slot where the
    /// flow comes from a gateway whose slots these are.
    pub fn restored(
        &mut self,
        now: Instant,
        (roster, standings): (&Roster, &Standings),
        (service, client): (ServiceId, IpAddr),
        server: ServerId,
        (proven, counted, replaces): (bool, bool, bool),
    ) -> Ticket {
        let load = &mut self.loads[server.0 as usize];
        load.flows += 1;
        load.proven += u32::from(proven);
        self.load_changed(roster, standings, server);
        match self.sticky_of(roster, service, client) {
            Some((sticky, client, tickets)) if counted => {
                let of = (server, standings.server(server).era);
                sticky.count(now, client, of, (proven, replaces), tickets)
            }
            _ => 0,
        }
    }

    /// Counts a flow in its client's sticky slot unless that counts it already; its server has the slot from now on. Returns the
    /// ticket that the flow keeps.
    pub fn count_again(
        &mut self,
        now: Instant,
        known: (&Roster, &Standings),
        (service, client): (ServiceId, IpAddr),
        (server, proven, ticket): (ServerId, bool, Ticket),
    ) -> Ticket {
        if self.counts(known, (service, client), (server, proven, ticket)) {
            return ticket;
        }
        let (roster, standings) = known;
        let Some((sticky, client, tickets)) = self.sticky_of(roster, service, client) else { return ticket };
        sticky.count(now, client, (server, standings.server(server).era), (proven, true), tickets)
    }
}
