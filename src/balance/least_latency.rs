//! Least latency: to the server whose probes come back fastest, for its weight. One that was never
//! measured counts as the average of the others.

use super::least_connections::share;
use super::tournament::Tournament;
use crate::time::Duration;

/// Smoothed round trips by weight.
#[derive(Debug, Clone)]
pub(super) struct LeastLatency {
    loads: Tournament,
    weights: Vec<u32>,
    latencies: Vec<Option<u64>>,
    /// How many were never measured.
    unmeasured: usize,
}

impl LeastLatency {
    /// Makes one over `places`; the server at `first` comes first among equals.
    pub(super) fn new(places: usize, first: usize) -> Self {
        LeastLatency {
            loads: Tournament::new(places, first),
            weights: vec![0; places],
            latencies: vec![None; places],
            unmeasured: places,
        }
    }

    /// Takes new weights; 0 is no candidate.
    pub(super) fn set_weights(&mut self, weights: &[u32], latency: impl Fn(usize) -> Option<Duration>) {
        self.weights.copy_from_slice(weights);
        let nanos = |span: Duration| u64::try_from(span.as_nanos()).unwrap_or(u64::MAX >> 1);
        for (place, known) in self.latencies.iter_mut().enumerate() {
            *known = latency(place).map(nanos);
        }
        self.unmeasured = self.latencies.iter().filter(|latency| latency.is_none()).count();
        let average = self.average();
        for place in 0..weights.len() {
            self.set(place, self.latencies[place].unwrap_or(average));
        }
    }

    fn set(&mut self, place: usize, nanos: u64) {
        let weight = self.weights[place];
        self.loads.set(place, (weight > 0).then(|| share(nanos + 1, weight)));
    }

    /// Takes note of a server's round trip.
    pub(super) fn changed(&mut self, place: usize, latency: Duration) {
        let nanos = u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX >> 1);
        let was_measured = self.latencies[place].replace(nanos).is_some();
        self.unmeasured -= usize::from(!was_measured);
        self.set(place, nanos);
        if self.unmeasured > 0 {
            let average = self.average();
            let unmeasured = |place: &usize| self.latencies[*place].is_none();
            for place in (0..self.latencies.len()).filter(unmeasured).collect::<Vec<_>>() {
                self.set(place, average);
            }
        }
    }

    /// Returns the server with the least.
    pub(super) fn propose(&self, refuses: &dyn Fn(usize) -> bool) -> Option<usize> {
        self.loads.least(refuses)
    }

    /// Whether a server has been measured.
    pub(super) fn is_measured(&self, place: usize) -> bool {
        self.latencies[place].is_some()
    }

    /// Returns a server's round trip; of one that was never measured the average of the others.
    pub(super) fn latency(&self, place: usize) -> Duration {
        Duration::from_nanos(self.latencies[place].unwrap_or_else(|| self.average()))
    }

    fn average(&self) -> u64 {
        let measured = || self.latencies.iter().flatten();
        let sum: u128 = measured().map(|nanos| u128::from(*nanos)).sum();
        u64::try_from(sum / (measured().count().max(1) as u128)).unwrap_or(u64::MAX)
    }

    /// Notes that a proposal was picked: it comes last among equals.
    pub(super) fn picked(&mut self, place: usize) {
        self.loads.picked(place);
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
    fn the_fastest_wins_and_unmeasured_ones_take_turns() {
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
