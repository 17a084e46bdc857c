//! The keys of `[[rule]]`.

use super::gateway::{FLOW_COUNT, PER_SECOND};
use super::service::{NAME, PORTS, PRIORITIES, PROTOCOL, V4_BITS, V6_BITS};
use super::{DefaultValue, Key, Reload, Table, Takes};
use DefaultValue::{Flag, Number, Required, Unset};

const NETWORKS: Takes = Takes::Form("networks or addresses");
const ANY: DefaultValue = Unset("any");
const NO_LIMIT: DefaultValue = Unset("no limit");
const BALANCE: &[&str] = &["balance"];

/// `[[rule]]`.
pub(crate) static RULE: Table =
    Table { name: "rule", header: "[[rule]]", renamed: &[("class", "priority")], keys: KEYS };

const KEYS: &[Key] = &[
    Key::new("name", NAME, Required, Reload::Identity, "Name of the rule, unique among rules."),
    Key::new("enabled", Takes::Flag, Flag(true), Reload::NewFlows, "Whether the rule is on at the start."),
    Key::new("from", NETWORKS, ANY, Reload::NewFlows, "Source of the packet: networks or addresses."),
    Key::new("to", NETWORKS, ANY, Reload::NewFlows, "Destination of the packet: networks or addresses."),
    Key::new("protocol", PROTOCOL, ANY, Reload::NewFlows, "Protocol of the packet."),
    Key::new("ports", PORTS, ANY, Reload::NewFlows, "Destination ports; they need a `protocol` with ports."),
    Key::new("source-ports", PORTS, ANY, Reload::NewFlows, "Source ports; they need a `protocol` with ports."),
    Key::new(
        "ingress",
        Takes::bytes(1, 15),
        ANY,
        Reload::NewFlows,
        "Interface on which the packet arrived, as a capture names it.",
    ),
    Key::new(
        "action",
        Takes::Word(&["balance", "pass", "drop", "reject"]),
        Required,
        Reload::NewFlows,
        "What happens to a packet that matches.",
    ),
    Key::new(
        "service",
        Takes::Form("the name of a service"),
        Unset("the service that listens on the destination"),
        Reload::NewFlows,
        "The service that takes the flow.",
    )
    .only_with("action", BALANCE),
    Key::new("priority", PRIORITIES, Unset("that of the service"), Reload::NewFlows, "Priority of the rule's flows.")
        .only_with("action", BALANCE),
    Key::new(
        "rate",
        PER_SECOND,
        NO_LIMIT,
        Reload::NewFlows,
        "Maximum number of new flows per second through this rule, and in one burst.",
    )
    .only_with("action", BALANCE),
    Key::new(
        "flows",
        FLOW_COUNT,
        NO_LIMIT,
        Reload::NewFlows,
        "Maximum number of flows at a time through this rule; half-open ones and queries do not count.",
    )
    .only_with("action", BALANCE),
    Key::new(
        "client-rate",
        PER_SECOND,
        NO_LIMIT,
        Reload::NewFlows,
        "Maximum number of new flows per second of one client, and in one burst.",
    )
    .only_with("action", BALANCE),
    Key::new(
        "client-flows",
        FLOW_COUNT,
        NO_LIMIT,
        Reload::NewFlows,
        "Maximum number of flows at a time of one client; half-open ones and queries do not count.",
    )
    .only_with("action", BALANCE),
    Key::new(
        "client-ipv4-prefix",
        V4_BITS,
        Number(32),
        Reload::StartsOver,
        "Leading bits of an IPv4 address that make one client of these limits.",
    )
    .only_with("action", BALANCE),
    Key::new(
        "client-ipv6-prefix",
        V6_BITS,
        Number(64),
        Reload::StartsOver,
        "Leading bits of an IPv6 address that make one client of these limits.",
    )
    .only_with("action", BALANCE),
];
