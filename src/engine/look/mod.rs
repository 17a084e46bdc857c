//! Decides what to do with a packet, and leaves no trace.
//!
//! It reads the plan, the standing and one shard, and returns a [`Step`]. Carrying out the step decides nothing more,
//! so `explain` is a look that is not carried out. The modules: `hit` handles a packet of a flow, `miss` one without a
//! flow, `admit` evaluates rules and limits, `open` picks a server and a source, `adopt` takes a server's segment for one of a
//! lost flow, `onward` checks whether a packet can be forwarded, `across` translates into the other family, `later` handles a later fragment of a packet, `icmp` handles errors, `answer` writes replies, `standby` is for a gateway that stands by.

mod across;
mod admit;
mod adopt;
mod answer;
mod hit;
mod icmp;
mod later;
mod miss;
mod onward;
mod open;
mod standby;

pub(super) use hit::{segment, touched_state};
pub(super) use onward::Going;

use onward::most_pieces;
use standby::standby;

use super::arrival::{self, Arrival};
use super::pair::Duty;
use super::plan::Plan;
use super::shard::Shard;
use super::standing::Standing;
use super::step::{Scratch, Step};
use crate::balance::{Ask, Overlay};
use crate::flow::{Draw, Found, GivenBack, Key, Table};
use crate::ids::ServiceId;
use crate::packet::{Side, Transport};
use std::net::IpAddr;

/// What a look reads.
#[derive(Debug, Clone, Copy)]
pub(super) struct Look<'a> {
    plan: &'a Plan,
    standing: &'a Standing,
    shard: &'a Shard,
    /// What counts as having happened already; only explanations have one.
    foresight: Option<&'a Foresight>,
}

/// What counts as having happened, although nothing has been carried out.
#[derive(Debug, Default)]
pub(super) struct Foresight {
    /// A flow that has ended.
    pub(super) without: Option<Without>,
    /// The overlay of the chooser.
    pub(super) overlay: Overlay,
    /// Ports that have been freed, all of the one NAT pool that the packet's service uses.
    pub(super) given_back: GivenBack,
    /// The random state of that pool, if some have been freed since it was drawn from.
    pub(super) draw: Option<Draw>,
}

/// A flow that counts as ended, and what it held.
#[derive(Debug, Clone, Copy)]
pub(super) struct Without {
    pub(super) slot: u32,
    pub(super) rule: u16,
    pub(super) client: IpAddr,
    /// Whether its client had proved itself, so that it counted in limits.
    pub(super) proven: bool,
}

impl<'a> Look<'a> {
    pub(super) fn new(plan: &'a Plan, standing: &'a Standing, shard: &'a Shard) -> Self {
        Look { plan, standing, shard, foresight: None }
    }

    /// Decides a packet, with what counts as having happened already.
    pub(super) fn foreseeing(self, foresight: &'a Foresight) -> Self {
        Look { foresight: Some(foresight), ..self }
    }

    /// Decides a packet. `scratch` receives what is too big for the step.
    #[inline]
    pub(super) fn look(&self, arrival: &Arrival<'_>, scratch: &mut Scratch) -> Step {
        let found = arrival.key().and_then(|key| self.find(&key));
        self.decide(arrival, found, scratch)
    }

    /// Decides a packet whose flow, if any, has been found.
    pub(super) fn decide(&self, arrival: &Arrival<'_>, found: Option<Found>, scratch: &mut Scratch) -> Step {
        let step = match (&arrival.key(), found) {
            (None, _) => self.without_key(arrival, scratch),
            (Some(_), Some(found)) => self.hit(arrival, found, scratch),
            (Some(key), None) => self.miss(arrival, key, scratch),
        };
        match self.standing.duty() {
            Duty::Full | Duty::Known => step,
            Duty::Standby => standby(step),
        }
    }

    /// Finds a packet's flow, and returns it if [`Look::hit`] would only rewrite the packet in place and learn nothing
    /// about the server, which is the case for almost every packet. Returning a [`Step`] for these through memory made
    /// a hit 1.6 times slower.
    ///
    /// # Errors
    /// The flow, if any, of a packet that [`Look::decide`] has to decide.
    #[inline]
    pub(super) fn plain(&self, arrival: &Arrival<'_>) -> Result<Found, Option<Found>> {
        let parsed = &*arrival.parsed;
        let Some(key) = arrival::key_ref(parsed) else { return Err(None) };
        let hash = arrival.hash.unwrap_or_else(|| self.table().hash(key));
        let Some(found) = self.table().find_hashed(hash, key) else {
            return Err(self.table().find_half_open(hash, key));
        };
        let flow = self.table().flow(found.index);
        let (tcp, syn) = match parsed.transport {
            Transport::Tcp { flags, .. } => (true, flags.syn()),
            _ => (false, false),
        };
        let is_answer = || found.side == Side::Server && !tcp && flow.is_answered() && !flow.crosses();
        let size = arrival.size();
        let plain = arrival.hops() > 1
            && parsed.whole
            && !syn
            && !self.standing.may_be_gone(flow.server_id())
            && (flow.is_plain() || is_answer())
            && match found.side {
                Side::Client => self.standing.reaches(flow.server_id(), flow.server_is_v6(), size),
                Side::Server => self.plan.client_mtu() == 0 || size <= usize::from(self.plan.client_mtu()),
            };
        if plain { Ok(found) } else { Err(Some(found)) }
    }

    #[inline]
    fn find(&self, key: &Key) -> Option<Found> {
        self.table().find(key).filter(|found| Some(found.index) != self.without())
    }

    /// Returns whether the gateway answers for an address, in the configuration or until the last flow has ended.
    fn is_own(&self, address: IpAddr) -> bool {
        self.plan.is_own(address) || self.standing.is_retired(address)
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
