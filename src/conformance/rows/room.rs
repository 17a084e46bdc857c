//! Limited resources: RFC 6888, SYN floods (RFC 4987), and what gives way when the table is full.

use super::{Row, not, row};

pub(super) const LARGE: &[Row] = &[
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
        "those of handshakes that were never completed, and of connections that are over, all acknowledged, for 2 s if no other is free",
        &["half-open-flows-have-at-most-half-of-the-ports", "a-connection-that-is-over-yields-its-nat-port"],
    ),
    row(
        "RFC 6888 REQ-11",
        "3",
        "out of resources: drop and report; existing mappings stay",
        "3/1 if configured; 3/13 by default; see Table full for what may go",
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
    row("RFC 6888 REQ-15", "5", "ports are hard to guess", "seeded random", &["a-client-has-one-source-address"]),
];

pub(super) const SYN_FLOOD: &[Row] = &[
    not(
        "RFC 4987 3.1",
        "3.1",
        "filtering of spoofed sources",
        "the kernel's reverse path filter does it before the device (rp_filter)",
    ),
    row(
        "RFC 4987 3.2",
        "3.2",
        "a larger backlog",
        "1,000,000 half-open flows, which do not count in flows.max",
        &["half-open-flows-take-no-room-in-the-table"],
    ),
    not(
        "RFC 4987 3.3",
        "3.3",
        "a shorter timer for half-open connections",
        "the timer stays at the 4 min of RFC 5382; a full store ends its oldest flow before",
    ),
    row(
        "RFC 4987 3.4",
        "3.4",
        "the oldest half-open connection is recycled",
        "the oldest gives way; established flows are not affected",
        &["a-full-half-open-store-gives-up-its-oldest-flow", "a-thousand-syns-touch-no-established-flow"],
    ),
    row(
        "RFC 4987 3.4 ports",
        "3.4",
        "spoofed SYNs do not exhaust what connections need",
        "half of the ports per server; the oldest SYN gives way",
        &["half-open-flows-have-at-most-half-of-the-ports"],
    ),
    row(
        "RFC 4987 3.4 limits",
        "3.4",
        "spoofed SYNs use up no limit on flows",
        "flows count once their clients have completed the handshake, or conversed by datagrams",
        &["spoofed-syns-use-up-no-limit", "a-conversation-counts-and-a-query-does-not"],
    ),
    row(
        "RFC 4987 3.4 burst",
        "3.4",
        "a burst of handshakes does not exceed a limit",
        "the rest stays half-open until there is room; after 4 min both ends are reset",
        &["a-handshake-beyond-a-limit-stays-half-open"],
    ),
    row(
        "RFC 4987 3.4 sticky",
        "3.4",
        "spoofed SYNs make no client lose its sticky server",
        "a slot begins with a proven flow; clients without one have preliminary slots of their own",
        &["spoofed-syns-displace-no-sticky-client", "the-first-connections-of-a-sticky-client-go-to-one-server"],
    ),
    row(
        "RFC 4987 3.5",
        "3.5",
        "less state for half-open connections than for others",
        "64 bytes instead of 128; the full record from the last ACK of the handshake on",
        &["a-thousand-syns-touch-no-established-flow"],
    ),
    not(
        "RFC 4987 3.6",
        "3.6",
        "SYN cookies",
        "the server chooses its sequence number: the gateway could not validate an ACK without state",
    ),
];

pub(super) const TABLE: &[Row] = &[
    row(
        "Table full: over",
        "order 1",
        "closed and reset flows give way first",
        "after 2 s, the oldest first",
        &["closing-flows-give-way-to-handshakes-oldest-first", "a-table-full-of-closing-flows-refuses-no-client"],
    ),
    row(
        "Table full: brief",
        "order 2",
        "datagrams that are no conversation are next",
        "the oldest first; those refreshed or answered since are passed over once",
        &[
            "one-way-datagrams-give-way-oldest-first",
            "an-answered-query-has-a-second-chance",
            "a-stream-of-datagrams-stays-while-single-packets-go",
        ],
    ),
    row(
        "Table full: conversing",
        "order 3",
        "idle conversations of datagrams are next",
        "after 2 min; beyond half of the table after 10 s, to a complete handshake after 1 s; the idlest of 16",
        &[
            "a-conversation-is-kept-for-two-minutes-without-a-packet",
            "conversations-beyond-half-of-the-table-make-way-after-seconds",
        ],
    ),
    row(
        "Table full: idle",
        "order 4",
        "idle connections are next",
        "after 5 min; the idlest of 16, 1,000 per second",
        &["idle-established-flows-give-way-the-idlest-first"],
    ),
    row(
        "Table full: grace",
        "order 5",
        "flows that closed a moment ago are last",
        "within 2 s",
        &["closing-flows-within-their-grace-give-way-last"],
    ),
    row(
        "Table full: busy",
        "RFC 6888 REQ-11",
        "busy flows never give way",
        "new flows are refused; a handshake succeeds once there is room",
        &[
            "a-full-table-refuses-what-is-new-and-keeps-what-is-established",
            "a-handshake-that-found-no-room-succeeds-when-the-client-sends-again",
            "busy-datagrams-stay-and-what-is-new-is-refused",
        ],
    ),
    row(
        "Ports: brief",
        "-",
        "spoofed datagrams do not exhaust what conversations need",
        "half of the ports per server; the oldest without a conversation gives way",
        &["datagrams-without-a-conversation-have-at-most-half-of-the-ports"],
    ),
    row(
        "Table full: reported",
        "-",
        "a shortage of room is reported with its beginning, end and figures",
        "it ends a minute after the last flow that gave way or was refused",
        &["want-of-room-is-reported-when-it-begins-and-when-it-ends"],
    ),
    row(
        "Recently ended",
        "RFC 9293 3.6.1",
        "late segments of a closed connection are not answered by a reset",
        "dropped for 60 s (recently-ended); data is answered by a reset",
        &["late-segments-of-a-closed-flow-that-gave-way-are-dropped"],
    ),
];
