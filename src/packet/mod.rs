//! The bytes of packets: parse once, read, rewrite in place, build.
//!
//! It must not know flows, services or time.

#![cfg_attr(not(test), warn(clippy::cast_possible_truncation))]

pub mod build;
pub mod checksum;
mod describe;
pub mod family;
mod options;
mod parse;
mod protocol;
mod quote;
pub mod rewrite;
#[cfg(test)]
pub(crate) mod testing;

pub use describe::describe;
pub use parse::{Addresses, Malformed, Parsed, TcpFlags, Transport, parse, parse_first};
pub use protocol::Protocol;
pub use quote::{ErrorKind, NoQuote, Quote, error_kind, is_unreachable, quote};

/// IP protocol numbers (IANA).
pub mod proto {
    /// ICMP for IPv4.
    pub const ICMP: u8 = 1;
    /// TCP.
    pub const TCP: u8 = 6;
    /// UDP.
    pub const UDP: u8 = 17;
    /// ICMP for IPv6.
    pub const ICMPV6: u8 = 58;
    /// Generic routing encapsulation (RFC 2784).
    pub const GRE: u8 = 47;
    /// Encapsulating security payload (RFC 4303).
    pub const ESP: u8 = 50;
    /// SCTP (RFC 9260).
    pub const SCTP: u8 = 132;
}

/// What the device knows about a packet besides its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Meta {
    /// The transport checksum field holds only the uncomplemented sum of the pseudo-header
    /// (`VIRTIO_NET_HDR_F_NEEDS_CSUM`); whoever sends the packet on the wire completes it.
    pub partial_checksum: bool,
    /// The same of a packet carried inside (VXLAN, Geneve, GTP-U, IP in IP); the checksum of the carrying transport is then
    /// complete, and right once the inner one is.
    pub inner_checksum: Option<InnerChecksum>,
    /// Payload bytes of each segment of a super-packet; 0 for an ordinary packet.
    pub gso_size: u16,
    /// The ingress interface, as the settings' rules number interfaces from 1; 0 if unknown.
    pub ingress: u16,
}

impl Meta {
    /// Returns whether a checksum of the bytes as they are cannot be verified.
    pub const fn is_unfinished(&self) -> bool {
        self.partial_checksum || self.inner_checksum.is_some()
    }
}

/// Where the checksum of a packet inside another one is to be completed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InnerChecksum {
    /// Offset from the outer IP header of the first byte that the checksum covers; it covers all bytes to the end.
    pub start: u16,
    /// Offset of the field from `start`.
    pub field: u16,
}

impl InnerChecksum {
    /// Returns it for a packet whose headers in front of it have grown or shrunk; none beyond the largest packet.
    pub fn moved(self, before: usize, after: usize) -> Option<InnerChecksum> {
        let start = (usize::from(self.start) + after).checked_sub(before)?;
        Some(InnerChecksum { start: u16::try_from(start).ok()?, ..self })
    }
}

/// Which end of a flow sent a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Side {
    /// The client, which opened the flow to the service address.
    Client,
    /// The real server.
    Server,
}

impl Side {
    /// The other end.
    pub const fn other(self) -> Side {
        match self {
            Side::Client => Side::Server,
            Side::Server => Side::Client,
        }
    }
}

/// Reads the big-endian 16-bit word at `at`.
///
/// # Panics
/// If the word is not inside the slice: callers have parsed the packet.
#[inline]
pub(crate) fn word(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

/// Reads the big-endian 32-bit word at `at`; panics like [`word`].
#[inline]
pub(crate) fn long(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}
