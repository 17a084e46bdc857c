//! The keys of `[gateway]`, `[flows]`, `[timeouts]`, `[fragments]` and `[answers]`.

use super::takes::ABOVE_ZERO;
use super::{DefaultValue, Key, Recommended, Reload, Table, Takes};
use crate::time::Duration;
use DefaultValue::{Flag, Number, Text, Unset};

/// Most flows that a limit can name; the table holds no more.
pub(super) const FLOW_COUNT: Takes = Takes::number(1, 100_000_000);
/// Flows or packets per second.
pub(super) const PER_SECOND: Takes = Takes::number(1, u32::MAX as u64);

/// `[gateway]`.
pub(crate) static GATEWAY: Table = Table {
    name: "gateway",
    header: "[gateway]",
    renamed: &[],
    keys: &[
        // `IFNAMSIZ` less the terminating zero.
        Key::new("device", Takes::bytes(1, 15), Text("equipoise0"), Reload::Restart, "Name of the TUN device."),
        Key::new(
            "offload",
            Takes::Flag,
            Flag(true),
            Reload::Restart,
            "Whether the kernel may pass several segments of a flow as one packet of up to 64 KiB.",
        ),
        Key::new(
            "shortcut",
            Takes::Flag,
            Flag(false),
            Reload::Restart,
            "Whether the kernel carries packets of established TCP flows past the device, by a BPF program, where \
             netfilter does not see them.",
        ),
        Key::new("mtu", Takes::number(1280, 65_535), Number(1500), Reload::Live, "MTU of the device in bytes."),
        Key::new(
            "client-mtu",
            Takes::number(1280, 65_535),
            Unset("unknown, and left to the routers on that path"),
            Reload::Live,
            "Path MTU towards the clients in bytes: longer packets from the servers are fragmented or answered by the \
             gateway itself.",
        ),
        Key::new(
            "addresses",
            Takes::Form("a string or an array"),
            Unset("none"),
            Reload::Live,
            "Addresses assigned to the device, each with its prefix length.",
        ),
        Key::new(
            "probe-address",
            Takes::Form("one address, or an array of one IPv4 and one IPv6 address"),
            Unset("none"),
            Reload::Live,
            "Source address of the monitors' probes.",
        ),
        Key::new(
            "announce",
            Takes::Flag,
            Flag(false),
            Reload::Restart,
            "Whether the kernel answers ARP and neighbour solicitations for service, NAT pool and probe addresses in networks \
             that an interface is connected to.",
        ),
        Key::new(
            "keep-fallback",
            Takes::Flag,
            Flag(false),
            Reload::Restart,
            "Whether packets to these addresses are discarded, not sent along the default route, after the gateway has stopped.",
        ),
        // `PATH_MAX` less the terminating zero, and the suffix of the file that is being written.
        Key::new(
            "state-file",
            Takes::bytes(1, 4090),
            Unset("none, and no flow outlives the gateway"),
            Reload::Restart,
            "Path of the file in which flows, sticky clients and changes of operators outlive a stop and a crash.",
        ),
        Key::new(
            "state-interval",
            Takes::millis(1000, 3_600_000),
            DefaultValue::secs(10),
            Reload::Restart,
            "Time between two states while the gateway runs: a crash loses what came after the last one.",
        ),
        // `sun_path` less the terminating zero (unix(7)).
        Key::new(
            "control-socket",
            Takes::bytes(1, 107),
            Text("/run/equipoise/control.sock"),
            Reload::Restart,
            "Path of the Unix socket for eqctl, created with mode 0600; its directory is created if only that is missing.",
        ),
        Key::new(
            "route-table",
            Takes::number(1, u32::MAX as u64),
            Number(4242),
            Reload::Restart,
            "Number of the routing table that sends the servers' replies to the device.",
        ),
        // Both rules must be read after the table "local" (priority 0) and before "main" (32766).
        Key::new(
            "rule-priority",
            Takes::number(1, 32_764),
            Number(4242),
            Reload::Restart,
            "Priority of the first of the two routing rules that point to that table.",
        ),
    ],
};

/// `[flows]`.
pub(crate) static FLOWS: Table = Table {
    name: "flows",
    header: "[flows]",
    renamed: &[],
    keys: &[
        Key::new(
            "max",
            FLOW_COUNT,
            Number(262_144),
            Reload::Restart,
            "Maximum number of flows at a time, IPv4 and IPv6 together; half-open ones do not count.",
        ),
        Key::new(
            "half-open",
            FLOW_COUNT,
            Number(1_000_000),
            Reload::Restart,
            "Maximum number of half-open TCP flows at a time: SYNs per second times the longest round trip; the oldest give way.",
        ),
        Key::new(
            "rate",
            PER_SECOND,
            Unset("no limit"),
            Reload::Live,
            "Maximum number of new flows per second in total.",
        ),
    ],
};

const fn timeout(name: &'static str, secs: u64, least: u64, source: &'static str, doc: &'static str) -> Key {
    let recommended = Some(Recommended { least: Duration::from_secs(least), source });
    Key { recommended, ..Key::new(name, ABOVE_ZERO, DefaultValue::secs(secs), Reload::NewFlows, doc) }
}

/// The keys of `[timeouts]`.
pub(super) const TIMEOUT_KEYS: [Key; 7] = [
    timeout("tcp-opening", 240, 240, "RFC 5382, REQ-5", "TCP, handshake not complete."),
    timeout("tcp-established", 7440, 7440, "RFC 5382, REQ-5", "TCP, handshake complete."),
    timeout("tcp-closing", 240, 240, "RFC 5382, REQ-5", "TCP, both ends have sent FIN."),
    timeout("tcp-reset", 240, 240, "RFC 7857, section 2.2", "TCP, after a reset."),
    timeout("udp-one-way", 300, 120, "RFC 4787, REQ-5", "UDP, SCTP, GRE and others, only the client has sent."),
    timeout("udp-two-way", 300, 120, "RFC 4787, REQ-5", "UDP, SCTP, GRE and others, both ends have sent."),
    timeout("icmp", 60, 60, "RFC 5508, REQ-2", "ICMP echo."),
];

/// `[timeouts]`.
pub(crate) static TIMEOUTS: Table = Table { name: "timeouts", header: "[timeouts]", renamed: &[], keys: &TIMEOUT_KEYS };

/// `[fragments]`.
pub(crate) static FRAGMENTS: Table = Table {
    name: "fragments",
    header: "[fragments]",
    renamed: &[],
    keys: &[
        // RFC 6146, 4: at least 2 s; RFC 8200, 4.5: a host waits 60 s.
        Key::new(
            "timeout",
            Takes::millis(2000, 60_000),
            DefaultValue::secs(5),
            Reload::Live,
            "How long the fragments of a packet may take to arrive.",
        ),
        Key::new(
            "max-packets",
            Takes::number(1, 1_000_000),
            Number(4096),
            Reload::Live,
            "Maximum number of fragmented packets remembered at a time.",
        ),
        Key::new(
            "max-bytes",
            Takes::number(65_535, 1 << 30),
            Number(4 << 20),
            Reload::Live,
            "Maximum number of bytes of fragments that wait for the first fragment of their packet.",
        ),
    ],
};

/// `[answers]`.
pub(crate) static ANSWERS: Table = Table {
    name: "answers",
    header: "[answers]",
    renamed: &[],
    keys: &[
        Key::new(
            "no-service",
            Takes::Word(&["reject", "drop"]),
            Text("reject"),
            Reload::Live,
            "What happens to a packet to a service address on a port where no service listens.",
        ),
        Key::new(
            "other-protocol",
            Takes::Word(&["unreachable", "drop"]),
            Text("unreachable"),
            Reload::Live,
            "What happens to a packet of a transport protocol that the service address does not offer.",
        ),
        Key::new(
            "no-room",
            Takes::Word(&["prohibited", "host-unreachable", "drop"]),
            Text("prohibited"),
            Reload::Live,
            "What happens to a new flow when the flow table is full or no source port is left.",
        ),
        Key::new(
            "per-second",
            Takes::number(1, 1_000_000),
            Number(1000),
            Reload::Live,
            "Maximum number of resets and ICMP errors per second, and in one burst.",
        ),
    ],
};
