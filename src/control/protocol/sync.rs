//! Rows about the other gateway of a pair.

use serde::{Deserialize, Serialize};
use std::net::SocketAddr;

/// The other gateway of a pair, and how far it knows what this one knows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SyncRow {
    /// The name of this gateway.
    pub node: String,
    /// Where it talks to the other one.
    pub address: SocketAddr,
    /// Its role: `learning`, `ready`, `active`, `standby` or `yielding`.
    pub role: String,
    /// Its term: the higher one wins where both claim a flow.
    pub term: u64,
    /// Whether it may be elected: it knows what the other one knows, or has waited for long enough.
    pub ready: bool,
    /// The name of the other one.
    pub peer: String,
    /// Its address.
    pub peer_address: SocketAddr,
    /// Its role, if it is connected.
    pub peer_role: Option<String>,
    /// The connection, if there is one.
    pub link: Option<LinkRow>,
    /// Why there is none.
    pub trouble: Option<String>,
    /// Milliseconds since when there is none.
    pub trouble_for_ms: Option<u64>,
    /// Connections since the start.
    pub connections: u64,
    /// Bytes sent since the start.
    pub sent_bytes: u64,
    /// Bytes received since the start.
    pub received_bytes: u64,
    /// Flows of this gateway.
    pub flows: u64,
    /// What both know, as one number in hexadecimal: the same at both ends when both know the same.
    pub digest: String,
    /// When this gateway last became active, if it ever did.
    pub takeover: Option<TakeoverRow>,
    /// Records of flows of the other one that cannot be here, by reason; since the connection began.
    #[serde(default)]
    pub refused: Vec<RefusedRow>,
    /// Services of the other one that are not configured here; at most 16.
    #[serde(default)]
    pub unknown_services: Vec<String>,
    /// Records of flows of this gateway that the other one has refused; since the connection began.
    #[serde(default)]
    pub refused_there: u64,
    /// Whether the servers' health is that which the active gateway tells.
    #[serde(default)]
    pub follows_health: bool,
    /// If so: addresses and ports that this gateway probes all the same, as the active one tells nothing of them; each counts once
    /// per monitor.
    #[serde(default)]
    pub probed_here: u64,
    /// Answers of servers that have waited for the other one; none without `before-answer`.
    pub held: Option<HeldRow>,
}

/// Records of flows that a gateway of a pair has refused for one reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefusedRow {
    /// The reason.
    pub why: String,
    /// Records.
    pub records: u64,
}

/// What has become of servers' answers to SYNs that were to wait until the other gateway of a pair knows of the connection;
/// since the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldRow {
    /// Those that have waited, or still do.
    pub held: u64,
    /// Those that went on when the other one knew.
    pub acknowledged: u64,
    /// Those that went on after 20 ms, or because the other one was lost, without its acknowledgement.
    pub late: u64,
    /// Those that did not wait: too many did, or the other one does not know all flows.
    pub not_held: u64,
}

/// The connection to the other gateway of a pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkRow {
    /// Milliseconds since it began.
    pub for_ms: u64,
    /// Whether both know all that the other knew when it began.
    pub in_step: bool,
    /// Whether the digests have agreed since; only a gateway that is not active compares.
    pub agreed: bool,
    /// Frames that the other one has not acknowledged.
    pub lag_frames: u64,
    /// Flows that the other one has announced for its last pass over its table, about.
    pub announced: u64,
    /// Flows that have come since.
    pub came: u64,
    /// Records and frames that this version does not know.
    pub skipped: u64,
    /// Whether the configurations differ in what concerns flows.
    pub differs: bool,
}

/// How a gateway of a pair became active.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TakeoverRow {
    /// Milliseconds ago.
    pub ago_ms: u64,
    /// Flows that it knew then.
    pub flows: u64,
    /// Whether it knew all that the other one had told.
    pub whole: bool,
    /// For how many milliseconds the other one had been silent; none if it was connected to none since the start.
    pub silent_ms: Option<u64>,
}
