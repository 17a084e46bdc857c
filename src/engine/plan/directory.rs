//! The owner of a packet without a flow: a service, a server, or nobody.

use crate::balance::{Listen, Nat, Prefixes, reached_address};
use crate::config::Settings;
use crate::ids::{PoolId, ServerId, ServiceId};
use crate::packet::Protocol;
use ahash::RandomState;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::IpAddr;

/// A value per address and protocol.
type ByEnd<T> = HashMap<(IpAddr, Protocol), T, RandomState>;

/// Where services listen and servers reply from, by address.
#[derive(Debug)]
pub(in crate::engine) struct Directory {
    /// The services that listen on single addresses.
    exact: Listens,
    /// Those that listen on networks, by prefix length, longest first; per family.
    networks: [Vec<(Prefixes, Listens)>; 2],
    server_addresses: HashMap<IpAddr, Vec<ServerId>, RandomState>,
    nat_addresses: HashSet<IpAddr, RandomState>,
    /// The numbers of the port lists per server address and protocol.
    servers: ByEnd<Vec<u32>>,
    /// Port lists: ranges, sorted, none overlapping. All servers of a pool that keep the service port share one.
    ports: Vec<Vec<(u16, u16)>>,
}

/// How flows reach the servers of a pool: the protocol, whether clients use IPv6, and with full NAT for all of them the
/// families of the NAT pool.
type Way = (PoolId, Protocol, bool, Option<[bool; 2]>);

/// The listeners on networks of one prefix length.
#[derive(Debug)]
struct Listens {
    /// Port ranges per network and protocol, sorted, none overlapping.
    ports: ByEnd<Vec<(u16, u16, ServiceId)>>,
    addresses: HashSet<IpAddr, RandomState>,
}

impl Listens {
    fn new(hash: &RandomState) -> Self {
        Listens { ports: HashMap::with_hasher(hash.clone()), addresses: HashSet::with_hasher(hash.clone()) }
    }

    fn add(&mut self, listen: &Listen, id: ServiceId) {
        let ranges = self.ports.entry((listen.address, listen.protocol)).or_default();
        let entry = (listen.first_port, listen.last_port, id);
        ranges.insert(ranges.partition_point(|range| *range < entry), entry);
        self.addresses.insert(listen.address);
    }

    fn service(&self, address: IpAddr, protocol: Protocol, port: u16) -> Option<ServiceId> {
        let ranges = self.ports.get(&(address, protocol))?;
        let behind = ranges.partition_point(|(first, ..)| *first <= port);
        let (_, last, id) = ranges[..behind].last()?;
        (port <= *last).then_some(*id)
    }
}

impl Directory {
    pub(crate) fn new(settings: &Settings) -> Self {
        let hash = RandomState::with_seeds(settings.seed, 5, 6, 7);
        let mut directory = Directory {
            exact: Listens::new(&hash),
            networks: Default::default(),
            server_addresses: HashMap::with_hasher(hash.clone()),
            nat_addresses: HashSet::with_hasher(hash.clone()),
            servers: HashMap::with_hasher(hash.clone()),
            ports: Vec::new(),
        };
        for (id, service) in settings.services.iter().enumerate() {
            for listen in &service.listen {
                directory.listens(listen, &hash).add(listen, ServiceId(id as u32));
            }
        }
        for pool in &settings.nat_pools {
            directory.nat_addresses.extend(pool.v4.iter().map(|a| IpAddr::V4(*a)));
            directory.nat_addresses.extend(pool.v6.iter().map(|a| IpAddr::V6(*a)));
        }
        directory.add_servers(settings);
        directory
    }

    /// Where servers reply from: in the family of their clients, or with full NAT in the other one. Services that reach a
    /// pool in the same way are counted once, however many they are.
    fn add_servers(&mut self, settings: &Settings) {
        let mut ways: BTreeMap<Way, Vec<(u16, u16)>> = BTreeMap::new();
        let mut add = |listen: &Listen, pool, across| {
            let way = (pool, listen.protocol, listen.address.is_ipv6(), across);
            ways.entry(way).or_default().push((listen.first_port, listen.last_port));
        };
        settings.routes().iter().for_each(|(listen, pool)| add(listen, *pool, None));
        for service in &settings.services {
            let Nat::Full { only_for, families, .. } = &service.nat else { continue };
            let across = only_for.is_empty().then_some(*families);
            service.listen.iter().for_each(|listen| add(listen, service.pool, across));
        }
        let mut lists = HashMap::new();
        for ((pool, protocol, v6, across), ranges) in ways {
            let ranges = merged(ranges);
            for id in &settings.pools[pool.0 as usize].servers {
                let server = &settings.servers[id.0 as usize];
                let Some(address) = reached_address(server, v6, across) else { continue };
                let list = match (server.port, protocol) {
                    (Some(port), Protocol::Tcp | Protocol::Udp | Protocol::Sctp) => {
                        self.list(&[(port, port)], &mut lists)
                    }
                    _ => self.list(&ranges, &mut lists),
                };
                let here = self.server_addresses.entry(address).or_default();
                if !here.contains(id) {
                    here.push(*id);
                }
                let own = self.servers.entry((address, protocol)).or_default();
                if !own.contains(&list) {
                    own.push(list);
                }
            }
        }
    }

    /// Returns the number of a list of ports.
    fn list(&mut self, ranges: &[(u16, u16)], known: &mut HashMap<Vec<(u16, u16)>, u32>) -> u32 {
        if let Some(list) = known.get(ranges) {
            return *list;
        }
        known.insert(ranges.to_vec(), self.ports.len() as u32);
        self.ports.push(ranges.to_vec());
        self.ports.len() as u32 - 1
    }

    /// Returns where listeners on networks of that length, or on single addresses, are kept.
    fn listens(&mut self, listen: &Listen, hash: &RandomState) -> &mut Listens {
        if !listen.is_network() {
            return &mut self.exact;
        }
        let prefixes = Prefixes { v4: listen.prefix, v6: listen.prefix };
        let networks = &mut self.networks[usize::from(listen.address.is_ipv6())];
        let at = networks.partition_point(|(longer, _)| longer.v6 > listen.prefix);
        if networks.get(at).is_none_or(|(same, _)| *same != prefixes) {
            networks.insert(at, (prefixes, Listens::new(hash)));
        }
        &mut networks[at].1
    }

    /// Returns the networks of services that may contain an address, each with its own address, longest prefix first.
    fn around(&self, address: IpAddr) -> impl Iterator<Item = (IpAddr, &Listens)> {
        let networks = &self.networks[usize::from(address.is_ipv6())][..];
        let networks = if is_one_hosts(address) { networks } else { &[] };
        networks.iter().map(move |(prefixes, listens)| (prefixes.of(address), listens))
    }

    /// Returns the service that listens there: that of the single address, otherwise that of the longest prefix with a
    /// listener for the port.
    pub(crate) fn service(&self, address: IpAddr, protocol: Protocol, port: u16) -> Option<ServiceId> {
        let exact = self.exact.service(address, protocol, port);
        let wider = || self.around(address).find_map(|(network, listens)| listens.service(network, protocol, port));
        exact.or_else(wider)
    }

    /// Returns whether any service listens on this address or on a network that contains it.
    pub(crate) fn is_service_address(&self, address: IpAddr) -> bool {
        self.exact.addresses.contains(&address)
            || self.around(address).any(|(network, listens)| listens.addresses.contains(&network))
    }

    /// Returns whether this very address is a service address or in a NAT pool: then nobody else sends from it.
    pub(crate) fn is_only_own(&self, address: IpAddr) -> bool {
        self.exact.addresses.contains(&address) || self.is_nat_address(address)
    }

    /// Returns whether flows have this address as their source towards servers.
    pub(crate) fn is_nat_address(&self, address: IpAddr) -> bool {
        self.nat_addresses.contains(&address)
    }

    /// Returns whether any service has a server at this address.
    pub(crate) fn is_server_address(&self, address: IpAddr) -> bool {
        self.server_addresses.contains_key(&address)
    }

    /// Returns the servers of any service at this address.
    pub(crate) fn servers_at(&self, address: IpAddr) -> &[ServerId] {
        self.server_addresses.get(&address).map_or(&[], Vec::as_slice)
    }

    /// Returns whether a server of any service replies from there.
    pub(crate) fn is_server(&self, address: IpAddr, protocol: Protocol, port: u16) -> bool {
        let in_list = |list: &u32| {
            let ranges = &self.ports[*list as usize];
            let behind = ranges.partition_point(|(first, _)| *first <= port);
            ranges[..behind].last().is_some_and(|(_, last)| port <= *last)
        };
        self.servers.get(&(address, protocol)).is_some_and(|lists| lists.iter().any(in_list))
    }
}

/// Returns the same ranges sorted, with overlapping and adjacent ones joined.
fn merged(mut ranges: Vec<(u16, u16)>) -> Vec<(u16, u16)> {
    ranges.sort_unstable();
    let mut all: Vec<(u16, u16)> = Vec::new();
    for (first, last) in ranges {
        match all.last_mut() {
            Some(before) if u32::from(first) <= u32::from(before.1) + 1 => before.1 = before.1.max(last),
            _ => all.push((first, last)),
        }
    }
    all
}

/// Returns whether packets to this address go to one remote host: a service network accepts no others.
fn is_one_hosts(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => !matches!(address.octets(), [0 | 127 | 224..=239, ..] | [255, 255, 255, 255]),
        IpAddr::V6(address) => !(address.is_unspecified() || address.is_loopback() || address.is_multicast()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::testing::settings;

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

    #[test]
    fn the_longest_prefix_that_listens_on_the_port_wins() {
        let mut settings = settings(2, 10);
        let service = settings.services.remove(0);
        let listen = |text: &str, first, last| {
            let net: ipnet::IpNet = text.parse().unwrap();
            Listen { prefix: net.prefix_len(), ..Listen::one(net.addr(), Protocol::Tcp, first, last) }
        };
        for listens in [
            vec![listen("0.0.0.0/0", 1, 65_535), listen("::/0", 80, 80)],
            vec![listen("203.0.113.0/24", 80, 90), listen("2001:db8::/32", 80, 80)],
            vec![listen("203.0.113.128/25", 80, 80)],
            vec![listen("203.0.113.200/32", 80, 80), listen("203.0.113.200/32", 443, 443)],
        ] {
            settings.services.push(crate::balance::ServiceSettings { listen: listens, ..service.clone() });
        }
        let directory = Directory::new(&settings);
        for (address, port, want) in [
            ("203.0.113.200", 80, Some(3)),
            ("203.0.113.200", 443, Some(3)),
            ("203.0.113.200", 81, Some(1)),
            ("203.0.113.200", 91, Some(0)),
            ("203.0.113.201", 80, Some(2)),
            ("203.0.113.127", 80, Some(1)),
            ("203.0.114.1", 80, Some(0)),
            ("2001:db8::1", 80, Some(1)),
            ("2001:db9::1", 80, Some(0)),
            ("2001:db8::1", 81, None),
            ("224.0.0.1", 80, None),
            ("255.255.255.255", 80, None),
            ("127.0.0.1", 80, None),
            ("0.0.0.0", 80, None),
            ("ff02::1", 80, None),
            ("::1", 80, None),
        ] {
            let address: IpAddr = address.parse().unwrap();
            assert_eq!(directory.service(address, Protocol::Tcp, port), want.map(ServiceId), "{address} {port}");
            assert_eq!(directory.service(address, Protocol::Udp, port), None, "{address} {port}");
            assert_eq!(directory.is_service_address(address), is_one_hosts(address), "{address}");
        }
    }
}
