//! The operator's settings for the table: its size and its timeouts. Plain checked values.

use crate::packet::Protocol;
use crate::time::Duration;
use serde::{Deserialize, Serialize};

/// The timeout states: flows in the same state expire alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TimeoutState {
    /// TCP, handshake incomplete.
    Opening,
    /// TCP, handshake complete.
    Established,
    /// TCP, both ends have sent a FIN.
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

impl TimeoutState {
    /// All states, in the order of their discriminants.
    pub const ALL: [TimeoutState; 7] = [
        TimeoutState::Opening,
        TimeoutState::Established,
        TimeoutState::Closing,
        TimeoutState::Reset,
        TimeoutState::UdpOneWay,
        TimeoutState::UdpTwoWay,
        TimeoutState::Icmp,
    ];

    /// Returns the state of a flow that has just begun.
    pub const fn first(protocol: Protocol) -> TimeoutState {
        match protocol {
            Protocol::Tcp => TimeoutState::Opening,
            Protocol::Udp | Protocol::Sctp | Protocol::Ip(_) => TimeoutState::UdpOneWay,
            Protocol::Icmp => TimeoutState::Icmp,
        }
    }

    /// Returns whether its flows are over, and wait only for late segments.
    pub const fn is_over(self) -> bool {
        matches!(self, TimeoutState::Closing | TimeoutState::Reset)
    }

    /// Returns the word used in tables and reports: `opening`, `udp-one-way`.
    pub const fn name(self) -> &'static str {
        match self {
            TimeoutState::Opening => "opening",
            TimeoutState::Established => "established",
            TimeoutState::Closing => "closing",
            TimeoutState::Reset => "reset",
            TimeoutState::UdpOneWay => "udp-one-way",
            TimeoutState::UdpTwoWay => "udp-two-way",
            TimeoutState::Icmp => "icmp",
        }
    }
}

/// How long a flow in each state lives without a packet.
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
    /// UDP, one-way; RFC 4787 REQ-5: at least 2 min, default 5 min.
    pub udp_one_way: Duration,
    /// UDP, two-way; RFC 4787 REQ-5: at least 2 min, default 5 min.
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
    /// Returns the timeout of a state.
    pub const fn of(&self, state: TimeoutState) -> Duration {
        match state {
            TimeoutState::Opening => self.opening,
            TimeoutState::Established => self.established,
            TimeoutState::Closing => self.closing,
            TimeoutState::Reset => self.reset,
            TimeoutState::UdpOneWay => self.udp_one_way,
            TimeoutState::UdpTwoWay => self.udp_two_way,
            TimeoutState::Icmp => self.icmp,
        }
    }
}

/// The table's size and timeouts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableSettings {
    /// Maximum number of simultaneous flows of both families together, 1 to 100,000,000.
    pub max_flows: u32,
    /// Maximum number of half-open TCP flows, 1 to 100,000,000; they do not count in `max_flows`.
    pub max_half_open: u32,
    /// The table's own timeouts: profile 0.
    pub timeouts: Timeouts,
    /// The timeouts of further profiles, numbered from 1; at most [`MOST_PROFILES`], the rest are ignored.
    pub profiles: Vec<Timeouts>,
}

/// Maximum number of profiles besides the table's own.
pub const MOST_PROFILES: usize = 255;

impl Default for TableSettings {
    fn default() -> Self {
        TableSettings {
            max_flows: 262_144,
            max_half_open: 1_000_000,
            timeouts: Timeouts::default(),
            profiles: Vec::new(),
        }
    }
}
