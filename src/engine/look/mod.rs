//! Decides what is to be done about a packet, and leaves no trace.
//!
//! It reads the plan, the standing and one shard, and returns a [`Step`]. Whoever carries the step out decides nothing
//! more, so looking without carrying out is what `explain` does. The rooms: `hit` is a packet of a flow, `miss` one of
//! no flow, `admit` asks rules and limits, `open` picks a server and a source, `onward` asks whether a packet can go on
//! from here, `across` makes packets of the other family, `icmp` follows errors, `answer` writes replies.

mod across;
mod admit;
mod answer;
mod hit;
mod icmp;
mod miss;
mod onward;
mod open;

pub(super) use onward::{Going, most_pieces};

use super::arrival::Arrival;
use super::plan::Plan;
use super::shard::Shard;
use super::standing::Standing;
use super::step::{Scratch, Step};
use crate::balance::{Ask, Overlay};
use crate::flow::{Found, GivenBack, Key, Table};
use crate::ids::ServiceId;
use std::net::IpAddr;

/// What a look reads.
#[derive(Debug, Clone, Copy)]
pub(super) struct Look<'a> {
    plan: &'a Plan,
    standing: &'a Standing,
    shard: &'a Shard,
    /// What counts as having happened already; only explanations have it.
    foresight: Option<&'a Foresight>,
}

/// What counts as having happened, though nothing has been carried out.
#[derive(Debug, Default)]
pub(super) struct Foresight {
    /// A flow that has ended.
    pub(super) without: Option<Without>,
    /// What lies over the chooser.
    pub(super) overlay: Overlay,
    /// Ports of each NAT pool that have been given back.
    pub(super) given_back: GivenBack,
}

/// A flow that counts as ended, and what it held.
#[derive(Debug, Clone, Copy)]
pub(super) struct Without {
    pub(super) slot: u32,
    pub(super) rule: u16,
    pub(super) client: IpAddr,
}

/// Decides about a packet. `scratch` receives what is too big for the step.
#[inline]
pub(super) fn look(
    plan: &Plan,
    standing: &Standing,
    shard: &Shard,
    arrival: &Arrival<'_>,
    scratch: &mut Scratch,
) -> Step {
    Look { plan, standing, shard, foresight: None }.look(arrival, scratch)
}

impl<'a> Look<'a> {
    pub(super) fn new(plan: &'a Plan, standing: &'a Standing, shard: &'a Shard) -> Self {
        Look { plan, standing, shard, foresight: None }
    }

    /// The same, with what counts as having happened already.
    pub(super) fn foreseeing(self, foresight: &'a Foresight) -> Self {
        Look { foresight: Some(foresight), ..self }
    }

    /// Decides about a packet.
    #[inline]
    pub(super) fn look(&self, arrival: &Arrival<'_>, scratch: &mut Scratch) -> Step {
        let Some(key) = &arrival.key else { return self.without_key(arrival, scratch) };
        match self.find(key) {
            Some(found) => self.hit(arrival, found, scratch),
            None => self.miss(arrival, key, scratch),
        }
    }

    #[inline]
    fn find(&self, key: &Key) -> Option<Found> {
        self.table().find(key).filter(|found| Some(found.index) != self.without())
    }

    /// Returns the slot of a flow that counts as ended.
    #[inline]
    fn without(&self) -> Option<u32> {
        self.foresight.and_then(|foresight| foresight.without).map(|without| without.slot)
    }

    /// Returns what the choice of a server depends on.
    pub(super) fn ask(&self, arrival: &Arrival<'_>, key: &'a Key, service: ServiceId) -> Ask<'a> {
        let (roster, standings) = (self.plan.roster(), self.standing.servers());
        let overlay = self.foresight.map(|foresight| &foresight.overlay);
        Ask { now: arrival.now, roster, standings, service, key, overlay }
    }

    #[inline]
    fn table(&self) -> &'a Table {
        self.shard.table()
    }
}
