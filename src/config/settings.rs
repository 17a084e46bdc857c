//! The checked settings, as every driver of the engine takes them.

use super::raw::Raw;
use crate::balance::{LastResort, Listen, PoolSettings, ServerSettings, ServiceSettings};
use crate::flow::{FragmentSettings, NatPoolSettings, TableSettings};
use crate::health::HealthSettings;
use crate::ids::PoolId;
use crate::policy::{Action, PolicySettings};
use crate::sources::{DnsSettings, SourceSettings};
use crate::time::Duration;
use ipnet::IpNet;
use std::collections::{BTreeMap, HashSet};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;

/// Everything that a configuration file says, checked once.
///
/// Invariants: every `PoolId` and `ServerId` in it is an index into its vectors; names are unique;
/// no two services listen on the same address, protocol and port; every service has, for each
/// family that it listens on, at least one server in its pool with an address of that family,
/// unless the pool takes servers from outside: such a pool may have none.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Settings {
    /// Seed of all random choices in the engine; two runs with the same seed make the same decisions. For the live gateway 0
    /// means that a random seed is drawn at the start.
    pub seed: u64,
    /// The flow table.
    pub table: TableSettings,
    /// Services, in the order of the file; `ServiceId` is the index.
    pub services: Vec<ServiceSettings>,
    /// Pools, in the order of the file; `PoolId` is the index.
    pub pools: Vec<PoolSettings>,
    /// Servers of all pools, in the order of the file; `ServerId` is the index.
    pub servers: Vec<ServerSettings>,
    /// Names of the sticky groups that the file names, by their number in [`Stickiness::group`](crate::balance::Stickiness).
    pub sticky_groups: BTreeMap<u32, String>,
    /// Source addresses for full NAT, in the order of the file; `NatPoolId` is the index.
    pub nat_pools: Vec<NatPoolSettings>,
    /// How servers are monitored, and from which addresses.
    pub health: HealthSettings,
    /// Handling of fragments.
    pub fragments: FragmentSettings,
    /// What the gateway answers on behalf of its services.
    pub answers: AnswerSettings,
    /// Rules, limits and priorities.
    pub policy: PolicySettings,
    /// Where pools take servers from besides the file, in the order of the pools. `servers` has those that were found, if
    /// the settings were made with them.
    pub sources: Vec<SourceSettings>,
    /// How names are resolved.
    pub dns: DnsSettings,
    /// The other gateway of a pair, if there is one.
    pub sync: Option<PairSettings>,
    /// What only the live gateway needs.
    pub gateway: GatewaySettings,
    /// What the live gateway serves over HTTP.
    pub http: HttpSettings,
}

impl Settings {
    /// Returns every route that a flow can take: a listen address, and a pool whose servers may get its flows. None is listed
    /// twice.
    pub fn routes(&self) -> Vec<(Listen, PoolId)> {
        let mut routes = Vec::new();
        let pools = |service: &ServiceSettings| {
            let last = if let LastResort::Pool(pool) = service.last_resort { Some(pool) } else { None };
            [Some(service.pool), last].into_iter().flatten()
        };
        for service in &self.services {
            for pool in pools(service) {
                routes.extend(service.listen.iter().map(|listen| (*listen, pool)));
            }
        }
        // A rule can send to a service what came to any address.
        let mut named = HashSet::new();
        for rule in &self.policy.rules {
            let Action::Balance(Some(service)) = rule.action else { continue };
            for pool in pools(&self.services[service.0 as usize]).filter(|pool| named.insert(*pool)) {
                routes.extend(self.services.iter().flat_map(|s| &s.listen).map(|listen| (*listen, pool)));
            }
        }
        let mut seen = HashSet::new();
        routes.retain(|route| seen.insert(*route));
        routes
    }

    /// Returns the same settings with another seed wherever one is used.
    pub fn with_seed(self, seed: u64) -> Self {
        Settings { seed, health: HealthSettings { seed, ..self.health }, ..self }
    }

    /// Returns these settings as far as they can take effect while the gateway runs that has `in_force`: what needs a
    /// restart stays as it is there.
    #[must_use]
    pub fn live(self, in_force: &Settings) -> Settings {
        let old = &in_force.gateway;
        Settings {
            table: TableSettings {
                max_flows: in_force.table.max_flows,
                max_half_open: in_force.table.max_half_open,
                ..self.table
            },
            gateway: GatewaySettings {
                device: old.device.clone(),
                offload: old.offload,
                shortcut: old.shortcut,
                announce: old.announce,
                keep_fallback: old.keep_fallback,
                control_socket: old.control_socket.clone(),
                route_table: old.route_table,
                rule_priority: old.rule_priority,
                ..self.gateway
            },
            sync: in_force.sync.clone().map(|old| match self.sync.as_ref() {
                Some(new) => PairSettings { before_answer: new.before_answer, health: new.health, ..old },
                None => old,
            }),
            ..self
        }
        .with_seed(in_force.seed)
    }

    /// Returns whether flows outlive the gateway, in a file or at a peer: their packets wait while it is away.
    pub fn flows_outlive(&self) -> bool {
        self.gateway.state_file.is_some() || self.sync.is_some()
    }

    /// Counts the monitors.
    pub fn monitors(&self) -> usize {
        self.health.pools.iter().map(|pool| pool.monitors.len()).sum()
    }
}

/// The other gateway of a pair, and how to share flows with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PairSettings {
    /// The name of this gateway.
    pub node: String,
    /// The name of the other one.
    pub peer: String,
    /// Where this gateway talks to the other one.
    pub address: SocketAddr,
    /// Where the other one does.
    pub peer_address: SocketAddr,
    /// The file with the key that both share.
    pub key_file: PathBuf,
    /// The tunnel that leads there, if it is one.
    pub interface: Option<String>,
    /// Whether flows may be sent without encryption.
    pub insecure: bool,
    /// How long a gateway that has started waits for the flows of the other one.
    pub learning: Duration,
    /// A file that tells keepalived whether this gateway may be elected.
    pub track_file: Option<PathBuf>,
    /// When service addresses are routed to the device.
    pub routes: PairRoutes,
    /// Whether a server's answer to a SYN waits until the other one knows of the connection, at most 20 ms.
    pub before_answer: bool,
    /// Whose view of the servers' health a standby has.
    pub health: PairHealth,
}

/// Whose view of the servers' health a gateway of a pair has while it stands by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PairHealth {
    /// Its own: it probes.
    #[default]
    Own,
    /// That of the active gateway: it does not probe as long as that tells it.
    Active,
}

/// When the service addresses of a gateway that has a peer are routed to its device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PairRoutes {
    /// While it runs.
    #[default]
    Always,
    /// While it is active.
    WhenActive,
}

impl Default for DnsSettings {
    fn default() -> Self {
        Raw::of_nothing().dns
    }
}

/// What answers a new flow when the flow table is full or no source port is left.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum NoRoom {
    /// ICMP type 3 code 13, administratively prohibited (RFC 5508 REQ-8); ICMPv6 type 1 code 1.
    #[default]
    Prohibited,
    /// ICMP type 3 code 1, host unreachable (RFC 6888 REQ-11); ICMPv6 type 1 code 3.
    HostUnreachable,
    /// Nothing; the packet is dropped.
    Drop,
}

/// What the gateway answers on behalf of its services, and how often.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AnswerSettings {
    /// Whether a packet to a service address on a port where no service listens is answered: TCP by a reset, UDP by ICMP.
    pub no_service: bool,
    /// Whether a transport protocol that a service address does not offer is answered by ICMP.
    pub other_protocol: bool,
    /// What answers a new flow that there is no room for.
    pub no_room: NoRoom,
    /// Most resets and ICMP errors per second.
    pub per_second: u32,
}

impl Default for AnswerSettings {
    fn default() -> Self {
        Raw::of_nothing().answers
    }
}

/// Where the live gateway serves metrics, the page and the API over HTTP.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HttpSettings {
    /// Address and port; nothing is served without.
    pub listen: Option<SocketAddr>,
    /// Whether the address may be one that other machines can reach.
    pub remote: bool,
    /// Names that clients may use besides addresses and `localhost`, in lower case.
    pub names: Vec<String>,
}

/// What only the live gateway needs; replays and tests ignore it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GatewaySettings {
    /// Name of the TUN device.
    pub device: String,
    /// Whether the device uses vnet headers and segmentation offload.
    pub offload: bool,
    /// Whether the kernel carries packets of established TCP flows past the device.
    pub shortcut: bool,
    /// MTU of the device in bytes.
    pub mtu: u16,
    /// Path MTU towards the clients in bytes; `None` where unknown.
    pub client_mtu: Option<u16>,
    /// Addresses assigned to the device; rarely needed.
    pub addresses: Vec<IpNet>,
    /// Source of IPv4 probes: an address routed to the device and assigned to no interface.
    pub probe_v4: Option<Ipv4Addr>,
    /// Source of IPv6 probes, likewise.
    pub probe_v6: Option<Ipv6Addr>,
    /// Whether the kernel answers ARP and neighbour solicitations for service, NAT pool and probe addresses in networks that
    /// an interface is connected to.
    pub announce: bool,
    /// Whether the blackhole routes to these addresses stay when the gateway stops.
    pub keep_fallback: bool,
    /// The file that the state is saved in, and loaded from at the start.
    pub state_file: Option<PathBuf>,
    /// The time between two states.
    pub state_interval: Duration,
    /// Path of the control socket; its mode is 0600.
    pub control_socket: PathBuf,
    /// Number of the routing table that sends the servers' replies to the device.
    pub route_table: u32,
    /// Priority of the first of the two routing rules that point to it.
    pub rule_priority: u32,
}

impl Default for GatewaySettings {
    fn default() -> Self {
        Raw::of_nothing().gateway.settings
    }
}
