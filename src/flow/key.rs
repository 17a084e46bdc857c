//! What identifies a flow on one of its sides, as seen in that side's packets.

use crate::packet::{Addresses, Protocol};
use std::net::SocketAddr;

/// The addresses, ports and protocol of a packet, as its sender wrote them.
///
/// For ICMP echo both ports are the identifier, whatever the message's type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Key {
    /// Source and destination address.
    pub addresses: Addresses,
    /// Source port.
    pub src_port: u16,
    /// Destination port.
    pub dst_port: u16,
    /// The protocol; one without ports has zero for both.
    pub protocol: Protocol,
}

/// A [`Key`] whose addresses stay where they are: a processor that is to copy what it has just written in pieces of
/// another size waits until all of it has reached the cache.
#[derive(Debug, Clone, Copy)]
pub struct KeyRef<'a> {
    /// Source and destination address.
    pub addresses: &'a Addresses,
    /// Source port in the upper half, destination port in the lower one.
    pub ports: u32,
    /// The IP protocol number; that of IPv4 for ICMP over either.
    pub protocol: u8,
}

impl<'a> KeyRef<'a> {
    /// Creates one; `protocol` as in [`KeyRef::protocol`].
    #[inline]
    pub fn new(addresses: &'a Addresses, src_port: u16, dst_port: u16, protocol: u8) -> Self {
        KeyRef { addresses, ports: u32::from(src_port) << 16 | u32::from(dst_port), protocol }
    }
}

impl<'a> From<&'a Key> for KeyRef<'a> {
    #[inline]
    fn from(key: &'a Key) -> Self {
        KeyRef::new(&key.addresses, key.src_port, key.dst_port, key.protocol.number(false))
    }
}

impl Key {
    /// Returns the key of the replies.
    #[must_use]
    pub const fn reversed(&self) -> Key {
        Key {
            addresses: self.addresses.reversed(),
            src_port: self.dst_port,
            dst_port: self.src_port,
            protocol: self.protocol,
        }
    }

    /// Returns the source address and port.
    pub fn src(&self) -> SocketAddr {
        SocketAddr::new(self.addresses.src(), self.src_port)
    }

    /// Returns the destination address and port.
    pub fn dst(&self) -> SocketAddr {
        SocketAddr::new(self.addresses.dst(), self.dst_port)
    }
}
