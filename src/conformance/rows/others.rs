//! Spoofed packets, other protocols, and what is not of one RFC.

use super::{Row, not, row};

pub(super) const SPOOFING: &[Row] = &[
    row(
        "RFC 5961 3.2",
        "3.2",
        "a reset counts only with the exact sequence number",
        "others are forwarded and end nothing",
        &["a-reset-outside-the-window-does-not-end-a-flow", "a-flow-ends-four-minutes-after-an-exact-reset"],
    ),
    row(
        "RFC 5961 4.2",
        "4.2",
        "a SYN in a live connection is forwarded to its endpoint",
        "changes nothing",
        &["a-syn-on-an-established-flow-does-not-replace-it"],
    ),
    not(
        "RFC 5961 5",
        "5",
        "the acceptable range of acknowledgement numbers",
        "left to the endpoints; the gateway rejects no segment of a flow",
    ),
    row(
        "RFC 5927 4",
        "4",
        "an error counts only if its quote is in flight",
        "icmp-implausible",
        &["errors-that-cannot-be-true-are-dropped-by-name"],
    ),
    row(
        "RFC 8201 4",
        "4",
        "an IPv6 MTU below 1,280 is ignored",
        "icmp-bad-mtu",
        &["errors-that-cannot-be-true-are-dropped-by-name"],
    ),
    row(
        "RFC 6633",
        "3",
        "source quench is ignored",
        "icmp-obsolete",
        &["errors-that-cannot-be-true-are-dropped-by-name"],
    ),
    row("RFC 1858", "3, 4", "tiny fragments", "fragment-tiny", &["tiny-fragments-are-dropped"]),
    row("RFC 3128", "2", "a fragment that overwrites the TCP header", "fragment-tiny", &["tiny-fragments-are-dropped"]),
    row(
        "RFC 5722",
        "4",
        "overlapping fragments",
        "the packet is discarded",
        &["overlapping-fragments-spoil-their-packet"],
    ),
    row(
        "RFC 1122 3.2.1.3",
        "3.2.1.3",
        "invalid source addresses",
        "bad-source",
        &["a-source-that-cannot-be-answered-opens-no-flow"],
    ),
    not("RFC 2827", "-", "ingress filtering", "the kernel's reverse path filter does it before the device (rp_filter)"),
    not(
        "RFC 7690",
        "-",
        "packet-too-big reaches the right member of an ECMP group",
        "one gateway holds all flows of its addresses",
    ),
];

pub(super) const OTHERS: &[Row] = &[
    row(
        "GRE, ESP",
        "RFC 2784; RFC 4303",
        "protocols without ports are balanced by addresses alone",
        "per service",
        &["gre-and-esp-go-by-addresses-alone"],
    ),
    row(
        "SCTP",
        "RFC 9260 6.8",
        "balanced by ports, with a correct CRC32c",
        "per service",
        &["sctp-goes-by-its-ports-and-its-sum-stays-right"],
    ),
    row(
        "Unknown protocols",
        "RFC 792; RFC 4443 3.4",
        "protocol unreachable",
        "reported, or dropped if configured",
        &["gre-and-esp-go-by-addresses-alone", "what-a-service-address-does-not-offer-is-dropped-by-name"],
    ),
    row(
        "RFC 792 port",
        "type 3 code 3",
        "a port on which nothing listens",
        "reported, or dropped if configured",
        &["what-a-service-address-does-not-offer-is-dropped-by-name"],
    ),
    row(
        "Service off",
        "RFC 9293 3.10.7.1; RFC 1122 4.1.3.1",
        "a service that is off is as a port on which nothing listens",
        "reported, or dropped if configured",
        &["a-service-that-is-off-is-answered-as-if-nothing-listened"],
    ),
    not(
        "RFC 9000 9",
        "9",
        "QUIC connection migration",
        "connection IDs are not read; a flow is identified by addresses and ports (RFC 9312, 4.2)",
    ),
    not("RFC 8158", "-", "IPFIX records of NAT events", "flows are reported by the control socket and the log"),
    not("RFC 9568", "-", "VRRP", "redundant gateways are not built yet"),
    row(
        "Half-close",
        "RFC 9293 3.6",
        "one FIN leaves the other direction open",
        "as long as established",
        &["a-half-closed-connection-still-carries-data"],
    ),
    not(
        "Reload",
        "-",
        "a configuration reload does not change live flows",
        "a replay has one configuration; the reference model reloads, and so do tests with real programs",
    ),
];
