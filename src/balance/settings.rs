//! What an operator configures of balancing: services, pools, servers. Plain checked values.

use crate::ids::{PoolId, ServerId};
pub use crate::packet::Protocol;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// One address, protocol and range of ports at which a service takes new flows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Listen {
    /// The service address (VIP).
    pub address: IpAddr,
    /// The protocol.
    pub protocol: Protocol,
    /// First port; 0 for ICMP.
    pub first_port: u16,
    /// Last port, included; 65535 for ICMP.
    pub last_port: u16,
}

/// As in the configuration: `192.0.2.80:80/tcp`, `[2001:db8::80]:8000-8100/udp`, `192.0.2.80/icmp`.
impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.address {
            IpAddr::V4(address) => write!(f, "{address}")?,
            IpAddr::V6(address) => write!(f, "[{address}]")?,
        }
        match self.protocol {
            Protocol::Icmp => {}
            _ if self.first_port == self.last_port => write!(f, ":{}", self.first_port)?,
            _ => write!(f, ":{}-{}", self.first_port, self.last_port)?,
        }
        write!(f, "/{}", self.protocol.name())
    }
}

/// What is done with a TCP packet that belongs to no flow and opens none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, Default)]
#[serde(rename_all = "lowercase")]
pub enum UnknownTcp {
    /// Answer with a reset (RFC 9293, 3.10.7.1), rate-limited.
    #[default]
    Reset,
    /// Drop in silence.
    Drop,
}

/// How a service spreads new flows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, Default)]
#[serde(rename_all = "kebab-case")]
pub enum Algorithm {
    /// Smooth weighted round robin.
    #[default]
    RoundRobin,
}

/// A service: what clients connect to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceSettings {
    /// Unique name.
    pub name: String,
    /// At least one; no two services overlap.
    pub listen: Vec<Listen>,
    /// Where its flows go.
    pub pool: PoolId,
    /// How they are spread.
    pub algorithm: Algorithm,
    /// What becomes of TCP packets of no flow.
    pub unknown_tcp: UnknownTcp,
}

/// A pool: servers that offer the same thing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolSettings {
    /// Unique name.
    pub name: String,
    /// The servers, in the order of the file.
    pub servers: Vec<ServerId>,
}

/// A real server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerSettings {
    /// Unique within its pool.
    pub name: String,
    /// The pool it stands in.
    pub pool: PoolId,
    /// IPv4 address, if it serves IPv4.
    pub v4: Option<Ipv4Addr>,
    /// IPv6 address, if it serves IPv6.
    pub v6: Option<Ipv6Addr>,
    /// Port; `None` is "same as the service".
    pub port: Option<u16>,
    /// Share of new flows relative to the pool's other servers, 0 to 65,535; 0 gets none.
    pub weight: u16,
}

impl ServerSettings {
    /// The server's address of the same family as `like`.
    pub fn address(&self, like: IpAddr) -> Option<IpAddr> {
        match like {
            IpAddr::V4(_) => self.v4.map(IpAddr::V4),
            IpAddr::V6(_) => self.v6.map(IpAddr::V6),
        }
    }
}
