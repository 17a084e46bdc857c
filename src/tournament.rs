//! The minimum of many scores, maintained while single scores change: a winner tree. Changing one costs the logarithm
//! of their number and reading the minimum costs nothing, so picking from a pool of 10,000 servers is as fast as from
//! one of ten.

/// What is compared: the load first, then whose turn it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Score {
    load: u128,
    turn: u64,
    place: u32,
}

/// The load and the turn of what is not a candidate.
const OUT: (u128, u64) = (u128::MAX, u64::MAX);

/// Two that play against each other, in one cache line: a change reads one line per level.
#[derive(Debug, Clone, Copy)]
#[repr(align(64))]
struct Match([Score; 2]);

impl Match {
    fn winner(&self) -> Score {
        // The lower place wins where everything else is equal.
        self.0[0].min(self.0[1])
    }
}

/// Scores by place; among equal loads, the place picked longest ago comes first.
#[derive(Debug, Clone)]
#[repr(C)] // A read of the least takes one line of this.
pub(crate) struct Tournament {
    /// By node: node 1 is the root, node `leaves + place` is a place; each other node has the score of the winner below
    /// it. Node 0 is unused.
    nodes: Vec<Match>,
    /// The turn that each place has when it is a candidate.
    turns: Vec<u64>,
    leaves: usize,
    last_turn: u64,
}

impl Tournament {
    /// Creates a tournament of `places`, none of them a candidate; among places never picked, `first` comes first, then
    /// the places after it.
    pub(crate) fn new(places: usize, first: usize) -> Self {
        let leaves = places.next_power_of_two().max(1);
        let turn = |place: usize| ((place + places - first % places.max(1)) % places.max(1)) as u64;
        let out = |node: usize| Score { load: OUT.0, turn: OUT.1, place: node.saturating_sub(leaves) as u32 };
        let mut tournament = Tournament {
            turns: (0..places).map(turn).collect(),
            nodes: (0..leaves).map(|at| Match([out(2 * at), out(2 * at + 1)])).collect(),
            leaves,
            last_turn: places as u64,
        };
        for node in (1..leaves).rev() {
            *tournament.node_mut(node) = tournament.nodes[node].winner();
        }
        tournament
    }

    fn node(&self, node: usize) -> &Score {
        &self.nodes[node / 2].0[node % 2]
    }

    fn node_mut(&mut self, node: usize) -> &mut Score {
        &mut self.nodes[node / 2].0[node % 2]
    }

    /// Adds places at the end, none of them a candidate.
    pub(crate) fn grow(&mut self, places: usize) {
        let mut grown = Tournament::new(places, 0);
        grown.last_turn = grown.last_turn.max(self.last_turn);
        for (place, turn) in self.turns.iter().enumerate() {
            grown.turns[place] = *turn;
            grown.set(place, self.load(place));
        }
        *self = grown;
    }

    /// Sets a place's load; none removes it.
    pub(crate) fn set(&mut self, place: usize, load: Option<u128>) {
        let (load, turn) = load.map_or(OUT, |load| (load, self.turns[place]));
        let (mut node, mut score) = (self.leaves + place, Score { load, turn, place: place as u32 });
        while node > 0 && *self.node(node) != score {
            *self.node_mut(node) = score;
            score = self.nodes[node / 2].winner();
            node /= 2;
        }
    }

    /// Sets a place's load, and its order among equal loads.
    pub(crate) fn set_turn(&mut self, place: usize, load: u128, turn: u64) {
        self.turns[place] = turn;
        self.set(place, Some(load));
    }

    /// Records that a place was picked: it comes last in ties.
    pub(crate) fn picked(&mut self, place: usize) {
        self.last_turn += 1;
        self.turns[place] = self.last_turn;
        let load = self.load(place);
        self.set(place, load);
    }

    /// Returns a place's load, if it is a candidate.
    pub(crate) fn load(&self, place: usize) -> Option<u128> {
        Some(self.node(self.leaves + place).load).filter(|load| *load != OUT.0)
    }

    /// Returns a place's order among equal loads.
    pub(crate) fn turn(&self, place: usize) -> u64 {
        self.turns[place]
    }

    /// Returns the place with the least load that `refuses` does not reject.
    pub(crate) fn least(&self, refuses: &dyn Fn(usize) -> bool) -> Option<usize> {
        self.least_below(1, refuses).map(|score| score.place as usize)
    }

    /// Returns the same for the subtree of a node. If its winner is rejected, both halves play without it: the nodes
    /// visited are the places rejected times the logarithm of all places.
    fn least_below(&self, node: usize, refuses: &dyn Fn(usize) -> bool) -> Option<&Score> {
        let winner = self.node(node);
        if winner.load == OUT.0 {
            return None;
        }
        if !refuses(winner.place as usize) {
            return Some(winner);
        }
        if node >= self.leaves {
            return None;
        }
        match (self.least_below(2 * node, refuses), self.least_below(2 * node + 1, refuses)) {
            (Some(left), Some(right)) => Some(left.min(right)),
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
