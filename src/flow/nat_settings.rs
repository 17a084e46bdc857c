//! The operator's settings for the source addresses of full NAT. Plain checked values.

use crate::time::Duration;
use std::net::{Ipv4Addr, Ipv6Addr};

/// Which address of a pool a client's flows get.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Pooling {
    /// All flows of a client get the same address, and none once its ports are used up (RFC 4787 REQ-2).
    #[default]
    Paired,
    /// They start at one address and move to the next once its ports are used up.
    Arbitrary,
}

/// A pool of source addresses, with the port range for flows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NatPoolSettings {
    /// Unique name.
    pub name: String,
    /// IPv4 addresses, ascending, no duplicates.
    pub v4: Vec<Ipv4Addr>,
    /// IPv6 addresses, ascending, no duplicates.
    pub v6: Vec<Ipv6Addr>,
    /// First port, at least 1.
    pub first_port: u16,
    /// Last port, inclusive.
    pub last_port: u16,
    /// How long a freed port rests (RFC 6888 REQ-8: 120 s).
    pub hold: Duration,
    /// Whether an even client port maps to an even port, and an odd one to an odd one (RFC 4787 REQ-4).
    pub parity: bool,
    /// Whether a client port below 1024 maps to a port below 1024, and any other to one from 1024 on (RFC 4787 REQ-3a).
    pub range_class: bool,
    /// Which address a client gets.
    pub pooling: Pooling,
}

impl NatPoolSettings {
    /// Returns a pool without addresses and with every other setting at its default.
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
