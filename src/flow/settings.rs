//! What an operator configures of the table: its size and its timeouts. Plain checked values.

use crate::time::Duration;
use serde::{Deserialize, Serialize};

/// The classes of flows that expire alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Class {
    /// TCP, handshake not complete.
    Opening,
    /// TCP, handshake complete.
    Established,
    /// TCP, both ends have sent their FIN.
    Closing,
    /// TCP, an acceptable reset was seen.
    Reset,
    /// UDP, only the client has sent.
    UdpOneWay,
    /// UDP, both have sent.
    UdpTwoWay,
    /// ICMP echo.
    Icmp,
}

impl Class {
    /// All classes, in the order of their discriminants.
    pub const ALL: [Class; 7] = [
        Class::Opening,
        Class::Established,
        Class::Closing,
        Class::Reset,
        Class::UdpOneWay,
        Class::UdpTwoWay,
        Class::Icmp,
    ];

    /// The word used in tables and reports: `opening`, `udp-one-way`.
    pub const fn name(self) -> &'static str {
        match self {
            Class::Opening => "opening",
            Class::Established => "established",
            Class::Closing => "closing",
            Class::Reset => "reset",
            Class::UdpOneWay => "udp-one-way",
            Class::UdpTwoWay => "udp-two-way",
            Class::Icmp => "icmp",
        }
    }
}

/// How long a flow of each class lives without a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Timeouts {
    /// TCP before the handshake is complete; RFC 5382 REQ-5: at least 4 min.
    pub opening: Duration,
    /// TCP, established; RFC 5382 REQ-5: at least 2 h 4 min.
    pub established: Duration,
    /// TCP, closing; RFC 5382 REQ-5: at least 4 min.
    pub closing: Duration,
    /// TCP after a reset (RFC 7857, 2.2): 4 min.
    pub reset: Duration,
    /// UDP, one way; RFC 4787 REQ-5: at least 2 min, default 5 min.
    pub udp_one_way: Duration,
    /// UDP, two ways; RFC 4787 REQ-5: at least 2 min, default 5 min.
    pub udp_two_way: Duration,
    /// ICMP echo; RFC 5508 REQ-2: at least 60 s.
    pub icmp: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        let s = Duration::from_secs;
        Timeouts {
            opening: s(240),
            established: s(7440),
            closing: s(240),
            reset: s(240),
            udp_one_way: s(300),
            udp_two_way: s(300),
            icmp: s(60),
        }
    }
}

impl Timeouts {
    /// The timeout of a class.
    pub const fn of(&self, class: Class) -> Duration {
        match class {
            Class::Opening => self.opening,
            Class::Established => self.established,
            Class::Closing => self.closing,
            Class::Reset => self.reset,
            Class::UdpOneWay => self.udp_one_way,
            Class::UdpTwoWay => self.udp_two_way,
            Class::Icmp => self.icmp,
        }
    }
}

/// The table's size and timeouts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableSettings {
    /// Most flows at a time, 1 to 100,000,000; both families together.
    pub max_flows: u32,
    /// The timeouts: profile 0.
    pub timeouts: Timeouts,
    /// The timeouts of further profiles, numbered from 1; at most [`MOST_PROFILES`], later ones do not count.
    pub profiles: Vec<Timeouts>,
}

/// Most profiles beside the table's own.
pub const MOST_PROFILES: usize = 255;

impl Default for TableSettings {
    fn default() -> Self {
        TableSettings { max_flows: 262_144, timeouts: Timeouts::default(), profiles: Vec::new() }
    }
}
