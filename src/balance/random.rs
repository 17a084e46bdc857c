//! Random: picks in proportion to the weights.

use crate::rng::Rng;

/// Draws before all candidates are searched.
const DRAWS: usize = 16;

/// Candidates with cumulative weights.
#[derive(Debug, Clone, Default)]
pub(super) struct Random {
    /// Place, and the sum of the weights up to and including it.
    sums: Vec<(u32, u64)>,
    /// By part of the range of draws, of which there are as many as candidates: where in `sums` its draws begin. A draw
    /// then searches a few sums instead of all (Chen, Asau: On generating random variates from an empirical distribution,
    /// 1974).
    guide: Vec<u32>,
}

impl Random {
    /// Sets the weights; 0 is not a candidate.
    pub(super) fn set_weights(&mut self, weights: &[u32]) {
        self.sums.clear();
        let mut sum = 0;
        for (place, weight) in weights.iter().enumerate().filter(|(_, weight)| **weight > 0) {
            sum += u64::from(*weight);
            self.sums.push((place as u32, sum));
        }
        self.guide.clear();
        let parts = self.sums.len() as u64;
        let mut at = 0;
        for part in 0..parts {
            let least = (u128::from(part) * u128::from(sum)).div_ceil(u128::from(parts)) as u64;
            while self.sums[at].1 <= least {
                at += 1;
            }
            self.guide.push(at as u32);
        }
    }

    /// Returns a candidate's share of all draws, as its weight and the sum of all weights.
    pub(super) fn share(&self, place: usize) -> Option<(u64, u64)> {
        let at = self.sums.iter().position(|(of, _)| *of as usize == place)?;
        let below = at.checked_sub(1).map_or(0, |at| self.sums[at].1);
        Some((self.sums[at].1 - below, self.sums.last()?.1))
    }

    /// Returns where in `sums` the candidate of a draw below `total` is.
    fn find(&self, drawn: u64, total: u64) -> usize {
        let part = (u128::from(drawn) * self.sums.len() as u128 / u128::from(total)) as usize;
        let (first, last) =
            (self.guide[part] as usize, self.guide.get(part + 1).map_or(self.sums.len(), |at| *at as usize + 1));
        first + self.sums[first..last].partition_point(|(_, sum)| *sum <= drawn)
    }

    /// Draws one at random.
    pub(super) fn propose(&self, rng: &mut Rng, refuses: &dyn Fn(usize) -> bool) -> Option<usize> {
        let total = self.sums.last()?.1;
        for _ in 0..DRAWS {
            let drawn = rng.below(total);
            let place = self.sums[self.find(drawn, total)].0 as usize;
            if !refuses(place) {
                return Some(place);
            }
        }
        // Most refuse: any of the few that are left will do.
        let start = rng.below(self.sums.len() as u64) as usize;
        let round = self.sums[start..].iter().chain(&self.sums[..start]);
        round.map(|(place, _)| *place as usize).find(|place| !refuses(*place))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Random {
        fn with(weights: &[u32]) -> Self {
            let mut random = Random::default();
            random.set_weights(weights);
            random
        }
    }

    #[test]
    fn picks_are_proportional_to_the_weights() {
        let mut rng = Rng::new(1);
        assert_eq!(Random::default().propose(&mut rng, &|_| false), None);
        let random = Random::with(&[1, 0, 3, 6]);
        let mut got = [0; 4];
        for _ in 0..10_000 {
            got[random.propose(&mut rng, &|_| false).unwrap()] += 1;
        }
        // At most six standard deviations: 6 * sqrt(10000 * p * (1 - p)).
        for (n, want, far) in [(got[0], 1000, 180), (got[1], 0, 0), (got[2], 3000, 275), (got[3], 6000, 294)] {
            assert!(i32::abs(n - want) <= far, "{got:?}");
        }
    }

    #[test]
    fn the_guide_leads_to_the_candidate_that_a_search_of_all_finds() {
        for weights in [vec![1], vec![5, 1, 1, 1, 90, 0, 1], (1..50).collect(), vec![1, 1000, 1, 1, 1, 1, 1, 1]] {
            let random = Random::with(&weights);
            let total: u64 = weights.iter().map(|weight| u64::from(*weight)).sum();
            for drawn in 0..total {
                let all = random.sums.partition_point(|(_, sum)| *sum <= drawn);
                assert_eq!(random.find(drawn, total), all, "{weights:?} {drawn}");
            }
        }
    }

    #[test]
    fn the_only_server_that_does_not_refuse_is_found() {
        let (random, mut rng) = (Random::with(&[1; 1000]), Rng::new(1));
        assert_eq!(random.propose(&mut rng, &|place| place != 777), Some(777));
        assert_eq!(random.propose(&mut rng, &|_| true), None);
    }
}
