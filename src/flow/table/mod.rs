//! The connection table: a slab of flows with one index over the keys of both sides, and a store of half-open flows.
//!
//! Its size is fixed at creation. After the first use of a slot nothing allocates; nothing scans, and no input from
//! clients causes a panic. `half_open` holds TCP flows until their handshake is complete, `wheel` says which flow is
//! due, `room` which one gives way, `recent` which ones ended a short while ago.

mod carried;
mod changed;
mod entry;
mod follow;
mod half_open;
mod index;
mod links;
mod recent;
mod room;
mod saved;
mod track;
mod wheel;
mod wide;

#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

pub use carried::Carried;
pub use changed::Watcher;
pub use entry::{Facts, Flow, NO_POOL};
pub use room::{Class, Newcomer, Room};
pub use saved::{NUMBERS, SavedFlow};
pub use track::Track;

use super::key::{Key, KeyRef};
use super::settings::{MOST_PROFILES, TableSettings, TimeoutState, Timeouts};
use super::tcp::Ends;
use crate::ids::{FlowId, ServerId, ServiceId};
use crate::packet::rewrite::{Deltas, Translation};
use crate::packet::{Addresses, Protocol, Side};
use crate::time::{Duration, Instant};
use ahash::RandomState;
use changed::Changed;
use entry::{ANSWERED, USED, picked_by, wide};
use half_open::HalfOpen;
use index::Index;
use links::{Links, NONE, Queue};
use recent::Recent;
use std::collections::TryReserveError;
use std::fmt;
use std::hash::{BuildHasher, Hasher};
use wheel::Wheel;
use wide::Wide;

/// The table's unit of time, 2^26 ns: a flow lives up to two of them longer than its timeout, never shorter.
pub const TICK: Duration = Duration::from_nanos(1 << TICK_BITS);
const TICK_BITS: u32 = 26;

/// For how long a TCP flow is remembered after it ended in a state that needs no reset.
const REMEMBERED: Duration = Duration::from_secs(60);

/// In a slot: the flow is in the store of half-open flows.
const HALF_OPEN: u32 = FlowId::HALF_OPEN;

/// A flow found by one of its keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Found {
    /// Its slot.
    pub index: u32,
    /// Whose key matched.
    pub side: Side,
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
    /// The profile whose timeouts apply, as the settings number it; one that they lack counts as 0.
    pub profile: u8,
    /// The NAT pool of its source, or [`NO_POOL`].
    pub nat_pool: u16,
    /// The rule that admitted it, as numbered by the layer above.
    pub rule: u16,
    /// What chose the server, as numbered by the layer above: 0 to 3.
    pub picked_by: u8,
    /// Whether it begins with a SYN, and waits in the store of half-open flows.
    pub half_open: bool,
}

impl NewFlow {
    /// Returns whether its client has yet to show that it receives what is sent to it.
    pub fn is_tentative(&self) -> bool {
        self.half_open || self.client.protocol != Protocol::Tcp
    }

    /// Returns what a packet from `side` becomes: the other side's key, reversed.
    pub fn translation(&self, side: Side) -> Translation {
        translation(&self.client, &self.server, side, deltas(&self.client, &self.server))
    }
}

/// The system refused the memory for a table of this size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TableTooBig {
    /// The requested capacity in flows.
    pub max_flows: u32,
    /// The requested capacity of the store of half-open flows.
    pub max_half_open: u32,
}

impl fmt::Display for TableTooBig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "the system refuses the memory for a table of {} flows and {} half-open flows: lower max or half-open in \
             [flows], or give the process more",
            self.max_flows, self.max_half_open
        )
    }
}

impl std::error::Error for TableTooBig {}

/// Ticks since the first flow.
#[derive(Debug)]
struct Clock {
    /// When the first flow was inserted; until then, in the future: no tick has passed.
    epoch: Instant,
}

impl Clock {
    /// Returns the tick of a point in time, rounded down.
    #[inline]
    fn tick(&self, now: Instant) -> u64 {
        now.as_nanos().saturating_sub(self.epoch.as_nanos()) >> TICK_BITS
    }

    /// Returns when a tick begins; none if that is beyond the end of time.
    fn begin_of(&self, tick: u64) -> Option<Instant> {
        let since = tick.checked_mul(1 << TICK_BITS)?;
        self.epoch.as_nanos().checked_add(since).map(Instant::from_nanos)
    }

    /// Returns when a tick begins, at most [`Instant::FAR`].
    fn at(&self, tick: u64) -> Instant {
        self.begin_of(tick).unwrap_or(Instant::FAR)
    }

    fn begin(&mut self, now: Instant) {
        self.epoch = self.epoch.min(now);
    }
}

/// The connection table.
#[derive(Debug)]
pub struct Table {
    flows: Vec<Flow>,
    free: u32,
    len: u32,
    max: u32,
    index: Index,
    wide: Wide,
    wheel: Wheel,
    /// By [`Class`].
    queues: [Queue; room::QUEUES],
    counts: [u32; TimeoutState::ALL.len()],
    half_open: HalfOpen,
    recent: Recent,
    /// By slot, in the table and in the store of half-open flows: see [`Table::note`]. They cost memory only up to the
    /// highest slot with one.
    notes: [Vec<u32>; 2],
    /// Connections to servers that pass and are no flows.
    direct: Recent,
    clock: Clock,
    /// By the number of a profile in flows.
    timeouts: Vec<Timeouts>,
    /// The same in ticks.
    ticks: Vec<[u32; TimeoutState::ALL.len()]>,
    /// By the number of a profile in the settings: its number in flows.
    numbers: Vec<u8>,
    hash: RandomState,
    /// None unless somebody wants them.
    changed: [Option<Changed>; Watcher::COUNT],
}

/// Returns a timeout in ticks from the tick of the last packet: never shorter, whatever part of that tick had passed.
fn ticks_of(timeouts: &Timeouts, state: TimeoutState) -> u32 {
    let ticks = timeouts.of(state).as_nanos().div_ceil(TICK.as_nanos()) + 1;
    // Ticks are compared modulo 2^32.
    ticks.min(1 << 30) as u32
}

impl Table {
    /// Creates a table; reserves address space for all of it, and the system commits memory as slots are first used.
    ///
    /// # Panics
    /// If the system refuses the memory; see [`Table::try_new`].
    pub fn new(settings: &TableSettings) -> Self {
        Table::try_new(settings).unwrap_or_else(|error| panic!("{error}"))
    }

    /// Creates a table; fails if the system refuses the memory.
    pub fn try_new(settings: &TableSettings) -> Result<Self, TableTooBig> {
        let (max, max_half_open) = (settings.max_flows, settings.max_half_open);
        let too_big = |_| TableTooBig { max_flows: max, max_half_open };
        let further = settings.profiles.iter().take(MOST_PROFILES);
        let timeouts: Vec<Timeouts> = std::iter::once(&settings.timeouts).chain(further).copied().collect();
        let ticks: Vec<_> = timeouts.iter().map(|of| TimeoutState::ALL.map(|state| ticks_of(of, state))).collect();
        let of_half_open = ticks.iter().map(|of| [TimeoutState::Opening, TimeoutState::Reset].map(|s| of[s as usize]));
        Ok(Table {
            flows: reserved(max as usize).map_err(too_big)?,
            free: NONE,
            len: 0,
            max,
            index: Index::new(max.saturating_mul(2)).map_err(too_big)?,
            wide: Wide::new(max as usize * 2).map_err(too_big)?,
            wheel: Wheel::new(),
            queues: [Queue::EMPTY; room::QUEUES],
            counts: [0; TimeoutState::ALL.len()],
            half_open: HalfOpen::new(max_half_open, of_half_open).map_err(too_big)?,
            recent: Recent::new().map_err(too_big)?,
            notes: [reserved(max as usize).map_err(too_big)?, reserved(max_half_open as usize).map_err(too_big)?],
            direct: Recent::new().map_err(too_big)?,
            clock: Clock { epoch: Instant::FAR },
            numbers: (0..timeouts.len()).map(|number| number as u8).collect(),
            timeouts,
            ticks,
            hash: crate::rng::drawn_hash(),
            changed: [None, None],
        })
    }

    /// Returns the number of flows in the table, without half-open ones.
    pub fn len(&self) -> u32 {
        self.len
    }

    /// Returns whether there is no flow, not even a half-open one.
    pub fn is_empty(&self) -> bool {
        self.len == 0 && self.half_open.len() == 0
    }

    /// Returns the capacity in flows.
    pub fn max(&self) -> u32 {
        self.max
    }

    /// Returns the number of half-open flows, and the capacity of their store.
    pub fn half_open(&self) -> (u32, u32) {
        (self.half_open.len(), self.half_open.max())
    }

    /// Returns the number of flows in one state, over all profiles, half-open ones included.
    pub fn count(&self, state: TimeoutState) -> u32 {
        let resets = self.half_open.resets();
        self.counts[state as usize]
            + match state {
                TimeoutState::Opening => self.half_open.len() - resets,
                TimeoutState::Reset => resets,
                _ => 0,
            }
    }

    /// Returns the hash of a key, by which [`Table::find_hashed`] finds it.
    #[inline]
    pub(crate) fn hash<'a>(&self, key: impl Into<KeyRef<'a>>) -> u64 {
        hash_of(&self.hash, key.into())
    }

    #[inline]
    fn is(&self, entry: u32, key: KeyRef<'_>) -> bool {
        let flow = &self.flows[(entry >> 1) as usize];
        let side = (entry & 1) as usize;
        let packed = if side == 0 { &flow.client } else { &flow.server };
        packed.ports == key.ports
            && flow.protocol == key.protocol
            && self.wide.is(packed, flow.is_wide(side), key.addresses)
    }

    /// Finds the flow of a packet, whichever side sent it, with one probe of the index; half-open flows with another.
    #[inline]
    pub fn find(&self, key: &Key) -> Option<Found> {
        let hash = self.hash(key);
        self.find_hashed(hash, key.into()).or_else(|| self.find_half_open(hash, key.into()))
    }

    /// Finds a flow that is not half-open.
    #[inline]
    pub(crate) fn find_hashed(&self, hash: u64, key: KeyRef<'_>) -> Option<Found> {
        let entry = self.index.find(hash, |entry| self.is(entry, key))?;
        let side = if entry & 1 == 0 { Side::Client } else { Side::Server };
        Some(Found { index: entry >> 1, side })
    }

    /// Finds a half-open flow.
    #[inline(never)]
    pub(crate) fn find_half_open(&self, hash: u64, key: KeyRef<'_>) -> Option<Found> {
        let entry = self.half_open.find(hash, key)?;
        let side = if entry & 1 == 0 { Side::Client } else { Side::Server };
        Some(Found { index: entry >> 1 | HALF_OPEN, side })
    }

    /// Reads the part of the index that [`Table::find_hashed`] will read, so that it is in the cache by then; returns
    /// something of it, as reads whose result is unused are left out.
    #[inline]
    pub(crate) fn warm_index(&self, hash: u64) -> u64 {
        u64::from(self.index.peek(hash).unwrap_or(0))
    }

    /// Reads the flow that [`Table::find_hashed`] is likely to find; returns something of it.
    #[inline]
    pub(crate) fn warm_flow(&self, hash: u64) -> u64 {
        let Some(flow) = self.index.peek(hash).and_then(|entry| self.flows.get((entry >> 1) as usize)) else {
            return 0;
        };
        u64::from(flow.flags) ^ flow.packets[0]
    }

    /// Reads the IPv6 addresses of the flow that [`Table::find_hashed`] is likely to find; returns something of them.
    #[inline]
    pub(crate) fn warm_addresses(&self, hash: u64) -> u64 {
        let Some(flow) = self.index.peek(hash).and_then(|entry| self.flows.get((entry >> 1) as usize)) else {
            return 0;
        };
        self.wide.warm(&flow.client) ^ self.wide.warm(&flow.server)
    }

    /// Returns a flow that is not half-open.
    ///
    /// # Panics
    /// If the slot was never used, or is of a half-open flow: slots come from this table.
    #[inline]
    pub fn flow(&self, index: u32) -> &Flow {
        &self.flows[index as usize]
    }

    /// Returns whether a slot is of a half-open flow.
    #[inline]
    pub fn is_half_open(index: u32) -> bool {
        index & HALF_OPEN != 0
    }

    fn half(index: u32) -> Option<u32> {
        Table::is_half_open(index).then_some(index & !HALF_OPEN)
    }

    /// Returns what is known of the flow in a slot.
    #[inline]
    pub fn facts(&self, index: u32) -> Facts {
        match Table::half(index) {
            None => self.flows[index as usize].facts(),
            Some(slot) => self.half_open.facts(&self.clock, slot),
        }
    }

    /// Returns what a packet from `side` of a flow that is not half-open becomes: the other side's key, reversed.
    #[inline]
    pub fn translation_plain(&self, index: u32, side: Side) -> Translation {
        let flow = &self.flows[index as usize];
        let (to, wide) = match side {
            Side::Client => (&flow.server, flow.is_wide(1)),
            Side::Server => (&flow.client, flow.is_wide(0)),
        };
        Translation {
            addresses: self.wide.addresses(to, wide).reversed(),
            src_port: to.ports as u16,
            dst_port: (to.ports >> 16) as u16,
            deltas: if side == Side::Client { flow.deltas } else { flow.deltas.reversed() },
        }
    }

    /// Counts packets of one side of a flow that is not half-open and has been answered; returns its server and service.
    #[inline]
    pub fn count_plain(&mut self, found: Found, packets: u64, bytes: u64) -> (ServerId, ServiceId) {
        self.note_touched(found.index);
        let flow = &mut self.flows[found.index as usize];
        flow.count(found.side, packets, bytes);
        (flow.server_id, flow.service)
    }

    /// Returns the identifier of the flow in a slot that is not of a half-open flow.
    #[inline]
    pub fn id_plain(&self, index: u32) -> FlowId {
        FlowId { index, generation: self.flows[index as usize].generation }
    }

    /// Returns the server of the flow in a slot.
    #[inline]
    pub fn server_of(&self, index: u32) -> ServerId {
        match Table::half(index) {
            None => self.flows[index as usize].server_id,
            Some(slot) => self.half_open.server_of(slot),
        }
    }

    /// Returns the server and the service of the flow in a slot.
    #[inline]
    pub fn whose(&self, index: u32) -> (ServerId, ServiceId) {
        match Table::half(index) {
            None => {
                let flow = &self.flows[index as usize];
                (flow.server_id, flow.service)
            }
            Some(slot) => self.half_open.whose(slot),
        }
    }

    /// Counts packets of one side of a flow.
    #[inline]
    pub fn count_packets(&mut self, found: Found, packets: u64, bytes: u64) {
        if let Some(slot) = Table::half(found.index) {
            return self.half_open.count(slot, found.side, packets, bytes);
        }
        self.note_touched(found.index);
        let flow = &mut self.flows[found.index as usize];
        flow.count(found.side, packets, bytes);
        if found.side == Side::Server {
            flow.flags |= ANSWERED;
        }
    }

    /// Returns the identifier of the flow in a slot.
    pub fn id(&self, index: u32) -> FlowId {
        let generation = match Table::half(index) {
            None => self.flows[index as usize].generation,
            Some(slot) => self.half_open.generation(slot).unwrap_or_default(),
        };
        FlowId { index, generation }
    }

    /// Returns the identifier that the next flow would get if the flow in slot `freed` had ended before it.
    pub fn next_id(&self, freed: Option<u32>, half_open: bool) -> FlowId {
        let freed = freed.filter(|freed| Table::is_half_open(*freed) == half_open);
        if half_open {
            let (slot, generation) = self.half_open.next(freed.and_then(Table::half));
            return FlowId { index: slot | HALF_OPEN, generation };
        }
        let next = |index: u32| FlowId { index, generation: self.flows[index as usize].generation.wrapping_add(1) };
        match (freed, self.free) {
            (Some(freed), _) => next(freed),
            (None, NONE) => FlowId { index: self.flows.len() as u32, generation: 0 },
            (None, free) => next(free),
        }
    }

    /// Returns how long a flow lives in a state without a packet; `profile` is numbered as in [`Facts`].
    pub fn timeout(&self, profile: u8, state: TimeoutState) -> Duration {
        self.timeouts[usize::from(profile).min(self.timeouts.len() - 1)].of(state)
    }

    /// Returns the slot of a flow that still exists.
    pub fn slot(&self, id: FlowId) -> Option<u32> {
        if let Some(slot) = Table::half(id.index) {
            return self.half_open.generation(slot).filter(|own| *own == id.generation).map(|_| id.index);
        }
        let flow = self.flows.get(id.index as usize)?;
        (flow.is_used() && flow.generation == id.generation).then_some(id.index)
    }

    /// Returns whether a side's key is IPv6.
    #[inline]
    pub fn is_v6(&self, index: u32, side: Side) -> bool {
        match Table::half(index) {
            None => self.flows[index as usize].is_wide(side as usize),
            Some(slot) => self.half_open.is_v6(slot, side),
        }
    }

    /// Returns a side's key, as seen in its packets.
    pub fn key(&self, index: u32, side: Side) -> Key {
        if let Some(slot) = Table::half(index) {
            return self.half_open.key(slot, side);
        }
        let flow = &self.flows[index as usize];
        let packed = if side == Side::Client { &flow.client } else { &flow.server };
        self.wide.key(packed, flow.is_wide(side as usize), flow.protocol())
    }

    /// Returns what a packet from `side` becomes: the other side's key, reversed.
    #[inline]
    pub fn translation(&self, index: u32, side: Side) -> Translation {
        let to = self.key(index, side.other());
        let deltas = match Table::half(index) {
            None => self.flows[index as usize].deltas,
            Some(slot) => deltas(&self.half_open.key(slot, Side::Client), &self.half_open.key(slot, Side::Server)),
        };
        Translation {
            addresses: to.addresses.reversed(),
            src_port: to.dst_port,
            dst_port: to.src_port,
            deltas: if side == Side::Client { deltas } else { deltas.reversed() },
        }
    }

    /// Returns whether a key belongs to a flow other than `without`.
    pub fn is_taken(&self, key: &Key, without: Option<u32>) -> bool {
        self.find(key).is_some_and(|found| Some(found.index) != without)
    }

    /// Returns whether there is no room for another flow, if the flow `without` did not count.
    pub fn is_full(&self, half_open: bool, without: Option<u32>) -> bool {
        let without = without.is_some_and(|without| Table::is_half_open(without) == half_open);
        let (len, max) = if half_open { self.half_open() } else { (self.len, self.max) };
        len - u32::from(without) >= max
    }

    /// Returns how room is made in the full store of half-open flows: the oldest gives way.
    pub fn room_for_half_open(&self) -> Option<Room> {
        self.half_open.oldest().map(|slot| Room::of(slot | HALF_OPEN, Class::HalfOpen))
    }

    /// Adds a flow and returns its slot. Both keys must be free, and there must be room.
    pub fn insert(&mut self, now: Instant, new: &NewFlow) -> u32 {
        debug_assert!(
            !self.is_taken(&new.client, None) && !self.is_taken(&new.server, None),
            "a key is taken: {new:?}"
        );
        debug_assert!(!self.is_full(new.half_open, None), "no room");
        self.clock.begin(now);
        let new = NewFlow { profile: self.number(new.profile), ..*new };
        let hashes = [self.hash(&new.client), self.hash(&new.server)];
        if new.half_open {
            let slot = self.half_open.insert(self.clock.tick(now), &new, hashes);
            let hash = self.hash.clone();
            self.half_open.grow(|key| hash_of(&hash, key.into()));
            self.set_note(slot | HALF_OPEN, 0);
            return slot | HALF_OPEN;
        }
        let index = self.add(now, &new, (now, TimeoutState::first(new.client.protocol)), hashes);
        self.set_note(index, 0);
        index
    }

    /// Returns the number that the layer above has noted with a flow; 0 if none. A flow that leaves the store of half-open
    /// flows keeps it.
    pub fn note(&self, index: u32) -> u32 {
        let store = &self.notes[usize::from(Table::is_half_open(index))];
        store.get((index & !HALF_OPEN) as usize).copied().unwrap_or(0)
    }

    /// Notes a number with a flow.
    pub fn set_note(&mut self, index: u32, note: u32) {
        self.note_changed(index);
        let store = &mut self.notes[usize::from(Table::is_half_open(index))];
        let slot = (index & !HALF_OPEN) as usize;
        if slot >= store.len() && note != 0 {
            store.resize(slot + 1, 0);
        }
        if let Some(place) = store.get_mut(slot) {
            *place = note;
        }
    }

    /// Adds a flow that is in this state now, and was created now or before, to the table.
    fn add(&mut self, now: Instant, new: &NewFlow, (created, state): (Instant, TimeoutState), hashes: [u64; 2]) -> u32 {
        let flow = self.make(now, new, (created, state));
        self.settle(now, flow, hashes)
    }

    /// Makes the record of a flow, which is in no list yet.
    fn make(&mut self, now: Instant, new: &NewFlow, (created, state): (Instant, TimeoutState)) -> Flow {
        let NewFlow { client, server, .. } = new;
        let side = |at: usize, key: &Key| if key.addresses.is_v6() { wide(at) } else { 0 };
        Flow {
            client: self.wide.pack(client),
            server: self.wide.pack(server),
            deltas: deltas(client, server),
            tcp: Ends::default(),
            server_id: new.server_id,
            touched: self.clock.tick(now) as u32,
            state,
            flags: USED | side(0, client) | side(1, server) | picked_by(new.picked_by),
            profile: new.profile,
            protocol: client.protocol.number(false),
            generation: 0,
            packets: [0; 2],
            bytes: [0; 2],
            created,
            wheel: Links::NONE,
            order: Links::NONE,
            service: new.service,
            rule: new.rule,
            nat_pool: new.nat_pool,
        }
    }

    /// Puts a flow into a slot, the index and the lists; returns the slot.
    fn settle(&mut self, now: Instant, flow: Flow, hashes: [u64; 2]) -> u32 {
        if self.len == 0 {
            self.wheel.skip_to(self.clock.tick(now));
        }
        let index = self.place(flow);
        self.index.insert(hashes[0], index << 1);
        self.index.insert(hashes[1], index << 1 | 1);
        self.len += 1;
        self.link(index);
        self.note_changed(index);
        index
    }

    fn place(&mut self, flow: Flow) -> u32 {
        if self.free == NONE {
            self.flows.push(flow);
            return (self.flows.len() - 1) as u32;
        }
        let index = self.free;
        let slot = &mut self.flows[index as usize];
        self.free = slot.order.behind;
        let generation = slot.generation.wrapping_add(1);
        *slot = Flow { generation, ..flow };
        index
    }

    /// Removes the flow in a slot, with both its keys and its place in wheel and queue.
    pub fn remove(&mut self, now: Instant, index: u32) {
        let hashes = [Side::Client, Side::Server].map(|side| self.hash(&self.key(index, side)));
        if let Some(slot) = Table::half(index) {
            return self.half_open.remove(slot, hashes);
        }
        self.index.remove(hashes[0], index << 1);
        self.index.remove(hashes[1], index << 1 | 1);
        self.unlink(index);
        self.note_changed(index);
        let flow = &mut self.flows[index as usize];
        if flow.class() == Class::Over {
            self.recent.add(hashes[0], self.clock.tick(now));
        }
        for (side, packed) in [flow.client, flow.server].iter().enumerate() {
            if flow.is_wide(side) {
                self.wide.free(packed);
            }
        }
        flow.flags = 0;
        flow.order.behind = self.free;
        self.free = index;
        self.len -= 1;
    }

    /// Returns whether a TCP flow with this key of its client has ended within the last minute, after both sides had
    /// closed it or it was reset.
    pub fn has_just_ended(&self, now: Instant, client: &Key) -> bool {
        let ticks = room::ticks(REMEMBERED);
        client.protocol == Protocol::Tcp && self.recent.has(self.hash(client), self.clock.tick(now), ticks)
    }

    /// Remembers a connection that passes unchanged, by the key of its server's packets; the oldest of 65,536 gives way.
    #[cold]
    pub fn note_direct(&mut self, server: &Key) {
        self.direct.add(self.hash(server), 0);
    }

    /// Returns whether a connection is remembered as passing unchanged.
    pub fn is_direct(&self, server: &Key) -> bool {
        self.direct.has(self.hash(server), 0, 0)
    }

    /// Returns the slots from a position on, and whether each is in use. Half-open flows come first: as flows only move
    /// from their store to the table, a walk in several steps misses none that exists throughout it.
    pub fn slots(&self, from: u32) -> impl Iterator<Item = (u32, bool)> + '_ {
        let (half_open, others) = if from < HALF_OPEN { (from, 0) } else { (u32::MAX, from & !HALF_OPEN) };
        let flows = self.flows.iter().enumerate().skip(others as usize);
        let flows = flows.map(|(index, flow)| (index as u32, flow.is_used()));
        self.half_open.slots(half_open).map(|(slot, used)| (slot | HALF_OPEN, used)).chain(flows)
    }

    /// Returns the position of a slot in [`Table::slots`].
    pub fn position(index: u32) -> u32 {
        index ^ HALF_OPEN
    }

    /// Returns the memory that packets touch at random: start and length in bytes of each part. A driver may ask the
    /// system for huge pages there. The store of half-open flows is not part of it: while it fills, the system took up
    /// to 14 ms for one huge page, and the longest of a million SYNs takes 18 µs without them.
    pub fn memory(&self) -> impl Iterator<Item = (usize, usize)> {
        let flows = (self.flows.as_ptr() as usize, self.flows.capacity() * size_of::<Flow>());
        [flows, self.index.memory(), self.wide.memory()].into_iter()
    }
}

#[inline]
fn hash_of(hash: &RandomState, key: KeyRef<'_>) -> u64 {
    let mut hasher = hash.build_hasher();
    let tail = u64::from(key.ports) << 8 | u64::from(key.protocol);
    match *key.addresses {
        // All of it at once: each write costs 10 ns.
        Addresses::V4 { src, dst } => {
            hasher.write_u128(u128::from(u64::from(src) << 32 | u64::from(dst)) << 64 | u128::from(tail))
        }
        Addresses::V6 { src, dst } => {
            // As sums, which the processor computes from both halves, as they were written: it would wait for an address
            // of 16 bytes.
            hasher.write_u128(src.wrapping_add(1));
            hasher.write_u128(dst.wrapping_add(1));
            hasher.write_u64(tail);
        }
    }
    hasher.finish()
}

fn translation(client: &Key, server: &Key, side: Side, deltas: Deltas) -> Translation {
    let to = if side == Side::Client { server } else { client };
    Translation {
        addresses: to.addresses.reversed(),
        src_port: to.dst_port,
        dst_port: to.src_port,
        deltas: if side == Side::Client { deltas } else { deltas.reversed() },
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
