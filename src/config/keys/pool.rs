//! The keys of `[[pool]]`, `[pool.passive]` and `[[pool.server]]`.

use super::gateway::FLOW_COUNT;
use super::service::NAME;
use super::{DefaultValue, Key, Reload, Table, Takes};
use DefaultValue::{Flag, Number, Required, Text, Unset};

/// Over how long a weight can rise.
const SLOW_START: Takes = Takes::millis(0, DAY);
/// A day in milliseconds.
pub(super) const DAY: u64 = 86_400_000;
const ANY: Takes = Takes::Tables { most: None };
/// Servers from outside are named by what they are: `10.0.0.7:8080`, `[2001:db8::7]:8080`, `web-1.example:8080`.
const SERVER_NAME: Takes =
    Takes::Text { least: 1, most: 128, of: "letters, digits, \"-\", \"_\", \".\", \":\", \"[\" and \"]\"" };

/// `[[pool]]`.
pub(crate) static POOL: Table = Table {
    name: "pool",
    header: "[[pool]]",
    renamed: &[],
    keys: &[
        Key::new("name", NAME, Required, Reload::Identity, "Name of the pool, unique among pools."),
        Key::new(
            "slow-start",
            SLOW_START,
            DefaultValue::secs(0),
            Reload::NewFlows,
            "How long the weight of a server that came up takes to rise to its full value.",
        ),
        Key::new(
            "floor",
            Takes::NumberOrShare { least: 1, most: u32::MAX as u64 },
            Unset("none"),
            Reload::Live,
            "How many servers stay in service whatever the monitors find, counted per address family.",
        ),
        // RFC 791: every host takes 576 bytes.
        Key::new(
            "mtu",
            Takes::number(576, 65_535),
            Unset("the MTU of the route to each server, as found at the start"),
            Reload::Live,
            "Path MTU towards the pool's servers in bytes.",
        ),
        Key::new(
            "servers-file",
            Takes::Form("an absolute path"),
            Unset("none"),
            Reload::Drains,
            "File with servers of the pool, one per line or JSON; it is watched, and a change takes effect at once.",
        ),
        Key::new(
            "servers-dns",
            Takes::Form("a domain name"),
            Unset("none"),
            Reload::Drains,
            "Domain name whose records are servers of the pool: SRV if it begins with \"_\", else A and AAAA.",
        ),
        Key::new(
            "servers-port",
            Takes::number(1, 65_535),
            Unset("the port that the client connected to"),
            Reload::Drains,
            "Port of the servers that `servers-dns` finds by A and AAAA records.",
        ),
        Key::new(
            "servers-least",
            Takes::number(1, 65_535),
            Number(1),
            Reload::Live,
            "Fewest servers that a list from `servers-file` or `servers-dns` needs to replace the one in use.",
        ),
        Key::new(
            "passive",
            Takes::Table,
            Unset("failures are only counted"),
            Reload::ByKey,
            "Passive monitoring: failures seen in the traffic itself take a server out of service for a while.",
        ),
        Key::new(
            "monitor",
            ANY,
            Unset("none, and servers count as up"),
            Reload::ByKey,
            "Active monitoring: all monitors of a pool must succeed for a server to be up.",
        ),
        Key::new("server", ANY, Required, Reload::ByKey, "The servers of the pool."),
    ],
};

/// `[pool.passive]`.
pub(crate) static PASSIVE: Table = Table {
    name: "pool.passive",
    header: "[pool.passive]",
    renamed: &[],
    keys: &[
        Key::new(
            "failures",
            Takes::number(1, 1000),
            Number(5),
            Reload::Live,
            "Failures within `within` that take a server out.",
        ),
        Key::new(
            "within",
            Takes::millis(100, DAY),
            DefaultValue::secs(10),
            Reload::Live,
            "How far back failures count.",
        ),
        Key::new(
            "hold",
            Takes::millis(100, DAY),
            DefaultValue::secs(10),
            Reload::Live,
            "How long a server stays out the first time, doubled each time after that.",
        ),
        Key::new(
            "longest",
            Takes::millis(100, DAY),
            DefaultValue::secs(300),
            Reload::Live,
            "The longest that a server stays out; after as long without failures it starts again from `hold`.",
        ),
    ],
};

/// `[[pool.server]]`.
pub(crate) static SERVER: Table = Table {
    name: "pool.server",
    header: "[[pool.server]]",
    renamed: &[],
    keys: &[
        Key::new("name", SERVER_NAME, Required, Reload::Identity, "Name of the server, unique within its pool."),
        Key::new(
            "address",
            Takes::Form("one address, or an array of one IPv4 and one IPv6 address"),
            Required,
            Reload::Drains,
            "Address of the server.",
        ),
        Key::new(
            "port",
            Takes::number(1, 65_535),
            Unset("the port that the client connected to"),
            Reload::Drains,
            "Port that the server listens on.",
        ),
        Key::new(
            "weight",
            Takes::number(0, 65_535),
            Number(1),
            Reload::NewFlows,
            "Share of new flows relative to the other servers of the pool; a server of weight 0 gets none.",
        ),
        Key::new(
            "max-flows",
            FLOW_COUNT,
            Unset("no limit"),
            Reload::NewFlows,
            "Maximum number of flows at a time; half-open ones and queries do not count.",
        ),
        Key::new(
            "slow-start",
            SLOW_START,
            Unset("that of the pool"),
            Reload::NewFlows,
            "Overrides the `slow-start` of the pool for this server.",
        ),
        Key::new(
            "backup",
            Takes::Flag,
            Flag(false),
            Reload::NewFlows,
            "Whether the server is used only while no other server of the pool can be.",
        ),
        Key::new(
            "priority",
            Takes::number(1, 65_535),
            Number(1),
            Reload::NewFlows,
            "Rank for the algorithm \"priority\"; the lowest is used first.",
        ),
        Key::new(
            "state",
            Takes::Word(&["enabled", "draining", "disabled"]),
            Text("enabled"),
            Reload::Live,
            "Administrative state at the start.",
        ),
    ],
};
