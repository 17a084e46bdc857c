//! A flow as a value from which another table makes it again: all that it is, but for its place and its clock.
//!
//! Half-open flows are not part of a saved state: their handshakes begin anew with the next SYN. A takeover passes them on.

use super::super::settings::TimeoutState;
use super::super::tcp::{Ends, SAVED};
use super::entry::{ANSWERED, PROVEN};
use super::{Clock, HALF_OPEN, NewFlow, TICK, TICK_BITS, Table};
use crate::packet::{Protocol, Side};
use crate::time::{Duration, Instant};

/// Bytes of the sequence numbers of both ends.
pub const NUMBERS: usize = SAVED;

/// A flow that is not half-open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SavedFlow {
    /// What it was created from; not half-open.
    pub flow: NewFlow,
    /// Its timeout state, one of its protocol.
    pub state: TimeoutState,
    /// When it was created.
    pub created: Instant,
    /// When its timeout was last restarted; not later than now.
    pub touched: Instant,
    /// Whether the server has sent.
    pub answered: bool,
    /// Whether the client has proved itself.
    pub proven: bool,
    /// What is known of both ends of a connection; opaque.
    pub numbers: [u8; NUMBERS],
    /// Whether packets may have passed since these numbers were learned.
    pub is_behind: bool,
    /// Packets from the client and from the server.
    pub packets: [u64; 2],
    /// Bytes of IP packets from the client and from the server.
    pub bytes: [u64; 2],
}

impl Table {
    /// Returns a flow as a value; none if it is half-open.
    pub fn save(&self, index: u32) -> Option<SavedFlow> {
        if index & HALF_OPEN != 0 {
            return None;
        }
        let flow = &self.flows[index as usize];
        let new = NewFlow {
            client: self.key(index, Side::Client),
            server: self.key(index, Side::Server),
            service: flow.service,
            server_id: flow.server_id,
            profile: flow.profile,
            nat_pool: flow.nat_pool,
            rule: flow.rule,
            picked_by: flow.picked_by(),
            half_open: false,
        };
        Some(SavedFlow {
            flow: new,
            state: flow.state,
            created: flow.created,
            touched: self.touched(index),
            answered: flow.is_answered(),
            proven: flow.is_proven(),
            numbers: flow.tcp.to_saved(),
            is_behind: false,
            packets: flow.packets,
            bytes: flow.bytes,
        })
    }

    /// Prepares an empty table for flows that began before it did. It has no effect once there has been a flow.
    pub fn expect_saved(&mut self, now: Instant) {
        let longest = self.ticks.iter().flatten().max().copied().unwrap_or(0);
        let before = (u64::from(longest) + 1) << TICK_BITS;
        if self.clock.epoch == Instant::FAR {
            self.clock = Clock { epoch: Instant::from_nanos(now.as_nanos().saturating_sub(before)) };
        }
    }

    /// Makes a saved flow again; returns its slot. Both keys must be free and differ, and there must be room.
    pub fn restore(&mut self, now: Instant, saved: &SavedFlow) -> u32 {
        debug_assert!(!saved.flow.half_open && !self.is_full(false, None), "no room: {saved:?}");
        self.clock.begin(now);
        let profile = if usize::from(saved.flow.profile) < self.ticks.len() { saved.flow.profile } else { 0 };
        let new = NewFlow { profile, ..saved.flow };
        let mut flow = self.make(now, &new, (saved.created, saved.state));
        let tick = self.clock.tick_after(saved.touched).min(self.clock.tick(now));
        flow.touched = tick as u32;
        flow.tcp = Ends::from_saved(&saved.numbers);
        if saved.is_behind && new.client.protocol == Protocol::Tcp {
            flow.tcp.fall_behind();
        }
        (flow.packets, flow.bytes) = (saved.packets, saved.bytes);
        flow.flags |= if saved.answered { ANSWERED } else { 0 } | if saved.proven { PROVEN } else { 0 };
        let hashes = [self.hash(&new.client), self.hash(&new.server)];
        let index = self.settle(now, flow, hashes);
        self.set_note(index, 0);
        index
    }

    /// Makes a flow what a later value of it says. Keys, server, and whether its client has proved itself must be the same.
    pub fn renew(&mut self, now: Instant, index: u32, saved: &SavedFlow) {
        self.unlink(index);
        let tick = self.clock.tick_after(saved.touched).min(self.clock.tick(now));
        let flow = &mut self.flows[index as usize];
        (flow.state, flow.touched, flow.created) = (saved.state, tick as u32, saved.created);
        flow.tcp = Ends::from_saved(&saved.numbers);
        if saved.is_behind && flow.protocol() == Protocol::Tcp {
            flow.tcp.fall_behind();
        }
        (flow.packets, flow.bytes) = (saved.packets, saved.bytes);
        flow.flags = if saved.answered { flow.flags | ANSWERED } else { flow.flags & !ANSWERED };
        self.link(index);
        self.note_changed(index);
    }

    /// Returns the sequence numbers of an established connection without a packet for `idle`, if they are sure.
    pub fn idle_numbers(&self, now: Instant, index: u32, idle: Duration) -> Option<[u8; NUMBERS]> {
        let flow = &self.flows[index as usize];
        let is_open = (flow.protocol(), flow.state) == (Protocol::Tcp, TimeoutState::Established);
        (is_open && flow.tcp.are_sure() && now.since(self.touched(index)) >= idle).then(|| flow.tcp.to_saved())
    }

    /// Sets the sequence numbers of an established connection to what somebody else has learned.
    pub fn set_numbers(&mut self, index: u32, numbers: &[u8; NUMBERS]) {
        let flow = &mut self.flows[index as usize];
        let ends = Ends::from_saved(numbers);
        if (flow.protocol(), flow.state) == (Protocol::Tcp, TimeoutState::Established) && ends.are_sure() {
            flow.tcp = ends;
        }
    }

    /// Records that packets may have passed since the numbers of a flow were learned.
    pub fn falls_behind(&mut self, index: u32) {
        let flow = &mut self.flows[index as usize];
        if flow.protocol() == Protocol::Tcp {
            flow.tcp.fall_behind();
        }
    }

    /// Records that packets may have passed since the numbers of all flows were learned.
    pub fn fall_behind(&mut self) {
        for flow in self.flows.iter_mut().filter(|flow| flow.is_used() && flow.protocol() == Protocol::Tcp) {
            flow.tcp.fall_behind();
        }
    }

    /// Returns the newest half-open flows as values, with their notes, up to `most`, the oldest of them first.
    pub fn save_half_open(&self, most: usize) -> impl Iterator<Item = (SavedFlow, u32)> + '_ {
        self.half_open.newest(most).map(|slot| (self.saved_half_open(slot), self.note(slot | HALF_OPEN)))
    }

    /// Returns a half-open flow as a value; none of another one.
    pub fn save_one_half_open(&self, index: u32) -> Option<SavedFlow> {
        Table::half(index).map(|slot| self.saved_half_open(slot))
    }

    fn saved_half_open(&self, slot: u32) -> SavedFlow {
        let (left, facts) = (self.half_open.left(&self.clock, slot), self.half_open.facts(&self.clock, slot));
        SavedFlow {
            flow: NewFlow { half_open: true, ..left.new },
            state: facts.state,
            created: left.created,
            touched: left.created,
            answered: facts.answered,
            proven: false,
            numbers: self.half_open.ends(slot).to_saved(),
            is_behind: false,
            packets: left.packets,
            bytes: left.bytes,
        }
    }

    /// Makes a half-open flow again, as if it had begun now; returns its slot. Both keys must be free and differ, and there
    /// must be room.
    pub fn restore_half_open(&mut self, now: Instant, saved: &SavedFlow) -> u32 {
        let index = self.insert(now, &saved.flow);
        let (tick, slot) = (self.clock.tick(now), index & !HALF_OPEN);
        self.half_open.follow(tick, slot, &Ends::from_saved(&saved.numbers), saved.state);
        for side in [Side::Client, Side::Server] {
            let (packets, bytes) = (saved.packets[side as usize], saved.bytes[side as usize]);
            if packets > 0 {
                self.half_open.count(slot, side, packets, bytes);
            }
        }
        index
    }

    /// Returns whether a saved flow has outlived its timeout, as its table would have noticed by now.
    pub fn has_expired(&self, now: Instant, saved: &SavedFlow) -> bool {
        saved.touched + self.timeout(saved.flow.profile, saved.state) + TICK + TICK <= now
    }
}

impl Clock {
    /// Returns the tick that begins at a point in time or next after it, so that no timeout from it is shorter.
    fn tick_after(&self, at: Instant) -> u64 {
        at.as_nanos().saturating_sub(self.epoch.as_nanos()).div_ceil(1 << TICK_BITS)
    }
}
