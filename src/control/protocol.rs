//! What is said over the control socket: a line of JSON a request, a line of JSON an answer.
//!
//! ```text
//!  > {"request":"flows","query":{"service":"web"},"limit":2}
//!  < {"flow":{"id":"7.0","protocol":"tcp",...}}
//!  < {"flow":{"id":"9.4","protocol":"tcp",...}}
//!  < {"done":{"rows":2,"more":true}}
//! ```
//!
//! Each request is answered by any number of rows and then by one `done` or one `error`. Types only:
//! it must not know sockets, nor how anything is printed.

use crate::balance::Admin;
use crate::engine::{Counters, FlowQuery, FlowRow, HistoryRow, MonitorRow, NatRow, RuleRow, ServerRow, ServiceRow};
use crate::ids::FlowId;
use serde::{Deserialize, Serialize};

/// Version of this protocol; it grows when an old client would misread an answer.
pub const PROTOCOL: u32 = 1;

/// What a client asks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Request {
    /// What runs: answered by one [`Answer::Status`]. Every version of the protocol has it.
    Status,
    /// The flows that match: an [`Answer::Flow`] each, in the order of the table.
    Flows {
        /// Which flows.
        #[serde(default)]
        query: FlowQuery,
        /// Most rows to answer with; none is no limit.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        limit: Option<u64>,
    },
    /// The servers, in the order of the settings: an [`Answer::Server`] each.
    Servers,
    /// The services, in the order of the settings: an [`Answer::Service`] each.
    Services,
    /// The rules, in their order: an [`Answer::Rule`] each.
    Rules,
    /// What of the NAT pools is in use: an [`Answer::Nat`] for each address and protocol that any flow has had.
    Nat,
    /// What the monitors see: an [`Answer::Monitor`] for each address and port that one looks at.
    Monitors,
    /// The last changes of the servers' health: an [`Answer::History`] each, server by server, the oldest first.
    History,
    /// The totals: one [`Answer::Counters`].
    Counters,
    /// Removes a flow from the table; neither end is told.
    Kill {
        /// The flow.
        flow: FlowId,
    },
    /// Gives a server another weight until the gateway ends; its flows stay.
    Weight {
        /// The pool's name.
        pool: String,
        /// The server's name.
        server: String,
        /// The new weight; 0 gets no new flows.
        weight: u16,
    },
    /// Enables, drains or disables a server until the gateway ends.
    Admin {
        /// The pool's name.
        pool: String,
        /// The server's name.
        server: String,
        /// What is wanted of it.
        admin: Admin,
        /// Draining: milliseconds after which the flows that are left are ended.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        deadline_ms: Option<u64>,
    },
    /// Tells a server's load as if it had told so itself; it counts for a minute.
    Load {
        /// The pool's name.
        pool: String,
        /// The server's name.
        server: String,
        /// 0 to 100 percent.
        load: u8,
        /// Whether it wants no new flows.
        #[serde(default)]
        maintenance: bool,
    },
    /// Switches a rule on or off until the gateway ends; flows that it let in stay.
    Rule {
        /// The rule's name.
        rule: String,
        /// Whether it is to hold.
        on: bool,
    },
}

/// What a gateway answers.
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
    /// A monitor's look at an address and port.
    Monitor(Box<MonitorRow>),
    /// A change of a server's health.
    History(HistoryRow),
    /// The totals.
    Counters(Box<Totals>),
    /// What runs.
    Status(Box<Status>),
    /// The request has been answered in full.
    Done(Done),
    /// The request has been refused, and nothing was changed.
    Error(Failure),
}

/// The end of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Done {
    /// Rows that were answered, or things that were changed.
    pub rows: u64,
    /// Whether the limit cut the answer off.
    #[serde(default)]
    pub more: bool,
}

/// Why a request was refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// In words, for an operator.
    pub message: String,
}

/// The totals of engine and device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    /// The engine's.
    pub engine: Counters,
    /// The device's.
    pub device: DeviceCounters,
}

/// What the live gateway counts at its device since the start.
///
/// A super-packet is one read and one write here, and counts as its segments in the engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct DeviceCounters {
    /// Packets read.
    pub read: u64,
    /// Their bytes, without the device's own header.
    pub read_bytes: u64,
    /// Packets read with a header of the device that makes no sense; the engine never saw them.
    pub bad_headers: u64,
    /// Reads that failed, other than for want of a packet.
    pub read_failures: u64,
    /// Packets written.
    pub written: u64,
    /// Their bytes, without the device's own header.
    pub written_bytes: u64,
    /// Packets that the engine forwarded or sent and the device did not take: lost.
    pub write_failures: u64,
    /// Packets read or written that stand for several (segmentation offload).
    pub super_packets: u64,
}

/// What runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// [`PROTOCOL`] of the gateway.
    pub protocol: u32,
    /// The gateway's version: `0.1.0`.
    pub version: String,
    /// Its process ID.
    pub pid: u32,
    /// Milliseconds since it started.
    pub uptime_ms: u64,
    /// Name of its TUN device.
    pub device: String,
    /// MTU of the device in bytes.
    pub mtu: u16,
    /// Whether segmentation offload is in force.
    pub offload: bool,
    /// Number of services.
    pub services: u64,
    /// Number of servers.
    pub servers: u64,
    /// Flows in the table.
    pub flows: u64,
    /// Most flows that the table takes.
    pub max_flows: u64,
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
        for bad in [r#"{"request":"reboot"}"#, r#"{"request":"flows","limits":2}"#, r#"{}"#, r#""status""#] {
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
