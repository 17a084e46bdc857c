//! The operator's settings for balancing: services, pools, servers. Plain checked values.

use crate::ids::{NatPoolId, PoolId, ServerId};
pub use crate::packet::Protocol;
use crate::time::Duration;
use crate::words::words;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// One address or network, protocol and port range on which a service accepts new flows.
///
/// If several contain a packet's destination, the one with the longest prefix gets it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Listen {
    /// The service address (VIP), or the first address of the network.
    pub address: IpAddr,
    /// Prefix length: 32 (IPv6: 128) for a single address, 0 for every address.
    pub prefix: u8,
    /// The protocol.
    pub protocol: Protocol,
    /// First port; 0 for ICMP.
    pub first_port: u16,
    /// Last port, inclusive; 65535 for ICMP.
    pub last_port: u16,
}

impl Listen {
    /// Returns a listen address for a single address.
    pub const fn one(address: IpAddr, protocol: Protocol, first_port: u16, last_port: u16) -> Self {
        let prefix = if address.is_ipv4() { 32 } else { 128 };
        Listen { address, prefix, protocol, first_port, last_port }
    }

    /// Returns the addresses that it covers.
    pub fn network(&self) -> IpNet {
        IpNet::new(self.address, self.prefix).map_or(self.address.into(), |net| net.trunc())
    }

    /// Returns whether it is more than one address.
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

/// What happens to a TCP packet that belongs to no flow and opens none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, Default)]
#[serde(rename_all = "lowercase")]
pub enum UnknownTcp {
    /// Reply with a reset (RFC 9293, 3.10.7.1), rate-limited.
    #[default]
    Reset,
    /// Drop silently.
    Drop,
    /// Create its flow without a handshake, so that connections survive a restart of the gateway; only with algorithms
    /// that find the same server again. Resets and SYN-ACKs are dropped.
    Adopt,
}

/// The timeouts of a service's flows by protocol and service port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PortTimeouts {
    /// The protocol.
    pub protocol: Protocol,
    /// First service port: the destination port of the client's packets.
    pub first_port: u16,
    /// Last service port, inclusive.
    pub last_port: u16,
    /// The profile of the flow table, as the table's settings number them.
    pub profile: u8,
}

/// Whether the maximum segment size in a SYN is lowered (MSS clamping).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mss {
    /// It is left unchanged.
    #[default]
    Off,
    /// To what the known MTUs of the paths to client and server allow.
    Auto,
    /// To this many bytes.
    To(u16),
}

/// Which of a flow's addresses are translated.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Nat {
    /// The destination: servers see their clients' addresses and reply through the gateway.
    #[default]
    Destination,
    /// The source too: servers see an address of a pool and reply to it.
    Full {
        /// The pool.
        pool: NatPoolId,
        /// The clients that it applies to; empty means all. Others get [`Nat::Destination`].
        only_for: Vec<IpNet>,
        /// Whether the pool has IPv4 addresses, and whether it has IPv6 addresses.
        families: [bool; 2],
    },
}

impl Nat {
    /// Returns the pool that a client's flows get their source from, if any.
    pub fn pool_for(&self, client: IpAddr) -> Option<NatPoolId> {
        match self {
            Nat::Full { pool, only_for, .. } if only_for.is_empty() || only_for.iter().any(|n| n.contains(&client)) => {
                Some(*pool)
            }
            _ => None,
        }
    }
}

words! {
    /// How a service distributes new flows.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, Default)]
    #[serde(rename_all = "kebab-case")]
    pub enum Algorithm {
        /// In turn, by weight.
        #[default]
        RoundRobin = "round-robin",
        /// To the server with the fewest flows for its weight.
        LeastConnections = "least-connections",
        /// To the server with the fewest new flows for its weight within a window.
        ConnectionRate = "connection-rate",
        /// At random, in proportion to the weights.
        Random = "random",
        /// Of two random servers, to the one with fewer flows for its weight.
        TwoChoices = "two-choices",
        /// By the client's address or network; when a server goes, only its clients move.
        SourceHash = "source-hash",
        /// Maglev's consistent hash (Eisenbud et al., NSDI 2016).
        Maglev = "maglev",
        /// To the server with the shortest probe round trip for its weight.
        LeastLatency = "least-latency",
        /// In turn over the best-ranked group that has a usable server.
        Priority = "priority",
        /// To the server that reports the least load, whatever its weight.
        ResourceUsage = "resource-usage",
    }
}

/// What counts as one client: an address, or a whole network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Prefixes {
    /// Significant bits of an IPv4 address, 0 to 32.
    pub v4: u8,
    /// Significant bits of an IPv6 address, 0 to 128.
    pub v6: u8,
}

impl Prefixes {
    /// The whole address.
    pub const ADDRESS: Prefixes = Prefixes { v4: 32, v6: 128 };

    /// Returns the address with all insignificant bits cleared.
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

/// The parameters of the algorithms; each reads only its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tuning {
    /// Connection rate: the window for counting new flows, 100 ms to 1 h.
    pub rate_window: Duration,
    /// Maglev: entries of the table, a prime; 65,537 or 655,373 in the paper.
    pub maglev_table: u32,
    /// Source hash and Maglev: the part of the client that is hashed; none hashes the whole flow (Maglev only).
    pub hash: Option<Prefixes>,
}

impl Default for Tuning {
    fn default() -> Self {
        Tuning { rate_window: Duration::from_secs(10), maglev_table: 65_537, hash: None }
    }
}

/// How clients are kept on the server of their first flow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stickiness {
    /// What counts as one client.
    pub prefixes: Prefixes,
    /// How long a client without flows is remembered.
    pub idle: Duration,
    /// Maximum number of clients remembered, 1 to 100,000,000; the client idle longest is evicted first.
    pub slots: u32,
    /// Services with the same number share their sticky slots; they use the same pool.
    pub group: u32,
}

/// What happens to a server's flows when it goes down or is disabled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnDown {
    /// They stay; every packet still goes to that server.
    Keep,
    /// TCP: both ends get a reset. Other flows end; the next packet picks another server.
    Reset,
}

/// How a new flow is answered when no server can take it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum LastResort {
    /// Not at all: the packet is dropped and counted.
    #[default]
    Drop,
    /// TCP: with a reset (RFC 9293, 3.10.7.1). Others: as `Unreachable`.
    Reset,
    /// With an ICMP port unreachable error (RFC 792; RFC 4443, 3.1).
    Unreachable,
    /// By the servers of another pool, in turn.
    Pool(PoolId),
}

/// The administrative state of a server, whatever its health.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, Default)]
#[serde(rename_all = "kebab-case")]
pub enum Admin {
    /// It takes flows.
    #[default]
    Enabled,
    /// It keeps its flows and gets no new ones, sticky or not.
    Draining,
    /// It is treated as down.
    Disabled,
}

/// Passive-hold settings: signs from the traffic itself that a server is in trouble.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Passive {
    /// Signs within `within` that trigger a hold, at least 1: a SYN unanswered, refused, or answered by an ICMP error.
    pub failures: u32,
    /// How far back signs count.
    pub within: Duration,
    /// Length of the first hold; doubled each time until the server has behaved for `longest`.
    pub hold: Duration,
    /// Greatest length of a hold.
    pub longest: Duration,
}

impl Default for Passive {
    fn default() -> Self {
        let s = Duration::from_secs;
        Passive { failures: 5, within: s(10), hold: s(10), longest: s(300) }
    }
}

/// The priority of new flows when there is not room for all: lower ones are refused first.
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
    /// Returns the word used in configurations and tables.
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
    /// Whether it takes new flows; if not, its listen addresses answer as if no service listened there.
    pub enabled: bool,
    /// Listen addresses: at least one; no two services overlap.
    pub listen: Vec<Listen>,
    /// The pool that its flows go to.
    pub pool: PoolId,
    /// How they are distributed.
    pub algorithm: Algorithm,
    /// The parameters of the algorithm.
    pub tuning: Tuning,
    /// Whether clients return to the same server; none treats each connection separately.
    pub sticky: Option<Stickiness>,
    /// What happens to flows whose server goes down; none: TCP flows that it has answered stay, others pick another
    /// server.
    pub on_down: Option<OnDown>,
    /// How a new flow is answered when no server can take it.
    pub last_resort: LastResort,
    /// What happens to TCP packets without a flow.
    pub unknown_tcp: UnknownTcp,
    /// The timeouts of its flows, ordered by protocol and port, none overlapping; profile 0 elsewhere.
    pub timeouts: Vec<PortTimeouts>,
    /// The priority of its new flows when there is not room for all.
    pub priority: Priority,
    /// Whether the maximum segment size that TCP ends announce is lowered.
    pub mss: Mss,
    /// Which of a flow's addresses are translated.
    pub nat: Nat,
}

impl ServiceSettings {
    /// Returns a service with every setting at its default.
    pub fn new(name: &str, listen: Vec<Listen>, pool: PoolId) -> Self {
        ServiceSettings {
            name: name.into(),
            enabled: true,
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

    /// Returns the address of a server for clients of one family: its own address of that family, or with full NAT its
    /// address of the other family (NAT64, NAT46), provided that the NAT pool has source addresses for it.
    pub fn reach(&self, server: &ServerSettings, v6: bool) -> Option<IpAddr> {
        reached_address(server, v6, self.across())
    }

    /// Returns the families of the NAT pool, if it gives the source of all flows.
    pub fn across(&self) -> Option<[bool; 2]> {
        match &self.nat {
            Nat::Full { only_for, families, .. } if only_for.is_empty() => Some(*families),
            _ => None,
        }
    }

    /// Returns the timeout profile for a flow of a protocol to a service port.
    pub fn profile(&self, protocol: Protocol, port: u16) -> u8 {
        let behind = self.timeouts.partition_point(|t| (t.protocol, t.first_port) <= (protocol, port));
        let found = behind.checked_sub(1).map(|at| self.timeouts[at]);
        found.filter(|t| t.protocol == protocol && port <= t.last_port).map_or(0, |t| t.profile)
    }

    /// Returns what happens to its flows of a protocol when their server goes down.
    pub fn on_down(&self, protocol: Protocol) -> OnDown {
        self.on_down.unwrap_or(if protocol == Protocol::Tcp { OnDown::Keep } else { OnDown::Reset })
    }
}

/// Returns the address of a server for clients of one family; `across` are the families of a NAT pool that gives the
/// source of all flows.
pub fn reached_address(server: &ServerSettings, v6: bool, across: Option<[bool; 2]>) -> Option<IpAddr> {
    reached((server.v4, server.v6), v6, across)
}

/// Returns the same for a server of these addresses.
pub(super) fn reached(
    (v4_of_it, v6_of_it): (Option<Ipv4Addr>, Option<Ipv6Addr>),
    v6: bool,
    across: Option<[bool; 2]>,
) -> Option<IpAddr> {
    let of = |v6: bool| if v6 { v6_of_it.map(IpAddr::V6) } else { v4_of_it.map(IpAddr::V4) };
    match across {
        Some(families) => [v6, !v6].into_iter().filter(|family| families[usize::from(*family)]).find_map(of),
        None => of(v6),
    }
}

/// A pool: interchangeable servers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolSettings {
    /// Unique name.
    pub name: String,
    /// The servers, in file order.
    pub servers: Vec<ServerId>,
    /// Whether signs from the traffic put servers on a passive hold.
    pub passive: Option<Passive>,
    /// Path MTU to its servers in bytes, 576 (1280 if any has an IPv6 address) to 65,535; if none, the live gateway
    /// discovers it, and elsewhere it is unknown.
    pub mtu: Option<u16>,
}

impl PoolSettings {
    /// Returns a pool with every setting at its default.
    pub fn new(name: &str, servers: Vec<ServerId>) -> Self {
        PoolSettings { name: name.into(), servers, passive: None, mtu: None }
    }
}

/// A real server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerSettings {
    /// Unique within its pool.
    pub name: String,
    /// The pool that it belongs to.
    pub pool: PoolId,
    /// IPv4 address, if it serves IPv4.
    pub v4: Option<Ipv4Addr>,
    /// IPv6 address, if it serves IPv6.
    pub v6: Option<Ipv6Addr>,
    /// Port; `None` keeps the service port.
    pub port: Option<u16>,
    /// Share of new flows relative to the other servers of the pool, 0 to 65,535; 0 gets none.
    pub weight: u16,
    /// Maximum number of simultaneous flows; none is unlimited.
    pub max_flows: Option<u32>,
    /// How long the weight takes to rise after the server comes up; zero is at once.
    pub slow_start: Duration,
    /// Used only while no other server of the pool is up and enabled.
    pub backup: bool,
    /// Rank for the algorithm `priority`: the lowest is used first.
    pub priority: u16,
    /// The administrative state at the start.
    pub admin: Admin,
}

impl ServerSettings {
    /// Returns a server with every setting at its default; without an address it takes no flows.
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
    /// Returns the server with these addresses; of two of one family, the later one counts.
    #[must_use]
    pub fn with_addresses(mut self, addresses: impl IntoIterator<Item = IpAddr>) -> Self {
        for address in addresses {
            match address {
                IpAddr::V4(v4) => self.v4 = Some(v4),
                IpAddr::V6(v6) => self.v6 = Some(v6),
            }
        }
        self
    }

    /// Returns whether it has an address of a family.
    pub fn has(&self, v6: bool) -> bool {
        if v6 { self.v6.is_some() } else { self.v4.is_some() }
    }

    /// Returns the server's address of the same family as `like`.
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
