//! Established TCP flows that somebody else carries on the gateway's behalf: which ones, and what they report.
//!
//! A place is one of a fixed number. It is taken when a flow has lasted, offered to who carries, given when that takes it, and
//! freed when that has let go of it, after which it reports for the last time.

use super::super::paths::{Path, Shortcut};
use super::super::plan::Plan;
use super::super::standing::Standing;
use super::super::{Duty, Engine};
use super::Shard;
use super::upkeep::resets_at;
use crate::flow::{Carried, Found, Key, Sequence};
use crate::ids::{FlowId, ServerId, ServiceId};
use crate::packet::Side;
use crate::time::{Duration, Instant};
use std::collections::VecDeque;

/// Packets after which a flow is worth a place. Most connections have fewer; to carry one costs the system a few
/// microseconds once, as long as two packets take through the device.
pub(super) const LASTING: u64 = 32;

/// How long a flow may be silent until it gives its place to another one that has packets.
const IDLE: Duration = Duration::from_secs(10);
/// Places that a packet of a flow for which there is none looks at.
const LOOKS: usize = 4;

/// No place.
const NONE: u32 = u32::MAX;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Free,
    /// Nobody carries its flow yet.
    Offered,
    Given,
    /// Its flow is to be carried no longer, or has ended.
    Leaving,
}

#[derive(Debug, Clone)]
struct Place {
    state: State,
    flow: FlowId,
    server: ServerId,
    service: ServiceId,
    /// The longest packet that each side may send.
    mtu: [u16; 2],
    /// What has been reported of it.
    reported: Carried,
    /// When it was.
    confirmed: Instant,
    /// What its flow leaves to do when it is no longer carried: only then it is known which resets its ends will accept.
    resets: Option<Resets>,
    /// When it was last given, or said to have had packets.
    active: Instant,
}

/// Resets that are due to the ends of a flow that has ended.
#[derive(Debug, Clone, Copy)]
struct Resets {
    to: &'static [Side],
    keys: [Key; 2],
    sequence: Sequence,
}

/// All places; none as long as nobody carries.
#[derive(Debug, Default)]
pub(super) struct Paths {
    /// Whether flows are offered.
    is_open: bool,
    /// Packets after which a flow is offered.
    lasting: u64,
    places: Vec<Place>,
    /// By the slot of a flow.
    of: Vec<u32>,
    /// The place that was freed first is taken first, so that a late report of one does not reach the next flow there.
    free: VecDeque<u32>,
    offered: VecDeque<u32>,
    leaving: VecDeque<u32>,
    /// Places whose flow is due.
    due: VecDeque<u32>,
    /// The place that is looked at next where all are taken.
    hand: usize,
    era: u64,
    packets: u64,
    bytes: u64,
}

impl Paths {
    fn new(most: u32, flows: usize) -> Paths {
        let none = Place {
            state: State::Free,
            flow: FlowId { index: NONE, generation: 0 },
            server: ServerId(0),
            service: ServiceId(0),
            mtu: [0; 2],
            reported: Carried::default(),
            confirmed: Instant::ZERO,
            active: Instant::ZERO,
            resets: None,
        };
        let queue = || VecDeque::with_capacity(most as usize);
        Paths {
            places: vec![none; most as usize],
            of: vec![NONE; flows],
            free: (0..most).collect(),
            offered: queue(),
            leaving: queue(),
            due: queue(),
            lasting: LASTING,
            ..Paths::default()
        }
    }

    /// Returns the place of the flow in a slot.
    #[inline]
    fn of(&self, index: u32) -> Option<u32> {
        self.of.get(index as usize).copied().filter(|place| *place != NONE)
    }

    fn take(&mut self, place: u32) {
        let Place { flow, .. } = self.places[place as usize];
        if let Some(of) = self.of.get_mut(flow.index as usize).filter(|of| **of == place) {
            *of = NONE;
        }
        self.places[place as usize].state = State::Free;
        self.free.push_back(place);
    }

    /// Makes a flow be carried no longer. One that is only offered is looked at again before it is given.
    fn leave(&mut self, place: u32) {
        let place_of = &mut self.places[place as usize];
        if place_of.state == State::Given {
            place_of.state = State::Leaving;
            self.leaving.push_back(place);
        }
    }

    /// Looks for a place whose flow is silent, and makes it be carried no longer; not while another place is about to be free.
    fn make_room(&mut self, now: Instant) {
        for _ in 0..LOOKS {
            if !self.leaving.is_empty() {
                return;
            }
            let place = self.hand;
            self.hand = (place + 1) % self.places.len();
            if now.since(self.places[place].active) >= IDLE {
                self.leave(place as u32);
            }
        }
    }
}

impl Shard {
    /// Offers flows to somebody who carries at most so many, or to nobody any more if that is zero.
    pub(in crate::engine) fn offer_paths(&mut self, most: u32) {
        if most > 0 && self.paths.places.is_empty() {
            self.paths = Paths::new(most, self.table.max() as usize);
        }
        self.paths.is_open = most > 0;
        if most == 0 {
            while let Some(place) = self.paths.offered.pop_front() {
                self.paths.take(place);
            }
            (0..self.paths.places.len() as u32).for_each(|place| self.paths.leave(place));
        }
    }

    /// Offers a flow of which a packet was just handled if it has lasted, or withdraws it if it is no longer only translated.
    #[inline]
    pub(super) fn mind_path(&mut self, now: Instant, found: Found) {
        if !self.paths.places.is_empty() {
            self.mind_path_of(now, found.index);
        }
    }

    fn mind_path_of(&mut self, now: Instant, index: u32) {
        match self.paths.of(index) {
            Some(place) if !self.table.is_steady(index) => self.paths.leave(place),
            Some(_) => {}
            None if self.paths.is_open
                && self.table.is_steady(index)
                && self.table.packets(index) >= self.paths.lasting =>
            {
                self.offer(now, index);
            }
            None => {}
        }
    }

    #[cold]
    fn offer(&mut self, now: Instant, index: u32) {
        let Some(place) = self.paths.free.pop_front() else { return self.paths.make_room(now) };
        let (server, service) = self.table.whose(index);
        let of = &mut self.paths.places[place as usize];
        (of.state, of.flow, of.server, of.service) = (State::Offered, self.table.id(index), server, service);
        self.paths.of[index as usize] = place;
        self.paths.offered.push_back(place);
    }

    /// Returns whether flows wait to be carried.
    pub(in crate::engine) fn offers_path(&self) -> bool {
        !self.paths.offered.is_empty()
    }

    /// Returns the next flow to be carried.
    pub(in crate::engine) fn poll_path(&mut self, of: (&Plan, &Standing), now: Instant) -> Option<Path> {
        while let Some(place) = self.paths.offered.pop_front() {
            let Place { flow, .. } = self.paths.places[place as usize];
            let Some(mtu) = self.mtu_to_carry(of, flow) else {
                self.paths.take(place);
                continue;
            };
            let sequence = self.table.sequence(flow.index);
            let given = &mut self.paths.places[place as usize];
            (given.state, given.mtu, given.confirmed, given.active) = (State::Given, mtu, now, now);
            given.reported = Carried { sequence, ..Carried::default() };
            let ends = [Side::Client, Side::Server].map(|side| self.table.key(flow.index, side));
            return Some(Path { place, flow, ends, mtu, sequence });
        }
        None
    }

    /// Returns the longest packets of both sides of a flow that may be carried; none of another one.
    fn mtu_to_carry(&self, (plan, standing): (&Plan, &Standing), flow: FlowId) -> Option<[u16; 2]> {
        let index = self.table.slot(flow)?;
        let may = self.table.is_steady(index)
            && standing.duty() != Duty::Standby
            && !standing.may_be_gone(self.table.server_of(index));
        let own = plan.settings().gateway.mtu;
        let least = |mtu: u16| if mtu == 0 { own } else { mtu.min(own) };
        let v6 = self.table.is_v6(index, Side::Server);
        let to_server = standing.path_mtu(self.table.server_of(index), v6);
        may.then(|| [least(to_server), least(plan.client_mtu())])
    }

    /// Withdraws flows that may be carried no longer, or otherwise, under the standing of now.
    pub(in crate::engine) fn review_paths(&mut self, (plan, standing): (&Plan, &Standing)) {
        if self.paths.era == standing.era() {
            return;
        }
        self.paths.era = standing.era();
        for place in 0..self.paths.places.len() as u32 {
            let Place { state, flow, mtu, .. } = self.paths.places[place as usize];
            if state == State::Given && self.mtu_to_carry((plan, standing), flow) != Some(mtu) {
                self.paths.leave(place);
            }
        }
    }

    /// Returns the next place whose flow is to be carried no longer.
    pub(in crate::engine) fn poll_left(&mut self) -> Option<u32> {
        self.paths.leaving.pop_front()
    }

    /// Returns the next place whose flow ends if nothing is reported of it.
    pub(in crate::engine) fn poll_due(&mut self) -> Option<u32> {
        self.paths.due.pop_front()
    }

    /// Returns the place of the flow in a slot if it is carried.
    pub(in crate::engine) fn path_of(&self, index: u32) -> Option<u32> {
        self.paths.of(index).filter(|place| self.paths.places[*place as usize].state == State::Given)
    }

    /// Takes a report of the flow at a place, whose last packet was carried at `seen`; the last report frees the place.
    /// Returns the sequence numbers that the flow has then.
    pub(in crate::engine) fn carried(
        &mut self,
        now: Instant,
        place: u32,
        (seen, report): (Option<Instant>, &Carried),
        is_last: bool,
    ) -> Option<Sequence> {
        let of = self.paths.places.get_mut(place as usize)?;
        if !matches!(of.state, State::Given | State::Leaving) {
            return None;
        }
        of.confirmed = now;
        let before = std::mem::replace(&mut of.reported, *report);
        if before.packets != report.packets {
            of.active = seen.unwrap_or(now).min(now);
        }
        let (flow, whose) = (of.flow, (of.server, of.service));
        let index = self.table.slot(flow);
        if before.packets != report.packets {
            for side in [Side::Client, Side::Server] {
                let since =
                    |after: [u64; 2], before: [u64; 2]| after[side as usize].saturating_sub(before[side as usize]);
                let (packets, bytes) = (since(report.packets, before.packets), since(report.bytes, before.bytes));
                self.paths.packets += packets;
                self.paths.bytes += bytes;
                self.count_traffic(whose, side, packets, bytes);
            }
            if let Some(index) = index {
                self.table.carried(index, seen.unwrap_or(now).min(now), &before, report);
            }
        }
        if is_last {
            if let Some(mut resets) = self.paths.places[place as usize].resets.take() {
                resets.sequence.follow(&before.sequence, &report.sequence);
                for to in resets.to {
                    for packet in resets_at(resets.keys[*to as usize], resets.sequence.reset_towards(*to)) {
                        self.answers.send(&packet, Default::default());
                    }
                }
            }
            self.paths.take(place);
        }
        index.map(|index| self.table.sequence(index))
    }

    /// Has resets sent to ends of a flow that ends as soon as it is carried no longer; returns false if it is not carried.
    pub(super) fn reset_later(&mut self, index: u32, to: &'static [Side]) -> bool {
        let Some(place) = self.paths.of(index) else { return false };
        let of = &mut self.paths.places[place as usize];
        if !matches!(of.state, State::Given | State::Leaving) {
            return false;
        }
        let keys = [Side::Client, Side::Server].map(|side| self.table.key(index, side));
        of.resets = Some(Resets { to, keys, sequence: self.table.sequence(index) });
        true
    }

    /// Withdraws a flow that ends.
    #[inline]
    pub(super) fn end_path(&mut self, index: u32) {
        if let Some(place) = self.paths.of(index) {
            self.paths.leave(place);
            self.paths.of[index as usize] = NONE;
        }
    }

    /// Returns whether a flow that is due may end: not one that is carried and of which nothing was reported since it is due.
    pub(super) fn may_expire(&mut self, now: Instant, index: u32) -> bool {
        let Some(place) = self.path_of(index) else { return true };
        if self.paths.places[place as usize].confirmed >= self.table.deadline(index) {
            return true;
        }
        if self.paths.due.len() < self.paths.places.len() {
            self.paths.due.push_back(place);
        }
        self.table.put_off(now, index);
        false
    }

    /// Returns what is carried; none if nobody has carried anything.
    pub(in crate::engine) fn shortcut(&self) -> Option<Shortcut> {
        let Paths { places, packets, bytes, .. } = &self.paths;
        let flows = places.iter().filter(|place| place.state == State::Given).count() as u64;
        let max_flows = places.len() as u64;
        (max_flows > 0).then_some(Shortcut { flows, max_flows, packets: *packets, bytes: *bytes })
    }
}

impl Engine {
    /// Offers flows after so many packets.
    #[cfg(test)]
    pub(crate) fn offer_paths_after(&mut self, packets: u64) {
        self.shard.paths.lasting = packets;
    }

    #[cfg(test)]
    pub(in crate::engine) fn places_in_use(&self) -> usize {
        self.shard.paths.places.len() - self.shard.paths.free.len()
    }
}
