//! The keys of `[sync]`.

use super::service::NAME;
use super::{DefaultValue, Key, Reload, Table, Takes};
use DefaultValue::{Flag, Required, Text, Unset};

const ADDRESS: Takes = Takes::Form("an address with a port");

/// `[sync]`.
pub(crate) static SYNC: Table = Table {
    name: "sync",
    header: "[sync]",
    renamed: &[],
    keys: &[
        Key::new("node", NAME, Required, Reload::Restart, "Name of this gateway in the pair."),
        Key::new("peer", NAME, Required, Reload::Restart, "Name of the other gateway."),
        Key::new("address", ADDRESS, Required, Reload::Restart, "Address and TCP port of this gateway for its peer."),
        Key::new(
            "peer-address",
            ADDRESS,
            Required,
            Reload::Restart,
            "Address and TCP port of the peer: its `address`, of the same family.",
        ),
        Key::new(
            "key-file",
            Takes::bytes(1, 4090),
            Required,
            Reload::Restart,
            "Path of the file with the key of the pair: 16 to 1024 bytes, the same on both, readable by its owner only.",
        ),
        // `IFNAMSIZ` less the terminating zero.
        Key::new(
            "interface",
            Takes::bytes(1, 15),
            Unset("none: the addresses are loopback, or `insecure` is true"),
            Reload::Restart,
            "Name of the tunnel (WireGuard, IPsec, MACsec) that leads to the peer; the connection uses no other interface.",
        ),
        Key::new(
            "insecure",
            Takes::Flag,
            Flag(false),
            Reload::Restart,
            "Whether flows may be sent without encryption over an interface that is not a tunnel.",
        ),
        Key::new(
            "learning",
            Takes::millis(1000, 600_000),
            DefaultValue::secs(30),
            Reload::Restart,
            "How long a gateway that has started waits for the flows of its peer before it may be elected without them.",
        ),
        Key::new(
            "track-file",
            Takes::bytes(1, 4090),
            Unset("none"),
            Reload::Restart,
            "Path of a file for keepalived's `track_file`: 0 while this gateway may be elected, -50 while it should not be, -254 \
             after it has stopped.",
        ),
        Key::new(
            "routes",
            Takes::Word(&["always", "when-active"]),
            Text("always"),
            Reload::Restart,
            "Whether the routes of the service addresses always exist, or only while this gateway is active: for routing \
             daemons that announce them.",
        ),
        Key::new(
            "before-answer",
            Takes::Flag,
            Flag(false),
            Reload::Live,
            "Whether a server's SYN-ACK is held, for at most 20 ms, until the peer knows the connection, so that every connection \
             its client considers established survives this gateway.",
        ),
        Key::new(
            "health",
            Takes::Word(&["own", "active"]),
            Text("own"),
            Reload::Live,
            "Where a standby gets server health from: its own probes, or the active gateway; then it sends none.",
        ),
    ],
};
