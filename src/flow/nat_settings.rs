//! What an operator configures of source addresses for full NAT. Plain checked values.

use crate::time::Duration;
use std::net::{Ipv4Addr, Ipv6Addr};

/// Which address of a pool a client's flows get.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Pooling {
    /// All flows of a client get one address, and none where its ports are used up (RFC 4787 REQ-2).
    #[default]
    Paired,
    /// They begin there, and go on to the next address where its ports are used up.
    Arbitrary,
}

/// A pool of source addresses, with the ports that flows may have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NatPoolSettings {
    /// Unique name.
    pub name: String,
    /// IPv4 addresses, ascending, none twice.
    pub v4: Vec<Ipv4Addr>,
    /// IPv6 addresses, ascending, none twice.
    pub v6: Vec<Ipv6Addr>,
    /// First port, at least 1.
    pub first_port: u16,
    /// Last port, included.
    pub last_port: u16,
    /// How long a freed port rests (RFC 6888 REQ-8: 120 s).
    pub hold: Duration,
    /// Whether an even client port gets an even one, and an odd one an odd one (RFC 4787 REQ-4).
    pub parity: bool,
    /// Whether a client port under 1024 gets one under 1024, and others one above (RFC 4787 REQ-3a).
    pub range_class: bool,
    /// Which address a client gets.
    pub pooling: Pooling,
}

impl NatPoolSettings {
    /// A pool without addresses and with every other setting at its default.
    pub fn new(name: &str) -> Self {
        NatPoolSettings {
            name: name.into(),
            v4: Vec::new(),
            v6: Vec::new(),
            first_port: 1024,
            last_port: 65_535,
            hold: Duration::from_secs(120),
            parity: false,
            range_class: false,
            pooling: Pooling::default(),
        }
    }
}
