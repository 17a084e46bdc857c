//! The protocol of the control socket: one line of JSON per request and per answer.
//!
//! ```text
//!  > {"request":"flows","query":{"service":"web"},"limit":2}
//!  < {"flow":{"id":"7.0","protocol":"tcp",...}}
//!  < {"flow":{"id":"9.4","protocol":"tcp",...}}
//!  < {"done":{"rows":2,"more":true}}
//! ```
//!
//! Each request is answered by any number of rows, followed by one `done` or one `error`. Types only: it must know
//! neither sockets nor printing.

use super::filter_words::FilterWords;
use super::packet_words::PacketWords;
use super::pair::{Begun, RoleWord};
use crate::config::changes::{Target, Who};
use crate::engine::{
    Counters, Explanation, FlowQuery, FlowRow, HistoryRow, MonitorRow, NatRow, PressureRow, RuleRow, ServerRow,
    ServiceRow, Shortcut, SortBy, StickyQuery, StickyRow,
};
use crate::ids::FlowId;
use serde::{Deserialize, Deserializer, Serialize};
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

/// Version of this protocol; increased whenever an old client would misread an answer.
pub const PROTOCOL: u32 = 6;

/// Reads a field that may be there, and may be `null`.
pub(crate) fn or_null<'de, D: Deserializer<'de>, T: Deserialize<'de>>(from: D) -> Result<Option<Option<T>>, D::Error> {
    Option::deserialize(from).map(Some)
}

/// A request of a client.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Request {
    /// The status of the gateway: one [`Answer::Status`]. Every version of the protocol has it.
    Status,
    /// The flows that match: one [`Answer::Flow`] each, in the order of the table.
    Flows {
        /// Selects the flows.
        #[serde(default)]
        query: FlowQuery,
        /// A further condition: `host 192.0.2.7 and not port 443`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        filter: Option<FilterWords>,
        /// What to sort by, the flows with most first; then at most 10,000 flows are listed.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        sort: Option<SortBy>,
        /// Maximum number of rows; none for no limit.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        limit: Option<u64>,
    },
    /// The servers, in the order of the settings: one [`Answer::Server`] each.
    Servers,
    /// The services, in the order of the settings: one [`Answer::Service`] each.
    Services,
    /// The rules, in their order: one [`Answer::Rule`] each.
    Rules,
    /// The port usage of the NAT pools: one [`Answer::Nat`] for each address and protocol that any flow has used.
    Nat,
    /// The results of the monitors: one [`Answer::Monitor`] for each address and port that a monitor probes.
    Monitors,
    /// The latest changes of the servers' health: one [`Answer::History`] each, server by server, the oldest first; then
    /// the latest changes by operators and reloads: one [`Answer::Operation`] each, the oldest first.
    History,
    /// Where pools take servers from besides the configuration file, in the order of the pools: one [`Answer::Source`]
    /// each.
    Sources,
    /// The totals: one [`Answer::Counters`].
    Counters,
    /// Explains what would become of a packet: one [`Answer::Explanation`].
    Explain {
        /// The packet: `tcp 192.0.2.7:4711 -> 203.0.113.10:80 syn`.
        packet: PacketWords,
    },
    /// Explains what would become of the next packet of a flow's client: one [`Answer::Explanation`].
    ExplainFlow {
        /// The flow.
        flow: FlowId,
    },
    /// Explains what holds for a client: at most 100 of its flows, one [`Answer::Flow`] each; one [`Answer::Client`];
    /// then, for each service of its family, one [`Answer::Explanation`] of a new flow from its port 40000.
    ExplainClient {
        /// The client.
        client: IpAddr,
    },
    /// Removes a flow from the table without notifying its ends: one [`Answer::Killed`].
    Kill {
        /// The flow.
        flow: FlowId,
    },
    /// Removes all flows that match: one [`Answer::Killed`]. Flows that begin in the meantime may stay.
    KillFlows {
        /// Which flows.
        filter: FilterWords,
        /// Whether they are only counted.
        #[serde(default)]
        dry_run: bool,
    },
    /// The clients that stick to a server: one [`Answer::Sticky`] each, in no particular order.
    Sticky {
        /// Selects the clients.
        #[serde(default)]
        query: StickyQuery,
        /// Maximum number of rows; none for no limit.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        limit: Option<u64>,
    },
    /// Forgets sticky clients, whose flows stay where they are: one [`Answer::Cleared`].
    ClearSticky {
        /// Selects the clients.
        #[serde(default)]
        query: StickyQuery,
        /// Whether all are meant; otherwise the query has a condition.
        #[serde(default)]
        all: bool,
    },
    /// The latest events: one [`Answer::Event`] each, the oldest first; the last 1,024 are kept.
    Events {
        /// Only those with a greater number; all if the number is of another gateway.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        after: Option<u64>,
    },
    /// The pools, in the order of the settings: one [`Answer::Pool`] each.
    Pools,
    /// What was changed at run time and is not in the file: one [`Answer::Differs`] for each object and key.
    Changes,
    /// The file that the gateway was configured by, as it was read: one [`Answer::File`].
    File,
    /// Changes keys of an object: one [`Answer::Changed`]. The change is kept until the file says something else for
    /// that key.
    Set {
        /// The object; a server may be named without its pool where only one pool has it.
        object: Target,
        /// The new value of each key in the notation of the file, `5`, `"30s"`; null for the default.
        values: BTreeMap<String, Option<String>>,
        /// When draining: milliseconds after which the remaining flows are ended; `null` for never. Without it, a deadline that
        /// there is stays.
        #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "or_null")]
        deadline_ms: Option<Option<u64>>,
    },
    /// Adds a server: one [`Answer::Changed`].
    Add {
        /// The server, with its pool.
        object: Target,
        /// Its keys, in the notation of the file.
        values: BTreeMap<String, String>,
    },
    /// Removes a server, which keeps its flows until they end: one [`Answer::Changed`].
    Remove {
        /// The server.
        object: Target,
        /// Whether its flows end at once.
        #[serde(default)]
        now: bool,
    },
    /// Goes back to the file: one [`Answer::Changed`] for each object that differed.
    Drop {
        /// The object; none for all.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        object: Option<Target>,
        /// Its key; none for all.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        key: Option<String>,
    },
    /// How far the draining or removal of a server is: one [`Answer::Drain`].
    Drain {
        /// The server, with its pool.
        server: String,
    },
    /// Sets the reported load of a server, as if the server had reported it itself; valid for a minute: one
    /// [`Answer::Changed`].
    Load {
        /// The server; its pool may be left out where only one pool has it.
        server: String,
        /// The load in percent, 0 to 100.
        load: u8,
        /// Whether it asks for no new flows.
        #[serde(default)]
        maintenance: bool,
    },
    /// Reads the configuration file again and puts it in force: one [`Answer::Change`] for each change.
    Reload {
        /// Whether what needs a restart is left out, instead of refusing all of it.
        #[serde(default)]
        partial: bool,
        /// Whether the flows of removed servers end at once, instead of going on until they end by themselves.
        #[serde(default)]
        now: bool,
    },
    /// The configuration in force: one [`Answer::Object`] each, as the file would have it.
    Configuration,
    /// The other gateway of the pair, and how far it knows what this one knows: one [`Answer::Sync`].
    Sync,
    /// Makes this gateway active or standby: one [`Answer::Sync`].
    Role {
        /// What it is to be.
        to: RoleWord,
        /// The process that asks, if its request is to be without effect once that of a process that began later has been
        /// obeyed.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        begun: Option<Begun>,
    },
    /// What changes over HTTP need to have: one [`Answer::Token`].
    Token,
}

/// One line of an answer of the gateway.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Answer {
    /// A flow.
    Flow(Box<FlowRow>),
    /// A server.
    Server(Box<ServerRow>),
    /// A service.
    Service(ServiceRow),
    /// A rule.
    Rule(RuleRow),
    /// An address of a NAT pool.
    Nat(NatRow),
    /// The results of a monitor for an address and port.
    Monitor(Box<MonitorRow>),
    /// A change of a server's health.
    History(HistoryRow),
    /// Where a pool takes servers from.
    Source(Box<SourceRow>),
    /// What an operator or a reload changed.
    Operation(OperationRow),
    /// A pool.
    Pool(PoolRow),
    /// What differs from the file.
    Differs(ChangeRow),
    /// The configuration file.
    File(Box<FileRow>),
    /// An object before and after a change.
    Changed(Box<ChangedRow>),
    /// How far a server's draining is.
    Drain(DrainRow),
    /// Flows that were removed.
    Killed(Box<KilledRow>),
    /// A sticky client.
    Sticky(Box<StickyRow>),
    /// Sticky clients that were forgotten.
    Cleared(Box<ClearedRow>),
    /// An event.
    Event(EventRow),
    /// What would become of a packet, and why.
    Explanation(Box<Explained>),
    /// A change by a reload.
    Change(ReloadRow),
    /// An object of the configuration in force.
    Object(Box<ObjectRow>),
    /// How many flows a client has.
    Client(ClientRow),
    /// The other gateway of the pair.
    Sync(Box<SyncRow>),
    /// The totals.
    Counters(Box<Totals>),
    /// The status of the gateway.
    Status(Box<Status>),
    /// What changes over HTTP need to have.
    Token(TokenRow),
    /// The answer is complete.
    Done(Done),
    /// The request was refused, and nothing was changed.
    Error(Failure),
}

/// The end of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Done {
    /// Number of rows in the answer, or of things changed.
    pub rows: u64,
    /// Whether there are more rows than the limit.
    #[serde(default)]
    pub more: bool,
}

/// Why a request was refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// The message for an operator.
    pub message: String,
}

/// A packet and its explanation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Explained {
    /// The service that the packet was made for; none where the packet was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// The packet.
    pub packet: PacketWords,
    /// What would become of it, and why.
    pub explanation: Explanation,
}

/// How many flows a client has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientRow {
    /// The client.
    pub client: IpAddr,
    /// Its flows.
    pub flows: u64,
    /// How many of them the answer contains.
    pub listed: u64,
}

/// What holds for a client, as one object.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ClientReport {
    /// How many flows it has.
    #[serde(flatten)]
    pub client: ClientRow,
    /// Some of them.
    pub listed_flows: Vec<FlowRow>,
    /// What a new flow would meet at each service.
    pub explanations: Vec<Explained>,
}

/// What an operator or a reload changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OperationRow {
    /// Milliseconds ago.
    pub ago_ms: u64,
    /// What changed: `server web/a: weight 1 -> 5 (new flows only)`.
    pub what: String,
    /// Who asked for it; none where the gateway itself did.
    #[serde(flatten)]
    pub who: Option<Who>,
}

/// A pool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolRow {
    /// Its name.
    pub pool: String,
    /// The services that use it, as their last resort too.
    pub services: Vec<String>,
    /// Its servers.
    pub servers: u64,
    /// Those of them that are enabled, up and of a weight above 0.
    pub usable: u64,
    /// Those that are draining.
    pub draining: u64,
    /// Those that are disabled.
    pub disabled: u64,
    /// Those that are enabled and down.
    pub down: u64,
    /// Its current flows.
    pub flows: u64,
    /// Its keys as in the file.
    pub keys: serde_json::Map<String, serde_json::Value>,
}

/// What was changed at run time and is not in the file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChangeRow {
    /// The object.
    pub object: Target,
    /// The key; none if the object itself was added or removed.
    pub key: Option<String>,
    /// What the file says, in its notation; none if it lacks the object.
    pub file: Option<String>,
    /// What is in force, in the notation of the file: a value, of an added object its table; none if it was removed.
    pub value: Option<String>,
    /// Whether the key is absent, and `value` its default.
    #[serde(default)]
    pub is_default: bool,
    /// Whether it waits for its server, which comes from outside.
    #[serde(default)]
    pub waits: bool,
    /// Who asked for it.
    #[serde(flatten)]
    pub who: Who,
    /// Milliseconds ago.
    pub ago_ms: u64,
    /// Milliseconds until draining ends by force.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline_ms: Option<u64>,
}

/// The configuration file as the gateway read it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileRow {
    /// Its name.
    pub origin: String,
    /// Its text.
    pub text: String,
}

/// An object before and after a change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChangedRow {
    /// The object.
    pub object: Target,
    /// What was changed, a line for each key: `server web/a: weight 1 -> 5 (new flows only)`.
    pub text: String,
    /// Whether anything was changed.
    pub changed: bool,
    /// Every key before; none if the object did not exist.
    pub before: Option<serde_json::Map<String, serde_json::Value>>,
    /// Every key after; none if the object was removed.
    pub after: Option<serde_json::Map<String, serde_json::Value>>,
    /// The flows of a server that has stopped taking new ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub flows: Option<u64>,
}

/// Flows before and after they were removed.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct KilledRow {
    /// What was done, in one line.
    pub text: String,
    /// Whether anything was changed.
    pub changed: bool,
    /// Whether flows were only counted.
    #[serde(default)]
    pub dry_run: bool,
    /// Number of flows.
    pub flows: u64,
    /// The flows before, at most 100.
    pub before: Vec<FlowRow>,
    /// What is left of them after: nothing.
    pub after: Vec<FlowRow>,
}

/// Sticky clients before and after they were forgotten.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ClearedRow {
    /// What was done, in one line.
    pub text: String,
    /// Whether anything was changed.
    pub changed: bool,
    /// Number of clients.
    pub clients: u64,
    /// The clients before, at most 100.
    pub before: Vec<StickyRow>,
    /// What is left of them after: nothing.
    pub after: Vec<StickyRow>,
}

/// Something that happened, or that somebody did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventRow {
    /// Its number; they grow, and begin anew with each gateway.
    pub number: u64,
    /// Milliseconds ago.
    pub ago_ms: u64,
    /// Whether it needs attention.
    pub grave: bool,
    /// What happened, in one line.
    pub what: String,
    /// Who did it; none if nobody did.
    #[serde(flatten)]
    pub who: Option<Who>,
}

/// How far the draining or removal of a server is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrainRow {
    /// The server, with its pool.
    pub server: String,
    /// What it does.
    pub state: DrainState,
    /// Its remaining flows.
    pub flows: u64,
    /// Milliseconds since draining began, up to its end.
    pub for_ms: Option<u64>,
    /// Milliseconds until the remaining flows are ended.
    pub deadline_ms: Option<u64>,
    /// Flows that were ended at the deadline.
    #[serde(default)]
    pub cut: u64,
    /// Of its flows, those whose connections have ended and which are only remembered; the client counts them, once there
    /// are few.
    #[serde(default)]
    pub ended: u64,
}

/// The state of draining.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DrainState {
    /// It has flows.
    Draining,
    /// Its last flow has ended by itself.
    Drained,
    /// The deadline has passed; the remaining flows were ended.
    Deadline,
    /// It was removed and has flows.
    Removing,
    /// It was removed and has no flows.
    Removed,
    /// It is enabled or disabled: nobody drains it.
    NotDraining,
}

/// A change by a reload, or what kept one from it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReloadRow {
    /// What it is.
    pub kind: ReloadKind,
    /// The change in one line: `server web/web-2: weight 1 -> 5 (new flows only)`.
    pub text: String,
    /// The table of the object, as in the file: `pool.server`; empty where the row is about none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub table: String,
    /// The name of the object, with that of its pool for servers and monitors; empty for a table that exists once.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub object: String,
    /// The key that changed; none where the whole object was added or removed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// Its older value, as in the file; none if the key did not apply.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// Its newer value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
}

/// What a row of a reload is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ReloadKind {
    /// An object that is new.
    Added,
    /// An object that is gone; a server drains.
    Removed,
    /// A key of an object that has another value.
    Changed,
    /// A change that takes effect at the next start only.
    LeftOut,
    /// A change at run time that no longer applies.
    Dropped,
    /// Something that needs the operator's attention.
    Problem,
}

/// An object of a configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObjectRow {
    /// Its table: `service`, `pool.server`; empty for the top level.
    pub table: String,
    /// Its name, with that of its pool for servers and monitors; empty for a table that exists once.
    pub name: String,
    /// Its keys: the table of each, which is that of the object or one below it, the key, and the value as in the file.
    pub keys: Vec<(String, String, String)>,
}

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
    /// [`PROTOCOL`] of the gateway.
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

/// Where a pool takes servers from besides the configuration file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceRow {
    /// The pool.
    pub pool: String,
    /// The kind: `file`, `dns-srv` or `dns-address`.
    pub kind: String,
    /// The path of the file, or the name.
    pub from: String,
    /// Number of servers of the list in use.
    pub servers: u64,
    /// Their names.
    #[serde(default)]
    pub names: Vec<String>,
    /// Milliseconds since that list was last confirmed; none if there never was one.
    pub good_ms: Option<u64>,
    /// Milliseconds until it is asked again; a change of a file is noticed before.
    pub next_ms: u64,
    /// What is wrong; none if nothing is.
    pub error: Option<String>,
    /// Milliseconds since when.
    pub error_for_ms: Option<u64>,
    /// Servers of the list that cannot be used, each with the reason.
    pub left_out: Vec<String>,
}

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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::changes::Kind;

    #[test]
    fn requests_are_written_as_the_module_says() {
        let query = FlowQuery { service: Some("web".into()), ..FlowQuery::default() };
        let cases = [
            (Request::Status, r#"{"request":"status"}"#),
            (
                Request::Flows { query, filter: None, sort: None, limit: Some(2) },
                r#"{"request":"flows","query":{"service":"web"},"limit":2}"#,
            ),
            (
                Request::Explain { packet: "udp 192.0.2.7:5 -> 192.0.2.80:53".parse().unwrap() },
                r#"{"request":"explain","packet":"udp 192.0.2.7:5 -> 192.0.2.80:53"}"#,
            ),
            (
                Request::ExplainFlow { flow: FlowId { index: 7, generation: 0 } },
                r#"{"request":"explain-flow","flow":"7.0"}"#,
            ),
            (
                Request::ExplainClient { client: "2001:db8::7".parse().unwrap() },
                r#"{"request":"explain-client","client":"2001:db8::7"}"#,
            ),
            (
                Request::KillFlows { filter: "tcp port 80".parse().unwrap(), dry_run: true },
                r#"{"request":"kill-flows","filter":"tcp port 80","dry_run":true}"#,
            ),
            (Request::Events { after: Some(3) }, r#"{"request":"events","after":3}"#),
            (Request::Kill { flow: FlowId { index: 7, generation: 0 } }, r#"{"request":"kill","flow":"7.0"}"#),
            (
                Request::Set {
                    object: Target::new(Kind::Server, "p/a"),
                    values: [("weight".into(), Some("3".into()))].into(),
                    deadline_ms: None,
                },
                r#"{"request":"set","object":{"kind":"server","name":"p/a"},"values":{"weight":"3"}}"#,
            ),
            (
                Request::Set {
                    object: Target::new(Kind::Server, "p/a"),
                    values: [("state".into(), None)].into(),
                    deadline_ms: Some(None),
                },
                r#"{"request":"set","object":{"kind":"server","name":"p/a"},"values":{"state":null},"deadline_ms":null}"#,
            ),
            (
                Request::Drop { object: Some(Target::new(Kind::Rule, "r")), key: None },
                r#"{"request":"drop","object":{"kind":"rule","name":"r"}}"#,
            ),
        ];
        for (request, want) in cases {
            assert_eq!(serde_json::to_string(&request).unwrap(), want);
            assert_eq!(serde_json::from_str::<Request>(want).unwrap(), request);
        }
    }

    #[test]
    fn a_request_for_flows_needs_neither_query_nor_limit() {
        let all = Request::Flows { query: FlowQuery::default(), filter: None, sort: None, limit: None };
        assert_eq!(serde_json::from_str::<Request>(r#"{"request":"flows"}"#).unwrap(), all);
    }

    #[test]
    fn a_request_with_an_unknown_word_is_refused() {
        for bad in [
            r#"{"request":"reboot"}"#,
            r#"{"request":"flows","limits":2}"#,
            r#"{"request":"flows","filter":"tcp prt 80"}"#,
            r#"{"request":"flows","sort":"weight"}"#,
            r#"{"request":"explain","packet":"tcp"}"#,
            r#"{}"#,
            r#""status""#,
        ] {
            assert!(serde_json::from_str::<Request>(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn answers_name_what_they_are() {
        let done = Answer::Done(Done { rows: 2, more: true });
        assert_eq!(serde_json::to_string(&done).unwrap(), r#"{"done":{"rows":2,"more":true}}"#);
        let error = Answer::Error(Failure { message: "no".into() });
        assert_eq!(serde_json::to_string(&error).unwrap(), r#"{"error":{"message":"no"}}"#);
    }
}
