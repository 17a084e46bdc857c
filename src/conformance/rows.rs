//! The checklist: what a correct NAT does, by the RFC that says so, and the case that proves it here.
//!
//! Plain data. It must not know how cases are run.

/// Where a requirement comes from and what proves it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Row {
    /// Its name, unique: `RFC 4787 REQ-5`.
    pub id: &'static str,
    /// Which section says so.
    pub section: &'static str,
    /// The requirement.
    pub requirement: &'static str,
    /// The value, or the behaviour that is chosen where the RFC leaves it open.
    pub value: &'static str,
    /// What proves it.
    pub proof: Proof,
}

/// What proves a requirement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Proof {
    /// Replays whose outcome is known octet by octet; every one must come out so.
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
const PER_FLOW: &str =
    "a mapping is of one flow between a client and a service address; no third party learns it, and none may use it";

/// Every requirement, in the order of the checklist.
pub const ROWS: &[&[Row]] = &[UDP, TCP, ICMP, LARGE, FAMILIES, SUMS, FIELDS, SPOOFING, OTHERS];

const UDP: &[Row] = &[
    not("RFC 4787 REQ-1", "4.1", "endpoint-independent mapping", PER_FLOW),
    row(
        "RFC 4787 REQ-2",
        "4.1",
        "a client's flows have one source address (paired)",
        "paired, or arbitrary by setting",
        &["a-client-has-one-source-address"],
    ),
    row(
        "RFC 4787 REQ-3",
        "4.2.1",
        "no source port is given to two flows",
        "each once, then refused",
        &["full-nat-gives-each-flow-a-port-of-its-own"],
    ),
    row(
        "RFC 4787 REQ-3a",
        "4.2.1",
        "ports under 1024 stay under 1024",
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
        "settable by service port",
        &["a-port-has-timeouts-of-its-own"],
    ),
    row(
        "RFC 4787 REQ-5b",
        "4.3",
        "the timer is configurable",
        "by gateway, service and port",
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
        "packets of the inside refresh; those of the outside may",
        "either refreshes",
        &["either-side-keeps-a-udp-flow-alive"],
    ),
    not(
        "RFC 4787 REQ-7",
        "4.4",
        "no conflicting internal and external address spaces",
        "the gateway assigns no addresses; the configuration refuses one that is used twice",
    ),
    row(
        "RFC 4787 REQ-8",
        "5",
        "filtering is fixed and documented",
        "a server's packet of no flow is not translated",
        &["a-stray-from-a-servers-service-port-is-dropped", "what-comes-to-a-source-address-of-no-flow-goes-nowhere"],
    ),
    row("RFC 4787 REQ-9", "6", "hairpinning", "with full NAT", &["a-server-reaches-its-own-service"]),
    row(
        "RFC 4787 REQ-9a",
        "6",
        "a hairpinned packet has the external source",
        "an address of the NAT pool",
        &["a-server-reaches-its-own-service"],
    ),
    not("RFC 4787 REQ-10", "7", "application gateways off by default", "there are none"),
    row(
        "RFC 4787 REQ-11",
        "8",
        "deterministic behaviour",
        "two replays of every case are the same octets",
        &["a-connection-opens-carries-data-and-closes", "udp-goes-both-ways"],
    ),
    row(
        "RFC 4787 REQ-12",
        "9",
        "an ICMP message ends no mapping",
        "errors neither end nor refresh",
        &["an-error-neither-refreshes-nor-ends-a-flow"],
    ),
    row(
        "RFC 4787 REQ-12a",
        "9",
        "ICMP is not filtered by its source",
        "any router may tell",
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
        "DF set and too big: fragmentation needed with the MTU",
        "the MTU of the way",
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
        "a flood of fragments hurts no whole packet",
        "bounded store, a part for each source",
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
        "a server's segment of no flow is not translated",
        &["a-stray-from-a-servers-service-port-is-dropped"],
    ),
    not(
        "RFC 5382 REQ-4",
        "4.3",
        "an unsolicited SYN is not answered for 6 s",
        "it protects a simultaneous open of an inside client through a NAT; here connections open from outside, to services alone",
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
        "opening and closing ones at least 4 min",
        "4 min each, apart",
        &["a-half-open-flow-expires-after-four-minutes", "a-closed-flow-is-kept-four-minutes"],
    ),
    row(
        "RFC 5382 REQ-5a",
        "5",
        "the timers are configurable",
        "by gateway, service and port",
        &["a-service-has-timeouts-of-its-own"],
    ),
    not("RFC 5382 REQ-6", "6", "application gateways", "there are none"),
    row(
        "RFC 5382 REQ-7",
        "7.1",
        "no source port is given to two flows",
        "each once, then refused",
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
        "timers of opening and closing connections apart",
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
    not(
        "RFC 7857 3",
        "3",
        "one external port for several destinations",
        "ports are not shared; 64,512 flows a protocol and address",
    ),
    row(
        "RFC 7857 7.1",
        "7.1",
        "what is sent in response to an error refreshes nothing",
        "errors and resets do not refresh",
        &["an-error-neither-refreshes-nor-ends-a-flow", "a-repeated-reset-does-not-prolong-a-flow"],
    ),
    row(
        "RFC 7857 8",
        "8",
        "port parity may be left out",
        "off by default",
        &["full-nat-gives-each-flow-a-port-of-its-own"],
    ),
    row(
        "RFC 7857 9",
        "9",
        "source ports are drawn at random (RFC 6056)",
        "by seeded chance over the whole range",
        &["a-client-has-one-source-address"],
    ),
    row(
        "RFC 7857 10",
        "10",
        "the identification follows RFC 6864, 5.3.1",
        "kept; of fragments changed where two would mix",
        &[
            "all-fields-that-are-not-translated-stay",
            "what-may-be-fragmented-goes-on-in-pieces",
            "fragments-of-different-ends-never-become-one-packet",
        ],
    ),
    row(
        "RFC 9293 3.5",
        "3.5",
        "no way to established but the client's ACK of the server's number",
        "stays half open",
        &["syn-and-syn-ack-repeated-never-establish"],
    ),
    row(
        "RFC 9293 3.6.1",
        "3.6.1",
        "a SYN of a closing connection's ports opens a new one",
        "a new flow",
        &["a-syn-on-a-closing-flow-opens-a-new-flow", "a-syn-after-a-believed-reset-opens-a-new-flow"],
    ),
    row(
        "RFC 9293 3.8.1",
        "3.8.1",
        "a retransmitted SYN is the same connection",
        "one flow",
        &["a-retransmitted-syn-is-not-a-new-flow", "a-syn-of-other-numbers-on-a-half-open-flow-stays-with-its-server"],
    ),
    row(
        "RFC 9293 3.10.7.1",
        "3.10.7.1",
        "a segment of no connection is reset with its own numbers",
        "reset, drop or adopt by service",
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
        "answered, or to a server by service",
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
        "60 s, settable",
        &["an-echo-request-to-a-service-that-listens-goes-to-a-server"],
    ),
    row(
        "RFC 5508 REQ-3",
        "4",
        "a wrong ICMP sum is dropped in silence",
        "bad-icmp-checksum",
        &["errors-that-cannot-be-true-are-dropped-by-name", "an-echo-request-with-a-wrong-sum-is-dropped"],
    ),
    row(
        "RFC 5508 REQ-3a",
        "4",
        "a wrong sum of the quoted IP header is dropped",
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
        "the quoted transport's sum is not verified",
        "quotes may be cut",
        &["an-error-is-translated-however-its-quote-is-written"],
    ),
    row(
        "RFC 5508 REQ-3d",
        "4",
        "extensions behind the quote are left alone",
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
        "an error from inside likewise, from the NAT's own address",
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
        "to who asked",
        &["an-error-about-a-hairpinned-flow-reaches-who-asked"],
    ),
    row(
        "RFC 5508 REQ-7a",
        "5",
        "their source is the NAT's own address",
        "that which the other end knows",
        &["an-error-about-a-hairpinned-flow-reaches-who-asked"],
    ),
    row(
        "RFC 5508 REQ-8",
        "6",
        "no room for a session: administratively prohibited",
        "3/13 by default",
        &[
            "who-finds-no-port-is-told-that-it-is-prohibited",
            "a-full-table-refuses-what-is-new-and-keeps-what-is-established",
        ],
    ),
    row("RFC 5508 REQ-9", "7", "policy may suppress errors of the NAT's own", "[answers]", &["answers-are-limited"]),
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
        "other ICMP messages as one pleases",
        "dropped by name",
        &["errors-that-cannot-be-true-are-dropped-by-name"],
    ),
];

const LARGE: &[Row] = &[
    row(
        "RFC 6888 REQ-4",
        "3",
        "a limit of ports for each subscriber",
        "rules limit flows for each client",
        &["rules-decide-first-match-first-and-can-be-switched-off"],
    ),
    row(
        "RFC 6888 REQ-5",
        "3",
        "a limit of memory for each subscriber",
        "rules limit flows and new flows a second",
        &["rules-decide-first-match-first-and-can-be-switched-off"],
    ),
    not("RFC 6888 REQ-6", "3", "some destinations are not translated", "only service addresses are"),
    row(
        "RFC 6888 REQ-8",
        "4",
        "a freed port is not given again for 120 s",
        "120 s",
        &["a-freed-port-rests-for-two-minutes"],
    ),
    row(
        "RFC 6888 REQ-11",
        "3",
        "no room: drop and tell; existing mappings stay",
        "3/1 by setting; 3/13 by default",
        &[
            "who-finds-no-port-is-told-that-the-host-is-unreachable",
            "a-full-table-refuses-what-is-new-and-keeps-what-is-established",
        ],
    ),
    not("RFC 6888 REQ-12", "4", "destinations are not logged by default", "flows are logged with -v alone"),
    row(
        "RFC 6888 REQ-13",
        "5",
        "every port can be used",
        "down to the last",
        &["full-nat-gives-each-flow-a-port-of-its-own"],
    ),
    row("RFC 6888 REQ-15", "5", "ports are hard to guess", "by seeded chance", &["a-client-has-one-source-address"]),
];

const FAMILIES: &[Row] = &[
    row(
        "RFC 6146 3.5",
        "3.5",
        "stateful translation: TCP, UDP, echo",
        "IPv6 clients, IPv4 servers",
        &["ipv6-clients-reach-ipv4-servers"],
    ),
    row("RFC 6146 4", "4", "fragments have at least 2 s", "5 s", &["fragments-have-five-seconds"]),
    row(
        "RFC 7915 4.1",
        "4.1",
        "an IPv4 header becomes an IPv6 one",
        "TOS and TTL copied, flow label 0, options left out",
        &["ipv4-clients-reach-ipv6-servers"],
    ),
    row(
        "RFC 7915 4.1 DF",
        "4.1",
        "DF clear and longer than the way: cut",
        "to the known MTU, else 1,280",
        &["ipv6-clients-reach-ipv4-servers", "ipv4-clients-reach-ipv6-servers"],
    ),
    row(
        "RFC 7915 4.2",
        "4.2",
        "ICMPv4 becomes ICMPv6, errors with their quotes",
        "tables and MTU + 20",
        &["ipv6-clients-reach-ipv4-servers", "ipv4-clients-reach-ipv6-servers"],
    ),
    row(
        "RFC 7915 4.5",
        "4.5",
        "an absent UDP sum is computed",
        "computed",
        &["ipv4-clients-reach-ipv6-servers", "ipv6-clients-reach-ipv4-servers"],
    ),
    row(
        "RFC 7915 4.1 route",
        "4.1",
        "a source route with stations left is not translated",
        "told, type 3 code 5",
        &["ipv4-clients-reach-ipv6-servers"],
    ),
    row(
        "RFC 5095",
        "3; RFC 8200 4.4",
        "a service address sends nothing on to a next station",
        "told, type 4 code 0, or dropped by setting",
        &["ipv6-extension-headers-are-kept", "ipv6-clients-reach-ipv4-servers"],
    ),
    row(
        "RFC 7915 5.1",
        "5.1",
        "an IPv6 header becomes an IPv4 one",
        "DF by length, identification drawn",
        &["ipv6-clients-reach-ipv4-servers"],
    ),
    row(
        "RFC 7915 5.2",
        "5.2",
        "ICMPv6 becomes ICMPv4, errors with their quotes",
        "tables and MTU - 20",
        &["ipv6-clients-reach-ipv4-servers", "ipv4-clients-reach-ipv6-servers"],
    ),
    not(
        "RFC 6052 2",
        "2",
        "addresses with embedded IPv4 addresses",
        "a service has addresses of its own; no prefix is translated",
    ),
    row(
        "RFC 7915 4.2 MTU",
        "4.2; 5.2",
        "MTUs told across the families differ by 20",
        "20",
        &["ipv4-clients-reach-ipv6-servers"],
    ),
    row(
        "RFC 7915 4.4",
        "4.4; 5.4",
        "who sends what cannot be translated is told",
        "prohibited: 3/13, 1/1; or dropped by setting",
        &["ipv6-clients-reach-ipv4-servers", "ipv4-clients-reach-ipv6-servers"],
    ),
];

const SUMS: &[Row] = &[
    row(
        "RFC 1624 3",
        "3",
        "sums are patched by equation 3",
        "wrong stays wrong, right stays right",
        &["a-wrong-checksum-stays-wrong-for-its-receiver-to-find", "a-udp-checksum-of-all-ones-is-one"],
    ),
    row("RFC 768 zero", "-", "a UDP sum of zero is none", "stays zero", &["an-absent-udp-checksum-stays-absent"]),
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
        "a partial sum is patched as one",
        "addresses alone",
        &["a-partial-checksum-stays-partial"],
    ),
    row(
        "RFC 3022 4",
        "4.1 to 4.3",
        "addresses, ports and sums are translated, in ICMP errors too",
        "both headers",
        &["udp-goes-both-ways", "packet-too-big-from-behind-reaches-the-client"],
    ),
    row(
        "RFC 1122 3.2.2",
        "3.2.2",
        "no error about errors, later fragments or nobody",
        "none",
        &["no-error-is-sent-about-an-error-or-to-nobody"],
    ),
    row("RFC 1812 4.3.2.8", "4.3.2.8", "ICMP errors are limited", "1,000 a second, settable", &["answers-are-limited"]),
];

const FIELDS: &[Row] = &[
    row(
        "IP identification",
        "RFC 6864 5.3.1",
        "the identification stays",
        "kept",
        &["all-fields-that-are-not-translated-stay"],
    ),
    row(
        "TOS, traffic class",
        "RFC 2474; RFC 3168",
        "DSCP and ECN stay",
        "kept",
        &["all-fields-that-are-not-translated-stay"],
    ),
    row("Flow label", "RFC 6437 3", "the flow label stays", "kept", &["all-fields-that-are-not-translated-stay"]),
    row(
        "TTL, hop limit",
        "RFC 1812 5.3.1",
        "counted once for each step",
        "by the kernel, in front of the device and behind it",
        &["ttl-and-hop-limit-are-left-to-the-kernel"],
    ),
    row(
        "TTL, hop limit over",
        "RFC 1812 5.3.1; RFC 4443 3.3",
        "time exceeded",
        "in the service's name",
        &["the-last-hop-is-answered-in-the-services-name"],
    ),
    row("IP options", "RFC 791 3.1", "options stay", "kept", &["ipv4-options-are-kept"]),
    row("Extension headers", "RFC 8200 4", "extension headers stay", "kept", &["ipv6-extension-headers-are-kept"]),
    row(
        "Jumbo lengths",
        "RFC 2675",
        "no jumbogram passes",
        "dropped, bad-total-length",
        &["a-broken-ipv6-header-is-dropped"],
    ),
    row("Padding", "RFC 894", "padding is not sent on", "cut off", &["padding-behind-a-packet-is-not-sent-on"]),
    row(
        "MSS clamping",
        "RFC 9293 3.7.1",
        "the segment size fits the way, if asked",
        "off by default",
        &["the-segment-size-of-a-syn-is-lowered-where-the-service-asks"],
    ),
];

const SPOOFING: &[Row] = &[
    row(
        "RFC 5961 3.2",
        "3.2",
        "a reset counts at the exact number alone",
        "others pass and end nothing",
        &["a-reset-outside-the-window-does-not-end-a-flow", "a-flow-ends-four-minutes-after-an-exact-reset"],
    ),
    row(
        "RFC 5961 4.2",
        "4.2",
        "a SYN in a live connection passes to its end",
        "changes nothing",
        &["a-syn-on-an-established-flow-does-not-replace-it"],
    ),
    not(
        "RFC 5961 5",
        "5",
        "the acceptable range of acknowledgements",
        "the ends judge; the gateway forbids no segment of a flow",
    ),
    row(
        "RFC 5927 4",
        "4",
        "an error is believed only about what is under way",
        "icmp-implausible",
        &["errors-that-cannot-be-true-are-dropped-by-name"],
    ),
    row(
        "RFC 8201 4",
        "4",
        "an IPv6 MTU under 1,280 is not believed",
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
        "the packet is given up",
        &["overlapping-fragments-spoil-their-packet"],
    ),
    row(
        "RFC 1122 3.2.1.3",
        "3.2.1.3",
        "sources that cannot be one",
        "bad-source",
        &["a-source-that-cannot-be-answered-opens-no-flow"],
    ),
    not("RFC 2827", "-", "ingress filtering", "the kernel's path check does it in front of the device (rp_filter)"),
    not(
        "RFC 7690",
        "-",
        "packet-too-big reaches the right member behind ECMP",
        "one gateway has all flows of its addresses",
    ),
];

const OTHERS: &[Row] = &[
    row(
        "GRE, ESP",
        "RFC 2784; RFC 4303",
        "protocols without ports by addresses alone",
        "by service",
        &["gre-and-esp-go-by-addresses-alone"],
    ),
    row(
        "SCTP",
        "RFC 9260 6.8",
        "by ports, with a right CRC32c",
        "by service",
        &["sctp-goes-by-its-ports-and-its-sum-stays-right"],
    ),
    row(
        "Unknown protocols",
        "RFC 792; RFC 4443 3.4",
        "protocol unreachable",
        "told, or dropped by setting",
        &["gre-and-esp-go-by-addresses-alone", "what-a-service-address-does-not-offer-is-dropped-by-name"],
    ),
    row(
        "RFC 792 port",
        "type 3 code 3",
        "a port where nobody listens",
        "told, or dropped by setting",
        &["what-a-service-address-does-not-offer-is-dropped-by-name"],
    ),
    not(
        "RFC 9000 9",
        "9",
        "QUIC connections that migrate",
        "connection IDs are not read; a flow is its addresses and ports (RFC 9312, 4.2)",
    ),
    not("RFC 8158", "-", "IPFIX records of NAT events", "flows are told by the control socket and the log"),
    not("RFC 9568", "-", "VRRP", "redundant gateways are not built yet"),
    row(
        "Half-close",
        "RFC 9293 3.6",
        "one FIN leaves the other way open",
        "as long as established",
        &["a-half-closed-connection-still-carries-data"],
    ),
    row(
        "Table full",
        "RFC 6888 REQ-11",
        "established flows are untouched",
        "new ones refused, and told",
        &[
            "a-full-table-refuses-what-is-new-and-keeps-what-is-established",
            "a-full-table-gives-up-the-oldest-half-open-flow-first",
        ],
    ),
    not(
        "Reload",
        "-",
        "reading the configuration anew changes no live flow",
        "the running gateway does not read it anew yet",
    ),
];
