//! Which flow gives way when the table is full.
//!
//! First come flows that are over; then exchanges that have not become a conversation, as one packet each way is a
//! query and not a stream; then flows that have been idle for minutes. Busy flows never give way. Established flows are
//! not ranked by source address: behind a carrier's NAT or a CDN, a few addresses are all customers.

use super::entry::{ACTIVE, Flow};
use super::{TICK, Table};
use crate::time::{Duration, Instant};
use serde::{Deserialize, Serialize};

crate::words::words! {
    /// The kinds of flows that give way, in the order in which they do. Half-open flows give way to half-open flows
    /// only.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
    #[serde(rename_all = "kebab-case")]
    pub enum Class {
        /// TCP, both ends have sent a FIN, or a reset was seen.
        Over = "over",
        /// Datagrams that have not become a conversation: the client has not sent again after an answer. Also TCP that
        /// was picked up in the middle and not yet confirmed by both ends.
        Brief = "brief",
        /// Established TCP, and conversations of datagrams.
        Settled = "settled",
        /// TCP, handshake incomplete.
        HalfOpen = "half-open",
    }
}

/// The classes that the table queues: all but half-open.
pub(super) const QUEUES: usize = 3;

/// A flow that is over keeps its place for this long, for the segments still under way.
const GRACE: Duration = Duration::from_secs(2);
/// An established connection gives way after being idle for this long.
const IDLE: Duration = Duration::from_secs(300);
/// A conversation of datagrams gives way after being idle for this long (RFC 4787 REQ-5: at least 2 min).
const IDLE_DATAGRAMS: Duration = Duration::from_secs(120);
/// Flows that are looked at to find one that gives way.
const MOST_LOOKED_AT: usize = 16;

/// Returns a span in ticks, rounded up.
pub(super) const fn ticks(span: Duration) -> u32 {
    span.as_nanos().div_ceil(TICK.as_nanos()) as u32
}

/// How room is made for a flow: the flow that gives way, if any, and the flows that were passed over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Room {
    /// The slot of the flow that gives way, and its class; none if the new flow has to be refused.
    pub victim: Option<(u32, Class)>,
    /// The class of which the first flows were looked at, and how many: those that were passed over go to its end.
    passed_over: Option<(Class, u8)>,
}

impl Room {
    /// One flow gives way, and none was passed over.
    pub fn of(victim: u32, class: Class) -> Room {
        Room { victim: Some((victim, class)), passed_over: None }
    }
}

impl Table {
    /// Returns how room is made in the full table. `may_be_settled` says whether settled flows may give way; they are
    /// limited in number per second by the layer above.
    pub fn room(&self, now: Instant, may_be_settled: bool) -> Room {
        let tick = self.clock.tick(now);
        let over = self.queues[Class::Over as usize].iter(&self.flows).next();
        if let Some((slot, flow)) = over
            && age(flow, tick) >= ticks(GRACE)
        {
            return Room::of(slot, Class::Over);
        }
        if let Some(room) = self.brief(tick) {
            return room;
        }
        let settled = if may_be_settled { self.idle_settled(tick) } else { Room::default() };
        match (settled.victim, over) {
            (None, Some((slot, _))) => Room { victim: Some((slot, Class::Over)), ..settled },
            _ => settled,
        }
    }

    /// The first that no packet has refreshed since it was queued; if all that are looked at were refreshed, the idlest
    /// of them.
    fn brief(&self, tick: u64) -> Option<Room> {
        let mut looked = 0;
        let mut idlest: Option<(u32, u32)> = None;
        for (slot, flow) in self.queues[Class::Brief as usize].iter(&self.flows).take(MOST_LOOKED_AT) {
            looked += 1;
            let fresh = flow.flags & ACTIVE == 0;
            if fresh || idlest.is_none_or(|(_, idle)| age(flow, tick) > idle) {
                idlest = Some((slot, age(flow, tick)));
            }
            if fresh {
                break;
            }
        }
        let (slot, _) = idlest?;
        Some(Room { victim: Some((slot, Class::Brief)), passed_over: Some((Class::Brief, looked)) })
    }

    /// The idlest of those looked at that have been idle for long enough.
    fn idle_settled(&self, tick: u64) -> Room {
        let looked = self.queues[Class::Settled as usize].iter(&self.flows).take(MOST_LOOKED_AT);
        let (mut count, mut idlest) = (0, None::<(u32, u32)>);
        for (slot, flow) in looked {
            count += 1;
            let idle = age(flow, tick);
            let limit = ticks(if flow.protocol == crate::packet::proto::TCP { IDLE } else { IDLE_DATAGRAMS });
            if idle >= limit && idlest.is_none_or(|(_, most)| idle > most) {
                idlest = Some((slot, idle));
            }
        }
        let victim = idlest.map(|(slot, _)| (slot, Class::Settled));
        Room { victim, passed_over: Some((Class::Settled, count)) }
    }

    /// Sends the flows that were passed over to the end of their queue. The flow that gives way is removed by the
    /// caller.
    pub fn pass_over(&mut self, room: &Room) {
        let Some((class, looked)) = room.passed_over else { return };
        let queue = &mut self.queues[class as usize];
        let victim = room.victim.map(|(slot, _)| slot);
        let mut next = queue.first;
        for _ in 0..looked {
            let slot = next;
            next = self.flows[slot as usize].order.behind;
            if Some(slot) == victim {
                continue;
            }
            queue.unlink(&mut self.flows, slot);
            self.flows[slot as usize].flags &= !ACTIVE;
            queue.push(&mut self.flows, slot);
        }
    }
}

/// Returns the ticks since a flow's timeout was last restarted.
fn age(flow: &Flow, tick: u64) -> u32 {
    (tick as u32).wrapping_sub(flow.touched)
}
