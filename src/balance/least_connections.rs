//! Least connections: picks the server with the fewest flows for its weight, counting the new one.

use crate::tournament::Tournament;

/// Flows divided by weight.
#[derive(Debug, Clone)]
pub(super) struct LeastConnections {
    loads: Tournament,
    weights: Vec<u32>,
}

impl LeastConnections {
    /// Creates the algorithm over `places`; the server at `first` wins the first tie.
    pub(super) fn new(places: usize, first: usize) -> Self {
        LeastConnections { loads: Tournament::new(places, first), weights: vec![0; places] }
    }

    /// Sets the weights; 0 is not a candidate.
    pub(super) fn set_weights(&mut self, weights: &[u32], flows: impl Fn(usize) -> u32) {
        self.weights.copy_from_slice(weights);
        (0..weights.len()).for_each(|place| self.changed(place, flows(place)));
    }

    /// Sets the number of flows of a server.
    pub(super) fn changed(&mut self, place: usize, flows: u32) {
        let weight = self.weights[place];
        self.loads.set(place, (weight > 0).then(|| share(u64::from(flows) + 1, weight)));
    }

    /// Returns the server with the least load.
    pub(super) fn propose(&self, refuses: &dyn Fn(usize) -> bool) -> Option<usize> {
        self.loads.least(refuses)
    }

    /// Records that a proposal was picked: it comes last in ties.
    pub(super) fn picked(&mut self, place: usize) {
        self.loads.picked(place);
    }
}

/// Returns a load divided by a weight above 0, in units of 2^-64.
pub(super) fn share(load: u64, weight: u32) -> u128 {
    (u128::from(load) << 64) / u128::from(weight)
}

#[cfg(test)]
mod tests {
    use super::*;

    impl LeastConnections {
        fn pick(&mut self, refuses: &dyn Fn(usize) -> bool) -> Option<usize> {
            self.propose(refuses).inspect(|place| self.picked(*place))
        }
    }

    #[test]
    fn flows_are_proportional_to_the_weights() {
        let mut least = LeastConnections::new(3, 0);
        let mut flows = [0; 3];
        least.set_weights(&[3, 2, 1], |_| 0);
        for _ in 0..60 {
            let place = least.pick(&|_| false).unwrap();
            flows[place] += 1;
            least.changed(place, flows[place]);
        }
        assert_eq!(flows, [30, 20, 10]);
        // A server that loses its flows gets the next ones.
        least.changed(2, 8);
        assert_eq!(least.pick(&|_| false), Some(2));
        assert_eq!(least.pick(&|place| place == 2), Some(0));
    }
}
