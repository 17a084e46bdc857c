//! Rows about the gateway itself.

use crate::engine::{Counters, PressureRow, Shortcut};
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;

/// The totals of engine and device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    /// Those of the engine.
    pub engine: Counters,
    /// Those of the device.
    pub device: DeviceCounters,
}

/// The counters of the live gateway's device, and of its log, since the start.
///
/// A super-packet is one read and one write here; the engine counts its segments.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct DeviceCounters {
    /// Packets read.
    pub read: u64,
    /// Bytes read, without the header of the device.
    pub read_bytes: u64,
    /// Packets read with an invalid device header; they did not reach the engine.
    pub bad_headers: u64,
    /// Reads that failed, except for lack of a packet.
    pub read_failures: u64,
    /// Packets written.
    pub written: u64,
    /// Bytes written, without the header of the device.
    pub written_bytes: u64,
    /// Packets that the engine forwarded or sent but the device did not accept; they are lost.
    pub write_failures: u64,
    /// Super-packets read or written (segmentation offload).
    pub super_packets: u64,
    /// Packets lost in the device's queues because they came faster than they were read: neither read nor known to the
    /// engine. A super-packet counts as one.
    pub lost: u64,
    /// Lines of the log that were lost because the reader of stderr did not keep up; packets do not wait for it.
    pub lost_log_lines: u64,
}

/// The status of the gateway.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// [`PROTOCOL`](super::PROTOCOL) of the gateway.
    pub protocol: u32,
    /// The version of the gateway: `0.1.0`.
    pub version: String,
    /// Its process ID.
    pub pid: u32,
    /// Milliseconds since it started.
    pub uptime_ms: u64,
    /// Name of its TUN device.
    pub device: String,
    /// MTU of the device in bytes.
    pub mtu: u16,
    /// Whether segmentation offload is active.
    pub offload: bool,
    /// Queues of the device. With one, a flood also takes packets of established connections.
    #[serde(default)]
    pub queues: u64,
    /// Packets lost in them since the start because they came faster than they were read.
    #[serde(default)]
    pub lost: u64,
    /// The file in which flows and changes outlive the gateway; none if nothing does.
    #[serde(default)]
    pub state_file: Option<String>,
    /// Number of services.
    pub services: u64,
    /// Number of servers.
    pub servers: u64,
    /// Flows, half-open ones included.
    pub flows: u64,
    /// Capacity of the table in flows; half-open flows do not count in it.
    pub max_flows: u64,
    /// Half-open flows: TCP, handshake incomplete.
    pub half_open: u64,
    /// Capacity of the store of half-open flows.
    pub max_half_open: u64,
    /// What is short of room at the moment; empty if nothing is.
    pub pressures: Vec<PressureRow>,
    /// Lines of the log that were lost because the reader of stderr did not keep up.
    #[serde(default)]
    pub lost_log_lines: u64,
    /// Rules, routes and other parts that another program had removed or changed and the gateway has restored since the
    /// start.
    pub repairs: u64,
    /// The last of these repairs, if there was one.
    pub last_repair: Option<RepairRow>,
    /// What the gateway installed in the system and does not work at the moment; empty if all of it does.
    pub troubles: Vec<TroubleRow>,
    /// What the kernel carries past the device; none without the shortcut.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shortcut: Option<Shortcut>,
    /// The role of this gateway in its pair, and whether the other one is in step with it; none without a pair.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pair: Option<PairStatus>,
    /// Where metrics, the page and the API are served; none if they are not.
    #[serde(default)]
    pub http: Option<HttpRow>,
}

/// The pair of a gateway in its status.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PairStatus {
    /// The role of this gateway.
    pub role: String,
    /// The name of the other one.
    pub peer: String,
    /// Whether both know what the other knows.
    pub in_step: bool,
}

/// Where metrics, the page and the API are served.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HttpRow {
    /// The address.
    pub listen: SocketAddr,
    /// Why nobody listens there; none if the gateway does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// What changes over HTTP need to have, in the header `Authorization: Bearer TOKEN`.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenRow {
    /// The token.
    pub token: String,
    /// The page.
    pub page: String,
}

/// Without the token itself, so that it gets into no log.
impl std::fmt::Debug for TokenRow {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TokenRow").field("page", &self.page).finish_non_exhaustive()
    }
}

/// A repair of what the gateway installed in the system.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RepairRow {
    /// What was restored, as in the log.
    pub what: String,
    /// Milliseconds since then.
    pub ago_ms: u64,
}

/// A part of what the gateway installed in the system that does not work.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TroubleRow {
    /// Its name: `route 192.0.2.80/32 to device equipoise0`.
    pub part: String,
    /// What is wrong with it.
    pub what: String,
    /// Milliseconds since when.
    pub for_ms: u64,
    /// Milliseconds until it is repaired; none if only the operator can do that.
    pub next_ms: Option<u64>,
    /// How often it has gone missing, without a quiet minute between.
    pub times: u64,
}
