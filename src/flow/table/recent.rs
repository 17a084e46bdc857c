//! TCP flows that ended a short while ago, after both sides had closed them: their late segments are no news.
//!
//! It keeps hashes of keys, so about one stranger in 2^48 is taken for a flow that has ended.

use super::index::Index;
use std::collections::TryReserveError;

/// Flows remembered.
const MOST: u32 = 1 << 16;

/// One that ended: the hash of its client's key, and the tick at which it ended, modulo 2^32.
#[derive(Debug, Clone, Copy)]
struct Ended {
    hash: u64,
    tick: u32,
}

/// A ring of flows that have ended: the newest takes the place of the oldest.
#[derive(Debug)]
pub(super) struct Recent {
    ring: Vec<Ended>,
    next: u32,
    index: Index,
}

impl Recent {
    /// Creates an empty ring; fails if the system refuses the memory.
    pub(super) fn new() -> Result<Self, TryReserveError> {
        Ok(Recent { ring: super::reserved(MOST as usize)?, next: 0, index: Index::new(MOST)? })
    }

    /// Remembers a flow. A flow that ends repeatedly has one place: entries with the same hash form one
    /// cluster of the index, and every search near it would walk through them all.
    pub(super) fn add(&mut self, hash: u64, tick: u64) {
        let ended = Ended { hash, tick: tick as u32 };
        if !self.ring.is_empty()
            && let Some(place) = self.index.find(hash, |place| self.ring[place as usize].hash == hash)
        {
            self.ring[place as usize] = ended;
            return;
        }
        let place = self.next;
        match self.ring.get_mut(place as usize) {
            None => self.ring.push(ended),
            Some(old) => {
                self.index.remove(old.hash, place);
                *old = ended;
            }
        }
        self.index.insert(hash, place);
        self.next = (place + 1) % MOST;
    }

    /// Returns whether a flow with this key ended within the last `ticks`.
    pub(super) fn has(&self, hash: u64, tick: u64, ticks: u32) -> bool {
        let is = |place: u32| {
            let ended = &self.ring[place as usize];
            ended.hash == hash && (tick as u32).wrapping_sub(ended.tick) <= ticks
        };
        !self.ring.is_empty() && self.index.find(hash, is).is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flow_that_ends_again_and_again_has_one_place() {
        let mut recent = Recent::new().unwrap();
        (0..1000).for_each(|tick| recent.add(7, tick));
        recent.add(8, 1000);
        assert_eq!(recent.ring.len(), 2);
        assert!(recent.has(7, 1000, 1) && recent.has(8, 1000, 1) && !recent.has(7, 1010, 1));
    }

    #[test]
    fn the_newest_are_remembered_for_a_while() {
        let mut recent = Recent::new().unwrap();
        let hash = |n: u64| crate::rng::mix(n);
        assert!(!recent.has(hash(1), 0, 10));
        (0..u64::from(MOST) + 5).for_each(|n| recent.add(hash(n), n / 1000));
        let last = u64::from(MOST) + 4;
        assert!(recent.has(hash(last), last / 1000, 10) && recent.has(hash(last), last / 1000 + 10, 10));
        assert!(!recent.has(hash(last), last / 1000 + 11, 10), "too long ago");
        assert!(!recent.has(hash(4), 0, u32::MAX) && recent.has(hash(5), 0, u32::MAX), "the oldest has given way");
    }
}
