//! A flow's record: the keys of both sides, its state and its counters, in 128 bytes for IPv4.

use super::settings::TimeoutState;
use super::tcp::Ends;
use crate::ids::{ServerId, ServiceId};
use crate::packet::Protocol;
use crate::packet::rewrite::Deltas;
use crate::time::Instant;

/// No entry: the end of a list.
pub(super) const NONE: u32 = u32::MAX;

/// The source address and port are the client's own.
pub const NO_POOL: u16 = u16::MAX;

/// The slot is in use.
pub(super) const USED: u8 = 4;

/// The key of this side (0 client, 1 server) is IPv6.
pub(super) const fn wide(side: usize) -> u8 {
    1 << side
}

/// A side's key, packed: an IPv4 address is stored in place, an IPv6 address as its index in the table's slab, in the
/// second word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Packed {
    pub addresses: [u32; 2],
    pub ports: u32,
}

/// One flow, both directions.
#[derive(Debug, Clone)]
#[repr(align(64))]
pub struct Flow {
    pub(super) client: Packed,
    pub(super) server: Packed,
    /// The checksum deltas of the path from the client to the server.
    pub deltas: Deltas,
    /// What it carries.
    pub protocol: Protocol,
    pub(super) state: TimeoutState,
    /// [`USED`], and [`wide`] for each side.
    pub(super) flags: u8,
    /// Whose timeouts apply.
    pub(super) profile: u8,
    pub(super) before: u32,
    pub(super) behind: u32,
    pub(super) generation: u32,
    pub(super) touched: Instant,
    /// When the flow was created.
    pub created: Instant,
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
    pub(super) tcp: Ends,
    /// Packets from the client and from the server.
    pub packets: [u64; 2],
    /// Bytes of IP packets from the client and from the server.
    pub bytes: [u64; 2],
}

impl Flow {
    /// The current timeout state.
    pub fn state(&self) -> TimeoutState {
        self.state
    }

    /// The profile whose timeouts apply: 0 for the table's own, others as [`super::TableSettings`] numbers them.
    pub fn profile(&self) -> u8 {
        self.profile
    }

    /// Whether tracking began in the middle of the connection.
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
