//! What an operator configures of policy: ordered rules, limits, priority classes. Plain checked values.

use crate::balance::{Prefixes, Priority, Protocol};
use crate::ids::ServiceId;
use ipnet::IpNet;

/// What is done with a new flow that a rule matches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Action {
    /// It is balanced: to this service, or to the one that listens at its destination.
    Balance(Option<ServiceId>),
    /// Its packets pass unchanged, packet by packet, without a flow.
    Pass,
    /// It is dropped in silence.
    Drop,
    /// TCP gets a reset, others ICMP "administratively prohibited" (RFC 1812, 5.2.7.1; RFC 4443, 3.1).
    Reject,
}

impl Action {
    /// The word used in configurations and tables.
    pub const fn name(self) -> &'static str {
        match self {
            Action::Balance(_) => "balance",
            Action::Pass => "pass",
            Action::Drop => "drop",
            Action::Reject => "reject",
        }
    }
}

/// Limits of new flows; none is no limit.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Limits {
    /// New flows a second, and as many at once after a quiet second.
    pub rate: Option<u32>,
    /// Flows at a time.
    pub flows: Option<u32>,
    /// New flows a second of one client.
    pub client_rate: Option<u32>,
    /// Flows at a time of one client.
    pub client_flows: Option<u32>,
}

/// A rule: everything that is given must match.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleSettings {
    /// Unique name.
    pub name: String,
    /// Whether it holds at the start.
    pub enabled: bool,
    /// Networks that the source lies in; empty is any.
    pub from: Vec<IpNet>,
    /// Networks that the destination lies in; empty is any.
    pub to: Vec<IpNet>,
    /// Protocol.
    pub protocol: Option<Protocol>,
    /// First and last of ranges of source ports; empty is any.
    pub source_ports: Vec<(u16, u16)>,
    /// First and last of ranges of destination ports; empty is any.
    pub ports: Vec<(u16, u16)>,
    /// Number in [`PolicySettings::interfaces`], from 1, of the interface that it came in at.
    pub ingress: Option<u16>,
    /// What is done.
    pub action: Action,
    /// The class of its flows; none is that of the service.
    pub priority: Option<Priority>,
    /// Limits of its flows.
    pub limits: Limits,
    /// Which clients count as one for the limits.
    pub client: Prefixes,
}

impl RuleSettings {
    /// A rule that matches everything.
    pub fn new(name: &str, action: Action) -> Self {
        RuleSettings {
            name: name.into(),
            enabled: true,
            from: Vec::new(),
            to: Vec::new(),
            protocol: None,
            source_ports: Vec::new(),
            ports: Vec::new(),
            ingress: None,
            action,
            priority: None,
            limits: Limits::default(),
            client: Prefixes { v4: 32, v6: 64 },
        }
    }
}

/// All of policy.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PolicySettings {
    /// The rules in their order: the first that matches a new flow decides. At most 65,535.
    pub rules: Vec<RuleSettings>,
    /// New flows a second that the gateway takes in all; none is no limit.
    pub rate: Option<u32>,
    /// Names of the interfaces that rules speak of.
    pub interfaces: Vec<String>,
}
