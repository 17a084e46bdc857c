//! Connection rate: to the server with the fewest new flows for its weight within a window that slides
//! in eighths.

use super::least_connections::share;
use super::tournament::Tournament;
use crate::time::{Duration, Instant};

/// Parts of the window.
const PARTS: usize = 8;

/// New flows within the window, by weight.
#[derive(Debug, Clone)]
pub(super) struct ConnectionRate {
    loads: Tournament,
    weights: Vec<u32>,
    /// New flows in each part, the present one at `part % PARTS`.
    counts: Vec<[u32; PARTS]>,
    /// Which part of time the present one is.
    part: u64,
    part_nanos: u64,
}

impl ConnectionRate {
    /// Makes one over `places`; the server at `first` comes first among equals.
    pub(super) fn new(places: usize, first: usize, window: Duration) -> Self {
        let nanos = u64::try_from(window.as_nanos()).unwrap_or(u64::MAX);
        ConnectionRate {
            loads: Tournament::new(places, first),
            weights: vec![0; places],
            counts: vec![[0; PARTS]; places],
            part: 0,
            part_nanos: (nanos / PARTS as u64).max(1),
        }
    }

    /// Takes new weights; 0 is no candidate.
    pub(super) fn set_weights(&mut self, weights: &[u32]) {
        self.weights.copy_from_slice(weights);
        (0..weights.len()).for_each(|place| self.changed(place));
    }

    fn changed(&mut self, place: usize) {
        let (weight, count) = (self.weights[place], self.recent(place));
        self.loads.set(place, (weight > 0).then(|| share(count + 1, weight)));
    }

    /// Counts a new flow, however its server was chosen.
    pub(super) fn opened(&mut self, now: Instant, place: usize) {
        self.slide(now);
        self.counts[place][self.part as usize % PARTS] += 1;
        self.changed(place);
    }

    /// Whether no part has left the window since [`ConnectionRate::slide`].
    pub(super) fn is_current(&self, now: Instant) -> bool {
        now.as_nanos() / self.part_nanos <= self.part
    }

    /// Returns the server with the least; the window is current.
    pub(super) fn propose(&self, refuses: &dyn Fn(usize) -> bool) -> Option<usize> {
        self.loads.least(refuses)
    }

    /// Notes that a proposal was picked: it comes last among equals.
    pub(super) fn picked(&mut self, place: usize) {
        self.loads.picked(place);
    }

    /// Returns a server's new flows within the window.
    pub(super) fn recent(&self, place: usize) -> u64 {
        self.counts[place].iter().map(|n| u64::from(*n)).sum()
    }

    /// Forgets the parts that have left the window.
    pub(super) fn slide(&mut self, now: Instant) {
        let part = now.as_nanos() / self.part_nanos;
        if part <= self.part {
            return;
        }
        let gone = part - self.part;
        for counts in &mut self.counts {
            if gone >= PARTS as u64 {
                *counts = [0; PARTS];
            } else {
                (1..=gone).for_each(|step| counts[(self.part + step) as usize % PARTS] = 0);
            }
        }
        self.part = part;
        (0..self.counts.len()).for_each(|place| self.changed(place));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Instant {
        Instant::from_nanos(ms * 1_000_000)
    }

    impl ConnectionRate {
        fn pick(&mut self, now: Instant, refuses: &dyn Fn(usize) -> bool) -> Option<usize> {
            self.slide(now);
            self.propose(refuses).inspect(|place| self.picked(*place))
        }
    }

    fn rate() -> ConnectionRate {
        let mut rate = ConnectionRate::new(2, 0, Duration::from_secs(8));
        rate.set_weights(&[1, 1]);
        rate
    }

    #[test]
    fn the_fewest_new_flows_of_the_window_win_and_old_ones_are_forgotten() {
        let mut rate = rate();
        (0..3).for_each(|_| rate.opened(at(500), 0));
        for _ in 0..2 {
            assert_eq!(rate.pick(at(1500), &|_| false), Some(1));
            rate.opened(at(1500), 1);
        }
        assert_eq!(rate.pick(at(7900), &|_| false), Some(1));
        // The eighth that the three came in leaves the window; 0 has none, 1 has two.
        assert_eq!(rate.pick(at(8100), &|_| false), Some(0));
        rate.opened(at(8100), 0);
        // 1's two leave as well.
        assert_eq!(rate.pick(at(9100), &|_| false), Some(1));
        assert_eq!(rate.pick(at(900_000), &|place| place == 0), Some(1));
    }

    #[test]
    fn weights_count() {
        let mut rate = rate();
        rate.set_weights(&[3, 1]);
        let mut got = [0; 2];
        for _ in 0..40 {
            let place = rate.pick(at(1), &|_| false).unwrap();
            rate.opened(at(1), place);
            got[place] += 1;
        }
        assert_eq!(got, [30, 10]);
    }
}
