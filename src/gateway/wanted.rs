//! What the kernel must route to the device, computed from the settings alone, without system calls.

use crate::balance::Protocol;
use crate::config::Settings;
use crate::ids::PoolId;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// The most rules per family for one protocol and port range. The kernel evaluates rules one by one for each packet
/// that it forwards, so a large pool is covered by networks.
pub const MOST_NETWORKS: usize = 64;
/// The most rules per family; beyond it the rules do not select ports.
pub const MOST_RULES: usize = 256;

/// A selector of servers' replies: source network, protocol, source ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Answers {
    /// The servers' network.
    pub from: IpNet,
    /// Their protocol.
    pub protocol: Protocol,
    /// First and last source port; `None` for all protocols but TCP, and if ports are not distinguished.
    ///
    /// Only the first fragment of a datagram has ports; TCP segments are not sent in fragments.
    pub ports: Option<(u16, u16)>,
}

/// What the kernel must route to the device.
#[derive(Debug, Clone)]
pub struct Routing {
    /// The networks, as by [`routed_addresses`].
    pub networks: BTreeSet<IpNet>,
    /// The selectors of replies, as by [`answers`].
    pub answers: Vec<Answers>,
}

impl Routing {
    /// Computes it, which takes about 10 ms for 10,000 servers.
    pub fn of(settings: &Settings) -> Routing {
        Routing { networks: routed_addresses(settings), answers: answers(settings) }
    }

    /// Returns whether any IPv4 and any IPv6 address is routed to the device.
    pub fn families(&self) -> (bool, bool) {
        families_of(&self.networks)
    }
}

/// Returns the networks routed to the device, IPv4 first: those of the services, mostly single addresses; the
/// addresses that probes are sent from; and those of NAT pools, as the fewest networks that cover exactly them.
pub fn routed_addresses(settings: &Settings) -> BTreeSet<IpNet> {
    let services = settings.services.iter().flat_map(|s| &s.listen).map(|l| l.network());
    let v4 = settings.health.source_v4.map(IpAddr::V4);
    let v6 = settings.health.source_v6.map(IpAddr::V6);
    let nat = settings.nat_pools.iter().flat_map(|pool| {
        let v4 = pool.v4.iter().map(|a| IpNet::from(IpAddr::V4(*a)));
        v4.chain(pool.v6.iter().map(|a| IpNet::from(IpAddr::V6(*a))))
    });
    let nat = cover(&nat.collect::<Vec<_>>(), usize::MAX);
    services.chain(v4.into_iter().chain(v6).map(IpNet::from)).chain(nat).collect()
}

/// Returns whether any IPv4 and any IPv6 address is routed to the device.
pub fn families(settings: &Settings) -> (bool, bool) {
    families_of(&routed_addresses(settings))
}

fn families_of(networks: &BTreeSet<IpNet>) -> (bool, bool) {
    (networks.iter().any(|n| n.addr().is_ipv4()), networks.iter().any(|n| n.addr().is_ipv6()))
}

/// Returns the selectors that match the replies of all servers, sorted; at most [`MOST_RULES`] per family.
///
/// Small sets of servers are matched exactly. If one protocol and port range needs more than [`MOST_NETWORKS`]
/// networks, they are widened, nearest neighbours first: the other packets that then enter belong to no flow, and the
/// engine forwards them unchanged.
pub fn answers(settings: &Settings) -> Vec<Answers> {
    let mut sets: BTreeMap<Selector, Vec<IpNet>> = BTreeMap::new();
    let mut seen = BTreeSet::new();
    for (listen, pool) in settings.routes() {
        let same = (listen.protocol == Protocol::Tcp).then_some((listen.first_port, listen.last_port));
        // Services that share pool, family, protocol and ports would add the same selectors again.
        if seen.insert((pool, listen.address.is_ipv6(), listen.protocol, same)) {
            for (address, port) in servers(settings, pool, listen.address.is_ipv6()) {
                let own = same.map(|same| port.map_or(same, |p| (p, p)));
                sets.entry((address.is_ipv6(), listen.protocol, own)).or_default().push(address.into());
                // The servers' own ICMP errors about clients' packets; those of routers are selected by interface.
                sets.entry((address.is_ipv6(), Protocol::Icmp, None)).or_default().push(address.into());
            }
        }
    }
    let mut all = Vec::new();
    for v6 in [false, true] {
        let mut of_family: Vec<_> = select(sets.iter().filter(|((six, ..), _)| *six == v6));
        if of_family.len() > MOST_RULES {
            let mut portless: BTreeMap<_, Vec<IpNet>> = BTreeMap::new();
            for ((six, protocol, _), networks) in sets.iter().filter(|((six, ..), _)| *six == v6) {
                portless.entry((*six, *protocol, None)).or_default().extend(networks);
            }
            of_family = select(portless.iter());
        }
        all.extend(of_family);
    }
    all
}

/// Returns the addresses of one family of a pool's servers, with their ports.
fn servers(settings: &Settings, pool: PoolId, v6: bool) -> impl Iterator<Item = (IpAddr, Option<u16>)> {
    settings.pools[pool.0 as usize].servers.iter().filter_map(move |id| {
        let server = &settings.servers[id.0 as usize];
        let address = if v6 { server.v6.map(IpAddr::V6) } else { server.v4.map(IpAddr::V4) };
        address.map(|a| (a, server.port))
    })
}

/// Whether it is IPv6, the protocol, the ports.
type Selector = (bool, Protocol, Option<(u16, u16)>);

fn select<'a>(sets: impl Iterator<Item = (&'a Selector, &'a Vec<IpNet>)>) -> Vec<Answers> {
    sets.flat_map(|((_, protocol, ports), networks)| {
        cover(networks, MOST_NETWORKS).into_iter().map(|from| Answers { from, protocol: *protocol, ports: *ports })
    })
    .collect()
}

/// Returns the fewest networks that cover exactly these; if they are more than `most` in a family, widens them to at
/// most `most` by joining the nearest neighbours first.
pub fn cover(networks: &[IpNet], most: usize) -> Vec<IpNet> {
    let (mut four, mut six) = (Vec::new(), Vec::new());
    for network in networks {
        match network {
            IpNet::V4(n) => four.push(*n),
            IpNet::V6(n) => six.push(*n),
        }
    }
    let mut nets: Vec<IpNet> = Ipv4Net::aggregate(&four).into_iter().map(IpNet::V4).collect();
    nets.extend(Ipv6Net::aggregate(&six).into_iter().map(IpNet::V6));
    nets.sort();
    for length in (0..128).rev() {
        if nets.len() <= most.max(1) {
            break;
        }
        nets = join(&nets, length);
    }
    nets
}

/// Replaces all networks that share their first `length` bits with the one network that contains them.
fn join(nets: &[IpNet], length: u8) -> Vec<IpNet> {
    let mut joined: Vec<IpNet> = Vec::new();
    for net in nets {
        let wide = |n: &IpNet| IpNet::new(n.addr(), length.min(n.max_prefix_len())).map(|n| n.trunc()).ok();
        match joined.last_mut() {
            Some(last) if last.prefix_len() >= length && net.prefix_len() >= length && wide(last) == wide(net) => {
                *last = wide(net).unwrap_or(*last);
            }
            _ => joined.push(*net),
        }
    }
    joined
}

#[cfg(test)]
mod tests {
    use super::super::testing::{settings, two_families};
    use super::*;

    fn shown(settings: &Settings) -> Vec<String> {
        let show = |a: Answers| match a.ports {
            Some((first, last)) => format!("{} {} {first}-{last}", a.from, a.protocol.name()),
            None => format!("{} {}", a.from, a.protocol.name()),
        };
        answers(settings).into_iter().map(show).collect()
    }

    #[test]
    fn a_servers_own_port_wins_over_the_services() {
        let want = [
            "10.9.0.5/32 tcp 80-80",
            "10.9.0.2/32 tcp 8080-8080",
            "10.9.0.2/32 icmp",
            "10.9.0.5/32 icmp",
            "fd09::5/128 tcp 80-80",
            "fd09::2/128 tcp 8080-8080",
            "fd09::2/128 icmp",
            "fd09::5/128 icmp",
        ];
        assert_eq!(shown(&two_families()), want);
    }

    #[test]
    fn tcp_has_ports_and_protocols_that_may_be_fragmented_have_none() {
        let s = settings(
            &[
                ("192.0.2.1", Protocol::Tcp, 5000, 5999),
                ("192.0.2.1", Protocol::Udp, 53, 53),
                ("192.0.2.1", Protocol::Udp, 5000, 5999),
                ("192.0.2.1", Protocol::Icmp, 0, 65535),
            ],
            &[("10.0.0.1", None)],
        );
        assert_eq!(shown(&s), ["10.0.0.1/32 tcp 5000-5999", "10.0.0.1/32 udp", "10.0.0.1/32 icmp"]);
    }

    #[test]
    fn a_family_without_listener_gets_no_rules() {
        let s = settings(&[("192.0.2.1", Protocol::Tcp, 80, 80)], &[("10.0.0.1", None), ("fd00::1", None)]);
        assert_eq!(shown(&s), ["10.0.0.1/32 tcp 80-80", "10.0.0.1/32 icmp"]);
        assert_eq!(families(&s), (true, false));
    }

    #[test]
    fn services_that_share_servers_share_rules() {
        let s = settings(
            &[
                ("192.0.2.1", Protocol::Tcp, 80, 80),
                ("192.0.2.2", Protocol::Tcp, 80, 80),
                ("192.0.2.2", Protocol::Tcp, 443, 443),
            ],
            &[("10.0.0.1", Some(8080))],
        );
        assert_eq!(shown(&s), ["10.0.0.1/32 tcp 8080-8080", "10.0.0.1/32 icmp"]);
        let all: Vec<_> = routed_addresses(&s).iter().map(ToString::to_string).collect();
        assert_eq!(all, ["192.0.2.1/32", "192.0.2.2/32"]);
    }

    #[test]
    fn a_network_is_one_route() {
        let mut s = settings(
            &[("203.0.113.0", Protocol::Tcp, 80, 80), ("203.0.113.7", Protocol::Tcp, 80, 80)],
            &[("10.0.0.1", None)],
        );
        s.services[0].listen[0].prefix = 24;
        let all: Vec<_> = routed_addresses(&s).iter().map(ToString::to_string).collect();
        assert_eq!(all, ["203.0.113.0/24", "203.0.113.7/32"]);
    }

    #[test]
    fn networks_are_exact_while_they_are_few_and_cover_all_when_many() {
        let parse = |texts: &[&str]| texts.iter().map(|t| t.parse().unwrap()).collect::<Vec<IpNet>>();
        let cases: &[(&[&str], usize, &[&str])] = &[
            (&[], 4, &[]),
            (&["10.0.0.2/32", "10.0.0.3/32"], 4, &["10.0.0.2/31"]),
            (&["10.0.0.1/32", "10.0.0.2/32"], 4, &["10.0.0.1/32", "10.0.0.2/32"]),
            (&["10.0.0.1/32", "10.0.0.2/32", "10.8.0.1/32"], 2, &["10.0.0.0/30", "10.8.0.1/32"]),
            (&["0.0.0.1/32", "255.0.0.1/32"], 1, &["0.0.0.0/0"]),
            (&["fd00::1/128", "fd00::4/128", "fe00::/64"], 2, &["fd00::/125", "fe00::/64"]),
            (&["10.0.0.0/8", "10.1.2.3/32", "11.0.0.0/32"], 1, &["10.0.0.0/7"]),
        ];
        for (nets, most, want) in cases {
            assert_eq!(cover(&parse(nets), *most), parse(want), "{nets:?}");
        }
    }

    #[test]
    fn ten_thousand_scattered_servers_are_at_most_64_rules_that_miss_none() {
        // Every third address: no two can be merged exactly.
        let texts: Vec<String> =
            (0..10_000u32).map(|i| std::net::Ipv4Addr::from(0x0a00_0000 + 3 * i).to_string()).collect();
        let servers: Vec<(&str, Option<u16>)> = texts.iter().map(|t| (t.as_str(), None)).collect();
        let s = settings(&[("192.0.2.1", Protocol::Tcp, 80, 80)], &servers);
        let (icmp, rules): (Vec<_>, Vec<_>) = answers(&s).into_iter().partition(|a| a.protocol == Protocol::Icmp);
        assert_eq!(icmp.iter().map(|a| a.from).collect::<Vec<_>>(), rules.iter().map(|a| a.from).collect::<Vec<_>>());
        assert!((32..=MOST_NETWORKS).contains(&rules.len()), "{}", rules.len());
        for text in &texts {
            let address: IpAddr = text.parse().unwrap();
            assert_eq!(rules.iter().filter(|r| r.from.contains(&address)).count(), 1, "{text}");
        }
        let widest = rules.iter().map(|r| r.from.prefix_len()).min().unwrap();
        assert!(widest >= 22, "no network is wider than it must be: /{widest}");
    }

    #[test]
    fn a_thousand_ports_become_rules_without_ports() {
        let servers: Vec<(String, Option<u16>)> = (1..=1000).map(|p| ("10.0.0.1".to_owned(), Some(p))).collect();
        let servers: Vec<(&str, Option<u16>)> = servers.iter().map(|(a, p)| (a.as_str(), *p)).collect();
        assert_eq!(
            shown(&settings(&[("192.0.2.1", Protocol::Tcp, 80, 80)], &servers)),
            ["10.0.0.1/32 tcp", "10.0.0.1/32 icmp"]
        );
    }
}
