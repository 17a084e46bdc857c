//! Source hash: by the client alone, whichever server draws the highest number for it (weighted
//! rendezvous hashing: Thaler, Ravishankar 1998). When a server goes only its clients move; when one
//! comes it takes its share and nobody else moves. A pick looks at every candidate: for pools of
//! thousands Maglev is the cheaper choice.

use super::hash::Hash;
use crate::rng::mix;

/// Candidates with their weights and hashes.
#[derive(Debug, Clone)]
pub(super) struct SourceHash {
    hashes: Vec<u64>,
    weights: Vec<u32>,
    /// Whether all candidates have one weight: then the numbers alone decide.
    even: bool,
}

impl SourceHash {
    /// Makes one over the servers of these names, without candidates.
    pub(super) fn new<'a>(hash: Hash, names: impl Iterator<Item = &'a str>) -> Self {
        let hashes: Vec<u64> = names.map(|name| hash.name(name, 0)).collect();
        SourceHash { weights: vec![0; hashes.len()], hashes, even: true }
    }

    /// Takes new weights; 0 is no candidate.
    pub(super) fn set_weights(&mut self, weights: &[u32]) {
        self.weights.copy_from_slice(weights);
        let mut candidates = weights.iter().filter(|weight| **weight > 0);
        let first = candidates.next();
        self.even = candidates.all(|weight| Some(weight) == first);
    }

    /// Returns what a server draws for a client, as text; none where it is no candidate.
    pub(super) fn draw(&self, client: u64, place: usize) -> Option<String> {
        let weight = self.weights[place];
        let number = mix(client ^ self.hashes[place]);
        match (weight, self.even) {
            (0, _) => None,
            (_, true) => Some(format!("{number:016x}")),
            (weight, false) => Some(format!("{:.4}", weighted(number, weight))),
        }
    }

    /// Picks the server of a client by its hash.
    pub(super) fn pick(&self, client: u64, refuses: &dyn Fn(usize) -> bool) -> Option<usize> {
        let candidates = self.weights.iter().enumerate().filter(|(place, weight)| **weight > 0 && !refuses(*place));
        let number = |place: usize| mix(client ^ self.hashes[place]);
        if self.even {
            return candidates.map(|(place, _)| place).max_by_key(|place| number(*place));
        }
        let drawn = candidates.map(|(place, weight)| (place, weighted(number(place), *weight)));
        drawn.max_by(|a, b| a.1.total_cmp(&b.1)).map(|(place, _)| place)
    }
}

/// What a number counts as for a server of a weight.
fn weighted(number: u64, weight: u32) -> f64 {
    // Between 0 and 1, neither included; -weight / ln(x) is the draw of that weight.
    let x = (number >> 11) as f64 + 0.5;
    -f64::from(weight) / (x / (1u64 << 53) as f64).ln()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn servers(weights: &[u32]) -> SourceHash {
        let names: Vec<String> = (0..weights.len()).map(|i| format!("s{i}")).collect();
        let mut all = SourceHash::new(Hash::new(1), names.iter().map(String::as_str));
        all.set_weights(weights);
        all
    }

    fn clients() -> impl Iterator<Item = u64> {
        (0..10_000u64).map(mix)
    }

    #[test]
    fn clients_spread_by_weight() {
        for weights in [[1, 1, 1, 0], [3, 2, 5, 0]] {
            let all = servers(&weights);
            let mut got = [0; 4];
            clients().for_each(|client| got[all.pick(client, &|_| false).unwrap()] += 1);
            let sum: u32 = weights.iter().sum();
            for (n, weight) in got.iter().zip(weights) {
                // Six standard deviations of 10,000 draws are under 300.
                assert!(i32::abs(n - (10_000 * weight / sum) as i32) < 300, "{got:?}");
            }
        }
        assert_eq!(servers(&[0, 0]).pick(1, &|_| false), None);
    }

    #[test]
    fn only_the_clients_of_a_lost_server_move() {
        for weights in [[1, 1, 1], [3, 2, 5]] {
            let all = servers(&weights);
            let mut without = servers(&weights);
            without.set_weights(&[weights[0], 0, weights[2]]);
            for client in clients() {
                let before = all.pick(client, &|_| false).unwrap();
                let after = without.pick(client, &|_| false).unwrap();
                assert!(before == 1 || before == after);
                assert_eq!(all.pick(client, &|place| place == 1), Some(after));
            }
        }
    }
}
