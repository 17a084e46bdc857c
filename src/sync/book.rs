//! What both gateways know of each flow, by slot: a bit for each reason to say something, the hash of what the peer was told,
//! and the slot that the peer has.
//!
//! It is sized once, by the table: 21 bytes and twelve bits per slot, of which the system commits what is used. It must not
//! know frames.

use super::wire::Ranges;
use crate::engine::{Engine, Mark};
use crate::flow::{Key, SavedFlow};
use crate::ids::FlowId;
use crate::packet::Addresses;
use siphasher::sip::SipHasher13;
use std::hash::Hasher;

const BITS: usize = u64::BITS as usize;
/// Changes that are taken from the engine at once.
const PORTION: usize = 1024;

/// A bit per slot.
#[derive(Debug)]
pub(super) struct Bits(Vec<u64>);

impl Bits {
    fn new(slots: usize) -> Self {
        Bits(vec![0; slots.div_ceil(BITS)])
    }

    pub(super) fn set(&mut self, slot: u32) {
        if let Some(word) = self.0.get_mut(slot as usize / BITS) {
            *word |= 1 << (slot as usize % BITS);
        }
    }

    pub(super) fn clear(&mut self, slot: u32) {
        if let Some(word) = self.0.get_mut(slot as usize / BITS) {
            *word &= !(1 << (slot as usize % BITS));
        }
    }

    pub(super) fn has(&self, slot: u32) -> bool {
        self.0.get(slot as usize / BITS).is_some_and(|word| word & 1 << (slot as usize % BITS) != 0)
    }

    fn add_all(&mut self, others: &Bits) {
        self.0.iter_mut().zip(&others.0).for_each(|(own, other)| *own |= other);
    }

    pub(super) fn clear_all(&mut self) {
        self.0.fill(0);
    }

    /// Returns the first slot from one on that has the bit.
    pub(super) fn next(&self, from: u32) -> Option<u32> {
        let at = from as usize / BITS;
        let first = self.0.get(at)? & (u64::MAX << (from as usize % BITS));
        let words = std::iter::once(first).chain(self.0[at + 1..].iter().copied());
        let (at, word) = (at..).zip(words).find(|(_, word)| *word != 0)?;
        Some((at * BITS) as u32 + word.trailing_zeros())
    }

    pub(super) fn count(&self) -> u32 {
        self.0.iter().map(|word| word.count_ones()).sum()
    }

    /// Takes the next 64 slots of which some have the bit: their number and bits.
    pub(super) fn take_word(&mut self, from: u32) -> Option<(u32, u64)> {
        let at = self.next(from)? as usize / BITS;
        Some((at as u32, std::mem::take(&mut self.0[at])))
    }
}

/// The slot that the peer gives to a flow, and the flow here. A zero is none.
#[derive(Debug, Clone, Copy, Default)]
struct Theirs {
    /// The slot here, plus one.
    slot: u32,
    generation: u32,
}

/// The book.
#[derive(Debug)]
pub(super) struct Book {
    key: (u64, u64),
    slots: u32,
    /// The hash of what the peer knows of the flow; 0 if it knows nothing.
    told: Vec<u64>,
    /// The range of its key.
    range: Vec<u8>,
    /// By range: all hashes that the peer knows, xored.
    digests: [u64; Ranges::COUNT],
    /// By the peer's slots.
    theirs: Vec<Theirs>,
    /// The slot of a flow there, plus one.
    owner: Vec<u32>,
    /// The flow is to be told.
    pub(super) pending: Bits,
    /// The flow that the peer knows has ended.
    pub(super) dead: Bits,
    /// It has carried packets since that was last told.
    pub(super) touched: Bits,
    /// Its sequence numbers are others than those that the peer has been told.
    pub(super) stale: Bits,
    /// It was made, or has carried packets, here, since the peer last knew all of it.
    seen: Bits,
    /// The same, but the peer has been told since and has not yet acknowledged it.
    told_seen: Bits,
    /// The peer has been told of it, or that it has ended, and may not have read that; in two generations.
    sent: [Bits; 2],
    /// The peer is to be told which slot it has here, and has been told and may not have read that.
    pub(super) unmapped: Bits,
    map_sent: [Bits; 2],
    /// The peer has spoken of it in the bulk that is being received.
    pub(super) confirmed: Bits,
    has_seen: bool,
    has_confirmed: bool,
}

impl Book {
    pub(super) fn new(key: (u64, u64), slots: u32) -> Self {
        let len = slots as usize;
        let bits = || Bits::new(len);
        Book {
            key,
            slots,
            told: vec![0; len],
            range: vec![0; len],
            digests: [0; Ranges::COUNT],
            theirs: vec![Theirs::default(); len],
            owner: vec![0; len],
            pending: bits(),
            dead: bits(),
            touched: bits(),
            stale: bits(),
            seen: bits(),
            told_seen: bits(),
            sent: [bits(), bits()],
            unmapped: bits(),
            map_sent: [bits(), bits()],
            confirmed: bits(),
            has_seen: false,
            has_confirmed: false,
        }
    }

    /// Returns how many bytes it keeps.
    pub(super) fn memory(&self) -> usize {
        let slots = self.told.len() * size_of::<u64>()
            + self.range.len()
            + self.theirs.len() * size_of::<Theirs>()
            + self.owner.len() * size_of::<u32>();
        let bits =
            [&self.pending, &self.dead, &self.touched, &self.stale, &self.seen, &self.told_seen, &self.confirmed];
        let bits = bits.into_iter().chain(&self.sent).chain([&self.unmapped]).chain(&self.map_sent);
        slots + bits.map(|bits| bits.0.len() * size_of::<u64>()).sum::<usize>()
    }

    /// Returns the range of a flow, and the hash of what is known of it, which is never 0.
    pub(super) fn hash(&self, mark: &Mark) -> (u8, u64) {
        let hashed = |keys: &[&Key], more: &[u8]| {
            let mut hasher = SipHasher13::new_with_keys(self.key.0, self.key.1);
            keys.iter().for_each(|key| write_key(&mut hasher, key));
            hasher.write(more);
            hasher.finish()
        };
        let range = (hashed(&[&mark.client], &[]) >> 56) as u8;
        (range, hashed(&[&mark.client, &mark.server], &[mark.state as u8, mark.proven.into()]) | 1)
    }

    /// Returns a hash of a flow's keys alone.
    pub(super) fn keys(&self, mark: &Mark) -> u64 {
        let mut hasher = SipHasher13::new_with_keys(self.key.0, self.key.1);
        [&mark.client, &mark.server].iter().for_each(|key| write_key(&mut hasher, key));
        hasher.finish()
    }

    /// Returns a hash of a half-open flow's keys, and one of what becomes of it.
    pub(super) fn half_open(&self, flow: &SavedFlow) -> (u64, u64) {
        let mut hasher = SipHasher13::new_with_keys(self.key.0, self.key.1);
        [&flow.flow.client, &flow.flow.server].iter().for_each(|key| write_key(&mut hasher, key));
        let keys = hasher.finish();
        hasher.write(&flow.numbers);
        hasher.write(&[flow.state as u8, flow.answered.into()]);
        (keys, hasher.finish())
    }

    /// Records what the peer knows of the flow in a slot.
    pub(super) fn tell(&mut self, slot: u32, hash: Option<(u8, u64)>) {
        let at = slot as usize;
        let Some(told) = self.told.get_mut(at) else { return };
        self.digests[usize::from(self.range[at])] ^= *told;
        let (range, hash) = hash.unwrap_or((0, 0));
        (*told, self.range[at]) = (hash, range);
        self.digests[usize::from(range)] ^= hash;
    }

    /// Returns the hash of what the peer knows of the flow in a slot, or 0.
    pub(super) fn told(&self, slot: u32) -> u64 {
        self.told.get(slot as usize).copied().unwrap_or(0)
    }

    /// Returns the range of a flow of which the peer knows something.
    pub(super) fn range(&self, slot: u32) -> u8 {
        self.range[slot as usize]
    }

    pub(super) fn digests(&self) -> &[u64; Ranges::COUNT] {
        &self.digests
    }

    /// Records that a flow of the peer's is one of these; returns whether that is new.
    pub(super) fn map(&mut self, theirs: u32, id: FlowId) -> bool {
        let is_known = |place: &Theirs| (place.slot, place.generation) == (id.index + 1, id.generation);
        let is_owner = self.owner.get(id.index as usize) == Some(&(theirs + 1));
        if is_owner && self.theirs.get(theirs as usize).is_some_and(is_known) {
            return false;
        }
        // Another slot there had this one, unless that has become another flow's since.
        let before = self.owner.get(id.index as usize).copied().filter(|owner| *owner != 0);
        if let Some(old) = before.and_then(|before| self.theirs.get_mut(before as usize - 1))
            && old.slot == id.index + 1
        {
            *old = Theirs::default();
        }
        if let (Some(place), Some(owner)) =
            (self.theirs.get_mut(theirs as usize), self.owner.get_mut(id.index as usize))
        {
            *place = Theirs { slot: id.index + 1, generation: id.generation };
            *owner = theirs + 1;
        }
        true
    }

    /// Returns the flow here that the peer has in a slot, if it is still the one.
    pub(super) fn mapped(&self, engine: &Engine, theirs: u32) -> Option<FlowId> {
        let place = self.theirs.get(theirs as usize).filter(|place| place.slot != 0)?;
        let id = FlowId { index: place.slot - 1, generation: place.generation };
        (self.owner[id.index as usize] == theirs + 1 && engine.flow_in(id.index) == Some(id)).then_some(id)
    }

    /// Returns whether the peer may have a flow in this slot.
    pub(super) fn has_slot(&self, theirs: u32) -> bool {
        theirs < self.slots
    }

    /// Forgets the peer's slots, unless both go on from before; and what it was told, if it is another peer.
    pub(super) fn begin(&mut self, is_another: bool, resumes: bool) {
        if !resumes {
            self.theirs = vec![Theirs::default(); self.slots as usize];
            self.owner = vec![0; self.slots as usize];
            [&mut self.unmapped].into_iter().chain(&mut self.map_sent).for_each(Bits::clear_all);
        }
        // Maps that may be lost.
        for sent in &mut self.map_sent {
            self.unmapped.add_all(sent);
            sent.clear_all();
        }
        // What was under way may be lost.
        self.seen.0.iter_mut().zip(&mut self.told_seen.0).for_each(|(seen, told)| *seen |= std::mem::take(told));
        if is_another {
            self.told = vec![0; self.slots as usize];
            self.digests = [0; Ranges::COUNT];
            self.sent.iter_mut().for_each(Bits::clear_all);
        }
    }

    /// Notes that everything that the peer may not have read is to be told again.
    pub(super) fn tell_again(&mut self, engine: &Engine) {
        for at in 0..self.sent.len() {
            let mut from = 0;
            while let Some(slot) = self.sent[at].next(from) {
                match engine.flow_in(slot) {
                    Some(_) => self.pending.set(slot),
                    None => self.dead.set(slot),
                }
                from = slot + 1;
            }
            self.sent[at].clear_all();
        }
    }

    /// Notes that the peer is being told of a slot.
    pub(super) fn note_sent(&mut self, slot: u32) {
        self.sent[0].set(slot);
    }

    /// Takes the next flow from a slot on of which the peer is to be told which slot it has here: that, the one there, and a
    /// hash of its keys.
    pub(super) fn next_unmapped(&mut self, engine: &Engine, mut from: u32) -> Option<(u32, u32, u64)> {
        loop {
            let slot = self.unmapped.next(from)?;
            from = slot;
            self.unmapped.clear(slot);
            let owner = self.owner[slot as usize];
            if let Some(mark) = engine.flow_mark(slot).filter(|_| owner != 0) {
                self.map_sent[0].set(slot);
                return Some((slot, owner - 1, self.keys(&mark)));
            }
        }
    }

    /// Reads what has changed in the engine.
    pub(super) fn harvest(&mut self, engine: &mut Engine) {
        let mut changes = Vec::with_capacity(PORTION);
        let mut next = Some(0);
        while let Some(from) = next {
            next = engine.take_flow_changes(from, PORTION, &mut changes);
            for (slot, is_more) in changes.drain(..) {
                if engine.flow_in(slot).is_none() {
                    self.forget(slot);
                    if self.told(slot) != 0 {
                        self.dead.set(slot);
                    }
                    continue;
                }
                self.seen.set(slot);
                self.has_seen = true;
                self.stale.set(slot);
                match is_more {
                    true => self.pending.set(slot),
                    false => self.touched.set(slot),
                }
            }
        }
    }

    /// Clears every reason to say something of a slot.
    fn forget(&mut self, slot: u32) {
        let told = [&mut self.pending, &mut self.dead, &mut self.touched, &mut self.stale];
        for bits in told.into_iter().chain([&mut self.seen, &mut self.told_seen]) {
            bits.clear(slot);
        }
    }

    /// Records that a flow is as the peer has it, who is to be told which slot it has here, if it asks or that is new.
    pub(super) fn took(&mut self, engine: &mut Engine, id: FlowId, theirs: u32, (hash, asks): ((u8, u64), bool)) {
        engine.forget_flow_change(id.index);
        self.forget(id.index);
        self.tell(id.index, Some(hash));
        self.confirm(id.index);
        self.meet(theirs, id, asks);
    }

    /// Returns whether the slot that the peer has for a flow is known. It is not if the flow was made anew in its slot.
    pub(super) fn is_mapped(&self, id: FlowId) -> bool {
        let owner = self.owner.get(id.index as usize).copied().unwrap_or(0);
        let place = owner.checked_sub(1).and_then(|theirs| self.theirs.get(theirs as usize));
        place.is_some_and(|place| (place.slot, place.generation) == (id.index + 1, id.generation))
    }

    /// Records that a flow of the peer's is one of these, of which the peer is to be told which slot it has here.
    pub(super) fn meet(&mut self, theirs: u32, id: FlowId, asks: bool) {
        if self.map(theirs, id) || asks {
            self.unmapped.set(id.index);
        }
    }

    /// Records that the peer has spoken of a flow in its bulk.
    pub(super) fn confirm(&mut self, slot: u32) {
        self.confirmed.set(slot);
        self.has_confirmed = true;
    }

    /// Begins another bulk.
    pub(super) fn forget_confirmed(&mut self) {
        if std::mem::take(&mut self.has_confirmed) {
            self.confirmed.clear_all();
        }
    }

    /// Records that a flow has ended that the peer knows to have ended.
    pub(super) fn dropped(&mut self, engine: &mut Engine, slot: u32) {
        engine.forget_flow_change(slot);
        self.forget(slot);
        self.tell(slot, None);
    }

    /// Returns whether the peer is still to be told something.
    pub(super) fn has_news(&self) -> bool {
        self.pending.next(0).is_some() || self.dead.next(0).is_some()
    }

    /// Returns whether a flow was seen here and the peer may not know.
    pub(super) fn is_seen(&self, slot: u32) -> bool {
        self.seen.has(slot) || self.told_seen.has(slot)
    }

    /// The peer has been told everything, and has acknowledged what it had been told the last time.
    pub(super) fn settle_seen(&mut self) {
        for generations in [&mut self.sent, &mut self.map_sent] {
            generations[1].clear_all();
            generations.swap(0, 1);
        }
        if self.has_seen {
            self.told_seen.clear_all();
            std::mem::swap(&mut self.seen, &mut self.told_seen);
            self.has_seen = self.told_seen.next(0).is_some();
        }
    }
}

fn write_key(hasher: &mut SipHasher13, key: &Key) {
    let ports = u64::from(key.src_port) << 24 | u64::from(key.dst_port) << 8 | u64::from(key.protocol.number(false));
    hasher.write(&ports.to_be_bytes());
    match key.addresses {
        Addresses::V4 { src, dst } => hasher.write(&(u64::from(src) << 32 | u64::from(dst)).to_be_bytes()),
        Addresses::V6 { src, dst } => {
            hasher.write(&src.to_be_bytes());
            hasher.write(&dst.to_be_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_are_found_in_order() {
        let mut bits = Bits::new(200);
        [0, 63, 64, 130, 199].iter().for_each(|slot| bits.set(*slot));
        bits.set(1000);
        bits.clear(63);
        let mut found = Vec::new();
        let mut from = 0;
        while let Some(slot) = bits.next(from) {
            found.push(slot);
            from = slot + 1;
        }
        assert_eq!(found, [0, 64, 130, 199]);
        assert_eq!(bits.take_word(1), Some((1, 1)));
        assert_eq!(bits.take_word(1), Some((2, 4)));
        assert!(bits.has(199) && !bits.has(130) && !bits.has(5000));
        assert_eq!(bits.next(200), None);
    }

    #[test]
    fn a_digest_is_that_of_what_is_told_whatever_came_before() {
        let mut book = Book::new((1, 2), 8);
        book.tell(3, Some((7, 0x11)));
        book.tell(4, Some((7, 0x22)));
        book.tell(4, Some((9, 0x33)));
        book.tell(3, None);
        let mut other = Book::new((1, 2), 8);
        other.tell(1, Some((9, 0x33)));
        assert_eq!(book.digests(), other.digests());
        assert_eq!((book.told(3), book.told(4), book.told(100)), (0, 0x33, 0));
    }
}
