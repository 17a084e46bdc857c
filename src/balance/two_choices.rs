//! Two random choices: draws two servers and picks the one with fewer flows for its weight (Mitzenmacher: The power of
//! two choices in randomized load balancing, 2001).

use super::least_connections::share;
use super::random::Random;
use crate::rng::Rng;

/// The draws, and the weights for comparing them.
#[derive(Debug, Clone)]
pub(super) struct TwoChoices {
    random: Random,
    weights: Vec<u32>,
}

impl TwoChoices {
    /// Creates the algorithm over `places`, without candidates.
    pub(super) fn new(places: usize) -> Self {
        TwoChoices { random: Random::default(), weights: vec![0; places] }
    }

    /// Sets the weights; 0 is not a candidate.
    pub(super) fn set_weights(&mut self, weights: &[u32]) {
        self.weights.copy_from_slice(weights);
        self.random.set_weights(weights);
    }

    /// Returns a server's load for its weight with one more flow, in units of 2^-64; none if it is not a candidate.
    pub(super) fn load(&self, place: usize, flows: u32) -> Option<u128> {
        Some(self.weights[place]).filter(|weight| *weight > 0).map(|weight| share(u64::from(flows) + 1, weight))
    }

    /// Draws two at random, the same one twice if there is no other.
    pub(super) fn drawn_from(&self, rng: &mut Rng, refuses: &dyn Fn(usize) -> bool) -> Option<(usize, usize)> {
        let one = self.random.propose(rng, refuses)?;
        let other = self.random.propose(rng, &|place| place == one || refuses(place)).unwrap_or(one);
        Some((one, other))
    }

    /// Returns the less loaded of two servers drawn at random.
    pub(super) fn propose(
        &self,
        rng: &mut Rng,
        flows: impl Fn(usize) -> u32,
        refuses: &dyn Fn(usize) -> bool,
    ) -> Option<usize> {
        let (one, other) = self.drawn_from(rng, refuses)?;
        let load = |place: usize| self.load(place, flows(place));
        Some(if load(other) < load(one) { other } else { one })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_less_loaded_of_two_is_picked_so_that_no_server_is_overloaded() {
        let (mut two, mut rng) = (TwoChoices::new(10), Rng::new(1));
        assert_eq!(two.propose(&mut rng, |_| 0, &|_| false), None);
        two.set_weights(&[1; 10]);
        let mut flows = [0; 10];
        for _ in 0..10_000 {
            flows[two.propose(&mut rng, |place| flows[place], &|_| false).unwrap()] += 1;
        }
        assert!(flows.iter().all(|n| (990..=1010).contains(n)), "{flows:?}");
        two.set_weights(&[0, 0, 5, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(two.propose(&mut rng, |_| 0, &|_| false), Some(2), "one candidate needs no second");
    }
}
