//! Which server a client was given: a bounded store that evicts the client idle longest.
//!
//! It must not know why a server is chosen or whether it still serves: `era` is compared, not interpreted.

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
    /// The number of the client's flows to it.
    pub flows: u32,
    /// When the last of them ended, or the most recent one was opened.
    pub since: Instant,
    /// When the client was given this server.
    pub given: Instant,
}

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

    /// Records a flow of a client. The count restarts with another server, or with another era of the same one.
    pub fn opened(&mut self, now: Instant, client: IpAddr, server: ServerId, era: u32) {
        self.expire(now);
        let old = self.clients.remove(client);
        let old = old.filter(|old| (old.server, old.era) == (server, era));
        let (flows, given) = old.map_or((0, now), |old| (old.flows, old.given));
        if self.len() >= self.most && !self.clients.forget_idle() {
            self.clients.forget_busy();
        }
        self.clients.set_busy(client, Slot { server, era, flows: flows + 1, since: now, given });
    }

    /// Records that a client's flow to a server ended; the idle time starts with the last of them.
    pub fn ended(&mut self, now: Instant, client: IpAddr, server: ServerId) {
        let Some(slot) = self.clients.busy_mut(client).filter(|slot| slot.server == server) else { return };
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

    /// Returns a client's sticky slots at `now`; the first that can be used applies.
    pub fn find(&self, now: Instant, client: IpAddr) -> [Option<Slot>; 2] {
        [self.proven.find(now, client), self.asking.find(now, client)]
    }

    /// Records a new flow of a client, which has yet to prove itself.
    pub fn opened(&mut self, now: Instant, client: IpAddr, server: ServerId, era: u32) {
        self.asking.opened(now, client, server, era);
    }

    /// Records that a client has proved itself by a flow that was opened at `created`. Of several flows opened before
    /// any of them was proven, the first decides.
    pub fn proven(&mut self, now: Instant, client: IpAddr, (server, era): (ServerId, u32), created: Instant) {
        self.asking.ended(now, client, server);
        let other = self.proven.find(now, client).filter(|slot| slot.server != server);
        if other.is_none_or(|other| other.given < created) {
            self.proven.opened(now, client, server, era);
        }
    }

    /// Records that a client's flow to a server ended.
    pub fn ended(&mut self, now: Instant, client: IpAddr, server: ServerId, proven: bool) {
        let slots = if proven { &mut self.proven } else { &mut self.asking };
        slots.ended(now, client, server);
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
        let mut slots = Slots::new(10, Duration::from_secs(60));
        slots.opened(at(0), client(1), ServerId(5), 0);
        slots.opened(at(1), client(1), ServerId(5), 0);
        slots.ended(at(100), client(1), ServerId(5));
        assert_eq!(server(&mut slots, 1000, 1), Some(5), "one flow is left");
        slots.ended(at(1000), client(1), ServerId(5));
        assert_eq!((server(&mut slots, 1059, 1), server(&mut slots, 1060, 1)), (Some(5), None));
        assert!(slots.is_empty());
    }

    #[test]
    fn the_client_idle_longest_is_evicted_first_and_only_then_one_with_flows() {
        let mut slots = Slots::new(3, Duration::from_secs(60));
        (1..=3).for_each(|n| slots.opened(at(0), client(n), ServerId(0), 0));
        slots.ended(at(1), client(3), ServerId(0));
        slots.ended(at(2), client(2), ServerId(0));
        slots.opened(at(3), client(4), ServerId(0), 0);
        assert_eq!((server(&mut slots, 3, 3), server(&mut slots, 3, 2)), (None, Some(0)));
        slots.opened(at(3), client(5), ServerId(0), 0);
        slots.opened(at(3), client(6), ServerId(0), 0);
        let left: Vec<u8> = (1..=6).filter(|n| server(&mut slots, 3, *n).is_some()).collect();
        assert_eq!((left, slots.len()), (vec![4, 5, 6], 3));
    }

    #[test]
    fn clients_that_ask_displace_none_that_has_proved_itself() {
        let mut sticky = Sticky::new(8, Duration::from_secs(60));
        let server =
            |sticky: &Sticky, n| sticky.find(at(9), client(n)).into_iter().flatten().next().map(|slot| slot.server.0);
        for n in 0..8 {
            sticky.opened(at(0), client(n), ServerId(n.into()), 0);
            sticky.proven(at(0), client(n), (ServerId(n.into()), 0), at(0));
            sticky.ended(at(1), client(n), ServerId(n.into()), true);
        }
        (8..=255).for_each(|n| sticky.opened(at(2), client(n), ServerId(9), 0));
        assert!((0..8).all(|n| server(&sticky, n) == Some(n.into())));
        assert_eq!((server(&sticky, 255), server(&sticky, 9)), (Some(9), None), "these displace each other");
        assert_eq!((sticky.len(), sticky.servers().count()), (8, 16));
    }

    #[test]
    fn of_flows_that_race_the_first_one_proven_decides_and_a_later_one_may_move_the_client() {
        let mut sticky = Sticky::new(8, Duration::from_secs(60));
        let prove = |sticky: &mut Sticky, now, server, created| {
            sticky.proven(at(now), client(1), (ServerId(server), 0), at(created));
            sticky.find(at(now), client(1))[0].expect("a slot").server.0
        };
        assert_eq!(prove(&mut sticky, 2, 0, 1), 0);
        assert_eq!(prove(&mut sticky, 3, 1, 1), 0, "it was opened before the first was proven");
        assert_eq!(prove(&mut sticky, 5, 2, 4), 2, "its first server could not take it");
    }

    #[test]
    fn the_end_of_a_flow_to_another_server_does_not_count() {
        let mut slots = Slots::new(3, Duration::from_secs(60));
        slots.opened(at(0), client(1), ServerId(0), 0);
        slots.opened(at(1), client(1), ServerId(1), 0);
        slots.ended(at(2), client(1), ServerId(0));
        assert_eq!(slots.find(at(2), client(1)).map(|slot| (slot.server.0, slot.flows)), Some((1, 1)));
        slots.ended(at(3), client(1), ServerId(1));
        slots.ended(at(3), client(1), ServerId(1));
        assert_eq!(server(&mut slots, 4, 1), Some(1));
    }
}
