//! Why a probe failed, and why a server went up or down: in words, with the figures.

use serde::Serialize;
use std::fmt;

/// How one probe failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Failure {
    /// No answer came in time.
    Timeout {
        /// How long it waited, in ms.
        after_ms: u64,
    },
    /// A reset answered the SYN.
    Refused,
    /// A reset came after the connection was made.
    Reset,
    /// An ICMP error answered: `port`, `host`, `network`, `prohibited`, …
    Unreachable(&'static str),
    /// The HTTP status was not among those expected.
    Status {
        /// The status that came.
        got: u16,
        /// What would have been right.
        want: String,
    },
    /// The body is not what is expected.
    Body,
    /// The datagram is not what is expected, or the DNS answers do not hold the address.
    Answer,
    /// What came is not the protocol: says what is wrong.
    Malformed(&'static str),
    /// The server closed the connection before the end of its response.
    Closed,
    /// The DNS response code is not the one expected.
    Rcode {
        /// The code that came.
        got: u8,
        /// The code expected.
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
            Failure::Status { got, want } => write!(f, "HTTP status {got}, want {want}"),
            Failure::Body => f.write_str("body does not match"),
            Failure::Answer => f.write_str("answer does not match"),
            Failure::Malformed(what) => write!(f, "malformed answer: {what}"),
            Failure::Closed => f.write_str("connection closed before the end of the response"),
            Failure::Rcode { got, want } => write!(f, "DNS response code {got}, want {want}"),
        }
    }
}

/// Milliseconds as a person writes them: `250 ms`, `3 s`, `1.5 s`.
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

/// Why a server's state changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Why {
    /// So many probes in a row failed.
    Failed {
        /// How many.
        count: u32,
        /// How the last one failed.
        last: Failure,
    },
    /// More of the window were lost than may be.
    Lost {
        /// How many failed.
        lost: u32,
        /// Of how many in the window.
        of: u32,
        /// How many may.
        most: u32,
    },
    /// The average of the window's answered probes is over the limit.
    Slow {
        /// The average, in ms.
        average_ms: u64,
        /// The limit, in ms.
        limit_ms: u64,
    },
    /// So many probes in a row were answered, and the window is within its limits.
    Answered {
        /// How many.
        count: u32,
        /// The average latency of the window, in ms; none where it is not known.
        average_ms: Option<u64>,
    },
    /// A script, or a person, said so.
    Forced,
    /// The script let go: what the monitors say holds.
    Released,
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Why::Failed { count, last: last @ Failure::Timeout { .. } } => write!(f, "{count} of {count} {last}"),
            Why::Failed { count: 1, last } => write!(f, "{last}"),
            Why::Failed { count, last } => write!(f, "{last}, {count} in a row"),
            Why::Lost { lost, of, most } => write!(f, "{lost} of {of} lost, {most} may be"),
            Why::Slow { average_ms, limit_ms } => write!(f, "average {average_ms} ms over {limit_ms} ms"),
            Why::Answered { count, average_ms: Some(ms) } => write!(f, "{count} of {count} answered, average {ms} ms"),
            Why::Answered { count, average_ms: None } => write!(f, "{count} of {count} answered"),
            Why::Forced => f.write_str("forced"),
            Why::Released => f.write_str("no longer forced"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_read_as_sentences_with_their_figures() {
        let failed = |count, last| Why::Failed { count, last };
        let cases = [
            (failed(3, Failure::Timeout { after_ms: 3000 }), "3 of 3 timed out after 3 s"),
            (failed(2, Failure::Timeout { after_ms: 1500 }), "2 of 2 timed out after 1.5 s"),
            (failed(1, Failure::Timeout { after_ms: 250 }), "1 of 1 timed out after 250 ms"),
            (failed(1, Failure::Refused), "refused (RST)"),
            (failed(3, Failure::Refused), "refused (RST), 3 in a row"),
            (failed(1, Failure::Unreachable("port")), "destination unreachable (port)"),
            (failed(1, Failure::Status { got: 500, want: "200-299".into() }), "HTTP status 500, want 200-299"),
            (failed(1, Failure::Body), "body does not match"),
            (failed(1, Failure::Answer), "answer does not match"),
            (Why::Lost { lost: 10, of: 10, most: 5 }, "10 of 10 lost, 5 may be"),
            (Why::Slow { average_ms: 812, limit_ms: 500 }, "average 812 ms over 500 ms"),
            (Why::Answered { count: 2, average_ms: Some(3) }, "2 of 2 answered, average 3 ms"),
        ];
        for (why, want) in cases {
            assert_eq!(why.to_string(), want);
        }
        let json = serde_json::to_string(&failed(1, Failure::Unreachable("port"))).unwrap();
        assert_eq!(json, r#"{"failed":{"count":1,"last":{"unreachable":"port"}}}"#);
    }
}
