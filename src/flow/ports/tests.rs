//! Tests of NAT pools against their rules.

mod naive;

use super::*;
use crate::time::Duration;
use std::collections::{BTreeMap, BTreeSet};

fn settings() -> NatPoolSettings {
    NatPoolSettings { v4: vec![[10, 0, 0, 1].into(), [10, 0, 0, 2].into()], ..NatPoolSettings::new("out") }
}

impl NatPool {
    /// What a driver does for a new flow: advances time, requests a proposal, ends the flow that it replaces, and takes
    /// it.
    fn open(
        &mut self,
        now: Instant,
        client: (IpAddr, u16),
        (protocol, server): (Protocol, Endpoint),
        half_open: bool,
    ) -> Result<Proposal, Exhausted> {
        self.handle_timeout(now);
        loop {
            let mut draw = self.draw();
            let ask = |draw: &mut Draw| self.propose(draw, client, (protocol, server), half_open, GivenBack::default());
            let proposed = ask(&mut draw);
            assert_eq!(ask(&mut self.draw()), proposed, "no trace");
            if let Ok(proposal) = proposed {
                let mapping = Mapping { address: proposal.address, port: proposal.port, protocol, server };
                if proposal.replaces {
                    self.yield_port(&mapping);
                    self.release(now, &mapping);
                }
                self.drawn(draw);
                self.take(&mapping, half_open);
                return Ok(proposal);
            }
            if !self.is_due(now, 0) {
                self.count_exhausted();
                return Err(Exhausted);
            }
            self.handle_timeout(now);
        }
    }

    /// Opens a flow that is not half-open to one server.
    fn allocate(
        &mut self,
        now: Instant,
        client: IpAddr,
        client_port: u16,
        protocol: Protocol,
        v6: bool,
    ) -> Result<(IpAddr, u16), Exhausted> {
        let server = if v6 { Endpoint { address: [0xfd00, 0, 0, 0, 0, 0, 0, 1].into(), port: 80 } } else { server(1) };
        self.open(now, (client, client_port), (protocol, server), false).map(|found| (found.address, found.port))
    }

    /// Releases the port of a flow from [`NatPool::allocate`].
    fn free_again(&mut self, now: Instant, address: IpAddr, port: u16, protocol: Protocol) {
        self.release(now, &Mapping { address, port, protocol, server: server(1) });
    }
}

fn server(n: u16) -> Endpoint {
    Endpoint { address: [10, 0, 2, 1].into(), port: 8000 + n }
}

fn at(seconds: u64) -> Instant {
    Instant::from_nanos(seconds * 1_000_000_000)
}

fn client(n: u8) -> IpAddr {
    [198, 51, 100, n].into()
}

#[test]
fn every_port_of_the_range_is_allocated_once_until_exhaustion() {
    let one = NatPoolSettings { v4: vec![[10, 0, 0, 1].into()], ..settings() };
    for (first, last) in [(1024, 65_535), (1, 65_535), (7, 7), (8, 8), (1000, 1001), (32_767, 32_769)] {
        let mut pool = NatPool::new(&NatPoolSettings { first_port: first, last_port: last, ..one.clone() }, 1);
        let mut seen = BTreeSet::new();
        while let Ok((_, port)) = pool.allocate(at(0), client(1), 40_000, Protocol::Tcp, false) {
            assert!((first..=last).contains(&port) && seen.insert(port));
        }
        assert_eq!(seen.len(), usize::from(last - first) + 1);
        assert_eq!(pool.usage().next().unwrap().free, 0);
        assert_eq!((pool.exhausted(), pool.allocate(at(0), client(1), 1, Protocol::Tcp, true)), (1, Err(Exhausted)));
        assert!(pool.allocate(at(0), client(1), 1, Protocol::Udp, false).is_ok(), "another protocol");
    }
}

#[test]
fn parity_and_port_range_are_preserved_if_configured() {
    let asked = NatPoolSettings { first_port: 1000, last_port: 1100, parity: true, range_class: true, ..settings() };
    let mut pool = NatPool::new(&asked, 1);
    for (port, range) in [(53, 1000..=1023), (54, 1000..=1023), (40_000, 1024..=1100), (40_001, 1024..=1100)] {
        let mut count = 0;
        while let Ok((_, got)) = pool.allocate(at(0), client(1), port, Protocol::Udp, false) {
            assert!(range.contains(&got) && got & 1 == port & 1, "{port} {got}");
            count += 1;
        }
        assert!(count >= 12, "{count}");
    }
    let mut pool = NatPool::new(&NatPoolSettings { range_class: true, ..settings() }, 1);
    assert_eq!(pool.allocate(at(0), client(1), 53, Protocol::Udp, false), Err(Exhausted), "none below 1024");
}

#[test]
fn a_client_keeps_one_address_unless_configured_otherwise() {
    let small = NatPoolSettings { first_port: 5000, last_port: 5003, ..settings() };
    let mut pool = NatPool::new(&small, 7);
    let of = |pool: &mut NatPool, n| {
        let all = (0..9).map_while(|_| pool.allocate(at(0), client(n), 1, Protocol::Tcp, false).ok());
        all.map(|(address, _)| address).collect::<Vec<_>>()
    };
    let first = of(&mut pool, 1);
    assert!(first.len() == 4 && first.iter().all(|address| *address == first[0]));
    let mut pool = NatPool::new(&NatPoolSettings { pooling: Pooling::Arbitrary, ..small }, 7);
    let both = of(&mut pool, 1);
    assert!(both.len() == 8 && both[..4] == first[..] && both[4..].iter().all(|address| *address != first[0]));
    let mut pool = NatPool::new(&settings(), 7);
    let spread = (0..=255).filter(|n| of(&mut pool, *n)[0] == first[0]).count();
    assert!((90..170).contains(&spread), "{spread}");
}

#[test]
fn a_freed_port_rests_before_reuse() {
    let one = NatPoolSettings { first_port: 9000, last_port: 9000, ..settings() };
    let mut pool = NatPool::new(&one, 1);
    let (address, port) = pool.allocate(at(0), client(1), 1, Protocol::Tcp, false).unwrap();
    pool.free_again(at(10), address, port, Protocol::Tcp);
    pool.free_again(at(10), address, port, Protocol::Tcp);
    pool.free_again(at(10), address, 1, Protocol::Tcp);
    assert_eq!((pool.poll_timeout(), pool.usage().next().unwrap().resting), (Some(at(130)), 1));
    assert!(pool.allocate(at(129), client(1), 1, Protocol::Tcp, false).is_err());
    assert_eq!(pool.allocate(at(130), client(1), 1, Protocol::Tcp, false), Ok((address, port)));
    let mut pool = NatPool::new(&NatPoolSettings { hold: Duration::ZERO, ..one }, 1);
    let (address, port) = pool.allocate(at(0), client(1), 1, Protocol::Icmp, false).unwrap();
    pool.free_again(at(0), address, port, Protocol::Icmp);
    assert!(pool.allocate(at(0), client(1), 1, Protocol::Icmp, false).is_ok());
}

#[test]
fn a_rested_port_is_found_behind_any_number_of_others() {
    let small = NatPoolSettings { first_port: 5000, last_port: 5199, ..settings() };
    let mut pool = NatPool::new(&small, 7);
    let own = |pool: &mut NatPool, n| pool.allocate(at(0), client(n), 1, Protocol::Tcp, false);
    let first = own(&mut pool, 1).unwrap();
    let other = (2..).find(|n| own(&mut pool, *n).unwrap().0 != first.0).unwrap();
    while own(&mut pool, 1).is_ok() {}
    while own(&mut pool, other).is_ok() {}
    let addresses = [first.0, own_of(&small, first.0)];
    for address in addresses {
        (5000..=5199).for_each(|port| pool.free_again(at(1), address, port, Protocol::Tcp));
    }
    assert!(pool.allocate(at(120), client(other), 1, Protocol::Tcp, false).is_err());
    let got = pool.allocate(at(121), client(other), 1, Protocol::Tcp, false);
    assert_eq!(got.map(|(address, _)| address), Ok(addresses[1]));
}

/// The other of two addresses.
fn own_of(settings: &NatPoolSettings, not: IpAddr) -> IpAddr {
    settings.v4.iter().map(|a| IpAddr::V4(*a)).find(|a| *a != not).unwrap()
}

#[test]
fn ports_are_hard_to_guess_and_deterministic_per_seed() {
    let draw = |seed| {
        let mut pool = NatPool::new(&settings(), seed);
        (0..50).map(|_| pool.allocate(at(0), client(1), 1, Protocol::Tcp, false).unwrap().1).collect::<Vec<_>>()
    };
    assert_eq!(draw(3), draw(3));
    assert_ne!(draw(3), draw(4));
    let near = draw(3).windows(2).filter(|pair| pair[0].abs_diff(pair[1]) < 64).count();
    assert!(near < 5, "{near}");
}

#[test]
fn a_protocol_without_ports_gets_only_an_address() {
    let mut pool = NatPool::new(&settings(), 1);
    let (address, port) = pool.allocate(at(0), client(1), 0, Protocol::Ip(47), false).unwrap();
    assert!(pool.owns(address) && port == 0);
    assert!(!pool.owns(client(1)));
}

/// Returns a pool of one address with the ports 5000 to `last`.
fn small(last: u16) -> NatPool {
    let v4 = vec![[10, 0, 0, 1].into()];
    NatPool::new(&NatPoolSettings { v4, first_port: 5000, last_port: last, ..settings() }, 1)
}

fn mapping(port: u16, server: Endpoint) -> Mapping {
    Mapping { address: [10, 0, 0, 1].into(), port, protocol: Protocol::Tcp, server }
}

#[test]
fn servers_share_ports_and_each_can_use_all_of_them() {
    let mut pool = small(5003);
    for n in 1..=3 {
        let mut seen = BTreeSet::new();
        while let Ok(found) = pool.open(at(0), (client(1), 1), (Protocol::Tcp, server(n)), false) {
            assert!(!found.replaces && seen.insert(found.port));
        }
        assert_eq!(seen.len(), 4, "server {n}");
    }
    let usage = pool.usage().next().unwrap();
    assert_eq!((usage.used, usage.endpoints, usage.fullest, usage.free), (12, 3, Some(server(1)), 0));
    pool.release(at(0), &mapping(5000, server(1)));
    let usage = pool.usage().next().unwrap();
    assert_eq!((usage.used, usage.resting, usage.fullest), (11, 1, Some(server(1))), "a resting port is not free");
}

#[test]
fn a_resting_port_is_given_out_towards_another_server() {
    let mut pool = small(5000);
    let to = |n| (Protocol::Tcp, server(n));
    pool.open(at(0), (client(1), 1), to(1), false).unwrap();
    pool.release(at(10), &mapping(5000, server(1)));
    assert!(pool.open(at(129), (client(2), 1), to(1), false).is_err());
    assert_eq!(pool.open(at(129), (client(2), 1), to(2), false).map(|found| found.port), Ok(5000));
    pool.release(at(129), &mapping(5000, server(2)));
    assert!(pool.open(at(130), (client(2), 1), to(1), false).is_ok(), "each rests for its own time");
    assert!(pool.open(at(130), (client(2), 1), to(2), false).is_err());
}

#[test]
fn half_open_flows_have_at_most_half_of_the_ports_and_the_oldest_gives_way() {
    for (last, half) in [(5000, 1), (5001, 1), (5002, 2), (5099, 50)] {
        let mut pool = small(last);
        let to = (Protocol::Tcp, server(1));
        let mut ports: Vec<u16> = Vec::new();
        for n in 0..1000 {
            let found = pool.open(at(0), (client(1), 1), to, true).unwrap();
            assert_eq!(found.replaces, n >= half);
            if found.replaces {
                assert_eq!(ports.remove(0), found.port);
            }
            ports.push(found.port);
            let usage = pool.usage().next().unwrap();
            assert_eq!((usage.used as usize, usage.tentative as usize), (ports.len(), ports.len()));
        }
        // Flows to another server are not affected, nor are those that are not half-open.
        assert!(!pool.open(at(0), (client(1), 1), (Protocol::Tcp, server(2)), true).unwrap().replaces);
        let left = (0..).take_while(|_| pool.open(at(0), (client(1), 1), to, false).is_ok()).count();
        assert_eq!(left, usize::from(last - 5000 + 1) - half);
    }
}

#[test]
fn a_flow_whose_handshake_is_complete_keeps_its_port() {
    let mut pool = small(5099);
    let to = (Protocol::Tcp, server(1));
    let mut kept = BTreeSet::new();
    // Between any two handshakes come more SYNs than there are ports.
    while let Ok(found) = pool.open(at(0), (client(1), 1), to, true) {
        assert!(!kept.contains(&found.port));
        pool.established(&mapping(found.port, server(1)));
        pool.established(&mapping(found.port, server(1)));
        kept.insert(found.port);
        for _ in 0..150 {
            assert!(!pool.open(at(0), (client(2), 1), to, true).is_ok_and(|found| kept.contains(&found.port)));
        }
    }
    assert_eq!((kept.len(), pool.usage().next().unwrap().tentative), (100, 0));
    for port in &kept {
        pool.release(at(1), &mapping(*port, server(1)));
    }
    assert_eq!(pool.usage().next().unwrap().resting, 100);
}

#[test]
fn the_port_of_a_flow_that_was_half_open_to_its_end_does_not_rest() {
    let mut pool = small(5003);
    let found = pool.open(at(0), (client(1), 1), (Protocol::Tcp, server(1)), true).unwrap();
    pool.release(at(1), &mapping(found.port, server(1)));
    pool.established(&mapping(found.port, server(1)));
    let usage = pool.usage().next().unwrap();
    assert_eq!((usage.used, usage.tentative, usage.resting, usage.free, usage.endpoints), (0, 0, 0, 4, 0));
    assert!(!pool.is_in_use() && pool.poll_timeout().is_none());
}

#[test]
fn datagrams_without_a_conversation_have_at_most_half_of_the_ports_with_those_that_rest_after_them() {
    let mut pool = small(5099);
    let to = (Protocol::Udp, server(1));
    let mapping = |port| Mapping { protocol: Protocol::Udp, ..mapping(port, server(1)) };
    let mut ports: Vec<u16> = (0..50).map(|_| pool.open(at(0), (client(1), 1), to, true).unwrap().port).collect();
    // One becomes a conversation, and ten others end: their ports rest, and count.
    pool.established(&mapping(ports.remove(0)));
    ports.drain(..10).for_each(|port| pool.release(at(1), &mapping(port)));
    let usage = pool.usage().next().unwrap();
    assert_eq!((usage.used, usage.tentative, usage.resting, usage.free), (40, 39, 10, 50));
    assert!(!pool.open(at(2), (client(2), 1), to, true).unwrap().replaces, "the fiftieth");
    for oldest in ports {
        let found = pool.open(at(2), (client(2), 1), to, true).unwrap();
        assert_eq!((found.replaces, found.port), (true, oldest));
    }
    assert_eq!(pool.usage().next().unwrap().resting, 10, "a port that is replaced does not rest");
    // What is not tentative has the other half.
    let left = (0..).take_while(|_| pool.open(at(2), (client(1), 1), to, false).is_ok()).count();
    assert_eq!(left, 49);
    assert!(!pool.open(at(122), (client(2), 1), to, true).unwrap().replaces, "ten have rested");
}

#[test]
fn half_of_each_class_of_ports_is_for_complete_handshakes() {
    let ports = (1020, 1027);
    let asked =
        NatPoolSettings { first_port: ports.0, last_port: ports.1, parity: true, range_class: true, ..settings() };
    let mut pool = NatPool::new(&asked, 1);
    let to = (Protocol::Tcp, server(1));
    // A flood from odd ports below 1024 takes nothing from the others.
    for _ in 0..100 {
        assert!([1021, 1023].contains(&pool.open(at(0), (client(1), 53), to, true).unwrap().port));
    }
    for port in [54, 40_000, 40_001] {
        assert!(!pool.open(at(0), (client(1), port), to, true).unwrap().replaces);
    }
    assert_eq!(pool.usage().map(|usage| usage.tentative).sum::<u32>(), 4);
}

#[test]
fn another_address_is_tried_before_a_half_open_flow_is_replaced() {
    let four = NatPoolSettings { first_port: 5000, last_port: 5003, pooling: Pooling::Arbitrary, ..settings() };
    let mut pool = NatPool::new(&four, 7);
    let found = [0; 5].map(|_| pool.open(at(0), (client(1), 1), (Protocol::Tcp, server(1)), true).unwrap());
    assert_eq!(found.map(|found| found.replaces), [false, false, false, false, true]);
    assert_ne!(found[0].address, found[2].address);
    assert_eq!((found[4].address, found[4].port), (found[0].address, found[0].port));
}

#[test]
fn an_endpoint_without_ports_in_use_is_forgotten() {
    let mut pool = small(5099);
    for n in 0..1000 {
        let found = pool.open(at(0), (client(1), 1), (Protocol::Tcp, server(n)), false).unwrap();
        pool.release(at(1), &mapping(found.port, server(n)));
    }
    assert_eq!(pool.usage().next().unwrap().endpoints, 1000);
    while pool.is_due(at(200), 0) {
        pool.handle_timeout(at(200));
    }
    assert!(pool.addresses.iter().flat_map(|own| own.kinds.iter().flatten()).all(|kind| kind.ports.is_empty()));
}

#[test]
fn only_so_many_ports_rest() {
    let mut pool = small(5099);
    pool.most_resting = 3;
    for n in 0..5 {
        let found = pool.open(at(0), (client(1), 1), (Protocol::Tcp, server(n)), false).unwrap();
        pool.release(at(1), &mapping(found.port, server(n)));
    }
    let usage = pool.usage().next().unwrap();
    assert_eq!((usage.resting, usage.endpoints), (3, 3));
}

#[test]
fn a_walk_over_resting_ports_meets_each_once_although_their_rest_was_shortened() {
    for portion in [1, 2, 3, 100] {
        let mut pool = small(5099);
        let settings = |seconds| NatPoolSettings { hold: Duration::from_secs(seconds), ..pool.settings().clone() };
        let holds = [120, 10, 60, 5].map(settings);
        for (second, hold) in (1..).zip(holds.iter().cycle().take(20)) {
            pool.follow(hold);
            let found = pool.open(at(second), (client(1), 1), (Protocol::Tcp, server(1)), false).unwrap();
            pool.release(at(second), &mapping(found.port, server(1)));
        }
        let (mut seen, mut place) = (Vec::new(), (Instant::ZERO, 0));
        loop {
            let before = seen.len();
            for rest in pool.resting(place).take(portion) {
                place = (rest.until, if rest.until == place.0 { place.1 + 1 } else { 1 });
                seen.push(rest);
                assert!(seen.len() <= 20, "the walk does not end");
            }
            if seen.len() - before < portion {
                break;
            }
        }
        assert_eq!(seen.len(), 20, "{portion}");
        // Another pool lets them rest as they come, whatever their own times.
        let mut other = small(5099);
        assert!(seen.iter().rev().all(|rest| other.let_rest(rest)));
        assert_eq!(other.to_give_back(at(1000), 9), 20);
        let times: Vec<Instant> = other.resting((Instant::ZERO, 0)).map(|rest| rest.until).collect();
        assert!(times.is_sorted(), "{times:?}");
    }
}
