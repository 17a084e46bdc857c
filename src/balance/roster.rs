//! Who may serve whom, as configured: services, pools, servers and their relations. Immutable.
//!
//! It must not know health, load or what operators changed.

use super::priority;
use super::settings::{
    Algorithm, LastResort, OnDown, Passive, PoolSettings, Prefixes, Protocol, ServerSettings, ServiceSettings, reached,
};
use crate::ids::{PoolId, ServerId, ServiceId};
use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The servers that one algorithm chooses among, whichever services ask: everything that is equal for all services of
/// one pool with the same algorithm. Thus state by service and server exists nowhere.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Base {
    /// The first service that uses it; all others reach the servers in the same way and at the same ports.
    pub(super) service: u32,
    pub(super) algorithm: Algorithm,
    pub(super) pool: PoolId,
    /// Servers by place, that is, in pool order.
    pub(super) places: Vec<ServerId>,
    /// By place: backups rank after all others, then by configured rank.
    pub(super) ranks: Vec<(bool, u16)>,
    /// By place, for IPv4 and IPv6 clients: whether the server has an address for them.
    pub(super) reached: [Vec<bool>; 2],
    /// What it has in common with one that chooses as it does.
    kind: Kind,
}

/// What tells apart two bases of one pool.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Kind {
    pool: u32,
    algorithm: Algorithm,
    /// The parameters that the algorithm reads.
    tuning: (u128, u32, Option<Prefixes>),
    /// With full NAT for all clients: the families of the NAT pool.
    across: Option<[bool; 2]>,
    /// The ports by family whose health counts, for servers without and with a port of their own.
    ports: [[Vec<u16>; 2]; 2],
}

impl Kind {
    fn new(service: &ServiceSettings, algorithm: Algorithm, pool: PoolId, by_port: bool) -> Self {
        let tuning = &service.tuning;
        let ports = |port| [false, true].map(|v6| if by_port { server_ports(service, port, v6) } else { Vec::new() });
        Kind {
            pool: pool.0,
            algorithm,
            tuning: match algorithm {
                Algorithm::ConnectionRate => (tuning.rate_window.as_nanos(), 0, None),
                Algorithm::SourceHash => (0, 0, tuning.hash),
                Algorithm::Maglev => (0, tuning.maglev_table, tuning.hash),
                _ => (0, 0, None),
            },
            across: service.across(),
            ports: [ports(None), ports(Some(1))],
        }
    }
}

/// What a new flow needs to know of its server, in one cache line.
#[derive(Debug, Clone, PartialEq)]
#[repr(align(64))]
struct Home {
    addresses: (Option<Ipv4Addr>, Option<Ipv6Addr>),
    port: Option<u16>,
    max_flows: Option<u32>,
    /// The pool that lists it, and its place there; a removed server is in none.
    place: Option<(u32, u32)>,
}

/// Services, pools and servers as configured.
#[derive(Debug, Clone, PartialEq)]
pub struct Roster {
    services: Vec<ServiceSettings>,
    servers: Vec<ServerSettings>,
    /// By server: the passive-hold settings of its pool, if any.
    passive: Vec<Option<Passive>>,
    bases: Vec<Base>,
    /// By group, one per service, then one per last resort: its base, and its service.
    groups: Vec<(u32, u32)>,
    /// By service: the group of its last resort.
    last_resorts: Vec<Option<u32>>,
    /// By server.
    homes: Vec<Home>,
    /// By pool: where its bases begin in the next list, and where they end.
    bases_of: Vec<(u32, u32)>,
    by_pool: Vec<u32>,
    resets_tcp: bool,
}

impl Roster {
    /// Links the settings; the pools of `services` and the servers of `pools` are indices into the other lists.
    pub fn new(services: &[ServiceSettings], pools: &[PoolSettings], servers: &[ServerSettings]) -> Self {
        Roster::with_health_by(services, pools, servers, |_| true)
    }

    /// Like [`Roster::new`]; `by_port` tells whether the ports of one server of a pool may differ in health. Where they
    /// cannot, services at different ports share their state.
    pub fn with_health_by(
        services: &[ServiceSettings],
        pools: &[PoolSettings],
        servers: &[ServerSettings],
        by_port: impl Fn(PoolId) -> bool,
    ) -> Self {
        let mut known = HashMap::new();
        let (mut bases, mut bases_of) = (Vec::new(), vec![Vec::new(); pools.len()]);
        let mut base = |(at, service): (u32, &ServiceSettings), algorithm, id: PoolId| {
            let kind = Kind::new(service, algorithm, id, by_port(id));
            *known.entry(kind.clone()).or_insert_with(|| {
                bases_of[id.0 as usize].push(bases.len() as u32);
                bases.push(Base::new((at, service), kind, (id, &pools[id.0 as usize]), servers));
                bases.len() as u32 - 1
            })
        };
        let mut groups: Vec<(u32, u32)> =
            (0..).zip(services).map(|s| (base(s, s.1.algorithm, s.1.pool), s.0)).collect();
        let mut last_resorts = vec![None; services.len()];
        for (service, place) in (0..).zip(services).zip(&mut last_resorts) {
            if let LastResort::Pool(id) = service.1.last_resort {
                *place = Some(groups.len() as u32);
                groups.push((base(service, Algorithm::RoundRobin, id), service.0));
            }
        }
        let home = |server: &ServerSettings| Home {
            addresses: (server.v4, server.v6),
            port: server.port,
            max_flows: server.max_flows,
            place: None,
        };
        let mut homes: Vec<Home> = servers.iter().map(home).collect();
        for (at, pool) in (0..).zip(pools) {
            for (place, server) in (0..).zip(&pool.servers) {
                debug_assert_eq!(homes[server.0 as usize].place, None, "a server is in one pool");
                homes[server.0 as usize].place = Some((at, place));
            }
        }
        let ends = bases_of.iter().scan(0, |end, bases| {
            *end += bases.len() as u32;
            Some((*end - bases.len() as u32, *end))
        });
        Roster {
            bases_of: ends.collect(),
            by_pool: bases_of.concat(),
            resets_tcp: services.iter().any(|service| service.on_down(Protocol::Tcp) == OnDown::Reset),
            passive: servers.iter().map(|server| pools[server.pool.0 as usize].passive.clone()).collect(),
            services: services.to_vec(),
            servers: servers.to_vec(),
            bases,
            groups,
            last_resorts,
            homes,
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

    /// Returns whether a pool lists a server: one that has been removed is in none.
    pub fn is_in_a_pool(&self, server: ServerId) -> bool {
        self.homes[server.0 as usize].place.is_some()
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
        let server = &self.homes[server.0 as usize];
        let address = reached(server.addresses, v6, self.service(service).across())?;
        Some((address, server.port.unwrap_or(service_port)))
    }

    /// Returns the servers that may hold flows of a service: those of its pool, then those of its last resort.
    pub fn servers_of(&self, service: ServiceId) -> impl Iterator<Item = ServerId> + '_ {
        let groups = [Some(service.0), self.last_resort(service.0)];
        groups.into_iter().flatten().flat_map(|group| self.group(group).places.iter().copied())
    }

    pub(super) fn bases(&self) -> &[Base] {
        &self.bases
    }

    /// Returns the service by which a base reaches its servers.
    pub(super) fn service_of_base(&self, base: u32) -> &ServiceSettings {
        &self.services[self.bases[base as usize].service as usize]
    }

    /// Returns the number of groups: one per service, and one per last resort.
    pub(super) fn groups(&self) -> u32 {
        self.groups.len() as u32
    }

    /// Returns the service of a group.
    pub(super) fn service_of(&self, group: u32) -> &ServiceSettings {
        &self.services[self.groups[group as usize].1 as usize]
    }

    /// Returns the number of a group's base.
    #[inline]
    pub(super) fn base(&self, group: u32) -> u32 {
        self.groups[group as usize].0
    }

    /// Returns a group's base.
    #[inline]
    pub(super) fn group(&self, group: u32) -> &Base {
        &self.bases[self.base(group) as usize]
    }

    #[inline]
    pub(super) fn last_resort(&self, service: u32) -> Option<u32> {
        self.last_resorts[service as usize]
    }

    /// Returns the groups of services that `old` has too, in slots of which `has_service` says so, each with its number
    /// there.
    pub(super) fn same_groups(
        &self,
        old: &Roster,
        has_service: impl Fn(u32) -> bool,
    ) -> impl Iterator<Item = (u32, u32)> {
        let services = (0..self.services.len().min(old.services.len()) as u32).filter(move |at| has_service(*at));
        services.flat_map(|at| {
            let last = self.last_resort(at).zip(old.last_resort(at));
            [Some((at, at)), last].into_iter().flatten()
        })
    }

    /// Returns whether a base chooses among the same servers in the same way as one of an older roster, in which the
    /// slots of servers mean the same.
    pub(super) fn chooses_as(&self, base: u32, (old, was): (&Roster, u32)) -> bool {
        let (is, was) = (&self.bases[base as usize], &old.bases[was as usize]);
        let weights =
            |roster: &Roster, base: &Base| base.places.iter().map(|id| roster.server(*id).weight).collect::<Vec<_>>();
        (&is.kind, &is.places, &is.ranks, &is.reached) == (&was.kind, &was.places, &was.ranks, &was.reached)
            && weights(self, is) == weights(old, was)
    }

    /// Returns the bases that a server belongs to, and its place in each.
    #[inline]
    pub(super) fn members(&self, server: ServerId) -> impl Iterator<Item = (u32, u32)> + '_ {
        let (pool, place) = self.homes[server.0 as usize].place.unzip();
        let (begin, end) = pool.map_or((0, 0), |pool| self.bases_of[pool as usize]);
        self.by_pool[begin as usize..end as usize].iter().copied().zip(std::iter::repeat(place.unwrap_or(0)))
    }

    /// Returns a server's place in a base.
    pub(super) fn place(&self, base: u32, server: ServerId) -> Option<usize> {
        let pool = self.bases[base as usize].pool.0;
        self.homes[server.0 as usize].place.filter(|(of, _)| *of == pool).map(|(_, place)| place as usize)
    }

    /// Returns how many flows a server may have at a time.
    #[inline]
    pub(super) fn max_flows(&self, server: ServerId) -> Option<u32> {
        self.homes[server.0 as usize].max_flows
    }
}

impl Base {
    fn new(
        (at, service): (u32, &ServiceSettings),
        kind: Kind,
        (id, pool): (PoolId, &PoolSettings),
        servers: &[ServerSettings],
    ) -> Self {
        let places = pool.servers.clone();
        let of = |place: &ServerId| &servers[place.0 as usize];
        let reached = [false, true].map(|v6| places.iter().map(|p| service.reach(of(p), v6).is_some()).collect());
        let ranks = places.iter().map(|place| priority::group(kind.algorithm, of(place))).collect();
        Base { service: at, algorithm: kind.algorithm, pool: id, ranks, reached, places, kind }
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
