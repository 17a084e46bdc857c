//! The keys of `[[service]]`, `[[service.timeouts]]` and `[service.sticky]`.

use super::gateway::TIMEOUT_KEYS;
use super::takes::ABOVE_ZERO;
use super::{DefaultValue, Key, Reload, Table, Takes};
use DefaultValue::{Flag, Number, Required, Text, Unset};

/// The name of a service, pool, server, monitor, rule or group. Names appear in tables, labels and command lines, so they
/// hold nothing that would have to be quoted there.
pub(super) const NAME: Takes = Takes::Text { least: 1, most: 64, of: "letters, digits, \"-\", \"_\" and \".\"" };
/// The words for a priority.
pub(super) const PRIORITIES: Takes = Takes::Word(&["low", "normal", "high"]);
/// How a protocol is named.
pub(super) const PROTOCOL: Takes =
    Takes::Form("\"tcp\", \"udp\", \"icmp\", \"sctp\", \"gre\", \"esp\", \"ipip\" or \"ip-N\"");
/// Ports.
pub(super) const PORTS: Takes = Takes::Ranges { least: 1, most: 65_535 };
/// Bits of an IPv4 address.
pub(super) const V4_BITS: Takes = Takes::number(1, 32);
/// Bits of an IPv6 address.
pub(super) const V6_BITS: Takes = Takes::number(1, 128);

const ALGORITHMS: &[&str] = &[
    "round-robin",
    "least-connections",
    "connection-rate",
    "random",
    "two-choices",
    "source-hash",
    "maglev",
    "least-latency",
    "priority",
    "resource-usage",
];
const HASHED: &[&str] = &["maglev", "source-hash"];

/// `[[service]]`.
pub(crate) static SERVICE: Table =
    Table { name: "service", header: "[[service]]", renamed: &[("class", "priority")], keys: SERVICE_KEYS };

const SERVICE_KEYS: &[Key] = &[
    Key::new("name", NAME, Required, Reload::Identity, "Name of the service, unique among services."),
    Key::new(
        "enabled",
        Takes::Flag,
        Flag(true),
        Reload::NewFlows,
        "Whether the service takes new flows; if not, its addresses answer as if nothing listened there.",
    ),
    Key::new(
        "listen",
        Takes::Form("a string or an array"),
        Required,
        Reload::Drains,
        "Listen addresses, written \"ADDRESS:PORT/PROTOCOL\".",
    ),
    Key::new(
        "pool",
        Takes::Form("the name of a pool"),
        Required,
        Reload::NewFlows,
        "The pool that takes the service's flows; it needs a server of each address family that the service listens on.",
    ),
    Key::new(
        "algorithm",
        Takes::Word(ALGORITHMS),
        Text("round-robin"),
        Reload::NewFlows,
        "How new flows are distributed over the servers of the pool that are enabled, up and not full.",
    ),
    Key::new(
        "rate-window",
        Takes::millis(100, 3_600_000),
        DefaultValue::secs(10),
        Reload::NewFlows,
        "How far back \"connection-rate\" counts new flows.",
    )
    .only_with("algorithm", &["connection-rate"]),
    // The largest prime under 2^24, which makes a table of 64 MiB.
    Key::new(
        "maglev-table",
        Takes::number(2, 16_777_213),
        Number(65_537),
        Reload::NewFlows,
        "Entries of the Maglev table: a prime above the number of servers, preferably 100 per server.",
    )
    .only_with("algorithm", &["maglev"]),
    Key::new(
        "hash",
        Takes::Word(&["flow", "address", "network"]),
        Unset("\"flow\" with \"maglev\", \"address\" with \"source-hash\""),
        Reload::NewFlows,
        "What \"maglev\" and \"source-hash\" hash.",
    )
    .only_with("algorithm", HASHED),
    Key::new(
        "hash-ipv4-prefix",
        V4_BITS,
        Number(24),
        Reload::NewFlows,
        "Leading bits of an IPv4 client's address that are hashed.",
    )
    .only_with("hash", &["network"]),
    Key::new(
        "hash-ipv6-prefix",
        V6_BITS,
        Number(64),
        Reload::NewFlows,
        "Leading bits of an IPv6 client's address that are hashed.",
    )
    .only_with("hash", &["network"]),
    Key::new(
        "on-down",
        Takes::Word(&["repick", "keep", "reset"]),
        Text("repick"),
        Reload::Live,
        "What happens to a server's flows when it goes down or is disabled.",
    ),
    Key::new(
        "last-resort",
        Takes::Word(&["drop", "reset", "unreachable"]),
        Text("drop"),
        Reload::NewFlows,
        "What happens to a new flow that no server can take.",
    ),
    Key::new(
        "last-resort-pool",
        Takes::Form("the name of a pool"),
        Unset("none"),
        Reload::NewFlows,
        "A pool whose servers take the flows that no other server can take, in turn.",
    ),
    Key::new(
        "priority",
        PRIORITIES,
        Text("normal"),
        Reload::NewFlows,
        "Priority of the service's new flows when the table or the rate runs out.",
    ),
    Key::new(
        "unknown-tcp",
        Takes::Word(&["reset", "drop", "adopt"]),
        Text("reset"),
        Reload::Live,
        "What happens to a TCP packet that belongs to no flow and does not open one.",
    ),
    Key::new(
        "mss-clamp",
        // RFC 9293, 3.7.1: without the option an end sends 536 bytes.
        Takes::WordOrNumber { words: &["off", "auto"], least: 536, most: 65_495 },
        Text("off"),
        Reload::NewFlows,
        "Whether the maximum segment size that TCP ends announce in their SYNs is lowered.",
    ),
    Key::new(
        "nat",
        Takes::Word(&["destination", "full"]),
        Text("destination"),
        Reload::NewFlows,
        "Which addresses of a flow are translated.",
    ),
    Key::new(
        "nat-pool",
        Takes::Form("the name of a NAT pool"),
        Unset("none"),
        Reload::NewFlows,
        "The NAT pool that source addresses are taken from; required with `nat = \"full\"`.",
    )
    .only_with("nat", &["full"]),
    Key::new(
        "full-nat-for",
        Takes::Form("networks or addresses"),
        Unset("all clients"),
        Reload::NewFlows,
        "The clients that get full NAT; all others get destination NAT.",
    )
    .only_with("nat", &["full"]),
    Key::new(
        "timeouts",
        Takes::Tables { most: Some(256) },
        Unset("[timeouts] for all"),
        Reload::ByKey,
        "Timeouts of this service only.",
    ),
    Key::new(
        "sticky",
        Takes::Table,
        Unset("each connection by itself"),
        Reload::ByKey,
        "Stickiness: a client returns to the server of its first flow, as long as that server takes new flows.",
    ),
];

/// A timeout of one service.
const fn of_service(key: Key) -> Key {
    Key { default: Unset("that of [timeouts]"), ..key }
}

/// `[[service.timeouts]]`.
pub(crate) static SERVICE_TIMEOUTS: Table = Table {
    name: "service.timeouts",
    header: "[[service.timeouts]]",
    renamed: &[],
    keys: &[
        Key::new("ports", PORTS, Unset("all"), Reload::NewFlows, "Service ports that these timeouts are for."),
        Key::new("protocol", PROTOCOL, Unset("all"), Reload::NewFlows, "Protocol that these timeouts are for."),
        of_service(TIMEOUT_KEYS[0]),
        of_service(TIMEOUT_KEYS[1]),
        of_service(TIMEOUT_KEYS[2]),
        of_service(TIMEOUT_KEYS[3]),
        of_service(TIMEOUT_KEYS[4]),
        of_service(TIMEOUT_KEYS[5]),
        of_service(TIMEOUT_KEYS[6]),
    ],
};

const STICKS: &[&str] = &["address", "network"];

/// `[service.sticky]`.
pub(crate) static STICKY: Table = Table {
    name: "service.sticky",
    header: "[service.sticky]",
    renamed: &[],
    keys: &[
        Key::new(
            "by",
            Takes::Word(&["address", "network", "connection"]),
            Text("address"),
            Reload::StartsOver,
            "What counts as one client: its \"address\", its \"network\", or nothing (\"connection\").",
        ),
        Key::new(
            "ipv4-prefix",
            V4_BITS,
            Number(24),
            Reload::StartsOver,
            "Leading bits of an IPv4 address that make one client.",
        )
        .only_with("by", &["network"]),
        Key::new(
            "ipv6-prefix",
            V6_BITS,
            Number(64),
            Reload::StartsOver,
            "Leading bits of an IPv6 address that make one client.",
        )
        .only_with("by", &["network"]),
        Key::new(
            "idle",
            ABOVE_ZERO,
            DefaultValue::secs(300),
            Reload::Live,
            "How long a client without a flow is remembered.",
        )
        .only_with("by", STICKS),
        Key::new(
            "slots",
            Takes::number(1, 100_000_000),
            Number(65_536),
            Reload::Live,
            "Maximum number of clients remembered; the client that has been idle longest is forgotten first.",
        )
        .only_with("by", STICKS),
        Key::new(
            "group",
            NAME,
            Unset("each service by itself"),
            Reload::StartsOver,
            "Name of a group of services that share what they remember.",
        )
        .only_with("by", STICKS),
    ],
};
