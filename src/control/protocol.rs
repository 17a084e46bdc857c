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

use super::packet_words::PacketWords;
use crate::balance::Admin;
use crate::engine::{
    Counters, Explanation, FlowQuery, FlowRow, HistoryRow, MonitorRow, NatRow, PressureRow, RuleRow, ServerRow,
    ServiceRow,
};
use crate::ids::FlowId;
use serde::{Deserialize, Serialize};
use std::net::IpAddr;

/// Version of this protocol; increased whenever an old client would misread an answer.
pub const PROTOCOL: u32 = 5;

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
    /// The latest changes of the servers' health: one [`Answer::History`] each, server by server, the oldest first.
    History,
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
    /// Removes a flow from the table without notifying its ends.
    Kill {
        /// The flow.
        flow: FlowId,
    },
    /// Changes the weight of a server until the gateway stops; its flows stay.
    Weight {
        /// The pool's name.
        pool: String,
        /// The server's name.
        server: String,
        /// The new weight; with 0 it gets no new flows.
        weight: u16,
    },
    /// Enables, drains or disables a server until the gateway stops.
    Admin {
        /// The pool's name.
        pool: String,
        /// The server's name.
        server: String,
        /// Its new administrative state.
        admin: Admin,
        /// When draining: milliseconds after which the remaining flows are ended.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        deadline_ms: Option<u64>,
    },
    /// Sets the reported load of a server, as if the server had reported it itself; valid for a minute.
    Load {
        /// The pool's name.
        pool: String,
        /// The server's name.
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
    /// Enables or disables a rule until the gateway stops; flows that it admitted stay.
    Rule {
        /// The rule's name.
        rule: String,
        /// Whether it is enabled.
        on: bool,
    },
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
    /// What would become of a packet, and why.
    Explanation(Box<Explained>),
    /// A change by a reload.
    Change(ReloadRow),
    /// An object of the configuration in force.
    Object(Box<ObjectRow>),
    /// How many flows a client has.
    Client(ClientRow),
    /// The totals.
    Counters(Box<Totals>),
    /// The status of the gateway.
    Status(Box<Status>),
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

    #[test]
    fn requests_are_written_as_the_module_says() {
        let query = FlowQuery { service: Some("web".into()), ..FlowQuery::default() };
        let cases = [
            (Request::Status, r#"{"request":"status"}"#),
            (Request::Flows { query, limit: Some(2) }, r#"{"request":"flows","query":{"service":"web"},"limit":2}"#),
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
            (Request::Kill { flow: FlowId { index: 7, generation: 0 } }, r#"{"request":"kill","flow":"7.0"}"#),
            (
                Request::Weight { pool: "p".into(), server: "a".into(), weight: 3 },
                r#"{"request":"weight","pool":"p","server":"a","weight":3}"#,
            ),
        ];
        for (request, want) in cases {
            assert_eq!(serde_json::to_string(&request).unwrap(), want);
            assert_eq!(serde_json::from_str::<Request>(want).unwrap(), request);
        }
    }

    #[test]
    fn a_request_for_flows_needs_neither_query_nor_limit() {
        let all = Request::Flows { query: FlowQuery::default(), limit: None };
        assert_eq!(serde_json::from_str::<Request>(r#"{"request":"flows"}"#).unwrap(), all);
    }

    #[test]
    fn a_request_with_an_unknown_word_is_refused() {
        for bad in [
            r#"{"request":"reboot"}"#,
            r#"{"request":"flows","limits":2}"#,
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
