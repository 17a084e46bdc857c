//! The keys of `[[pool.monitor]]`: those of all types, then those of single types.

use super::pool::DAY;
use super::service::{NAME, PORTS};
use super::{DefaultValue, Key, Reload, Table, Takes};
use crate::health::settings::{LEAST_INTERVAL, MOST_BODY, MOST_PAYLOAD, MOST_SAMPLES};
use DefaultValue::{Number, Required, Text, Unset};

const IN_A_ROW: Takes = Takes::number(1, u32::MAX as u64);
const PAYLOAD: Takes = Takes::bytes(0, MOST_PAYLOAD as u64);
const PATTERN: Takes = Takes::Form("a string");
const HEADER: Takes = Takes::Form("the name of a header");
const NOT_LOOKED_AT: DefaultValue = Unset("not considered");
const ANYTHING: DefaultValue = Unset("anything");
const NOWHERE: DefaultValue = Unset("not reported");

const HTTP: &[&str] = &["http"];
const UDP: &[&str] = &["udp"];
const DNS: &[&str] = &["dns"];
const HTTP_UDP: &[&str] = &["http", "udp"];
const WITH_PORTS: &[&str] = &["tcp", "http", "udp", "dns"];

/// `[[pool.monitor]]`.
pub(crate) static MONITOR: Table = Table { name: "pool.monitor", header: "[[pool.monitor]]", renamed: &[], keys: KEYS };

/// A key of some types, which says what is asked or expected: results of another question are worth nothing.
const fn of(
    types: &'static [&'static str],
    name: &'static str,
    takes: Takes,
    default: DefaultValue,
    doc: &'static str,
) -> Key {
    Key::new(name, takes, default, Reload::StartsOver, doc).only_with("type", types)
}

const KEYS: &[Key] = &[
    Key::new("name", NAME, Unset("its type"), Reload::Identity, "Name of the monitor, unique within its pool."),
    Key::new(
        "type",
        Takes::Word(&["icmp", "tcp", "http", "udp", "dns"]),
        Required,
        Reload::StartsOver,
        "What the monitor sends.",
    ),
    of(
        WITH_PORTS,
        "ports",
        PORTS,
        Unset("those to which the services send flows"),
        "Ports to probe; the result then holds for all ports of a server.",
    ),
    Key::new(
        "interval",
        Takes::millis(LEAST_INTERVAL.as_millis() as u64, DAY),
        DefaultValue::secs(10),
        Reload::Live,
        "Time from the start of one probe to the start of the next.",
    ),
    Key::new(
        "jitter",
        Takes::number(0, 50),
        Number(10),
        Reload::Live,
        "How far an interval may vary, in percent, so that probes do not run in step.",
    ),
    Key::new(
        "timeout",
        Takes::millis(1, DAY),
        DefaultValue::secs(3),
        Reload::Live,
        "How long a probe waits for its answer.",
    ),
    Key::new("fall", IN_A_ROW, Number(3), Reload::Live, "Failures in a row that take a server out."),
    Key::new("rise", IN_A_ROW, Number(2), Reload::Live, "Successes in a row that bring a server back."),
    Key::new(
        "samples",
        Takes::number(1, MOST_SAMPLES as u64),
        Number(10),
        Reload::Live,
        "Number of recent results that `max-lost` and `max-latency` look at.",
    ),
    // Fewer than `samples`, or they would never take a server out.
    Key::new(
        "max-lost",
        Takes::number(0, MOST_SAMPLES as u64 - 1),
        NOT_LOOKED_AT,
        Reload::Live,
        "Maximum number of failures among these results, fewer than `samples`; more take the server out.",
    ),
    Key::new(
        "max-latency",
        Takes::millis(1, DAY),
        NOT_LOOKED_AT,
        Reload::Live,
        "Highest average latency of the answered probes among these results, shorter than `timeout`; a higher one takes \
         the server out.",
    ),
    Key::new(
        "initial",
        Takes::Word(&["up", "down", "unknown"]),
        Text("up"),
        Reload::Live,
        "State of a server before the first verdict; while \"unknown\" it gets no new flows.",
    ),
    of(HTTP, "host", PATTERN, Text("localhost"), "Value of the header `Host`."),
    of(HTTP, "path", PATTERN, Text("/"), "Request target, which begins with \"/\"."),
    of(HTTP, "headers", Takes::Form("a table of strings"), Unset("none"), "Additional headers."),
    of(
        HTTP,
        "status",
        Takes::Ranges { least: 100, most: 999 },
        Unset("\"200-299\""),
        "Statuses that count as success: numbers and ranges.",
    ),
    of(HTTP_UDP, "expect-contains", PATTERN, ANYTHING, "Text that the answer must contain."),
    of(HTTP_UDP, "expect-prefix", PATTERN, ANYTHING, "Text that the answer must begin with."),
    of(HTTP_UDP, "expect-regex", PATTERN, ANYTHING, "Regular expression that must match in the answer."),
    of(
        HTTP,
        "max-bytes",
        Takes::number(1, MOST_BODY as u64),
        Number(64 << 10),
        "Maximum number of bytes of the body that are read.",
    ),
    of(HTTP, "load-header", HEADER, NOWHERE, "Header that reports the server's load, 0 to 100."),
    of(HTTP, "maintenance-header", HEADER, NOWHERE, "Header that reports whether the server is under maintenance."),
    of(
        HTTP,
        "load-regex",
        PATTERN,
        NOWHERE,
        "Regular expression over the body whose groups \"load\" and \"maintenance\" report the same.",
    ),
    of(UDP, "payload", PAYLOAD, Unset("empty"), "Payload of the datagram as text."),
    of(UDP, "payload-hex", PAYLOAD, Unset("empty"), "Payload of the datagram in hexadecimal."),
    of(DNS, "query", PATTERN, Required, "The name to query."),
    of(
        DNS,
        "record",
        Takes::Word(&["A", "AAAA", "NS", "CNAME", "SOA", "PTR", "MX", "TXT", "SRV"]),
        Text("A"),
        "Record type to query.",
    ),
    of(DNS, "expect-address", Takes::Form("an address"), Unset("any"), "Address that must be among the answers."),
    of(
        DNS,
        "expect-rcode",
        Takes::Word(&["NOERROR", "FORMERR", "SERVFAIL", "NXDOMAIN", "NOTIMP", "REFUSED"]),
        Unset("\"NOERROR\""),
        "Response code that the response must have.",
    ),
];
