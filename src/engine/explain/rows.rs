//! What an explanation consists of: values that tables and JSON show.

use super::super::FlowRow;
use crate::balance::{Admin, Algorithm, PickedBy};
use crate::packet::Side;
use crate::state::Health;
use serde::{Deserialize, Serialize};
use std::net::IpAddr;

/// What would become of a packet, and why. Each part that does not apply is absent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Default)]
#[serde(default)]
pub struct Explanation {
    /// The packet in one line, as reports describe it.
    pub packet: String,
    /// What becomes of it.
    pub outcome: OutcomeRow,
    /// What happens first: a flow that ends so that the packet can open another, for example.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub before: Vec<String>,
    /// The rules up to the one that matched, or all where none did.
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
    /// The limits that a new flow meets.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub limits: Vec<LimitLine>,
    /// What is remembered of the client.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sticky: Option<StickyLine>,
    /// Every server that could take the flow, in the order of the file.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub candidates: Vec<CandidateLine>,
    /// How the algorithm came to its choice, in words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub arithmetic: Option<String>,
    /// The header fields that change, in the order of the packet.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub rewrite: Vec<FieldLine>,
    /// Packets of the gateway's own that are sent in its place or in answer to it, each described in one line.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub sends: Vec<String>,
    /// Timers that hold after it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub timers: Vec<TimerLine>,
    /// What could not be explained, and why.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

/// What becomes of a packet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(default)]
pub struct OutcomeRow {
    /// `forward`, `emit` (it goes on as other packets), `pass` (unchanged), `consume` or `drop`; or `monitors` and
    /// `fragment` where another part of the gateway decides.
    pub verdict: String,
    /// The name of the reason, or of what it is consumed for: `no-server`, `reset`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The same in words.
    pub text: String,
    /// Whether it opens a flow.
    pub opens: bool,
    /// The server that it goes to or comes from, as `pool/server`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server: Option<String>,
    /// Why that server was picked, where a flow is opened.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub picked_by: Option<PickedBy>,
    /// Where it goes on to: address and port, or an address alone where the protocol has no ports.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
}

/// A rule, and whether it matches.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleLine {
    /// Its place among the rules, from 1.
    pub place: u16,
    /// Its name.
    pub rule: String,
    /// What it does: `balance`, `pass`, `drop` or `reject`.
    pub action: String,
    /// Whether it is the one that decides.
    pub matches: bool,
    /// Why it does not match: `off`, or what of it differs.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub why_not: Option<String>,
}

/// The service that a packet asks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceLine {
    /// Its name.
    pub service: String,
    /// How it was found: the listen address that holds the destination, or the rule that names it.
    pub found_by: String,
    /// Its pool.
    pub pool: String,
    /// How flows are spread.
    pub algorithm: Algorithm,
}

/// A limit that a new flow meets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LimitLine {
    /// Which: `client-rate`, `client-flows`, `rule-rate`, `rule-flows`, `gateway-rate` or `table`.
    pub limit: String,
    /// What is used of it, in flows; of a rate, new flows that are used of the last second's worth.
    pub used: u64,
    /// The most that the flow's priority may use, in flows or in new flows per second.
    pub most: u64,
    /// The most in all: what is beyond `most` is reserved for higher priorities.
    pub total: u64,
    /// Whether it refuses the flow.
    pub refuses: bool,
}

/// What is remembered of a client.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StickyLine {
    /// The address or network that counts as one client.
    pub client: IpAddr,
    /// The server that it was given, as `pool/server`.
    pub server: String,
    /// The client's flows to it.
    pub flows: u32,
    /// Milliseconds since its last flow ended, or the latest began.
    pub age_ms: u64,
    /// Whether it goes there again.
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
    /// Whether it belongs to the last resort.
    pub last_resort: bool,
    /// Its weight.
    pub weight: u16,
    /// Its weight in force: less than `weight` during slow start.
    pub weight_now: f32,
    /// What its monitors say, for clients of the packet's family.
    pub health: Health,
    /// What the operator wants of it.
    pub admin: Admin,
    /// Its flows.
    pub flows: u32,
    /// The most that it takes.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub max_flows: Option<u32>,
    /// Why it is no candidate; none: it is one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub out: Option<String>,
    /// What the algorithm compares, in words with figures.
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
    /// What it is.
    pub from: String,
    /// What it becomes.
    pub to: String,
}

/// A timer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TimerLine {
    /// What it is for: `udp-two-way`, or `port rests`.
    pub timer: String,
    /// Milliseconds until it ends if nothing comes.
    pub ends_in_ms: u64,
    /// Where the timeout comes from: the gateway's, or the service's for a port.
    pub from: String,
}
