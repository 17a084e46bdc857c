//! The outside view of the engine: rows and counters, as plain values.

use super::filter::Filter;
use super::paths::Shortcut;
use super::reason::Reason;
use super::verdict::{Consumed, Ended, Short};
use crate::balance::{Admin, Algorithm, Health, PickedBy, Protocol};
use crate::flow::{Class, TimeoutState};
use crate::ids::FlowId;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use std::net::{IpAddr, SocketAddr};

/// A flow, as seen at one point in time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowRow {
    /// Its ID.
    pub id: FlowId,
    /// TCP, UDP or ICMP echo.
    pub protocol: Protocol,
    /// The client's address and port (ICMP: echo identifier).
    pub client: SocketAddr,
    /// The service address and port that the client sends to.
    pub listen: SocketAddr,
    /// The service's name.
    pub service: String,
    /// The name of the server's pool.
    #[serde(default)]
    pub pool: String,
    /// The server's name.
    pub server: String,
    /// The server's address and port.
    pub server_address: SocketAddr,
    /// The source that the server sees, where it is not the client itself (full NAT).
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub source: Option<SocketAddr>,
    /// How the server was chosen.
    pub picked_by: PickedBy,
    /// The rule that admitted it, if one matched.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub rule: Option<String>,
    /// Its timeout state.
    pub state: TimeoutState,
    /// Milliseconds since its creation.
    pub age_ms: u64,
    /// Milliseconds since its last packet, exact to 100 ms.
    pub idle_ms: u64,
    /// Milliseconds until it expires if no packet arrives.
    pub expires_in_ms: u64,
    /// Packets from the client; a super-packet counts as the packets it stands for.
    pub packets_in: u64,
    /// Bytes of IP packets from the client.
    pub bytes_in: u64,
    /// Packets from the server.
    pub packets_out: u64,
    /// Bytes of IP packets from the server.
    pub bytes_out: u64,
    /// Whether the kernel carries it past the gateway's device.
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub shortcut: bool,
}

impl FlowRow {
    /// Returns the server's name with that of its pool: `pool/server`.
    pub fn server_name(&self) -> String {
        format!("{}/{}", self.pool, self.server)
    }
}

/// The port usage of one address of a NAT pool, for one protocol. Flows to different server endpoints may use the same
/// port, so a port counts once for each endpoint at which it is in use or rests.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NatRow {
    /// The pool's name.
    pub pool: String,
    /// The source address.
    pub address: std::net::IpAddr,
    /// The protocol.
    pub protocol: Protocol,
    /// Ports in use by flows, towards all servers.
    pub used: u32,
    /// Those of `used` whose flow has not completed its handshake; of datagrams, those that are no conversation yet.
    pub half_open: u32,
    /// Ports that were released and rest before they are assigned again, towards all servers.
    pub resting: u32,
    /// Server endpoints towards which ports are in use or rest.
    pub servers: u32,
    /// The server endpoint towards which most are; port 0 for ICMP echo.
    pub fullest_server: Option<SocketAddr>,
    /// Ports that can be assigned towards that endpoint; towards any if there is none.
    pub free: u32,
    /// New flows refused for lack of a port, in the whole pool.
    pub exhausted: u64,
}

/// Selects flows; all given conditions must match.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct FlowQuery {
    /// Name of the service.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// Name of the server.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server: Option<String>,
    /// Network that contains the client's address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client: Option<IpNet>,
    /// Protocol.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub protocol: Option<Protocol>,
    /// A further condition; requests carry it as words.
    #[serde(skip)]
    pub filter: Option<Filter>,
}

/// The position of a walk over the flows; the default is its start.
///
/// A walk visits every flow that exists throughout it; once, unless its handshake completes in between, as then it may
/// appear both half-open and established.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Cursor(pub(super) u32);

impl Cursor {
    /// Returns the position of a flow.
    pub const fn at(flow: FlowId) -> Cursor {
        // Half-open flows come first.
        Cursor(flow.index ^ FlowId::HALF_OPEN)
    }
}

/// A server with its standing and traffic.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ServerRow {
    /// The pool's name.
    pub pool: String,
    /// The server's name.
    pub server: String,
    /// Its addresses, IPv4 first.
    pub addresses: Vec<IpAddr>,
    /// Its port; none where it is that of the service.
    pub port: Option<u16>,
    /// Its weight.
    pub weight: u16,
    /// Its effective weight: less than `weight` during slow start.
    pub weight_now: f32,
    /// Its administrative state.
    pub admin: Admin,
    /// Milliseconds until its draining ends by force, if it is draining and has a deadline.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub drain_deadline_ms: Option<u64>,
    /// Its health: the worst of its addresses and ports.
    pub health: Health,
    /// Its addresses and ports that are down while others are not; empty if all are down, or none.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub parts_down: Vec<PartRow>,
    /// How often one of its addresses or ports went down since the start.
    pub times_down: u64,
    /// How often one of its addresses or ports came up since the start.
    pub times_up: u64,
    /// Milliseconds until its passive hold ends, if it has one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub passive_hold_ms: Option<u64>,
    /// The load that it reported in percent, if not older than a minute.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub load: Option<u8>,
    /// Whether it is under maintenance.
    pub maintenance: bool,
    /// Whether it is no longer in the configuration, and gone with its last flow.
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub removed: bool,
    /// The smoothed round-trip time of its probes in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub latency_ms: Option<f64>,
    /// Its limit of concurrent flows.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub max_flows: Option<u32>,
    /// Its current flows.
    pub flows: u64,
    /// Those of them whose clients have proved themselves: only these count in `max_flows`.
    #[serde(default)]
    pub proven: u64,
    /// Flows assigned to it since the start.
    pub flows_total: u64,
    /// Packets that clients sent to it.
    pub packets_in: u64,
    /// Bytes of IP packets that clients sent to it.
    pub bytes_in: u64,
    /// Packets that it sent to clients.
    pub packets_out: u64,
    /// Bytes of IP packets that it sent to clients.
    pub bytes_out: u64,
    /// What passes per second, where somebody has measured it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub rates: Option<Rates>,
}

impl ServerRow {
    /// Returns its name with that of its pool: `pool/server`.
    pub fn name(&self) -> String {
        format!("{}/{}", self.pool, self.server)
    }
}

/// What passes per second, measured between two looks at the counters.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Rates {
    /// New flows.
    pub flows: f64,
    /// Packets from clients.
    pub packets_in: f64,
    /// Bytes of IP packets from clients.
    pub bytes_in: f64,
    /// Packets to clients.
    pub packets_out: f64,
    /// Bytes of IP packets to clients.
    pub bytes_out: f64,
}

/// One address of a server, or one of its ports.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartRow {
    /// `IPv4` or `IPv6`.
    pub family: String,
    /// The port; none for the whole address.
    pub port: Option<u16>,
}

impl PartRow {
    /// Returns the row of a part.
    pub fn new(v6: bool, port: Option<u16>) -> Self {
        PartRow { family: if v6 { "IPv6" } else { "IPv4" }.into(), port }
    }
}

/// A service with its flows and traffic.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ServiceRow {
    /// The service's name.
    pub service: String,
    /// Whether it takes new flows.
    pub enabled: bool,
    /// Its listen addresses, as in the configuration: `192.0.2.80:80/tcp`.
    pub listen: Vec<String>,
    /// The pool whose servers get its flows.
    pub pool: String,
    /// The algorithm that distributes them.
    pub algorithm: Algorithm,
    /// Its current flows.
    pub flows: u64,
    /// Its flows since the start.
    pub flows_total: u64,
    /// Packets that clients sent to it.
    #[serde(default)]
    pub packets_in: u64,
    /// Bytes of IP packets that clients sent to it.
    #[serde(default)]
    pub bytes_in: u64,
    /// Packets that it sent to clients.
    #[serde(default)]
    pub packets_out: u64,
    /// Bytes of IP packets that it sent to clients.
    #[serde(default)]
    pub bytes_out: u64,
    /// What passes per second, where somebody has measured it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub rates: Option<Rates>,
}

/// A rule with what it matched, admitted and refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleRow {
    /// Its position among the rules, from 1.
    pub place: u16,
    /// The rule's name.
    pub rule: String,
    /// Whether it is enabled.
    pub enabled: bool,
    /// Its action: `balance`, `pass`, `drop` or `reject`.
    pub action: String,
    /// Packets matched; packets of known flows are not matched against rules.
    pub matched: u64,
    /// Flows admitted since the start.
    pub flows_total: u64,
    /// Flows refused by its limits.
    pub refused: u64,
    /// Current flows that it admitted.
    pub flows: u32,
    /// Those of them whose clients have proved themselves: only these count in its limits.
    #[serde(default)]
    pub proven: u32,
}

/// The results of one monitor for one address and port of a server.
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
    /// The probed address.
    pub address: IpAddr,
    /// The probed port; none for ICMP.
    pub port: Option<u16>,
    /// The verdict of this monitor alone.
    pub verdict: Health,
    /// The health of the server's address and port, after all monitors and the floor.
    pub state: Health,
    /// Whether it is in service only because of the floor of its pool.
    pub kept_by_floor: bool,
    /// Results in the sample window.
    pub sent: u32,
    /// Failures among them.
    pub lost: u32,
    /// Average latency of the answered probes in the window, in milliseconds.
    pub average_ms: Option<f64>,
    /// The last result in words; none before the first result.
    pub last: Option<String>,
    /// Milliseconds since `state` last changed.
    pub in_state_ms: u64,
}

impl MonitorRow {
    /// Returns the server's name with that of its pool: `pool/server`.
    pub fn server_name(&self) -> String {
        format!("{}/{}", self.pool, self.server)
    }
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
    /// The port; none for the whole address.
    pub port: Option<u16>,
    /// `up`, `down`, or `kept-by-floor`.
    pub what: String,
    /// Why, with the figures.
    pub why: String,
}

/// A counter and what it counts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Count<T> {
    /// What it counts.
    pub kind: T,
    /// Its value.
    pub count: u64,
}

/// A shortage of room that is going on: it began when a flow first had to give way, or be refused, and ends after a
/// minute without.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PressureRow {
    /// What is full.
    pub of: Short,
    /// Milliseconds since it began.
    pub for_ms: u64,
    /// Flows that have given way since, by class; every class is listed.
    pub gave_way: Vec<Count<Class>>,
    /// Attempts to open a flow or to complete a handshake that have been refused since because no flow could give way.
    pub refused: u64,
}

/// The engine's totals since the start.
///
/// `packets_in = translated + foreign + sum(consumed) + sum(dropped)`, in packets; a super-packet
/// counts as the packets that it stands for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counters {
    /// Packets handed to the engine.
    pub packets_in: u64,
    /// Their bytes.
    pub bytes_in: u64,
    /// Packets translated for their flow and forwarded.
    pub translated: u64,
    /// Packets forwarded unchanged because they belong to no service.
    pub foreign: u64,
    /// Packets consumed by the engine, by kind; every kind is listed.
    pub consumed: Vec<Count<Consumed>>,
    /// Packets dropped, by reason; every reason is listed.
    pub dropped: Vec<Count<Reason>>,
    /// Packets that the engine itself sent.
    pub transmitted: u64,
    /// Flows, half-open ones included.
    pub flows: u64,
    /// Capacity of the table in flows; half-open flows do not count in it.
    pub max_flows: u64,
    /// Half-open flows: TCP, handshake incomplete.
    pub half_open: u64,
    /// Capacity of the store of half-open flows.
    pub max_half_open: u64,
    /// Flows that gave way to new ones since the start, by class; every class is listed.
    pub gave_way: Vec<Count<Class>>,
    /// Flows created since the start.
    pub flows_opened: u64,
    /// Flows ended since the start, by cause; every cause is listed.
    pub flows_ended: Vec<Count<Ended>>,
    /// Flows in the table by state; every state is listed.
    pub states: Vec<Count<TimeoutState>>,
    /// What the kernel carries past the gateway's device, and does not count in `packets_in`; none without the shortcut.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub shortcut: Option<Shortcut>,
}

impl Counters {
    /// Returns the packets forwarded, translated or not.
    pub fn forwarded(&self) -> u64 {
        self.translated + self.foreign
    }

    /// Returns the packets consumed.
    pub fn consumed(&self) -> u64 {
        self.consumed.iter().map(|c| c.count).sum()
    }

    /// Returns the packets dropped.
    pub fn dropped(&self) -> u64 {
        self.dropped.iter().map(|c| c.count).sum()
    }

    /// Tests whether in = forwarded + consumed + dropped.
    pub fn add_up(&self) -> bool {
        self.packets_in == self.forwarded() + self.consumed() + self.dropped()
    }
}
