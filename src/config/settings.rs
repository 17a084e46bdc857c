//! The checked settings, as every driver of the engine takes them.

use crate::balance::{LastResort, Listen, PoolSettings, ServerSettings, ServiceSettings};
use crate::flow::{FragmentSettings, NatPoolSettings, TableSettings};
use crate::health::HealthSettings;
use crate::ids::PoolId;
use crate::policy::{Action, PolicySettings};
use ipnet::IpNet;
use std::collections::HashSet;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;

/// Everything a configuration file says, checked once.
///
/// Invariants: every `PoolId` and `ServerId` in it is an index into its vectors; names are unique;
/// no two services listen on the same address, protocol and port; every service has, for each
/// family that it listens on, at least one server in its pool with an address of that family.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Settings {
    /// Seed of everything random in the engine; two runs with one seed do the same. For the live gateway
    /// 0 means that one is to be drawn by chance at the start.
    pub seed: u64,
    /// The flow table.
    pub table: TableSettings,
    /// Services, in the order of the file; `ServiceId` is the index.
    pub services: Vec<ServiceSettings>,
    /// Pools, in the order of the file; `PoolId` is the index.
    pub pools: Vec<PoolSettings>,
    /// Servers of all pools, in the order of the file; `ServerId` is the index.
    pub servers: Vec<ServerSettings>,
    /// Source addresses for full NAT, in the order of the file; `NatPoolId` is the index.
    pub nat_pools: Vec<NatPoolSettings>,
    /// How servers are watched, and from which addresses.
    pub health: HealthSettings,
    /// Fragments of packets.
    pub fragments: FragmentSettings,
    /// What is answered in the services' name.
    pub answers: AnswerSettings,
    /// Rules, limits and classes.
    pub policy: PolicySettings,
    /// What only the live gateway needs.
    pub gateway: GatewaySettings,
}

impl Settings {
    /// All ways that a flow can take: a service address, and a pool whose servers may get its flows. None is listed twice.
    pub fn ways(&self) -> Vec<(Listen, PoolId)> {
        let mut ways = Vec::new();
        let pools = |service: &ServiceSettings| {
            let last = if let LastResort::Pool(pool) = service.last_resort { Some(pool) } else { None };
            [Some(service.pool), last].into_iter().flatten()
        };
        for service in &self.services {
            for pool in pools(service) {
                ways.extend(service.listen.iter().map(|listen| (*listen, pool)));
            }
        }
        // A rule can send what came to any address to a service.
        for rule in &self.policy.rules {
            let Action::Balance(Some(service)) = rule.action else { continue };
            for pool in pools(&self.services[service.0 as usize]) {
                ways.extend(self.services.iter().flat_map(|s| &s.listen).map(|listen| (*listen, pool)));
            }
        }
        let mut seen = HashSet::new();
        ways.retain(|way| seen.insert(*way));
        ways
    }

    /// The same settings with another seed wherever one is used.
    pub fn with_seed(self, seed: u64) -> Self {
        Settings { seed, health: HealthSettings { seed, ..self.health }, ..self }
    }

    /// How many monitors there are.
    pub fn monitors(&self) -> usize {
        self.health.pools.iter().map(|pool| pool.monitors.len()).sum()
    }
}

/// What a client is told that comes to a full table, or when no source port is left.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum NoRoom {
    /// ICMP type 3 code 13, administratively prohibited (RFC 5508 REQ-8); ICMPv6 type 1 code 1.
    #[default]
    Prohibited,
    /// ICMP type 3 code 1, host unreachable (RFC 6888 REQ-11); ICMPv6 type 1 code 3.
    HostUnreachable,
    /// Nothing.
    Drop,
}

/// What the gateway answers in its services' name, and how often.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AnswerSettings {
    /// Whether a packet to a port of a service address where no service listens is answered: TCP by a reset, UDP by ICMP.
    pub no_service: bool,
    /// Whether a transport protocol that a service address does not offer is answered by ICMP.
    pub other_protocol: bool,
    /// What a client is told for whose flow there is no room.
    pub no_room: NoRoom,
    /// Most resets and ICMP errors a second, 1 to 1,000,000.
    pub per_second: u32,
}

impl Default for AnswerSettings {
    fn default() -> Self {
        AnswerSettings { no_service: true, other_protocol: true, no_room: NoRoom::default(), per_second: 1000 }
    }
}

/// What only the live gateway needs; replay and tests ignore it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GatewaySettings {
    /// Name of the TUN device, at most 15 bytes.
    pub device: String,
    /// Whether the device takes vnet headers and segmentation offload.
    pub offload: bool,
    /// MTU of the device in bytes, 1280 to 65,535.
    pub mtu: u16,
    /// MTU of the way to the clients in bytes, 1280 to 65,535; none is unknown.
    pub client_mtu: Option<u16>,
    /// Addresses given to the device; usually none is needed.
    pub addresses: Vec<IpNet>,
    /// Where IPv4 probes come from: an address routed to the device and assigned to nothing.
    pub probe_v4: Option<Ipv4Addr>,
    /// Where IPv6 probes come from, likewise.
    pub probe_v6: Option<Ipv6Addr>,
    /// Path of the control socket; its mode is 0600.
    pub control_socket: PathBuf,
    /// Number of the routing table that sends the servers' answers into the device.
    pub route_table: u32,
    /// Priority of the first of the two rules that point to it.
    pub rule_priority: u32,
}

impl Default for GatewaySettings {
    fn default() -> Self {
        GatewaySettings {
            device: "equipoise0".into(),
            offload: true,
            mtu: 1500,
            client_mtu: None,
            addresses: Vec::new(),
            probe_v4: None,
            probe_v6: None,
            control_socket: PathBuf::from("/run/equipoise.sock"),
            route_table: 4242,
            rule_priority: 4242,
        }
    }
}
