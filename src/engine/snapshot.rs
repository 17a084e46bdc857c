//! What can be seen of the engine from outside: rows and counters, as plain values.

use super::reason::Reason;
use super::verdict::{Consumed, Ended};
use crate::balance::{Admin, Algorithm, Health, PickedBy, Protocol};
use crate::flow::TimeoutState;
use crate::ids::FlowId;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use std::net::{IpAddr, SocketAddr};

/// A flow, as seen at one point in time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowRow {
    /// Its place in the table.
    pub id: FlowId,
    /// TCP, UDP or ICMP echo.
    pub protocol: Protocol,
    /// The client's address and port (ICMP: echo identifier).
    pub client: SocketAddr,
    /// The service address and port that the client talks to.
    pub listen: SocketAddr,
    /// The service's name.
    pub service: String,
    /// The server's name.
    pub server: String,
    /// The server's address and port.
    pub server_address: SocketAddr,
    /// The source that the server sees, where it is not the client's own (full NAT).
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub source: Option<SocketAddr>,
    /// Why it went to that server.
    pub picked_by: PickedBy,
    /// The rule that let it in, if any matched.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub rule: Option<String>,
    /// Which timeout holds.
    pub state: TimeoutState,
    /// Milliseconds since it was made.
    pub age_ms: u64,
    /// Milliseconds since its last packet, exact to 100 ms.
    pub idle_ms: u64,
    /// Milliseconds until it expires if no packet comes.
    pub expires_in_ms: u64,
    /// Packets from the client; a super-packet counts as the packets it stands for.
    pub packets_in: u64,
    /// Bytes of IP packets from the client.
    pub bytes_in: u64,
    /// Packets from the server.
    pub packets_out: u64,
    /// Bytes of IP packets from the server.
    pub bytes_out: u64,
}

/// What of an address of a NAT pool is in use for a protocol.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NatRow {
    /// The pool's name.
    pub pool: String,
    /// The source address.
    pub address: std::net::IpAddr,
    /// The protocol.
    pub protocol: Protocol,
    /// Ports that flows have.
    pub used: u32,
    /// Ports that were released and rest before they are assigned again.
    pub resting: u32,
    /// Ports that can be assigned.
    pub free: u32,
    /// New flows that found no port, of the whole pool.
    pub exhausted: u64,
}

/// Which flows to show; every condition that is given must hold.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct FlowQuery {
    /// Name of the service.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// Name of the server.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server: Option<String>,
    /// Network that the client's address lies in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client: Option<IpNet>,
    /// Protocol.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub protocol: Option<Protocol>,
}

/// Where a walk over the flows stands; starts at the default.
///
/// A walk sees every flow that exists for all of it exactly once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Cursor(pub u32);

/// A server and what it has been given.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ServerRow {
    /// The pool's name.
    pub pool: String,
    /// The server's name.
    pub server: String,
    /// Its addresses, IPv4 first.
    pub addresses: Vec<IpAddr>,
    /// Its port; none where it is the same as the service's.
    pub port: Option<u16>,
    /// Its weight.
    pub weight: u16,
    /// Its weight in force: less than `weight` during slow start.
    pub weight_now: f32,
    /// What the operator wants of it.
    pub admin: Admin,
    /// What its monitors say: the worst of its addresses and ports.
    pub health: Health,
    /// How often an address or port of it went down since the start.
    pub times_down: u64,
    /// How often an address or port of it came up since the start.
    pub times_up: u64,
    /// Milliseconds for which signs from the traffic still keep it out.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub passive_hold_ms: Option<u64>,
    /// Its own word on its load in percent, if it is not older than a minute.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub load: Option<u8>,
    /// Whether it asked to be left alone.
    pub maintenance: bool,
    /// The smoothed round trip of its probes in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub latency_ms: Option<f64>,
    /// Most flows that it is given at a time.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub max_flows: Option<u32>,
    /// Flows that go to it.
    pub flows: u64,
    /// Flows that it has been given since the start.
    pub flows_total: u64,
    /// Packets that clients sent to it.
    pub packets_in: u64,
    /// Bytes of IP packets that clients sent to it.
    pub bytes_in: u64,
    /// Packets that it sent to clients.
    pub packets_out: u64,
    /// Bytes of IP packets that it sent to clients.
    pub bytes_out: u64,
}

/// A service and what came to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceRow {
    /// The service's name.
    pub service: String,
    /// Where it listens, as in the configuration: `192.0.2.80:80/tcp`.
    pub listen: Vec<String>,
    /// The pool that its flows go to.
    pub pool: String,
    /// How they are spread.
    pub algorithm: Algorithm,
    /// Its flows.
    pub flows: u64,
    /// Its flows since the start.
    pub flows_total: u64,
}

/// A rule and what it has done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleRow {
    /// Its place among the rules, from 1.
    pub place: u16,
    /// The rule's name.
    pub rule: String,
    /// Whether it holds.
    pub enabled: bool,
    /// What it does: `balance`, `pass`, `drop` or `reject`.
    pub action: String,
    /// Packets of no flow that it matched.
    pub matched: u64,
    /// Flows that it let in since the start.
    pub flows_total: u64,
    /// Flows that its limits refused.
    pub refused: u64,
    /// Flows that it let in and that have not ended.
    pub flows: u32,
}

/// One monitor's look at one address and port of a server.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MonitorRow {
    /// The pool's name.
    pub pool: String,
    /// The server's name.
    pub server: String,
    /// The monitor's name.
    pub monitor: String,
    /// `icmp`, `tcp`, `http`, `udp` or `dns`.
    pub probe: String,
    /// The address probed.
    pub address: IpAddr,
    /// The port probed; none for ICMP.
    pub port: Option<u16>,
    /// The verdict of this monitor alone.
    pub says: Health,
    /// What holds for the server's address and port after all its monitors and the floor.
    pub state: Health,
    /// Whether it is in service only because of the floor of its pool.
    pub kept_by_floor: bool,
    /// Results in the window.
    pub sent: u32,
    /// Failures among them.
    pub lost: u32,
    /// Average latency of the window's answered probes in milliseconds.
    pub average_ms: Option<f64>,
    /// The last result in words; none: no probe has ended.
    pub last: Option<String>,
    /// Milliseconds for which `state` has held.
    pub in_state_ms: u64,
}

/// A change of a server's health.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HistoryRow {
    /// The pool's name.
    pub pool: String,
    /// The server's name.
    pub server: String,
    /// Milliseconds ago.
    pub ago_ms: u64,
    /// `IPv4` or `IPv6`.
    pub family: String,
    /// The port; none is the whole address.
    pub port: Option<u16>,
    /// `up`, `down`, or `held` by the floor of the pool.
    pub what: String,
    /// Why, in words with the figures.
    pub why: String,
}

/// A named number.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Count<T> {
    /// What is counted.
    pub kind: T,
    /// How often.
    pub count: u64,
}

/// The engine's totals since the start.
///
/// `packets_in = translated + foreign + sum(consumed) + sum(dropped)`, in packets; a super-packet
/// counts as the packets it stands for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counters {
    /// Packets handed to the engine.
    pub packets_in: u64,
    /// Their bytes.
    pub bytes_in: u64,
    /// Packets rewritten for their flow and forwarded.
    pub translated: u64,
    /// Packets of no service, forwarded unchanged.
    pub foreign: u64,
    /// Packets the engine took, by kind; every kind is listed.
    pub consumed: Vec<Count<Consumed>>,
    /// Packets dropped, by reason; every reason is listed.
    pub dropped: Vec<Count<Reason>>,
    /// Packets of the engine's own, sent.
    pub transmitted: u64,
    /// Flows in the table.
    pub flows: u64,
    /// Most flows that the table takes.
    pub max_flows: u64,
    /// Flows made since the start.
    pub flows_opened: u64,
    /// Flows ended since the start, by cause; every cause is listed.
    pub flows_ended: Vec<Count<Ended>>,
    /// Flows in the table by state; every state is listed.
    pub states: Vec<Count<TimeoutState>>,
}

impl Counters {
    /// Packets forwarded, translated or not.
    pub fn forwarded(&self) -> u64 {
        self.translated + self.foreign
    }

    /// Packets the engine took.
    pub fn consumed(&self) -> u64 {
        self.consumed.iter().map(|c| c.count).sum()
    }

    /// Packets dropped.
    pub fn dropped(&self) -> u64 {
        self.dropped.iter().map(|c| c.count).sum()
    }

    /// Whether in = forwarded + consumed + dropped.
    pub fn add_up(&self) -> bool {
        self.packets_in == self.forwarded() + self.consumed() + self.dropped()
    }
}
