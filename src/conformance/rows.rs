//! The checklist: what a correct NAT does, the RFC that requires it, and the cases that prove it here.
//!
//! Plain data. It must not know how cases are run.

/// Where a requirement comes from and what proves it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Row {
    /// Its name, unique: `RFC 4787 REQ-5`.
    pub id: &'static str,
    /// The section that requires it.
    pub section: &'static str,
    /// The requirement.
    pub requirement: &'static str,
    /// The value, or the behaviour chosen where the RFC leaves it open.
    pub value: &'static str,
    /// What proves it.
    pub proof: Proof,
}

/// What proves a requirement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Proof {
    /// Replays whose outcome is known octet by octet; all of them must match.
    Cases(&'static [&'static str]),
    /// Why it does not apply.
    NotApplicable(&'static str),
}

const fn row(
    id: &'static str,
    section: &'static str,
    requirement: &'static str,
    value: &'static str,
    cases: &'static [&'static str],
) -> Row {
    Row { id, section, requirement, value, proof: Proof::Cases(cases) }
}

const fn not(id: &'static str, section: &'static str, requirement: &'static str, reason: &'static str) -> Row {
    Row { id, section, requirement, value: "-", proof: Proof::NotApplicable(reason) }
}

/// Why mappings are per flow.
const PER_FLOW: &str = "a mapping belongs to one flow between a client and a service address; no third party learns it, and none may use it";

/// Every requirement, in the order of the checklist.
pub const ROWS: &[&[Row]] = &[UDP, TCP, ICMP, LARGE, FAMILIES, SUMS, FIELDS, SPOOFING, OTHERS];

const UDP: &[Row] = &[
    not("RFC 4787 REQ-1", "4.1", "endpoint-independent mapping", PER_FLOW),
    row(
        "RFC 4787 REQ-2",
        "4.1",
        "a client's flows share one source address (paired)",
        "paired, or arbitrary if configured",
        &["a-client-has-one-source-address"],
    ),
    row(
        "RFC 4787 REQ-3",
        "4.2.1",
        "no source port is assigned to two flows",
        "each once per server, then the flow is refused",
        &["full-nat-gives-each-flow-a-port-of-its-own"],
    ),
    row(
        "RFC 4787 REQ-3a",
        "4.2.1",
        "ports below 1024 stay below 1024",
        "with keep-range",
        &["a-source-port-keeps-parity-and-range-where-that-is-asked-for"],
    ),
    row(
        "RFC 4787 REQ-4",
        "4.2.2",
        "an even port stays even, an odd one odd",
        "with keep-parity",
        &["a-source-port-keeps-parity-and-range-where-that-is-asked-for"],
    ),
    row(
        "RFC 4787 REQ-5",
        "4.3",
        "a UDP flow lives at least 2 min without a packet",
        "5 min",
        &["an-idle-udp-flow-expires-after-five-minutes-and-the-next-datagram-is-a-new-flow"],
    ),
    row(
        "RFC 4787 REQ-5a",
        "4.3",
        "a shorter time for ports 0 to 1023",
        "configurable per service port",
        &["a-port-has-timeouts-of-its-own"],
    ),
    row(
        "RFC 4787 REQ-5b",
        "4.3",
        "the timer is configurable",
        "per gateway, service and port",
        &["a-service-has-timeouts-of-its-own", "a-port-has-timeouts-of-its-own"],
    ),
    row(
        "RFC 4787 REQ-5c",
        "4.3",
        "the default is 5 min or more",
        "5 min",
        &["an-idle-udp-flow-expires-after-five-minutes-and-the-next-datagram-is-a-new-flow"],
    ),
    row(
        "RFC 4787 REQ-6",
        "4.3",
        "outbound packets refresh; inbound ones may",
        "either refreshes",
        &["either-side-keeps-a-udp-flow-alive"],
    ),
    not(
        "RFC 4787 REQ-7",
        "4.4",
        "no conflicting internal and external address spaces",
        "the gateway assigns no addresses; a configuration that uses one twice is rejected",
    ),
    row(
        "RFC 4787 REQ-8",
        "5",
        "filtering is fixed and documented",
        "a server's packet without a flow is not translated",
        &["a-stray-from-a-servers-service-port-is-dropped", "what-comes-to-a-source-address-of-no-flow-goes-nowhere"],
    ),
    row("RFC 4787 REQ-9", "6", "hairpinning", "with full NAT", &["a-server-reaches-its-own-service"]),
    row(
        "RFC 4787 REQ-9a",
        "6",
        "a hairpinned packet has the external source address",
        "an address of the NAT pool",
        &["a-server-reaches-its-own-service"],
    ),
    not("RFC 4787 REQ-10", "7", "application-level gateways off by default", "there are none"),
    row(
        "RFC 4787 REQ-11",
        "8",
        "deterministic behaviour",
        "two replays of a case are identical to the octet",
        &["a-connection-opens-carries-data-and-closes", "udp-goes-both-ways"],
    ),
    row(
        "RFC 4787 REQ-12",
        "9",
        "an ICMP message does not end a mapping",
        "errors neither end nor refresh",
        &["an-error-neither-refreshes-nor-ends-a-flow"],
    ),
    row(
        "RFC 4787 REQ-12a",
        "9",
        "ICMP is not filtered by its source",
        "errors from any router are accepted",
        &["packet-too-big-from-behind-reaches-the-client", "packet-too-big-from-the-clients-side-reaches-the-server"],
    ),
    row(
        "RFC 4787 REQ-12b",
        "9",
        "destination unreachable is supported",
        "translated both ways",
        &["packet-too-big-from-the-clients-side-reaches-the-server"],
    ),
    row(
        "RFC 4787 REQ-13",
        "10",
        "DF set and too big: fragmentation needed, with the MTU",
        "the path MTU",
        &["what-is-too-big-is-answered-with-the-mtu-of-the-way"],
    ),
    row(
        "RFC 4787 REQ-13a",
        "10",
        "DF clear and too big: fragments, in order",
        "fragments",
        &["what-may-be-fragmented-goes-on-in-pieces"],
    ),
    row(
        "RFC 4787 REQ-14",
        "11",
        "fragments in and out of order",
        "any order",
        &["fragments-follow-their-first-one-in-any-order"],
    ),
    row(
        "RFC 4787 REQ-14a",
        "11",
        "a flood of fragments does not affect unfragmented packets",
        "bounded buffers, a share per source",
        &["a-flood-of-fragments-hurts-no-whole-packet"],
    ),
];

const TCP: &[Row] = &[
    not("RFC 5382 REQ-1", "4.1", "endpoint-independent mapping", PER_FLOW),
    row(
        "RFC 5382 REQ-2",
        "4.2",
        "all valid sequences of TCP packets",
        "three-way, half-close, data on a SYN",
        &[
            "a-connection-opens-carries-data-and-closes",
            "a-half-closed-connection-still-carries-data",
            "tcp-options-urgent-data-and-data-on-a-syn-pass",
        ],
    ),
    row("RFC 5382 REQ-2a", "4.2", "simultaneous open", "established", &["a-simultaneous-open-establishes"]),
    row(
        "RFC 5382 REQ-3",
        "4.3",
        "filtering is fixed and documented",
        "a server's segment without a flow is not translated",
        &["a-stray-from-a-servers-service-port-is-dropped"],
    ),
    not(
        "RFC 5382 REQ-4",
        "4.3",
        "an unsolicited SYN is not answered for 6 s",
        "it protects a simultaneous open by a client behind the NAT; here connections are opened only from outside, to services",
    ),
    row(
        "RFC 5382 REQ-5",
        "5",
        "an established connection lives at least 2 h 4 min",
        "2 h 4 min",
        &["an-established-flow-lives-two-hours-and-four-minutes"],
    ),
    row(
        "RFC 5382 REQ-5 transitory",
        "5",
        "opening and closing ones live at least 4 min",
        "4 min each, separate timers",
        &["a-half-open-flow-expires-after-four-minutes", "a-closed-flow-is-kept-four-minutes"],
    ),
    row(
        "RFC 5382 REQ-5a",
        "5",
        "the timers are configurable",
        "per gateway, service and port",
        &["a-service-has-timeouts-of-its-own"],
    ),
    not("RFC 5382 REQ-6", "6", "application-level gateways", "there are none"),
    row(
        "RFC 5382 REQ-7",
        "7.1",
        "no source port is assigned to two flows",
        "each once per server, then the flow is refused",
        &["full-nat-gives-each-flow-a-port-of-its-own"],
    ),
    row("RFC 5382 REQ-8", "7.2", "hairpinning", "with full NAT", &["a-server-reaches-its-own-service"]),
    row(
        "RFC 5382 REQ-9",
        "7.3",
        "ICMP destination unreachable is translated",
        "both ways",
        &["packet-too-big-from-behind-reaches-the-client", "packet-too-big-from-the-clients-side-reaches-the-server"],
    ),
    row(
        "RFC 5382 REQ-10",
        "7.3",
        "no ICMP message ends a mapping",
        "not even a hard error",
        &["an-error-neither-refreshes-nor-ends-a-flow"],
    ),
    row(
        "RFC 7857 2.1",
        "2.1",
        "separate timers for opening and closing connections",
        "4 min each",
        &["a-half-open-flow-expires-after-four-minutes", "a-closed-flow-is-kept-four-minutes"],
    ),
    row(
        "RFC 7857 2.2",
        "2.2",
        "after a reset a session is kept 4 min",
        "4 min",
        &["a-flow-ends-four-minutes-after-an-exact-reset"],
    ),
    row(
        "RFC 7857 2.2 data",
        "2.2",
        "traffic after a reset revives the session",
        "established again",
        &["data-after-an-exact-reset-revives-the-flow"],
    ),
    row(
        "RFC 7857 3",
        "3",
        "one external port for several destinations",
        "64,512 flows per protocol, address and server",
        &["two-servers-share-a-source-port", "a-resting-port-serves-another-server"],
    ),
    row(
        "RFC 7857 7.1",
        "7.1",
        "a response to an error does not refresh the session",
        "errors and resets do not refresh",
        &["an-error-neither-refreshes-nor-ends-a-flow", "a-repeated-reset-does-not-prolong-a-flow"],
    ),
    row(
        "RFC 7857 8",
        "8",
        "port parity is optional",
        "off by default",
        &["full-nat-gives-each-flow-a-port-of-its-own"],
    ),
    row(
        "RFC 7857 9",
        "9",
        "source ports are drawn at random (RFC 6056)",
        "seeded random over the whole range",
        &["a-client-has-one-source-address"],
    ),
    row(
        "RFC 7857 10",
        "10",
        "the identification follows RFC 6864, 5.3.1",
        "kept; changed for fragments that could otherwise be mixed up",
        &[
            "all-fields-that-are-not-translated-stay",
            "what-may-be-fragmented-goes-on-in-pieces",
            "fragments-of-different-ends-never-become-one-packet",
        ],
    ),
    row(
        "RFC 9293 3.5",
        "3.5",
        "established only by the client's ACK of the server's sequence number",
        "stays half open",
        &["syn-and-syn-ack-repeated-never-establish"],
    ),
    row(
        "RFC 9293 3.6.1",
        "3.6.1",
        "a SYN on a closing connection's ports opens a new one",
        "a new flow",
        &["a-syn-on-a-closing-flow-opens-a-new-flow", "a-syn-after-a-believed-reset-opens-a-new-flow"],
    ),
    row(
        "RFC 9293 3.8.1",
        "3.8.1",
        "a retransmitted SYN belongs to the same connection",
        "one flow",
        &["a-retransmitted-syn-is-not-a-new-flow", "a-syn-of-other-numbers-on-a-half-open-flow-stays-with-its-server"],
    ),
    row(
        "RFC 9293 3.10.7.1",
        "3.10.7.1",
        "a segment of no connection is reset with its own numbers",
        "reset, drop or adopt per service",
        &[
            "a-segment-of-no-flow-is-reset",
            "a-reset-of-no-flow-is-not-answered",
            "a-segment-of-no-flow-is-dropped-where-the-service-says-so",
            "a-segment-of-no-flow-is-adopted-where-the-service-says-so",
        ],
    ),
    row("RFC 9293 3.4", "3.4", "sequence numbers wrap", "modulo 2^32", &["sequence-numbers-wrap"]),
];

const ICMP: &[Row] = &[
    row(
        "RFC 5508 REQ-1",
        "3.1",
        "echo is permitted",
        "answered, or sent to a server, per service",
        &[
            "an-echo-request-to-a-service-address-is-answered",
            "an-echo-request-to-a-service-that-listens-goes-to-a-server",
        ],
    ),
    not("RFC 5508 REQ-1a", "3.1", "the identifier's mapping is endpoint-independent", PER_FLOW),
    row(
        "RFC 5508 REQ-2",
        "3.2",
        "an echo session lives at least 60 s",
        "60 s, configurable",
        &["an-echo-request-to-a-service-that-listens-goes-to-a-server"],
    ),
    row(
        "RFC 5508 REQ-3",
        "4",
        "a wrong ICMP checksum is dropped silently",
        "bad-icmp-checksum",
        &["errors-that-cannot-be-true-are-dropped-by-name", "an-echo-request-with-a-wrong-sum-is-dropped"],
    ),
    row(
        "RFC 5508 REQ-3a",
        "4",
        "a wrong checksum of the quoted IP header is dropped",
        "bad-quote",
        &["errors-that-cannot-be-true-are-dropped-by-name"],
    ),
    row(
        "RFC 5508 REQ-3b",
        "4",
        "IP options of the quote are skipped",
        "20 to 60 bytes",
        &["an-error-is-translated-however-its-quote-is-written"],
    ),
    row(
        "RFC 5508 REQ-3c",
        "4",
        "the quoted transport's checksum is not verified",
        "quotes may be truncated",
        &["an-error-is-translated-however-its-quote-is-written"],
    ),
    row(
        "RFC 5508 REQ-3d",
        "4",
        "extensions after the quote are left unchanged",
        "RFC 4884",
        &["an-error-is-translated-however-its-quote-is-written"],
    ),
    row(
        "RFC 5508 REQ-4",
        "4.2.1",
        "an error from outside is translated for its flow, or dropped",
        "both headers",
        &["packet-too-big-from-the-clients-side-reaches-the-server", "errors-that-cannot-be-true-are-dropped-by-name"],
    ),
    row(
        "RFC 5508 REQ-5",
        "4.2.2",
        "likewise an error from inside, with the NAT's own source address",
        "the service address",
        &["packet-too-big-from-behind-reaches-the-client"],
    ),
    row(
        "RFC 5508 REQ-6",
        "4.3",
        "an error neither refreshes nor ends a session",
        "neither",
        &["an-error-neither-refreshes-nor-ends-a-flow"],
    ),
    row(
        "RFC 5508 REQ-7",
        "5",
        "hairpinned errors",
        "translated back to the requester",
        &["an-error-about-a-hairpinned-flow-reaches-who-asked"],
    ),
    row(
        "RFC 5508 REQ-7a",
        "5",
        "their source is the NAT's own address",
        "the one that the other end knows",
        &["an-error-about-a-hairpinned-flow-reaches-who-asked"],
    ),
    row(
        "RFC 5508 REQ-8",
        "6",
        "no resources for a session: administratively prohibited",
        "3/13 by default",
        &[
            "who-finds-no-port-is-told-that-it-is-prohibited",
            "a-full-table-refuses-what-is-new-and-keeps-what-is-established",
        ],
    ),
    row("RFC 5508 REQ-9", "7", "policy may suppress the NAT's own errors", "[answers]", &["answers-are-limited"]),
    row(
        "RFC 5508 REQ-10",
        "7",
        "the messages that must be supported",
        "unreachable, too big, time exceeded, echo",
        &[
            "packet-too-big-from-behind-reaches-the-client",
            "an-error-is-translated-however-its-quote-is-written",
            "an-echo-request-to-a-service-address-is-answered",
        ],
    ),
    row(
        "RFC 5508 REQ-11",
        "7",
        "other ICMP messages at the NAT's discretion",
        "dropped by name",
        &["errors-that-cannot-be-true-are-dropped-by-name"],
    ),
];

const LARGE: &[Row] = &[
    row(
        "RFC 6888 REQ-4",
        "3",
        "a limit on ports per subscriber",
        "rules limit flows per client",
        &["rules-decide-first-match-first-and-can-be-switched-off"],
    ),
    row(
        "RFC 6888 REQ-5",
        "3",
        "a limit on memory per subscriber",
        "rules limit flows and new flows per second",
        &["rules-decide-first-match-first-and-can-be-switched-off"],
    ),
    not("RFC 6888 REQ-6", "3", "some destinations are not translated", "only service addresses are"),
    row(
        "RFC 6888 REQ-8",
        "4",
        "a freed port is not reused for 120 s",
        "120 s towards the same server",
        &["a-freed-port-rests-for-two-minutes", "a-resting-port-serves-another-server"],
    ),
    row(
        "RFC 6888 REQ-8 A",
        "4",
        "ports of tracked TCP sessions may be reused at once",
        "those of handshakes that were never completed",
        &["half-open-flows-have-at-most-half-of-the-ports"],
    ),
    row(
        "RFC 6888 REQ-11",
        "3",
        "out of resources: drop and report; existing mappings stay",
        "3/1 if configured; 3/13 by default",
        &[
            "who-finds-no-port-is-told-that-the-host-is-unreachable",
            "a-full-table-refuses-what-is-new-and-keeps-what-is-established",
        ],
    ),
    not("RFC 6888 REQ-12", "4", "destinations are not logged by default", "flows are logged only with -v"),
    row(
        "RFC 6888 REQ-13",
        "5",
        "every port can be used",
        "down to the last",
        &["full-nat-gives-each-flow-a-port-of-its-own"],
    ),
    row(
        "RFC 4987 3.1",
        "3.1",
        "spoofed SYNs do not exhaust what connections need",
        "half of the ports per server; the oldest SYN gives way",
        &["half-open-flows-have-at-most-half-of-the-ports"],
    ),
    row("RFC 6888 REQ-15", "5", "ports are hard to guess", "seeded random", &["a-client-has-one-source-address"]),
];

const FAMILIES: &[Row] = &[
    row(
        "RFC 6146 3.5",
        "3.5",
        "stateful translation: TCP, UDP, echo",
        "IPv6 clients, IPv4 servers",
        &["ipv6-clients-reach-ipv4-servers"],
    ),
    row("RFC 6146 4", "4", "fragments are kept at least 2 s", "5 s", &["fragments-have-five-seconds"]),
    row(
        "RFC 7915 4.1",
        "4.1",
        "an IPv4 header becomes an IPv6 one",
        "TOS and TTL copied, flow label 0, options dropped",
        &["ipv4-clients-reach-ipv6-servers"],
    ),
    row(
        "RFC 7915 4.1 DF",
        "4.1",
        "DF clear and larger than the path MTU: fragmented",
        "to the known MTU, else 1,280",
        &["ipv6-clients-reach-ipv4-servers", "ipv4-clients-reach-ipv6-servers"],
    ),
    row(
        "RFC 7915 4.2",
        "4.2",
        "ICMPv4 becomes ICMPv6, errors with their quotes",
        "by the tables, MTU + 20",
        &["ipv6-clients-reach-ipv4-servers", "ipv4-clients-reach-ipv6-servers"],
    ),
    row(
        "RFC 7915 4.5",
        "4.5",
        "a missing UDP checksum is computed",
        "computed",
        &["ipv4-clients-reach-ipv6-servers", "ipv6-clients-reach-ipv4-servers"],
    ),
    row(
        "RFC 7915 4.1 route",
        "4.1",
        "a source route with addresses left is not translated",
        "reported, type 3 code 5",
        &["ipv4-clients-reach-ipv6-servers"],
    ),
    row(
        "RFC 5095",
        "3; RFC 8200 4.4",
        "a service address forwards nothing to the next address of a source route",
        "reported, type 4 code 0, or dropped if configured",
        &["ipv6-extension-headers-are-kept", "ipv6-clients-reach-ipv4-servers"],
    ),
    row(
        "RFC 7915 5.1",
        "5.1",
        "an IPv6 header becomes an IPv4 one",
        "DF by length, random identification",
        &["ipv6-clients-reach-ipv4-servers"],
    ),
    row(
        "RFC 7915 5.2",
        "5.2",
        "ICMPv6 becomes ICMPv4, errors with their quotes",
        "by the tables, MTU - 20",
        &["ipv6-clients-reach-ipv4-servers", "ipv4-clients-reach-ipv6-servers"],
    ),
    not(
        "RFC 6052 2",
        "2",
        "IPv6 addresses with embedded IPv4 addresses",
        "a service has its own addresses; no prefix is translated",
    ),
    row(
        "RFC 7915 4.2 MTU",
        "4.2; 5.2",
        "MTUs reported across the families differ by 20",
        "20",
        &["ipv4-clients-reach-ipv6-servers"],
    ),
    row(
        "RFC 7915 4.4",
        "4.4; 5.4",
        "the sender of an untranslatable packet is informed",
        "prohibited: 3/13, 1/1; or dropped if configured",
        &["ipv6-clients-reach-ipv4-servers", "ipv4-clients-reach-ipv6-servers"],
    ),
];

const SUMS: &[Row] = &[
    row(
        "RFC 1624 3",
        "3",
        "checksums are patched by equation 3",
        "wrong stays wrong, correct stays correct",
        &["a-wrong-checksum-stays-wrong-for-its-receiver-to-find", "a-udp-checksum-of-all-ones-is-one"],
    ),
    row(
        "RFC 768 zero",
        "-",
        "a UDP checksum of zero means none",
        "stays zero",
        &["an-absent-udp-checksum-stays-absent"],
    ),
    row(
        "RFC 768 ones",
        "-",
        "a computed zero is sent as all ones",
        "0xffff",
        &["a-udp-checksum-that-becomes-zero-leaves-as-all-ones"],
    ),
    row(
        "Partial checksums",
        "virtio 5.1.6",
        "a partial checksum stays partial",
        "only the addresses are patched in",
        &["a-partial-checksum-stays-partial"],
    ),
    row(
        "RFC 3022 4",
        "4.1 to 4.3",
        "addresses, ports and checksums are translated, in ICMP errors too",
        "both headers",
        &["udp-goes-both-ways", "packet-too-big-from-behind-reaches-the-client"],
    ),
    row(
        "RFC 1122 3.2.2",
        "3.2.2",
        "no error about errors, later fragments, or to no single sender",
        "none",
        &["no-error-is-sent-about-an-error-or-to-nobody"],
    ),
    row(
        "RFC 1812 4.3.2.8",
        "4.3.2.8",
        "ICMP errors are rate-limited",
        "1,000 per second, configurable",
        &["answers-are-limited"],
    ),
];

const FIELDS: &[Row] = &[
    row(
        "IP identification",
        "RFC 6864 5.3.1",
        "the identification is kept",
        "kept",
        &["all-fields-that-are-not-translated-stay"],
    ),
    row(
        "TOS, traffic class",
        "RFC 2474; RFC 3168",
        "DSCP and ECN are kept",
        "kept",
        &["all-fields-that-are-not-translated-stay"],
    ),
    row("Flow label", "RFC 6437 3", "the flow label is kept", "kept", &["all-fields-that-are-not-translated-stay"]),
    row(
        "TTL, hop limit",
        "RFC 1812 5.3.1",
        "decremented once per hop",
        "by the kernel, before the device and after it",
        &["ttl-and-hop-limit-are-left-to-the-kernel"],
    ),
    row(
        "TTL, hop limit over",
        "RFC 1812 5.3.1; RFC 4443 3.3",
        "time exceeded",
        "sent from the service address",
        &["the-last-hop-is-answered-in-the-services-name"],
    ),
    row("IP options", "RFC 791 3.1", "options are kept", "kept", &["ipv4-options-are-kept"]),
    row("Extension headers", "RFC 8200 4", "extension headers are kept", "kept", &["ipv6-extension-headers-are-kept"]),
    row(
        "Jumbo lengths",
        "RFC 2675",
        "jumbograms are not forwarded",
        "dropped, bad-total-length",
        &["a-broken-ipv6-header-is-dropped"],
    ),
    row("Padding", "RFC 894", "padding is not forwarded", "removed", &["padding-behind-a-packet-is-not-sent-on"]),
    row(
        "MSS clamping",
        "RFC 9293 3.7.1",
        "the segment size fits the path MTU, if configured",
        "off by default",
        &["the-segment-size-of-a-syn-is-lowered-where-the-service-asks"],
    ),
];

const SPOOFING: &[Row] = &[
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

const OTHERS: &[Row] = &[
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
    row(
        "Table full",
        "RFC 6888 REQ-11",
        "established flows are unaffected",
        "new ones are refused, and the sender is informed",
        &[
            "a-full-table-refuses-what-is-new-and-keeps-what-is-established",
            "a-full-table-gives-up-the-oldest-half-open-flow-first",
        ],
    ),
    not("Reload", "-", "a configuration reload does not change live flows", "a running gateway cannot reload yet"),
];
