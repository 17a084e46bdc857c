//! Servers that a peer names and this configuration does not have: the first flow of one of them gives all of them slots.

use super::super::super::plan::{Guest, MOST_GUESTS, Plan};
use super::super::super::reload::Removed;
use super::super::super::{Engine, Succession};
use super::super::record::ServerRecord;
use super::{Names, Numbers};
use crate::ids::ServerId;
use crate::time::{Duration, Instant};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

/// Between two plans that are made for guests: one of 10,000 servers takes 60 ms.
const PAUSE: Duration = Duration::from_secs(1);

/// What a peer has named that is not here, and when the next plan may be made for it.
#[derive(Debug, Default)]
pub(super) struct Guests {
    /// By the peer's number.
    unknown: BTreeMap<u32, Guest>,
    not_before: Option<Instant>,
    /// A flow has been refused for want of a plan.
    pub(super) is_wanted: bool,
    pub(super) hosted: u32,
}

impl Guests {
    /// Notes a server that is not here. There is no room for more than can have slots.
    pub(super) fn note(&mut self, record: &ServerRecord<'_>) {
        if self.unknown.len() < MOST_GUESTS
            && let Some(guest) = Guest::new((record.pool, record.name), record.addresses, record.port)
        {
            self.unknown.insert(record.number, guest);
        }
    }

    /// Forgets what has been named; it is named anew.
    pub(super) fn renamed(&mut self) {
        (self.unknown, self.is_wanted) = (BTreeMap::new(), false);
    }

    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.is_wanted && self.may_host(now)
    }

    fn may_host(&self, now: Instant) -> bool {
        self.not_before.is_none_or(|at| at <= now)
    }
}

impl Engine {
    /// Gives slots to all servers that a peer has named and that are not here; returns whether there is any.
    pub(super) fn host(&mut self, now: Instant, of: (&mut Guests, &mut Numbers)) -> bool {
        let (guests, numbers) = of;
        if guests.unknown.is_empty() {
            return false;
        }
        if !guests.may_host(now) {
            guests.is_wanted = true;
            return false;
        }
        (guests.not_before, guests.is_wanted) = (Some(now + PAUSE), false);
        let (theirs, unknown): (Vec<u32>, Vec<Guest>) = std::mem::take(&mut guests.unknown).into_iter().unzip();
        let known: Vec<ServerId> = numbers.servers.values().flatten().copied().collect();
        let in_use = self.in_use();
        let (plan, slots) = self.plan.hosting(&unknown, &in_use, |server| known.contains(&server));
        let successor = Succession::prepare_plan(self.succession(now), Arc::new(plan));
        let followed = self.follow(now, successor, Removed::Drain);
        debug_assert!(followed.is_ok(), "nothing has come between");
        for (number, slot) in theirs.into_iter().zip(slots) {
            guests.hosted += u32::from(slot.is_some());
            numbers.servers.insert(number, slot);
        }
        true
    }
}

impl Names {
    /// Returns the slots of a plan by name, also of what is not configured any more and still in use: a peer may have it, too.
    pub(super) fn of_all(plan: &Plan) -> Names {
        let mut names = Names::of(plan);
        for (at, service) in (0..).zip(&plan.settings().services).filter(|(_, service)| !service.name.is_empty()) {
            names.services.entry(service.name.clone()).or_insert(crate::ids::ServiceId(at));
        }
        let leaving = (0..).map(ServerId).zip(&plan.settings().servers).filter(|(_, server)| !server.name.is_empty());
        for (id, _) in leaving {
            let (pool, server) = plan.pool_and_server(id);
            let same = names.servers.entry((pool.to_owned(), server.to_owned())).or_default();
            if !same.contains(&id) {
                same.push(id);
            }
        }
        names
    }

    /// Returns the server of a name, and of these addresses and port.
    pub(super) fn server(&self, plan: &Plan, record: &ServerRecord<'_>) -> Option<ServerId> {
        let same = |id: &ServerId| {
            let own = plan.roster().server(*id);
            ([own.v4.map(IpAddr::V4), own.v6.map(IpAddr::V6)], own.port) == (record.addresses, record.port)
        };
        let named = self.servers.get(&(record.pool.to_owned(), record.name.to_owned()))?;
        // Names are those of the plan when the state began, and a plan that came later may have fewer slots.
        named.iter().copied().filter(|id| plan.roster().has(*id)).find(same)
    }
}
