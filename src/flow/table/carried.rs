//! Flows whose packets somebody else carries for a while, and reports: what they have to be like, and what a report changes.

use super::super::settings::TimeoutState;
use super::super::tcp::Sequence;
use super::Table;
use super::entry::ACTIVE;
use crate::packet::Protocol;
use crate::time::Instant;

/// What packets have done that were not seen here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Carried {
    /// Packets from the client and from the server.
    pub packets: [u64; 2],
    /// Bytes of IP packets from the client and from the server.
    pub bytes: [u64; 2],
    /// The sequence numbers of both ends after them.
    pub sequence: Sequence,
}

impl Table {
    /// Returns whether the flow in a slot is an established TCP connection of one family of which nothing is in doubt, so that
    /// its packets are only translated.
    #[inline]
    pub fn is_steady(&self, index: u32) -> bool {
        !Table::is_half_open(index)
            && self.flows.get(index as usize).is_some_and(|flow| {
                flow.is_used()
                    && flow.state == TimeoutState::Established
                    && flow.protocol() == Protocol::Tcp
                    && flow.is_plain()
                    && flow.tcp.is_steady()
            })
    }

    /// Returns how many packets a flow that is not half-open has had.
    #[inline]
    pub fn packets(&self, index: u32) -> u64 {
        let [from_client, from_server] = self.flows[index as usize].packets;
        from_client + from_server
    }

    /// Returns the sequence numbers of a flow that is not half-open.
    pub fn sequence(&self, index: u32) -> Sequence {
        self.flows[index as usize].tcp.sequence()
    }

    /// Counts packets of a flow that is not half-open, the last of which passed at `seen`. `before` and `after` are the
    /// reports about it before and after them.
    pub fn carried(&mut self, index: u32, seen: Instant, before: &Carried, after: &Carried) {
        self.note_touched(index);
        let tick = self.clock.tick(seen);
        let touched = self.touched_tick(&self.flows[index as usize]);
        let flow = &mut self.flows[index as usize];
        for side in [0, 1] {
            flow.packets[side] += after.packets[side].saturating_sub(before.packets[side]);
            flow.bytes[side] += after.bytes[side].saturating_sub(before.bytes[side]);
        }
        if flow.state != TimeoutState::Established {
            return;
        }
        flow.flags |= ACTIVE;
        if tick > touched {
            flow.touched = tick as u32;
        }
        flow.tcp.follow(&before.sequence, &after.sequence);
    }

    /// Has a flow that is due come up again with the next tick.
    pub fn put_off(&mut self, now: Instant, index: u32) {
        let next = self.clock.tick(now) + 1;
        self.wheel.unlink(&mut self.flows, index);
        self.wheel.insert(&mut self.flows, index, next);
    }
}
