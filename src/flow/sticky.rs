//! Which server a client was given: a bounded store that evicts the client idle longest.
//!
//! It must not know why a server is chosen or whether it still serves: `era` is compared, not interpreted.

mod listed;
mod saved;

pub use listed::{ListedSlot, Lister, StickyMark};
pub use saved::SavedSlot;

use super::clients::Clients;
use crate::ids::ServerId;
use crate::time::{Duration, Instant};
use std::net::IpAddr;

/// A client's sticky slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slot {
    /// Its server.
    pub server: ServerId,
    /// The server's era at the time of the choice.
    pub era: u32,
    /// The number of the client's flows to it since it was given this server.
    pub flows: u32,
    /// When the last of them ended, or the most recent one was opened.
    pub since: Instant,
    /// When the client was given this server.
    pub given: Instant,
    ticket: Ticket,
}

/// Tells which slot counts a flow; kept with the flow. 0 if none does.
///
/// The client alone does not tell: since the flow was counted, its slot may have been given to another server and back,
/// or evicted and created again.
pub type Ticket = u32;

/// Gives the tickets of all groups: a service may change its group while flows are counted in the former one.
#[derive(Debug, Clone, Default)]
pub struct Tickets(Ticket);

impl Tickets {
    fn next(&mut self) -> Ticket {
        self.0 = self.0.wrapping_add(1).max(1);
        self.0
    }
}

/// The most clients that give way to one.
const MOST_FORGOTTEN: usize = 8;

/// The sticky slots of one group of services.
#[derive(Debug, Clone)]
pub struct Slots {
    clients: Clients<Slot>,
    most: usize,
    idle_time: Duration,
}

impl Slots {
    /// Creates sticky slots for at most `most` clients, each kept for `idle_time` after its last flow.
    pub fn new(most: u32, idle_time: Duration) -> Self {
        let clients = Clients::new(crate::rng::drawn_hash());
        Slots { clients, most: most as usize, idle_time }
    }

    /// Changes the number of clients and the idle time. Clients that are too many by now go with the next one.
    fn limit(&mut self, most: u32, idle_time: Duration) {
        (self.most, self.idle_time) = (most as usize, idle_time);
    }

    /// Returns the number of clients.
    pub fn len(&self) -> usize {
        self.clients.len()
    }

    /// Returns whether there are no clients.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the server of every client, one entry per client.
    pub fn servers(&self) -> impl Iterator<Item = ServerId> + '_ {
        self.clients.values().map(|slot| slot.server)
    }

    /// Returns a client's sticky slot at `now`.
    pub fn find(&self, now: Instant, client: IpAddr) -> Option<Slot> {
        self.clients.get(client).filter(|slot| slot.flows > 0 || !self.is_over(now, slot))
    }

    /// Records a flow of a client. The count restarts with another server, or with another era of the same one. Returns
    /// what [`Slots::ended`] needs when the flow has ended.
    pub fn opened(
        &mut self,
        now: Instant,
        client: IpAddr,
        (server, era): (ServerId, u32),
        tickets: &mut Tickets,
    ) -> Ticket {
        self.expire(now);
        // It is not removed first: a walk over the clients would miss it.
        let old = self.clients.get(client).filter(|old| (old.server, old.era) == (server, era));
        let (flows, given, ticket) = match old {
            Some(old) => (old.flows, old.given, old.ticket),
            None => (0, now, tickets.next()),
        };
        self.clients.set_busy(client, Slot { server, era, flows: flows + 1, since: now, given, ticket });
        // More than one goes where a reload has lowered the number, a bounded number each time.
        for _ in 0..MOST_FORGOTTEN {
            if self.len() > self.most.max(1) && !self.clients.forget_idle() {
                self.clients.forget_busy();
            }
        }
        ticket
    }

    /// Records that a client's flow ended, if the slot has counted it; the idle time starts with the last of them.
    pub fn ended(&mut self, now: Instant, client: IpAddr, ticket: Ticket) {
        let Some(slot) = self.clients.busy_mut(client).filter(|slot| slot.ticket == ticket) else { return };
        slot.flows -= 1;
        if slot.flows == 0 {
            let slot = Slot { since: now, ..*slot };
            self.clients.set_idle(client, slot);
        }
    }

    /// Removes clients that have been idle for too long.
    pub fn expire(&mut self, now: Instant) {
        while self.clients.oldest_idle().is_some_and(|slot| self.is_over(now, slot)) {
            self.clients.forget_idle();
        }
    }

    fn is_over(&self, now: Instant, idle: &Slot) -> bool {
        idle.since + self.idle_time <= now
    }
}

/// The sticky slots of one group of services, in two parts of the same size, so that spoofed clients compete only with
/// each other: those of clients that have proved themselves, and those that last until then.
#[derive(Debug, Clone)]
pub struct Sticky {
    proven: Slots,
    asking: Slots,
}

impl Sticky {
    /// Creates sticky slots for at most `most` clients that have proved themselves, and as many that have not, each
    /// kept for `idle_time` after its last flow.
    pub fn new(most: u32, idle_time: Duration) -> Self {
        Sticky { proven: Slots::new(most, idle_time), asking: Slots::new(most, idle_time) }
    }

    /// Changes the number of clients of either part, and the idle time.
    pub fn limit(&mut self, most: u32, idle_time: Duration) {
        self.proven.limit(most, idle_time);
        self.asking.limit(most, idle_time);
    }

    /// Returns a client's sticky slots at `now`; the first that can be used applies.
    pub fn find(&self, now: Instant, client: IpAddr) -> [Option<Slot>; 2] {
        [self.proven.find(now, client), self.asking.find(now, client)]
    }

    /// Records a new flow of a client, which has yet to prove itself. The flow keeps the ticket.
    pub fn opened(&mut self, now: Instant, client: IpAddr, given: (ServerId, u32), tickets: &mut Tickets) -> Ticket {
        self.asking.opened(now, client, given, tickets)
    }

    /// Records that a client has proved itself by a flow that was opened at `created` and keeps `ticket`; returns the
    /// ticket that it keeps from now on. Of several flows opened before any of them was proven, the first decides.
    pub fn proven(
        &mut self,
        now: Instant,
        client: IpAddr,
        (server, era): (ServerId, u32),
        (created, ticket): (Instant, Ticket),
        tickets: &mut Tickets,
    ) -> Ticket {
        self.asking.ended(now, client, ticket);
        let other = self.proven.find(now, client).filter(|slot| slot.server != server);
        if other.is_none_or(|other| other.given < created) {
            return self.proven.opened(now, client, (server, era), tickets);
        }
        0
    }

    /// Records that a client's flow ended that kept this ticket.
    pub fn ended(&mut self, now: Instant, client: IpAddr, proven: bool, ticket: Ticket) {
        let slots = if proven { &mut self.proven } else { &mut self.asking };
        slots.ended(now, client, ticket);
    }

    /// Returns the server of every slot.
    pub fn servers(&self) -> impl Iterator<Item = ServerId> + '_ {
        self.proven.servers().chain(self.asking.servers())
    }

    /// Returns the number of clients that have proved themselves.
    pub fn len(&self) -> usize {
        self.proven.len()
    }

    /// Returns whether no client has proved itself.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Removes clients that have been idle for too long.
    pub fn expire(&mut self, now: Instant) {
        self.proven.expire(now);
        self.asking.expire(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(s: u64) -> Instant {
        Instant::from_nanos(s * 1_000_000_000)
    }

    fn client(n: u8) -> IpAddr {
        [10, 0, 0, n].into()
    }

    fn server(slots: &mut Slots, now: u64, n: u8) -> Option<u32> {
        slots.expire(at(now));
        slots.find(at(now), client(n)).map(|slot| slot.server.0)
    }

    #[test]
    fn a_client_is_remembered_while_it_has_flows_and_for_the_idle_time_after() {
        let mut tickets = Tickets::default();
        let mut slots = Slots::new(10, Duration::from_secs(60));
        let first = slots.opened(at(0), client(1), (ServerId(5), 0), &mut tickets);
        let second = slots.opened(at(1), client(1), (ServerId(5), 0), &mut tickets);
        slots.ended(at(100), client(1), first);
        assert_eq!(server(&mut slots, 1000, 1), Some(5), "one flow is left");
        slots.ended(at(1000), client(1), second);
        assert_eq!((server(&mut slots, 1059, 1), server(&mut slots, 1060, 1)), (Some(5), None));
        assert!(slots.is_empty());
    }

    #[test]
    fn the_client_idle_longest_is_evicted_first_and_only_then_one_with_flows() {
        let mut tickets = Tickets::default();
        let mut slots = Slots::new(3, Duration::from_secs(60));
        let given = [1, 2, 3].map(|n| slots.opened(at(0), client(n), (ServerId(0), 0), &mut tickets));
        slots.ended(at(1), client(3), given[2]);
        slots.ended(at(2), client(2), given[1]);
        slots.opened(at(3), client(4), (ServerId(0), 0), &mut tickets);
        assert_eq!((server(&mut slots, 3, 3), server(&mut slots, 3, 2)), (None, Some(0)));
        slots.opened(at(3), client(5), (ServerId(0), 0), &mut tickets);
        slots.opened(at(3), client(6), (ServerId(0), 0), &mut tickets);
        let left: Vec<u8> = (1..=6).filter(|n| server(&mut slots, 3, *n).is_some()).collect();
        assert_eq!((left, slots.len()), (vec![4, 5, 6], 3));
    }

    #[test]
    fn clients_that_ask_displace_none_that_has_proved_itself() {
        let mut tickets = Tickets::default();
        let mut sticky = Sticky::new(8, Duration::from_secs(60));
        let server =
            |sticky: &Sticky, n| sticky.find(at(9), client(n)).into_iter().flatten().next().map(|slot| slot.server.0);
        for n in 0..8 {
            let ticket = sticky.opened(at(0), client(n), (ServerId(n.into()), 0), &mut tickets);
            let ticket = sticky.proven(at(0), client(n), (ServerId(n.into()), 0), (at(0), ticket), &mut tickets);
            sticky.ended(at(1), client(n), true, ticket);
        }
        (8..=255).for_each(|n| _ = sticky.opened(at(2), client(n), (ServerId(9), 0), &mut tickets));
        assert!((0..8).all(|n| server(&sticky, n) == Some(n.into())));
        assert_eq!((server(&sticky, 255), server(&sticky, 9)), (Some(9), None), "these displace each other");
        assert_eq!((sticky.len(), sticky.servers().count()), (8, 16));
    }

    #[test]
    fn a_walk_meets_clients_whose_flows_begin_and_end_meanwhile() {
        for clients in [1..=2, 1..=3] {
            let (mut tickets, mut sticky) = (Tickets::default(), Sticky::new(8, Duration::from_secs(60)));
            let mut prove =
                |sticky: &mut Sticky, n| sticky.proven(at(0), client(n), (ServerId(0), 0), (at(0), 0), &mut tickets);
            let flows: Vec<Ticket> = clients.clone().map(|n| prove(&mut sticky, n)).collect();
            (1..=2).for_each(|n| sticky.ended(at(0), client(n), true, flows[usize::from(n) - 1]));
            let mut met = Vec::new();
            let mut walk = |sticky: &mut Sticky| sticky.list(Lister::Clear, 1, |of| met.push(of.client));
            sticky.begin_list(Lister::Clear);
            // The first idle one; then the last one of them gets a flow, and the only busy one loses its own.
            assert_eq!(walk(&mut sticky), 1);
            prove(&mut sticky, 2);
            flows.get(2).into_iter().for_each(|flow| sticky.ended(at(0), client(3), true, *flow));
            while walk(&mut sticky) > 0 {}
            assert!(clients.clone().all(|n| met.contains(&client(n))), "{met:?} of {clients:?}");
        }
    }

    #[test]
    fn of_flows_that_race_the_first_one_proven_decides_and_a_later_one_may_move_the_client() {
        let mut tickets = Tickets::default();
        let mut sticky = Sticky::new(8, Duration::from_secs(60));
        let mut prove = |sticky: &mut Sticky, now, server, created| {
            sticky.proven(at(now), client(1), (ServerId(server), 0), (at(created), 0), &mut tickets);
            sticky.find(at(now), client(1))[0].expect("a slot").server.0
        };
        assert_eq!(prove(&mut sticky, 2, 0, 1), 0);
        assert_eq!(prove(&mut sticky, 3, 1, 1), 0, "it was opened before the first was proven");
        assert_eq!(prove(&mut sticky, 5, 2, 4), 2, "its first server could not take it");
    }

    #[test]
    fn an_end_counts_only_where_its_flow_did() {
        // Each from the flow before: another server and back, a new era, an eviction.
        let (there, elsewhere) = ((client(1), ServerId(0), 0), (client(1), ServerId(1), 0));
        let (anew, evicts) = ((client(1), ServerId(0), 1), (client(2), ServerId(0), 0));
        for between in [vec![elsewhere, there], vec![anew], vec![evicts, there]] {
            let mut tickets = Tickets::default();
            let mut slots = Slots::new(1, Duration::from_secs(60));
            let old = slots.opened(at(0), there.0, (there.1, there.2), &mut tickets);
            let mut last = 0;
            between
                .iter()
                .for_each(|(client, server, era)| last = slots.opened(at(1), *client, (*server, *era), &mut tickets));
            slots.ended(at(2), client(1), old);
            assert_eq!(server(&mut slots, 1000, 1), Some(0), "{between:?}: the last flow lives");
            slots.ended(at(1000), client(1), last);
            assert_eq!(server(&mut slots, 1060, 1), None, "{between:?}");
        }
    }

    #[test]
    fn the_end_of_a_flow_that_came_second_in_a_race_does_not_count_when_its_server_has_the_slot() {
        let mut tickets = Tickets::default();
        let mut sticky = Sticky::new(8, Duration::from_secs(60));
        let mut prove = |sticky: &mut Sticky, now, server, created| {
            sticky.proven(at(now), client(1), (ServerId(server), 0), (at(created), 0), &mut tickets)
        };
        prove(&mut sticky, 2, 0, 1);
        let second = prove(&mut sticky, 3, 1, 1);
        let moves = prove(&mut sticky, 5, 1, 4);
        sticky.ended(at(6), client(1), true, second);
        let slot = |sticky: &Sticky, now| sticky.find(at(now), client(1))[0].map(|slot| (slot.server.0, slot.flows));
        assert_eq!(slot(&sticky, 1000), Some((1, 1)));
        sticky.ended(at(1000), client(1), true, moves);
        assert_eq!(slot(&sticky, 1060), None);
    }
}
