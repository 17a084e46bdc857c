//! The walk over the table for flows that must end because their server is gone or has drained; a single walk serves
//! all servers, however many go at once.

use super::super::Ended;
use super::super::look::Look;
use super::super::plan::Plan;
use super::super::standing::Standing;
use super::Shard;
use crate::flow::Table;
use crate::packet::Protocol;
use crate::time::Instant;

/// Slots of the table that one call examines.
const SLOTS_PER_CALL: usize = 4096;
/// Maximum number of packets that ending one flow may queue.
const RESETS_PER_FLOW: usize = 4;

/// The position of the walk.
#[derive(Debug)]
pub(super) struct Walk {
    next: u32,
    /// Another server went while the walk was under way: it must start over when it is done.
    again: bool,
    since: Instant,
}

impl Walk {
    pub(super) fn since(&self) -> Instant {
        self.since
    }
}

impl Shard {
    /// Starts a walk, or makes another one follow the current one.
    pub(in crate::engine) fn begin_walk(&mut self, now: Instant) {
        let walk = self.walk.get_or_insert(Walk { next: 0, again: false, since: now });
        walk.again |= walk.next > 0;
    }

    /// Continues the walk as long as there is room to queue packets; returns whether it has ended.
    pub(in crate::engine) fn go_on_walking(&mut self, (plan, standing): (&Plan, &Standing), now: Instant) -> bool {
        let walk = self.walk.as_ref().filter(|_| !self.part.stands_by());
        let Some(next) = walk.map(|walk| walk.next) else { return false };
        let mut found = Vec::new();
        let mut reached = None;
        for (looked_at, (index, used)) in self.table.slots(next).enumerate() {
            if looked_at >= SLOTS_PER_CALL || found.len() * RESETS_PER_FLOW >= self.answers.room_for_packets() {
                reached = Some(Table::position(index));
                break;
            }
            if let Some(cause) = used.then(|| self.is_to_end((plan, standing), index)).flatten() {
                found.push((index, cause));
            }
        }
        for (index, cause) in found {
            self.end_by_reset((plan, standing), now, index, cause);
        }
        match (&mut self.walk, reached) {
            (Some(walk), Some(next)) => walk.next = next,
            (Some(walk), None) if walk.again => *walk = Walk { next: 0, again: false, since: now },
            _ => self.walk = None,
        }
        self.walk.is_none()
    }

    /// Returns why a flow that the walk encounters must end, if it must.
    fn is_to_end(&self, (plan, standing): (&Plan, &Standing), index: u32) -> Option<Ended> {
        let flow = self.table.facts(index);
        if standing.is_drained(flow.server_id) {
            return Some(Ended::Drained);
        }
        let gone = || Look::new(plan, standing, self).flow_is_gone(index);
        let ends = standing.may_be_gone(flow.server_id) && flow.protocol == Protocol::Tcp && gone();
        ends.then_some(Ended::ServerDown)
    }
}
