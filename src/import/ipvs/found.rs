//! What a configuration says, in the terms of IPVS.

use crate::import::Place;
use std::net::IpAddr;

/// The transport protocol of a virtual service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::import) enum Protocol {
    Tcp,
    Udp,
    Sctp,
}

impl Protocol {
    pub(in crate::import) const fn name(self) -> &'static str {
        match self {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
            Protocol::Sctp => "sctp",
        }
    }
}

/// How packets reach a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::import) enum Method {
    Nat,
    Route,
    Tunnel,
}

/// A real server.
#[derive(Debug, Clone)]
pub(in crate::import) struct Real {
    pub(in crate::import) place: Place,
    pub(in crate::import) address: IpAddr,
    /// None is the port that the client asked for.
    pub(in crate::import) port: Option<u16>,
    pub(in crate::import) weight: u32,
    pub(in crate::import) method: Method,
    /// Upper and lower threshold of connections; 0 is none.
    pub(in crate::import) thresholds: (u32, u32),
    pub(in crate::import) keeps_on_failure: bool,
    pub(in crate::import) checks: Vec<Check>,
}

impl Real {
    pub(in crate::import) fn name(&self) -> String {
        match (self.address, self.port) {
            (address, None) => address.to_string(),
            (IpAddr::V4(address), Some(port)) => format!("{address}:{port}"),
            (IpAddr::V6(address), Some(port)) => format!("[{address}]:{port}"),
        }
    }
}

/// What a check asks a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::import) enum Ask {
    Icmp,
    Tcp,
    Http { path: String, host: Option<String>, status: Vec<String> },
    Udp { payload: String, prefix: Option<String> },
    Dns { query: String, record: String },
}

/// A check of a real server.
#[derive(Debug, Clone)]
pub(in crate::import) struct Check {
    pub(in crate::import) place: Place,
    pub(in crate::import) ask: Ask,
    /// The port, where it is another one than the server's.
    pub(in crate::import) port: Option<u16>,
    pub(in crate::import) interval_ms: u64,
    pub(in crate::import) timeout_ms: u64,
    /// Retries after a failure, and the pause before each.
    pub(in crate::import) retries: u64,
    pub(in crate::import) pause_ms: u64,
    /// Whether the server counts as down until it succeeds.
    pub(in crate::import) is_down_at_first: bool,
}

impl Check {
    /// Returns whether two checks are the same, wherever they stand.
    pub(super) fn is_like(&self, other: &Check) -> bool {
        let all = |check: &Check| {
            let Check { place: _, ask, port, interval_ms, timeout_ms, retries, pause_ms, is_down_at_first } = check;
            (ask.clone(), *port, *interval_ms, *timeout_ms, *retries, *pause_ms, *is_down_at_first)
        };
        all(self) == all(other)
    }
}

/// An address and port of a virtual service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::import) struct Listen {
    pub(in crate::import) address: IpAddr,
    /// None is every port.
    pub(in crate::import) port: Option<u16>,
}

/// Virtual services with the same servers.
#[derive(Debug, Clone)]
pub(in crate::import) struct Virtual {
    pub(in crate::import) place: Place,
    pub(in crate::import) name: Option<String>,
    pub(in crate::import) listens: Vec<Listen>,
    pub(in crate::import) protocol: Protocol,
    pub(in crate::import) scheduler: String,
    pub(in crate::import) scheduler_place: Place,
    /// `sh-port`, `mh-fallback` and the like.
    pub(in crate::import) flags: Vec<String>,
    /// Seconds, and the significant bits of a client's address where they are not all.
    pub(in crate::import) persistence: Option<(u32, Option<u8>)>,
    pub(in crate::import) one_packet: bool,
    pub(in crate::import) servers: Vec<Real>,
    pub(in crate::import) sorry: Option<Real>,
}

/// Seconds after which idle connections are forgotten; none is that of the kernel.
#[derive(Debug, Clone, Copy, Default)]
pub(in crate::import) struct Timeouts {
    pub(in crate::import) tcp: Option<u32>,
    pub(in crate::import) fin: Option<u32>,
    pub(in crate::import) udp: Option<u32>,
}

/// What was found in a file.
#[derive(Debug, Default)]
pub(in crate::import) struct Found {
    pub(in crate::import) virtuals: Vec<Virtual>,
    pub(in crate::import) timeouts: Timeouts,
}
