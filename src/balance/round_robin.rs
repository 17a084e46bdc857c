//! Weighted round robin without runs: each server has a fixed seat in a common schedule, in which its turns are
//! 1/weight apart, and a service takes the turns in order from its own position on. Every sequence of as many picks as
//! the weights add up to gives each server exactly its weight.
//!
//! The [`Schedule`] depends only on configuration and weights, so that all services of a pool share one; a service has
//! nothing but its [`Position`]. A server that comes back has its old seat. One that refuses a flow waits for its next
//! turn: turns do not accumulate.

use crate::tournament::Tournament;
use std::collections::BTreeMap;

/// A round: the time in which a server has as many turns as its weight.
const ROUND: u128 = 1 << 80;

/// When each server has its turns.
#[derive(Debug, Clone)]
#[repr(C)]
pub(super) struct Schedule {
    /// Changes with the weights.
    version: u64,
    /// The candidates of each weight.
    rings: Vec<Ring>,
    /// By place: the ring of a candidate, and where it is in it.
    at: Vec<(u32, u32)>,
    /// By place: the seat of the server among those of its kind, and their number.
    seats: Vec<(u32, u32)>,
    weights: Vec<u32>,
}

/// The candidates of one weight, whose turns are equally far apart.
#[derive(Debug, Clone)]
struct Ring {
    weight: u32,
    step: u128,
    /// When each has its first turn, below `step`, and its place; sorted.
    turns: Vec<(u128, u32)>,
}

/// A turn: its time, and its order among the turns of that time.
type Turn = (u128, u64);

impl Ring {
    /// Returns a turn of the ring: the `at`th of the round that begins then. Of several at one time, a server's first
    /// comes first, then that of the lighter server, whose last one was longer ago.
    fn turn(&self, begin: u128, at: usize) -> Turn {
        let (first, place) = self.turns[at];
        let again = if begin == 0 { 0 } else { 1 << 63 | u64::from(self.weight) << 32 };
        (begin + first, again | u64::from(place))
    }

    /// Returns the first turn from `from` on: the beginning of its round, and where it is in the ring.
    fn first(&self, from: Turn) -> (u128, usize) {
        let begin = from.0 / self.step * self.step;
        let (mut low, mut high) = (0, self.turns.len());
        while low < high {
            let middle = (low + high) / 2;
            if self.turn(begin, middle) < from { low = middle + 1 } else { high = middle }
        }
        self.round(begin, low)
    }

    /// Carries a place behind the last of a round over to the next round.
    fn round(&self, begin: u128, at: usize) -> (u128, usize) {
        if at < self.turns.len() { (begin, at) } else { (begin + self.step, at - self.turns.len()) }
    }
}

/// Returns the first turn of a seat among `of` at this weight.
fn first_turn(weight: u32, (seat, of): (u32, u32)) -> u128 {
    ROUND / u128::from(weight) / (2 * u128::from(of)) * (2 * u128::from(seat) + 1)
}

impl Schedule {
    /// Creates the schedule without candidates. Servers of one kind, such as those of one configured weight, have evenly
    /// spread seats in the order of their places.
    pub(super) fn new<K: Ord>(kinds: impl Iterator<Item = K>) -> Self {
        let mut counts: BTreeMap<K, (u32, u32)> = BTreeMap::new();
        let mut numbers = 0;
        let seats: Vec<(u32, u32)> = kinds
            .map(|kind| {
                let entry = counts.entry(kind).or_insert_with(|| {
                    numbers += 1;
                    (numbers - 1, 0)
                });
                entry.1 += 1;
                (entry.0, entry.1 - 1)
            })
            .collect();
        let mut sizes = vec![0; counts.len()];
        counts.into_values().for_each(|(number, size)| sizes[number as usize] = size);
        let seats: Vec<(u32, u32)> = seats.into_iter().map(|(number, seat)| (seat, sizes[number as usize])).collect();
        let places = seats.len();
        Schedule { seats, weights: vec![0; places], rings: Vec::new(), at: vec![(0, 0); places], version: 0 }
    }

    /// Sets the weights; 0 is not a candidate.
    pub(super) fn set_weights(&mut self, weights: &[u32]) {
        if self.weights == weights {
            return;
        }
        self.weights.copy_from_slice(weights);
        self.version += 1;
        let mut rings: BTreeMap<u32, Vec<(u128, u32)>> = BTreeMap::new();
        for (place, weight) in weights.iter().enumerate().filter(|(_, weight)| **weight > 0) {
            rings.entry(*weight).or_default().push((first_turn(*weight, self.seats[place]), place as u32));
        }
        self.rings.clear();
        for (weight, mut turns) in rings {
            turns.sort_unstable();
            for (at, (_, place)) in turns.iter().enumerate() {
                self.at[*place as usize] = (self.rings.len() as u32, at as u32);
            }
            self.rings.push(Ring { weight, step: ROUND / u128::from(weight), turns });
        }
    }
}

/// How far a service has come in the schedule.
#[derive(Debug, Clone)]
#[repr(C)]
pub(super) struct Position {
    version: u64,
    /// The next turn of each ring: the beginning of its round, and where it is in the ring.
    next: Vec<(u128, usize)>,
    order: Tournament,
    /// The earliest turn that may be next.
    from: Turn,
}

impl Position {
    /// Creates the position of a service that begins with the first turn that the server at `first`, of this weight, has.
    pub(super) fn new(schedule: &Schedule, first: usize, weight: u32) -> Self {
        let from = match schedule.seats.get(first) {
            Some(seat) if first > 0 && weight > 0 => (first_turn(weight, *seat), first as u64),
            _ => (0, 0),
        };
        Position { from, next: Vec::new(), order: Tournament::new(0, 0), version: 0 }
    }

    /// Returns whether it knows the weights of the schedule.
    #[inline]
    pub(super) fn is_current(&self, schedule: &Schedule) -> bool {
        self.version == schedule.version
    }

    /// Notes that the schedule is another one, whose changes have other numbers.
    pub(super) fn unlearn(&mut self) {
        self.version = u64::MAX;
    }

    /// Follows a change of the weights.
    pub(super) fn follow(&mut self, schedule: &Schedule) {
        if self.is_current(schedule) {
            return;
        }
        self.version = schedule.version;
        self.next.resize(schedule.rings.len(), (0, 0));
        self.order = Tournament::new(schedule.rings.len(), 0);
        (0..schedule.rings.len()).for_each(|ring| self.seek(schedule, ring));
    }

    fn seek(&mut self, schedule: &Schedule, ring: usize) {
        self.go_to(schedule, ring, schedule.rings[ring].first(self.from));
    }

    fn go_to(&mut self, schedule: &Schedule, ring: usize, next: (u128, usize)) {
        self.next[ring] = next;
        let (time, order) = schedule.rings[ring].turn(next.0, next.1);
        self.order.set_turn(ring, time, order);
    }

    /// Returns the server that has the next turn.
    pub(super) fn propose(&self, schedule: &Schedule, refuses: &dyn Fn(usize) -> bool) -> Option<usize> {
        let first = self.order.least(&|_| false)?;
        let place = schedule.rings[first].turns[self.next[first].1].1 as usize;
        if !refuses(place) {
            return Some(place);
        }
        let taker = |(ring, (begin, at)): (&Ring, &(u128, usize))| {
            let turns = (*at..*at + ring.turns.len()).map(|at| ring.round(*begin, at));
            let mut free = turns.filter(|(_, at)| !refuses(ring.turns[*at].1 as usize));
            free.next().map(|(begin, at)| (ring.turn(begin, at), ring.turns[at].1 as usize))
        };
        schedule.rings.iter().zip(&self.next).filter_map(taker).min().map(|(_, place)| place)
    }

    /// Returns a candidate's next turn: its ring, the beginning of its round, and where it is in the ring.
    fn turn_of(&self, schedule: &Schedule, place: usize) -> Option<(usize, (u128, usize))> {
        let (ring, at) = schedule.at[place];
        let (begin, next) = *self.next.get(ring as usize).filter(|_| schedule.weights[place] > 0)?;
        let step = schedule.rings[ring as usize].step;
        Some((ring as usize, (if at as usize >= next { begin } else { begin + step }, at as usize)))
    }

    /// Records that a proposal was picked. Turns before it, which were refused, are over.
    pub(super) fn picked(&mut self, schedule: &Schedule, place: usize) {
        let Some((ring, (begin, at))) = self.turn_of(schedule, place) else {
            debug_assert!(false, "only candidates are picked");
            return;
        };
        let (time, order) = schedule.rings[ring].turn(begin, at);
        self.from = (time, order + 1);
        self.go_to(schedule, ring, schedule.rings[ring].round(begin, at + 1));
        while let Some(ring) = self.order.least(&|_| false) {
            let (begin, at) = self.next[ring];
            if schedule.rings[ring].turn(begin, at) >= self.from {
                break;
            }
            self.seek(schedule, ring);
        }
    }

    /// Returns the time until a server's turn, in 2^-80 of a round at weight 1; none if it is not a candidate.
    pub(super) fn due_in(&self, schedule: &Schedule, place: usize) -> Option<u128> {
        let (ring, (begin, at)) = self.turn_of(schedule, place)?;
        Some(schedule.rings[ring].turn(begin, at).0.saturating_sub(self.from.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A schedule and the position of one service.
    struct RoundRobin(Schedule, Position);

    impl RoundRobin {
        fn new(weights: &[u32], first: usize) -> Self {
            let schedule = Schedule::new(weights.iter());
            let position = Position::new(&schedule, first, weights.get(first).copied().unwrap_or(0));
            RoundRobin(schedule, position)
        }

        fn set_weights(&mut self, weights: &[u32]) {
            self.0.set_weights(weights);
            self.1.follow(&self.0);
        }

        fn pick(&mut self, refuses: &dyn Fn(usize) -> bool) -> Option<usize> {
            self.1.propose(&self.0, refuses).inspect(|place| self.1.picked(&self.0, *place))
        }
    }

    fn robin(weights: &[u32]) -> RoundRobin {
        let mut robin = RoundRobin::new(weights, 0);
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
        let mut from_two = RoundRobin::new(&[1; 3], 2);
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
    fn a_server_that_was_out_does_not_catch_up() {
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
    fn a_changed_weight_applies_from_the_next_pick_on() {
        let mut robin = robin(&[100, 100]);
        picks(&mut robin, 50);
        robin.set_weights(&[1, 100]);
        assert!(picks(&mut robin, 101).matches('0').count() <= 2);
        robin.set_weights(&[100, 100]);
        let back = picks(&mut robin, 200).matches('0').count();
        assert!((98..=102).contains(&back), "{back}");
    }
}
