//! The servers assigned to clients: a list that forgets the client that has been idle longest.

use equipoise::balance::Stickiness;
use equipoise::time::Instant;
use std::net::IpAddr;

/// A client and its server.
#[derive(Debug, Clone)]
struct Slot {
    client: IpAddr,
    server: usize,
    era: u32,
    flows: u32,
    /// When its last flow ended or, while it has flows, when the latest was opened.
    since: Instant,
    /// The sequence number of that event.
    order: u64,
}

/// The clients of a group of services.
#[derive(Debug, Clone)]
pub struct Slots {
    pub settings: Stickiness,
    slots: Vec<Slot>,
    events: u64,
}

impl Slots {
    pub fn new(settings: &Stickiness) -> Self {
        Slots { settings: settings.clone(), slots: Vec::new(), events: 0 }
    }

    /// Returns a client's server, with the era in which it was chosen.
    pub fn find(&mut self, now: Instant, client: IpAddr) -> Option<(usize, u32)> {
        let (client, idle) = (self.settings.prefixes.of(client), self.settings.idle);
        self.slots.retain(|slot| slot.flows > 0 || slot.since + idle > now);
        self.slots.iter().find(|slot| slot.client == client).map(|slot| (slot.server, slot.era))
    }

    /// Records a new flow of a client; returns whether another client had to be forgotten for it.
    pub fn opened(&mut self, now: Instant, client: IpAddr, server: usize, era: u32) -> bool {
        let client = self.settings.prefixes.of(client);
        self.events += 1;
        let place = self.slots.iter().position(|slot| slot.client == client);
        let old = place.map(|place| self.slots.remove(place));
        let flows = old.filter(|old| (old.server, old.era) == (server, era)).map_or(0, |old| old.flows);
        let full = self.slots.len() >= self.settings.slots as usize;
        if full {
            // Clients without flows are forgotten before those with flows.
            let first = (0..self.slots.len()).min_by_key(|at| (self.slots[*at].flows > 0, self.slots[*at].order));
            first.map(|at| self.slots.remove(at));
        }
        self.slots.push(Slot { client, server, era, flows: flows + 1, since: now, order: self.events });
        full
    }

    pub fn ended(&mut self, now: Instant, client: IpAddr, server: usize) {
        let client = self.settings.prefixes.of(client);
        self.events += 1;
        let own = |slot: &&mut Slot| slot.client == client && slot.server == server && slot.flows > 0;
        if let Some(slot) = self.slots.iter_mut().find(own) {
            slot.flows -= 1;
            if slot.flows == 0 {
                (slot.since, slot.order) = (now, self.events);
            }
        }
    }
}
