//! By chance, as likely as the weight.

use crate::rng::Rng;

/// Draws before all the candidates are looked through.
const DRAWS: usize = 16;

/// Candidates with their weights added up.
#[derive(Debug, Clone)]
pub(super) struct Random {
    /// Place, and the sum of the weights up to it, itself included.
    sums: Vec<(u32, u64)>,
    rng: Rng,
}

impl Random {
    /// Makes one without candidates.
    pub(super) fn new(seed: u64) -> Self {
        Random { sums: Vec::new(), rng: Rng::new(seed) }
    }

    /// Takes new weights; 0 is no candidate.
    pub(super) fn set_weights(&mut self, weights: &[u32]) {
        self.sums.clear();
        let mut sum = 0;
        for (place, weight) in weights.iter().enumerate().filter(|(_, weight)| **weight > 0) {
            sum += u64::from(*weight);
            self.sums.push((place as u32, sum));
        }
    }

    /// Returns where proposals begin to draw.
    pub(super) fn draw(&self) -> Rng {
        self.rng.clone()
    }

    /// Moves on to where proposals have drawn.
    pub(super) fn drawn(&mut self, rng: Rng) {
        self.rng = rng;
    }

    /// Returns a candidate's share of all draws, as its weight and the sum of all weights.
    pub(super) fn share(&self, place: usize) -> Option<(u64, u64)> {
        let at = self.sums.iter().position(|(of, _)| *of as usize == place)?;
        let below = at.checked_sub(1).map_or(0, |at| self.sums[at].1);
        Some((self.sums[at].1 - below, self.sums.last()?.1))
    }

    /// Draws one at random.
    pub(super) fn propose(&self, rng: &mut Rng, refuses: &dyn Fn(usize) -> bool) -> Option<usize> {
        let total = self.sums.last()?.1;
        for _ in 0..DRAWS {
            let drawn = rng.below(total);
            let place = self.sums[self.sums.partition_point(|(_, sum)| *sum <= drawn)].0 as usize;
            if !refuses(place) {
                return Some(place);
            }
        }
        // Most refuse: the few that are left are as good as each other.
        let start = rng.below(self.sums.len() as u64) as usize;
        let round = self.sums[start..].iter().chain(&self.sums[..start]);
        round.map(|(place, _)| *place as usize).find(|place| !refuses(*place))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Random {
        pub(crate) fn pick(&mut self, refuses: &dyn Fn(usize) -> bool) -> Option<usize> {
            let mut rng = self.draw();
            let picked = self.propose(&mut rng, refuses);
            self.drawn(rng);
            picked
        }
    }

    #[test]
    fn picks_are_as_likely_as_the_weights() {
        let mut random = Random::new(1);
        assert_eq!(random.pick(&|_| false), None);
        random.set_weights(&[1, 0, 3, 6]);
        let mut got = [0; 4];
        for _ in 0..10_000 {
            got[random.pick(&|_| false).unwrap()] += 1;
        }
        // Six standard deviations at most: 6 * sqrt(10000 * p * (1 - p)).
        for (n, want, far) in [(got[0], 1000, 180), (got[1], 0, 0), (got[2], 3000, 275), (got[3], 6000, 294)] {
            assert!(i32::abs(n - want) <= far, "{got:?}");
        }
    }

    #[test]
    fn the_only_one_that_does_not_refuse_is_found() {
        let mut random = Random::new(1);
        random.set_weights(&[1; 1000]);
        assert_eq!(random.pick(&|place| place != 777), Some(777));
        assert_eq!(random.pick(&|_| true), None);
    }
}
