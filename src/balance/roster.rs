//! Who may serve whom, as configured: services, pools, servers and their relations. Immutable.
//!
//! It must not know health, load or what operators changed.

use super::priority;
use super::settings::{
    Algorithm, LastResort, OnDown, Passive, PoolSettings, Protocol, ServerSettings, ServiceSettings,
};
use crate::ids::{PoolId, ServerId, ServiceId};
use std::net::IpAddr;

/// The servers that one algorithm chooses among: those of a service's pool, or those of its last resort.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Group {
    /// The service.
    pub(super) service: u32,
    pub(super) algorithm: Algorithm,
    /// Servers by place, that is, in pool order.
    pub(super) places: Vec<ServerId>,
    /// By place: backups rank after all others, then by configured rank.
    pub(super) ranks: Vec<(bool, u16)>,
    /// By place, for IPv4 and IPv6 clients: whether the server has an address for them.
    pub(super) reached: [Vec<bool>; 2],
}

/// Services, pools and servers as configured.
#[derive(Debug, Clone, PartialEq)]
pub struct Roster {
    services: Vec<ServiceSettings>,
    servers: Vec<ServerSettings>,
    /// By server: the passive-hold settings of its pool, if any.
    passive: Vec<Option<Passive>>,
    /// One per service, then one per last resort.
    groups: Vec<Group>,
    /// By service: the group of its last resort.
    last_resorts: Vec<Option<u32>>,
    /// By server: the groups that it belongs to, and its place in each.
    members: Vec<Vec<(u32, u32)>>,
    resets_tcp: bool,
}

impl Roster {
    /// Links the settings; the pools of `services` and the servers of `pools` are indices into the other lists.
    pub fn new(services: &[ServiceSettings], pools: &[PoolSettings], servers: &[ServerSettings]) -> Self {
        let pool = |id: PoolId| &pools[id.0 as usize];
        let group = |(at, service): (u32, &ServiceSettings), algorithm, id| {
            let places = pool(id).servers.clone();
            let of = |place: &ServerId| &servers[place.0 as usize];
            let reached = [false, true].map(|v6| places.iter().map(|p| service.reach(of(p), v6).is_some()).collect());
            let ranks = places.iter().map(|place| priority::group(algorithm, of(place))).collect();
            Group { service: at, algorithm, ranks, reached, places }
        };
        let mut groups: Vec<Group> = (0..).zip(services).map(|s| group(s, s.1.algorithm, s.1.pool)).collect();
        let mut last_resorts = vec![None; services.len()];
        for (service, place) in (0..).zip(services).zip(&mut last_resorts) {
            if let LastResort::Pool(id) = service.1.last_resort {
                *place = Some(groups.len() as u32);
                groups.push(group(service, Algorithm::RoundRobin, id));
            }
        }
        let mut members = vec![Vec::new(); servers.len()];
        for (at, group) in (0..).zip(&groups) {
            for (place, server) in (0..).zip(&group.places) {
                members[server.0 as usize].push((at, place));
            }
        }
        Roster {
            resets_tcp: services.iter().any(|service| service.on_down(Protocol::Tcp) == OnDown::Reset),
            passive: servers.iter().map(|server| pool(server.pool).passive.clone()).collect(),
            services: services.to_vec(),
            servers: servers.to_vec(),
            groups,
            last_resorts,
            members,
        }
    }

    /// Returns the settings of all services, in slot order.
    pub fn services(&self) -> &[ServiceSettings] {
        &self.services
    }

    /// Returns a service's settings.
    #[inline]
    pub fn service(&self, service: ServiceId) -> &ServiceSettings {
        &self.services[service.0 as usize]
    }

    /// Returns the settings of all servers, in slot order.
    pub fn servers(&self) -> &[ServerSettings] {
        &self.servers
    }

    /// Returns a server's settings as configured.
    #[inline]
    pub fn server(&self, server: ServerId) -> &ServerSettings {
        &self.servers[server.0 as usize]
    }

    /// Returns whether the server exists.
    pub fn has(&self, server: ServerId) -> bool {
        (server.0 as usize) < self.servers.len()
    }

    /// Returns whether any service resets the TCP flows of a server that goes down.
    pub fn resets_tcp(&self) -> bool {
        self.resets_tcp
    }

    /// Returns the passive-hold settings that apply to a server, if any.
    pub fn passive(&self, server: ServerId) -> Option<&Passive> {
        self.passive[server.0 as usize].as_ref()
    }

    /// Returns the server address for flows of a service whose clients use this family, and the server port for flows
    /// to `service_port`; none if the server has no address for them.
    pub fn endpoint(&self, service: ServiceId, server: ServerId, v6: bool, service_port: u16) -> Option<(IpAddr, u16)> {
        let server = self.server(server);
        Some((self.service(service).reach(server, v6)?, server.port.unwrap_or(service_port)))
    }

    /// Returns the servers that may hold flows of a service: those of its pool, then those of its last resort.
    pub fn servers_of(&self, service: ServiceId) -> impl Iterator<Item = ServerId> + '_ {
        let groups = [Some(service.0), self.last_resort(service.0)];
        groups.into_iter().flatten().flat_map(|group| self.group(group).places.iter().copied())
    }

    pub(super) fn groups(&self) -> &[Group] {
        &self.groups
    }

    #[inline]
    pub(super) fn group(&self, group: u32) -> &Group {
        &self.groups[group as usize]
    }

    #[inline]
    pub(super) fn last_resort(&self, service: u32) -> Option<u32> {
        self.last_resorts[service as usize]
    }

    /// Returns the groups that a server belongs to, and its place in each.
    #[inline]
    pub(super) fn members(&self, server: ServerId) -> &[(u32, u32)] {
        &self.members[server.0 as usize]
    }

    /// Returns a server's place in a group.
    pub(super) fn place(&self, group: u32, server: ServerId) -> Option<usize> {
        self.members(server).iter().find(|(of, _)| *of == group).map(|(_, place)| *place as usize)
    }
}

/// The ports of a server that receive a service's flows, ascending; only the first of a range, and 0 for ICMP.
pub fn server_ports(service: &ServiceSettings, port: Option<u16>, v6: bool) -> Vec<u16> {
    let of_family = service.listen.iter().filter(|listen| listen.address.is_ipv6() == v6);
    let mut ports: Vec<u16> = of_family
        .map(|listen| match listen.protocol {
            Protocol::Icmp | Protocol::Ip(_) => 0,
            _ => port.unwrap_or(listen.first_port),
        })
        .collect();
    ports.sort_unstable();
    ports.dedup();
    ports
}
