//! The keys of `[[nat-pool]]`.

use super::service::NAME;
use super::{DefaultValue, Key, Reload, Table, Takes};
use DefaultValue::{Flag, Required, Text};

/// `[[nat-pool]]`.
pub(crate) static NAT_POOL: Table = Table {
    name: "nat-pool",
    header: "[[nat-pool]]",
    renamed: &[],
    keys: &[
        Key::new("name", NAME, Required, Reload::Identity, "Name of the NAT pool, unique among NAT pools."),
        // Each address has room for 64,512 flows of a protocol to each server endpoint.
        Key::new(
            "addresses",
            Takes::List { most: 4096, of: "addresses" },
            Required,
            Reload::Drains,
            "The source addresses: single ones, networks and ranges.",
        ),
        Key::new(
            "ports",
            Takes::Form("\"FIRST-LAST\", 1 to 65535"),
            Text("1024-65535"),
            Reload::Drains,
            "The source ports that flows get.",
        ),
        Key::new(
            "hold",
            Takes::millis(0, 3_600_000),
            DefaultValue::secs(120),
            Reload::Live,
            "How long a freed port rests before its next use towards the same server (RFC 6888, REQ-8: 2m).",
        ),
        Key::new(
            "keep-parity",
            Takes::Flag,
            Flag(false),
            Reload::NewFlows,
            "Whether even client ports are translated to even ports, and odd ones to odd ports (RFC 4787, REQ-4).",
        ),
        Key::new(
            "keep-range",
            Takes::Flag,
            Flag(false),
            Reload::NewFlows,
            "Whether client ports below 1024 are translated to ports below 1024 (RFC 4787, REQ-3a).",
        ),
        Key::new(
            "pooling",
            Takes::Word(&["paired", "arbitrary"]),
            Text("paired"),
            Reload::NewFlows,
            "Whether all flows of a client get the same source address (RFC 4787, REQ-2).",
        ),
    ],
};
