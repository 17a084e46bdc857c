//! Source addresses and ports for flows whose source is also translated (full NAT).
//!
//! A port of an address belongs to at most one flow per protocol and server endpoint, and rests there for a while
//! after it is freed, so no two flows have the same addresses and ports (RFC 4787 REQ-3; RFC 6888 REQ-8). Flows to
//! different endpoints may share it (RFC 7857, 3).
//!
//! A flow is tentative until its client has shown that it receives answers: until its handshake is complete, or it sends
//! a datagram after an answer. Tentative flows have at most half of the ports towards an endpoint. When these are in use,
//! a new one replaces the oldest: a flood of `rate` SYNs or datagrams per second from forged addresses leaves each
//! client half the ports / `rate` seconds for its handshake or its answer, and takes no port from the other flows.
//!
//! It must not know more of a flow than its client address and port, its server endpoint, and whether it is tentative.

mod endpoint;
mod follow;
mod members;
mod saved;
mod share;
#[cfg(test)]
mod tests;
mod usage;
mod woken;

pub use endpoint::{Endpoint, Mapping};
pub use saved::Rest;
pub use share::Share;
pub use usage::Usage;

use super::nat_settings::{NatPoolSettings, Pooling};
use crate::packet::Protocol;
use crate::rng::Rng;
use crate::time::Instant;
use endpoint::{Class, Ports};
use siphasher::sip::SipHasher13;
use std::collections::{BTreeMap, VecDeque};
use std::hash::Hasher;
use std::net::IpAddr;
use std::ops::Range;
use woken::Woken;

/// No port is available for a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exhausted;

/// A source for a new flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Proposal {
    /// The source address.
    pub address: IpAddr,
    /// The source port (for an echo, the identifier); 0 for a protocol without ports.
    pub port: u16,
    /// Whether the port is that of a flow to the same endpoint which has to end first: the oldest tentative one, or one
    /// that is over.
    pub replaces: bool,
}

/// Ports of one address that are looked at to find one whose flow is over.
const MOST_LOOKED_AT: u16 = 128;
/// Protocols with separate port sets.
const KINDS: [Protocol; 4] = [Protocol::Tcp, Protocol::Udp, Protocol::Icmp, Protocol::Sctp];
/// Maximum number of resting ports that one call frees.
const MOST_GIVEN_BACK: usize = 64;
/// Maximum number of resting ports of a pool: about 20 MiB. While so many rest, a freed port does not; otherwise a
/// flood of short flows to a service on all ports would fill the memory. Within a rest of 120 s, 4,369 flows per second
/// end.
const MOST_RESTING: usize = 1 << 19;

/// The state of a pool's random numbers: proposals draw from a copy, so that an abandoned one leaves no trace.
#[derive(Debug, Clone)]
pub struct Draw(Rng);

/// Ports that count as freed, although nothing has been carried out.
#[derive(Debug, Clone, Copy, Default)]
pub struct GivenBack {
    /// How many of the resting ports have finished resting.
    pub rested: usize,
    /// The source of a flow that counts as ended; its port counts as free unless it rests.
    pub ended: Option<Mapping>,
}

/// What a flow needs.
#[derive(Debug, Clone, Copy)]
struct Wish {
    kind: usize,
    class: Class,
    server: Endpoint,
    tentative: bool,
    given_back: GivenBack,
}

/// The ports of one address and protocol.
#[derive(Debug, Clone, Default)]
struct Kind {
    /// By server endpoint and the number of the class.
    ports: BTreeMap<(Endpoint, u8), Ports>,
    used: u32,
    tentative: u32,
    resting: u32,
}

#[derive(Debug, Clone)]
struct Address {
    address: IpAddr,
    /// Created when the first flow of the protocol takes a port.
    kinds: [Option<Box<Kind>>; KINDS.len()],
}

impl Address {
    fn new(address: IpAddr) -> Self {
        Address { address, kinds: [const { None }; KINDS.len()] }
    }

    fn is_in_use(&self) -> bool {
        self.kinds.iter().flatten().any(|kind| kind.used > 0 || kind.resting > 0)
    }
}

/// A port that rests.
#[derive(Debug, Clone)]
struct Resting {
    until: Instant,
    server: Endpoint,
    address: u32,
    kind: u8,
    class: u8,
    index: u16,
    /// Whether its flow was tentative to its end.
    tentative: bool,
}

/// A pool of source addresses and their ports.
#[derive(Debug, Clone)]
pub struct NatPool {
    settings: NatPoolSettings,
    /// IPv4 before IPv6, each in configuration order; then those that the settings no longer have and flows still do.
    addresses: Vec<Address>,
    first_v6: usize,
    /// The number of those in the settings.
    active: usize,
    rng: Rng,
    key: (u64, u64),
    /// In the order in which they were freed, in which they finish resting too.
    resting: VecDeque<Resting>,
    /// Those that do not rest any more.
    woken: Woken,
    most_resting: usize,
    exhausted: u64,
    share: Share,
}

impl NatPool {
    /// Creates a pool with every port free.
    pub fn new(settings: &NatPoolSettings, seed: u64) -> Self {
        let v4 = settings.v4.iter().map(|a| Address::new(IpAddr::V4(*a)));
        let addresses: Vec<Address> = v4.chain(settings.v6.iter().map(|a| Address::new(IpAddr::V6(*a)))).collect();
        let name = settings.name.bytes().fold(seed, |hash, byte| crate::rng::mix(hash ^ u64::from(byte)));
        NatPool {
            settings: settings.clone(),
            active: addresses.len(),
            addresses,
            first_v6: settings.v4.len(),
            rng: Rng::new(crate::rng::mix(name)),
            key: (seed, name),
            resting: VecDeque::new(),
            woken: Woken::default(),
            most_resting: MOST_RESTING,
            exhausted: 0,
            share: Share::All,
        }
    }

    /// Returns how many ports of an address tentative flows may have towards one server endpoint.
    pub fn half(&self) -> u32 {
        (u32::from(self.settings.last_port) - u32::from(self.settings.first_port) + 1).div_ceil(2)
    }

    /// Returns the settings that it was created from.
    pub fn settings(&self) -> &NatPoolSettings {
        &self.settings
    }

    /// Returns the random state that proposals start from.
    pub fn draw(&self) -> Draw {
        Draw(self.rng.clone())
    }

    /// Returns how many new flows found no port.
    pub fn exhausted(&self) -> u64 {
        self.exhausted
    }

    /// Proposes a source for a client's flow to a server endpoint, of the server's family. Nothing is taken.
    ///
    /// A tentative flow gets a free port as long as tentative flows have fewer than half of those that it may get, and
    /// otherwise that of the oldest tentative flow to the same endpoint. Of a pool with arbitrary pooling, it gets a
    /// free port of any address before one that is not.
    ///
    /// # Errors
    /// [`Exhausted`] if no port can be had. Ports whose rest is over count as free only after
    /// [`NatPool::handle_timeout`] has freed them; those in `given_back` already count as free.
    pub fn propose(
        &self,
        draw: &mut Draw,
        (client, client_port): (IpAddr, u16),
        (protocol, server): (Protocol, Endpoint),
        tentative: bool,
        given_back: GivenBack,
    ) -> Result<Proposal, Exhausted> {
        let own = self.places(client, server).next().ok_or(Exhausted)?;
        let proposal = |at: usize, port, replaces| Proposal { address: self.addresses[at].address, port, replaces };
        let Some(kind) = kind(protocol) else { return Ok(proposal(own, 0, false)) };
        let class = Class::of(&self.settings, protocol, client_port).ok_or(Exhausted)?;
        let wish = Wish { kind, class, server, tentative, given_back };
        let places = || self.places(client, server);
        let free = places().find_map(|at| Some(proposal(at, self.free(&mut draw.0, at, &wish)?, false)));
        let replaced = || places().find_map(|at| Some(proposal(at, self.oldest_tentative(at, &wish)?, true)));
        free.or_else(|| replaced().filter(|_| tentative)).ok_or(Exhausted)
    }

    /// Proposes the port of a flow that is over, for a connection for which [`NatPool::propose`] finds no free one.
    /// `over_since` says since when the flow with a source towards the endpoint has been, or that it may not yield: 128
    /// ports of each address from a random one on are looked at, and the one over for longest yields. Half-open flows
    /// have no more ports for that.
    pub fn propose_yielding(
        &self,
        draw: &mut Draw,
        (client, client_port): (IpAddr, u16),
        (protocol, server): (Protocol, Endpoint),
        given_back: GivenBack,
        over_since: impl Fn(IpAddr, u16) -> Option<Instant>,
    ) -> Option<Proposal> {
        let (kind, class) = (kind(protocol)?, Class::of(&self.settings, protocol, client_port)?);
        let wish = Wish { kind, class, server, tentative: true, given_back };
        self.places(client, server).find_map(|at| {
            let ports = self.ports(at, kind, wish.of())?;
            let own = self.share.of(&class);
            let start = draw.0.below(own.len() as u64) as usize;
            if own.is_empty() || self.tentative_have_half(at, &wish, ports) {
                return None;
            }
            let address = self.addresses[at].address;
            let looked = (0..own.len().min(MOST_LOOKED_AT.into())).map(|i| own.start + (start + i) % own.len());
            let looked = looked.map(|index| index as u16);
            let used = looked.filter(|index| ports.busy.has(*index) && !ports.resting.has(*index));
            let over = used.map(|index| class.port(index)).filter_map(|port| Some((over_since(address, port)?, port)));
            let (_, port) = over.min_by_key(|(since, _)| *since)?;
            Some(Proposal { address, port, replaces: true })
        })
    }

    /// Returns the places of the addresses that a client's flow may get: its own one first.
    fn places(&self, client: IpAddr, server: Endpoint) -> impl Iterator<Item = usize> {
        let range = self.family(server.address.is_ipv6());
        let own = if range.is_empty() { 0 } else { (self.hash(client) % range.len() as u64) as usize };
        let tried = if self.settings.pooling == Pooling::Arbitrary { range.len() } else { range.len().min(1) };
        (0..tried).map(move |i| range.start + (own + i) % range.len())
    }

    /// Returns the places of a family's addresses.
    fn family(&self, v6: bool) -> Range<usize> {
        if v6 { self.first_v6..self.active } else { 0..self.first_v6 }
    }

    /// A keyed hash that is identical on every machine.
    fn hash(&self, client: IpAddr) -> u64 {
        let mut hasher = SipHasher13::new_with_keys(self.key.0, self.key.1);
        match client {
            IpAddr::V4(a) => hasher.write(&a.octets()),
            IpAddr::V6(a) => hasher.write(&a.octets()),
        }
        hasher.finish()
    }

    fn ports(&self, at: usize, kind: usize, of: (Endpoint, u8)) -> Option<&Ports> {
        self.addresses[at].kinds[kind].as_ref()?.ports.get(&of)
    }

    /// Finds a free port of one address, at or after a random position.
    fn free(&self, rng: &mut Rng, at: usize, wish: &Wish) -> Option<u16> {
        let (own, all) = (self.share.first_of(&wish.class), self.share.of(&wish.class));
        let start = own.start + rng.below(own.len() as u64) as usize;
        let Some(ports) = self.ports(at, wish.kind, wish.of()) else {
            let start = if own.is_empty() { all.start } else { start };
            return all.contains(&start).then(|| wish.class.port(start as u16));
        };
        if wish.tentative && self.tentative_have_half(at, wish, ports) {
            return None;
        }
        let given_back = self.given_back(at, wish, ports);
        let next = |from: usize, end: usize| {
            let more = given_back.iter().map(|index| usize::from(*index)).filter(|index| (from..end).contains(index));
            ports.busy.next_absent(from, end).into_iter().chain(more).min()
        };
        let in_own = next(start, own.end).or_else(|| next(own.start, start));
        let index = in_own.or_else(|| if own == all { None } else { next(all.start, all.end) })?;
        Some(wish.class.port(index as u16))
    }

    /// Returns whether tentative flows have all ports that they may have, and one of them can be replaced. Ports that rest
    /// after them count: otherwise a flood of short flows would take all of them one after the other.
    fn tentative_have_half(&self, at: usize, wish: &Wish, ports: &Ports) -> bool {
        let ended = self.ended(at, wish).filter(|index| ports.is_tentative(*index));
        let in_use = ports.tentative() - usize::from(ended.is_some());
        let rest = ended.is_some_and(|index| self.would_rest(wish.kind, ports, index));
        let rested = self.rested(at, wish).filter(|rests| rests.tentative).count();
        let most = self.share.of(&wish.class).len().div_ceil(2);
        in_use > 0
            && in_use + ports.resting_tentative.len() + usize::from(rest) - rested >= most
            && (self.share == Share::All || self.oldest_tentative(at, wish).is_some())
    }

    fn oldest_tentative(&self, at: usize, wish: &Wish) -> Option<u16> {
        let (ended, own) = (self.ended(at, wish), self.share.of(&wish.class));
        let oldest = self.ports(at, wish.kind, wish.of())?.oldest_tentative(ended, own)?;
        Some(wish.class.port(oldest))
    }

    /// Returns the port of the flow that counts as ended, if it is one of those that are asked for.
    fn ended(&self, at: usize, wish: &Wish) -> Option<u16> {
        let ended = wish.given_back.ended?;
        let is_here = (ended.address, ended.protocol, ended.server)
            == (self.addresses[at].address, KINDS[wish.kind], wish.server);
        let class = Class::of(&self.settings, ended.protocol, ended.port).filter(|_| is_here)?;
        class.index(ended.port).filter(|_| class.number == wish.class.number)
    }

    /// Returns the ports that count as freed.
    fn given_back(&self, at: usize, wish: &Wish, ports: &Ports) -> Vec<u16> {
        let rested = self.rested(at, wish).map(|rests| rests.index);
        let ended = self.ended(at, wish).filter(|index| !self.would_rest(wish.kind, ports, *index));
        rested.chain(ended).collect()
    }

    /// Returns the ports that count as having rested, out of those that are asked for.
    fn rested<'a>(&'a self, at: usize, wish: &'a Wish) -> impl Iterator<Item = &'a Resting> {
        let here = move |rests: &&Resting| {
            (rests.address as usize, usize::from(rests.kind), rests.server, rests.class)
                == (at, wish.kind, wish.server, wish.class.number)
        };
        let first = self.resting.iter().enumerate().take(wish.given_back.rested);
        first.filter(|(at, rests)| !self.woken.has(*at, rests)).map(|(_, rests)| rests).filter(here)
    }

    /// Returns whether a port would rest if it was released: not that of a TCP flow that is still tentative, which RFC
    /// 6888 REQ-8 (A) excepts. It would take a port from flows that complete their handshake.
    fn would_rest(&self, kind: usize, ports: &Ports, index: u16) -> bool {
        let is_excepted = KINDS[kind] == Protocol::Tcp && ports.is_tentative(index);
        !self.settings.hold.is_zero() && self.resting_len() < self.most_resting && !is_excepted
    }

    /// Takes the source of a proposal. If it replaces a flow, [`NatPool::yield_port`] has been called.
    pub fn take(&mut self, mapping: &Mapping, tentative: bool) {
        let Some((at, kind, class, index)) = self.place(mapping) else { return };
        let kind = self.addresses[at].kinds[kind].get_or_insert_default();
        let ports = kind.ports.entry((mapping.server, class.number)).or_insert_with(Ports::none);
        if !ports.busy.add(index) {
            debug_assert!(false, "{mapping:?} is not free");
            return;
        }
        kind.used += 1;
        if tentative {
            ports.add_tentative(index);
            kind.tentative += 1;
        }
    }

    /// Records that a flow that took its port as a tentative one no longer is: its handshake is complete, or its client
    /// has sent again after an answer. It keeps its port, which no new flow replaces. Otherwise it does nothing.
    pub fn established(&mut self, mapping: &Mapping) {
        let Some((at, kind, class, index)) = self.place(mapping) else { return };
        let Some(kind) = &mut self.addresses[at].kinds[kind] else { return };
        let Some(ports) = kind.ports.get_mut(&(mapping.server, class.number)) else { return };
        kind.tentative -= u32::from(ports.remove_tentative(index));
    }

    /// Advances the random state to where proposals ended, whether or not anything was taken.
    pub fn drawn(&mut self, draw: Draw) {
        self.rng = draw.0;
    }

    /// Counts a new flow that found no port.
    pub fn count_exhausted(&mut self) {
        self.exhausted += 1;
    }

    /// Releases the port of a flow that has ended. It then rests, unless the flow was TCP and still tentative. A port that
    /// no flow has is left alone.
    pub fn release(&mut self, now: Instant, mapping: &Mapping) {
        let Some((at, place, class, index)) = self.place(mapping) else { return };
        let of = (mapping.server, class.number);
        let held = self.ports(at, place, of);
        let Some(held) = held.filter(|ports| ports.busy.has(index) && !ports.resting.has(index)) else { return };
        let rests = self.would_rest(place, held, index);
        let Some(kind) = &mut self.addresses[at].kinds[place] else { return };
        let Some(ports) = kind.ports.get_mut(&of) else { return };
        let tentative = ports.remove_tentative(index);
        kind.used -= 1;
        kind.tentative -= u32::from(tentative);
        if !rests {
            return self.give_back(at, place, of, index);
        }
        ports.resting.add(index);
        if tentative {
            ports.resting_tentative.add(index);
        }
        kind.resting += 1;
        let (address, kind, class, until) = (at as u32, place as u8, class.number, now + self.settings.hold);
        self.push_resting(Resting { until, server: mapping.server, address, kind, class, index, tentative });
    }

    /// Queues a port that rests. Ports finish in the order in which they were freed: one that is freed after `hold` was
    /// shortened waits for those before it.
    fn push_resting(&mut self, mut rests: Resting) {
        rests.until = self.resting.back().map_or(rests.until, |last| last.until.max(rests.until));
        self.resting.push_back(rests);
    }

    /// Frees the port of a flow for the one that replaces it. It does not rest, whatever the protocol: under a flood,
    /// resting ports would take the place of the flows.
    pub fn yield_port(&mut self, mapping: &Mapping) {
        let Some((at, place, class, index)) = self.place(mapping) else { return };
        let of = (mapping.server, class.number);
        let Some(kind) = &mut self.addresses[at].kinds[place] else { return };
        let Some(ports) = kind.ports.get_mut(&of) else { return };
        if ports.busy.has(index) && !ports.resting.has(index) {
            kind.used -= 1;
            kind.tentative -= u32::from(ports.remove_tentative(index));
            self.give_back(at, place, of, index);
        }
    }

    /// Makes a port free, and forgets an endpoint of which no port is in use or rests.
    fn give_back(&mut self, at: usize, kind: usize, of: (Endpoint, u8), index: u16) {
        let Some(kind) = &mut self.addresses[at].kinds[kind] else { return };
        let Some(ports) = kind.ports.get_mut(&of) else { return };
        kind.resting -= u32::from(ports.resting.remove(index));
        ports.resting_tentative.remove(index);
        ports.busy.remove(index);
        if ports.busy.len() == 0 {
            kind.ports.remove(&of);
        }
    }

    /// Returns the place of a mapping: address, protocol, class of ports, and index in the class. None if the pool has
    /// no such address or port.
    fn place(&self, mapping: &Mapping) -> Option<(usize, usize, Class, u16)> {
        let (at, kind) = (self.address(mapping.address)?, kind(mapping.protocol)?);
        let class = Class::of(&self.settings, mapping.protocol, mapping.port)?;
        Some((at, kind, class, class.index(mapping.port)?))
    }

    fn address(&self, address: IpAddr) -> Option<usize> {
        let range = self.family(address.is_ipv6());
        // The settings list addresses in ascending order.
        let found = self.addresses[range.clone()].binary_search_by_key(&address, |own| own.address).ok();
        let leaving = || self.addresses[self.active..].iter().position(|own| own.address == address);
        found.map(|at| at + range.start).or_else(|| Some(leaving()? + self.active))
    }

    /// Returns whether an address belongs to the pool, or did and has ports in use.
    pub fn owns(&self, address: IpAddr) -> bool {
        self.address(address).is_some()
    }

    /// Returns whether any port after the first `given_back` has finished resting and waits for
    /// [`NatPool::handle_timeout`].
    #[inline]
    pub fn is_due(&self, now: Instant, given_back: usize) -> bool {
        self.resting.get(given_back).is_some_and(|rests| rests.until <= now)
    }

    /// Returns how many ports [`NatPool::handle_timeout`] would free in `calls` calls.
    pub fn to_give_back(&self, now: Instant, calls: usize) -> usize {
        self.resting.iter().take(calls * MOST_GIVEN_BACK).take_while(|rests| rests.until <= now).count()
    }

    /// Returns when [`NatPool::handle_timeout`] next has work to do.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.resting.front().map(|rests| rests.until)
    }

    /// Frees a bounded number of ports whose rest is over.
    pub fn handle_timeout(&mut self, now: Instant) {
        for _ in 0..MOST_GIVEN_BACK {
            let Some(rests) = self.resting.pop_front_if(|rests| rests.until <= now) else { return };
            if self.woken.pops(&rests) {
                continue;
            }
            let of = (rests.server, rests.class);
            self.give_back(rests.address as usize, usize::from(rests.kind), of, rests.index);
        }
        self.forget_unused();
    }
}

impl Wish {
    /// Returns the key of the ports that it asks for.
    fn of(&self) -> (Endpoint, u8) {
        (self.server, self.class.number)
    }
}

fn kind(protocol: Protocol) -> Option<usize> {
    KINDS.iter().position(|known| *known == protocol)
}
