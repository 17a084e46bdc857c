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
        let flows = old.filter(|old| (old.server, old.era) == (server, era)).map_or(0, |old| old.flows);
        if self.len() >= self.most && !self.clients.forget_idle() {
            self.clients.forget_busy();
        }
        self.clients.set_busy(client, Slot { server, era, flows: flows + 1, since: now });
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
