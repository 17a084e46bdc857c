//! ICMP: RFC 5508, RFC 4884.

use super::{PER_FLOW, Row, not, row};

pub(super) const ICMP: &[Row] = &[
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
