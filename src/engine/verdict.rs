//! What becomes of a packet, and what the engine tells besides.

use super::reason::Reason;
use super::snapshot::FlowRow;
use crate::balance::Priority;
use crate::health::Why;
use crate::ids::FlowId;
use crate::packet::Side;
use serde::{Deserialize, Serialize};
use std::fmt;

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
    /// It goes on as one or more other packets, which `poll_transmit` gives next: in the other IP family, or in fragments.
    Emit {
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
    /// An ICMP error about a packet of a flow, translated for who sent that packet. The flow neither counts nor notices it.
    Error {
        /// The flow.
        flow: FlowId,
        /// The side from which it came.
        from: Side,
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
    /// A packet that a rule rejects, answered.
    Rejected,
    /// A packet for a new flow that no server can take, answered.
    NoServer,
    /// A packet of a flow whose server is down: both ends were reset.
    ServerDown,
    /// A packet to a service address where nobody listens, answered.
    Closed,
    /// Too big for the way out and not to be fragmented: its sender was told the MTU.
    TooBig,
    /// Its hops end behind the gateway: its sender was told.
    TimeExceeded,
    /// Its source route is not followed here: its sender was told.
    SourceRoute,
    /// It has no form in the other family: its sender was told that it is prohibited.
    Untranslatable,
    /// A fragment that waits for the first of its packet.
    FragmentWaiting,
    /// An answer to a probe of the gateway's own.
    Probe,
    /// From a probed server, but no probe waits for it.
    LateProbe,
}

impl Consumed {
    /// Every kind, in the order in which tables show them.
    pub const ALL: [Consumed; 13] = [
        Consumed::Echo,
        Consumed::Reset,
        Consumed::Rejected,
        Consumed::NoServer,
        Consumed::ServerDown,
        Consumed::Closed,
        Consumed::TooBig,
        Consumed::TimeExceeded,
        Consumed::SourceRoute,
        Consumed::Untranslatable,
        Consumed::FragmentWaiting,
        Consumed::Probe,
        Consumed::LateProbe,
    ];

    /// The short name, as in reports and JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Consumed::Echo => "echo",
            Consumed::Reset => "reset",
            Consumed::Rejected => "rejected",
            Consumed::NoServer => "no-server",
            Consumed::ServerDown => "server-down",
            Consumed::Closed => "closed",
            Consumed::TooBig => "too-big",
            Consumed::TimeExceeded => "time-exceeded",
            Consumed::SourceRoute => "source-route",
            Consumed::Untranslatable => "untranslatable",
            Consumed::FragmentWaiting => "fragment-waiting",
            Consumed::Probe => "probe",
            Consumed::LateProbe => "late-probe",
        }
    }

    /// The kind in words, for an operator.
    pub const fn text(self) -> &'static str {
        match self {
            Consumed::Echo => "echo request to a service address, answered",
            Consumed::Reset => "TCP packet of no flow, answered with a reset",
            Consumed::Rejected => "rejected by a rule, and told so",
            Consumed::NoServer => "no server could take the new flow, and its client was told so",
            Consumed::ServerDown => "of a flow whose server is down: both ends were reset",
            Consumed::Closed => "to a service address where nobody listens, and told so",
            Consumed::TooBig => "too big for the way out, and its sender was told the MTU",
            Consumed::TimeExceeded => "its hops end behind the gateway, and its sender was told",
            Consumed::SourceRoute => "its source route is not followed from here on, and its sender was told",
            Consumed::Untranslatable => "cannot be expressed in the other IP family, and its sender was told",
            Consumed::FragmentWaiting => "fragment that waits for the first of its packet",
            Consumed::Probe => "the gateway's own probes and their answers",
            Consumed::LateProbe => "from a probed server, but no probe waits for it",
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
    /// Its server went down or was disabled, and the service does not keep such flows.
    ServerDown,
    /// Its server was draining, and the deadline passed.
    Drained,
}

impl Ended {
    /// Every cause, in the order in which tables show them.
    pub const ALL: [Ended; 6] =
        [Ended::Expired, Ended::Evicted, Ended::Replaced, Ended::Killed, Ended::ServerDown, Ended::Drained];

    /// The short name, as in reports and JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Ended::Expired => "expired",
            Ended::Evicted => "evicted",
            Ended::Replaced => "replaced",
            Ended::Killed => "killed",
            Ended::ServerDown => "server-down",
            Ended::Drained => "drained",
        }
    }
}

/// What happened beside the packets, for logs and watchers.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case", rename_all_fields = "snake_case")]
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
    /// New flows of a class are refused. Told at most once a minute.
    Pressure {
        /// Their priority.
        priority: Priority,
        /// What is short.
        of: Pressed,
    },
    /// A server, or one port of it, came up or went down.
    Health {
        /// `pool/server`.
        server: String,
        /// Whether it is its IPv6 address.
        v6: bool,
        /// The port; none is the whole address.
        port: Option<u16>,
        /// Up, else down.
        up: bool,
        /// Why.
        why: Why,
    },
    /// A server's monitors say down, but the floor of its pool keeps it in.
    KeptByFloor {
        /// `pool/server`.
        server: String,
        /// Whether it is its IPv6 address.
        v6: bool,
        /// The port; none is the whole address.
        port: Option<u16>,
        /// Why it would be down.
        why: Why,
    },
    /// The last flow of a draining server has ended.
    ServerDrained {
        /// `pool/server`.
        server: String,
    },
    /// A draining server's deadline has passed: the flows that are left end.
    DrainDeadline {
        /// `pool/server`.
        server: String,
        /// Flows that are left.
        flows: u32,
    },
    /// Signs from the traffic itself take a server out of the choice for a while.
    PassiveHold {
        /// `pool/server`.
        server: String,
        /// For how long, in milliseconds.
        for_ms: u64,
    },
}

/// How much an event matters to an operator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Weight {
    /// One of many flows.
    Flow,
    /// Worth a line.
    Notable,
    /// Somebody must look.
    Grave,
}

impl Event {
    /// How much it matters.
    pub const fn weight(&self) -> Weight {
        match self {
            Event::FlowOpened(_) | Event::FlowEnded { .. } => Weight::Flow,
            Event::TableRelieved { .. } | Event::ServerDrained { .. } | Event::Health { up: true, .. } => {
                Weight::Notable
            }
            _ => Weight::Grave,
        }
    }
}

/// In words, for logs and reports.
impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Event::FlowOpened(flow) => write!(
                f,
                "flow {} opened: {} {} -> {} ({}) to {} {}",
                flow.id,
                flow.protocol.name(),
                flow.client,
                flow.listen,
                flow.service,
                flow.server,
                flow.server_address
            ),
            Event::FlowEnded { flow, cause } => write!(
                f,
                "flow {} {}: was {}, {} packets in, {} out",
                flow.id,
                cause.name(),
                flow.state.name(),
                flow.packets_in,
                flow.packets_out
            ),
            Event::TableFull { max_flows } => write!(
                f,
                "the flow table is full ({max_flows} flows): half-open flows make room for new ones, else these are \
                 refused; raise flows.max"
            ),
            Event::TableRelieved { flows } => write!(f, "the flow table has room again ({flows} flows)"),
            Event::Pressure { priority, of: Pressed::Table } => {
                write!(f, "the flow table is nearly full: new flows of priority {} are refused", priority.name())
            }
            Event::Pressure { priority, of: Pressed::Rate } => {
                write!(f, "too many new flows per second: some of priority {} are refused", priority.name())
            }
            Event::Health { server, v6, port, up, why } => {
                let state = if *up { "up" } else { "DOWN" };
                write!(f, "server {server} is {state} ({}): {why}", place(*v6, *port))
            }
            Event::KeptByFloor { server, v6, port, why } => write!(
                f,
                "server {server} would be down ({}), but the floor of its pool keeps it in: {why}",
                place(*v6, *port)
            ),
            Event::ServerDrained { server } => write!(f, "server {server} is drained: its last flow has ended"),
            Event::DrainDeadline { server, flows } => {
                write!(f, "server {server}: the deadline for draining has passed, {flows} flows are ended")
            }
            Event::PassiveHold { server, for_ms } => write!(
                f,
                "server {server} gets no new flows for {}.{} s: clients' connections fail there",
                for_ms / 1000,
                for_ms % 1000 / 100
            ),
        }
    }
}

/// Which part of a server is meant: `IPv4`, `IPv6 port 80`.
fn place(v6: bool, port: Option<u16>) -> String {
    let family = if v6 { "IPv6" } else { "IPv4" };
    port.map_or(family.into(), |port| format!("{family} port {port}"))
}

/// What is so short that lower classes are refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Pressed {
    /// Room in the flow table.
    Table,
    /// The gateway's new flows a second.
    Rate,
}
