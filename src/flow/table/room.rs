//! Which flow gives way when the table is full.
//!
//! First come flows that are over; then exchanges that have not become a conversation, as one packet each way is a
//! query and not a stream; then flows that have been idle for minutes. Busy flows never give way. Established flows are
//! not ranked by source address: behind a carrier's NAT or a CDN, a few addresses are all customers.
//!
//! A conversation of datagrams proves less than a handshake: who forges a source can send its second datagram without
//! having seen the answer to the first. So conversations may fill the table, but beyond half of it they are kept for
//! seconds instead of minutes, and a handshake that is complete takes the place of the idlest.

use super::entry::{ACTIVE, Flow, order};
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
        /// Conversations of datagrams: the client has sent again after an answer.
        Conversing = "conversing",
        /// Established TCP.
        Settled = "settled",
        /// TCP, handshake incomplete.
        HalfOpen = "half-open",
    }
}

/// The classes that the table queues: all but half-open.
pub(super) const QUEUES: usize = 4;

/// A flow that is over keeps its place for this long, for the segments still under way.
pub(super) const GRACE: Duration = Duration::from_secs(2);
/// An established connection gives way after being idle for this long.
const IDLE: Duration = Duration::from_secs(300);
/// A conversation of datagrams gives way after being idle for this long (RFC 4787 REQ-5: at least 2 min).
const IDLE_DATAGRAMS: Duration = Duration::from_secs(120);
/// The same while conversations have more than half of the table; and brief flows that packets have refreshed. At the
/// default size, 13,000 forged conversations per second fill half of the table in this time.
const BUSY: Duration = Duration::from_secs(10);
/// The same for a newcomer whose handshake is complete.
const BUSY_TO_PROVEN: Duration = Duration::from_secs(1);
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
    /// By class: how many of the first flows were looked at. Those that were passed over go to its end.
    passed_over: [u8; QUEUES],
}

/// Who asks for room in the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Newcomer {
    /// Whether its client has proved that it receives what is sent to its address: its handshake is complete.
    pub is_proven: bool,
    /// Whether settled flows may give way; they are limited in number per second by the layer above.
    pub may_take_settled: bool,
}

impl Room {
    /// One flow gives way, and none was passed over.
    pub fn of(victim: u32, class: Class) -> Room {
        Room { victim: Some((victim, class)), ..Room::default() }
    }
}

impl Table {
    /// Returns how room is made in the full table.
    pub fn room(&self, now: Instant, newcomer: Newcomer) -> Room {
        let tick = self.clock.tick(now);
        let over = self.queues[Class::Over as usize].iter(&self.flows, |flow| &flow.order).next();
        if let Some((slot, flow)) = over
            && age(flow, tick) >= ticks(GRACE)
        {
            return Room::of(slot, Class::Over);
        }
        let busy = ticks(if newcomer.is_proven { BUSY_TO_PROVEN } else { BUSY });
        let idle_datagrams = if self.is_crowded() { busy } else { ticks(IDLE_DATAGRAMS) };
        let steps = [
            (Class::Brief, Some(busy)),
            (Class::Conversing, Some(idle_datagrams)),
            (Class::Settled, newcomer.may_take_settled.then_some(ticks(IDLE))),
        ];
        let mut room = Room::default();
        for (class, idle) in steps.into_iter().filter_map(|(class, idle)| Some((class, idle?))) {
            if let Some(victim) = self.idlest(class, tick, idle, &mut room.passed_over[class as usize]) {
                return Room { victim: Some((victim, class)), ..room };
            }
        }
        Room { victim: over.map(|(slot, _)| (slot, Class::Over)), ..room }
    }

    /// Returns whether conversations of datagrams have more than half of the table.
    fn is_crowded(&self) -> bool {
        u64::from(self.queues[Class::Conversing as usize].len) * 2 > u64::from(self.max)
    }

    /// Returns the number of flows that do not give way to any new flow, if the flow `without` did not count. Of
    /// conversations, those beyond half of the table do.
    pub fn flows_that_stay(&self, without: Option<u32>) -> u32 {
        let without = without.filter(|slot| !Table::is_half_open(*slot)).map(|slot| self.flows[slot as usize].class());
        let count = |class: Class| self.queues[class as usize].len - u32::from(without == Some(class));
        count(Class::Settled) + count(Class::Conversing).min(self.max / 2)
    }

    /// Returns the flow of a class that gives way: of brief ones, the first that no packet has refreshed since it was
    /// queued; otherwise the idlest of those looked at that has been idle for so many ticks, or is one exchange. `looked` becomes their
    /// number.
    fn idlest(&self, class: Class, tick: u64, idle: u32, looked: &mut u8) -> Option<u32> {
        let mut idlest: Option<(u32, u32)> = None;
        for (slot, flow) in self.queues[class as usize].iter(&self.flows, |flow| &flow.order).take(MOST_LOOKED_AT) {
            *looked += 1;
            if class == Class::Brief && flow.flags & ACTIVE == 0 {
                return Some(slot);
            }
            let age = age(flow, tick);
            let may_go = age >= idle || class == Class::Brief && flow.is_exchange();
            if may_go && idlest.is_none_or(|(_, most)| age > most) {
                idlest = Some((slot, age));
            }
        }
        idlest.map(|(slot, _)| slot)
    }

    /// Sends the flows that were passed over to the end of their queue. The flow that gives way is removed by the
    /// caller.
    pub fn pass_over(&mut self, room: &Room) {
        let victim = room.victim.map(|(slot, _)| slot);
        for (queue, looked) in self.queues.iter_mut().zip(room.passed_over) {
            let mut next = queue.first;
            for _ in 0..looked {
                let slot = next;
                next = self.flows[slot as usize].order.behind;
                if Some(slot) == victim {
                    continue;
                }
                queue.unlink(&mut self.flows, order, slot);
                self.flows[slot as usize].flags &= !ACTIVE;
                queue.push(&mut self.flows, order, slot);
            }
        }
    }
}

/// Returns the ticks since a flow's timeout was last restarted.
fn age(flow: &Flow, tick: u64) -> u32 {
    (tick as u32).wrapping_sub(flow.touched)
}
