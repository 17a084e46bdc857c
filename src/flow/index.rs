//! The flow index: from hashes to entries, open addressing with linear probing.
//!
//! It must not know keys; whoever asks says whether an entry is the one meant. Removal shifts
//! back what stood behind, so there are no tombstones, and nothing is ever allocated or rehashed.

use std::collections::TryReserveError;

/// A slot: the hash's high half above, the entry plus one below; zero is empty.
#[derive(Debug)]
pub(super) struct Index {
    slots: Box<[u64]>,
}

/// Slots per ten entries: at 16 a hit looks at 1.8 slots on average, most of them in one cache line.
const SLOTS_PER_TEN: u64 = 16;

impl Index {
    /// An index for at most `entries` entries, 8 bytes a slot; fails where the system refuses the memory.
    pub(super) fn new(entries: u32) -> Result<Self, TryReserveError> {
        let slots = (u64::from(entries) * SLOTS_PER_TEN / 10).max(8) as usize;
        // Zeroed memory that is not touched until it is used has no call that can fail: ask for as much, and give it back.
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

    /// The entry with this hash for which `is` holds.
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

    /// Adds an entry; the caller holds no more than the index was made for.
    pub(super) fn insert(&mut self, hash: u64, entry: u32) {
        let tag = (hash >> 32) as u32;
        let mut at = self.home(tag);
        while self.slots[at] != 0 {
            at = self.next(at);
        }
        self.slots[at] = u64::from(tag) << 32 | u64::from(entry + 1);
    }

    /// Removes an entry; nothing happens where it is not there.
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
            // How far the slot stands from its home, and the hole from the slot, going backwards.
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
        fn it_holds_what_a_map_holds(steps in prop::collection::vec((any::<bool>(), 0u32..24, any::<u8>()), 1..400)) {
            let mut index = Index::new(24).unwrap();
            let mut model: HashMap<u32, u64> = HashMap::new();
            for (add, entry, byte) in steps {
                // Few homes, so that long clusters and the wrap at the end come up.
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
