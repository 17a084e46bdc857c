//! Connection rate: picks the server with the fewest new flows for its weight in a window that slides in steps of one
//! eighth.

use super::least_connections::share;
use crate::time::{Duration, Instant};
use crate::tournament::Tournament;

/// Parts per window.
const PARTS: usize = 8;

/// New flows in the window, divided by weight.
#[derive(Debug, Clone)]
pub(super) struct ConnectionRate {
    loads: Tournament,
    weights: Vec<u32>,
    /// New flows in each part, the current one at `part % PARTS`.
    counts: Vec<[u32; PARTS]>,
    /// By part: the places that have new flows in it, so that a part leaves at the cost of its own flows.
    busy: [Vec<u32>; PARTS],
    /// The number of the current part, counted from time zero.
    part: u64,
    part_nanos: u64,
}

impl ConnectionRate {
    /// Creates the algorithm over `places`; the server at `first` wins the first tie.
    pub(super) fn new(places: usize, first: usize, window: Duration) -> Self {
        let nanos = u64::try_from(window.as_nanos()).unwrap_or(u64::MAX);
        ConnectionRate {
            loads: Tournament::new(places, first),
            weights: vec![0; places],
            counts: vec![[0; PARTS]; places],
            busy: Default::default(),
            part: 0,
            part_nanos: (nanos / PARTS as u64).max(1),
        }
    }

    /// Sets the weights; 0 is not a candidate.
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
        let part = self.part as usize % PARTS;
        if self.counts[place][part] == 0 {
            self.busy[part].push(place as u32);
        }
        self.counts[place][part] += 1;
        self.changed(place);
    }

    /// Returns whether no part has left the window since [`ConnectionRate::slide`].
    pub(super) fn is_current(&self, now: Instant) -> bool {
        now.as_nanos() / self.part_nanos <= self.part
    }

    /// Returns the server with the least load; the window must be current.
    pub(super) fn propose(&self, refuses: &dyn Fn(usize) -> bool) -> Option<usize> {
        self.loads.least(refuses)
    }

    /// Records that a proposal was picked: it comes last in ties.
    pub(super) fn picked(&mut self, place: usize) {
        self.loads.picked(place);
    }

    /// Returns a server's new flows in the window.
    pub(super) fn recent(&self, place: usize) -> u64 {
        self.counts[place].iter().map(|n| u64::from(*n)).sum()
    }

    /// Drops the parts that have left the window.
    pub(super) fn slide(&mut self, now: Instant) {
        let part = now.as_nanos() / self.part_nanos;
        if part <= self.part {
            return;
        }
        let gone = (part - self.part).min(PARTS as u64);
        for step in 1..=gone {
            let leaving = (self.part + step) as usize % PARTS;
            let mut busy = std::mem::take(&mut self.busy[leaving]);
            for place in busy.drain(..).map(|place| place as usize) {
                self.counts[place][leaving] = 0;
                self.changed(place);
            }
            self.busy[leaving] = busy;
        }
        self.part = part;
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
    fn the_fewest_new_flows_in_the_window_win_and_old_ones_expire() {
        let mut rate = rate();
        (0..3).for_each(|_| rate.opened(at(500), 0));
        for _ in 0..2 {
            assert_eq!(rate.pick(at(1500), &|_| false), Some(1));
            rate.opened(at(1500), 1);
        }
        assert_eq!(rate.pick(at(7900), &|_| false), Some(1));
        // The eighth that the three arrived in leaves the window; 0 has none, 1 has two.
        assert_eq!(rate.pick(at(8100), &|_| false), Some(0));
        rate.opened(at(8100), 0);
        // The two of server 1 leave as well.
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
