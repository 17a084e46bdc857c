//! Maglev's consistent hash: a table that the servers fill in turns, each in an order of its own
//! (Eisenbud et al.: Maglev, a fast and reliable software network load balancer, NSDI 2016, 3.4). A pick is
//! one look into the table; a server that goes moves few flows of the others.

use super::hash::Hash;
use crate::rng::mix;

/// Other entries that are looked at where the first one's server refuses, before all are.
const TRIES: u64 = 16;

/// The table, and what it is filled from.
#[derive(Debug, Clone)]
pub(super) struct Maglev {
    /// Where each server's order starts, and how far it steps.
    orders: Vec<(u32, u32)>,
    weights: Vec<u32>,
    /// Places; empty where there is no candidate.
    table: Vec<u32>,
    size: u32,
}

/// An entry that nobody has taken yet.
const FREE: u32 = u32::MAX;

/// A server while the table is filled.
struct Turn {
    place: u32,
    /// The entry it wants next, and the distance to the one after.
    next: u32,
    skip: u32,
    weight: u64,
    saved: u64,
}

impl Turn {
    /// Takes the first free entry of its order; there is one.
    fn take(&mut self, table: &mut [u32]) {
        let size = table.len() as u64;
        loop {
            let entry = &mut table[self.next as usize];
            let sum = u64::from(self.next) + u64::from(self.skip);
            self.next = (if sum >= size { sum - size } else { sum }) as u32;
            if *entry == FREE {
                *entry = self.place;
                return;
            }
        }
    }
}

impl Maglev {
    /// Makes one over the servers of these names, without candidates; `size` is a prime above their number.
    pub(super) fn new<'a>(hash: Hash, names: impl Iterator<Item = &'a str>, size: u32) -> Self {
        let order = |name: &str| {
            let (offset, skip) = (hash.name(name, 1), hash.name(name, 2));
            ((offset % u64::from(size)) as u32, (skip % u64::from(size - 1)) as u32 + 1)
        };
        let orders: Vec<_> = names.map(order).collect();
        Maglev { weights: vec![0; orders.len()], orders, table: Vec::new(), size }
    }

    /// Takes new weights; 0 is no candidate. Fills the table anew where they differ from the old ones.
    pub(super) fn set_weights(&mut self, weights: &[u32]) {
        if self.weights == weights {
            return;
        }
        self.weights.copy_from_slice(weights);
        self.fill();
    }

    /// The paper's procedure, figure 4 (Populate), with one addition: in each round a server takes as many entries as
    /// its weight bears to the average weight, and keeps the fraction for the next round.
    fn fill(&mut self) {
        self.table.clear();
        let candidates = || self.weights.iter().enumerate().filter(|(_, weight)| **weight > 0);
        let sum: u64 = candidates().map(|(_, weight)| u64::from(*weight)).sum();
        if sum == 0 {
            return;
        }
        let average = sum.div_ceil(candidates().count() as u64);
        let mut turns: Vec<Turn> = candidates()
            .map(|(place, weight)| {
                let (next, skip) = self.orders[place];
                Turn { place: place as u32, next, skip, weight: u64::from(*weight), saved: 0 }
            })
            .collect();
        self.table.resize(self.size as usize, FREE);
        let mut left = self.size;
        loop {
            for turn in &mut turns {
                turn.saved += turn.weight;
                while turn.saved >= average {
                    turn.saved -= average;
                    turn.take(&mut self.table);
                    left -= 1;
                    if left == 0 {
                        return;
                    }
                }
            }
        }
    }

    /// Returns the entry of a hash, and the size of the table; none where that is empty.
    pub(super) fn entry(&self, hash: u64) -> Option<(u64, u32)> {
        (!self.table.is_empty()).then(|| (hash % u64::from(self.size), self.size))
    }

    /// Returns each server's part of the table by place, 0 to 1.
    pub(super) fn shares(&self) -> Vec<f64> {
        let mut shares = vec![0.0; self.weights.len()];
        self.table.iter().for_each(|place| shares[*place as usize] += 1.0 / f64::from(self.size));
        shares
    }

    /// Picks the server of a flow by its hash.
    pub(super) fn pick(&self, hash: u64, refuses: &dyn Fn(usize) -> bool) -> Option<usize> {
        if self.table.is_empty() {
            return None;
        }
        let entry = |n: u64| self.table[(n % u64::from(self.size)) as usize] as usize;
        let others = (1..=TRIES).map(|salt| mix(hash ^ salt.wrapping_mul(0x9e37_79b9_7f4a_7c15)));
        let tried = std::iter::once(hash).chain(others).map(entry);
        let all = (0..u64::from(self.size)).map(|behind| entry(hash % u64::from(self.size) + behind));
        tried.chain(all).find(|place| !refuses(*place))
    }

    /// The table: a place for each entry.
    #[cfg(test)]
    pub(super) fn table(&self) -> &[u32] {
        &self.table
    }
}

/// Whether a number is a prime.
pub fn is_prime(n: u32) -> bool {
    n >= 2 && (2..).take_while(|d| u64::from(*d) * u64::from(*d) <= u64::from(n)).all(|d| !n.is_multiple_of(d))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn maglev(servers: usize, size: u32) -> Maglev {
        let names: Vec<String> = (0..servers).map(|i| format!("s{i}")).collect();
        let mut maglev = Maglev::new(Hash::new(1), names.iter().map(String::as_str), size);
        maglev.set_weights(&vec![16; servers]);
        maglev
    }

    fn shares(maglev: &Maglev) -> Vec<u32> {
        let mut shares = vec![0; maglev.weights.len()];
        maglev.table().iter().for_each(|place| shares[*place as usize] += 1);
        shares
    }

    #[test]
    fn primes_are_told_from_others() {
        let primes: Vec<u32> = (0..30).filter(|n| is_prime(*n)).collect();
        assert_eq!(primes, [2, 3, 5, 7, 11, 13, 17, 19, 23, 29]);
        assert!(is_prime(65_537) && is_prime(655_373) && !is_prime(65_536) && !is_prime(u32::MAX));
    }

    #[test]
    fn every_server_has_its_share_of_the_entries_to_one() {
        // NSDI 2016, 5.3: with equal weights shares differ by one entry at most.
        for (servers, size) in [(3, 7), (5, 251), (100, 65_537), (1000, 65_537), (1000, 655_373)] {
            let shares = shares(&maglev(servers, size));
            let even = size / servers as u32;
            assert!(shares.iter().all(|n| (even..=even + 1).contains(n)), "{servers} {size}");
            assert_eq!(shares.iter().sum::<u32>(), size);
        }
        let mut weighted = maglev(3, 65_537);
        weighted.set_weights(&[16, 32, 80]);
        for (n, want) in shares(&weighted).iter().zip([1.0, 2.0, 5.0].map(|w| w / 8.0 * 65_537.0)) {
            assert!((f64::from(*n) - want).abs() < 2.0, "{n} {want}");
        }
    }

    #[test]
    fn a_server_that_goes_moves_few_flows_of_others() {
        let before = maglev(100, 65_537);
        let mut after = maglev(100, 65_537);
        let mut weights = vec![16; 100];
        weights[7] = 0;
        after.set_weights(&weights);
        let moved = before.table().iter().zip(after.table()).filter(|(b, a)| **b != 7 && b != a).count();
        assert!(moved * 100 < 65_537 * 4, "{moved} entries of others moved: more than 4 %");
        assert!(!after.table().contains(&7));
    }

    #[test]
    fn one_that_refuses_is_passed_over_and_none_is_none() {
        let maglev = maglev(5, 251);
        for hash in 0..500 {
            let place = maglev.pick(hash, &|_| false).unwrap();
            assert_eq!(place, maglev.table()[hash as usize % 251] as usize);
            assert_ne!(maglev.pick(hash, &|p| p == place), Some(place));
            assert_eq!(maglev.pick(hash, &|p| p != 3), Some(3));
        }
        assert_eq!(maglev.pick(1, &|_| true), None);
        assert_eq!(Maglev::new(Hash::new(1), ["a"].into_iter(), 7).pick(1, &|_| false), None);
    }
}
