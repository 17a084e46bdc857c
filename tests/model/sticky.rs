//! The servers assigned to clients: two lists, for clients that have proved themselves and for others. Each forgets the
//! client that has been idle longest.

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
    /// When the client was assigned this server.
    given: Instant,
    /// The sequence number of that event.
    order: u64,
}

/// The clients of a group of services, in two lists of the same size.
#[derive(Debug, Clone)]
pub struct Sticky {
    proven: Slots,
    others: Slots,
}

impl Sticky {
    pub fn new(settings: &Stickiness) -> Self {
        Sticky { proven: Slots::new(settings), others: Slots::new(settings) }
    }

    /// Returns the servers that a client may use, the one that it has proved itself at first: with the era in which it
    /// was chosen, and whether the client has proved itself.
    pub fn find(&mut self, now: Instant, client: IpAddr) -> Vec<(usize, u32, bool)> {
        let all = [(self.proven.find(now, client), true), (self.others.find(now, client), false)];
        all.into_iter().filter_map(|(found, proven)| found.map(|slot| (slot.server, slot.era, proven))).collect()
    }

    /// Records a new flow; returns whether another client had to be forgotten for it.
    pub fn opened(&mut self, now: Instant, client: IpAddr, server: usize, era: u32) -> bool {
        self.others.opened(now, client, server, era)
    }

    /// Records that a client has proved itself by a flow; returns what happened. A flow that began before the client was
    /// assigned another server came second in a race, and the client stays there.
    pub fn proven(
        &mut self,
        now: Instant,
        client: IpAddr,
        (server, era): (usize, u32),
        created: Instant,
    ) -> Option<&'static str> {
        self.others.ended(now, client, server);
        match self.proven.find(now, client) {
            Some(slot) if slot.server != server && slot.given >= created => Some("second in a race"),
            _ => self.proven.opened(now, client, server, era).then_some("a proven client forgotten for another"),
        }
    }

    pub fn ended(&mut self, now: Instant, client: IpAddr, server: usize, proven: bool) {
        let slots = if proven { &mut self.proven } else { &mut self.others };
        slots.ended(now, client, server);
    }
}

/// One of the lists.
#[derive(Debug, Clone)]
struct Slots {
    settings: Stickiness,
    slots: Vec<Slot>,
    events: u64,
}

impl Slots {
    fn new(settings: &Stickiness) -> Self {
        Slots { settings: settings.clone(), slots: Vec::new(), events: 0 }
    }

    /// Returns a client's slot.
    fn find(&mut self, now: Instant, client: IpAddr) -> Option<Slot> {
        let (client, idle) = (self.settings.prefixes.of(client), self.settings.idle);
        self.slots.retain(|slot| slot.flows > 0 || slot.since + idle > now);
        self.slots.iter().find(|slot| slot.client == client).cloned()
    }

    /// Records a new flow of a client; returns whether another client had to be forgotten for it.
    fn opened(&mut self, now: Instant, client: IpAddr, server: usize, era: u32) -> bool {
        let client = self.settings.prefixes.of(client);
        self.events += 1;
        let place = self.slots.iter().position(|slot| slot.client == client);
        let old = place.map(|place| self.slots.remove(place));
        let old = old.filter(|old| (old.server, old.era) == (server, era));
        let (flows, given) = old.map_or((0, now), |old| (old.flows, old.given));
        let full = self.slots.len() >= self.settings.slots as usize;
        if full {
            // Clients without flows are forgotten before those with flows.
            let first = (0..self.slots.len()).min_by_key(|at| (self.slots[*at].flows > 0, self.slots[*at].order));
            first.map(|at| self.slots.remove(at));
        }
        self.slots.push(Slot { client, server, era, flows: flows + 1, since: now, given, order: self.events });
        full
    }

    fn ended(&mut self, now: Instant, client: IpAddr, server: usize) {
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
