//! The keys of `[dns]`.

use super::{DefaultValue, Key, Reload, Table, Takes};
use DefaultValue::Unset;

/// `[dns]`.
pub(crate) static DNS: Table = Table {
    name: "dns",
    header: "[dns]",
    renamed: &[],
    keys: &[
        Key::new(
            "servers",
            Takes::Form("up to 8 addresses, each with or without a port"),
            Unset("those of /etc/resolv.conf, as read at the start"),
            Reload::Live,
            "Resolvers that are queried, in order, for the names under `servers-dns`.",
        ),
        Key::new(
            "min-ttl",
            Takes::millis(1000, 60_000),
            DefaultValue::secs(5),
            Reload::Live,
            "Shortest time for which an answer is used, even if its time to live is shorter.",
        ),
        Key::new(
            "max-ttl",
            Takes::millis(60_000, 86_400_000),
            DefaultValue::secs(300),
            Reload::Live,
            "Longest time for which an answer is used, even if its time to live is longer.",
        ),
    ],
};
