//! Flows of the peer that cannot be here: they are left out of what both compare, counted and reported.

use super::event::Event;
use super::link::Link;
use super::node::Node;
use super::wire::Reader;
use crate::engine::{Lost, Offer};

/// Most flows that cannot be here and wait to be reported.
const MOST_REFUSED: usize = 8192;

/// What has been refused since the connection began.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Refusals {
    /// Records of the peer's flows, by [`Lost`].
    pub here: [u64; Lost::ALL.len()],
    /// Records of flows of this gateway that the peer has refused.
    pub there: u64,
    /// Services of the peer that are not configured here; at most 16.
    pub services: Vec<String>,
}

impl Node {
    /// Returns what has been refused since the connection began.
    pub fn refusals(&self) -> Refusals {
        let services = self.link.as_deref().into_iter().flat_map(|link| link.taking.unknown_services());
        Refusals { services: services.map(str::to_owned).collect(), ..self.refusals.clone() }
    }

    /// Refuses a flow, of which the peer knows this hash.
    pub(super) fn refuse(&mut self, link: &mut Link, offer: &Offer, hash: u64, why: Lost) {
        if link.refused.len() < MOST_REFUSED {
            link.refused.push((offer.slot, hash));
        }
        let count = &mut self.refusals.here[why as usize];
        *count += 1;
        // The others are the business of one flow, or pass.
        let is_of_many = matches!(why, Lost::Service | Lost::NatAddress | Lost::Room);
        if *count == 1 && is_of_many {
            let services = link.taking.unknown_services().map(str::to_owned).collect();
            self.report(Event::Refuses { why, services });
        }
    }

    /// Reads which flows cannot be there.
    pub(super) fn take_refused(&mut self, mut body: Reader<'_>) -> Option<()> {
        while !body.0.is_empty() {
            let (slot, hash) = (body.u32()?, body.u64()?);
            self.refusals.there += 1;
            if self.book.told(slot) == hash {
                self.book.tell(slot, None);
            }
        }
        Some(())
    }
}
