//! The fate of a packet, and the events that the engine reports besides.

use super::reason::Reason;
use super::snapshot::{Count, FlowRow};
use crate::balance::Priority;
use crate::flow::Class;
use crate::health::Why;
use crate::ids::FlowId;
use crate::packet::Side;
use serde::{Deserialize, Serialize};
use std::fmt;

/// The fate of a packet. Each packet has exactly one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Write out the first `len` bytes of the buffer.
    Forward {
        /// Bytes to write; padding after the IP packet is cut off.
        len: usize,
        /// Why it is forwarded.
        why: Forwarded,
    },
    /// Replaced by one or more packets that `poll_transmit` returns next: of the other IP family, or fragments.
    Emit {
        /// Why it is forwarded.
        why: Forwarded,
    },
    /// Consumed by the engine; a reply, if any, is returned by `poll_transmit`.
    Consume(Consumed),
    /// Discard it.
    Drop(Reason),
}

/// Why a packet is forwarded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Forwarded {
    /// Rewritten for its flow.
    Translated {
        /// The flow.
        flow: FlowId,
        /// The side that sent it.
        from: Side,
        /// Whether this packet created the flow.
        opened: bool,
    },
    /// An ICMP error about a packet of a flow, translated for the sender of that packet. It is not counted for the flow and does not affect it.
    Error {
        /// The flow.
        flow: FlowId,
        /// The side that sent it.
        from: Side,
    },
    /// Unchanged: neither to a service nor from the service port of a server.
    Foreign,
}

/// Why the engine consumed a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Consumed {
    /// An echo request to a service address; a reply was sent.
    Echo,
    /// A TCP packet that is not part of a flow; a reset was sent.
    Reset,
    /// A packet rejected by a rule; a reset or an ICMP error was sent.
    Rejected,
    /// A packet of a new flow that no server can take; a reset or an ICMP error was sent.
    NoServer,
    /// A packet of a flow whose server is down; resets were sent to both ends.
    ServerDown,
    /// A packet to a port of a service address on which no service listens; a reset or an ICMP error was sent.
    Closed,
    /// A packet that exceeds the path MTU and must not be fragmented; an ICMP error with the MTU was sent.
    TooBig,
    /// A packet whose hop limit is exceeded at the gateway; an ICMP error was sent.
    TimeExceeded,
    /// A packet with a source route, which is not followed; an ICMP error was sent.
    SourceRoute,
    /// A packet with no equivalent in the other IP family; an ICMP error was sent (administratively prohibited).
    Untranslatable,
    /// A fragment that waits for the first fragment of its packet.
    FragmentWaiting,
    /// A reply to one of the gateway's own probes.
    Probe,
    /// A packet from a probed server that no outstanding probe expects.
    LateProbe,
}

impl Consumed {
    /// Every kind, in the order of the tables.
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

    /// Returns the short name used in reports and JSON.
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

    /// Describes the kind to an operator.
    pub const fn text(self) -> &'static str {
        match self {
            Consumed::Echo => "echo request to a service address, replied to",
            Consumed::Reset => "TCP packet that is not part of a flow, reset sent",
            Consumed::Rejected => "rejected by a rule, sender notified",
            Consumed::NoServer => "no server can take the new flow, client notified",
            Consumed::ServerDown => "part of a flow whose server is down, both ends reset",
            Consumed::Closed => "no service on this port of the service address, sender notified",
            Consumed::TooBig => "larger than the path MTU, MTU reported to the sender",
            Consumed::TimeExceeded => "hop limit exceeded at the gateway, sender notified",
            Consumed::SourceRoute => "source route not followed, sender notified",
            Consumed::Untranslatable => "no equivalent in the other IP family, sender notified",
            Consumed::FragmentWaiting => "fragment that waits for the first one of its packet",
            Consumed::Probe => "probe of the gateway itself, or a reply to one",
            Consumed::LateProbe => "from a probed server, but expected by no probe",
        }
    }
}

/// Why a flow ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ended {
    /// No packet arrived within its timeout.
    Expired,
    /// It was evicted to make room for a new flow in a full table.
    Evicted,
    /// A new connection with the same addresses and ports replaced it.
    Replaced,
    /// An operator removed it.
    Killed,
    /// Its server went down or was disabled, and the service does not keep the flows of such servers.
    ServerDown,
    /// The deadline of its draining server passed.
    Drained,
}

impl Ended {
    /// Every cause, in the order of the tables.
    pub const ALL: [Ended; 6] =
        [Ended::Expired, Ended::Evicted, Ended::Replaced, Ended::Killed, Ended::ServerDown, Ended::Drained];

    /// Returns the short name used in reports and JSON.
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

/// Something that happened besides the fates of packets, for logs and watchers.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case", rename_all_fields = "snake_case")]
pub enum Event {
    /// A flow was created. Reported only where the engine was asked to report flows.
    FlowOpened(Box<FlowRow>),
    /// The handshake of a half-open flow is complete. Reported only where the engine was asked to report flows.
    FlowEstablished {
        /// Its ID while it was half-open.
        was: FlowId,
        /// Its ID from now on.
        id: FlowId,
    },
    /// A flow ended. Reported only where the engine was asked to report flows.
    FlowEnded {
        /// The flow as it was at its end.
        flow: Box<FlowRow>,
        /// Why it ended.
        cause: Ended,
    },
    /// There is no room for a new flow: another one gave way, or the new one was refused. Reported once until it is over.
    Full {
        /// What is full.
        what: Short,
        /// Its capacity in flows.
        max: u32,
    },
    /// For a minute, no flow has given way to another or was refused.
    Relieved {
        /// What was full.
        what: Short,
        /// Milliseconds from the first to the last flow that gave way or was refused.
        for_ms: u64,
        /// Flows that gave way in this time, by class; every class is listed.
        gave_way: Vec<Count<Class>>,
        /// Attempts to open a flow or to complete a handshake that were refused in this time.
        refused: u64,
    },
    /// New flows of a priority are refused. Reported at most once per minute.
    Pressure {
        /// Their priority.
        priority: Priority,
        /// The resource that is short.
        of: Pressed,
    },
    /// A server, or one of its ports, came up or went down.
    Health {
        /// `pool/server`.
        server: String,
        /// Whether this concerns its IPv6 address.
        v6: bool,
        /// The port; none for the whole address.
        port: Option<u16>,
        /// Whether it came up.
        up: bool,
        /// Why it changed.
        why: Why,
    },
    /// The monitors of a server consider it down, but the floor of its pool keeps it in service.
    KeptByFloor {
        /// `pool/server`.
        server: String,
        /// Whether this concerns its IPv6 address.
        v6: bool,
        /// The port; none for the whole address.
        port: Option<u16>,
        /// Why it would be down.
        why: Why,
    },
    /// The last flow of a draining server has ended.
    ServerDrained {
        /// `pool/server`.
        server: String,
    },
    /// The deadline of a draining server has passed: its remaining flows are ended.
    DrainDeadline {
        /// `pool/server`.
        server: String,
        /// Its remaining flows.
        flows: u32,
    },
    /// Signs of trouble in the traffic put a passive hold on a server: it gets no new flows for a while.
    PassiveHold {
        /// `pool/server`.
        server: String,
        /// Duration of the hold in milliseconds.
        for_ms: u64,
    },
    /// Live flows have so many different timeouts that those of some services no longer apply to new ones.
    TooManyTimeouts,
}

/// The importance of an event to an operator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Weight {
    /// Concerns one of many flows.
    Flow,
    /// Worth a line in the log.
    Notable,
    /// Needs attention.
    Grave,
}

impl Event {
    /// Returns its importance.
    pub const fn weight(&self) -> Weight {
        match self {
            Event::FlowOpened(_) | Event::FlowEstablished { .. } | Event::FlowEnded { .. } => Weight::Flow,
            Event::Relieved { .. } | Event::ServerDrained { .. } | Event::Health { up: true, .. } => Weight::Notable,
            _ => Weight::Grave,
        }
    }
}

/// Prints one line for logs and reports.
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
                flow.server_name(),
                flow.server_address
            ),
            Event::FlowEstablished { was, id } => write!(f, "flow {was} established: flow {id}"),
            Event::FlowEnded { flow, cause } => write!(
                f,
                "flow {} {}: was {}, {} packets in, {} out",
                flow.id,
                cause.name(),
                flow.state.name(),
                flow.packets_in,
                flow.packets_out
            ),
            Event::Full { what: Short::Table, max } => write!(
                f,
                "the flow table is full ({max} flows): flows that are over or idle give way to new ones; raise flows.max"
            ),
            Event::Full { what: Short::HalfOpen, max } => write!(
                f,
                "the store of half-open flows is full ({max} flows, perhaps a SYN flood): the oldest give way; raise \
                 flows.half-open"
            ),
            Event::Full { what: Short::Ports, max } => write!(
                f,
                "half-open and brief flows have half of the NAT ports to a server ({max} ports, perhaps a flood): the \
                 oldest give way; add addresses to the NAT pool"
            ),
            Event::Relieved { what, for_ms, gave_way, refused } => {
                let text = what.text();
                write!(f, "{text} has room again: in {}.{} s", for_ms / 1000, for_ms % 1000 / 100)?;
                for Count { kind, count } in gave_way.iter().filter(|gave| gave.count > 0) {
                    write!(f, ", {count} {} flows gave way", kind.name())?;
                }
                write!(f, ", {refused} attempts were refused")
            }
            Event::Pressure { priority, of: Pressed::Table } => {
                write!(f, "the flow table is nearly full: new flows of priority {} are refused", priority.name())
            }
            Event::Pressure { priority, of: Pressed::Rate } => {
                write!(f, "too many new flows per second: some flows of priority {} are refused", priority.name())
            }
            Event::Health { server, v6, port, up, why } => {
                let state = if *up { "up" } else { "DOWN" };
                write!(f, "server {server} is {state} ({}): {why}", place(*v6, *port))
            }
            Event::KeptByFloor { server, v6, port, why } => write!(
                f,
                "server {server} would be down ({}), but the floor of its pool keeps it in service: {why}",
                place(*v6, *port)
            ),
            Event::ServerDrained { server } => write!(f, "server {server} is drained: its last flow has ended"),
            Event::DrainDeadline { server, flows } => {
                write!(f, "server {server}: the draining deadline has passed, {flows} flows are ended")
            }
            Event::TooManyTimeouts => f.write_str(
                "live flows have 256 different sets of timeouts: new flows of services with others get those of [timeouts] \
                 until a reload after some of them have ended",
            ),
            Event::PassiveHold { server, for_ms } => write!(
                f,
                "server {server} gets no new flows for {}.{} s (passive hold): client connections to it fail",
                for_ms / 1000,
                for_ms % 1000 / 100
            ),
        }
    }
}

/// Names a part of a server: `IPv4`, `IPv6 port 80`.
fn place(v6: bool, port: Option<u16>) -> String {
    let family = if v6 { "IPv6" } else { "IPv4" };
    port.map_or(family.into(), |port| format!("{family} port {port}"))
}

crate::words::words! {
    /// What can be too full for a new flow.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
    #[serde(rename_all = "kebab-case")]
    pub enum Short {
        /// The flow table.
        Table = "table",
        /// The store of half-open flows.
        HalfOpen = "half-open",
        /// The NAT ports of half-open and brief flows to one server: half of those that a flow may get.
        Ports = "nat-ports",
    }
}

impl Short {
    /// Names it to an operator.
    pub const fn text(self) -> &'static str {
        match self {
            Short::Table => "the flow table",
            Short::HalfOpen => "the store of half-open flows",
            Short::Ports => "the half of the NAT ports to a server that half-open and brief flows may have",
        }
    }
}

/// A resource whose shortage makes the gateway refuse flows of lower priorities.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Pressed {
    /// Room in the flow table.
    Table,
    /// The gateway's new flows per second.
    Rate,
}
