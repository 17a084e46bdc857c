//! The reasons why a probe failed and why a server came up or went down, with their figures.

use serde::Serialize;
use std::fmt;

/// The failure of one probe.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Failure {
    /// No reply arrived in time.
    Timeout {
        /// The timeout in milliseconds.
        after_ms: u64,
    },
    /// The SYN was answered by a reset.
    Refused,
    /// A reset arrived after the connection was established.
    Reset,
    /// An ICMP error arrived: `port`, `host`, `network`, `prohibited`, …
    Unreachable(&'static str),
    /// The HTTP status is not an expected one.
    Status {
        /// The received status.
        got: u16,
        /// The expected ranges.
        want: String,
    },
    /// The body does not match the expectation.
    Body,
    /// The datagram does not match the expectation, or the DNS answers do not contain the address.
    Answer,
    /// The reply violates the protocol: names the part that is wrong.
    Malformed(&'static str),
    /// The server closed the connection before the end of its response.
    Closed,
    /// The DNS response code is not the expected one.
    Rcode {
        /// The received code.
        got: u8,
        /// The expected code.
        want: u8,
    },
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Timeout { after_ms } => write!(f, "timed out after {}", Span(*after_ms)),
            Failure::Refused => f.write_str("refused (RST)"),
            Failure::Reset => f.write_str("connection reset (RST)"),
            Failure::Unreachable(what) => write!(f, "destination unreachable ({what})"),
            Failure::Status { got, want } => write!(f, "HTTP status {got}, expected {want}"),
            Failure::Body => f.write_str("body does not match"),
            Failure::Answer => f.write_str("reply does not match"),
            Failure::Malformed(what) => write!(f, "malformed reply: {what}"),
            Failure::Closed => f.write_str("connection closed before the end of the response"),
            Failure::Rcode { got, want } => write!(f, "DNS response code {got}, expected {want}"),
        }
    }
}

/// Milliseconds, printed in a readable unit: `250 ms`, `3 s`, `1.5 s`.
struct Span(u64);

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            ms @ 0..1000 => write!(f, "{ms} ms"),
            ms if ms % 1000 == 0 => write!(f, "{} s", ms / 1000),
            ms => write!(f, "{} s", ms as f64 / 1000.0),
        }
    }
}

/// The reason why the health of a server changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Why {
    /// Consecutive probes failed.
    Failed {
        /// Their number.
        count: u32,
        /// The failure of the last one.
        last: Failure,
    },
    /// More probes of the window failed than allowed.
    Lost {
        /// Failures in the window.
        lost: u32,
        /// Results in the window.
        of: u32,
        /// Allowed failures.
        most: u32,
    },
    /// The average latency of the answered probes in the window exceeds the limit.
    Slow {
        /// The average in milliseconds.
        average_ms: u64,
        /// The limit in milliseconds.
        limit_ms: u64,
    },
    /// Consecutive probes were answered, and the window is within its limits.
    Answered {
        /// Their number.
        count: u32,
        /// The average latency of the window in milliseconds; none if unknown.
        average_ms: Option<u64>,
    },
    /// Forced by a script or an operator.
    Forced,
    /// No longer forced: the monitors decide again.
    Released,
    /// The active gateway of the pair has reported it.
    ActiveGateway,
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Why::Failed { count, last: last @ Failure::Timeout { .. } } => write!(f, "{count} of {count} {last}"),
            Why::Failed { count: 1, last } => write!(f, "{last}"),
            Why::Failed { count, last } => write!(f, "{last}, {count} in a row"),
            Why::Lost { lost, of, most } => write!(f, "{lost} of {of} lost, limit {most}"),
            Why::Slow { average_ms, limit_ms } => write!(f, "average {average_ms} ms, limit {limit_ms} ms"),
            Why::Answered { count, average_ms: Some(ms) } => write!(f, "{count} of {count} answered, average {ms} ms"),
            Why::Answered { count, average_ms: None } => write!(f, "{count} of {count} answered"),
            Why::Forced => f.write_str("forced"),
            Why::Released => f.write_str("no longer forced"),
            Why::ActiveGateway => f.write_str("reported by the active gateway"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_readable_and_have_their_figures() {
        let failed = |count, last| Why::Failed { count, last };
        let cases = [
            (failed(3, Failure::Timeout { after_ms: 3000 }), "3 of 3 timed out after 3 s"),
            (failed(2, Failure::Timeout { after_ms: 1500 }), "2 of 2 timed out after 1.5 s"),
            (failed(1, Failure::Timeout { after_ms: 250 }), "1 of 1 timed out after 250 ms"),
            (failed(1, Failure::Refused), "refused (RST)"),
            (failed(3, Failure::Refused), "refused (RST), 3 in a row"),
            (failed(1, Failure::Unreachable("port")), "destination unreachable (port)"),
            (failed(1, Failure::Status { got: 500, want: "200-299".into() }), "HTTP status 500, expected 200-299"),
            (failed(1, Failure::Body), "body does not match"),
            (failed(1, Failure::Answer), "reply does not match"),
            (Why::Lost { lost: 10, of: 10, most: 5 }, "10 of 10 lost, limit 5"),
            (Why::Slow { average_ms: 812, limit_ms: 500 }, "average 812 ms, limit 500 ms"),
            (Why::Answered { count: 2, average_ms: Some(3) }, "2 of 2 answered, average 3 ms"),
            (Why::ActiveGateway, "reported by the active gateway"),
        ];
        for (why, want) in cases {
            assert_eq!(why.to_string(), want);
        }
        let json = serde_json::to_string(&failed(1, Failure::Unreachable("port"))).unwrap();
        assert_eq!(json, r#"{"failed":{"count":1,"last":{"unreachable":"port"}}}"#);
    }
}
