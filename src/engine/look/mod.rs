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
use crate::flow::{Found, Key, Table};

/// What a look reads.
#[derive(Debug, Clone, Copy)]
pub(super) struct Look<'a> {
    plan: &'a Plan,
    standing: &'a Standing,
    shard: &'a Shard,
    /// A flow that counts as ended.
    without: Option<u32>,
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
    Look { plan, standing, shard, without: None }.look(arrival, scratch)
}

impl<'a> Look<'a> {
    /// Reads what is given; the flow in slot `without` counts as ended.
    pub(super) fn new(plan: &'a Plan, standing: &'a Standing, shard: &'a Shard, without: Option<u32>) -> Self {
        Look { plan, standing, shard, without }
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
        self.table().find(key).filter(|found| Some(found.index) != self.without)
    }

    #[inline]
    fn table(&self) -> &'a Table {
        self.shard.table()
    }
}
