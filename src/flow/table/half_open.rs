//! Half-open TCP flows, apart from the table, so that a flood of SYNs competes with nothing but itself.
//!
//! First in, first out: a full store ends its oldest flow. So a handshake succeeds as long as the store holds the SYNs
//! of one round trip; random eviction would need a hundred times as many entries for the same promise. An entry is a
//! cache line, half of a flow's record.

mod profiles;

use super::super::key::{Key, KeyRef};
use super::super::settings::TimeoutState;
use super::super::tcp::{Ends, HalfEnds};
use super::entry::{Facts, Packed, USED, picked_by, wide};
use super::index::{Index, Unready};
use super::links::{Links, NONE, Queue};
use super::wide::Wide;
use super::{Clock, NewFlow};
use crate::ids::{ServerId, ServiceId};
use crate::packet::{Protocol, Side, proto};
use crate::time::Instant;
use crate::tournament::Tournament;
use std::collections::TryReserveError;

/// The server has sent a reset, or the client has.
const RESET: u8 = 8;
/// The server has sent.
const ANSWERED: u8 = 16;
/// The client has completed the handshake, but the flow could not leave the store.
const STALLED: u8 = 32;

/// Flows that the index has room for at first.
const FIRST_ROOM: u32 = 4096;
/// How many times the flows of an index the next one has room for.
const GROWTH: u32 = 4;
/// Slots whose entries move to a larger index with each new flow: it has long got them all when it is full itself.
const MOVED_AT_ONCE: u32 = 4;
/// Slots of the next index that each new flow prepares, from the time on when the index is half full. It needs 26 to be
/// ready when the index is full: 2 * 1.6 per flow, [`GROWTH`] times as many, in half as many steps.
const PREPARED_AT_ONCE: usize = 32;

/// The low bits of a word that hold an entry's ticks; the bits above hold its packet counts.
const TICK_BITS: u32 = 24;
const TICKS: u32 = (1 << TICK_BITS) - 1;
/// The longest timeout, about six days: an entry must be gone before its ticks begin anew.
const MOST_TICKS: u32 = 1 << (TICK_BITS - 1);
/// The low bits of a word that hold its service; the bits above hold its profile.
const SERVICE_BITS: u32 = 24;
/// The most that a packet count holds.
const MOST_PACKETS: u32 = 15;

/// One half-open flow, packed. Its counters stop at 15 packets and 65,535 bytes in each direction.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(64))]
struct Entry {
    client: Packed,
    server: Packed,
    ends: HalfEnds,
    /// [`USED`], [`RESET`], [`ANSWERED`], [`STALLED`], [`wide`] for each side, [`picked_by`].
    flags: u8,
    server_id: ServerId,
    /// The service in the low bits, and the profile.
    service: u32,
    /// The tick at which it was created, or at which it was reset, in the low bits; and the packets of both sides.
    tick: u32,
    /// Distinguishes it from other flows in the same slot, and from later flows in the order of insertion.
    number: u32,
    bytes: [u16; 2],
    rule: u16,
    nat_pool: u16,
}

impl Entry {
    fn is_wide(&self, side: usize) -> bool {
        self.flags & wide(side) != 0
    }

    fn profile(&self) -> u8 {
        (self.service >> SERVICE_BITS) as u8
    }

    fn state(&self) -> TimeoutState {
        if self.flags & RESET != 0 { TimeoutState::Reset } else { TimeoutState::Opening }
    }

    fn packets(&self) -> [u32; 2] {
        [self.tick >> TICK_BITS & MOST_PACKETS, self.tick >> (TICK_BITS + 4) & MOST_PACKETS]
    }

    fn set_packets(&mut self, [client, server]: [u32; 2]) {
        self.tick =
            self.tick & TICKS | client.min(MOST_PACKETS) << TICK_BITS | server.min(MOST_PACKETS) << (TICK_BITS + 4);
    }

    fn set_tick(&mut self, tick: u64) {
        self.tick = self.tick & !TICKS | tick as u32 & TICKS;
    }

    /// Returns the tick that the low bits stand for: the last one before `now` with these bits.
    fn entered(&self, now: u64) -> u64 {
        now - (now.wrapping_sub(u64::from(self.tick)) & u64::from(TICKS))
    }
}

/// The position of a flow in the lists.
#[derive(Debug, Clone, Copy)]
struct Place {
    /// In the order of insertion. A free slot has the next free one behind it.
    order: Links,
    /// Among those that wait with it.
    waiting: Links,
}

fn order(place: &mut Place) -> &mut Links {
    &mut place.order
}

fn waiting(place: &mut Place) -> &mut Links {
    &mut place.waiting
}

/// Flows in the same state with the same timeout, in the order in which they are due.
#[derive(Debug)]
struct Waiting {
    state: TimeoutState,
    /// The timeout in ticks.
    ticks: u32,
    flows: Queue,
}

/// What is left of a half-open flow when it leaves the store for the table.
#[derive(Debug, Clone, Copy)]
pub(super) struct Left {
    pub new: NewFlow,
    pub created: Instant,
    pub packets: [u64; 2],
    pub bytes: [u64; 2],
}

/// The store.
#[derive(Debug)]
pub(super) struct HalfOpen {
    entries: Vec<Entry>,
    /// By slot, apart from the entries, as a packet of a flow does not read them. All room is reserved at the start: a
    /// list that grew by copying itself would make one packet wait for a million entries.
    places: Vec<Place>,
    free: u32,
    /// As large as the flows need, so that few flows stay in the processor's cache.
    index: Index,
    /// The former index, and the slot from which on its entries are not yet in the new one.
    former: Option<(Index, u32)>,
    /// The next one.
    next: Option<Unready>,
    /// Flows that the index has room for.
    room: u32,
    wide: Wide,
    queues: Vec<Waiting>,
    /// By queue: when its first flow is due.
    soonest: Tournament,
    /// By profile: the queues of opening and of reset flows.
    of_profile: Vec<[u16; 2]>,
    /// In the order of insertion.
    order: Queue,
    resets: u32,
    max: u32,
    /// Flows inserted since the start: the number of the last one has its low bits.
    inserted: u64,
    /// The last tick of an insertion or change.
    now: u64,
}

impl HalfOpen {
    /// Creates a store of at most `max` flows; `ticks` are the timeouts of opening and reset flows by profile.
    ///
    /// # Errors
    /// If the system refuses the memory.
    pub(super) fn new(max: u32, ticks: impl Iterator<Item = [u32; 2]>) -> Result<Self, TryReserveError> {
        let mut queues: Vec<Waiting> = Vec::new();
        let mut queue = |state: TimeoutState, ticks: u32| {
            let ticks = ticks.min(MOST_TICKS);
            let is = |queue: &Waiting| (queue.state, queue.ticks) == (state, ticks);
            let place = queues.iter().position(is).unwrap_or_else(|| {
                queues.push(Waiting { state, ticks, flows: Queue::EMPTY });
                queues.len() - 1
            });
            // At most 256 profiles with two timeouts each.
            place as u16
        };
        let of_profile = ticks
            .map(|[opening, reset]| [queue(TimeoutState::Opening, opening), queue(TimeoutState::Reset, reset)])
            .collect();
        Ok(HalfOpen {
            entries: super::reserved(max as usize)?,
            places: super::reserved(max as usize)?,
            free: NONE,
            index: Index::new(max.min(FIRST_ROOM).saturating_mul(2))?,
            former: None,
            next: None,
            room: max.min(FIRST_ROOM),
            wide: Wide::new(max as usize * 2)?,
            soonest: Tournament::new(queues.len(), 0),
            queues,
            of_profile,
            order: Queue::EMPTY,
            resets: 0,
            max,
            inserted: 0,
            now: 0,
        })
    }

    pub(super) fn len(&self) -> u32 {
        self.order.len
    }

    /// Returns how many of its flows were reset.
    pub(super) fn resets(&self) -> u32 {
        self.resets
    }

    pub(super) fn max(&self) -> u32 {
        self.max
    }

    /// Finds the entry of a key: its slot in the upper bits, its side in the lowest.
    #[inline]
    pub(super) fn find(&self, hash: u64, key: KeyRef<'_>) -> Option<u32> {
        if self.order.len == 0 || key.protocol != proto::TCP {
            return None;
        }
        let is = |place: u32| {
            let entry = &self.entries[(place >> 1) as usize];
            let side = (place & 1) as usize;
            let packed = if side == 0 { &entry.client } else { &entry.server };
            packed.ports == key.ports
                // The former index may have flows that have left.
                && entry.flags & USED != 0
                && self.wide.is(packed, entry.is_wide(side), key.addresses)
        };
        let former = || self.former.as_ref().and_then(|(index, _)| index.find(hash, is));
        self.index.find(hash, is).or_else(former)
    }

    /// Adds a flow, for which there is room; returns its slot.
    pub(super) fn insert(&mut self, tick: u64, new: &NewFlow, hashes: [u64; 2]) -> u32 {
        let side = |at: usize, key: &Key| if key.addresses.is_v6() { wide(at) } else { 0 };
        self.inserted += 1;
        let mut entry = Entry {
            client: self.wide.pack(&new.client),
            server: self.wide.pack(&new.server),
            ends: HalfEnds::default(),
            flags: USED | side(0, &new.client) | side(1, &new.server) | picked_by(new.picked_by),
            server_id: new.server_id,
            service: new.service.0 & ((1 << SERVICE_BITS) - 1) | u32::from(new.profile) << SERVICE_BITS,
            tick: 0,
            number: self.inserted as u32,
            bytes: [0; 2],
            rule: new.rule,
            nat_pool: new.nat_pool,
        };
        entry.set_tick(tick);
        let slot = self.place(entry);
        self.index.insert(hashes[0], slot << 1);
        self.index.insert(hashes[1], slot << 1 | 1);
        self.now = tick;
        self.order.push(&mut self.places, order, slot);
        self.enqueue(slot);
        slot
    }

    fn place(&mut self, entry: Entry) -> u32 {
        if self.free == NONE {
            self.entries.push(entry);
            self.places.push(Place { order: Links::NONE, waiting: Links::NONE });
            return self.entries.len() as u32 - 1;
        }
        let slot = self.free;
        self.free = self.places[slot as usize].order.behind;
        self.entries[slot as usize] = entry;
        slot
    }

    /// Makes the index larger once it is full; `hash` returns the hash of a key. Each flow does its part of it: some
    /// prepare the next index, later ones move the entries to it. So none waits for all of it.
    pub(super) fn grow(&mut self, hash: impl Fn(&Key) -> u64) {
        if self.former.is_some() {
            self.move_some(MOVED_AT_ONCE, &hash);
        }
        if self.order.len < self.room / 2 || self.room >= self.max {
            return;
        }
        let room = self.room.saturating_mul(GROWTH).min(self.max);
        let mut next = match self.next.take().map_or_else(|| Unready::new(room.saturating_mul(2)), Ok) {
            Ok(next) => next,
            // The system has no more memory: the store stays as it is.
            Err(_) => return self.max = self.room,
        };
        next.prepare(PREPARED_AT_ONCE);
        if self.order.len < self.room {
            self.next = Some(next);
            return;
        }
        self.move_some(u32::MAX, &hash);
        self.former = Some((std::mem::replace(&mut self.index, next.ready()), 0));
        self.room = room;
    }

    /// Moves entries of the former index to the new one.
    fn move_some(&mut self, most: u32, hash: &impl Fn(&Key) -> u64) {
        let Some((_, first)) = self.former else { return };
        let last = first.saturating_add(most).min(self.entries.len() as u32);
        for slot in first..last {
            if self.entries[slot as usize].flags & USED == 0 {
                continue;
            }
            for side in [Side::Client, Side::Server] {
                let (place, hash) = (slot << 1 | side as u32, hash(&self.key(slot, side)));
                if self.index.find(hash, |known| known == place).is_none() {
                    self.index.insert(hash, place);
                }
            }
        }
        let done = last == self.entries.len() as u32;
        self.former = self.former.take().filter(|_| !done).map(|(index, _)| (index, last));
    }

    /// Removes a flow.
    pub(super) fn remove(&mut self, slot: u32, hashes: [u64; 2]) {
        self.index.remove(hashes[0], slot << 1);
        self.index.remove(hashes[1], slot << 1 | 1);
        let entry = &mut self.entries[slot as usize];
        let (flags, queue) = (entry.flags, queue_of(&self.of_profile, entry));
        entry.flags = 0;
        for (side, packed) in [entry.client, entry.server].iter().enumerate() {
            if flags & wide(side) != 0 {
                self.wide.free(packed);
            }
        }
        self.resets -= u32::from(flags & RESET != 0);
        self.leave(slot, queue);
        self.order.unlink(&mut self.places, order, slot);
        self.places[slot as usize].order.behind = self.free;
        self.free = slot;
    }

    fn enqueue(&mut self, slot: u32) {
        let queue = queue_of(&self.of_profile, &self.entries[slot as usize]);
        self.queues[queue].flows.push(&mut self.places, waiting, slot);
        self.note_first(slot, queue);
    }

    fn leave(&mut self, slot: u32, queue: usize) {
        let was_first = self.queues[queue].flows.first == slot;
        self.queues[queue].flows.unlink(&mut self.places, waiting, slot);
        if was_first {
            match self.queues[queue].flows.first {
                NONE => self.soonest.set(queue, None),
                first => self.note_first(first, queue),
            }
        }
    }

    /// Notes when a queue's first flow is due, if this is the one. Of several that are due at once, the oldest comes
    /// first.
    fn note_first(&mut self, slot: u32, queue: usize) {
        if self.queues[queue].flows.first == slot {
            let number = self.entries[slot as usize].number;
            let inserted = self.inserted - u64::from((self.inserted as u32).wrapping_sub(number));
            self.soonest.set_turn(queue, u128::from(self.due(slot)), inserted);
        }
    }

    /// Returns the flow that has been in the store longest.
    pub(super) fn oldest(&self) -> Option<u32> {
        (self.order.first != NONE).then_some(self.order.first)
    }

    /// Returns the newest flows, up to `most`, the oldest of them first.
    pub(super) fn newest(&self, most: usize) -> impl Iterator<Item = u32> + '_ {
        let older = (self.order.len as usize).saturating_sub(most);
        self.order.iter(&self.places, |place| &place.order).skip(older).map(|(slot, _)| slot)
    }

    /// Returns the tick at which a flow expires.
    pub(super) fn due(&self, slot: u32) -> u64 {
        let entry = &self.entries[slot as usize];
        entry.entered(self.now) + u64::from(self.queues[queue_of(&self.of_profile, entry)].ticks)
    }

    /// Returns the flow that expires first, and when.
    pub(super) fn first_to_expire(&self) -> Option<(u64, u32)> {
        let queue = self.soonest.least(&|_| false)?;
        // Ticks fit in half of a load.
        Some((self.soonest.load(queue)? as u64, self.queues[queue].flows.first))
    }

    /// Returns what is known of both ends of a flow.
    pub(super) fn ends(&self, slot: u32) -> Ends {
        self.entries[slot as usize].ends.unpack()
    }

    /// Updates what is known of both ends of a flow, and its state.
    pub(super) fn follow(&mut self, tick: u64, slot: u32, ends: &Ends, state: TimeoutState) {
        let entry = &mut self.entries[slot as usize];
        entry.ends = HalfEnds::pack(ends);
        if state == entry.state() {
            return;
        }
        let before = queue_of(&self.of_profile, entry);
        entry.flags ^= RESET;
        entry.set_tick(tick);
        self.now = tick;
        if state == TimeoutState::Reset {
            self.resets += 1;
        } else {
            self.resets -= 1;
        }
        self.leave(slot, before);
        self.enqueue(slot);
    }

    /// Counts packets of one side.
    pub(super) fn count(&mut self, slot: u32, side: Side, packets: u64, bytes: u64) {
        let entry = &mut self.entries[slot as usize];
        let mut all = entry.packets();
        all[side as usize] += packets.min(u64::from(MOST_PACKETS)) as u32;
        entry.set_packets(all);
        let sum = u64::from(entry.bytes[side as usize]) + bytes;
        entry.bytes[side as usize] = u16::try_from(sum).unwrap_or(u16::MAX);
        if side == Side::Server {
            entry.flags |= ANSWERED;
        }
    }

    /// Records that a flow could not leave the store although its client has completed the handshake.
    pub(super) fn stall(&mut self, slot: u32) {
        self.entries[slot as usize].flags |= STALLED;
    }

    /// Returns whether a flow could not leave the store and has not been reset.
    pub(super) fn is_stalled(&self, slot: u32) -> bool {
        self.entries[slot as usize].flags & (STALLED | RESET) == STALLED
    }

    /// Returns a flow's server.
    pub(super) fn server_of(&self, slot: u32) -> ServerId {
        self.entries[slot as usize].server_id
    }

    /// Returns a flow's server and service.
    pub(super) fn whose(&self, slot: u32) -> (ServerId, ServiceId) {
        let entry = &self.entries[slot as usize];
        (entry.server_id, ServiceId(entry.service & ((1 << SERVICE_BITS) - 1)))
    }

    /// Returns a flow's state.
    pub(super) fn state(&self, slot: u32) -> TimeoutState {
        self.entries[slot as usize].state()
    }

    /// Returns what is known of a flow.
    pub(super) fn facts(&self, clock: &Clock, slot: u32) -> Facts {
        let entry = &self.entries[slot as usize];
        Facts {
            protocol: Protocol::Tcp,
            state: entry.state(),
            profile: entry.profile(),
            server_id: entry.server_id,
            service: ServiceId(entry.service & ((1 << SERVICE_BITS) - 1)),
            rule: entry.rule,
            nat_pool: entry.nat_pool,
            picked_by: entry.flags >> 6,
            created: clock.at(entry.entered(self.now)),
            answered: entry.flags & ANSWERED != 0,
            adopted: false,
            packets: entry.packets().map(u64::from),
            bytes: entry.bytes.map(u64::from),
        }
    }

    /// Returns what the table needs of a flow that leaves for it.
    pub(super) fn left(&self, clock: &Clock, slot: u32) -> Left {
        let facts = self.facts(clock, slot);
        let new = NewFlow {
            client: self.key(slot, Side::Client),
            server: self.key(slot, Side::Server),
            service: facts.service,
            server_id: facts.server_id,
            profile: facts.profile,
            nat_pool: facts.nat_pool,
            rule: facts.rule,
            picked_by: facts.picked_by,
            half_open: false,
        };
        Left { new, created: facts.created, packets: facts.packets, bytes: facts.bytes }
    }

    /// Returns the tick at which a flow entered its state.
    pub(super) fn entered(&self, slot: u32) -> u64 {
        self.entries[slot as usize].entered(self.now)
    }

    /// Returns whether a side's key is IPv6.
    pub(super) fn is_v6(&self, slot: u32, side: Side) -> bool {
        self.entries[slot as usize].is_wide(side as usize)
    }

    /// Returns a side's key, as seen in its packets.
    pub(super) fn key(&self, slot: u32, side: Side) -> Key {
        let entry = &self.entries[slot as usize];
        let packed = if side == Side::Client { &entry.client } else { &entry.server };
        self.wide.key(packed, entry.is_wide(side as usize), Protocol::Tcp)
    }

    /// Returns the number that distinguishes a flow from others in its slot.
    pub(super) fn generation(&self, slot: u32) -> Option<u32> {
        self.entries.get(slot as usize).filter(|entry| entry.flags & USED != 0).map(|entry| entry.number)
    }

    /// Returns the slot and number that the next flow would get if the flow in slot `freed` had ended before it.
    pub(super) fn next(&self, freed: Option<u32>) -> (u32, u32) {
        let free = if self.free == NONE { self.entries.len() as u32 } else { self.free };
        (freed.unwrap_or(free), (self.inserted + 1) as u32)
    }

    /// Returns the slots from `from` on, and whether each is in use.
    pub(super) fn slots(&self, from: u32) -> impl Iterator<Item = (u32, bool)> + '_ {
        self.entries.iter().enumerate().skip(from as usize).map(|(slot, entry)| (slot as u32, entry.flags & USED != 0))
    }
}

fn queue_of(of_profile: &[[u16; 2]], entry: &Entry) -> usize {
    usize::from(of_profile[usize::from(entry.profile())][usize::from(entry.flags & RESET != 0)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_half_open_flow_fits_in_a_cache_line() {
        assert_eq!(size_of::<Entry>(), 64);
    }

    #[test]
    fn ticks_beyond_the_bits_of_an_entry_are_restored() {
        let mut entry = Entry { flags: 0, ..blank() };
        for tick in [0, 1, (1 << 24) - 1, 1 << 24, (3 << 24) + 17] {
            entry.set_tick(tick);
            for later in [0, 1, 200, (1 << 24) - 1] {
                assert_eq!(entry.entered(tick + later), tick, "{tick} + {later}");
            }
        }
        entry.set_packets([3, 99]);
        assert_eq!((entry.packets(), entry.entered((3 << 24) + 17)), ([3, 15], (3 << 24) + 17));
    }

    fn blank() -> Entry {
        let packed = Packed { addresses: [0; 2], ports: 0 };
        Entry {
            client: packed,
            server: packed,
            ends: HalfEnds::default(),
            flags: USED,
            server_id: ServerId(0),
            service: 0,
            tick: 0,
            number: 0,
            bytes: [0; 2],
            rule: 0,
            nat_pool: 0,
        }
    }
}
