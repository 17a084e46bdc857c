//! Servers that a peer names and this configuration does not have: the first flow of one of them gives all of them slots.

use super::super::super::plan::{MOST_GUESTS, guest, is_name};
use super::super::super::reload::Removed;
use super::super::super::{Engine, Succession};
use super::super::record::ServerRecord;
use super::Numbers;
use crate::balance::ServerIdentity;
use crate::ids::ServerId;
use crate::time::{Duration, Instant};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Between two plans that are made for guests: one of 10,000 servers takes 60 ms.
const PAUSE: Duration = Duration::from_secs(1);

/// Services that are remembered for the operator.
const MOST_SERVICES: usize = 16;

/// What a peer has named that is not here, and when the next plan may be made for it.
#[derive(Debug, Default)]
pub(super) struct Guests {
    /// By the peer's number.
    unknown: BTreeMap<u32, ServerIdentity>,
    /// Services that are not here, up to [`MOST_SERVICES`].
    pub(super) services: Vec<String>,
    not_before: Option<Instant>,
    /// A flow has been refused for want of a plan.
    pub(super) is_wanted: bool,
    pub(super) hosted: u32,
}

impl Guests {
    /// Notes a server that is not here. There is no room for more than can have slots.
    pub(super) fn note(&mut self, record: &ServerRecord<'_>) {
        if self.unknown.len() < MOST_GUESTS
            && let Some(guest) = guest((record.pool, record.name), record.addresses, record.port)
        {
            self.unknown.insert(record.number, guest);
        }
    }

    /// Notes a service that is not here: its flows cannot be either. With a name that no service has, it is left out.
    pub(super) fn note_service(&mut self, name: &str) {
        if self.services.len() < MOST_SERVICES && is_name(name) {
            self.services.push(name.to_owned());
        }
    }

    /// Forgets what has been named; it is named anew.
    pub(super) fn renamed(&mut self) {
        (self.unknown, self.is_wanted) = (BTreeMap::new(), false);
        self.services.clear();
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
        let (theirs, unknown): (Vec<u32>, Vec<ServerIdentity>) =
            std::mem::take(&mut guests.unknown).into_iter().unzip();
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
