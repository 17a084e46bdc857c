//! What an operator configures of balancing: services, pools, servers. Plain checked values.

use crate::ids::{NatPoolId, PoolId, ServerId};
pub use crate::packet::Protocol;
use crate::time::Duration;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// One address or network, protocol and range of ports at which a service takes new flows.
///
/// Where several hold a packet's destination, the one with the longest prefix gets it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Listen {
    /// The service address (VIP), or the first address of the network.
    pub address: IpAddr,
    /// Bits that a destination must share with it: 32 (IPv6: 128) for the address alone, 0 for every address.
    pub prefix: u8,
    /// The protocol.
    pub protocol: Protocol,
    /// First port; 0 for ICMP.
    pub first_port: u16,
    /// Last port, included; 65535 for ICMP.
    pub last_port: u16,
}

impl Listen {
    /// One address alone.
    pub const fn one(address: IpAddr, protocol: Protocol, first_port: u16, last_port: u16) -> Self {
        let prefix = if address.is_ipv4() { 32 } else { 128 };
        Listen { address, prefix, protocol, first_port, last_port }
    }

    /// The addresses that it holds.
    pub fn network(&self) -> IpNet {
        IpNet::new(self.address, self.prefix).map_or(self.address.into(), |net| net.trunc())
    }

    /// Whether it is more than one address.
    pub fn is_network(&self) -> bool {
        self.network().prefix_len() < self.network().max_prefix_len()
    }
}

/// As in the configuration: `192.0.2.80:80/tcp`, `[2001:db8::80]:8000-8100/udp`, `192.0.2.80/icmp`, `203.0.113.0/24:80/tcp`.
impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.address {
            IpAddr::V4(address) => write!(f, "{address}")?,
            IpAddr::V6(address) => write!(f, "[{address}]")?,
        }
        if self.is_network() {
            write!(f, "/{}", self.prefix)?;
        }
        match self.protocol {
            Protocol::Icmp | Protocol::Ip(_) => {}
            _ if self.first_port == self.last_port => write!(f, ":{}", self.first_port)?,
            _ => write!(f, ":{}-{}", self.first_port, self.last_port)?,
        }
        write!(f, "/{}", self.protocol.name())
    }
}

/// What is done with a TCP packet that belongs to no flow and opens none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, Default)]
#[serde(rename_all = "lowercase")]
pub enum UnknownTcp {
    /// Answer with a reset (RFC 9293, 3.10.7.1), rate-limited.
    #[default]
    Reset,
    /// Drop in silence.
    Drop,
    /// Make its flow, without a handshake, so that connections outlive a restart of the gateway; only where the algorithm finds
    /// the same server again. Resets and SYN-ACKs are dropped.
    Adopt,
}

/// The timeouts of a service's flows by protocol and service port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PortTimeouts {
    /// The protocol.
    pub protocol: Protocol,
    /// First service port: the destination port of the client's packets.
    pub first_port: u16,
    /// Last service port, included.
    pub last_port: u16,
    /// The profile of the flow table, as its settings number them.
    pub profile: u8,
}

/// Whether the maximum segment size in a SYN is lowered (MSS clamping).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mss {
    /// It stays as it is.
    #[default]
    Off,
    /// To what the known MTUs of the ways to client and server take.
    Auto,
    /// To this many bytes.
    To(u16),
}

/// What of a flow's addresses is translated.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Nat {
    /// The destination: servers see their clients, and answer through the gateway.
    #[default]
    Destination,
    /// The source too: servers see an address of a pool, and answer there.
    Full {
        /// The pool.
        pool: NatPoolId,
        /// The clients that it is for; none named are all. Others see [`Nat::Destination`].
        only_for: Vec<IpNet>,
        /// Whether the pool has IPv4 addresses, and IPv6 ones.
        families: [bool; 2],
    },
}

impl Nat {
    /// The pool that a client's flows get their source from, if any.
    pub fn pool_for(&self, client: IpAddr) -> Option<NatPoolId> {
        match self {
            Nat::Full { pool, only_for, .. } if only_for.is_empty() || only_for.iter().any(|n| n.contains(&client)) => {
                Some(*pool)
            }
            _ => None,
        }
    }
}

/// How a service spreads new flows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, Default)]
#[serde(rename_all = "kebab-case")]
pub enum Algorithm {
    /// In turn, by weight.
    #[default]
    RoundRobin,
    /// To the server with the fewest flows for its weight.
    LeastConnections,
    /// To the server with the fewest new flows for its weight within a window.
    ConnectionRate,
    /// By chance, as likely as the weight.
    Random,
    /// Two by chance; of these the one with fewer flows for its weight.
    TwoChoices,
    /// By the client's address or network; when a server goes, only its clients move.
    SourceHash,
    /// Maglev's consistent hash (Eisenbud et al., NSDI 2016).
    Maglev,
    /// To the server whose probes come back fastest, for its weight.
    LeastLatency,
    /// In turn over the group of the best priority that has a usable server.
    Priority,
    /// To the server that reports the least load, whatever its weight.
    ResourceUsage,
}

impl Algorithm {
    /// Every algorithm, in the order in which the documentation shows them.
    pub const ALL: [Algorithm; 10] = [
        Algorithm::RoundRobin,
        Algorithm::LeastConnections,
        Algorithm::ConnectionRate,
        Algorithm::Random,
        Algorithm::TwoChoices,
        Algorithm::SourceHash,
        Algorithm::Maglev,
        Algorithm::LeastLatency,
        Algorithm::Priority,
        Algorithm::ResourceUsage,
    ];

    /// The word used in configurations and tables.
    pub const fn name(self) -> &'static str {
        match self {
            Algorithm::RoundRobin => "round-robin",
            Algorithm::LeastConnections => "least-connections",
            Algorithm::ConnectionRate => "connection-rate",
            Algorithm::Random => "random",
            Algorithm::TwoChoices => "two-choices",
            Algorithm::SourceHash => "source-hash",
            Algorithm::Maglev => "maglev",
            Algorithm::LeastLatency => "least-latency",
            Algorithm::Priority => "priority",
            Algorithm::ResourceUsage => "resource-usage",
        }
    }
}

/// What of a client counts as one: an address, or a whole network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Prefixes {
    /// Bits of an IPv4 address that count, 0 to 32.
    pub v4: u8,
    /// Bits of an IPv6 address that count, 0 to 128.
    pub v6: u8,
}

impl Prefixes {
    /// The address as it is.
    pub const ADDRESS: Prefixes = Prefixes { v4: 32, v6: 128 };

    /// The address with all bits cleared that do not count.
    pub fn of(&self, address: IpAddr) -> IpAddr {
        match address {
            IpAddr::V4(a) => {
                let mask = u32::MAX.checked_shl(32 - u32::from(self.v4.min(32))).unwrap_or(0);
                Ipv4Addr::from(a.to_bits() & mask).into()
            }
            IpAddr::V6(a) => {
                let mask = u128::MAX.checked_shl(128 - u32::from(self.v6.min(128))).unwrap_or(0);
                Ipv6Addr::from(a.to_bits() & mask).into()
            }
        }
    }
}

/// What the algorithms can be told; each reads only its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tuning {
    /// Connection rate: how far back new flows count, 100 ms to 1 h.
    pub rate_window: Duration,
    /// Maglev: entries of the table, a prime; 65,537 or 655,373 in the paper.
    pub maglev_table: u32,
    /// Source hash and Maglev: what of the client is hashed; none is the whole flow (Maglev alone).
    pub hash: Option<Prefixes>,
}

impl Default for Tuning {
    fn default() -> Self {
        Tuning { rate_window: Duration::from_secs(10), maglev_table: 65_537, hash: None }
    }
}

/// How clients are kept at the server of their first flow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stickiness {
    /// Which clients count as one.
    pub prefixes: Prefixes,
    /// How long a client without a flow is remembered.
    pub idle: Duration,
    /// Most clients remembered, 1 to 100,000,000; the one idle longest is forgotten first.
    pub slots: u32,
    /// Services with the same number share what they remember; they have the same pool.
    pub group: u32,
}

/// What becomes of a server's flows when it goes down or is disabled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnDown {
    /// They stay; each packet still goes to that server.
    Keep,
    /// TCP: both ends get a reset. Others end; the next packet picks another server.
    Reset,
}

/// What answers a new flow when no server can take it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum LastResort {
    /// Nothing: the packet is dropped and counted.
    #[default]
    Drop,
    /// TCP: a reset (RFC 9293, 3.10.7.1). Others: as `Unreachable`.
    Reset,
    /// ICMP destination unreachable: port (RFC 792; RFC 4443, 3.1).
    Unreachable,
    /// The servers of another pool, in turn.
    Pool(PoolId),
}

/// What the operator wants of a server, whatever its health.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, Default)]
#[serde(rename_all = "kebab-case")]
pub enum Admin {
    /// It takes flows.
    #[default]
    Enabled,
    /// It keeps its flows and gets no new ones, sticky or not.
    Draining,
    /// It is taken as down.
    Disabled,
}

/// Signs from the traffic itself that a server is in trouble.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Passive {
    /// Signs within `within` that take a server out, at least 1: a SYN unanswered, refused, or answered by an ICMP error.
    pub failures: u32,
    /// How far back signs count.
    pub within: Duration,
    /// How long a server stays out the first time; doubled each time after, until it behaved for `longest`.
    pub hold: Duration,
    /// Longest time out.
    pub longest: Duration,
}

impl Default for Passive {
    fn default() -> Self {
        let s = Duration::from_secs;
        Passive { failures: 5, within: s(10), hold: s(10), longest: s(300) }
    }
}

/// How dear new flows are when there is not room for all: lower ones are refused first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Default)]
#[serde(rename_all = "kebab-case")]
pub enum Priority {
    /// Refused first.
    Low,
    /// Refused next.
    #[default]
    Normal,
    /// Refused last.
    High,
}

impl Priority {
    /// The word used in configurations and tables.
    pub const fn name(self) -> &'static str {
        match self {
            Priority::Low => "low",
            Priority::Normal => "normal",
            Priority::High => "high",
        }
    }
}

/// A service: what clients connect to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceSettings {
    /// Unique name.
    pub name: String,
    /// At least one; no two services overlap.
    pub listen: Vec<Listen>,
    /// Where its flows go.
    pub pool: PoolId,
    /// How they are spread.
    pub algorithm: Algorithm,
    /// What the algorithm can be told.
    pub tuning: Tuning,
    /// Whether clients come back to the same server; none is by connection alone.
    pub sticky: Option<Stickiness>,
    /// What becomes of flows whose server goes down; none: TCP that it has answered stays, others pick another server.
    pub on_down: Option<OnDown>,
    /// What answers when no server can take a flow.
    pub last_resort: LastResort,
    /// What becomes of TCP packets of no flow.
    pub unknown_tcp: UnknownTcp,
    /// Whose timeouts its flows have, in the order of protocol and port, none overlapping; profile 0 elsewhere.
    pub timeouts: Vec<PortTimeouts>,
    /// How dear its new flows are when there is not room for all.
    pub priority: Priority,
    /// Whether the segment size that TCP ends tell each other is lowered.
    pub mss: Mss,
    /// What of a flow's addresses is translated.
    pub nat: Nat,
}

impl ServiceSettings {
    /// A service with every setting at its default.
    pub fn new(name: &str, listen: Vec<Listen>, pool: PoolId) -> Self {
        ServiceSettings {
            name: name.into(),
            listen,
            pool,
            algorithm: Algorithm::default(),
            tuning: Tuning::default(),
            sticky: None,
            on_down: None,
            last_resort: LastResort::default(),
            unknown_tcp: UnknownTcp::default(),
            timeouts: Vec::new(),
            priority: Priority::default(),
            mss: Mss::default(),
            nat: Nat::default(),
        }
    }

    /// The address at which a server is reached for clients that came by a family: its own of that family, or with full NAT for
    /// everybody one of the other family (NAT64, NAT46), as far as the NAT pool has source addresses.
    pub fn reach(&self, server: &ServerSettings, v6: bool) -> Option<IpAddr> {
        let of = |v6: bool| if v6 { server.v6.map(IpAddr::V6) } else { server.v4.map(IpAddr::V4) };
        match &self.nat {
            Nat::Full { only_for, families, .. } if only_for.is_empty() => {
                [v6, !v6].into_iter().filter(|family| families[usize::from(*family)]).find_map(of)
            }
            _ => of(v6),
        }
    }

    /// The profile of timeouts for a flow of a protocol to a service port.
    pub fn profile(&self, protocol: Protocol, port: u16) -> u8 {
        let behind = self.timeouts.partition_point(|t| (t.protocol, t.first_port) <= (protocol, port));
        let found = behind.checked_sub(1).map(|at| self.timeouts[at]);
        found.filter(|t| t.protocol == protocol && port <= t.last_port).map_or(0, |t| t.profile)
    }

    /// What becomes of its flows of a protocol when their server goes down.
    pub fn on_down(&self, protocol: Protocol) -> OnDown {
        self.on_down.unwrap_or(if protocol == Protocol::Tcp { OnDown::Keep } else { OnDown::Reset })
    }
}

/// A pool: servers that offer the same thing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolSettings {
    /// Unique name.
    pub name: String,
    /// The servers, in the order of the file.
    pub servers: Vec<ServerId>,
    /// Whether signs from the traffic take servers out.
    pub passive: Option<Passive>,
    /// MTU of the way to its servers in bytes, 576 (1280 where one has an IPv6 address) to 65,535; none is found out by
    /// the live gateway, and unknown elsewhere.
    pub mtu: Option<u16>,
}

impl PoolSettings {
    /// A pool with every setting at its default.
    pub fn new(name: &str, servers: Vec<ServerId>) -> Self {
        PoolSettings { name: name.into(), servers, passive: None, mtu: None }
    }
}

/// A real server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerSettings {
    /// Unique within its pool.
    pub name: String,
    /// The pool it stands in.
    pub pool: PoolId,
    /// IPv4 address, if it serves IPv4.
    pub v4: Option<Ipv4Addr>,
    /// IPv6 address, if it serves IPv6.
    pub v6: Option<Ipv6Addr>,
    /// Port; `None` is "same as the service".
    pub port: Option<u16>,
    /// Share of new flows relative to the pool's other servers, 0 to 65,535; 0 gets none.
    pub weight: u16,
    /// Most flows at a time; none is no limit.
    pub max_flows: Option<u32>,
    /// How long the weight takes to rise after the server came up; zero is at once.
    pub slow_start: Duration,
    /// Used only while no other server of the pool is up and enabled.
    pub backup: bool,
    /// Rank for the algorithm `priority`: the least is used first.
    pub priority: u16,
    /// What the operator wants of it at the start.
    pub admin: Admin,
}

impl ServerSettings {
    /// A server with every setting at its default; without an address it takes nothing.
    pub fn new(name: &str, pool: PoolId) -> Self {
        ServerSettings {
            name: name.into(),
            pool,
            v4: None,
            v6: None,
            port: None,
            weight: 1,
            max_flows: None,
            slow_start: Duration::ZERO,
            backup: false,
            priority: 1,
            admin: Admin::Enabled,
        }
    }
}

impl ServerSettings {
    /// Whether it has an address of a family.
    pub fn has(&self, v6: bool) -> bool {
        if v6 { self.v6.is_some() } else { self.v4.is_some() }
    }

    /// The server's address of the same family as `like`.
    pub fn address(&self, like: IpAddr) -> Option<IpAddr> {
        match like {
            IpAddr::V4(_) => self.v4.map(IpAddr::V4),
            IpAddr::V6(_) => self.v6.map(IpAddr::V6),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_keeps_its_bits_and_clears_the_others() {
        let cases = [
            ("10.1.2.3", 32, 128, "10.1.2.3"),
            ("10.1.2.3", 24, 64, "10.1.2.0"),
            ("10.1.2.3", 0, 64, "0.0.0.0"),
            ("2001:db8:1:2:3::4", 24, 64, "2001:db8:1:2::"),
            ("2001:db8::4", 24, 128, "2001:db8::4"),
            ("2001:db8::4", 24, 0, "::"),
        ];
        for (address, v4, v6, want) in cases {
            let got = Prefixes { v4, v6 }.of(address.parse().unwrap());
            assert_eq!(got, want.parse::<IpAddr>().unwrap(), "{address} /{v4} /{v6}");
        }
    }
}
