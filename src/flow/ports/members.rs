//! A set of port indices whose memory is in proportion to its members, and which finds the next number that is not a
//! member without a scan.
//!
//! It must not know what the numbers stand for. Of bitmap crates, `roaring` is compact too, but finds the next
//! non-member only by bisecting over `rank`.

/// Largest number of members kept as a sorted list; more are kept as bits. 512 members are 1 KiB, which an insertion
/// moves in part.
const MOST_FEW: usize = 512;
/// Bits become a list again below this: half, so that no set converts back and forth.
const FEWEST_MANY: usize = MOST_FEW / 2;
/// Words of one bit per number: 65,536 numbers.
const WORDS: usize = 1 << 10;

/// A set of numbers of 16 bits.
#[derive(Debug, Clone)]
pub(super) enum Members {
    /// Ascending.
    Few(Vec<u16>),
    Many(Box<Many>),
}

/// 8,320 bytes.
#[derive(Debug, Clone)]
pub(super) struct Many {
    /// One bit per member.
    low: [u64; WORDS],
    /// One bit per word of `low` that is full.
    full: [u64; WORDS / 64],
    len: usize,
}

impl Many {
    fn new(members: &[u16]) -> Self {
        let mut many = Many { low: [0; WORDS], full: [0; WORDS / 64], len: 0 };
        members.iter().for_each(|n| many.add(usize::from(*n)));
        many
    }

    fn has(&self, n: usize) -> bool {
        self.low[n >> 6] & (1 << (n & 63)) != 0
    }

    fn add(&mut self, n: usize) {
        let word = &mut self.low[n >> 6];
        *word |= 1 << (n & 63);
        if *word == u64::MAX {
            self.full[n >> 12] |= 1 << ((n >> 6) & 63);
        }
        self.len += 1;
    }

    fn remove(&mut self, n: usize) {
        self.low[n >> 6] &= !(1 << (n & 63));
        self.full[n >> 12] &= !(1 << ((n >> 6) & 63));
        self.len -= 1;
    }

    fn next_absent(&self, from: usize) -> Option<usize> {
        // The zeros of a word from a position on, as ones.
        let zeros = |word: u64, place: usize| if place < 64 { !word & (u64::MAX << place) } else { 0 };
        let first = zeros(*self.low.get(from >> 6)?, from & 63);
        if first != 0 {
            return Some(from & !63 | first.trailing_zeros() as usize);
        }
        let mut at = from >> 12;
        let mut words = zeros(self.full[at], ((from >> 6) & 63) + 1);
        while words == 0 {
            at += 1;
            words = !*self.full.get(at)?;
        }
        let word = at << 6 | words.trailing_zeros() as usize;
        Some(word << 6 | (!self.low[word]).trailing_zeros() as usize)
    }

    fn to_few(&self) -> Vec<u16> {
        let mut few = Vec::with_capacity(MOST_FEW);
        for (at, word) in self.low.iter().enumerate() {
            let mut rest = *word;
            while rest != 0 {
                few.push((at << 6) as u16 | rest.trailing_zeros() as u16);
                rest &= rest - 1;
            }
        }
        few
    }
}

impl Members {
    /// Returns the empty set, which owns no memory.
    pub(super) const fn none() -> Self {
        Members::Few(Vec::new())
    }

    /// Returns the number of members.
    pub(super) fn len(&self) -> usize {
        match self {
            Members::Few(few) => few.len(),
            Members::Many(many) => many.len,
        }
    }

    /// Returns whether a number is a member.
    pub(super) fn has(&self, n: u16) -> bool {
        match self {
            Members::Few(few) => few.binary_search(&n).is_ok(),
            Members::Many(many) => many.has(usize::from(n)),
        }
    }

    /// Adds a number; returns whether it was none of the members.
    pub(super) fn add(&mut self, n: u16) -> bool {
        match self {
            Members::Few(few) => {
                let Err(place) = few.binary_search(&n) else { return false };
                if few.len() < MOST_FEW {
                    few.insert(place, n);
                } else {
                    let mut many = Box::new(Many::new(few));
                    many.add(usize::from(n));
                    *self = Members::Many(many);
                }
            }
            Members::Many(many) if many.has(usize::from(n)) => return false,
            Members::Many(many) => many.add(usize::from(n)),
        }
        true
    }

    /// Removes a number; returns whether it was a member.
    pub(super) fn remove(&mut self, n: u16) -> bool {
        match self {
            Members::Few(few) => {
                let Ok(place) = few.binary_search(&n) else { return false };
                few.remove(place);
            }
            Members::Many(many) if !many.has(usize::from(n)) => return false,
            Members::Many(many) => {
                many.remove(usize::from(n));
                if many.len < FEWEST_MANY {
                    *self = Members::Few(many.to_few());
                }
            }
        }
        true
    }

    /// Returns all members, ascending.
    pub(super) fn iter(&self) -> impl Iterator<Item = u16> + use<> {
        match self {
            Members::Few(few) => few.clone(),
            Members::Many(many) => many.to_few(),
        }
        .into_iter()
    }

    /// Returns the smallest number in `from..end` that is not a member.
    pub(super) fn next_absent(&self, from: usize, end: usize) -> Option<usize> {
        let found = match self {
            Members::Few(few) => {
                let later = &few[few.partition_point(|n| usize::from(*n) < from)..];
                // Members that follow on `from` without a gap: each is as far from it as from the start of the list.
                let (mut run, mut beyond) = (0, later.len());
                while run < beyond {
                    let middle = run + (beyond - run) / 2;
                    if usize::from(later[middle]) == from + middle { run = middle + 1 } else { beyond = middle }
                }
                from + run
            }
            Members::Many(many) => many.next_absent(from)?,
        };
        (found < end).then_some(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    #[test]
    fn a_full_set_has_no_next_number_and_one_that_loses_one_has_just_that() {
        let mut all = Members::none();
        assert!((0..=u16::MAX).rev().all(|n| all.add(n)) && all.len() == 65_536);
        for n in [0, 1, 63, 64, 4095, 4096, 40_000, 65_471, 65_472, 65_535] {
            assert_eq!(all.next_absent(0, 65_536), None);
            assert!(all.remove(n) && !all.remove(n) && !all.has(n));
            let at = usize::from(n);
            for from in [0, at / 2, at.saturating_sub(1), at] {
                assert_eq!(all.next_absent(from, 65_536), Some(at), "{from}");
            }
            assert_eq!((all.next_absent(at + 1, 65_536), all.next_absent(0, at)), (None, None));
            assert!(all.add(n) && !all.add(n));
        }
        (0..=u16::MAX).for_each(|n| assert!(all.remove(n)));
        assert!(matches!(all, Members::Few(few) if few.is_empty()));
    }

    proptest! {
        #[test]
        fn a_set_agrees_with_a_naive_set(
            steps in prop::collection::vec((0u16..1300, 0u16..700, any::<bool>()), 1..12),
            queries in prop::collection::vec((0usize..1400, 0usize..1400), 20),
        ) {
            let (mut set, mut naive) = (Members::none(), BTreeSet::new());
            for (first, count, adds) in steps {
                for n in first..first + count {
                    let (changed, wanted) = if adds { (set.add(n), naive.insert(n)) } else { (set.remove(n), naive.remove(&n)) };
                    prop_assert_eq!(changed, wanted);
                }
                prop_assert_eq!(set.len(), naive.len());
                for (from, end) in &queries {
                    let want = (*from..*end).find(|n| !naive.contains(&(*n as u16)));
                    prop_assert_eq!(set.next_absent(*from, *end), want);
                    prop_assert_eq!(set.has(*from as u16), naive.contains(&(*from as u16)));
                }
            }
        }
    }
}
