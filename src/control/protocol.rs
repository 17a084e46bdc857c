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

mod changes;
mod status;
mod sync;

pub use changes::*;
pub use status::*;
pub use sync::*;

use super::filter_words::FilterWords;
use super::packet_words::PacketWords;
use super::pair::{Begun, RoleWord};
use crate::config::changes::{Target, Who};
use crate::engine::{
    Explanation, FlowQuery, FlowRow, HistoryRow, MonitorRow, NatRow, RuleRow, ServerRow, ServiceRow, SortBy,
    StickyQuery, StickyRow,
};
use crate::ids::FlowId;
use serde::{Deserialize, Deserializer, Serialize};
use std::collections::BTreeMap;
use std::net::IpAddr;

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
