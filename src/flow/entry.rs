//! A flow's record: both sides' keys, its state, its counters, in 128 bytes for IPv4.

use super::settings::TimeoutState;
use super::tcp::Ends;
use crate::ids::{ServerId, ServiceId};
use crate::packet::Protocol;
use crate::packet::rewrite::Deltas;
use crate::time::Instant;

/// No entry: the end of a list.
pub(super) const NONE: u32 = u32::MAX;

/// The source is the client's own.
pub const NO_POOL: u16 = u16::MAX;

/// The slot holds a flow.
pub(super) const USED: u8 = 4;

/// The key of this side (0 the client, 1 the server) is IPv6.
pub(super) const fn wide(side: usize) -> u8 {
    1 << side
}

/// A side's key, packed: IPv4 addresses in place, IPv6 addresses by their place in the table's slab, in the second word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Packed {
    pub addresses: [u32; 2],
    pub ports: u32,
}

/// One flow: both directions of it.
#[derive(Debug, Clone)]
#[repr(align(64))]
pub struct Flow {
    pub(super) client: Packed,
    pub(super) server: Packed,
    /// The deltas of the way from the client to the server.
    pub deltas: Deltas,
    /// What it carries.
    pub protocol: Protocol,
    pub(super) state: TimeoutState,
    /// [`USED`], and [`wide`] for each side.
    pub(super) flags: u8,
    /// Whose timeouts hold.
    pub(super) profile: u8,
    pub(super) before: u32,
    pub(super) behind: u32,
    pub(super) generation: u32,
    pub(super) touched: Instant,
    /// When it was made.
    pub created: Instant,
    /// Where it goes.
    pub server_id: ServerId,
    /// What it came for.
    pub service: ServiceId,
    /// The rule that let it in, as the layer above numbers them.
    pub rule: u16,
    /// The NAT pool that its source comes from, as the layer above numbers them; [`NO_POOL`] for none. The address and the
    /// port are those of the server's key, so what the flow took can be given back whatever the settings say by then.
    pub nat_pool: u16,
    /// What chose its server, as the layer above numbers it.
    pub picked_by: u8,
    pub(super) tcp: Ends,
    /// Packets from the client and from the server.
    pub packets: [u64; 2],
    /// Bytes of IP packets from the client and from the server.
    pub bytes: [u64; 2],
}

impl Flow {
    /// The timeout state that holds.
    pub fn state(&self) -> TimeoutState {
        self.state
    }

    /// The profile whose timeouts hold: 0 for those of the whole table, then as [`super::TableSettings`] numbers them.
    pub fn profile(&self) -> u8 {
        self.profile
    }

    /// Whether it began in the middle of its connection.
    pub fn is_adopted(&self) -> bool {
        self.tcp.is_adopted()
    }

    pub(super) fn is_used(&self) -> bool {
        self.flags & USED != 0
    }

    #[inline]
    pub(super) fn is_wide(&self, side: usize) -> bool {
        self.flags & wide(side) != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flow_fits_in_two_cache_lines() {
        assert_eq!(size_of::<Flow>(), 128);
    }
}
