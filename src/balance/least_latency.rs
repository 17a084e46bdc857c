//! Least latency: picks the server with the shortest probe round trip for its weight. A server that was never measured
//! counts as the average of the others.

use super::least_connections::share;
use crate::time::Duration;
use crate::tournament::Tournament;

/// Smoothed round trips divided by weight.
#[derive(Debug, Clone)]
pub(super) struct LeastLatency {
    /// Of the servers that have been measured.
    loads: Tournament,
    /// Of the others, the heaviest first: their round trip is the average, whatever that is at the moment.
    unmeasured: Tournament,
    weights: Vec<u32>,
    latencies: Vec<Option<u64>>,
    /// Sum and number of the known round trips.
    known: (u128, u64),
}

fn nanos(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX >> 1)
}

impl LeastLatency {
    /// Creates the algorithm over `places`; the server at `first` wins the first tie.
    pub(super) fn new(places: usize, first: usize) -> Self {
        LeastLatency {
            loads: Tournament::new(places, first),
            unmeasured: Tournament::new(places, first),
            weights: vec![0; places],
            latencies: vec![None; places],
            known: (0, 0),
        }
    }

    /// Sets the weights; 0 is not a candidate.
    pub(super) fn set_weights(&mut self, weights: &[u32], latency: impl Fn(usize) -> Option<Duration>) {
        self.weights.copy_from_slice(weights);
        for place in 0..weights.len() {
            self.set(place, latency(place).map(nanos));
        }
    }

    fn set(&mut self, place: usize, latency: Option<u64>) {
        let before = std::mem::replace(&mut self.latencies[place], latency);
        self.known.0 = self.known.0 - u128::from(before.unwrap_or(0)) + u128::from(latency.unwrap_or(0));
        self.known.1 = self.known.1 - u64::from(before.is_some()) + u64::from(latency.is_some());
        let weight = self.weights[place];
        let measured = latency.filter(|_| weight > 0).map(|nanos| share(nanos + 1, weight));
        self.loads.set(place, measured);
        let waits = weight > 0 && latency.is_none();
        self.unmeasured.set(place, waits.then(|| u128::from(u32::MAX - weight)));
    }

    /// Sets a server's round trip.
    pub(super) fn changed(&mut self, place: usize, latency: Duration) {
        self.set(place, Some(nanos(latency)));
    }

    /// Returns the server with the least latency.
    pub(super) fn propose(&self, refuses: &dyn Fn(usize) -> bool) -> Option<usize> {
        let (one, other) = (self.loads.least(refuses), self.unmeasured.least(refuses));
        let (Some(measured), Some(unmeasured)) = (one, other) else { return one.or(other) };
        let average = share(self.average() + 1, self.weights[unmeasured]);
        let first = (self.loads.load(measured), self.loads.turn(measured));
        Some(if first < (Some(average), self.loads.turn(unmeasured)) { measured } else { unmeasured })
    }

    /// Returns whether a server has been measured.
    pub(super) fn is_measured(&self, place: usize) -> bool {
        self.latencies[place].is_some()
    }

    /// Returns a server's round trip; for one that was never measured, the average of the others.
    pub(super) fn latency(&self, place: usize) -> Duration {
        Duration::from_nanos(self.latencies[place].unwrap_or_else(|| self.average()))
    }

    fn average(&self) -> u64 {
        u64::try_from(self.known.0 / u128::from(self.known.1.max(1))).unwrap_or(u64::MAX)
    }

    /// Records that a proposal was picked: it comes last in ties.
    pub(super) fn picked(&mut self, place: usize) {
        self.loads.picked(place);
        self.unmeasured.picked(place);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl LeastLatency {
        fn pick(&mut self, refuses: &dyn Fn(usize) -> bool) -> Option<usize> {
            self.propose(refuses).inspect(|place| self.picked(*place))
        }
    }

    #[test]
    fn the_fastest_wins_and_unmeasured_servers_take_turns() {
        let ms = Duration::from_millis;
        let mut least = LeastLatency::new(3, 0);
        least.set_weights(&[1, 1, 1], |_| None);
        let picks: Vec<_> = (0..4).map(|_| least.pick(&|_| false).unwrap()).collect();
        assert_eq!(picks, [0, 1, 2, 0]);
        least.set_weights(&[1, 1, 1], |place| [Some(ms(10)), None, Some(ms(2))][place]);
        assert_eq!(least.pick(&|_| false), Some(2));
        assert_eq!(least.pick(&|place| place == 2), Some(1), "the average of 10 and 2 is 6");
        least.changed(2, ms(11));
        assert_eq!(least.pick(&|_| false), Some(0), "the average moves with what is measured: 10.5");
        least.changed(1, ms(1));
        assert_eq!(least.pick(&|_| false), Some(1));
        least.set_weights(&[20, 1, 1], |place| [Some(ms(10)), Some(ms(1)), Some(ms(2))][place]);
        assert_eq!(least.pick(&|_| false), Some(0), "10 ms at weight 20 is less than 1 ms at weight 1");
    }
}
