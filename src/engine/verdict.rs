//! What becomes of a packet, and what the engine tells besides.

use super::reason::Reason;
use super::snapshot::FlowRow;
use crate::ids::FlowId;
use crate::packet::Side;
use serde::{Deserialize, Serialize};

/// What becomes of a packet. Each packet has exactly one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Write the first `len` bytes of the buffer out.
    Forward {
        /// Bytes to write: padding behind the IP packet is cut off.
        len: usize,
        /// As what.
        why: Forwarded,
    },
    /// The engine took it; an answer, if any, comes out of `poll_transmit`.
    Consume(Consumed),
    /// Throw it away.
    Drop(Reason),
}

/// As what a packet is forwarded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Forwarded {
    /// Rewritten for its flow.
    Translated {
        /// The flow.
        flow: FlowId,
        /// Who sent it.
        from: Side,
        /// Whether this packet made the flow.
        opened: bool,
    },
    /// Of no service and from no server's service: unchanged.
    Foreign,
}

/// For what the engine took a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Consumed {
    /// An echo request to a service address, answered.
    Echo,
    /// A TCP packet of no flow, answered with a reset.
    Reset,
}

impl Consumed {
    /// Every kind, in the order in which tables show them.
    pub const ALL: [Consumed; 2] = [Consumed::Echo, Consumed::Reset];

    /// The short name, as in reports and JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Consumed::Echo => "echo",
            Consumed::Reset => "reset",
        }
    }

    /// The kind in words, for an operator.
    pub const fn text(self) -> &'static str {
        match self {
            Consumed::Echo => "echo request to a service address, answered",
            Consumed::Reset => "TCP packet of no flow, answered with a reset",
        }
    }
}

/// Why a flow ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ended {
    /// Its timeout passed without a packet.
    Expired,
    /// It made room for a new flow while the table was full.
    Evicted,
    /// A new connection with the same addresses and ports took its place.
    Replaced,
    /// An operator removed it.
    Killed,
}

impl Ended {
    /// Every cause, in the order in which tables show them.
    pub const ALL: [Ended; 4] = [Ended::Expired, Ended::Evicted, Ended::Replaced, Ended::Killed];

    /// The short name, as in reports and JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Ended::Expired => "expired",
            Ended::Evicted => "evicted",
            Ended::Replaced => "replaced",
            Ended::Killed => "killed",
        }
    }
}

/// What happened beside the packets, for logs and watchers.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// A flow was made. Only where the engine was asked to tell flows.
    FlowOpened(Box<FlowRow>),
    /// A flow ended. Only where the engine was asked to tell flows.
    FlowEnded {
        /// The flow as it was at its end.
        flow: Box<FlowRow>,
        /// Why.
        cause: Ended,
    },
    /// The table is full: new flows evict old ones or are refused. Told once, until it has emptied by a tenth.
    TableFull {
        /// The table's size in flows.
        max_flows: u32,
    },
    /// The table has emptied by a tenth.
    TableRelieved {
        /// Flows in it.
        flows: u32,
    },
}
