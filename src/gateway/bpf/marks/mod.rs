//! The programs that mark the packets of flows (`marks.bpf.c`), and the map of the keys of their replies.

#[cfg(test)]
mod tests;

use super::addresses::{Address, AddressSet, Known, address, addresses_of, room};
use super::{BpfError, load, next_key, open};
use crate::config::Settings;
use crate::flow::Key;
use crate::packet::{Addresses, Protocol};
use aya::maps::{Array, ArrayOfMaps, HashMap, Map, MapData, MapError};
use aya::programs::tc::{SchedClassifierLink, TcAttachOptions, TcAttachType};
use aya::programs::{LinkOrder, SchedClassifier};
use aya::{Ebpf, Pod, include_bytes_aligned};
use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv6Addr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// The mark of packets that belong to flows, before they enter the gateway's device.
pub const IN: u32 = 0x1000_0000;
/// The mark of packets that have left it.
pub const OUT: u32 = 0x2000_0000;

/// `struct reply` of the programs: source, destination, ports, protocol, all in network byte order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct Reply([u8; Reply::LEN]);

// SAFETY: an array of bytes, for which any value is valid.
#[allow(unsafe_code)]
unsafe impl Pod for Reply {}

impl Reply {
    const LEN: usize = 40;

    /// Makes it from the key that a server's packets have.
    pub fn new(key: &Key) -> Reply {
        let mut bytes = [0; Reply::LEN];
        bytes[..16].copy_from_slice(&address(key.addresses.src()));
        bytes[16..32].copy_from_slice(&address(key.addresses.dst()));
        bytes[32..34].copy_from_slice(&key.src_port.to_be_bytes());
        bytes[34..36].copy_from_slice(&key.dst_port.to_be_bytes());
        bytes[36] = key.protocol.number(key.addresses.is_v6());
        Reply(bytes)
    }

    /// Returns the key that a server's packets have.
    pub fn key(&self) -> Key {
        let bytes = &self.0;
        let word = |at: usize| u16::from_be_bytes([bytes[at], bytes[at + 1]]);
        let at =
            |at: usize| Address::try_from(&bytes[at..at + 16]).map(Ipv6Addr::from).unwrap_or(Ipv6Addr::UNSPECIFIED);
        let (src, dst) = (at(0), at(16));
        let addresses = match (src.to_ipv4_mapped(), dst.to_ipv4_mapped()) {
            (Some(src), Some(dst)) => Addresses::V4 { src: src.into(), dst: dst.into() },
            _ => Addresses::V6 { src: src.into(), dst: dst.into() },
        };
        let protocol = Protocol::of_number(bytes[36]);
        Key { addresses, src_port: word(32), dst_port: word(34), protocol }
    }
}

/// `struct state` of the programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
struct State {
    broad: u32,
    missed: u32,
    device: u32,
    young: u32,
    over: u32,
}

// SAFETY: five numbers, for which any value is valid, without padding.
#[allow(unsafe_code)]
unsafe impl Pod for State {}

/// The programs, loaded, and their maps.
#[derive(Debug)]
pub struct Marks {
    ebpf: Ebpf,
    /// The keys of replies.
    keys: Map,
    state: Map,
    own: BTreeSet<Address>,
    /// What is in the maps of servers and of own sources.
    known: [Known; 2],
}

/// The map of the keys of replies, of a gateway whose place another one takes.
#[derive(Debug)]
pub struct Keys(Map);

impl Keys {
    /// Takes a map that another process has passed on.
    ///
    /// # Errors
    /// If the descriptor is not that of such a map.
    pub fn from_passed(map: OwnedFd) -> Result<Keys, BpfError> {
        let mut map = Map::from_map_data(MapData::from_fd(map)?)?;
        HashMap::<_, Reply, u32>::try_from(&mut map)?;
        Ok(Keys(map))
    }

    /// Returns whether it has the room that is wanted.
    fn has_room(&self, keys: u32) -> bool {
        let Map::HashMap(map) = &self.0 else { return false };
        map.info().is_ok_and(|info| info.max_entries() == keys)
    }
}

/// Programs on a device: they end when this is dropped, or with the device.
#[derive(Debug)]
pub struct Attached(#[allow(dead_code, reason = "held, not read")] Vec<SchedClassifierLink>);

impl Marks {
    /// Loads the programs, for the servers of these settings and with room for the keys of all flows.
    pub fn load(settings: &Settings) -> Result<Marks, BpfError> {
        Marks::with_room(settings, most_keys(settings))
    }

    /// The same with the keys of the gateway before this one, if they have the room that the settings want; returns whether
    /// they have.
    pub fn load_with(settings: &Settings, keys: Keys) -> Result<(Marks, bool), BpfError> {
        let keys = Some(keys).filter(|keys| keys.has_room(most_keys(settings)));
        let has_them = keys.is_some();
        Ok((Marks::make(settings, most_keys(settings), keys)?, has_them))
    }

    /// The same with room for a number of keys.
    pub fn with_room(settings: &Settings, keys: u32) -> Result<Marks, BpfError> {
        Marks::make(settings, keys, None)
    }

    /// Makes it with room for a number of keys, or with a map of them that there is already.
    fn make(settings: &Settings, most: u32, passed: Option<Keys>) -> Result<Marks, BpfError> {
        let (servers, own) = (addresses_of(settings), own_sources(settings).len());
        let direct = most.clamp(DIRECT.0, DIRECT.1);
        let keys = if passed.is_some() { 1 } else { most };
        let entries = [("servers", room(servers.len())), ("own", room(own)), ("keys", keys), ("direct", direct)];
        let mut ebpf = open(include_bytes_aligned!("../marks.bpf.o"), &entries)?;
        let mut ports: Array<_, u64> = Array::try_from(ebpf.map_mut("ports").expect("a map of the program"))?;
        for (word, bits) in (0..).zip(service_ports(settings)).filter(|(_, bits)| *bits != 0) {
            ports.set(word, bits, 0)?;
        }
        let made = ebpf.take_map("keys").expect("a map of the program");
        let keys = passed.map_or(made, |keys| keys.0);
        if let Map::HashMap(keys) = &keys {
            let replies = ebpf.map_mut("replies").expect("a map of the program");
            ArrayOfMaps::<_, MapData>::try_from(replies)?.set(0, keys, 0)?;
        }
        let state = ebpf.take_map("state").expect("a map of the program");
        let mut marks = Marks { ebpf, keys, state, own: BTreeSet::new(), known: Default::default() };
        marks.extend(settings, &servers)?;
        for name in [ARRIVE, EMERGE, DEPART] {
            let program = marks.program(name)?;
            load(|| program.load())?;
        }
        Ok(marks)
    }

    /// Adds the servers and the sources of settings to those that the programs know; `servers` are the addresses of the former.
    pub fn extend(&mut self, settings: &Settings, servers: &AddressSet) -> Result<(), BpfError> {
        let own = own_sources(settings);
        self.own.extend(&own);
        let [known, sources] = &mut self.known;
        known.extend(self.ebpf.map_mut("servers").expect("a map of the program"), servers)?;
        sources.extend(self.ebpf.map_mut("own").expect("a map of the program"), &own)
    }

    /// Forgets servers and sources that are not in the settings.
    pub fn restrict(&mut self, settings: &Settings, servers: &AddressSet) {
        self.own = own_sources(settings);
        let [known, sources] = &mut self.known;
        known.restrict(self.ebpf.map_mut("servers").expect("a map of the program"), servers);
        sources.restrict(self.ebpf.map_mut("own").expect("a map of the program"), &self.own);
    }

    fn program(&mut self, name: &str) -> Result<&mut SchedClassifier, BpfError> {
        Ok(self.ebpf.program_mut(name).expect("a program of the object").try_into()?)
    }

    /// Attaches the program for the gateway's own device, which has this index.
    pub fn attach_to_own(&mut self, device: &str, index: u32) -> Result<Attached, BpfError> {
        let state = self.state()?;
        Array::try_from(&mut self.state)?.set(0, State { device: index, ..state }, 0)?;
        Ok(Attached(vec![self.attach(EMERGE, device, TcAttachType::Ingress)?]))
    }

    /// Attaches the programs for another device.
    pub fn attach_to_other(&mut self, device: &str) -> Result<Attached, BpfError> {
        let arrive = self.attach(ARRIVE, device, TcAttachType::Ingress)?;
        Ok(Attached(vec![arrive, self.attach(DEPART, device, TcAttachType::Egress)?]))
    }

    /// Attaches a program before others: what they do to a packet is then done to one that has its mark.
    fn attach(&mut self, name: &str, device: &str, place: TcAttachType) -> Result<SchedClassifierLink, BpfError> {
        let program = self.program(name)?;
        // A link of TCX (Linux 6.6): it does not outlive the process, as a filter would that black-holes flows then.
        let link = program.attach_with_options(device, place, TcAttachOptions::TcxOrder(LinkOrder::first()))?;
        Ok(program.take_link(link)?)
    }

    fn state(&self) -> Result<State, BpfError> {
        Ok(Array::try_from(&self.state)?.get(&0, 0)?)
    }

    /// Returns whether replies to this address come to the gateway without a mark.
    pub fn is_own(&self, key: &Key) -> bool {
        self.own.contains(&address(key.addresses.dst()))
    }

    /// Stores the key of a flow's replies; returns false if there is no room.
    pub fn store(&mut self, key: &Key) -> Result<bool, BpfError> {
        let mut map: HashMap<_, Reply, u32> = HashMap::try_from(&mut self.keys)?;
        match map.insert(Reply::new(key), 1, 0) {
            Ok(()) => Ok(true),
            Err(MapError::SyscallError(e)) if e.io_error.raw_os_error() == Some(libc::E2BIG) => Ok(false),
            Err(e) => Err(e.into()),
        }
    }

    /// Returns whether the key of a flow's replies is stored.
    pub fn has(&self, key: &Key) -> bool {
        let map: Result<HashMap<_, Reply, u32>, _> = HashMap::try_from(&self.keys);
        map.is_ok_and(|map| map.get(&Reply::new(key), 0).is_ok())
    }

    /// Removes a key; returns whether it was stored.
    pub fn remove(&mut self, reply: &Reply) -> bool {
        let map: Result<HashMap<_, Reply, u32>, _> = HashMap::try_from(&mut self.keys);
        map.is_ok_and(|mut map| map.remove(reply).is_ok())
    }

    /// Returns the key that follows another in the map, or the first; none at the end.
    pub fn next(&self, after: Option<&Reply>) -> Option<Reply> {
        let Map::HashMap(map) = &self.keys else { return None };
        let mut next = Reply([0; Reply::LEN]);
        next_key(map.fd().as_fd(), after.map(|reply| &reply.0[..]), &mut next.0).then_some(next)
    }

    /// Returns the map of the keys, for a gateway that takes the place of this one; none if keys are missing in it.
    pub fn to_pass(&self) -> Option<BorrowedFd<'_>> {
        match &self.keys {
            Map::HashMap(keys) if !self.missing().0 => Some(keys.fd().as_fd()),
            _ => None,
        }
    }

    /// Returns whether keys are missing, so that everything from the servers is marked, and how many have been missed.
    pub fn missing(&self) -> (bool, u32) {
        self.state().map_or((false, 0), |state| (state.broad != 0, state.missed))
    }

    /// Declares that every flow has its key, unless more than `missed` were missed.
    pub fn is_complete(&mut self, missed: u32) -> Result<(), BpfError> {
        let state = self.state()?;
        if state.missed == missed {
            Array::try_from(&mut self.state)?.set(0, State { broad: 0, ..state }, 0)?;
        }
        Ok(())
    }
}

impl Marks {
    /// Says whether connections of the gateway before this one may live: then what servers send from where they serve, on a
    /// connection that is not known to go past the gateway, is marked too.
    pub fn set_young(&mut self, is_young: bool) -> Result<(), BpfError> {
        let state = State { young: is_young.into(), ..self.state()? };
        Ok(Array::try_from(&mut self.state)?.set(0, state, 0)?)
    }

    /// Says that another gateway, whose programs are attached too, has taken the place of this one: what arrives is left to
    /// these.
    pub fn set_over(&mut self) -> Result<(), BpfError> {
        let state = State { over: 1, ..self.state()? };
        Ok(Array::try_from(&mut self.state)?.set(0, state, 0)?)
    }
}

/// Returns how many replies have keys at most: those of all flows.
fn most_keys(settings: &Settings) -> u32 {
    settings.table.max_flows.saturating_add(settings.table.max_half_open).max(1)
}

/// The most ports of a range that count as ports from which servers serve: a larger one takes in the ports of servers' own
/// connections.
const MOST_PORTS: u16 = 1024;

/// Returns a bit for each TCP port from which a server serves.
fn service_ports(settings: &Settings) -> Vec<u64> {
    let mut words = vec![0; 1 << 10];
    for (listen, pool) in settings.routes().into_iter().filter(|(listen, _)| listen.protocol == Protocol::Tcp) {
        let servers = settings.pools[pool.0 as usize].servers.iter().map(|id| &settings.servers[id.0 as usize]);
        for (first, last) in servers.map(|server| server.port.map_or((listen.first_port, listen.last_port), |p| (p, p)))
        {
            if last - first < MOST_PORTS {
                (first..=last).for_each(|port| words[usize::from(port >> 6)] |= 1 << (port & 63));
            }
        }
    }
    words
}

/// How many connections past the gateway are remembered while it is young, at least and at most.
const DIRECT: (u32, u32) = (1024, 16_384);

const ARRIVE: &str = "arrive";
const EMERGE: &str = "emerge";
const DEPART: &str = "depart";

/// Sources of probes and of full NAT: packets to them are routed to the gateway by their address.
fn own_sources(settings: &Settings) -> BTreeSet<Address> {
    let probes = [settings.health.source_v4.map(IpAddr::V4), settings.health.source_v6.map(IpAddr::V6)];
    let v4 = settings.nat_pools.iter().flat_map(|pool| pool.v4.iter().map(|a| IpAddr::V4(*a)));
    let v6 = settings.nat_pools.iter().flat_map(|pool| pool.v6.iter().map(|a| IpAddr::V6(*a)));
    probes.into_iter().flatten().chain(v4).chain(v6).map(address).collect()
}
