//! The operator's settings for policy: ordered rules, limits, priorities. Plain checked values.

use crate::balance::{Prefixes, Priority, Protocol};
use crate::ids::ServiceId;
use ipnet::IpNet;

/// What happens to a new flow that a rule matches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Action {
    /// It is balanced: to this service, or to the one that listens on its destination.
    Balance(Option<ServiceId>),
    /// Its packets pass unchanged, one by one, without a flow.
    Pass,
    /// It is dropped silently.
    Drop,
    /// It is rejected: TCP with a reset, others with ICMP "administratively prohibited" (RFC 1812, 5.2.7.1; RFC 4443,
    /// 3.1).
    Reject,
}

impl Action {
    /// Returns the word used in configurations and tables.
    pub const fn name(self) -> &'static str {
        match self {
            Action::Balance(_) => "balance",
            Action::Pass => "pass",
            Action::Drop => "drop",
            Action::Reject => "reject",
        }
    }
}

/// Limits of new flows; none is unlimited.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Limits {
    /// New flows per second, and the burst after a quiet second.
    pub rate: Option<u32>,
    /// Simultaneous flows.
    pub flows: Option<u32>,
    /// New flows per second per client.
    pub client_rate: Option<u32>,
    /// Simultaneous flows per client.
    pub client_flows: Option<u32>,
}

/// A rule: everything that is given must match.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleSettings {
    /// Unique name.
    pub name: String,
    /// Whether it is on at the start.
    pub enabled: bool,
    /// Source networks; empty matches any.
    pub from: Vec<IpNet>,
    /// Destination networks; empty matches any.
    pub to: Vec<IpNet>,
    /// Protocol.
    pub protocol: Option<Protocol>,
    /// Source port ranges, first and last; empty matches any.
    pub source_ports: Vec<(u16, u16)>,
    /// Destination port ranges, first and last; empty matches any.
    pub ports: Vec<(u16, u16)>,
    /// The ingress interface, as its number in [`PolicySettings::interfaces`], from 1.
    pub ingress: Option<u16>,
    /// The action.
    pub action: Action,
    /// The priority of its flows; none is that of the service.
    pub priority: Option<Priority>,
    /// Limits of its flows.
    pub limits: Limits,
    /// What counts as one client for the limits.
    pub client: Prefixes,
}

impl RuleSettings {
    /// Returns a rule that matches everything.
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
    /// The rules in order: the first that matches a new flow decides. At most 65,535.
    pub rules: Vec<RuleSettings>,
    /// New flows per second for the whole gateway; none is unlimited.
    pub rate: Option<u32>,
    /// Names of the interfaces that rules refer to.
    pub interfaces: Vec<String>,
}
