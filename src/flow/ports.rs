//! Source addresses and ports for flows whose source is translated too (full NAT).
//!
//! A port of an address belongs to one flow of a protocol at a time, and rests for a while when it is freed: none is
//! overloaded (RFC 4787 REQ-3; RFC 6888 REQ-8). It must not know flows beyond client address and port.

use super::nat_settings::{NatPoolSettings, Pooling};
use crate::packet::Protocol;
use crate::rng::Rng;
use crate::time::Instant;
use siphasher::sip::SipHasher13;
use std::collections::VecDeque;
use std::hash::Hasher;
use std::net::IpAddr;

/// No port is left for a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exhausted;

/// What of an address's ports is in use for a protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// The address.
    pub address: IpAddr,
    /// The protocol.
    pub protocol: Protocol,
    /// Ports that flows have.
    pub used: u32,
    /// Ports that rest.
    pub resting: u32,
    /// Ports that are left.
    pub free: u32,
}

/// Ports of one parity: 32,768.
const HALF: usize = 1 << 15;
/// Protocols whose ports are told apart.
const KINDS: [Protocol; 4] = [Protocol::Tcp, Protocol::Udp, Protocol::Icmp, Protocol::Sctp];
/// Ports that one call gives back at most.
const MOST_GIVEN_BACK: usize = 64;

/// A set of 32,768 numbers in three levels of words: the next member is found in as many steps.
#[derive(Debug, Clone)]
struct Members {
    low: [u64; HALF / 64],
    middle: [u64; HALF / 64 / 64],
    top: u64,
}

impl Members {
    fn none() -> Self {
        Members { low: [0; HALF / 64], middle: [0; HALF / 64 / 64], top: 0 }
    }

    fn add(&mut self, n: usize) {
        self.low[n >> 6] |= 1 << (n & 63);
        self.middle[n >> 12] |= 1 << ((n >> 6) & 63);
        self.top |= 1 << (n >> 12);
    }

    fn remove(&mut self, n: usize) {
        self.low[n >> 6] &= !(1 << (n & 63));
        if self.low[n >> 6] == 0 {
            self.middle[n >> 12] &= !(1 << ((n >> 6) & 63));
            if self.middle[n >> 12] == 0 {
                self.top &= !(1 << (n >> 12));
            }
        }
    }

    fn has(&self, n: usize) -> bool {
        self.low[n >> 6] & (1 << (n & 63)) != 0
    }

    /// The least member that is not less than `from`.
    fn next(&self, from: usize) -> Option<usize> {
        // The bits at and behind a place of a word.
        let rest = |word: u64, place: usize| if place < 64 { word & (u64::MAX << place) } else { 0 };
        let low = rest(*self.low.get(from >> 6)?, from & 63);
        if low != 0 {
            return Some(from & !63 | low.trailing_zeros() as usize);
        }
        let middle = rest(self.middle[from >> 12], ((from >> 6) & 63) + 1);
        let word = if middle != 0 {
            from >> 12 << 6 | middle.trailing_zeros() as usize
        } else {
            let top = rest(self.top, (from >> 12) + 1);
            if top == 0 {
                return None;
            }
            let at = top.trailing_zeros() as usize;
            at << 6 | self.middle[at].trailing_zeros() as usize
        };
        Some(word << 6 | self.low[word].trailing_zeros() as usize)
    }
}

/// The ports of an address for a protocol: even and odd ones apart.
#[derive(Debug, Clone)]
struct Ports {
    free: [Members; 2],
    taken: [Members; 2],
    used: u32,
    resting: u32,
}

impl Ports {
    fn new(first: u16, last: u16) -> Self {
        let mut free = [Members::none(), Members::none()];
        for port in first..=last {
            free[usize::from(port & 1)].add(usize::from(port >> 1));
        }
        Ports { free, taken: [Members::none(), Members::none()], used: 0, resting: 0 }
    }

    fn take(&mut self, port: u16) {
        let (parity, n) = (usize::from(port & 1), usize::from(port >> 1));
        self.free[parity].remove(n);
        self.taken[parity].add(n);
        self.used += 1;
    }
}

/// Finds a free port from `first` to `last` of a parity, at or behind a place drawn at random. Without `ports` none has
/// been taken yet.
fn find(ports: Option<(&Ports, &[u16])>, rng: &mut Rng, parity: usize, first: u16, last: u16) -> Option<u16> {
    // The least and the greatest of this parity within the range.
    let low = (usize::from(first) + 1 - parity) >> 1;
    let high = (usize::from(last) + 2 - parity) >> 1;
    let count = high.checked_sub(low).filter(|count| *count > 0)?;
    let start = low + rng.below(count as u64) as usize;
    let found = match ports {
        None => start,
        Some((ports, given_back)) => {
            let more = || given_back.iter().filter(|port| usize::from(**port & 1) == parity);
            let next = |from: usize| {
                let free = ports.free[parity].next(from);
                let more = more().map(|port| usize::from(*port >> 1)).filter(|n| *n >= from).min();
                free.into_iter().chain(more).min().filter(|n| *n < high)
            };
            next(start).or_else(|| next(low))?
        }
    };
    Some((found << 1 | parity) as u16)
}

#[derive(Debug, Clone)]
struct Address {
    address: IpAddr,
    /// Made when the first flow of the protocol takes a port.
    ports: [Option<Box<Ports>>; KINDS.len()],
}

/// Where a pool's random numbers stand: proposals draw from a copy, so that one that comes to nothing leaves no trace.
#[derive(Debug, Clone)]
pub struct Draw(Rng);

/// Ports that count as given back, though nothing has been carried out.
#[derive(Debug, Clone, Copy, Default)]
pub struct GivenBack {
    /// How many of those that rest have rested.
    pub rested: usize,
    /// A port of a flow that counts as ended; it counts as free only where ports do not rest.
    pub ended: Option<(IpAddr, u16, Protocol)>,
}

/// A pool of source addresses with their ports.
#[derive(Debug, Clone)]
pub struct NatPool {
    settings: NatPoolSettings,
    /// IPv4 before IPv6, each in the order of the settings.
    addresses: Vec<Address>,
    first_v6: usize,
    rng: Rng,
    key: (u64, u64),
    /// Ports that rest, in the order in which they were freed: until when, address, protocol, port.
    resting: VecDeque<(Instant, u32, u8, u16)>,
    exhausted: u64,
}

impl NatPool {
    /// A pool with every port free.
    pub fn new(settings: &NatPoolSettings, seed: u64) -> Self {
        let address = |address| Address { address, ports: [const { None }; KINDS.len()] };
        let v4 = settings.v4.iter().map(|a| address(IpAddr::V4(*a)));
        let addresses = v4.chain(settings.v6.iter().map(|a| address(IpAddr::V6(*a)))).collect();
        let name = settings.name.bytes().fold(seed, |hash, byte| crate::rng::mix(hash ^ u64::from(byte)));
        NatPool {
            settings: settings.clone(),
            addresses,
            first_v6: settings.v4.len(),
            rng: Rng::new(crate::rng::mix(name)),
            key: (seed, name),
            resting: VecDeque::new(),
            exhausted: 0,
        }
    }

    /// Returns the settings it was made from.
    pub fn settings(&self) -> &NatPoolSettings {
        &self.settings
    }

    /// Returns where proposals begin to draw.
    pub fn draw(&self) -> Draw {
        Draw(self.rng.clone())
    }

    /// Returns how many new flows found no port.
    pub fn exhausted(&self) -> u64 {
        self.exhausted
    }

    /// Proposes a source address of a family and a port (for an echo an identifier) for a flow of a client; a protocol
    /// without ports gets an address and 0. Nothing is taken.
    ///
    /// # Errors
    /// [`Exhausted`] where no port is free. Ports that have rested count as free only once
    /// [`NatPool::handle_timeout`] has given them back; those that are `given_back` count as free already.
    pub fn propose(
        &self,
        draw: &mut Draw,
        (client, client_port): (IpAddr, u16),
        protocol: Protocol,
        v6: bool,
        given_back: GivenBack,
    ) -> Result<(IpAddr, u16), Exhausted> {
        let range = if v6 { self.first_v6..self.addresses.len() } else { 0..self.first_v6 };
        if range.is_empty() {
            return Err(Exhausted);
        }
        let own = range.start + (self.hash(client) % range.len() as u64) as usize;
        let Some(kind) = kind(protocol) else { return Ok((self.addresses[own].address, 0)) };
        let others = if self.settings.pooling == Pooling::Arbitrary { range.len() } else { 1 };
        let places = (0..others).map(|i| range.start + (own - range.start + i) % range.len());
        let mut found = places.map(|at| (at, self.find(&mut draw.0, at, kind, client_port, given_back)));
        found.find_map(|(at, port)| Some((self.addresses[at].address, port?))).ok_or(Exhausted)
    }

    /// A keyed hash that is the same on every machine.
    fn hash(&self, client: IpAddr) -> u64 {
        let mut hasher = SipHasher13::new_with_keys(self.key.0, self.key.1);
        match client {
            IpAddr::V4(a) => hasher.write(&a.octets()),
            IpAddr::V6(a) => hasher.write(&a.octets()),
        }
        hasher.finish()
    }

    fn find(&self, rng: &mut Rng, at: usize, kind: usize, client_port: u16, given_back: GivenBack) -> Option<u16> {
        let (mut first, mut last) = (self.settings.first_port, self.settings.last_port);
        let given_back = self.given_back(at, kind, given_back);
        let ports = self.addresses[at].ports[kind].as_deref().map(|ports| (ports, &given_back[..]));
        let is_port = KINDS[kind] != Protocol::Icmp;
        if is_port && self.settings.range_class {
            // RFC 4787 REQ-3a: well-known ports stay so.
            (first, last) = if client_port < 1024 { (first, last.min(1023)) } else { (first.max(1024), last) };
        }
        if first > last {
            return None;
        }
        if is_port && self.settings.parity {
            return find(ports, rng, usize::from(client_port & 1), first, last);
        }
        let half = rng.below(2) as usize;
        find(ports, rng, half, first, last).or_else(|| find(ports, rng, 1 - half, first, last))
    }

    /// Returns the ports of an address and a protocol that count as given back.
    fn given_back(&self, at: usize, kind: usize, given_back: GivenBack) -> Vec<u16> {
        let rested = self.resting.iter().take(given_back.rested);
        let rested = rested.filter(|(_, of, protocol, _)| (*of as usize, usize::from(*protocol)) == (at, kind));
        let is_here = |ended: &(IpAddr, u16, Protocol)| (ended.0, ended.2) == (self.addresses[at].address, KINDS[kind]);
        let ended = given_back.ended.filter(|ended| self.settings.hold.is_zero() && is_here(ended));
        rested.map(|(.., port)| *port).chain(ended.map(|(_, port, _)| port)).collect()
    }

    /// Takes a proposal's address and port.
    pub fn take(&mut self, address: IpAddr, port: u16, protocol: Protocol) {
        let (Some(at), Some(kind)) = (self.place(address), kind(protocol)) else { return };
        let (first, last) = (self.settings.first_port, self.settings.last_port);
        let ports = self.addresses[at].ports[kind].get_or_insert_with(|| Box::new(Ports::new(first, last)));
        debug_assert!(ports.free[usize::from(port & 1)].has(usize::from(port >> 1)), "port {port} is not free");
        ports.take(port);
    }

    /// Moves on to where proposals have drawn, whether or not anything was taken.
    pub fn drawn(&mut self, draw: Draw) {
        self.rng = draw.0;
    }

    /// Counts a new flow that found no port.
    pub fn count_exhausted(&mut self) {
        self.exhausted += 1;
    }

    /// Takes back the port of a flow that has ended; it rests for a while. A port that no flow has is left alone.
    pub fn release(&mut self, now: Instant, address: IpAddr, port: u16, protocol: Protocol) {
        let Some((at, kind)) = self.put_down(address, port, protocol) else { return };
        if self.settings.hold == crate::time::Duration::ZERO {
            return self.give_back(at, kind, port);
        }
        if let Some(ports) = &mut self.addresses[at].ports[kind] {
            ports.resting += 1;
        }
        self.resting.push_back((now + self.settings.hold, at as u32, kind as u8, port));
    }

    fn put_down(&mut self, address: IpAddr, port: u16, protocol: Protocol) -> Option<(usize, usize)> {
        let (at, kind) = (self.place(address)?, kind(protocol)?);
        let ports = self.addresses[at].ports[kind].as_mut()?;
        let (parity, n) = (usize::from(port & 1), usize::from(port >> 1));
        if !ports.taken[parity].has(n) {
            return None;
        }
        ports.taken[parity].remove(n);
        ports.used -= 1;
        Some((at, kind))
    }

    fn give_back(&mut self, at: usize, kind: usize, port: u16) {
        if let Some(ports) = &mut self.addresses[at].ports[kind] {
            ports.free[usize::from(port & 1)].add(usize::from(port >> 1));
        }
    }

    fn place(&self, address: IpAddr) -> Option<usize> {
        let v6 = address.is_ipv6();
        let range = if v6 { &self.addresses[self.first_v6..] } else { &self.addresses[..self.first_v6] };
        // The settings list them in ascending order.
        let found = range.binary_search_by_key(&address, |own| own.address).ok()?;
        Some(found + if v6 { self.first_v6 } else { 0 })
    }

    /// Whether an address is one of the pool's.
    pub fn owns(&self, address: IpAddr) -> bool {
        self.place(address).is_some()
    }

    /// Whether ports have rested and wait for [`NatPool::handle_timeout`], behind the first `given_back`.
    #[inline]
    pub fn is_due(&self, now: Instant, given_back: usize) -> bool {
        self.resting.get(given_back).is_some_and(|(until, ..)| *until <= now)
    }

    /// Returns how many ports that have rested [`NatPool::handle_timeout`] would give back in `calls` calls.
    pub fn to_give_back(&self, now: Instant, calls: usize) -> usize {
        self.resting.iter().take(calls * MOST_GIVEN_BACK).take_while(|(until, ..)| *until <= now).count()
    }

    /// When [`NatPool::handle_timeout`] has something to do.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.resting.front().map(|(until, ..)| *until)
    }

    /// Gives back ports that have rested, a bounded number.
    pub fn handle_timeout(&mut self, now: Instant) {
        for _ in 0..MOST_GIVEN_BACK {
            match self.resting.front() {
                Some((until, at, kind, port)) if *until <= now => {
                    let (at, kind, port) = (*at as usize, usize::from(*kind), *port);
                    self.resting.pop_front();
                    if let Some(ports) = &mut self.addresses[at].ports[kind] {
                        ports.resting -= 1;
                    }
                    self.give_back(at, kind, port);
                }
                _ => return,
            }
        }
    }

    /// What is in use of each address and protocol that any flow ever had, in the order of the settings.
    pub fn usage(&self) -> impl Iterator<Item = Usage> + '_ {
        let all = u32::from(self.settings.last_port) - u32::from(self.settings.first_port) + 1;
        self.addresses.iter().flat_map(move |own| {
            let used = own.ports.iter().zip(KINDS).filter_map(|(ports, protocol)| Some((ports.as_ref()?, protocol)));
            used.map(move |(ports, protocol)| Usage {
                address: own.address,
                protocol,
                used: ports.used,
                resting: ports.resting,
                free: all - ports.used - ports.resting,
            })
        })
    }
}

fn kind(protocol: Protocol) -> Option<usize> {
    KINDS.iter().position(|known| *known == protocol)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Duration;
    use proptest::prelude::*;
    use std::collections::{BTreeMap, BTreeSet};

    fn settings() -> NatPoolSettings {
        NatPoolSettings { v4: vec![[10, 0, 0, 1].into(), [10, 0, 0, 2].into()], ..NatPoolSettings::new("out") }
    }

    impl NatPool {
        /// What a driver does for a new flow: time first, then a proposal, which it takes.
        fn allocate(
            &mut self,
            now: Instant,
            client: IpAddr,
            client_port: u16,
            protocol: Protocol,
            v6: bool,
        ) -> Result<(IpAddr, u16), Exhausted> {
            self.handle_timeout(now);
            loop {
                let mut draw = self.draw();
                let ask = (client, client_port);
                let proposed = self.propose(&mut draw, ask, protocol, v6, GivenBack::default());
                assert_eq!(
                    self.propose(&mut self.draw(), ask, protocol, v6, GivenBack::default()),
                    proposed,
                    "no trace"
                );
                if let Ok((address, port)) = proposed {
                    self.drawn(draw);
                    self.take(address, port, protocol);
                    return Ok((address, port));
                }
                if !self.is_due(now, 0) {
                    self.count_exhausted();
                    return Err(Exhausted);
                }
                self.handle_timeout(now);
            }
        }
    }

    fn at(seconds: u64) -> Instant {
        Instant::from_nanos(seconds * 1_000_000_000)
    }

    fn client(n: u8) -> IpAddr {
        [198, 51, 100, n].into()
    }

    #[test]
    fn every_port_of_the_range_is_given_once_and_then_none_is_left() {
        let one = NatPoolSettings { v4: vec![[10, 0, 0, 1].into()], ..settings() };
        for (first, last) in [(1024, 65_535), (1, 65_535), (7, 7), (8, 8), (1000, 1001), (32_767, 32_769)] {
            let mut pool = NatPool::new(&NatPoolSettings { first_port: first, last_port: last, ..one.clone() }, 1);
            let mut seen = BTreeSet::new();
            while let Ok((_, port)) = pool.allocate(at(0), client(1), 40_000, Protocol::Tcp, false) {
                assert!((first..=last).contains(&port) && seen.insert(port));
            }
            assert_eq!(seen.len(), usize::from(last - first) + 1);
            assert_eq!(pool.usage().next().unwrap().free, 0);
            assert_eq!(
                (pool.exhausted(), pool.allocate(at(0), client(1), 1, Protocol::Tcp, true)),
                (1, Err(Exhausted))
            );
            assert!(pool.allocate(at(0), client(1), 1, Protocol::Udp, false).is_ok(), "another protocol");
        }
    }

    #[test]
    fn parity_and_range_are_kept_where_they_are_asked_for() {
        let asked =
            NatPoolSettings { first_port: 1000, last_port: 1100, parity: true, range_class: true, ..settings() };
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
        assert_eq!(pool.allocate(at(0), client(1), 53, Protocol::Udp, false), Err(Exhausted), "none under 1024");
    }

    #[test]
    fn a_client_has_one_address_and_goes_elsewhere_only_if_it_may() {
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
    fn a_freed_port_rests_before_it_is_given_again() {
        let one = NatPoolSettings { first_port: 9000, last_port: 9000, ..settings() };
        let mut pool = NatPool::new(&one, 1);
        let (address, port) = pool.allocate(at(0), client(1), 1, Protocol::Tcp, false).unwrap();
        pool.release(at(10), address, port, Protocol::Tcp);
        pool.release(at(10), address, port, Protocol::Tcp);
        pool.release(at(10), address, 1, Protocol::Tcp);
        assert_eq!((pool.poll_timeout(), pool.usage().next().unwrap().resting), (Some(at(130)), 1));
        assert!(pool.allocate(at(129), client(1), 1, Protocol::Tcp, false).is_err());
        assert_eq!(pool.allocate(at(130), client(1), 1, Protocol::Tcp, false), Ok((address, port)));
        let mut pool = NatPool::new(&NatPoolSettings { hold: Duration::ZERO, ..one }, 1);
        let (address, port) = pool.allocate(at(0), client(1), 1, Protocol::Icmp, false).unwrap();
        pool.release(at(0), address, port, Protocol::Icmp);
        assert!(pool.allocate(at(0), client(1), 1, Protocol::Icmp, false).is_ok());
    }

    #[test]
    fn a_port_that_has_rested_is_found_behind_any_number_of_others() {
        let small = NatPoolSettings { first_port: 5000, last_port: 5199, ..settings() };
        let mut pool = NatPool::new(&small, 7);
        let own = |pool: &mut NatPool, n| pool.allocate(at(0), client(n), 1, Protocol::Tcp, false);
        let first = own(&mut pool, 1).unwrap();
        let other = (2..).find(|n| own(&mut pool, *n).unwrap().0 != first.0).unwrap();
        while own(&mut pool, 1).is_ok() {}
        while own(&mut pool, other).is_ok() {}
        let addresses = [first.0, own_of(&small, first.0)];
        for address in addresses {
            (5000..=5199).for_each(|port| pool.release(at(1), address, port, Protocol::Tcp));
        }
        assert!(pool.allocate(at(120), client(other), 1, Protocol::Tcp, false).is_err());
        let got = pool.allocate(at(121), client(other), 1, Protocol::Tcp, false);
        assert_eq!(got.map(|(address, _)| address), Ok(addresses[1]));
    }

    /// The other one of two addresses.
    fn own_of(settings: &NatPoolSettings, not: IpAddr) -> IpAddr {
        settings.v4.iter().map(|a| IpAddr::V4(*a)).find(|a| *a != not).unwrap()
    }

    #[test]
    fn ports_are_hard_to_guess_and_the_same_for_one_seed() {
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
    fn a_protocol_without_ports_gets_an_address_alone() {
        let mut pool = NatPool::new(&settings(), 1);
        let (address, port) = pool.allocate(at(0), client(1), 0, Protocol::Ip(47), false).unwrap();
        assert!(pool.owns(address) && port == 0);
        assert!(!pool.owns(client(1)));
    }

    proptest! {
        #[test]
        fn it_gives_and_holds_what_a_naive_pool_does(steps in prop::collection::vec((0u8..4, 0u16..12, 0u64..40), 1..300)) {
            let few = NatPoolSettings { first_port: 2047, last_port: 2056, ..settings() };
            let (mut pool, mut now) = (NatPool::new(&few, 5), at(0));
            let (mut taken, mut held) = (BTreeSet::new(), BTreeMap::new());
            for (what, n, wait) in steps {
                now = now + Duration::from_secs(wait);
                held.retain(|_, until| *until > now);
                if what < 2 {
                    match pool.allocate(now, client(n as u8), n, Protocol::Tcp, false) {
                        Ok(got) => {
                            prop_assert!(!held.contains_key(&got));
                            prop_assert!(taken.insert(got));
                        }
                        Err(Exhausted) => {
                            let own = few.v4.iter().map(|a| IpAddr::V4(*a));
                            let full = own.filter(|own| {
                                taken.iter().chain(held.keys()).filter(|(address, _)| address == own).count() == 10
                            });
                            prop_assert!(full.count() > 0);
                        }
                    }
                } else if let Some(got) = taken.iter().nth(usize::from(n)).copied() {
                    taken.remove(&got);
                    pool.release(now, got.0, got.1, Protocol::Tcp);
                    held.insert(got, now + few.hold);
                }
                pool.handle_timeout(now);
                let used: u32 = pool.usage().map(|usage| usage.used).sum();
                let resting: u32 = pool.usage().map(|usage| usage.resting).sum();
                prop_assert_eq!((used as usize, resting as usize), (taken.len(), held.len()));
            }
        }
    }
}
