//! The flow index: from hashes to entries, open addressing with linear probing.
//!
//! It must not know keys: the caller decides whether an entry is the one it wants. Removal shifts later entries back,
//! so there are no tombstones, and nothing is ever allocated or rehashed. Who needs a larger one prepares it as
//! [`Unready`] while the old one is in use.

use std::collections::TryReserveError;
use std::fmt;

/// A slot: the upper half of the hash in the high bits, the entry plus one in the low bits; zero is empty.
pub(super) struct Index {
    slots: Box<[u64]>,
}

/// Prints the entries, as most slots may be empty.
impl fmt::Debug for Index {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let used = self.slots.iter().filter(|slot| **slot != 0).map(|slot| (*slot as u32).wrapping_sub(1));
        f.debug_set().entries(used).finish()
    }
}

/// Slots per ten entries: at 16, a hit examines 1.8 slots on average, most of them in one cache line.
const SLOTS_PER_TEN: u64 = 16;

/// An index in preparation: its memory is reserved, and emptied piece by piece, as an allocator may empty memory that was
/// used before all at once.
#[derive(Debug)]
pub(super) struct Unready(Vec<u64>);

impl Unready {
    /// Reserves an index for at most `entries` entries; fails if the system refuses the memory.
    pub(super) fn new(entries: u32) -> Result<Self, TryReserveError> {
        super::reserved(slots_for(entries)).map(Unready)
    }

    /// Empties some more slots.
    pub(super) fn prepare(&mut self, slots: usize) {
        self.0.resize((self.0.len() + slots).min(self.0.capacity()), 0);
    }

    /// Returns the index, of which all slots are empty.
    pub(super) fn ready(mut self) -> Index {
        self.prepare(self.0.capacity() - self.0.len());
        Index { slots: self.0.into_boxed_slice() }
    }
}

fn slots_for(entries: u32) -> usize {
    (u64::from(entries) * SLOTS_PER_TEN / 10).max(8) as usize
}

impl Index {
    /// Creates an index for at most `entries` entries, 8 bytes per slot; fails if the system refuses the memory.
    pub(super) fn new(entries: u32) -> Result<Self, TryReserveError> {
        let slots = slots_for(entries);
        // Lazily zeroed memory has no fallible allocation call: reserve the same amount first, and release it.
        Vec::<u64>::new().try_reserve_exact(slots)?;
        Ok(Index { slots: vec![0; slots].into_boxed_slice() })
    }

    #[inline]
    fn home(&self, tag: u32) -> usize {
        ((u64::from(tag) * self.slots.len() as u64) >> 32) as usize
    }

    #[inline]
    fn next(&self, at: usize) -> usize {
        if at + 1 == self.slots.len() { 0 } else { at + 1 }
    }

    /// Returns the entry with this hash for which `is` holds.
    #[inline]
    pub(super) fn find(&self, hash: u64, mut is: impl FnMut(u32) -> bool) -> Option<u32> {
        let tag = (hash >> 32) as u32;
        let mut at = self.home(tag);
        loop {
            let slot = self.slots[at];
            if slot == 0 {
                return None;
            }
            if (slot >> 32) as u32 == tag {
                let entry = (slot as u32).wrapping_sub(1);
                if is(entry) {
                    return Some(entry);
                }
            }
            at = self.next(at);
        }
    }

    /// Returns the first entry with this hash, which may be of another key; reads no entry. It is for reading ahead what
    /// [`Index::find`] will read.
    #[inline]
    pub(super) fn peek(&self, hash: u64) -> Option<u32> {
        self.find(hash, |_| true)
    }

    /// Returns its memory: start and length in bytes.
    pub(super) fn memory(&self) -> (usize, usize) {
        (self.slots.as_ptr() as usize, size_of_val(&*self.slots))
    }

    /// Adds an entry; the caller adds no more than the index was created for.
    pub(super) fn insert(&mut self, hash: u64, entry: u32) {
        let tag = (hash >> 32) as u32;
        let mut at = self.home(tag);
        while self.slots[at] != 0 {
            at = self.next(at);
        }
        self.slots[at] = u64::from(tag) << 32 | u64::from(entry + 1);
    }

    /// Removes an entry; does nothing if it is absent.
    pub(super) fn remove(&mut self, hash: u64, entry: u32) {
        let tag = (hash >> 32) as u32;
        let wanted = u64::from(tag) << 32 | u64::from(entry + 1);
        let mut hole = self.home(tag);
        while self.slots[hole] != wanted {
            if self.slots[hole] == 0 {
                return;
            }
            hole = self.next(hole);
        }
        let len = self.slots.len();
        let mut at = hole;
        loop {
            at = self.next(at);
            let slot = self.slots[at];
            if slot == 0 {
                break;
            }
            // Distances, going backwards: from the slot to its home, and from the hole to the slot.
            let home = self.home((slot >> 32) as u32);
            if (at + len - home) % len >= (at + len - hole) % len {
                self.slots[hole] = slot;
                hole = at;
            }
        }
        self.slots[hole] = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashMap;

    proptest! {
        #[test]
        fn index_agrees_with_a_map(steps in prop::collection::vec((any::<bool>(), 0u32..24, any::<u8>()), 1..400)) {
            let mut index = Index::new(24).unwrap();
            let mut model: HashMap<u32, u64> = HashMap::new();
            for (add, entry, byte) in steps {
                // Few home slots, so that long clusters and wrap-around at the end occur.
                let hash = u64::from(byte % 7) << 61 | u64::from(byte) << 32;
                if add && !model.contains_key(&entry) {
                    index.insert(hash, entry);
                    model.insert(entry, hash);
                } else if let Some(hash) = model.remove(&entry) {
                    index.remove(hash, entry);
                }
                for e in 0..24 {
                    let found = model.get(&e).and_then(|h| index.find(*h, |x| x == e));
                    prop_assert_eq!(found, model.contains_key(&e).then_some(e));
                }
            }
        }
    }
}
