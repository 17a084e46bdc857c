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
