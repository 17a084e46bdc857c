//! Whose packet it is that belongs to no flow: a service's, a server's, or nobody's.

use crate::balance::Nat;
use crate::config::Settings;
use crate::ids::ServiceId;
use crate::packet::Protocol;
use ahash::RandomState;
use std::collections::{HashMap, HashSet};
use std::net::IpAddr;

/// Something for each address and protocol.
type ByEnd<T> = HashMap<(IpAddr, Protocol), T, RandomState>;

/// What services listen on and where servers answer from, by address.
#[derive(Debug)]
pub(super) struct Directory {
    /// Per service address and protocol: ranges of ports, sorted, none overlapping.
    listens: ByEnd<Vec<(u16, u16, ServiceId)>>,
    addresses: HashSet<IpAddr, RandomState>,
    server_addresses: HashSet<IpAddr, RandomState>,
    nat_addresses: HashSet<IpAddr, RandomState>,
    /// Per server address and protocol: ranges of ports.
    servers: ByEnd<Vec<(u16, u16)>>,
}

impl Directory {
    pub fn new(settings: &Settings) -> Self {
        let hash = RandomState::with_seeds(settings.seed, 5, 6, 7);
        let mut directory = Directory {
            listens: HashMap::with_hasher(hash.clone()),
            addresses: HashSet::with_hasher(hash.clone()),
            server_addresses: HashSet::with_hasher(hash.clone()),
            nat_addresses: HashSet::with_hasher(hash.clone()),
            servers: HashMap::with_hasher(hash),
        };
        for (id, service) in settings.services.iter().enumerate() {
            for listen in &service.listen {
                let key = (listen.address, listen.protocol);
                let entry = (listen.first_port, listen.last_port, ServiceId(id as u32));
                directory.listens.entry(key).or_default().push(entry);
                directory.addresses.insert(listen.address);
            }
        }
        for pool in &settings.nat_pools {
            directory.nat_addresses.extend(pool.v4.iter().map(|a| IpAddr::V4(*a)));
            directory.nat_addresses.extend(pool.v6.iter().map(|a| IpAddr::V6(*a)));
        }
        directory.add_servers(settings);
        #[allow(
            clippy::disallowed_methods,
            clippy::iter_over_hash_type,
            reason = "each is sorted by itself, so their order does not matter"
        )]
        for ranges in directory.listens.values_mut() {
            ranges.sort_unstable();
        }
        directory
    }

    /// Where servers answer from: of the family of their clients, or with full NAT of the other one.
    fn add_servers(&mut self, settings: &Settings) {
        let across = settings.services.iter().filter(|service| matches!(service.nat, Nat::Full { .. }));
        let across = across.flat_map(|s| s.listen.iter().map(move |listen| (*listen, s.pool, Some(s))));
        let ways = settings.ways().into_iter().map(|(listen, pool)| (listen, pool, None));
        for (listen, pool, service) in ways.chain(across) {
            for server in &settings.pools[pool.0 as usize].servers {
                let server = &settings.servers[server.0 as usize];
                let own = server.address(listen.address);
                let address = service.map_or(own, |service| service.reach(server, listen.address.is_ipv6()));
                let Some(address) = address else { continue };
                let ports = match (server.port, listen.protocol) {
                    (Some(port), Protocol::Tcp | Protocol::Udp | Protocol::Sctp) => (port, port),
                    _ => (listen.first_port, listen.last_port),
                };
                self.server_addresses.insert(address);
                let ranges = self.servers.entry((address, listen.protocol)).or_default();
                if !ranges.contains(&ports) {
                    ranges.push(ports);
                }
            }
        }
    }

    /// The service that listens there.
    pub fn service(&self, address: IpAddr, protocol: Protocol, port: u16) -> Option<ServiceId> {
        let ranges = self.listens.get(&(address, protocol))?;
        let behind = ranges.partition_point(|(first, ..)| *first <= port);
        let (_, last, id) = ranges[..behind].last()?;
        (port <= *last).then_some(*id)
    }

    /// Whether any service listens on this address.
    pub fn is_service_address(&self, address: IpAddr) -> bool {
        self.addresses.contains(&address)
    }

    /// Whether flows have this address as their source towards servers.
    pub fn is_nat_address(&self, address: IpAddr) -> bool {
        self.nat_addresses.contains(&address)
    }

    /// Whether some service has a server at this address.
    pub fn is_server_address(&self, address: IpAddr) -> bool {
        self.server_addresses.contains(&address)
    }

    /// Whether a server of some service answers from there.
    pub fn is_server(&self, address: IpAddr, protocol: Protocol, port: u16) -> bool {
        let ranges = self.servers.get(&(address, protocol));
        ranges.is_some_and(|ranges| ranges.iter().any(|(first, last)| (*first..=*last).contains(&port)))
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::settings;
    use super::*;

    #[test]
    fn a_range_holds_its_first_and_last_port_and_no_other() {
        let mut settings = settings(2, 10);
        settings.services[0].listen[0].first_port = 1000;
        settings.services[0].listen[0].last_port = 65_535;
        let directory = Directory::new(&settings);
        let vip = settings.services[0].listen[0].address;
        for (port, want) in [(999, None), (1000, Some(ServiceId(0))), (65_535, Some(ServiceId(0))), (0, None)] {
            assert_eq!(directory.service(vip, Protocol::Tcp, port), want, "{port}");
        }
        assert!(directory.is_service_address(vip));
        assert!(directory.is_server([10, 0, 2, 1].into(), Protocol::Tcp, 8080));
        assert!(!directory.is_server([10, 0, 2, 1].into(), Protocol::Udp, 8081));
        assert!(!directory.is_server([10, 0, 2, 1].into(), Protocol::Tcp, 1000));
    }
}
