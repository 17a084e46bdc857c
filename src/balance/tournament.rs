//! The minimum of many scores, maintained while single scores change: a winner tree. Changing one costs the logarithm
//! of their number and reading the minimum costs nothing, so picking from a pool of 10,000 servers is as fast as from
//! one of ten.

/// What is compared: the load first, then whose turn it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Score {
    load: u128,
    turn: u64,
}

/// Not a candidate.
const OUT: Score = Score { load: u128::MAX, turn: u64::MAX };

/// Scores by place; among equal loads, the place picked longest ago comes first.
#[derive(Debug, Clone)]
pub(super) struct Tournament {
    scores: Vec<Score>,
    /// The turn that each place has when it is a candidate.
    turns: Vec<u64>,
    /// Winners: node 1 is the root, node `leaves + place` is the leaf of a place.
    winners: Vec<u32>,
    leaves: usize,
    last_turn: u64,
}

impl Tournament {
    /// Creates a tournament of `places`, none of them a candidate; among places never picked, `first` comes first, then
    /// the places after it.
    pub(super) fn new(places: usize, first: usize) -> Self {
        let leaves = places.next_power_of_two().max(1);
        let turn = |place: usize| ((place + places - first % places.max(1)) % places.max(1)) as u64;
        let mut winners = vec![0; 2 * leaves];
        for (place, node) in winners[leaves..].iter_mut().enumerate() {
            *node = place as u32;
        }
        let mut tournament = Tournament {
            scores: vec![OUT; leaves],
            turns: (0..places).map(turn).collect(),
            winners,
            leaves,
            last_turn: places as u64,
        };
        for node in (1..leaves).rev() {
            tournament.play(node);
        }
        tournament
    }

    fn play(&mut self, node: usize) {
        let (left, right) = (self.winners[2 * node], self.winners[2 * node + 1]);
        let left_wins = self.scores[left as usize] <= self.scores[right as usize];
        self.winners[node] = if left_wins { left } else { right };
    }

    /// Sets a place's load; none removes it.
    pub(super) fn set(&mut self, place: usize, load: Option<u128>) {
        let score = load.map_or(OUT, |load| Score { load, turn: self.turns[place] });
        if self.scores[place] == score {
            return;
        }
        self.scores[place] = score;
        let mut node = (self.leaves + place) / 2;
        while node > 0 {
            self.play(node);
            node /= 2;
        }
    }

    /// Sets a place's load, and its order among equal loads.
    pub(super) fn set_turn(&mut self, place: usize, load: u128, turn: u64) {
        self.turns[place] = turn;
        self.set(place, Some(load));
    }

    /// Records that a place was picked: it comes last in ties.
    pub(super) fn picked(&mut self, place: usize) {
        self.last_turn += 1;
        self.turns[place] = self.last_turn;
        let load = self.load(place);
        self.set(place, load);
    }

    /// Returns a place's load, if it is a candidate.
    pub(super) fn load(&self, place: usize) -> Option<u128> {
        Some(self.scores[place].load).filter(|load| *load != OUT.load)
    }

    /// Returns a place's order among equal loads.
    pub(super) fn turn(&self, place: usize) -> u64 {
        self.turns[place]
    }

    /// Returns the place with the least load that `refuses` does not reject.
    pub(super) fn least(&self, refuses: &dyn Fn(usize) -> bool) -> Option<usize> {
        self.least_below(1, refuses)
    }

    /// Returns the same for the subtree of a node. If its winner is rejected, both halves play without it: the nodes
    /// visited are the places rejected times the logarithm of all places.
    fn least_below(&self, node: usize, refuses: &dyn Fn(usize) -> bool) -> Option<usize> {
        let winner = self.winners[node] as usize;
        if self.scores[winner] == OUT {
            return None;
        }
        if !refuses(winner) {
            return Some(winner);
        }
        if node >= self.leaves {
            return None;
        }
        match (self.least_below(2 * node, refuses), self.least_below(2 * node + 1, refuses)) {
            (Some(left), Some(right)) => Some(if self.scores[left] <= self.scores[right] { left } else { right }),
            (left, right) => left.or(right),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_load_wins_and_ties_rotate_from_the_first_place() {
        let mut tournament = Tournament::new(3, 1);
        assert_eq!(tournament.least(&|_| false), None);
        (0..3).for_each(|place| tournament.set(place, Some(7)));
        let mut order = Vec::new();
        for _ in 0..6 {
            let place = tournament.least(&|_| false).unwrap();
            tournament.picked(place);
            order.push(place);
        }
        assert_eq!(order, [1, 2, 0, 1, 2, 0]);
        tournament.set(2, Some(6));
        assert_eq!(tournament.least(&|_| false), Some(2));
        tournament.set(2, None);
        assert_eq!(tournament.least(&|place| place == 1), Some(0));
        assert_eq!(tournament.least(&|_| true), None);
        assert_eq!(tournament.least(&|_| false), Some(1), "a refusal changes nothing");
    }

    #[test]
    fn tournament_agrees_with_a_linear_search() {
        for places in [1, 2, 5, 16, 33] {
            let mut tournament = Tournament::new(places, 0);
            let mut loads = vec![None; places];
            let mut random = crate::rng::Rng::new(places as u64);
            for _ in 0..2000 {
                let place = random.below(places as u64) as usize;
                loads[place] = (random.below(4) > 0).then(|| u128::from(random.below(50)));
                tournament.set(place, loads[place]);
                let refused = random.below(1 << places.min(5)) as usize;
                let refuses = |place: usize| refused >> (place % 5) & 1 == 1;
                let least = (0..places).filter(|place| !refuses(*place)).filter_map(|place| loads[place]).min();
                let found = tournament.least(&refuses);
                assert_eq!(found.and_then(|place| loads[place]), least);
                assert!(found.is_none_or(|place| !refuses(place)));
            }
        }
    }
}
