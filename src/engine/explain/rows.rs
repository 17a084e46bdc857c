//! The parts of an explanation: values that tables and JSON show.

use super::super::FlowRow;
use crate::balance::{Admin, Algorithm, PickedBy};
use crate::packet::Side;
use crate::state::Health;
use serde::{Deserialize, Serialize};
use std::net::IpAddr;

/// The outcome of a packet, and why. Parts that do not apply are absent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Default)]
#[serde(default)]
pub struct Explanation {
    /// The packet in one line, as reports describe it.
    pub packet: String,
    /// Its outcome.
    pub outcome: OutcomeRow,
    /// What happens first: for example, a flow that ends so that the packet can open another.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub before: Vec<String>,
    /// The rules up to the one that matched, or all if none did.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub rules: Vec<RuleLine>,
    /// The flow that the packet belongs to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub flow: Option<FlowRow>,
    /// Which side of the flow sent it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<Side>,
    /// The service that it asks for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service: Option<ServiceLine>,
    /// The limits that apply to a new flow.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub limits: Vec<LimitLine>,
    /// The client's sticky slot.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sticky: Option<StickyLine>,
    /// Every server that could take the flow, in file order.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub candidates: Vec<CandidateLine>,
    /// How the algorithm made its choice, in words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub arithmetic: Option<String>,
    /// The header fields that change, in packet order.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub rewrite: Vec<FieldLine>,
    /// Packets of the gateway's own that are sent in its place or in reply to it, each described in one line.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub sends: Vec<String>,
    /// Timers that run after it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub timers: Vec<TimerLine>,
    /// What could not be explained, and why.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

/// The outcome of a packet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(default)]
pub struct OutcomeRow {
    /// `forward`, `emit` (replaced by other packets), `pass` (unchanged), `consume` or `drop`; or `monitors` and
    /// `fragment` if another part of the gateway decides.
    pub verdict: String,
    /// The name of the reason for dropping or consuming it: `no-server`, `reset`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The same in words.
    pub text: String,
    /// Whether it opens a flow.
    pub opens: bool,
    /// The server that it goes to or comes from, as `pool/server`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server: Option<String>,
    /// Why that server was picked, if a flow is opened.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub picked_by: Option<PickedBy>,
    /// Its destination: address and port, or only an address if the protocol has no ports.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
}

/// A rule, and whether it matches.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleLine {
    /// Its position among the rules, from 1.
    pub place: u16,
    /// Its name.
    pub rule: String,
    /// What it does: `balance`, `pass`, `drop` or `reject`.
    pub action: String,
    /// Whether it is the one that decides.
    pub matches: bool,
    /// Why it does not match: `off`, or the part that differs.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub why_not: Option<String>,
}

/// The service that a packet asks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceLine {
    /// Its name.
    pub service: String,
    /// How it was found: the listen address that covers the destination, or the rule that names it.
    pub found_by: String,
    /// Its pool.
    pub pool: String,
    /// How flows are distributed.
    pub algorithm: Algorithm,
}

/// A limit that applies to a new flow.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LimitLine {
    /// Which: `client-rate`, `client-flows`, `rule-rate`, `rule-flows`, `gateway-rate` or `table`.
    pub limit: String,
    /// Usage in flows; for a rate, new flows used out of the last second's quota.
    pub used: u64,
    /// The most that the flow's priority may use, in flows or in new flows per second.
    pub most: u64,
    /// The total limit: what exceeds `most` is reserved for higher priorities.
    pub total: u64,
    /// Whether it refuses the flow.
    pub refuses: bool,
}

/// A client's sticky slot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StickyLine {
    /// The address or network that counts as one client.
    pub client: IpAddr,
    /// Its server, as `pool/server`.
    pub server: String,
    /// The client's flows to it.
    pub flows: u32,
    /// Milliseconds since its last flow ended, or since the most recent one began.
    pub age_ms: u64,
    /// Whether the client returns to it.
    pub holds: bool,
    /// Why not.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub why_not: Option<String>,
}

/// A server that could take a flow.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CandidateLine {
    /// The server, as `pool/server`.
    pub server: String,
    /// Whether it belongs to the last-resort pool.
    pub last_resort: bool,
    /// Its weight.
    pub weight: u16,
    /// Its effective weight: less than `weight` during slow start.
    pub weight_now: f32,
    /// Its health according to its monitors, for clients of the packet's family.
    pub health: Health,
    /// Its administrative state.
    pub admin: Admin,
    /// Its flows.
    pub flows: u32,
    /// Its flow limit.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub max_flows: Option<u32>,
    /// Why it is not a candidate; none if it is one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub out: Option<String>,
    /// What the algorithm compares, in words and figures.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub score: Option<String>,
    /// Whether the flow goes there.
    pub chosen: bool,
}

/// A header field that changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FieldLine {
    /// Which: `destination address`, `TCP checksum`.
    pub field: String,
    /// The value before.
    pub from: String,
    /// The value after.
    pub to: String,
}

/// A timer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TimerLine {
    /// Its purpose: `udp-two-way`, or `port rests`.
    pub timer: String,
    /// Milliseconds until it ends if no packet arrives.
    pub ends_in_ms: u64,
    /// The origin of the timeout: the gateway's settings, or the service's settings for a port.
    pub from: String,
}
