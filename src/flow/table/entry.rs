//! A flow's record: the keys of both sides, its state and its counters, in two cache lines for IPv4.
//!
//! The first line holds all that a packet of the flow reads, so that a packet waits for this line alone; the second is
//! written and not waited for.

use super::super::key::Key;
use super::super::settings::TimeoutState;
use super::super::tcp::Ends;
use super::links::Links;
use crate::ids::{ServerId, ServiceId};
use crate::packet::rewrite::Deltas;
use crate::packet::{Protocol, Side};
use crate::time::Instant;

/// The source address and port are the client's own.
pub const NO_POOL: u16 = u16::MAX;

/// The slot is in use.
pub(super) const USED: u8 = 4;
/// A packet has refreshed the flow since it was queued for eviction.
pub(super) const ACTIVE: u8 = 8;
/// Packets of one answer at most: 6,000 bytes in fragments.
const ANSWER: u64 = 4;
/// The client has acknowledged the server: its handshake is complete, or it has sent again after an answer.
pub(super) const PROVEN: u8 = 16;
/// The server has sent.
pub(super) const ANSWERED: u8 = 32;
/// The flags of a flow of which packets are only rewritten.
const PLAIN_V4: u8 = ANSWERED | PROVEN;
const PLAIN_V6: u8 = PLAIN_V4 | wide(0) | wide(1);
/// The position of the two bits that say what chose the server.
const PICKED_BY: u32 = 6;

/// The key of this side (0 client, 1 server) is IPv6.
pub(super) const fn wide(side: usize) -> u8 {
    1 << side
}

/// Returns the flags for what chose the server, as numbered by the layer above: 0 to 3.
pub(super) const fn picked_by(number: u8) -> u8 {
    (number & 3) << PICKED_BY
}

/// A side's key, packed: an IPv4 address is stored in place, an IPv6 address as its index in the table's slab, in the
/// second word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub(super) struct Packed {
    pub addresses: [u32; 2],
    pub ports: u32,
}

/// Returns both ports in one word.
#[inline]
pub(super) fn ports(key: &Key) -> u32 {
    u32::from(key.src_port) << 16 | u32::from(key.dst_port)
}

/// One flow, both directions.
#[derive(Debug, Clone)]
#[repr(C, align(64))]
pub struct Flow {
    pub(super) client: Packed,
    pub(super) server: Packed,
    /// The checksum deltas of the path from the client to the server.
    pub(super) deltas: Deltas,
    pub(super) tcp: Ends,
    pub(super) server_id: ServerId,
    /// The tick of the last packet that restarted its timeout, modulo 2^32.
    pub(super) touched: u32,
    pub(super) state: TimeoutState,
    /// [`USED`], [`ACTIVE`], [`PROVEN`], [`ANSWERED`], [`wide`] for each side, [`picked_by`].
    pub(super) flags: u8,
    /// Whose timeouts apply.
    pub(super) profile: u8,
    /// Its IP protocol number.
    pub(super) protocol: u8,
    pub(super) generation: u32,

    // The second line.
    pub(super) packets: [u64; 2],
    pub(super) bytes: [u64; 2],
    pub(super) created: Instant,
    /// Its place in the wheel.
    pub(super) wheel: Links,
    /// Its place in the order of eviction.
    pub(super) order: Links,
    pub(super) service: ServiceId,
    pub(super) rule: u16,
    pub(super) nat_pool: u16,
}

impl Flow {
    /// The server.
    #[inline]
    pub fn server_id(&self) -> ServerId {
        self.server_id
    }

    /// The current timeout state.
    #[inline]
    pub fn state(&self) -> TimeoutState {
        self.state
    }

    /// Whether the server has sent.
    #[inline]
    pub fn is_answered(&self) -> bool {
        self.flags & ANSWERED != 0
    }

    /// Whether its client has proved that it receives what the server sends: see [`super::Table::is_proven`].
    #[inline]
    pub fn is_proven(&self) -> bool {
        self.flags & PROVEN != 0
    }

    /// Whether the two sides are of different families.
    #[inline]
    pub fn crosses(&self) -> bool {
        self.is_wide(0) != self.is_wide(1)
    }

    /// Whether a packet of either side is only rewritten, as far as that depends on the flow: the server has sent, the
    /// client has proved itself, and both sides are of one family.
    #[inline]
    pub fn is_plain(&self) -> bool {
        const SAME: u8 = wide(0) | wide(1);
        matches!(self.flags & (ANSWERED | PROVEN | SAME), PLAIN_V4 | PLAIN_V6)
    }

    /// Whether the server's side is IPv6.
    #[inline]
    pub fn server_is_v6(&self) -> bool {
        self.is_wide(1)
    }

    pub(super) fn protocol(&self) -> Protocol {
        Protocol::of_number(self.protocol)
    }

    pub(super) fn picked_by(&self) -> u8 {
        self.flags >> PICKED_BY
    }

    pub(super) fn is_used(&self) -> bool {
        self.flags & USED != 0
    }

    #[inline]
    pub(super) fn is_wide(&self, side: usize) -> bool {
        self.flags & wide(side) != 0
    }

    /// Returns whether there has been no more than a question and an answer of a few fragments: that is finished, although
    /// the answer has refreshed the flow.
    pub(super) fn is_exchange(&self) -> bool {
        self.packets[0] <= 1 && self.packets[1] <= ANSWER
    }

    /// Counts packets of one side.
    #[inline]
    pub(super) fn count(&mut self, side: Side, packets: u64, bytes: u64) {
        let side = side as usize;
        self.packets[side] += packets;
        self.bytes[side] += bytes;
    }
}

/// Returns a flow's place in the order of eviction.
pub(super) fn order(flow: &mut Flow) -> &mut Links {
    &mut flow.order
}

/// What is known of a flow, as a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Facts {
    /// What it carries.
    pub protocol: Protocol,
    /// The current timeout state.
    pub state: TimeoutState,
    /// The profile whose timeouts apply, as [`super::Table::timeout`] numbers it.
    pub profile: u8,
    /// The server.
    pub server_id: ServerId,
    /// The service that the client asked for.
    pub service: ServiceId,
    /// The rule that admitted it, as numbered by the layer above.
    pub rule: u16,
    /// The NAT pool of its source, as numbered by the layer above; [`NO_POOL`] for none. The address and port are those
    /// of the server's key, so they can be released whatever the settings say by then.
    pub nat_pool: u16,
    /// What chose its server, as numbered by the layer above.
    pub picked_by: u8,
    /// When it was created; for TCP, to a resolution of [`super::TICK`], rounded down.
    pub created: Instant,
    /// Whether the server has sent.
    pub answered: bool,
    /// Whether tracking began in the middle of the connection.
    pub adopted: bool,
    /// Packets from the client and from the server.
    pub packets: [u64; 2],
    /// Bytes of IP packets from the client and from the server.
    pub bytes: [u64; 2],
}

impl Flow {
    pub(super) fn facts(&self) -> Facts {
        Facts {
            protocol: self.protocol(),
            state: self.state,
            profile: self.profile,
            server_id: self.server_id,
            service: self.service,
            rule: self.rule,
            nat_pool: self.nat_pool,
            picked_by: self.picked_by(),
            created: self.created,
            answered: self.is_answered(),
            adopted: self.tcp.is_adopted(),
            packets: self.packets,
            bytes: self.bytes,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::mem::offset_of;

    #[test]
    fn what_a_packet_reads_of_its_flow_is_in_the_first_of_two_cache_lines() {
        assert_eq!(size_of::<Flow>(), 128);
        let offsets = [
            (offset_of!(Flow, client), 0),
            (offset_of!(Flow, server), 12),
            (offset_of!(Flow, deltas), 24),
            (offset_of!(Flow, tcp), 28),
            (offset_of!(Flow, server_id), 48),
            (offset_of!(Flow, touched), 52),
            (offset_of!(Flow, state), 56),
            (offset_of!(Flow, flags), 57),
            (offset_of!(Flow, profile), 58),
            (offset_of!(Flow, protocol), 59),
            (offset_of!(Flow, generation), 60),
            (offset_of!(Flow, packets), 64),
            (offset_of!(Flow, bytes), 80),
            (offset_of!(Flow, created), 96),
            (offset_of!(Flow, wheel), 104),
            (offset_of!(Flow, order), 112),
            (offset_of!(Flow, service), 120),
            (offset_of!(Flow, rule), 124),
            (offset_of!(Flow, nat_pool), 126),
        ];
        for (place, (offset, want)) in offsets.into_iter().enumerate() {
            assert_eq!(offset, want, "field {place}");
        }
    }
}
