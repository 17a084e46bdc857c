//! The settings of the monitors: plain values that the configuration checks with [`HealthSettings::problems`].
//!
//! It must know neither files nor names of servers.

use super::expect;
use crate::ids::{PoolId, ServerId};
use crate::state::Health;
use crate::time::Duration;
use crate::words::words;
use serde::{Deserialize, Serialize};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Shortest interval between two probes of one target.
pub const LEAST_INTERVAL: Duration = Duration::from_millis(100);
/// Maximum size of a sample window.
pub const MOST_SAMPLES: u32 = 1000;
/// Maximum size of an HTTP request and of a UDP payload in bytes: either fits into one packet at the minimum MTU of IPv6.
pub const MOST_PAYLOAD: usize = 1200;
/// Maximum number of body bytes that a monitor may read.
pub const MOST_BODY: u32 = 1 << 20;

/// The settings of all monitors.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct HealthSettings {
    /// Seed of source ports, sequence numbers, query IDs and jitter; in a live gateway it must be random.
    pub seed: u64,
    /// Source of IPv4 probes; none if IPv4 addresses are not monitored.
    pub source_v4: Option<Ipv4Addr>,
    /// Source of IPv6 probes; none if IPv6 addresses are not monitored.
    pub source_v6: Option<Ipv6Addr>,
    /// The pools.
    pub pools: Vec<PoolWatch>,
}

/// The monitoring of one pool.
#[derive(Debug, Clone, PartialEq)]
pub struct PoolWatch {
    /// The pool.
    pub pool: PoolId,
    /// The monitors, all of which must succeed; without any, the servers are up.
    pub monitors: Vec<MonitorSettings>,
    /// How many servers must stay in service.
    pub floor: Floor,
    /// Its servers; each belongs to one pool.
    pub servers: Vec<ServerWatch>,
}

/// One server.
#[derive(Debug, Clone, PartialEq)]
pub struct ServerWatch {
    /// Its number.
    pub server: ServerId,
    /// Its IPv4 address.
    pub v4: Option<Ipv4Addr>,
    /// Its IPv6 address.
    pub v6: Option<Ipv6Addr>,
    /// The ports that its services use; probed by those monitors without ports of their own that can judge them.
    pub ports: Vec<WatchedPort>,
}

/// A port of a server that services use, and the protocols for which they do. No probe judges other protocols.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WatchedPort {
    /// The port.
    pub port: u16,
    /// Whether a service uses it for TCP.
    pub tcp: bool,
    /// Whether a service uses it for UDP.
    pub udp: bool,
}

impl WatchedPort {
    /// A port that is used for TCP.
    pub const fn tcp(port: u16) -> Self {
        WatchedPort { port, tcp: true, udp: false }
    }

    /// A port that is used for UDP.
    pub const fn udp(port: u16) -> Self {
        WatchedPort { port, tcp: false, udp: true }
    }

    /// Sorts ports, and joins what is known of each.
    pub fn merged(mut ports: Vec<WatchedPort>) -> Vec<WatchedPort> {
        ports.sort_unstable();
        ports.dedup_by(|next, kept| {
            let same = next.port == kept.port;
            if same {
                (kept.tcp, kept.udp) = (kept.tcp | next.tcp, kept.udp | next.udp);
            }
            same
        });
        ports
    }
}

/// How many servers of a pool stay in service whatever the monitors say, counted per family and port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Floor {
    /// All may go down.
    #[default]
    None,
    /// This many, 1 or more.
    Count(u32),
    /// This percentage of the monitored servers, 1 to 100, rounded up.
    Percent(u8),
}

impl Floor {
    /// Returns how many of `total` servers stay in service.
    pub fn least(self, total: u32) -> u32 {
        match self {
            Floor::None => 0,
            Floor::Count(count) => count.min(total),
            Floor::Percent(percent) => (u64::from(total) * u64::from(percent.min(100))).div_ceil(100) as u32,
        }
    }
}

/// One monitor.
#[derive(Debug, Clone, PartialEq)]
pub struct MonitorSettings {
    /// Its name in rows and logs.
    pub name: String,
    /// What it sends, and the reply that it expects.
    pub probe: Probe,
    /// Ports to probe, whose result applies to all ports of a server; if empty, each port of the server that the probe can
    /// judge is probed for itself: TCP and HTTP judge ports used for TCP, UDP and DNS those used for UDP. ICMP has none.
    pub ports: Vec<u16>,
    /// Time between the starts of two probes; 100 ms or more.
    pub interval: Duration,
    /// How long a probe waits for its reply; more than zero.
    pub timeout: Duration,
    /// Size of the sample window, 1 to 1000.
    pub samples: u32,
    /// Allowed failures in the window; with more the target is down. Less than `samples`.
    pub max_lost: Option<u32>,
    /// Maximum average latency of the answered probes in the window; above it the target is down.
    pub max_latency: Option<Duration>,
    /// Consecutive failures after which the target is down, 1 or more.
    pub fall: u32,
    /// Consecutive successes after which the target is up, provided the window is within its limits; 1 or more.
    pub rise: u32,
    /// The health before the first verdict.
    pub initial: Health,
    /// Random variation of the interval in either direction, in percent, 0 to 50.
    pub jitter_percent: u8,
}

impl PoolWatch {
    /// Returns whether a server's ports may differ in health: whether any monitor probes the ports of the services.
    pub fn is_by_port(&self) -> bool {
        self.monitors.iter().any(|monitor| monitor.probe != Probe::Icmp && monitor.ports.is_empty())
    }
}

impl MonitorSettings {
    /// Makes a monitor with default values.
    pub fn new(name: &str, probe: Probe) -> Self {
        MonitorSettings {
            name: name.into(),
            probe,
            ports: Vec::new(),
            interval: Duration::from_secs(10),
            timeout: Duration::from_secs(3),
            samples: 10,
            max_lost: None,
            max_latency: None,
            fall: 3,
            rise: 2,
            initial: Health::Up,
            jitter_percent: 10,
        }
    }
}

/// The probe of a monitor.
#[derive(Debug, Clone, PartialEq)]
pub enum Probe {
    /// An ICMP or ICMPv6 echo request.
    Icmp,
    /// A TCP SYN; its SYN/ACK is answered by a reset.
    Tcp,
    /// An HTTP/1.1 GET.
    Http(HttpProbe),
    /// A UDP datagram.
    Udp {
        /// The payload, 0 to 1200 bytes.
        payload: Vec<u8>,
        /// The expected reply.
        expect: Expect,
    },
    /// A DNS query over UDP.
    Dns {
        /// The queried name, in ASCII: `www.example.org`.
        name: String,
        /// The queried type.
        kind: DnsKind,
        /// The expected response; NOERROR if none.
        expect: Option<DnsExpect>,
    },
}

impl Probe {
    /// Returns whether its result says anything about a port that is used for TCP, or for UDP.
    pub const fn judges(&self, tcp: bool, udp: bool) -> bool {
        match self {
            Probe::Icmp => false,
            Probe::Tcp | Probe::Http(_) => tcp,
            Probe::Udp { .. } | Probe::Dns { .. } => udp,
        }
    }

    /// Returns its type.
    pub const fn kind(&self) -> ProbeKind {
        match self {
            Probe::Icmp => ProbeKind::Icmp,
            Probe::Tcp => ProbeKind::Tcp,
            Probe::Http(_) => ProbeKind::Http,
            Probe::Udp { .. } => ProbeKind::Udp,
            Probe::Dns { .. } => ProbeKind::Dns,
        }
    }

    /// Returns the name of its type: `icmp`, `tcp`, `http`, `udp`, `dns`.
    pub const fn name(&self) -> &'static str {
        self.kind().name()
    }
}

words! {
    /// The type of a probe, as configurations name it.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub enum ProbeKind {
        /// An ICMP or ICMPv6 echo request.
        Icmp = "icmp",
        /// A TCP SYN.
        Tcp = "tcp",
        /// An HTTP/1.1 GET.
        Http = "http",
        /// A UDP datagram.
        Udp = "udp",
        /// A DNS query over UDP.
        Dns = "dns",
    }
}

/// An HTTP/1.1 GET and its expected response.
#[derive(Debug, Clone, PartialEq)]
pub struct HttpProbe {
    /// The header `Host`.
    pub host: String,
    /// The request target, which begins with `/`.
    pub path: String,
    /// Additional headers, as names and values.
    pub headers: Vec<(String, String)>,
    /// Expected statuses as inclusive ranges; if empty, 200 to 299.
    pub status: Vec<(u16, u16)>,
    /// The expected body, as far as it is read.
    pub expect: Option<Expect>,
    /// Maximum bytes of the body to read, 1 to 1 MiB; the rest is not awaited. A regular expression over a large body
    /// delays other packets by some milliseconds per probe.
    pub max_bytes: u32,
    /// Where the response contains the load of the server.
    pub load: Option<LoadSource>,
}

impl Default for HttpProbe {
    fn default() -> Self {
        HttpProbe {
            host: "localhost".into(),
            path: "/".into(),
            headers: Vec::new(),
            status: Vec::new(),
            expect: None,
            max_bytes: 64 << 10,
            load: None,
        }
    }
}

/// An expectation about bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expect {
    /// They begin with these; an empty prefix matches any reply.
    Prefix(Vec<u8>),
    /// They contain these.
    Contains(Vec<u8>),
    /// A regular expression matches; ASCII classes, linear time.
    Regex(String),
}

/// Where an HTTP response contains the load of the server, 0 to 100, and its maintenance flag.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LoadSource {
    /// In headers.
    Header {
        /// The header of the load: `37` or `37%`.
        name: String,
        /// The header of the maintenance flag: set by any value except an empty one, `0`, `no`, `false` and `off`.
        maintenance: Option<String>,
    },
    /// In the body: a regular expression with a group `load` and optionally a group `maintenance`.
    Regex(String),
}

/// DNS record types (RFC 1035, 3.2.2; RFC 3596; RFC 2782).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs)]
pub enum DnsKind {
    A = 1,
    Ns = 2,
    Cname = 5,
    Soa = 6,
    Ptr = 12,
    Mx = 15,
    Txt = 16,
    Aaaa = 28,
    Srv = 33,
}

/// An expected DNS response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DnsExpect {
    /// NOERROR and this address among the answers.
    Address(IpAddr),
    /// This response code, 0 to 15.
    Rcode(u8),
}

impl HealthSettings {
    /// Returns the values that are out of range or contradict each other, each with its place.
    pub fn problems(&self) -> Vec<String> {
        let mut out = Vec::new();
        for pool in &self.pools {
            for monitor in &pool.monitors {
                out.extend(monitor.problems().into_iter().map(|p| format!("monitor `{}`: {p}", monitor.name)));
            }
            if matches!(pool.floor, Floor::Count(0) | Floor::Percent(0) | Floor::Percent(101..)) {
                out.push("floor: must be 1 or more servers, or 1 to 100 percent".into());
            }
            let no_source = |has: fn(&ServerWatch) -> bool, source: bool| !source && pool.servers.iter().any(has);
            if !pool.monitors.is_empty()
                && no_source(|s| s.v4.is_some(), self.source_v4.is_some())
                && no_source(|s| s.v6.is_some() || s.v4.is_some(), self.source_v6.is_some())
            {
                out.push("probes have no source address: name one of the servers' families".into());
            }
        }
        out
    }
}

impl MonitorSettings {
    /// Returns the values that are out of range or contradict each other.
    pub fn problems(&self) -> Vec<String> {
        let mut out = Vec::new();
        let mut want = |holds: bool, text: &str| {
            if !holds {
                out.push(text.to_owned());
            }
        };
        want(self.interval >= LEAST_INTERVAL, "interval: must be 100 ms or more");
        want(!self.timeout.is_zero(), "timeout: must be more than 0");
        want((1..=MOST_SAMPLES).contains(&self.samples), "samples: must be 1 to 1000");
        want(self.fall >= 1, "fall: must be 1 or more");
        want(self.rise >= 1, "rise: must be 1 or more");
        want(self.jitter_percent <= 50, "jitter: must be 0 to 50 percent");
        want(
            self.max_lost.is_none_or(|most| most < self.samples),
            "max_lost: must be less than samples, or it never takes a server out",
        );
        want(
            self.max_latency.is_none_or(|most| !most.is_zero() && most < self.timeout),
            "max_latency: must be more than 0 and less than timeout, or it never takes a server out",
        );
        want(!self.ports.contains(&0), "ports: must be 1 to 65535");
        out.extend(self.probe.problems());
        out
    }
}

impl Probe {
    fn problems(&self) -> Vec<String> {
        let mut out = Vec::new();
        match self {
            Probe::Icmp | Probe::Tcp => {}
            Probe::Http(http) => {
                let line = |text: &str| !text.bytes().any(|b| b.is_ascii_control());
                if !http.path.starts_with('/') || !line(&http.path) || http.path.contains(' ') {
                    out.push("path: must begin with `/` and have no spaces".into());
                }
                let names = |name: &str| !name.is_empty() && line(name) && !name.contains([':', ' ']);
                if !line(&http.host) || !http.headers.iter().all(|(n, v)| names(n) && line(v)) {
                    out.push("headers: names must have no colon or space, values no control characters".into());
                }
                if http.status.iter().any(|(first, last)| first > last || *first < 100 || *last > 999) {
                    out.push("status: must be 100 to 999, the first not over the last".into());
                }
                if !(1..=MOST_BODY).contains(&http.max_bytes) {
                    out.push("max_bytes: must be 1 to 1048576".into());
                }
                if super::http::request(http).len() > MOST_PAYLOAD {
                    out.push(format!("headers: the request must not be longer than {MOST_PAYLOAD} bytes"));
                }
                out.extend(http.expect.iter().filter_map(|expect| expect::Matcher::new(expect).err()));
                if let Some(LoadSource::Regex(pattern)) = &http.load {
                    match expect::compile(pattern) {
                        Err(problem) => out.push(problem),
                        Ok(regex) if !regex.capture_names().flatten().any(|name| name == "load") => {
                            out.push("load: the expression must have a group `load`: (?<load>[0-9]+)".into());
                        }
                        Ok(_) => {}
                    }
                }
            }
            Probe::Udp { payload, expect } => {
                if payload.len() > MOST_PAYLOAD {
                    out.push(format!("payload: must not be longer than {MOST_PAYLOAD} bytes"));
                }
                out.extend(expect::Matcher::new(expect).err());
            }
            Probe::Dns { name, kind, expect } => {
                if super::dns::query(0, name, *kind).is_none() {
                    out.push(format!("name: `{name}` is no DNS name (labels of 1 to 63 characters, 253 in all)"));
                }
                if matches!(expect, Some(DnsExpect::Rcode(16..))) {
                    out.push("rcode: must be 0 to 15".into());
                }
            }
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_floor_rounds_up_and_never_exceeds_the_servers() {
        let cases = [
            (Floor::None, 5, 0),
            (Floor::Count(2), 5, 2),
            (Floor::Count(9), 5, 5),
            (Floor::Percent(50), 5, 3),
            (Floor::Percent(1), 10_000, 100),
            (Floor::Percent(100), 3, 3),
            (Floor::Percent(50), 0, 0),
        ];
        for (floor, total, want) in cases {
            assert_eq!(floor.least(total), want, "{floor:?} of {total}");
        }
    }

    #[test]
    fn contradictions_are_reported_and_defaults_have_none() {
        type Spoil = fn(&mut MonitorSettings);
        let http = |change: fn(&mut HttpProbe)| {
            let mut probe = HttpProbe::default();
            change(&mut probe);
            Probe::Http(probe)
        };
        let cases: &[(Spoil, &str)] = &[
            (|m| m.interval = Duration::from_millis(99), "interval"),
            (|m| m.timeout = Duration::ZERO, "timeout"),
            (|m| m.samples = 0, "samples"),
            (|m| m.samples = 1001, "samples"),
            (|m| m.max_lost = Some(10), "max_lost"),
            (|m| m.max_latency = Some(Duration::from_secs(3)), "max_latency"),
            (|m| m.fall = 0, "fall"),
            (|m| m.rise = 0, "rise"),
            (|m| m.jitter_percent = 51, "jitter"),
            (|m| m.ports = vec![0], "ports"),
            (|m| m.probe = Probe::Udp { payload: vec![], expect: Expect::Regex("(".into()) }, "regular expression"),
            (|m| m.probe = Probe::Udp { payload: vec![0; 1201], expect: Expect::Prefix(vec![]) }, "payload"),
            (|m| m.probe = Probe::Dns { name: "a..b".into(), kind: DnsKind::A, expect: None }, "name"),
        ];
        for (spoil, want) in cases {
            let mut monitor = MonitorSettings::new("m", Probe::Tcp);
            spoil(&mut monitor);
            let got = monitor.problems();
            assert!(got.iter().any(|p| p.contains(want)), "{want}: {got:?}");
        }
        let cases = [
            (http(|p| p.path = "x".into()), "path"),
            (http(|p| p.headers = vec![("a".into(), "b\r\nc: d".into())]), "headers"),
            (http(|p| p.headers = vec![("a".into(), "b".repeat(1200))]), "request"),
            (http(|p| p.status = vec![(300, 200)]), "status"),
            (http(|p| p.max_bytes = 0), "max_bytes"),
            (http(|p| p.expect = Some(Expect::Regex("[".into()))), "regular expression"),
            (http(|p| p.load = Some(LoadSource::Regex("(\\d+)".into()))), "group `load`"),
        ];
        for (probe, want) in cases {
            let got = MonitorSettings::new("m", probe).problems();
            assert!(got.iter().any(|p| p.contains(want)), "{want}: {got:?}");
        }
        for probe in [Probe::Icmp, Probe::Tcp, Probe::Http(HttpProbe::default())] {
            assert_eq!(MonitorSettings::new("m", probe).problems(), [] as [String; 0]);
        }
    }
}
