//! Weighted round robin without runs: each server's picks are due at even distances, 1/weight apart,
//! and whatever is due first is picked (earliest deadline first). Every run of as many picks as the
//! weights add up to gives each server exactly its weight.

use super::tournament::Tournament;
use std::collections::BTreeMap;

/// A round: the time in which a server is due as often as its weight says.
const ROUND: u128 = 1 << 80;

/// When each server is due next.
#[derive(Debug, Clone)]
pub(super) struct RoundRobin {
    due: Tournament,
    deadlines: Vec<u128>,
    weights: Vec<u32>,
    /// The deadline of the last pick.
    time: u128,
    /// The place that comes first among equals.
    first: usize,
}

impl RoundRobin {
    /// Makes one over `places`; the server at `first` comes first among equals.
    pub(super) fn new(places: usize, first: usize) -> Self {
        RoundRobin {
            due: Tournament::new(places, first),
            deadlines: vec![0; places],
            weights: vec![0; places],
            time: 0,
            first,
        }
    }

    /// Takes new weights; 0 is no candidate. What a server had waited for is kept in proportion.
    pub(super) fn set_weights(&mut self, weights: &[u32]) {
        self.seat_newcomers(weights);
        for (place, (old, new)) in self.weights.iter().zip(weights).enumerate() {
            let deadline = &mut self.deadlines[place];
            match (*old, *new) {
                (old, new) if old == new => continue,
                (_, 0) => {}
                (0, _) => {}
                (old, new) => {
                    let left = deadline.saturating_sub(self.time);
                    *deadline = self.time + left / u128::from(new) * u128::from(old);
                }
            }
            self.due.set(place, (*new > 0).then_some(*deadline));
        }
        self.weights.copy_from_slice(weights);
    }

    /// Sets when newcomers are due: those of one weight one after the other over their common distance. Due all at
    /// once, many light servers would be one long run, and so would the heavy one's picks before it.
    fn seat_newcomers(&mut self, weights: &[u32]) {
        let places = || (self.first..weights.len()).chain(0..self.first.min(weights.len()));
        let new: Vec<usize> = places().filter(|place| self.weights[*place] == 0 && weights[*place] > 0).collect();
        let mut seats = BTreeMap::new();
        for place in &new {
            seats.entry(weights[*place]).or_insert((0u128, 0u128)).1 += 1;
        }
        for place in new {
            let weight = weights[place];
            let Some((seat, of)) = seats.get_mut(&weight) else { continue };
            self.deadlines[place] = self.time + ROUND / u128::from(weight) / (2 * *of) * (2 * *seat + 1);
            *seat += 1;
        }
    }

    /// Returns the server that is due first.
    pub(super) fn propose(&self, refuses: &dyn Fn(usize) -> bool) -> Option<usize> {
        self.due.least(refuses)
    }

    /// Notes that a proposal was picked: the server is due again 1/weight later.
    pub(super) fn picked(&mut self, place: usize) {
        // One that was refused for a while has not saved its turns up.
        self.time = self.time.max(self.deadlines[place]);
        self.deadlines[place] = self.time + ROUND / u128::from(self.weights[place].max(1));
        self.due.set(place, Some(self.deadlines[place]));
        self.due.picked(place);
    }

    /// Returns how far off a server's turn is, in 2^-80 of a round at weight 1; none where it is no candidate.
    pub(super) fn due_in(&self, place: usize) -> Option<u128> {
        self.due.load(place).map(|deadline| deadline.saturating_sub(self.time))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl RoundRobin {
        fn pick(&mut self, refuses: &dyn Fn(usize) -> bool) -> Option<usize> {
            self.propose(refuses).inspect(|place| self.picked(*place))
        }
    }

    fn robin(weights: &[u32]) -> RoundRobin {
        let mut robin = RoundRobin::new(weights.len(), 0);
        robin.set_weights(weights);
        robin
    }

    fn picks(robin: &mut RoundRobin, n: usize) -> String {
        (0..n).map(|_| robin.pick(&|_| false).map_or('-', |i| (b'0' + i as u8) as char)).collect()
    }

    #[test]
    fn picks_follow_the_weights_without_runs() {
        let cases: &[(&[u32], &str)] = &[
            (&[1, 1, 1], "012012"),
            (&[5, 1, 1], "0100020"),
            (&[4, 1, 1, 1, 1], "01203040"),
            (&[3, 2, 1], "010210"),
            (&[2, 1], "010010"),
            (&[0, 2, 0], "11"),
            (&[0], "-"),
            (&[], "-"),
        ];
        for (weights, want) in cases {
            assert_eq!(picks(&mut robin(weights), want.len()), *want, "{weights:?}");
        }
        let mut from_two = RoundRobin::new(3, 2);
        from_two.set_weights(&[1, 1, 1]);
        assert_eq!(picks(&mut from_two, 6), "201201");
    }

    #[test]
    fn a_heavy_server_among_many_light_ones_takes_its_turns_at_even_distances() {
        let mut weights = [1; 1000];
        weights[0] = 100;
        let mut robin = robin(&weights);
        let heavy: Vec<usize> = (0..2198).filter(|_| robin.pick(&|_| false) == Some(0)).collect();
        assert_eq!(heavy.len(), 200);
        assert!(heavy.windows(2).all(|two| (10..=12).contains(&(two[1] - two[0]))), "{heavy:?}");
    }

    #[test]
    fn every_full_round_gives_exactly_the_weights() {
        let weights = [7, 1, 65_535 * 16, 300];
        let mut robin = robin(&weights);
        for _ in 0..2 {
            let mut got = [0; 4];
            for _ in 0..weights.iter().sum::<u32>() {
                got[robin.pick(&|_| false).unwrap()] += 1;
            }
            assert_eq!(got, weights);
        }
    }

    #[test]
    fn one_that_was_out_does_not_catch_up_on_what_it_missed() {
        let mut robin = robin(&[1, 1]);
        robin.set_weights(&[1, 0]);
        assert_eq!(picks(&mut robin, 20), "0".repeat(20));
        robin.set_weights(&[1, 1]);
        assert_eq!(picks(&mut robin, 4), "1010");
        for _ in 0..20 {
            assert_eq!(robin.pick(&|place| place == 1), Some(0));
        }
        assert_eq!(picks(&mut robin, 4).matches('1').count(), 2);
    }

    #[test]
    fn a_changed_weight_holds_from_the_next_pick_on() {
        let mut robin = robin(&[100, 100]);
        picks(&mut robin, 50);
        robin.set_weights(&[1, 100]);
        assert!(picks(&mut robin, 101).matches('0').count() <= 2);
        robin.set_weights(&[100, 100]);
        let back = picks(&mut robin, 200).matches('0').count();
        assert!((98..=102).contains(&back), "{back}");
    }
}
