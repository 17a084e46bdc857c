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
    /// The client's flows that counted when they were opened or proven, and have not ended.
    flows: Vec<u64>,
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

    /// Changes the number of clients and the idle time.
    pub fn limit(&mut self, settings: &Stickiness) {
        self.proven.settings = settings.clone();
        self.others.settings = settings.clone();
    }

    pub fn settings(&self) -> &Stickiness {
        &self.proven.settings
    }

    /// Returns the servers that a client may use, the one that it has proved itself at first: with the era in which it
    /// was chosen, and whether the client has proved itself.
    pub fn find(&mut self, now: Instant, client: IpAddr) -> Vec<(usize, u32, bool)> {
        let all = [(self.proven.find(now, client), true), (self.others.find(now, client), false)];
        all.into_iter().filter_map(|(found, proven)| found.map(|slot| (slot.server, slot.era, proven))).collect()
    }

    /// Records a new flow; returns whether another client had to be forgotten for it.
    pub fn opened(&mut self, now: Instant, flow: (IpAddr, u64), server: usize, era: u32) -> bool {
        self.others.opened(now, flow, server, era)
    }

    /// Records that a client has proved itself by a flow; returns what happened. A flow that began before the client was
    /// assigned another server came second in a race, and the client stays there.
    pub fn proven(
        &mut self,
        now: Instant,
        flow: (IpAddr, u64),
        (server, era): (usize, u32),
        created: Instant,
    ) -> Option<&'static str> {
        self.others.ended(now, flow.1);
        match self.proven.find(now, flow.0) {
            Some(slot) if slot.server != server && slot.given >= created => Some("second in a race"),
            _ => self.proven.opened(now, flow, server, era).then_some("a proven client forgotten for another"),
        }
    }

    pub fn ended(&mut self, now: Instant, flow: u64) {
        self.proven.ended(now, flow);
        self.others.ended(now, flow);
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
        self.slots.retain(|slot| !slot.flows.is_empty() || slot.since + idle > now);
        self.slots.iter().find(|slot| slot.client == client).cloned()
    }

    /// Records a new flow of a client; returns whether another client had to be forgotten for it.
    fn opened(&mut self, now: Instant, (client, flow): (IpAddr, u64), server: usize, era: u32) -> bool {
        let client = self.settings.prefixes.of(client);
        self.events += 1;
        let place = self.slots.iter().position(|slot| slot.client == client);
        let old = place.map(|place| self.slots.remove(place));
        let old = old.filter(|old| (old.server, old.era) == (server, era));
        let (mut flows, given) = old.map_or((Vec::new(), now), |old| (old.flows, old.given));
        flows.push(flow);
        let full = self.slots.len() >= self.settings.slots as usize;
        // More than one where a reload has lowered the number.
        for _ in 0..8 {
            if self.slots.len() < self.settings.slots as usize {
                break;
            }
            // Clients without flows are forgotten before those with flows.
            let first =
                (0..self.slots.len()).min_by_key(|at| (!self.slots[*at].flows.is_empty(), self.slots[*at].order));
            first.map(|at| self.slots.remove(at));
        }
        self.slots.push(Slot { client, server, era, flows, since: now, given, order: self.events });
        full
    }

    fn ended(&mut self, now: Instant, flow: u64) {
        self.events += 1;
        let Some(slot) = self.slots.iter_mut().find(|slot| slot.flows.contains(&flow)) else { return };
        slot.flows.retain(|other| *other != flow);
        if slot.flows.is_empty() {
            (slot.since, slot.order) = (now, self.events);
        }
    }
}
