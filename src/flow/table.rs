//! The connection table: a slab of flows with one index over the keys of both sides.
//!
//! Its size is fixed at creation. Insertion checks both keys, then writes both, or returns a refusal. After the first
//! use of a slot nothing allocates; nothing scans, and no input from clients causes a panic.

use super::entry::{Flow, NONE, Packed, USED, wide};
use super::index::Index;
use super::key::Key;
use super::lists::Lists;
use super::settings::{MOST_PROFILES, TableSettings, TimeoutState, Timeouts};
use super::tcp::{Ends, Segment, Tracked};
use crate::ids::{FlowId, ServerId, ServiceId};
use crate::packet::rewrite::{Deltas, Translation};
use crate::packet::{Addresses, Side};
use crate::time::{Duration, Instant};
use ahash::RandomState;
use std::collections::TryReserveError;
use std::fmt;
use std::hash::{BuildHasher, Hasher};

/// Granularity of the touch order: a flow touched again within this time keeps its place, and therefore lives up to
/// this much longer than its timeout, never shorter.
pub const TOUCH_GRAIN: Duration = Duration::from_millis(100);

/// How long after a reset the end that it was sent to may still send as if nothing had happened.
const UNDER_WAY: Duration = Duration::from_secs(2);

/// A flow found by one of its keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Found {
    /// Its slot.
    pub index: u32,
    /// Whose key matched.
    pub side: Side,
}

/// The effect of a segment on a flow: the numbers of both ends after it, and the flow's timeout state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Track {
    ends: Ends,
    tracked: Tracked,
}

impl Track {
    /// Returns the state of a flow yet to be created, after its first segment.
    pub fn first(from: Side, segment: &Segment) -> Track {
        let mut ends = Ends::default();
        let tracked = ends.step(TimeoutState::Opening, from, segment);
        Track { ends, tracked }
    }

    /// Returns what the segment means for the flow.
    #[inline]
    pub fn tracked(&self) -> Tracked {
        self.tracked
    }
}

/// A flow to be inserted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NewFlow {
    /// The key of the client's packets.
    pub client: Key,
    /// The key of the server's replies.
    pub server: Key,
    /// The service that the client asked for.
    pub service: ServiceId,
    /// The server.
    pub server_id: ServerId,
    /// The profile whose timeouts apply; one that the settings lack counts as 0.
    pub profile: u8,
    /// The NAT pool of its source, or [`super::NO_POOL`].
    pub nat_pool: u16,
    /// The rule that admitted it, as numbered by the layer above.
    pub rule: u16,
    /// What chose the server, as numbered by the layer above.
    pub picked_by: u8,
}

impl NewFlow {
    /// Returns what a packet from `side` becomes: the other side's key, reversed.
    pub fn translation(&self, side: Side) -> Translation {
        let to = match side {
            Side::Client => self.server,
            Side::Server => self.client,
        };
        let deltas = deltas(&self.client, &self.server);
        Translation {
            addresses: to.addresses.reversed(),
            src_port: to.dst_port,
            dst_port: to.src_port,
            deltas: if side == Side::Client { deltas } else { deltas.reversed() },
        }
    }
}

/// Why a flow was not inserted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InsertError {
    /// The table is full.
    Full,
    /// The key of this side already belongs to a flow.
    Taken(Side),
}

/// The system refused the memory for a table of this size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TableTooBig {
    /// The requested capacity in flows.
    pub max_flows: u32,
}

impl fmt::Display for TableTooBig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "the system refuses the memory for a table of {} flows: lower max in [flows], or give the process more",
            self.max_flows
        )
    }
}

impl std::error::Error for TableTooBig {}

/// The connection table.
#[derive(Debug)]
pub struct Table {
    flows: Vec<Flow>,
    free: u32,
    len: u32,
    max: u32,
    index: Index,
    wide: Vec<[u128; 2]>,
    wide_free: Vec<u32>,
    lists: Lists,
    /// By profile number.
    timeouts: Box<[Timeouts]>,
    hash: RandomState,
}

impl Table {
    /// Creates a table; reserves address space for all of it, and the system commits memory as slots are first used.
    ///
    /// # Panics
    /// If the system refuses the memory; see [`Table::try_new`].
    pub fn new(settings: &TableSettings, seed: u64) -> Self {
        Table::try_new(settings, seed).unwrap_or_else(|error| panic!("{error}"))
    }

    /// Creates a table; fails if the system refuses the memory.
    pub fn try_new(settings: &TableSettings, seed: u64) -> Result<Self, TableTooBig> {
        let max = settings.max_flows;
        let too_big = |_| TableTooBig { max_flows: max };
        let further = settings.profiles.iter().take(MOST_PROFILES);
        let timeouts: Box<[Timeouts]> = std::iter::once(&settings.timeouts).chain(further).copied().collect();
        let mix = |salt: u64| seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ salt;
        Ok(Table {
            flows: reserved(max as usize).map_err(too_big)?,
            free: NONE,
            len: 0,
            max,
            index: Index::new(max.saturating_mul(2)).map_err(too_big)?,
            wide: reserved(max as usize * 2).map_err(too_big)?,
            wide_free: reserved(max as usize * 2).map_err(too_big)?,
            lists: Lists::new(timeouts.len()),
            timeouts,
            hash: RandomState::with_seeds(mix(1), mix(2), mix(3), mix(4)),
        })
    }

    /// Returns the number of flows in the table.
    pub fn len(&self) -> u32 {
        self.len
    }

    /// Returns whether the table is empty.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Returns the capacity in flows.
    pub fn max(&self) -> u32 {
        self.max
    }

    /// Returns the number of flows in one state, over all profiles.
    pub fn count(&self, state: TimeoutState) -> u32 {
        self.lists.of(state).map(|list| list.len).sum()
    }

    #[inline]
    fn hash(&self, key: &Key) -> u64 {
        let mut hasher = self.hash.build_hasher();
        let tail = u64::from(key.src_port) << 32 | u64::from(key.dst_port) << 16 | key.protocol.code();
        match key.addresses {
            Addresses::V4 { src, dst } => hasher.write_u64(u64::from(src) << 32 | u64::from(dst)),
            Addresses::V6 { src, dst } => {
                hasher.write_u128(src);
                hasher.write_u128(dst);
            }
        }
        hasher.write_u64(tail);
        hasher.finish()
    }

    #[inline]
    fn is(&self, entry: u32, key: &Key) -> bool {
        let flow = &self.flows[(entry >> 1) as usize];
        let side = (entry & 1) as usize;
        let packed = if side == 0 { &flow.client } else { &flow.server };
        packed.ports == ports(key)
            && flow.protocol == key.protocol
            && match (key.addresses, flow.is_wide(side)) {
                (Addresses::V4 { src, dst }, false) => packed.addresses == [src, dst],
                (Addresses::V6 { src, dst }, true) => self.wide[packed.addresses[1] as usize] == [src, dst],
                _ => false,
            }
    }

    /// Finds the flow of a packet, whichever side sent it, with one probe of the index.
    #[inline]
    pub fn find(&self, key: &Key) -> Option<Found> {
        let entry = self.index.find(self.hash(key), |entry| self.is(entry, key))?;
        let side = if entry & 1 == 0 { Side::Client } else { Side::Server };
        Some(Found { index: entry >> 1, side })
    }

    /// Returns the flow in a slot.
    ///
    /// # Panics
    /// If the slot was never used: slots come from this table.
    #[inline]
    pub fn flow(&self, index: u32) -> &Flow {
        &self.flows[index as usize]
    }

    /// Returns the flow in a slot, to change its counters.
    #[inline]
    pub fn flow_mut(&mut self, index: u32) -> &mut Flow {
        &mut self.flows[index as usize]
    }

    /// Returns the identifier of the flow in a slot.
    pub fn id(&self, index: u32) -> FlowId {
        FlowId { index, generation: self.flows[index as usize].generation }
    }

    /// Returns the identifier that the next flow would get if the flow in slot `freed` had ended before it.
    pub fn next_id(&self, freed: Option<u32>) -> FlowId {
        let next = |index: u32| FlowId { index, generation: self.flows[index as usize].generation.wrapping_add(1) };
        match (freed, self.free) {
            (Some(freed), _) => next(freed),
            (None, NONE) => FlowId { index: self.flows.len() as u32, generation: 0 },
            (None, free) => next(free),
        }
    }

    /// Returns how long a flow of a profile lives in a state without a packet.
    pub fn timeout(&self, profile: u8, state: TimeoutState) -> Duration {
        self.timeouts[usize::from(profile).min(self.timeouts.len() - 1)].of(state)
    }

    /// Returns the slot of a flow that still exists.
    pub fn slot(&self, id: FlowId) -> Option<u32> {
        let flow = self.flows.get(id.index as usize)?;
        (flow.is_used() && flow.generation == id.generation).then_some(id.index)
    }

    /// Returns whether a side's key is IPv6.
    #[inline]
    pub fn is_v6(&self, index: u32, side: Side) -> bool {
        self.flows[index as usize].is_wide(side as usize)
    }

    /// Returns whether the two sides of a flow are of different families.
    #[inline]
    pub fn crosses(&self, index: u32) -> bool {
        let flow = &self.flows[index as usize];
        flow.is_wide(0) != flow.is_wide(1)
    }

    /// Returns a side's key, as seen in its packets.
    pub fn key(&self, index: u32, side: Side) -> Key {
        let flow = &self.flows[index as usize];
        let packed = if side == Side::Client { flow.client } else { flow.server };
        let addresses = if flow.is_wide(side as usize) {
            let [src, dst] = self.wide[packed.addresses[1] as usize];
            Addresses::V6 { src, dst }
        } else {
            Addresses::V4 { src: packed.addresses[0], dst: packed.addresses[1] }
        };
        let (src_port, dst_port) = ((packed.ports >> 16) as u16, packed.ports as u16);
        Key { addresses, src_port, dst_port, protocol: flow.protocol }
    }

    /// Returns what a packet from `side` becomes: the other side's key, reversed.
    #[inline]
    pub fn translation(&self, index: u32, side: Side) -> Translation {
        let to = self.key(index, side.other());
        let deltas = self.flows[index as usize].deltas;
        Translation {
            addresses: to.addresses.reversed(),
            src_port: to.dst_port,
            dst_port: to.src_port,
            deltas: if side == Side::Client { deltas } else { deltas.reversed() },
        }
    }

    /// Returns the side whose key of a new flow already belongs to a flow, if any. The flow `without` does not count.
    pub fn taken(&self, client: &Key, server: &Key, without: Option<u32>) -> Option<Side> {
        let other = |key| self.find(key).is_some_and(|found| Some(found.index) != without);
        [(Side::Client, client), (Side::Server, server)].into_iter().find(|(_, key)| other(key)).map(|(side, _)| side)
    }

    /// Adds a flow and returns its slot.
    ///
    /// # Errors
    /// [`InsertError`] if a key already belongs to a flow or the table is full; nothing changes then.
    pub fn insert(&mut self, now: Instant, new: &NewFlow) -> Result<u32, InsertError> {
        let NewFlow { client, server, .. } = new;
        if let Some(side) = self.taken(client, server, None) {
            return Err(InsertError::Taken(side));
        }
        if self.len >= self.max {
            return Err(InsertError::Full);
        }
        let state = TimeoutState::first(client.protocol);
        let side = |at: usize, key: &Key| if matches!(key.addresses, Addresses::V6 { .. }) { wide(at) } else { 0 };
        let flow = Flow {
            client: self.pack(client),
            server: self.pack(server),
            deltas: deltas(client, server),
            protocol: client.protocol,
            state,
            flags: USED | side(0, client) | side(1, server),
            profile: if usize::from(new.profile) < self.timeouts.len() { new.profile } else { 0 },
            before: NONE,
            behind: NONE,
            generation: 0,
            touched: now,
            created: now,
            server_id: new.server_id,
            service: new.service,
            rule: new.rule,
            nat_pool: new.nat_pool,
            picked_by: new.picked_by,
            tcp: Ends::default(),
            packets: [0; 2],
            bytes: [0; 2],
        };
        let index = self.place(flow);
        self.index.insert(self.hash(client), index << 1);
        self.index.insert(self.hash(server), index << 1 | 1);
        self.lists.push(&mut self.flows, index, now);
        self.len += 1;
        Ok(index)
    }

    fn place(&mut self, flow: Flow) -> u32 {
        if self.free == NONE {
            self.flows.push(flow);
            return (self.flows.len() - 1) as u32;
        }
        let index = self.free;
        let slot = &mut self.flows[index as usize];
        self.free = slot.behind;
        let generation = slot.generation.wrapping_add(1);
        *slot = Flow { generation, ..flow };
        index
    }

    fn pack(&mut self, key: &Key) -> Packed {
        let addresses = match key.addresses {
            Addresses::V4 { src, dst } => [src, dst],
            Addresses::V6 { src, dst } => {
                let place = self.wide_free.pop().unwrap_or(self.wide.len() as u32);
                match self.wide.get_mut(place as usize) {
                    Some(slot) => *slot = [src, dst],
                    None => self.wide.push([src, dst]),
                }
                [0, place]
            }
        };
        Packed { addresses, ports: ports(key) }
    }

    /// Removes the flow in a slot, with both its keys and its place in the lists.
    pub fn remove(&mut self, index: u32) {
        for side in [Side::Client, Side::Server] {
            let hash = self.hash(&self.key(index, side));
            self.index.remove(hash, index << 1 | side as u32);
        }
        self.lists.unlink(&mut self.flows, index);
        let flow = &mut self.flows[index as usize];
        for (packed, wide) in [(flow.client, flow.is_wide(0)), (flow.server, flow.is_wide(1))] {
            if wide {
                self.wide_free.push(packed.addresses[1]);
            }
        }
        flow.flags = 0;
        flow.behind = self.free;
        self.free = index;
        self.len -= 1;
    }

    /// Computes what a TCP segment means for its flow; changes nothing.
    #[inline]
    pub fn track(&self, now: Instant, index: u32, from: Side, segment: &Segment) -> Track {
        let flow = &self.flows[index as usize];
        let mut ends = flow.tcp;
        let mut tracked = ends.step(flow.state, from, segment);
        // The receiver of a reset may have sent this before it arrived: only later segments show that it was not
        // accepted.
        let under_way = flow.state == TimeoutState::Reset && !ends.has_reset(from) && !segment.flags.syn();
        if under_way && tracked != Tracked::Reopen && now.since(flow.touched) < UNDER_WAY {
            tracked = Tracked::Pass;
        }
        Track { ends, tracked }
    }

    /// Equals [`Table::track`] followed by [`Table::follow`], for a segment without SYN, which cannot reopen its flow.
    /// It works in place: copying the numbers of both ends out and back costs more than tracking.
    #[inline]
    pub fn on_segment(&mut self, now: Instant, index: u32, from: Side, segment: &Segment) {
        let flow = &mut self.flows[index as usize];
        debug_assert!(!segment.flags.syn(), "a SYN may reopen its flow");
        let tracked = flow.tcp.step(flow.state, from, segment);
        if flow.state == TimeoutState::Reset && !flow.tcp.has_reset(from) && now.since(flow.touched) < UNDER_WAY {
            return;
        }
        if let Tracked::Refresh(state) = tracked {
            self.touch(now, index, state);
        }
    }

    /// Updates a flow's state to what [`Table::track`] computed, and restarts the timeout if the segment proves that
    /// the flow is alive.
    #[inline]
    pub fn follow(&mut self, now: Instant, index: u32, track: &Track) {
        self.flows[index as usize].tcp = track.ends;
        if let Tracked::Refresh(state) = track.tracked {
            self.touch(now, index, state);
        }
    }

    /// Returns whether a TCP segment sent by `sender` at `seq` can still be in flight (RFC 5927, 4.1).
    pub fn is_under_way(&self, index: u32, sender: Side, seq: u32) -> bool {
        self.flows[index as usize].tcp.is_under_way(sender, seq)
    }

    /// Returns the sequence numbers for a reset of a TCP flow towards one of its ends, and its acknowledgement.
    pub fn reset_towards(&self, index: u32, to: Side) -> ([Option<u32>; 2], u32) {
        self.flows[index as usize].tcp.reset_towards(to)
    }

    /// Restarts a flow's timeout in this state.
    #[inline]
    pub fn touch(&mut self, now: Instant, index: u32, state: TimeoutState) {
        let flow = &self.flows[index as usize];
        if flow.state == state && now.since(flow.touched) < TOUCH_GRAIN {
            return;
        }
        self.lists.unlink(&mut self.flows, index);
        self.flows[index as usize].state = state;
        self.lists.push(&mut self.flows, index, now);
    }

    /// Returns when a flow expires if no packet arrives.
    pub fn deadline(&self, index: u32) -> Instant {
        let flow = &self.flows[index as usize];
        flow.touched + self.timeouts[flow.profile as usize].of(flow.state) + TOUCH_GRAIN
    }

    /// Returns when a flow was last touched, to within [`TOUCH_GRAIN`].
    pub fn touched(&self, index: u32) -> Instant {
        self.flows[index as usize].touched
    }

    /// Returns the flow that expires first, and when. Ties go to the state that comes first in [`TimeoutState::ALL`],
    /// then to the lower profile.
    pub fn first_to_expire(&self) -> Option<(Instant, u32)> {
        let mut soonest: Option<(Instant, usize, u32)> = None;
        for (state, list) in self.lists.all() {
            if list.first != NONE {
                let when = self.deadline(list.first);
                if soonest.is_none_or(|(other, order, _)| (when, state as usize) < (other, order)) {
                    soonest = Some((when, state as usize, list.first));
                }
            }
        }
        soonest.map(|(when, _, first)| (when, first))
    }

    /// Returns the flow to evict for a new one when the table is full: half-open before reset before closing before
    /// one-way UDP before ICMP, and of these the one idle longest, ties to the lower profile; never an established or
    /// two-way flow.
    pub fn first_to_evict(&self) -> Option<u32> {
        let order = [
            TimeoutState::Opening,
            TimeoutState::Reset,
            TimeoutState::Closing,
            TimeoutState::UdpOneWay,
            TimeoutState::Icmp,
        ];
        order.iter().find_map(|state| {
            let firsts = self.lists.of(*state).map(|list| list.first).filter(|first| *first != NONE);
            firsts.min_by_key(|first| self.flows[*first as usize].touched)
        })
    }

    /// Returns the slots in use from `from` on, in ascending order.
    pub fn slots(&self, from: u32) -> impl Iterator<Item = (u32, bool)> + '_ {
        self.flows.iter().enumerate().skip(from as usize).map(|(index, flow)| (index as u32, flow.is_used()))
    }
}

/// Returns the checksum deltas of the path from the client to the server.
fn deltas(client: &Key, server: &Key) -> Deltas {
    let to = server.reversed();
    Deltas::between(
        client.protocol.number(client.addresses.is_v6()),
        (&client.addresses, client.src_port, client.dst_port),
        (&to.addresses, to.src_port, to.dst_port),
    )
}

fn reserved<T>(capacity: usize) -> Result<Vec<T>, TryReserveError> {
    let mut vec = Vec::new();
    vec.try_reserve_exact(capacity)?;
    Ok(vec)
}

#[inline]
fn ports(key: &Key) -> u32 {
    u32::from(key.src_port) << 16 | u32::from(key.dst_port)
}

#[cfg(test)]
mod tests {
    use super::super::entry::NO_POOL;
    use super::*;
    use crate::packet::Protocol;

    fn key(client: u32, port: u16) -> (Key, Key) {
        let addresses = Addresses::V4 { src: client, dst: 0xc000_0250 };
        let client = Key { addresses, src_port: port, dst_port: 80, protocol: Protocol::Tcp };
        let answer = Addresses::V4 { src: 0x0a00_020b, dst: client.addresses_src() };
        (client, Key { addresses: answer, src_port: 8080, dst_port: port, protocol: Protocol::Tcp })
    }

    fn new(client: Key, server: Key) -> NewFlow {
        let (service, server_id) = (ServiceId(0), ServerId(0));
        NewFlow { client, server, service, server_id, profile: 0, nat_pool: NO_POOL, rule: 0, picked_by: 0 }
    }

    impl Key {
        fn addresses_src(&self) -> u32 {
            match self.addresses {
                Addresses::V4 { src, .. } => src,
                Addresses::V6 { .. } => panic!(),
            }
        }
    }

    fn table(max_flows: u32) -> Table {
        Table::new(&TableSettings { max_flows, ..TableSettings::default() }, 1)
    }

    fn at(seconds: u64) -> Instant {
        Instant::from_nanos(seconds * 1_000_000_000)
    }

    fn add(table: &mut Table, now: Instant, client: u32, port: u16) -> Result<u32, InsertError> {
        let (client, server) = key(client, port);
        table.insert(now, &new(client, server))
    }

    #[test]
    fn a_table_too_large_for_memory_is_refused_without_a_panic() {
        // More than the address space.
        assert!(reserved::<Flow>(usize::MAX / size_of::<Flow>()).is_err());
        let text = TableTooBig { max_flows: 100_000_000 }.to_string();
        assert!(text.contains("100000000 flows") && text.contains("[flows]"), "{text}");
    }

    #[test]
    fn both_keys_find_the_same_flow_and_the_translations_are_inverse() {
        let mut table = table(4);
        let index = add(&mut table, at(0), 7, 1000).unwrap();
        let (client, server) = key(7, 1000);
        assert_eq!(table.find(&client), Some(Found { index, side: Side::Client }));
        assert_eq!(table.find(&server), Some(Found { index, side: Side::Server }));
        let there = table.translation(index, Side::Client);
        assert_eq!((there.addresses, there.src_port, there.dst_port), (server.addresses.reversed(), 1000, 8080));
        let back = table.translation(index, Side::Server);
        assert_eq!((back.addresses, back.src_port, back.dst_port), (client.addresses.reversed(), 80, 1000));
    }

    #[test]
    fn a_full_table_or_a_taken_key_refuses_and_changes_nothing() {
        let mut table = table(2);
        add(&mut table, at(0), 1, 1).unwrap();
        assert_eq!(add(&mut table, at(0), 1, 1), Err(InsertError::Taken(Side::Client)));
        let (mut client, server) = key(1, 1);
        client.dst_port = 81;
        let taken = table.insert(at(0), &new(client, server));
        assert_eq!(taken, Err(InsertError::Taken(Side::Server)));
        assert_eq!(table.find(&client), None);
        add(&mut table, at(0), 2, 1).unwrap();
        assert_eq!(add(&mut table, at(0), 3, 1), Err(InsertError::Full));
        assert_eq!(table.len(), 2);
    }

    #[test]
    fn a_reused_slot_is_a_different_flow() {
        let mut table = table(1);
        let index = add(&mut table, at(0), 1, 1).unwrap();
        let old = table.id(index);
        table.remove(index);
        assert_eq!((table.slot(old), table.find(&key(1, 1).0)), (None, None));
        let again = add(&mut table, at(0), 2, 1).unwrap();
        assert_eq!((again, table.slot(old)), (index, None));
        assert_eq!(table.slot(table.id(again)), Some(again));
    }

    #[test]
    fn the_first_to_expire_is_the_flow_idle_longest_in_its_state() {
        let mut table = table(4);
        let first = add(&mut table, at(0), 1, 1).unwrap();
        let second = add(&mut table, at(10), 2, 1).unwrap();
        assert_eq!(table.first_to_expire(), Some((at(240) + TOUCH_GRAIN, first)));
        table.touch(at(20), first, TimeoutState::Opening);
        assert_eq!(table.first_to_expire(), Some((at(250) + TOUCH_GRAIN, second)));
        table.touch(at(20), second, TimeoutState::Established);
        assert_eq!(table.first_to_expire(), Some((at(260) + TOUCH_GRAIN, first)));
        assert_eq!(table.first_to_evict(), Some(first));
        table.remove(first);
        assert_eq!((table.first_to_evict(), table.count(TimeoutState::Established)), (None, 1));
    }

    #[test]
    fn a_flow_never_expires_before_its_timeout() {
        let mut table = table(1);
        let index = add(&mut table, at(0), 1, 1).unwrap();
        let late = Instant::from_nanos(TOUCH_GRAIN.as_nanos() as u64 - 1);
        table.touch(late, index, TimeoutState::Opening);
        assert!(table.deadline(index) >= late + Duration::from_secs(240));
    }
}
